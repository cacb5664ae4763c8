"""What is known of each data set without loading it: sizes, files, source, terms. No torch."""

import hashlib
import math
import os
import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from lmc_tune.core.errors import UserError
from lmc_tune.specs import DatasetSpec, ShiftSpec

# Goes up with every change of how files become tensors, or of how those are kept.
_PREPARED_VERSION = 1
# What zipfile raises for damaged archives.
_UNREADABLE_ARCHIVE = (BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)


class DataError(UserError):
    """Data that is missing; the message says how to get it."""


class DamagedDataError(DataError):
    """Data that differs from what was published; the message says how to mend it."""


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """A data set as published.

    shape: (channels, height, width) of an input. labels: what the classes are; equal texts mean equal labels.
    multi_label: an example may have several of them, or none. torchvision_class: what downloads it, if
    torchvision does; package: an optional one that downloads and reads it, installed by the extra of the data set's
    name. files: md5 by path below the data root (:func:`check_files`); empty for data that ships inside a package.
    folder: below the data root as well, with files too many to verify.
    """

    name: str
    title: str
    shape: tuple[int, int, int]
    n_classes: int
    labels: str
    n_train: int
    n_test: int
    source: str
    terms: str
    megabytes: float
    multi_label: bool = False
    torchvision_class: str | None = None
    package: str | None = None
    files: tuple[tuple[str, str], ...] = ()
    folder: str | None = None

    @property
    def paths(self) -> list[str]:
        """All that has to be below the data root."""
        return [path for path, _ in self.files] + ([self.folder] if self.folder else [])


def _raw(folder: str, md5s: tuple[str, str, str, str]) -> tuple[tuple[str, str], ...]:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple((f"{folder}/raw/{name}-ubyte", md5) for name, md5 in zip(names, md5s, strict=True))


