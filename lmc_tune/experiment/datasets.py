"""What is known of each data set without loading it: sizes, files, source, terms."""

from dataclasses import dataclass

from lmc_tune.experiment.data import DataSpec, ShiftSpec
from lmc_tune.experiment.federation import FederationSpec, Pathological
from lmc_tune.experiment.text import TextSpec


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """A data set as published, or a user's text.

    shape: (channels, height, width) of an input; (context,) of a window of text. labels: what the classes are; equal
    texts mean equal labels. multi_label: an example may have several labels, or none. torchvision_class: the class that
    downloads it, if torchvision does; package: an optional package that downloads and reads it, installed by the extra
    with the data set's name. files: md5 by path below the data root (:func:`check_files`); empty for data that ships
    inside a package, and for texts. folder: also below the data root; it holds too many files to verify.
    """

    name: str
    title: str
    shape: tuple[int, ...]
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
    def is_text(self) -> bool:
        return len(self.shape) == 1

    @property
    def tokens(self) -> int:
        """Tokens of a window, each of which has a label; 1 of an image."""
        return self.shape[0] if self.is_text else 1

    @property
    def paths(self) -> list[str]:
        """Paths of all that has to be below the data root."""
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


def facts_of(dataset: DataSpec) -> DatasetFacts:
    """What is known of a spec's whole data set, whatever part the spec takes."""
    if not isinstance(dataset, TextSpec):
        return DATASETS[dataset.name]
    return DatasetFacts(
        name=dataset.name,
        title=dataset.label,
        shape=(dataset.context,),
        n_classes=dataset.known.symbols,
        labels="the next tokens",
        n_train=dataset.windows("train"),
        n_test=dataset.windows("test"),
        source=dataset.path,
        terms="your own",
        megabytes=0,
    )


def part_size(dataset: DataSpec, shift: ShiftSpec) -> int:
    """Examples that each member sees; slightly fewer if a stratified split has to leave some out."""
    half = training_size(dataset) // 2
    other = shift.other_dataset(dataset)
    return half if other is None else min(half, facts_of(other).n_train)


def training_size(dataset: DataSpec) -> int:
    """Examples of the training set of a spec, without those that are held out."""
    return dataset.train or facts_of(dataset).n_train - dataset.validation


def client_size(dataset: DataSpec, federation: FederationSpec) -> int:
    """Examples of the client that has the fewest, if all classes are equally large."""
    n = training_size(dataset)
    if not isinstance(federation.split, Pathological):
        return n // federation.clients
    classes, dealt = facts_of(dataset).n_classes, federation.split.classes * federation.clients
    return federation.split.classes * (n // classes // -(-dealt // classes))
