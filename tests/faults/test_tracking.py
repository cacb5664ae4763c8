"""MLflow that dies, comes back, answers nonsense, or is locked: sweeps go on, and the mirror is made whole later."""

import http.client
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from lmc_tune.tables.columns import TIME_FIELDS
from lmc_tune.tables.sweep_record import SweepRecord
from tests.faults.cases import CELLS, PAIRS, Sweep, assert_whole
from tests.sweeps.cases import lmc_tune_json
from tests.tracking.conftest import free_port, serving
from tests.tracking.shown import all_runs, history

pytestmark = [pytest.mark.slow, pytest.mark.faults]

TOLD_ONCE = "The run folder keeps everything; send it later with: lmc-tune track"


@pytest.fixture(scope="module", autouse=True)
def _patience() -> Iterator[None]:
    """For the test's own look at what the servers show."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        yield


@contextmanager
def server_on(port: int, home: Path) -> Iterator[str]:
    """A real MLflow server, whose store and artifacts outlive it."""
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{home}/m.db", "--artifacts-destination", f"{home}/artifacts"]
    with serving(command, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}, port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server_on(free_port(), tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture(scope="module")
def expected(server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is shown of a sweep that had the server all along."""
    sweep = Sweep(home=tmp_path_factory.mktemp("calm")).prepare()
    assert sweep.again("--tracking-uri", server)["mirrored"]
    shown = shown_of(server, sweep)
    assert len(shown) == PAIRS + CELLS + 1
    return shown


def shown_of(server: str, sweep: Sweep) -> dict[str, Any]:
    """Of every run of a sweep what does not depend on the sweep's id and on how long things took, by key."""
    sweep_id, shown, client = SweepRecord.read(sweep.run).id, dict[str, Any](), MlflowClient(server)
    for run in all_runs(server):
        if run.data.tags["lmc_tune.sweep"] != sweep_id:
            continue
        own = {
            "sweep": "parent",
            "cell": f"cell {run.data.tags.get('cell')}",
            "pair": run.data.tags.get("lmc_tune.key"),
        }
        key, name = own[run.data.tags["kind"]], run.info.run_name.replace(sweep_id[:8], "ID")
        assert key not in shown, "a pair or a cell has two runs"
        tags = {name: value for name, value in run.data.tags.items() if name not in _OF_ONE_SWEEP}
        metrics = {name: points for name, points in history(server, run).items() if name not in TIME_FIELDS}
        files = sorted(file.path for file in client.list_artifacts(run.info.run_id))
        texts = {file: _text(client, run, file) for file in files if file != "report.html"}
        shown[key] = (name, run.info.status, run.data.params, tags, metrics, files, texts)
    return shown


_OF_ONE_SWEEP = {"lmc_tune.sweep", "lmc_tune.metrics_digest", "mlflow.parentRunId", "mlflow.runName"}


def _text(client: MlflowClient, run: Any, file: str) -> str:
    return Path(client.download_artifacts(run.info.run_id, file)).read_text(encoding="utf-8")


def started_and_held(sweep: Sweep, uri: str, runs: int = 3) -> "subprocess.Popen[str]":
    """A sweep of which so many runs are shown, in the middle of a training."""
    driver = sweep.start("--workers", "1", "--tracking-uri", uri)
    sweep.wait_for(lambda: sweep.finished() >= runs - 1, driver)
    sweep.hold("training")
    sweep.await_held("training", driver)
    sweep.wait_for(lambda: len(shown_of(uri, sweep)) >= runs, driver)
    return driver


def go_on_until_told(sweep: Sweep, driver: "subprocess.Popen[str]") -> None:
    """Another pair is finished, which the driver tries to send; then it is held again."""
    known = sweep.finished()
    sweep.release("training")
    sweep.wait_for(lambda: sweep.finished() > known, driver)
    sweep.hold("training")
    sweep.await_held("training", driver)
    sweep.wait_for(lambda: TOLD_ONCE in sweep.told, driver)


def test_a_server_that_comes_back_before_the_end_shows_what_one_shows_that_was_there_all_along(
    sweep: Sweep, reference: Sweep, expected: dict[str, Any], tmp_path: Path
) -> None:
    port = free_port()
    with server_on(port, tmp_path) as address:
        driver = started_and_held(sweep, address)
    go_on_until_told(sweep, driver)  # without the server: it was killed by SIGKILL
    with server_on(port, tmp_path):
        sweep.release("training")
        assert driver.wait(180) == 0, sweep.told
        assert sweep.told.count(TOLD_ONCE) == 1
        assert "MLflow can be reached again and shows every result" in sweep.told
        assert shown_of(address, sweep) == expected
    assert_whole(sweep, reference, mirror=False)


