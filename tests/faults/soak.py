"""Thousands of tiny pairs while processes are killed every few seconds: ``python -m tests.faults.soak``.

Every few seconds a worker is killed, chosen at random among those there; every eighth time the driver, after which the
same command is given again, as a user would. In the end every pair is there exactly once, and those that an undisturbed
sweep ran as well are equal to its in all columns but the times. Prints figures as JSON.
"""

import argparse
import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
import psutil

from lmc_tune.tables.store import Store
from tests.faults.cases import shown_in
from tests.sweeps.cases import command, environment, rows, workers

CELLS = 20
SPACE = """
name: soak
dataset: {name: digits, train: 200, test: 100}
model: {name: mlp, hidden: [8]}
train: {momentum: 0.9, epochs: 1}
axes:
  shift: [{kind: covariate}, {kind: label, ratio: 0.8}]
  batch_size: [10, 20]
  lr: [0.01, 0.03, 0.1, 0.3, 1.0]
replicates: 100
measure: {lambdas: 5, refinements: 1}
verdict: {min_train_accuracy: 0.0}
"""
# Seconds of work between two kills; each lasts from half to one and a half times as long. Much less than it takes to
# start a worker, and nothing is ever finished.
SECONDS_BETWEEN_KILLS = 10.0
DRIVER_EVERY = 8


@dataclass(kw_only=True)
class Samples:
    """Memory (MB) and open files of processes, second by second."""

    driver: list[tuple[float, int]] = field(default_factory=list)
    workers: list[tuple[float, int]] = field(default_factory=list)

    def take(self, driver: subprocess.Popen[str]) -> None:
        for processes, samples in (([psutil.Process(driver.pid)], self.driver), (workers(driver), self.workers)):
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    if time.time() - process.create_time() > 3:  # before, it is still importing
                        samples.append((process.memory_info().rss / 1e6, process.num_fds()))

    def quarters(self) -> dict[str, dict[str, list[float]]]:
        """Medians of the first and of the last quarter."""
        return {
            name: {
                what: [round(statistics.median(sample[at] for sample in part), 1) for part in _first_and_last(samples)]
                for at, what in enumerate(("megabytes", "files"))
            }
            for name, samples in (("driver", self.driver), ("worker", self.workers))
        }


@dataclass(kw_only=True)
class Figures:
    """What a soak came to. Rates are pairs per second."""

    pairs: int
    compared: int
    seconds: float
    undisturbed_rate: float
    kills_of_workers: int
    kills_of_drivers: int
    calls: int
    undisturbed: dict[str, dict[str, list[float]]]
    disturbed: dict[str, dict[str, list[float]]]

    @property
    def overhead(self) -> float:
        """Time taken, as a multiple of that of an undisturbed sweep."""
        return self.seconds * self.undisturbed_rate / self.pairs


def soak(folder: Path, replicates: int, reference_replicates: int, seed: int, minutes: float) -> Figures:
    """Run an undisturbed sample and the disturbed sweep.

    Raises:
        AssertionError: if a pair is lost, doubled, failed or another than undisturbed, or time is up.
    """
    space = folder / "soak.yaml"
    space.write_text(SPACE)
    until = time.monotonic() + 60 * minutes
    reference, calm = folder / "reference", Samples()
    with _sweep(space, reference, reference_replicates) as driver:
        began, known = time.monotonic(), 0
        for _ in _seconds(driver, until):
            calm.take(driver)
            if not known and (known := len(Store(reference).statuses())):
                began = time.monotonic()  # Ray has started
    rate = (CELLS * reference_replicates - known) / (time.monotonic() - began)
    dice, run, rough = random.Random(seed), folder / "run", Samples()
    killed = {"worker": 0, "driver": 0}
    calls, began, wanted = 0, time.monotonic(), CELLS * replicates
    while _finished(run) < wanted:
        calls += 1
        assert time.monotonic() < until, f"{_finished(run)} of {wanted} pairs after {minutes} minutes"
        with _sweep(space, run, replicates) as driver:
            due = time.monotonic() + SECONDS_BETWEEN_KILLS * dice.uniform(0.5, 1.5)
            for _ in _seconds(driver, until):
                rough.take(driver)
                training = workers(driver)
                if not training or time.monotonic() < due:
                    continue
                if sum(killed.values()) % DRIVER_EVERY == DRIVER_EVERY - 1:
                    driver.kill()
                    killed["driver"] += 1
                else:
                    with suppress(psutil.NoSuchProcess):
                        dice.choice(training).kill()
                    killed["worker"] += 1
                due = time.monotonic() + SECONDS_BETWEEN_KILLS * dice.uniform(0.5, 1.5)
        told = f"{_finished(run)} of {wanted} pairs after call {calls}, {killed['worker']} workers and "
        sys.stderr.write(f"{told}{killed['driver']} drivers killed\n")
    seconds = time.monotonic() - began
    found, expected = rows(run), rows(reference)
    assert len(found) == found["key"].nunique() == wanted
    assert not (found["status"] == "failed").any()
    assert shown_in(run / "mlflow.db") == {"FINISHED": (1 + CELLS + wanted, wanted)}
    same = found[found["key"].isin(expected["key"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(same, expected)
    return Figures(
        pairs=wanted,
        compared=len(same),
        seconds=round(seconds, 1),
        undisturbed_rate=round(rate, 2),
        kills_of_workers=killed["worker"],
        kills_of_drivers=killed["driver"],
        calls=calls,
        undisturbed=calm.quarters(),
        disturbed=rough.quarters(),
    )


@contextmanager
def _sweep(space: Path, run: Path, replicates: int) -> Iterator[subprocess.Popen[str]]:
    """A sweep in a process of its own, which is ended if it has not ended by itself."""
    arguments = ("sweep", space, "--out", run, "--workers", "2", "--no-report", "--set", f"replicates={replicates}")
    with (run.parent / "told.txt").open("a", encoding="utf-8") as told:
        driver = subprocess.Popen(
            command(*arguments), env=environment(), stdout=told, stderr=told, text=True, start_new_session=True
        )
    try:
        yield driver
    finally:
        driver.send_signal(signal.SIGTERM)
        driver.wait()


def _seconds(driver: subprocess.Popen[str], until: float) -> Iterator[None]:
    """Once a second while the driver runs."""
    while driver.poll() is None:
        assert time.monotonic() < until, "time is up"
        yield
        with suppress(subprocess.TimeoutExpired):
            driver.wait(1)


def _finished(run: Path) -> int:
    """Pairs that have a result."""
    return sum(status != "failed" for status in Store(run).statuses().values())


def _first_and_last(samples: Sequence[tuple[float, int]]) -> tuple[Sequence[tuple[float, int]], ...]:
    quarter = max(1, len(samples) // 4)
    return samples[:quarter], samples[-quarter:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=100, help=f"of each of {CELLS} cells")
    parser.add_argument("--reference", type=int, default=20, help="replicates that are run undisturbed as well")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed, and when")
    parser.add_argument("--minutes", type=float, default=40, help="fail after so long")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lmc-soak-"))
    sys.stderr.write(f"in {folder}, which stays if a pair is amiss\n")
    figures = soak(folder, given.replicates, given.reference, given.seed, given.minutes)
    shutil.rmtree(folder)
    print(json.dumps({**asdict(figures), "overhead": round(figures.overhead, 2)}, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
