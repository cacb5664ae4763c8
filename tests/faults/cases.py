"""Sweeps that are disturbed, and what has to be true of each of them afterwards."""

import os
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from lmc_tune.tables.store import Store
from tests.faults.networks import GATES
from tests.sweeps.cases import assert_same_tables, command, environment, lmc_tune_json, rows

SPACE = """
name: disturbed
dataset: {name: digits, train: 200, test: 100}
model: {factory: 'tests.faults.networks:gated'}
train: {momentum: 0.9, epochs: 10, batch_size: 10}
axes:
  shift: [{kind: covariate}, {kind: label, ratio: 0.8}]
  lr: [0.01, 0.1]
replicates: 3
measure: {lambdas: 5, refinements: 1}
"""
CELLS, PAIRS = 4, 12
_ROOT = str(Path(__file__).resolve().parents[2])


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep in a folder of its own, run by the command, that can be stopped at a phase of a worker's work."""

    home: Path

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def space(self) -> Path:
        return self.home / "space.yaml"

    @property
    def gates(self) -> Path:
        return self.home / "gates"

    @property
    def told(self) -> str:
        """What the driver that was started last has said so far."""
        return (self.home / "told.txt").read_text(encoding="utf-8")

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])
        return {GATES: str(self.gates), "PYTHONPATH": path}

    def prepare(self) -> "Sweep":
        self.gates.mkdir(parents=True)
        self.space.write_text(SPACE, encoding="utf-8")
        return self

    def arguments(self, *more: str | Path) -> list[str | Path]:
        return ["sweep", self.space, "--out", self.run, "--no-report", *more]

    def start(self, *more: str | Path, **extra: str) -> "subprocess.Popen[str]":
        with (self.home / "told.txt").open("w", encoding="utf-8") as told:
            return subprocess.Popen(
                command(*self.arguments(*more)),
                stdout=subprocess.DEVNULL,
                stderr=told,
                text=True,
                env=environment(**(self.environment | extra)),
                start_new_session=True,
            )

    def again(self, *more: str | Path, **extra: str) -> dict[str, Any]:
        """The same command, to its end."""
        return lmc_tune_json(*self.arguments(*more), **(self.environment | extra))

    def finished(self) -> int:
        return sum(status != "failed" for status in Store(self.run).statuses().values())

    def hold(self, phase: str) -> None:
        (self.gates / f"hold-{phase}").touch()

    def held(self, phase: str) -> int | None:
        """The process that waits at the phase."""
        pids = [int(path.name.rpartition("-")[2]) for path in self.gates.glob(f"held-{phase}-*")]
        return next((pid for pid in pids if psutil.pid_exists(pid)), None)

    def await_held(self, phase: str, driver: "subprocess.Popen[str]") -> psutil.Process:
        self.wait_for(lambda: self.held(phase) is not None, driver)
        return psutil.Process(self.held(phase))

    def release(self, phase: str) -> None:
        for path in self.gates.glob(f"held-{phase}-*"):
            path.unlink()

    def wait_for(self, condition: Callable[[], bool], driver: "subprocess.Popen[str]", seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert driver.poll() is None, f"ended early: {self.told}"
            assert time.monotonic() < deadline, f"nothing came of it in {seconds} s: {self.told}"
            time.sleep(0.02)

    def processes(self) -> list[psutil.Process]:
        """Whatever belongs to the sweep: its environment or its command line names its folder."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                return False
            named = process.environ().get(GATES) == str(self.gates)
            return named or any(str(self.home) in word for word in process.cmdline())
        except psutil.Error:
            return False

    def end(self) -> None:
        """Kill what a test that failed has left."""
        for process in self.processes():
            process.kill()


def assert_whole(sweep: Sweep, reference: Sweep, *, mirror: bool = True) -> None:
    """Nothing lost, nothing twice, nothing left over, once the sweep's last call has ended.

    Args:
        sweep: what was disturbed.
        reference: what was not.
        mirror: whether the sweep has an MLflow store in its folder.
    """
    found = rows(sweep.run)
    assert Counter(found["key"]) == dict.fromkeys(rows(reference.run)["key"], 1)
    assert "failed" not in set(found["status"])
    assert_same_tables(sweep.run, reference.run)
    left = [path.name for name in ("shards", "checkpoints") for path in sorted((sweep.run / name).glob("*"))]
    assert left == [], "neither shards nor checkpoints nor half files"
    assert not list(sweep.run.glob(".*.part"))
    assert_no_process(sweep)
    if mirror:
        assert shown_in(sweep.run / "mlflow.db") == {"FINISHED": (1 + found["cell"].nunique() + len(found), len(found))}


def assert_no_process(sweep: Sweep, seconds: float = 20) -> None:
    """Ray's own take some seconds to notice that their driver is dead."""
    _, alive = psutil.wait_procs(sweep.processes(), timeout=seconds)
    assert not sweep.processes(), [process.cmdline() for process in alive]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but its lock."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def shown_in(store: Path) -> dict[str, tuple[int, int]]:
    """By status: how many runs an MLflow store shows, and of how many different pairs; read past MLflow."""
    query = """
        select status, count(*), count(distinct tags.value) from runs
        left join tags on tags.run_uuid = runs.run_uuid and tags.key = 'lmc_tune.key'
        where lifecycle_stage = 'active' group by status
    """
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as opened:
        return {status: (runs, pairs) for status, runs, pairs in opened.execute(query)}