def test_a_server_that_comes_back_after_the_end_is_sent_what_is_missing(
    sweep: Sweep, reference: Sweep, expected: dict[str, Any], tmp_path: Path
) -> None:
    port = free_port()
    with server_on(port, tmp_path) as address:
        driver = started_and_held(sweep, address)
    sweep.release("training")
    assert driver.wait(180) == 0, sweep.told
    assert sweep.told.count(TOLD_ONCE) == 1
    with server_on(port, tmp_path):
        sent = lmc_tune_json("track", sweep.run, "--tracking-uri", address)
        assert sent["created"] > 0
        assert sum(sent.values()) == PAIRS
        assert shown_of(address, sweep) == expected
    assert_whole(sweep, reference, mirror=False)


def test_a_server_that_never_was_there_is_sent_everything_later(
    sweep: Sweep, reference: Sweep, expected: dict[str, Any], server: str
) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    driver = sweep.start("--workers", "2", "--tracking-uri", dead)
    assert driver.wait(180) == 0, sweep.told
    assert sweep.told.count(TOLD_ONCE) == 1
    assert lmc_tune_json("track", sweep.run, "--tracking-uri", server)["created"] == PAIRS
    assert shown_of(server, sweep) == expected
    assert_whole(sweep, reference, mirror=False)


class Network(ThreadingHTTPServer):
    """What lies between a sweep and its server. ``state``: works, cut, failing (answers 500), or slow."""

    state = "works"

    def __init__(self, server: str) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.target = server.removeprefix("http://")
        self.relaying: set[int] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def await_silence(self) -> None:
        """What was asked for has reached the server, whether or not anybody waits for its answer."""
        while self.relaying:
            time.sleep(0.1)


class _Relay(BaseHTTPRequestHandler):
    server: Network

    def relay(self) -> None:
        self.server.relaying.add(threading.get_ident())
        try:
            self._relay()
        except BrokenPipeError:
            pass  # nobody waits for the answer any more
        finally:
            self.server.relaying.discard(threading.get_ident())

    def _relay(self) -> None:
        if self.server.state == "cut":
            self.connection.close()
            return
        if self.server.state == "failing":
            self.send_error(500)
            return
        if self.server.state == "slow":
            time.sleep(SLOW_SECONDS)
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        with closing(http.client.HTTPConnection(self.server.target, timeout=60)) as connection:
            connection.request(self.command, self.path, content, headers)
            answer = connection.getresponse()
            said = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = relay  # noqa: N815 - the names that http.server calls

    def log_message(self, *_: object) -> None:
        pass


# Longer than a sweep waits for an answer.
SLOW_SECONDS = 15


@pytest.fixture
def network(server: str) -> Iterator[Network]:
    with Network(server) as made:
        threading.Thread(target=made.serve_forever).start()
        yield made
        made.shutdown()


@pytest.mark.parametrize("state", ["cut", "failing", "slow"])
def test_a_network_that_fails_stops_nothing_and_the_mirror_is_made_whole_when_it_works_again(
    sweep: Sweep, reference: Sweep, expected: dict[str, Any], network: Network, state: str
) -> None:
    driver = started_and_held(sweep, network.address)
    network.state = state
    sweep.release("training")
    assert driver.wait(180) == 0, sweep.told
    assert sweep.told.count(TOLD_ONCE) == 1
    network.state = "works"
    network.await_silence()
    assert sweep.again("--tracking-uri", network.address)["mirrored"]
    assert shown_of(network.address, sweep) == expected
    assert_whole(sweep, reference, mirror=False)


def test_a_store_that_another_process_locks_for_40_seconds_is_made_whole(sweep: Sweep, reference: Sweep) -> None:
    driver = sweep.start("--workers", "1")
    sweep.wait_for(lambda: sweep.finished() >= 2, driver)
    sweep.hold("training")
    sweep.await_held("training", driver)
    locked = subprocess.Popen(
        [sys.executable, "-c", _LOCK, str(sweep.run / "mlflow.db")], stdout=subprocess.PIPE, text=True
    )
    with locked:
        assert locked.stdout
        assert locked.stdout.readline() == "locked\n"
        sweep.release("training")
        assert driver.wait(180) == 0, sweep.told
        assert sweep.told.count(TOLD_ONCE) <= 1
    assert sweep.finished() == PAIRS
    assert sweep.again()["mirrored"]
    assert_whole(sweep, reference)


_LOCK = """
import sqlite3, sys, time
store = sqlite3.connect(sys.argv[1], timeout=60)
store.execute("begin exclusive")
print("locked", flush=True)
time.sleep(40)
store.rollback()
"""
