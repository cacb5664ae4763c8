"""Who holds a run folder in a bucket, which has no locks: its holder leaves a mark there and keeps changing it."""

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace

from lmc_tune.storage import BucketPath, FolderError, StorageError, write_text, written

_log = logging.getLogger(__name__)

_MARK = "owner.json"
_BEAT_SECONDS = 5.0
# A mark that does not change for so long was left by a holder that is gone. It is watched, and its time is not read,
# because the clocks of two machines may differ.
_GONE_SECONDS = 20.0
# A driver that marks a folder at the same moment is noticed after so long.
_SETTLING_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class _Mark:
    owner: str = ""
    host: str = "unknown"
    process: int = 0
    beat: int = 0


@contextmanager
def leased(folder: BucketPath) -> Iterator[Callable[[], None]]:
    """Hold a run folder in a bucket.

    Two drivers that begin at the same moment, or that cannot see each other's marks for long, may both get here. The
    yielded function says which of them lost the folder, so call it before replacing a table. Their workers never
    disturb each other, because each shard has its own writer.

    Yields:
        A function that raises FolderError if another process has taken over the folder.

    Raises:
        FolderError: if another process holds it.
    """
    mark = _Mark(owner=secrets.token_hex(8), host=socket.gethostname(), process=os.getpid())
    _wait_until_free(folder)
    _write(folder, mark)
    time.sleep(_SETTLING_SECONDS)
    _refuse_others(folder, mark)
    ended = threading.Event()
    quick = replace(folder, patience=_GONE_SECONDS)
    beating = threading.Thread(target=_beat, args=(quick, mark, ended), name="lease", daemon=True)
    beating.start()
    try:
        yield lambda: _refuse_others(folder, mark)
    finally:
        ended.set()
        beating.join()
        with suppress(StorageError):  # the next driver then waits for the full time and goes on
            if _is_ours(quick, mark):
                (quick / _MARK).unlink(missing_ok=True)


def is_leased(folder: BucketPath) -> bool:
    """Whether a run folder is held, judged by one look: its mark is at most a minute old by this clock."""
    return abs(time.time() - written(folder / _MARK) / 1e9) < 60


def _wait_until_free(folder: BucketPath) -> None:
    first = _read(folder)
    if first is not None:
        _log.warning(
            "%s was held by process %d on %s; checking whether it still runs", folder, first.process, first.host
        )
    until = time.monotonic() + _GONE_SECONDS
    while first is not None and time.monotonic() < until:
        time.sleep(1)
        now = _read(folder)
        if now is None:
            return
        if now != first:
            raise _held(folder, now)


def _beat(folder: BucketPath, mark: _Mark, ended: threading.Event) -> None:
    while not ended.wait(_BEAT_SECONDS):
        try:
            if not _is_ours(folder, mark):
                return
            mark = replace(mark, beat=mark.beat + 1)
            _write(folder, mark)
        except StorageError:
            continue


def _refuse_others(folder: BucketPath, mark: _Mark) -> None:
    if not _is_ours(folder, mark):
        raise _held(folder, _read(folder))


def _is_ours(folder: BucketPath, mark: _Mark) -> bool:
    now = _read(folder)
    return now is not None and now.owner == mark.owner


def _held(folder: BucketPath, mark: _Mark | None) -> FolderError:
    who = f"process {mark.process} on {mark.host}" if mark else "unknown"
    return FolderError(f"another lmc-tune ({who}) is at work in {folder}; wait for it, or choose another folder")


def _read(folder: BucketPath) -> _Mark | None:
    try:
        content = json.loads((folder / _MARK).read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        content = {}
    # Another version may write more or fewer fields.
    return _Mark(**{field.name: content.get(field.name, field.default) for field in fields(_Mark)})


def _write(folder: BucketPath, mark: _Mark) -> None:
    write_text(folder / _MARK, json.dumps(asdict(mark)))
