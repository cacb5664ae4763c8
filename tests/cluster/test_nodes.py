"""`ray up` on machines of our own, as docs/cluster.md has it, with a real sweep that loses one of them."""

import json
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from lmc_tune.tables.store import Store
from tests.cluster.machines import Machine, machines, missing
from tests.sweeps.cases import SPACE, assert_same_tables, lmc_tune_json, write_space

pytestmark = pytest.mark.cluster

_FILE = Path(__file__).resolve().parents[2] / "cluster" / "local.yaml"
_REPLICATES = 6
_PAIRS = 8 * _REPLICATES
_SPACE = SPACE.replace("replicates: 2", f"replicates: {_REPLICATES}").replace("epochs: 20", "epochs: 100")
_DASHBOARD = "http://127.0.0.1:8265"


@dataclass(kw_only=True)
class Cluster:
    """A desk, from which everything is done, and the machines of a cluster; ``seconds`` by what was done."""

    desk: Machine
    nodes: list[Machine]
    file: Path
    shared: Path
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def head(self) -> Machine:
        return self.nodes[0]

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[what] = time.monotonic() - started


@dataclass(frozen=True, kw_only=True)
class Swept:
    """A sweep that lost a machine.

    trained_on: names of the machines seen to train. before, running: keys of the pairs that were finished, and that
    were being trained or measured, when the machine went.
    """

    run: Path
    trained_on: set[str]
    lost: Machine
    before: set[str]
    running: set[str]


def wait_for(find: Callable[[], Any], seconds: float, what: str) -> Any:
    """What ``find`` returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)
    return found


def _fill_in(folder: Path, addresses: dict[str, str]) -> Path:
    """The product's own file with what differs from machine to machine."""
    config = yaml.safe_load(_FILE.read_text())
    head, *workers = list(addresses.values())[1:]
    config["provider"] |= {"head_ip": head, "worker_ips": workers}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(folder / "key")}
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three machines after `ray up`, each of one core for Ray."""
    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("machines")
    addresses = {"desk": "192.0.2.100", "head": "192.0.2.1", "one": "192.0.2.2", "two": "192.0.2.3"}
    with machines(folder, addresses) as made:
        desk, *nodes = made.values()
        for machine in nodes:
            with (machine.home / ".bashrc").open("a") as file:
                file.write("export RAY_OVERRIDE_RESOURCES='{\"CPU\": 1}'\n")
        with (desk.home / ".bashrc").open("a") as file:
            file.write("export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0\n")
        desk.run("ray get-auth-token --generate > /dev/null && chmod 600 ~/.ray/auth_token")
        here = Cluster(desk=desk, nodes=nodes, shared=folder, file=_fill_in(folder, addresses))
        with here.timed("up: head"):
            desk.run(f"ray up {here.file} --yes")
        with here.timed("up: all machines, from there"):
            wait_for(lambda: _alive(here) == len(nodes), 180, "machines that Ray has")
        yield here


def _ask(cluster: Cluster, path: str, *, token: str | None) -> tuple[int, str]:
    """HTTP status and content of a page of the head's dashboard, asked for on the head."""
    header = f"-H 'Authorization: Bearer {token}'" if token else ""
    said = cluster.head.run(f"curl -s -w '\\n%{{http_code}}' {header} {_DASHBOARD}{path}")
    content, _, status = said.rpartition("\n")
    return int(status), content


def _token(machine: Machine) -> str:
    return (machine.home / ".ray" / "auth_token").read_text().strip()


def _alive(cluster: Cluster) -> int:
    status, content = _ask(cluster, "/nodes?view=summary", token=_token(cluster.desk))
    assert status == 200, content
    return sum(node["raylet"].get("state") == "ALIVE" for node in json.loads(content)["data"]["summary"])


def _trains(machine: Machine) -> bool:
    """Whether a trial of Tune is at work there."""
    return any(re.match(r"ray::.*\.train", line) for line in machine.processes().values())