DATASETS = {
    facts.name: facts
    for facts in (
        DatasetFacts(
            name="digits",
            title="Handwritten digits (UCI test part), bundled with scikit-learn",
            shape=(1, 8, 8),
            n_classes=10,
            labels="digits 0 to 9",
            n_train=1437,
            n_test=360,
            source="archive.ics.uci.edu, Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998)",
            terms="CC BY 4.0",
            megabytes=0.1,
        ),
        DatasetFacts(
            name="mnist",
            title="MNIST handwritten digits",
            shape=(1, 28, 28),
            n_classes=10,
            labels="digits 0 to 9",
            n_train=60_000,
            n_test=10_000,
            source="yann.lecun.com/exdb/mnist (LeCun, Cortes, Burges)",
            terms="CC BY-SA 3.0, as commonly stated",
            megabytes=55,
            torchvision_class="MNIST",
            files=_raw(
                "MNIST",
                (
                    "6bbc9ace898e44ae57da46a324031adb",
                    "a25bea736e30d166cdddb491f175f624",
                    "2646ac647ad5339dbf082846283269ea",
                    "27ae3e4e09519cfbb04c329615203637",
                ),
            ),
        ),
        DatasetFacts(
            name="fashion_mnist",
            title="Fashion-MNIST articles of clothing",
            shape=(1, 28, 28),
            n_classes=10,
            labels="articles of clothing",
            n_train=60_000,
            n_test=10_000,
            source="github.com/zalandoresearch/fashion-mnist (Xiao, Rasul, Vollgraf 2017)",
            terms="MIT",
            megabytes=55,
            torchvision_class="FashionMNIST",
            files=_raw(
                "FashionMNIST",
                (
                    "f4a8712d7a061bf5bd6d2ca38dc4d50a",
                    "9018921c3c673c538a1fc5bad174d6f9",
                    "8181f5470baa50b63fa0f6fddb340f0a",
                    "15d484375f8d13e6eb1aabb0c3f46965",
                ),
            ),
        ),
        DatasetFacts(
            name="usps",
            title="USPS handwritten digits, laid out as MNIST's",
            shape=(1, 28, 28),
            n_classes=10,
            labels="digits 0 to 9",
            n_train=7291,
            n_test=2007,
            source="hastie.su.domains/ElemStatLearn/data.html (zip.train, zip.test; Hull 1994)",
            terms="free for research, no licence stated",
            megabytes=1.1,
            files=(("USPS/usps.npz", "8fff18b67dce63d9ed3ee51598674b75"),),
        ),
        DatasetFacts(
            name="cifar10",
            title="CIFAR-10 natural images",
            shape=(3, 32, 32),
            n_classes=10,
            labels="animals and vehicles",
            n_train=50_000,
            n_test=10_000,
            source="www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky 2009)",
            terms="free to download, citation asked, no licence stated",
            megabytes=186,
            torchvision_class="CIFAR10",
            files=tuple(
                (f"cifar-10-batches-py/{name}", md5)
                for name, md5 in (
                    ("data_batch_1", "c99cafc152244af753f735de768cd75f"),
                    ("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
                    ("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
                    ("data_batch_4", "634d18415352ddfa80567beed471001a"),
                    ("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
                    ("test_batch", "40351d587109b95175f43aff81a1287e"),
                    ("batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
                )
            ),
        ),
        DatasetFacts(
            name="bigearthnet",
            title="BigEarthNet v1.0 (Sentinel-2, several of 19 labels)",
            shape=(12, 120, 120),
            n_classes=19,
            labels="land cover",
            n_train=269_695,
            n_test=125_866,
            source="zenodo.org/records/12687186; splits: git.tu-berlin.de/rsim/BigEarthNet-MM_19-classes_models",
            terms="CDLA-Permissive-1.0",
            megabytes=70_000,
            multi_label=True,
            package="torchgeo",
            files=(
                ("bigearthnet-train.csv", "623e501b38ab7b12fe44f0083c00986d"),
                ("bigearthnet-val.csv", "22efe8ed9cbd71fa10742ff7df2b7978"),  # torchgeo opens no split without it
                ("bigearthnet-test.csv", "697fb90677e30571b9ac7699b7e5b432"),
            ),
            folder="BigEarthNet-v1.0",
        ),
    )
}


def resolve_data_root(given: str | os.PathLike[str] | None = None) -> Path:
    """Where data sets lie: the path given, else ``LMC_TUNE_DATA``, else the user's cache folder."""
    if given is not None:
        return Path(given).expanduser().resolve()
    if from_environment := os.environ.get("LMC_TUNE_DATA"):
        return Path(from_environment).expanduser().resolve()
    return _cache_folder() / "data"


def prepared_path(spec: DatasetSpec) -> Path:
    """The file of a data set's ready tensors (:mod:`lmc_tune.data.prepared`), named after all that decides them."""
    sources = (_PREPARED_VERSION, spec.model_dump_json(), DATASETS[spec.name].files)
    digest = hashlib.blake2b(repr(sources).encode(), digest_size=8).hexdigest()
    return _cache_folder() / "prepared" / f"{spec.name}-{digest}.safetensors"


def can_prepare() -> bool:
    """Whether files can be written where :func:`prepared_path` puts them."""
    folder = _cache_folder() / "prepared"
    there = next(path for path in (folder, *folder.parents) if os.access(path, os.F_OK))
    return os.access(there, os.W_OK | os.X_OK)


def _cache_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "lmc-tune"


def part_size(dataset: DatasetSpec, shift: ShiftSpec) -> int:
    """Examples that each member sees, up to the few that a stratified split has to leave out."""
    half = (dataset.train or DATASETS[dataset.name].n_train - dataset.validation) // 2
    return half if shift.other is None else min(half, DATASETS[shift.other].n_train)


def check_package(name: str) -> None:
    """Raise DataError if the optional package that reads a data set is not installed."""
    facts = DATASETS[name]
    if facts.package and find_spec(facts.package) is None:
        raise DataError(f"{name} is read by {facts.package}, which is not installed: pip install 'lmc-tune[{name}]'")


def check_memory(spec: DatasetSpec) -> None:
    """Raise DataError if the inputs, as float32, are more than the memory of this machine."""
    facts = DATASETS[spec.name]
    n_train = facts.n_train if spec.train is None else spec.train + spec.validation
    n_test = facts.n_test if spec.test is None else spec.test
    needed = 4 * math.prod(facts.shape) * (n_train + n_test)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise DataError(
            f"{n_train} training and {n_test} test examples of {spec.name} take {needed / 1e9:.3g} GB, and this "
            f"machine has {there / 1e9:.3g} GB of memory; ask for fewer with dataset.train and dataset.test"
        )


def check_files(name: str, root: Path) -> None:
    """Verify that every file of a data set is below ``root`` and has its published content.

    The md5 of an .npz archive is that of its members, each its name and its unpacked content, in the order of names.

    Raises:
        DataError, DamagedDataError: naming the first file that is missing or differs, and the command that mends it; or
            the package that reads the data set, if it is not installed.
    """
    check_package(name)
    facts = DATASETS[name]
    mend = f"Get it with: lmc-tune datasets get {name} --data-root {root}"

    def missing(relative: str) -> DataError:
        return DataError(
            f"{facts.title} is not in {root}: {relative} is missing. {mend}, or name the folder that holds it "
            f"with --data-root or LMC_TUNE_DATA."
        )

    for relative, md5 in facts.files:
        path = root / relative
        if not path.is_file():
            raise missing(relative)
        found = file_md5(path)
        if found != md5:
            raise DamagedDataError(
                f"{path} is damaged: its md5 is {found}, not {md5}. Delete it, then get it again. {mend}"
            )
    if facts.folder and not (root / facts.folder).is_dir():
        raise missing(facts.folder)


def file_md5(path: Path) -> str:
    if path.suffix == ".npz":
        try:
            return _unpacked_md5(path)
        except _UNREADABLE_ARCHIVE:
            pass  # the md5 of its bytes will do: it is not the one published
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _unpacked_md5(path: Path) -> str:
    """Packed, the same arrays differ from one compression library to the next."""
    digest = hashlib.md5(usedforsecurity=False)
    with ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            digest.update(name.encode() + archive.read(name))
    return digest.hexdigest()
