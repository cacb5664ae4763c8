"""The run folder: created once, owned by one driver at a time."""

import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TextIO

from lmc_tune.errors import UserError
from lmc_tune.experiment.space import SPACE_FILE, SearchSpace
from lmc_tune.experiment.yaml_lines import dump
from lmc_tune.storage import BucketPath, FolderError, Place, place_at, what_fails, write_text
from lmc_tune.sweeps.lease import is_leased, leased
from lmc_tune.tables.sweep_record import SWEEP_FILE, SweepRecord

_VERSIONS = ("lmc-tune", "torch", "torchvision", "ray", "mlflow", "numpy", "pandas", "scikit-learn", "altair")


class StoreFullError(UserError):
    """Results can no longer be written; the message says what to do."""

    exit_code = 1


def run_folder(name: str, out: Place | str | os.PathLike[str] | None, storage: str | os.PathLike[str] | None) -> Place:
    """The run folder of a sweep: ``out``, or the folder of its name in ``storage``, or that in ``runs``.

    Raises:
        FolderError: if both are given, or it is the current folder.
    """
    if out is not None and storage is not None:
        raise FolderError("--out names the run folder itself, --storage the folder of all runs: give one of them")
    folder = (place_at("runs" if storage is None else storage) / name if out is None else place_at(out)).absolute()
    if folder == Path.cwd():
        raise FolderError("--out is the current folder; name a separate folder for the run, e.g. --out runs/mine")
    return folder


@contextmanager
def owned(folder: Place) -> Iterator[Callable[[], None]]:
    """Hold the run folder: it is created if necessary, and no second process can hold it meanwhile.

    On a disk the lock is the kernel's, so it vanishes with the process, however that ends. A bucket has none: see
    :func:`lmc_tune.sweeps.lease.leased`.

    Yields:
        A function that raises FolderError if the folder is no longer held.

    Raises:
        FolderError: if the folder cannot be written, or another process holds it.
    """
    if isinstance(folder, BucketPath):
        with leased(folder) as check:
            yield check
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise FolderError(
            f"cannot write to {folder} ({what_fails(folder, error)}); choose another folder with --out, or change that"
        ) from error
    with lock:
        if not _locked(lock):
            lock.seek(0)
            raise FolderError(
                f"another lmc-tune (process {lock.read().strip() or 'unknown'}) is at work in {folder}; wait for it, "
                f"or choose another folder"
            )
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lambda: None


def _locked(lock: TextIO) -> bool:
    """Lock the file, waiting half a second for others that may only be looking (:func:`is_owned`)."""
    for attempt in range(6):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1 if attempt < 5 else 0)
        else:
            return True
    return False


def is_owned(folder: Place) -> bool:
    """Whether a sweep (or ``track``) is running in the folder."""
    if isinstance(folder, BucketPath):
        return is_leased(folder)
    try:
        with (folder / ".lock").open("r", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def write_description(
    folder: Place, space: SearchSpace, workers: int, planned_pairs: int, search: str = "grid"
) -> None:
    """Write the description of the sweep: the space with its defaults, and its record, whose id is created once.

    A file that already holds this space is not written again, so it keeps its time. That the search has ended is
    forgotten when the space or the search changes.
    """
    known = SweepRecord.read(folder) if (folder / SWEEP_FILE).exists() else None
    path, text = folder / SPACE_FILE, dump(space.plain())
    if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text:
        write_text(path, text)
    still = known is not None and known.search == search and known.has_ended(space)
    SweepRecord(
        id=known.id if known else uuid.uuid4().hex,
        name=space.name,
        created=known.created if known else datetime.now(UTC).isoformat(timespec="seconds"),
        planned_pairs=planned_pairs,
        workers=workers,
        versions={name: metadata.version(name) for name in _VERSIONS},
        search=search,
        ended=known.ended if known and still else "",
    ).write(folder)
