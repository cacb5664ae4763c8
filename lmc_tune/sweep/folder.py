"""The run folder: made once, owned by one driver at a time."""

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import yaml

from lmc_tune.core.errors import UserError
from lmc_tune.record import SPACE_FILE, SWEEP_FILE, SweepRecord
from lmc_tune.space import SearchSpace
from lmc_tune.store import write_text

_VERSIONS = ("lmc-tune", "torch", "torchvision", "ray", "mlflow", "numpy", "pandas", "scikit-learn", "altair")


class FolderError(UserError):
    """A run folder that cannot be used; the message says what to do."""


class StoreFullError(UserError):
    """Results can no longer be written; the message says what to do."""

    exit_code = 1


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Hold the run folder: it is created if need be, and no second driver can hold it meanwhile.

    The lock is the kernel's, so it vanishes with the process, however that ends.

    Raises:
        FolderError: if the folder cannot be written, or another driver holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise FolderError(
            f"cannot write to {folder} ({error.strerror}); choose another folder with --out, or mend its permissions"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise FolderError(
                f"another sweep (process {lock.read().strip() or 'unknown'}) is running in {folder}; wait for it, or "
                f"choose another folder with --out"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def is_owned(folder: Path) -> bool:
    """Whether a driver is running in the folder."""
    try:
        with (folder / ".lock").open("r", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def write_description(folder: Path, space: SearchSpace, workers: int, planned_pairs: int) -> bool:
    """Write what the sweep is: the space with its defaults, and its record, whose id is made once.

    Returns:
        Whether the space differs from the one that was there.
    """
    known = SweepRecord.read(folder) if (folder / SWEEP_FILE).exists() else None
    path, text = folder / SPACE_FILE, yaml.safe_dump(space.plain(), sort_keys=False, allow_unicode=True)
    changed = not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text
    write_text(path, text)
    SweepRecord(
        id=known.id if known else uuid.uuid4().hex,
        name=space.name,
        created=known.created if known else datetime.now(UTC).isoformat(timespec="seconds"),
        planned_pairs=planned_pairs,
        workers=workers,
        versions={name: metadata.version(name) for name in _VERSIONS},
    ).write(folder)
    return changed
