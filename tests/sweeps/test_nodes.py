"""A sweep on a Ray cluster of several nodes, one of which is lost; all on this machine (tests/cluster: on several)."""

import json
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from lmc_tune.tables.store import Store
from tests.sweeps.cases import SPACE, assert_same_tables, command, environment, lmc_tune_json, write_space

pytestmark = pytest.mark.slow

_PAIRS = 24


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """A cluster. environment: what a driver needs to be let in."""

    address: str
    raylets: list[psutil.Process]
    environment: dict[str, str]
    process: subprocess.Popen[str]

    def remove(self, number: int) -> None:
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        self.raylets[number].wait(30)

    def training(self) -> set[int]:
        """Nodes that have a trial of Tune at work."""
        return {number for number, raylet in enumerate(self.raylets) if _trains(raylet)}


def _trains(raylet: psutil.Process) -> bool:
    try:
        return any(".train" in " ".join(child.cmdline()) for child in raylet.children(recursive=True))
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    scratch = tempfile.mkdtemp(prefix="lmc-", dir="/tmp")  # short: Ray puts sockets below it
    ours = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # all on loopback
        "RAY_USAGE_STATS_ENABLED": "0",
        "TMPDIR": scratch,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.sweeps.nodes", "3"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(**ours),
    )
    try:
        told = json.loads(process.stdout.readline())
        raylets = [psutil.Process(pid) for pid in told["raylets"]]
        yield Nodes(address=told["address"], raylets=raylets, environment=ours, process=process)
        process.communicate(timeout=60)
        assert not psutil.wait_procs(raylets, timeout=15)[1], "no node outlives the cluster"
    finally:
        process.kill()
        shutil.rmtree(scratch, ignore_errors=True)


def _start(*arguments: str | Path, **extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**extra)
    )


def test_a_lost_node_costs_no_pair_and_without_the_token_nobody_gets_in(nodes: Nodes, tmp_path: Path) -> None:
    text = SPACE.replace("replicates: 2", "replicates: 3").replace("epochs: 20", "epochs: 30")
    arguments = ("sweep", write_space(tmp_path, text), "--no-report")
    run = tmp_path / "cluster"
    sweep = _start(*arguments, "--address", nodes.address, "--out", run, **nodes.environment)
    other = nodes.environment | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    stranger = _start(*arguments, "--address", nodes.address, "--out", tmp_path / "stranger", **other)
    seen, lost = set[int](), None
    deadline = time.monotonic() + 120
    while lost is None:
        assert sweep.poll() is None, sweep.communicate()
        assert time.monotonic() < deadline, f"nodes seen to train: {seen}"
        at_work = nodes.training()
        seen |= at_work
        if len(Store(run).statuses()) >= _PAIRS // 4:
            lost = max(at_work - {0}, default=None)
        time.sleep(0.05)
    nodes.remove(lost)
    assert len(Store(run).statuses()) < _PAIRS
    _, told = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, told
    assert len(seen) > 1
    assert len(Store(run).results()) == _PAIRS

    _, told = stranger.communicate(timeout=120)
    assert stranger.returncode == 2
    assert f"cannot connect to a Ray cluster at {nodes.address}" in told
    assert "Traceback" not in told
    assert Store(tmp_path / "stranger").statuses() == {}

    lmc_tune_json(*arguments, "--out", tmp_path / "alone")
    assert_same_tables(run, tmp_path / "alone")
