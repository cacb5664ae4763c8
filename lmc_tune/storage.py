"""Where a run's files are: on a disk, or in a bucket that a cluster's machines share. No torch.

A :class:`BucketPath` has those methods of :class:`pathlib.Path` that the run folder needs, under the same names, so
that code written for one works for the other.
"""

import io
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import IO, Any, Literal, TypeVar, cast
from urllib.parse import unquote

from pyarrow import fs

from lmc_tune.core.duration import in_words
from lmc_tune.core.home import expanded
from lmc_tune.errors import UserError

T = TypeVar("T")

SCHEMES = ("s3", "gs")
# Errors that waiting does not fix, in Arrow's words for S3 and for Google's storage.
_REFUSED = re.compile(
    "ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|PERMISSION_DENIED", re.IGNORECASE
)
# If a service is down for minutes, these minutes are lost but no result is.
PATIENCE_SECONDS = 600.0
_LONGEST_PAUSE = 20.0

_log = logging.getLogger(__name__)


class FolderError(UserError):
    """A folder or bucket that cannot be used; the message says what to do."""


class StorageError(UserError):
    """Storage that denies access, or has not answered for too long; the message says what to do."""

    exit_code = 1


@dataclass(frozen=True)
class BucketPath:
    """A file or folder in object storage, made by :func:`place_at`. What is written appears whole or not at all.

    A request that fails is repeated for a while.

    root: ``s3://BUCKET``. path: below it. options: of the service, as in its URI. patience: for so
    many seconds requests are repeated.
    """

    root: str
    path: PurePosixPath
    options: str = ""
    patience: float = field(default=PATIENCE_SECONDS, compare=False)

    def __str__(self) -> str:
        return f"{self.root}/{str(self.path).replace('%', '%25').replace('?', '%3F')}{self.options}"

    def __truediv__(self, name: str) -> "BucketPath":
        return replace(self, path=self.path / name)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def stem(self) -> str:
        return self.path.stem

    @property
    def suffix(self) -> str:
        return self.path.suffix

    @property
    def parent(self) -> "BucketPath":
        return replace(self, path=self.path.parent)

    def absolute(self) -> "BucketPath":
        return self

    def exists(self) -> bool:
        return bool(self._info().type != fs.FileType.NotFound)

    def stamp(self) -> tuple[int, int]:
        """When it was written, in ns, and its size in bytes; zeros if it is not there."""
        info = self._info()
        return info.mtime_ns or 0, info.size or 0

    def open(self, mode: Literal["rb"] = "rb") -> IO[bytes]:  # noqa: ARG002 - as pathlib's; written by replacing()
        """For reading, at any position."""
        return cast("IO[bytes]", _PatientFile(self))

    def read_bytes(self) -> bytes:
        def read() -> bytes:
            with self.open() as file:
                return file.read()

        return steadily(self, read)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: buckets have names, but no folders."""

    def unlink(self, *, missing_ok: bool = False) -> None:
        try:
            patiently(self, lambda: self.service().delete_file(self.key()))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def files(self, start: str, end: str) -> "Mapping[Place, tuple[int, int]]":
        """See :func:`files`."""
        inside = fs.FileSelector(self.key(), allow_not_found=True)
        found = patiently(self, lambda: self.service().get_file_info(inside))
        return {
            self / info.base_name: (info.mtime_ns or 0, info.size)
            for info in found
            if info.type == fs.FileType.File and info.base_name.startswith(start) and info.base_name.endswith(end)
        }

    def upload(self, file: IO[bytes], check: Callable[[], None]) -> None:
        """Write a whole file. Readers see the old content until the last byte has arrived, and then the new.

        Args:
            file: on this machine.
            check: called before each attempt; what it raises ends them.
        """

        def put() -> None:
            file.seek(0)
            with self.service().open_output_stream(self.key()) as stream:
                shutil.copyfileobj(file, stream, 2**24)

        def send() -> None:
            check()
            # Closing a stream publishes what has come so far. An exception of ours (Ctrl-C) comes to the main thread
            # alone, and so never between its opening and its end. (Arrow's copy_files loses the errors of closing.)
            with ThreadPoolExecutor(1) as thread:
                thread.submit(put).result()

        patiently(self, send)

    def check(self) -> None:
        """Reject a bucket that does not exist or does not answer, without repeating requests.

        Raises:
            FolderError: naming the bucket and what its service says.
        """
        try:
            service, bucket = _service(self.root, self.options)
            (found,) = service.get_file_info([bucket])
        except (OSError, ValueError) as error:
            raise FolderError(f"{self} cannot be used: {_first_line(error)}") from error
        if found.type == fs.FileType.NotFound:
            raise FolderError(f"{self} cannot be used: there is no bucket {bucket!r}; make it first")

    def _info(self) -> Any:
        return patiently(self, lambda: self.service().get_file_info([self.key()])[0])

    def service(self) -> Any:
        """Arrow's client."""
        return _service(self.root, self.options)[0]

    def key(self) -> str:
        """The name by which the client knows it."""
        return str(PurePosixPath(_service(self.root, self.options)[1]) / self.path)


class _PatientFile(io.RawIOBase):
    """An object opened for reading; each read is repeated as patiently as any other request."""

    def __init__(self, place: BucketPath) -> None:
        self._place = place
        self._file = patiently(place, lambda: place.service().open_input_file(place.key()))
        self._size: int = self._file.size()
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        if not wanted:
            return b""
        found: bytes = patiently(self._place, lambda: self._file.read_at(wanted, self._at))
        self._at += len(found)
        return found


Place = Path | BucketPath