@contextmanager
def _dashboard(cluster: Cluster) -> Iterator[None]:
    """The tunnel of `ray dashboard`, from the desk."""
    with subprocess.Popen(
        cluster.desk.enter(f"exec ray dashboard {cluster.file}"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ):
        try:
            wait_for(lambda: cluster.desk.run(f"curl -s {_DASHBOARD}/ || true"), 60, "a tunnel to the dashboard")
            yield
        finally:
            for pid, line in cluster.desk.processes().items():
                if "8265:localhost:8265" in line:  # SSH's, which `ray dashboard` waits for
                    os.kill(pid, signal.SIGTERM)


@pytest.fixture(scope="module")
def swept(cluster: Cluster) -> Swept:
    """A sweep submitted as a job, that goes on to its end after a machine that trains pairs of it is powered off."""
    desk, run = cluster.desk, cluster.shared / "run"
    store = Store(run)
    space, workers = write_space(desk.home, _SPACE), cluster.nodes[1:]
    trained_on = set[str]()

    def quarter_done() -> bool:
        trained_on.update(machine.name for machine in cluster.nodes if _trains(machine))
        return len(store.statuses()) >= _PAIRS // 4

    def all_at_work() -> Machine | None:
        at_work = [machine for machine in cluster.nodes if _trains(machine)]
        return next(
            (machine for machine in workers if machine in at_work and len(store.running()) >= len(at_work)), None
        )

    with _dashboard(cluster):
        with cluster.timed("submit"):
            desk.run(f"ray rsync-up {cluster.file} {space} {cluster.shared}/tiny.yaml")
            sweep = f"lmc-tune sweep {cluster.shared}/tiny.yaml --address auto --out {run}"
            desk.run(f"ray job submit --address {_DASHBOARD} --no-wait --submission-id tiny -- {sweep}")
        with cluster.timed("sweep"):
            wait_for(quarter_done, 180, "a quarter of the pairs")
            lost = wait_for(all_at_work, 60, "a worker at work")
            lost.power_off(desk)
            before, running = set(store.statuses()), store.running()
            with cluster.timed("sweep: until Ray had noticed the loss"):
                wait_for(lambda: _alive(cluster) == len(cluster.nodes) - 1, 180, "Ray's notice of the loss")
            said = desk.run(f"ray job logs --address {_DASHBOARD} --follow tiny", 400)
        assert "succeeded" in desk.run(f"ray job status --address {_DASHBOARD} tiny"), said
    return Swept(run=run, trained_on=trained_on, lost=lost, before=before, running=running)


def test_ray_has_every_machine_with_its_core(cluster):
    _, content = _ask(cluster, "/nodes?view=summary", token=_token(cluster.desk))
    nodes = json.loads(content)["data"]["summary"]
    assert {node["ip"]: node["raylet"]["resourcesTotal"]["CPU"] for node in nodes} == {
        machine.address: 1 for machine in cluster.nodes
    }


def test_the_token_is_the_same_on_every_machine_and_nobody_elses(cluster):
    for machine in (cluster.desk, *cluster.nodes):
        path = machine.home / ".ray" / "auth_token"
        assert path.read_text() == (cluster.desk.home / ".ray" / "auth_token").read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_dashboard_asks_for_the_token(cluster):
    for page in ("/nodes?view=summary", "/api/jobs/", "/api/cluster_status"):
        assert _ask(cluster, page, token=None)[0] == 401
        assert _ask(cluster, page, token="0" * 64)[0] in {401, 403}
        assert _ask(cluster, page, token=_token(cluster.head))[0] == 200


def test_dashboard_and_mlflow_listen_on_loopback_alone(cluster):
    found = {}
    for line in cluster.head.run("ss --listening --tcp --numeric --no-header").splitlines():
        host, _, port = line.split()[3].rpartition(":")
        found.setdefault(int(port), set()).add(host)
    assert found[8265] == found[5000] == {"127.0.0.1"}


def test_ray_lets_nobody_in_without_the_token(cluster):
    """From a machine in the same network, to the port that workers join by."""
    join = f"ray.init('{cluster.head.address}:6379', log_to_driver=False); print(len(ray.nodes()))"
    command = f'python -c "import ray; {join}"'
    assert cluster.nodes[1].run(command).endswith("3\n")
    with pytest.raises(AssertionError, match="Failed to connect to Ray cluster"):
        cluster.nodes[1].run(f"RAY_AUTH_TOKEN={'0' * 64} {command}")


def test_a_sweep_outlives_a_machine(swept):
    assert swept.lost.name in swept.trained_on
    assert len(swept.trained_on) > 1
    assert swept.lost.processes() == {}
    after = lmc_tune_json("status", swept.run)["counts"]
    assert sum(after.values()) == _PAIRS
    assert (after["failed"], after["pending"]) == (0, 0)
    assert len(swept.running) > 1
    assert 0 < len(swept.before | swept.running) < _PAIRS


def test_its_tables_are_those_of_a_single_machine(swept, tmp_path):
    lmc_tune_json("sweep", write_space(tmp_path, _SPACE), "--out", tmp_path / "run", "--no-report")
    assert_same_tables(swept.run, tmp_path / "run")


def test_down_ends_everything(cluster, swept, capsys):
    """As docs/cluster.md has it for machines of one's own, whose workers `ray down` leaves to themselves."""
    left = [machine for machine in cluster.nodes if machine != swept.lost]
    with cluster.timed("down"):
        cluster.desk.run(f"ray exec {cluster.file} \"pkill -f 'mlflow[ .]server'\"")
        cluster.desk.run(f"ray down {cluster.file} --yes")
        for worker in (machine for machine in left if machine != cluster.head):
            ssh = f"ssh -o StrictHostKeyChecking=no -i {cluster.shared}/key root@{worker.address}"
            cluster.desk.run(f"{ssh} \"bash -ic 'ray stop'\"")
    with cluster.timed("down: until no process was left, from there"):
        wait_for(lambda: not any(machine.processes() for machine in left), 60, "an end of all processes")
    with capsys.disabled():
        print(*(f"\n{what}: {seconds:.0f} s" for what, seconds in cluster.seconds.items()))  # noqa: T201
