"""What logging a pair to MLflow costs: ``python -m benchmarks.tracking``.

The cells and pairs of the quickstart are sent to fresh SQLite stores, and then once more to the same store, which
changes nothing. Sending is one thread's work and is counted in its processor time, which other programs on the machine
change little.
"""

import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import command
from benchmarks.publish import publish
from benchmarks.timing import RUNS
from lmc_tune.tables.store import Store
from lmc_tune.tables.sweep_record import SweepRecord
from lmc_tune.tracking.connection import ARTIFACTS, STORE_FILE
from lmc_tune.tracking.mirror import open_mirror
from lmc_tune.tracking.track import send_all


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        sweep = command("sweep", "quickstart", "--out", str(run), "--no-report")
        subprocess.run(sweep, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        sent = [_send_twice(run, Path(scratch) / f"store-{number}") for number in range(RUNS)]
        results = Store(run).results(["cell"])
        pairs, cells = len(results), results["cell"].nunique()
    first, again, database, artifacts = (statistics.median(column) / pairs for column in zip(*sent, strict=True))
    publish(
        "tracking",
        [
            {
                "pairs": pairs,
                "cells": cells,
                "runs": RUNS,
                "cpu_ms_per_pair": 1000 * first,
                "again_cpu_ms_per_pair": 1000 * again,
                "database_kb_per_pair": database / 1e3,
                "artifacts_kb_per_pair": artifacts / 1e3,
            }
        ],
    )


def _send_twice(run: Path, folder: Path) -> Sequence[float]:
    """Processor seconds of sending and of sending again; bytes that this added to the database, and of artifacts."""
    folder.mkdir()
    file, uri = folder / STORE_FILE, f"sqlite:///{folder / STORE_FILE}"
    record = SweepRecord.read(run)
    mirror = open_mirror(run, record, uri)  # creates the tables
    empty = file.stat().st_size
    started = time.process_time()
    send_all(mirror, run)
    first = time.process_time() - started
    size = file.stat().st_size - empty
    mirror = open_mirror(run, record, uri)
    started = time.process_time()
    send_all(mirror, run)
    again = time.process_time() - started
    artifacts = sum(path.stat().st_size for path in (folder / ARTIFACTS).rglob("*") if path.is_file())
    return first, again, size, artifacts


if __name__ == "__main__":
    main()
