"""The run folder: made once, owned by one driver at a time."""

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from lmc_tune.results import read_json, write_json, write_text
from lmc_tune.space import SearchSpace

SPACE_FILE = "space.yaml"
SWEEP_FILE = "sweep.json"
REPORT_FILE = "report.html"
_VERSIONS = ("lmc-tune", "torch", "torchvision", "ray", "mlflow", "numpy", "pandas", "scikit-learn", "altair")


class FolderError(Exception):
    """A run folder that cannot be used; the message says what to do."""


class StoreFullError(Exception):
    """Results can no longer be written; the message says what to do."""


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


def describe(folder: Path, space: SearchSpace, workers: int, planned_pairs: int) -> bool:
    """Write what the sweep is: the space with its defaults, and ``sweep.json``, whose id is made once.

    Returns:
        Whether the space differs from the one that was there.
    """
    known = read_sweep(folder)
    path, text = folder / SPACE_FILE, yaml.safe_dump(space.plain(), sort_keys=False, allow_unicode=True)
    changed = not path.exists() or path.read_text(encoding="utf-8") != text
    write_text(path, text)
    write_json(
        folder / SWEEP_FILE,
        {
            "id": known.get("id") or uuid.uuid4().hex,
            "name": space.name,
            "created": known.get("created") or datetime.now(UTC).isoformat(timespec="seconds"),
            "planned_pairs": planned_pairs,
            "workers": workers,
            "versions": {name: metadata.version(name) for name in _VERSIONS},
        },
    )
    return changed


def read_sweep(folder: Path) -> dict[str, Any]:
    """The content of ``sweep.json``, empty if there is none.

    Raises:
        FolderError: if it is damaged.
    """
    path = folder / SWEEP_FILE
    if not path.exists():
        return {}
    try:
        content: dict[str, Any] = read_json(path)
    except ValueError as error:
        raise FolderError(
            f"{path} is damaged ({error}); restore it from a copy, or delete it: the sweep then gets a new id in MLflow"
        ) from error
    return content