def place_at(where: str | os.PathLike[str] | BucketPath) -> Place:
    """A folder or file named by a user: a path, or ``s3://BUCKET/FOLDER`` or ``gs://…``, with pyarrow's options.

    Raises:
        FolderError: if it is no address of storage, or its bucket does not answer.
    """
    if isinstance(where, BucketPath):
        return where
    text = os.fspath(where)
    if not text:
        raise FolderError("the name of a folder is empty; is a variable not set?")
    scheme, separator, rest = text.partition("://")
    if not separator:
        if known := re.match(rf"({'|'.join(SCHEMES)}):/?(?=\w)", text):
            raise FolderError(f"{text} is neither a path nor the address of a bucket; write {known[1]}://BUCKET/FOLDER")
        return expanded(where)
    if scheme == "file":
        return Path(unquote(rest))
    if scheme not in SCHEMES:
        raise FolderError(
            f"cannot keep runs at {scheme}://; name a folder, or one of {', '.join(SCHEMES)}://BUCKET/FOLDER"
        )
    address, mark, options = rest.partition("?")
    bucket, _, path = address.partition("/")
    if "@" in bucket and scheme == "s3":
        raise FolderError(
            "the address of a bucket must not hold credentials: they would be seen in logs; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or give the machine a role"
        )
    path = unquote(path).strip("/")
    if not bucket or not path or ".." in path.split("/"):
        raise FolderError(f"{text} names no folder in a bucket; write {scheme}://BUCKET/FOLDER")
    place = BucketPath(f"{scheme}://{bucket}", PurePosixPath(path), mark + options)
    place.check()
    return place


def what_fails(path: Place, error: OSError) -> str:
    """Why a path cannot be used, in words: errno's own text names another cause where a link is broken."""
    with suppress(OSError):
        for part in (path, *path.parents) if isinstance(path, Path) else ():
            if part.is_symlink() and not part.exists():
                return f"{part} is a link to {part.readlink()}, which is not there"
            if part.is_file() and (part != path or isinstance(error, FileExistsError)):
                return f"{part} is a file, no folder"
    return error.strerror or str(error)


def hurried(place: Place) -> Place:
    """The same place for a caller that cannot wait long: failed requests are repeated for only half a minute."""
    return replace(place, patience=30.0) if isinstance(place, BucketPath) else place


def files(folder: Place, *, start: str = "", end: str) -> Mapping[Place, tuple[int, int]]:
    """The files of a folder whose names begin and end so, each with its time of writing in ns and its size in bytes."""
    if isinstance(folder, BucketPath):
        return folder.files(start, end)
    found: dict[Place, tuple[int, int]] = {}
    for path in folder.glob(f"{start}*{end}"):
        try:
            stat = path.stat()
        except FileNotFoundError:  # removed since it was listed
            continue
        found[path] = (stat.st_mtime_ns, stat.st_size)
    return found


def written(file: Place) -> int:
    """When a file was written, in ns; 0 if there is none."""
    if isinstance(file, BucketPath):
        return file.stamp()[0]
    return file.stat().st_mtime_ns if file.exists() else 0


@contextmanager
def replacing(place: Place, check: Callable[[], None] = lambda: None) -> Iterator[IO[bytes]]:
    """A file to write to, which replaces ``place`` when the body ends well: readers see the old or the new.

    Args:
        place: the file.
        check: called at last, before the file is replaced; if it raises, the old one stays.
    """
    if isinstance(place, BucketPath):
        with TemporaryFile() as file:  # whole before its first byte travels
            yield file
            place.upload(file, check)
        return
    # Not by the process's number, which containers that share a folder may have in common.
    part = place.with_name(f".{place.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        check()
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)


def write_text(place: Place, text: str) -> None:
    """Write a text file atomically."""
    with replacing(place) as file:
        file.write(text.encode())


def patiently(place: Place, do: Callable[[], T]) -> T:
    """The result of an operation, repeated in a bucket for ``place.patience`` seconds while its service fails.

    Raises:
        FileNotFoundError: at once.
        StorageError: if the time is up, or at once if permission is denied.
    """
    if isinstance(place, Path):
        return do()
    until, pause = time.monotonic() + place.patience, 0.5
    while True:
        try:
            return do()
        except FileNotFoundError:
            raise
        except OSError as error:
            if _REFUSED.search(str(error)):
                raise StorageError(
                    f"this machine may not use {place}: {_first_line(error)}. Runs need permission to list the "
                    f"bucket and to get, put and delete its objects"
                ) from error
            if time.monotonic() + pause > until:
                raise StorageError(
                    f"{place} could not be reached for {in_words(place.patience)} ({_first_line(error)}). "
                    f"What was finished before is kept; run the same command again when the storage answers."
                ) from error
            if pause == 0.5:
                _log.warning("%s does not answer (%s); trying again", place, _first_line(error))
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def steadily(file: Place, read: Callable[[], T]) -> T:
    """The result of ``read``, repeated in a bucket if the file was replaced meanwhile.

    An open file on a disk stays what it was. In a bucket every read is a request of its own: what is asked for by the
    size of the old object comes from the new one.
    """
    if isinstance(file, Path):
        return read()
    while True:
        before = file.stamp()
        try:
            found = read()
        except (StorageError, FileNotFoundError):
            raise
        except Exception:
            if file.stamp() == before:
                raise
        else:
            if file.stamp() == before:
                return found


@lru_cache(maxsize=8)
def _service(root: str, options: str) -> tuple[Any, str]:
    """One client per bucket and process, and the bucket's name."""
    service, bucket = fs.FileSystem.from_uri(f"{root}{options}")
    return service, bucket


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
