import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lmc_tune.experiment import VerdictSpec
from lmc_tune.tables.store import Store
from lmc_tune.tables.sweep_record import SweepRecord
from lmc_tune.tracking.background import BackgroundMirror
from lmc_tune.tracking.mirror import Sent
from lmc_tune.tracking.track import track
from tests.tracking.cases import pair_result, six_results, write_folder
from tests.tracking.conftest import free_port
from tests.tracking.shown import content, pair_runs, parents, statuses
from tests.tracking.test_mirror import uri_of


def test_what_was_sent_on_the_way_equals_what_is_sent_afterwards(tmp_path, folder, empty_store):
    results, said = six_results(), []
    write_folder(folder, results)
    mirror = BackgroundMirror(folder, SweepRecord.read(folder), say=said.append)
    for result in results:
        mirror.send([result])
    assert mirror.close()
    assert said == []
    other = write_folder(tmp_path / "afterwards", results)
    shutil.copy(empty_store, other)
    track(other)
    assert content(uri_of(other), other / "artifacts") == content(uri_of(folder), folder / "artifacts")
    assert track(folder) == Sent(unchanged=6)


def test_close_sends_what_only_the_tables_know(folder):
    write_folder(folder, six_results())
    mirror = BackgroundMirror(folder, SweepRecord.read(folder))
    mirror.send([pair_result()])
    Store(folder).compact(VerdictSpec(min_train_accuracy=0.995))
    assert mirror.close()
    tags = [run.data.tags["status"] for run in pair_runs(uri_of(folder)).values()]
    assert sorted(tags) == ["diverged", "failed"] + 4 * ["undertrained"]


def test_an_interrupted_sweep_shows_as_killed(folder):
    write_folder(folder, [pair_result()])
    assert BackgroundMirror(folder, SweepRecord.read(folder)).close("KILLED")
    assert statuses(uri_of(folder)) == ["FINISHED", "FINISHED", "KILLED"]


def test_a_dead_server_is_told_once_and_caught_up_later(tmp_path, folder):
    run, said = write_folder(tmp_path / "one", six_results()), []
    dead = f"http://user:secret@127.0.0.1:{free_port()}"
    mirror = BackgroundMirror(run, SweepRecord.read(run), dead, say=said.append)
    for result in six_results():
        mirror.send([result])
    assert not mirror.close(patience_seconds=20)
    [message] = said
    assert "does not answer (connection refused). The run folder keeps everything" in message
    assert f"lmc-tune track {run} --tracking-uri http://127.0.0.1" in message
    assert "secret" not in message
    assert track(run, uri_of(folder)) == Sent(created=6)
    assert track(write_folder(folder, six_results())) == Sent(unchanged=6)


def test_a_server_that_never_answers_blocks_nothing(tmp_path, silent_server):
    run, said = write_folder(tmp_path / "one", six_results()), []
    started = time.monotonic()
    mirror = BackgroundMirror(run, SweepRecord.read(run), silent_server, say=said.append)
    mirror.send(1000 * six_results())
    assert time.monotonic() - started < 2
    assert not mirror.close(patience_seconds=1)
    assert time.monotonic() - started < 10
    [message] = said
    assert "did not answer in time" in message
    assert "secret" not in message


def test_a_slow_server_is_waited_for_no_longer_than_said(folder):
    write_folder(folder, six_results())
    said: list[str] = []
    mirror = BackgroundMirror(folder, SweepRecord.read(folder), say=said.append)
    assert not mirror.close(limit_seconds=0)
    assert "did not answer in time" in said[0]
    mirror._thread.join()


def test_an_interrupted_sweep_is_not_kept_by_a_slow_server(tmp_path, silent_server):
    run, said, closed = write_folder(tmp_path / "one", [pair_result()]), [], threading.Event()
    mirror = BackgroundMirror(run, SweepRecord.read(run), silent_server, say=said.append)

    def creep() -> None:
        while not closed.wait(0.01):
            mirror._progress()

    threading.Thread(target=creep).start()
    try:
        assert not mirror.close("KILLED", patience_seconds=0.5)
    finally:
        closed.set()
    assert "did not answer in time" in said[0]


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("sqlite:////proc/x.db", "The MLflow store sqlite:////proc/x.db cannot be written"),
        ("localhost:5000", "The tracking URI localhost:5000 has no scheme; write http://localhost:5000. "),
    ],
)
def test_a_store_that_can_never_be_used_is_told_once_and_stops_nothing(tmp_path, uri, reason):
    run, said = write_folder(tmp_path / "one", six_results()), []
    mirror = BackgroundMirror(run, SweepRecord.read(run), uri, say=said.append)
    mirror.send(six_results())
    assert not mirror.close()
    [message] = said
    assert message.startswith(reason)
    assert "The run folder keeps everything" in message


def test_a_damaged_table_leaves_no_parent_running(folder):
    write_folder(folder, six_results())
    (folder / "paths.parquet").write_bytes(b"damaged")
    said: list[str] = []
    assert not BackgroundMirror(folder, SweepRecord.read(folder), say=said.append).close()
    assert [parent.info.status for parent in parents(uri_of(folder))] == ["FAILED"]
    assert "RUNNING" not in statuses(uri_of(folder))
    assert "paths.parquet" in said[0]


@pytest.mark.slow
def test_the_first_use_prints_nothing_and_leaves_one_whole_store(tmp_path):
    run = write_folder(tmp_path / "one", six_results())
    script = "import sys; from pathlib import Path; from lmc_tune.tracking.track import track; track(Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", script, str(run)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    hidden = [path.name for path in Path(run).iterdir() if path.name.startswith(".")]
    assert hidden == []
