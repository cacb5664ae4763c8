"""Seconds to the first training step, and of a sweep that trains next to nothing: ``python -m benchmarks.startup``."""

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.command import command
from benchmarks.publish import publish
from benchmarks.timing import RUNS
from lmc_tune.tables.store import Store

TINY = [
    "axes.shift=[{kind: covariate}]",
    "axes.batch_size=[16]",
    "axes.lr=[0.05, 0.1]",
    "dataset.train=200",
    "dataset.test=100",
    "train.epochs=2",
    "measure.lambdas=5",
]


def main() -> None:
    rows = [
        _row("command to first training step", _seconds_to_first_step, target=7),
        _row("a whole sweep of 10 tiny pairs, report and MLflow included", _seconds_of_a_tiny_sweep, target=10),
    ]
    publish("startup", rows)


def _row(what: str, measured: Callable[[Path], float], target: float) -> dict[str, object]:
    seconds = []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as scratch:
            seconds.append(measured(Path(scratch) / "run"))
    return {
        "what": what,
        "runs": RUNS,
        "median_seconds": statistics.median(seconds),
        "fastest_seconds": min(seconds),
        "slowest_seconds": max(seconds),
        "target_median_seconds": target,
    }


def _seconds_to_first_step(folder: Path) -> float:
    store = Store(folder)
    sweep = command("sweep", "quickstart", "--out", str(folder), "--workers", "2", "--max-pairs", "8")
    started = time.time()
    with subprocess.Popen(sweep, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (stamps := store.shard_stamps()):
            if process.poll() is not None:
                raise RuntimeError("the sweep ended before a pair was seen to finish")
            time.sleep(0.002)
        path, (published_ns, _) = next(iter(stamps.items()))
        first = store.read_shard(path.stem)[0].row
    began = published_ns / 1e9 - first["seconds_train"] - first["seconds_measure"]
    return float(began - started)


def _seconds_of_a_tiny_sweep(folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run(
        command("sweep", "quickstart", "--out", str(folder), "--workers", "2", sets=TINY),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
