"""The files of data sets: where they are, and whether they are complete. No torch."""

import hashlib
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from lmc_tune.core.home import cache_folder, expanded
from lmc_tune.errors import UserError
from lmc_tune.experiment.data import DatasetSpec, DataSpec
from lmc_tune.experiment.datasets import DatasetFacts, facts_of
from lmc_tune.storage import what_fails

# Raise it with every change of how files become tensors, or of how these are stored.
_PREPARED_VERSION = 1


# What zipfile raises for damaged archives.
_UNREADABLE_ARCHIVE = (BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)


class DataError(UserError):
    """Data that is missing; the message says how to get it."""


class DamagedDataError(DataError):
    """Data that differs from what was published; the message says how to fix it."""


class UnreadableDataError(DataError):
    """Data that the system does not let this user read; the message says what to do."""


def resolve_data_root(given: str | os.PathLike[str] | None = None) -> Path:
    """The folder of data sets: the path given, else ``LMC_TUNE_DATA``, else the user's cache folder."""
    if given is not None:
        return expanded(given).resolve()
    if from_environment := os.environ.get("LMC_TUNE_DATA"):
        return expanded(from_environment).resolve()
    return cache_folder() / "data"


def prepared_path(spec: DatasetSpec) -> Path:
    """The file of a data set's ready tensors (:mod:`lmc_tune.data.prepared`), named after all that decides them."""
    sources = (_PREPARED_VERSION, spec.model_dump_json(), facts_of(spec).files)
    digest = hashlib.blake2b(repr(sources).encode(), digest_size=8).hexdigest()
    return prepared_folder() / f"{spec.name}-{digest}.safetensors"


def prepared_folder() -> Path:
    """Where :func:`prepared_path` puts files."""
    return cache_folder() / "prepared"


def can_prepare() -> bool:
    """Whether files can be written to :func:`prepared_folder`."""
    folder = prepared_folder()
    there = next(path for path in (folder, *folder.parents) if os.access(path, os.F_OK))
    return os.access(there, os.W_OK | os.X_OK)


def check_package(facts: DatasetFacts) -> None:
    """Raise DataError if the optional package that reads a data set is not installed."""
    if facts.package and find_spec(facts.package) is None:
        raise DataError(
            f"{facts.name} is read by {facts.package}, which is not installed: pip install 'lmc-tune[{facts.name}]'"
        )


def check_memory(spec: DataSpec) -> None:
    """Raise DataError if the inputs, as float32, are more than the memory of this machine."""
    facts = facts_of(spec)
    n_train = facts.n_train if spec.train is None else spec.train + spec.validation
    n_test = facts.n_test if spec.test is None else spec.test
    needed = 4 * math.prod(facts.shape) * (n_train + n_test)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise DataError(
            f"{n_train} training and {n_test} test examples of {spec.name} take {needed / 1e9:.3g} GB, and this "
            f"machine has {there / 1e9:.3g} GB of memory; ask for fewer with dataset.train and dataset.test"
        )


def check_files(facts: DatasetFacts, root: Path) -> None:
    """Verify that every file of a data set is below ``root`` and has its published content.

    The md5 of an .npz archive is that of its members, each its name and its unpacked content, in the order of names.

    Raises:
        DataError, DamagedDataError: naming the first file that is missing or differs, and the command that fixes it; or
            the package that reads the data set, if it is not installed.
        UnreadableDataError: naming the first file that cannot be read.
    """
    check_package(facts)
    mend = f"Get it with: lmc-tune datasets get {facts.name} --data-root {root}"

    def missing(relative: str) -> DataError:
        return DataError(
            f"{facts.title} is not in {root}: {relative} is missing. {mend}, or name the folder that holds it "
            f"with --data-root or LMC_TUNE_DATA."
        )

    for relative, md5 in facts.files:
        path = root / relative
        with _readable(path):
            if not path.is_file():
                raise missing(relative)
            found = file_md5(path)
        if found != md5:
            raise DamagedDataError(
                f"{path} is damaged: its md5 is {found}, not {md5}. Delete it, then get it again. {mend}"
            )
    if facts.folder:
        with _readable(root / facts.folder):
            if not (root / facts.folder).is_dir():
                raise missing(facts.folder)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnreadableDataError(
            f"{path} cannot be read ({what_fails(path, error)}); give this user the right to read it, or name another "
            f"folder with --data-root or LMC_TUNE_DATA"
        ) from error


def file_md5(path: Path) -> str:
    if path.suffix == ".npz":
        try:
            return _unpacked_md5(path)
        except _UNREADABLE_ARCHIVE:
            pass  # the md5 of its bytes is enough: it is not the published one
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _unpacked_md5(path: Path) -> str:
    """Packed, the same arrays differ from one compression library to the next."""
    digest = hashlib.md5(usedforsecurity=False)
    with ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            digest.update(name.encode() + archive.read(name))
    return digest.hexdigest()
