"""What logging a pair to MLflow costs: ``python -m benchmarks.tracking``.

The pairs of a short sweep are sent to fresh SQLite stores, and then once more to the same store, which changes nothing.
The table also says how long it took to train and measure such a pair; a sweep does this in other processes.
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

_REPLICATES = 2  # of quickstart's 36 cells


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        sweep = command("sweep", "quickstart", "--out", str(run), "--no-report", sets=[f"replicates={_REPLICATES}"])
        subprocess.run(sweep, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        sent = [_send_twice(run, Path(scratch) / f"store-{number}") for number in range(RUNS)]
        results = Store(run).results()
        pairs = len(results)
        own = float((results["seconds_train"] + results["seconds_measure"]).mean())
    first, again, database, artifacts = (statistics.median(column) / pairs for column in zip(*sent, strict=True))
    publish(
        "tracking",
        [
            {
                "pairs": pairs,
                "runs": RUNS,
                "ms_per_pair": 1000 * first,
                "again_ms_per_pair": 1000 * again,
                "training_and_measuring_ms_per_pair": 1000 * own,
                "share": first / own,
                "database_kb_per_pair": database / 1e3,
                "artifacts_kb_per_pair": artifacts / 1e3,
            }
        ],
    )


def _send_twice(run: Path, folder: Path) -> Sequence[float]:
    """Seconds of the first sending and of the second; bytes that the first added to the database, and of artifacts."""
    folder.mkdir()
    file, uri = folder / STORE_FILE, f"sqlite:///{folder / STORE_FILE}"
    record = SweepRecord.read(run)
    mirror = open_mirror(run, record, uri)  # creates the tables
    empty = file.stat().st_size
    started = time.perf_counter()
    send_all(mirror, run)
    first = time.perf_counter() - started
    size = file.stat().st_size - empty
    mirror = open_mirror(run, record, uri)
    started = time.perf_counter()
    send_all(mirror, run)
    again = time.perf_counter() - started
    artifacts = sum(path.stat().st_size for path in (folder / ARTIFACTS).rglob("*") if path.is_file())
    return first, again, size, artifacts


if __name__ == "__main__":
    main()
