"""A sweep, compared with a bare loop over the same pairs: ``python -m benchmarks.sweep``.

It measures what orchestration (Ray, tables, MLflow) adds to a pair: the slope between a shorter and a longer sweep of
tiny pairs with one worker, minus the times for training and measuring that the worker reports. It also measures the
time of a whole sweep with two workers as a fraction of the loop's, which runs on one thread, and then on two. The
machine has to be idle: two threads wait for each other, and lose the most to whatever else runs.
"""

import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence

import pandas as pd

from benchmarks.command import command
from benchmarks.plain_loop import run_plain
from benchmarks.publish import publish
from benchmarks.timing import RUNS
from lmc_tune.data.files import resolve_data_root
from lmc_tune.experiment.reading import read_space
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.tables.store import Store

# For a whole sweep.
TARGETS = {"target_ratio": 0.6, "target_two_thread_ratio": 1}
_PAIRS = (100, 1000)  # of the sweeps of tiny pairs
_REPLICATES = 21  # quickstart's 36 cells then take a bare loop more than five minutes


def main() -> None:
    publish("orchestration", [_orchestration()])
    publish("sweep", [_whole_sweep()])


def tiny_pairs(pairs: int) -> tuple[str, ...]:
    """Settings that turn the quickstart into ``pairs`` pairs, a multiple of ten, of one epoch and one program."""
    lrs = [0.01, 0.02, 0.05, 0.1, 0.2]  # times two shifts
    return ("train.epochs=1", "axes.batch_size=[128]", f"axes.lr={lrs}", f"replicates={pairs // 10}")


def _orchestration() -> dict[str, object]:
    """The slope between two sweeps leaves out what every sweep costs once."""
    few, many = _PAIRS
    sweeps, works = [], []
    for _ in range(RUNS):
        (short, some), (long, all_) = (timed_sweep(tiny_pairs(n), workers=1) for n in _PAIRS)
        sweeps.append((long - short) / (many - few))
        works.append((_work(all_) - _work(some)) / (many - few))
    sweep, work = statistics.median(sweeps), statistics.median(works)
    return {
        "what": "orchestration per pair",
        "pairs": f"{few} and {many}",
        "runs": RUNS,
        "sweep_ms_per_pair": 1000 * sweep,
        "training_and_measuring_ms_per_pair": 1000 * work,
        "difference_ms": 1000 * (sweep - work),
        "target_difference_ms": 30,
    }


def _work(results: pd.DataFrame) -> float:
    return float(results["seconds_train"].sum() + results["seconds_measure"].sum())


def _whole_sweep() -> dict[str, object]:
    sets = (f"replicates={_REPLICATES}",)
    space, data_root = _space(sets), resolve_data_root()
    pairs, lambdas = space.pairs(), space.measure.lambdas
    plain, accuracies = run_plain(pairs, data_root, lambdas)
    two_threads, _ = run_plain(pairs, data_root, lambdas, threads=2)
    seconds, results = timed_sweep(sets, workers=2)
    measured = dict(zip(results["key"], results["test_accuracy_a"], strict=True))
    same = sum(abs(measured[key] - accuracy) < 1e-9 for key, accuracy in accuracies.items())
    return {
        "what": "whole sweep, 2 workers",
        "pairs": len(accuracies),
        "runs": 1,
        "loop_seconds": plain,
        "two_thread_loop_seconds": two_threads,
        "sweep_seconds": seconds,
        "ratio": seconds / plain,
        "two_thread_ratio": seconds / two_threads,
        **TARGETS,
        "pairs_with_equal_accuracy": same,
    }


def _space(sets: Sequence[str]) -> SearchSpace:
    return read_space("quickstart", sets)


def timed_sweep(sets: Sequence[str], workers: int) -> tuple[float, pd.DataFrame]:
    """Seconds of the whole command, report and MLflow included; its results."""
    with tempfile.TemporaryDirectory() as scratch:
        sweep = command("sweep", "quickstart", "--out", scratch, "--workers", str(workers), sets=sets)
        started = time.perf_counter()
        subprocess.run(sweep, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        return seconds, Store(scratch).results()


if __name__ == "__main__":
    main()
