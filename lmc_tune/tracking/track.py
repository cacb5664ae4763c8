"""Sending a whole run folder: the mirror then equals the tables, and cells have their verdicts."""

from collections.abc import Callable, Sequence
from contextlib import suppress

from lmc_tune.experiment.space import SPACE_FILE
from lmc_tune.storage import Place
from lmc_tune.tables.store import Store
from lmc_tune.tables.sweep_record import REPORT_FILE, SweepRecord
from lmc_tune.tracking import connection
from lmc_tune.tracking.mirror import Mirror, Sent, open_mirror
from lmc_tune.tracking.runs import EndStatus

PARENT_ARTIFACTS = (REPORT_FILE, SPACE_FILE)
_PAIRS_PER_READ = 500  # bounds the memory that curves take


def track(folder: Place, uri: str | None = None) -> Sent:
    """Send cells and finished pairs of a run folder to an MLflow store, and the report; what is already there stays.

    Args:
        folder: a run folder.
        uri: of the MLflow store; by default ``MLFLOW_TRACKING_URI``, else the folder's own SQLite file.

    Returns:
        How many pairs' runs were created, updated and left as they were.

    Raises:
        FileNotFoundError: if the folder is not a run folder.
        DamagedTableError: if its tables cannot be read.
        TrackingError: if the store cannot be used. What was sent stays; the next call sends the rest.
    """
    sweep = SweepRecord.read(folder)
    with connection.errors_of(connection.tracking_uri(folder, uri), folder):
        return send_all(open_mirror(folder, sweep, uri), folder)


def send_all(
    mirror: Mirror, folder: Place, status: EndStatus = "FINISHED", progress: Callable[[], None] = lambda: None
) -> Sent:
    """Send what the tables say of every cell and pair, then close the parent run with the answer, report and space.

    If that fails half-way, the parent run is shown as failed rather than left running, where MLflow still answers.

    Args:
        mirror: the destination.
        folder: the run folder.
        status: of the parent run; KILLED if the sweep was interrupted.
        progress: called after each cell and each pair.

    Returns:
        How many pairs' runs were created, updated and left as they were.
    """
    try:
        from lmc_tune.tracking.outcome import read_outcome  # noqa: PLC0415 - what judges cells takes seconds to import

        outcome = read_outcome(folder, mirror.space)
        mirror.send_cells(outcome.cells, progress)
        sent = _send_pairs(mirror, Store(folder), sorted(outcome.statuses), progress)
        mirror.finish(outcome, [folder / name for name in PARENT_ARTIFACTS], status)
    except BaseException:
        with suppress(Exception):
            mirror.end("FAILED")
        raise
    return sent


def _send_pairs(mirror: Mirror, store: Store, keys: Sequence[str], progress: Callable[[], None]) -> Sent:
    sent = Sent()
    for start in range(0, len(keys), _PAIRS_PER_READ):
        for result in store.pairs(keys[start : start + _PAIRS_PER_READ]):
            sent += mirror.send(result)
            progress()
    return sent
