"""Seconds from the command to the first training step: ``python -m benchmarks.startup``."""

import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.command import command
from benchmarks.publish import publish
from benchmarks.timing import RUNS
from lmc_tune.tables.store import Store


def main() -> None:
    seconds = [_seconds_to_first_step() for _ in range(RUNS)]
    publish(
        "startup",
        [
            {
                "what": "command to first training step",
                "runs": RUNS,
                "median_seconds": statistics.median(seconds),
                "fastest_seconds": min(seconds),
                "slowest_seconds": max(seconds),
                "target_median_seconds": 8,
            }
        ],
    )


def _seconds_to_first_step() -> float:
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(Path(scratch) / "run")
        sweep = command("sweep", "quickstart", "--out", str(store.folder), "--no-report", "--max-pairs", "8")
        started = time.time()
        with subprocess.Popen(sweep, stderr=subprocess.DEVNULL) as process:
            while not (stamps := store.shard_stamps()):
                if process.poll() is not None:
                    raise RuntimeError("the sweep ended before a pair was seen to finish")
                time.sleep(0.002)
            path, (published_ns, _) = next(iter(stamps.items()))
            first = store.read_shard(path.stem)[0].row
        began = published_ns / 1e9 - first["seconds_train"] - first["seconds_measure"]
        return float(began - started)


if __name__ == "__main__":
    main()
