"""Loading a data set as tensors on a device."""

import math
import pickle
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lmc_tune.core.seeding import child_seed
from lmc_tune.data.bigearthnet import REFLECTANCE_1, download_patches, open_patches, read_patches
from lmc_tune.data.examples import Examples, Indices
from lmc_tune.data.files import DataError, check_files, check_memory, check_package
from lmc_tune.data.texts import read_windows
from lmc_tune.experiment import DatasetSpec, DataSpec, TextSpec
from lmc_tune.experiment.datasets import DATASETS, facts_of
from lmc_tune.storage import replacing
from lmc_tune.vision import import_torchvision

# (n, channels, height, width), in [0, 1] before normalisation.
Pixels = NDArray[np.float32]
# (n, height, width) or (n, height, width, channels): bytes, reflectances in units of 1/10 000, or floats in [0, 1].
Images = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]
# Training images and labels, test images and labels.
Raw = tuple[Images, Indices, Images, Indices]

# How many images are changed at once, and their bytes as float32; bounds memory.
_BLOCK, _BLOCK_BYTES = 2048, 2**26
# The names in CIFAR-10's files.
_ARRAYS = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}
# A line is a label and 16x16 grey levels from -1 to 1.
_USPS_URL = "https://hastie.su.domains/ElemStatLearn/datasets/zip.{part}.gz"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set in memory; ``validation`` may be empty.

    mean, std: (channels, 1, 1) float32, that pixels in [0, 1] were normalised by; 0 and 1 if they were not, or of text.
    """

    n_classes: int
    mean: Tensor
    std: Tensor
    train: Examples
    validation: Examples
    test: Examples

    def to(self, device: torch.device) -> "Dataset":
        return Dataset(
            n_classes=self.n_classes,
            mean=self.mean.to(device),
            std=self.std.to(device),
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
        )


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The images at ``indices`` of all that were published, their labels, and the moments that normalise them."""

    images: Images
    indices: Indices
    labels: Indices
    mean: Pixels
    std: Pixels

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, channels, height, width) of the inputs."""
        _, height, width, *channels = self.images.shape
        return (len(self.indices), *(channels or (1,)), height, width)

    def blocks(self) -> Iterator[Pixels]:
        """The inputs, normalised, some at a time."""
        for block in blocks_of(self.shape):
            pixels = _pixels(self.images[self.indices[block]])
            pixels -= self.mean
            pixels /= self.std
            yield pixels


def load_dataset(spec: DataSpec, root: Path) -> Dataset:
    """A data set, loaded, cut to size and scaled.

    The subsets are label-stratified, or random where an example has several labels, and depend on the data set's
    name and the sizes alone, never on a pair's seed. Normalisation uses the mean and standard deviation, per channel,
    of the training examples kept.

    Raises:
        DataError: if files are missing or damaged, or the data do not fit in memory.
        ValueError: if a subset is larger than the data.
    """

    if isinstance(spec, TextSpec):
        return _load_text(spec)

    def examples(selection: Selection) -> Examples:
        inputs = np.empty(selection.shape, np.float32)
        for at, pixels in zip(blocks_of(selection.shape), selection.blocks(), strict=True):
            inputs[at] = pixels
        return Examples(inputs=torch.from_numpy(inputs), labels=torch.from_numpy(selection.labels))

    selected = select(spec, root)
    return Dataset(
        n_classes=facts_of(spec).n_classes,
        mean=torch.from_numpy(selected["train"].mean),
        std=torch.from_numpy(selected["train"].std),
        **{name: examples(selection) for name, selection in selected.items()},
    )


def _load_text(spec: TextSpec) -> Dataset:
    train, test = read_windows(spec)
    validation_at, train_at = _training_indices(spec, train.labels.numpy())
    return Dataset(
        n_classes=facts_of(spec).n_classes,
        mean=torch.zeros(1),
        std=torch.ones(1),
        train=train.take(train_at),
        validation=train.take(validation_at),
        test=test.take(_test_indices(spec, test.labels.numpy())),
    )


def select(spec: DatasetSpec, root: Path) -> dict[str, Selection]:
    """The ``train``, ``validation`` and ``test`` of :func:`load_dataset`, not yet copied and scaled."""
    check_memory(spec)
    train_x, train_y, test_x, test_y = _read(spec, root)
    validation_at, train_at = _training_indices(spec, train_y)
    test_at = _test_indices(spec, test_y)
    channels = facts_of(spec).shape[0]
    zero, one = np.zeros((channels, 1, 1), np.float32), np.ones((channels, 1, 1), np.float32)
    parts = {
        "train": Selection(images=train_x, indices=train_at, labels=train_y[train_at], mean=zero, std=one),
        "validation": Selection(
            images=train_x, indices=validation_at, labels=train_y[validation_at], mean=zero, std=one
        ),
        "test": Selection(images=test_x, indices=test_at, labels=test_y[test_at], mean=zero, std=one),
    }
    if not spec.normalise:
        return parts
    mean, std = _channel_moments(parts["train"])
    return {name: replace(part, mean=mean, std=std) for name, part in parts.items()}


def download(name: str, root: Path) -> None:
    """Download a data set into ``root``, through torchvision or torchgeo if they know it, and verify every file.

    Raises:
        DataError: if the download fails or a file differs from the published one.
    """
    facts = DATASETS[name]
    if not facts.files:
        return
    check_package(facts)
    try:
        if name == "bigearthnet":
            download_patches(root)
        elif facts.torchvision_class is None:
            _download_usps(root / facts.files[0][0])
        else:
            getattr(import_torchvision().datasets, facts.torchvision_class)(str(root), train=True, download=True)
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        reason = str(error).strip().splitlines()[-1].strip("<>")  # torchvision lists every mirror it tried
        raise DataError(
            f"{facts.title} could not be downloaded: {reason}. Check the connection, or copy the files of "
            f"{facts.source} into {root} by hand: {', '.join(facts.paths)}"
        ) from error
    check_files(facts, root)


def stratified(labels: Indices, n: int, seed: int) -> Indices:
    """Indices of a random subset of ``n`` examples with the label distribution of the whole, in ascending order.

    Each class gets its proportional share rounded down; the examples still missing go to the classes with the
    largest remainders (the smaller label first on ties).

    Raises:
        ValueError: if ``n`` is not in [0, len(labels)].
    """
    if not 0 <= n <= len(labels):
        raise ValueError(f"a subset of {n} examples cannot be drawn from {len(labels)}")
    rng = np.random.default_rng(seed)
    classes, counts = np.unique(labels, return_counts=True)
    share, remainder = np.divmod(n * counts, max(len(labels), 1))  # whole numbers: equal remainders must tie
    share[np.argsort(-remainder, kind="stable")[: n - share.sum()]] += 1
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:k] for c, k in zip(classes, share, strict=True)]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def strata(labels: Indices) -> Indices:
    """(n,) the groups that subsets and halves share evenly: classes, or a single one of several labels or tokens."""
    return labels if labels.ndim == 1 else np.zeros(len(labels), np.int64)


def blocks_of(shape: tuple[int, ...]) -> list[slice]:
    """Slices of a set (n, channels, height, width): the images that are changed at once."""
    n, *each = shape
    size = max(1, min(_BLOCK, _BLOCK_BYTES // (4 * math.prod(each))))
    return [slice(first, first + size) for first in range(0, n, size)]


def _training_indices(spec: DataSpec, labels: Indices) -> tuple[Indices, Indices]:
    """Held-out and kept training examples, disjoint."""
    groups = strata(labels)
    held_out = stratified(groups, spec.validation, child_seed(0, "validation", spec.name))
    rest = np.setdiff1d(np.arange(len(labels)), held_out)
    if spec.train is None:
        return held_out, rest
    return held_out, rest[stratified(groups[rest], spec.train, child_seed(0, "train", spec.name))]


def _test_indices(spec: DataSpec, labels: Indices) -> Indices:
    n = len(labels) if spec.test is None else spec.test
    return stratified(strata(labels), n, child_seed(0, "test", spec.name))


def _channel_moments(selection: Selection) -> tuple[Pixels, Pixels]:
    """Mean and standard deviation, (channels, 1, 1), of inputs that are not normalised yet."""
    axes = (0, 2, 3)
    n = math.prod(selection.shape) // selection.shape[1]
    mean = sum(block.sum(axes, np.float64, keepdims=True) for block in selection.blocks()) / n
    variance = sum(_squared(block - mean).sum(axes, keepdims=True) for block in selection.blocks()) / n
    return mean[0].astype(np.float32), np.maximum(np.sqrt(variance[0]), 1e-8).astype(np.float32)


def _squared(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """In place: a block is large in float64."""
    return np.square(values, out=values)


def _pixels(images: Images) -> Pixels:
    """A fresh array: callers normalise it in place."""
    with_channels = images[..., None] if images.ndim == 3 else images
    pixels = np.array(with_channels.transpose(0, 3, 1, 2), dtype=np.float32, order="C")
    if images.dtype.kind == "u":
        pixels /= 255 if images.dtype == np.uint8 else REFLECTANCE_1
    return pixels


def _read(spec: DatasetSpec, root: Path) -> Raw:
    """The whole published data set; of BigEarthNet only the requested patches."""
    facts = facts_of(spec)
    if not facts.files:
        return _read_digits()
    check_files(facts, root)
    if spec.name == "cifar10":
        return _read_cifar10(root)
    if spec.name == "bigearthnet":
        return _read_bigearthnet(spec, root)
    if facts.torchvision_class is None:
        return _read_usps(root / facts.files[0][0])
    return _read_idx([root / path for path, _ in facts.files])


def _read_idx(paths: list[Path]) -> Raw:
    """MNIST's format, from the verified files; torchvision's class prefers files that an old torchvision left there."""
    train_x, train_y, test_x, test_y = map(_unpacked_idx, paths)
    return train_x, train_y.astype(np.int64), test_x, test_y.astype(np.int64)


def _unpacked_idx(path: Path) -> NDArray[np.uint8]:
    """Two zeros, 8 for bytes, the number of dimensions, each dimension in four bytes, the values."""
    content = path.read_bytes()
    shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)


class _Arrays(pickle.Unpickler):
    """An unpickler that makes only arrays, because a pickle itself decides what code is run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no array")
        return super().find_class(module, name)


def _read_cifar10(root: Path) -> Raw:
    """File by file into one array; torchvision's reader holds all images twice, and its import a worker's memory."""
    batches = [root / path for path, _ in DATASETS["cifar10"].files if "_batch" in path]  # the last is the test set
    each = 10_000
    images = np.empty((each * len(batches), 3, 32, 32), np.uint8)
    labels = np.empty(each * len(batches), np.int64)
    for at, path in enumerate(batches):
        with path.open("rb") as file:
            batch = _Arrays(file, encoding="bytes").load()
        rows = slice(each * at, each * (at + 1))
        images[rows] = batch[b"data"].reshape(each, 3, 32, 32)
        labels[rows] = batch[b"labels"]
    images = images.transpose(0, 2, 3, 1)
    return images[:-each], labels[:-each], images[-each:], labels[-each:]


def _read_bigearthnet(spec: DatasetSpec, root: Path) -> Raw:
    """A random choice of the requested number of patches: the whole set does not fit in memory."""
    n_train = None if spec.train is None else spec.validation + spec.train
    return (*_some_patches(root, "train", n_train), *_some_patches(root, "test", spec.test))


def _some_patches(root: Path, split: Literal["train", "test"], n: int | None) -> tuple[NDArray[np.uint16], Indices]:
    patches = open_patches(root, split)
    everything = np.zeros(len(patches), np.int64)
    chosen = stratified(everything, len(patches) if n is None else n, child_seed(0, "bigearthnet", split))
    return read_patches(patches, chosen)


def _read_digits() -> Raw:
    """The file of scikit-learn's load_digits, without importing scikit-learn, which takes most of a second."""
    package = find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DataError("scikit-learn, which brings the digits, is not installed: pip install scikit-learn")
    file = Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    table = np.loadtxt(file, delimiter=",")
    images = (table[:, :-1] / 16).astype(np.float32).reshape(-1, 8, 8)
    labels = table[:, -1].astype(np.int64)
    test = stratified(labels, DATASETS["digits"].n_test, child_seed(0, "digits", "test part"))
    train = np.setdiff1d(np.arange(len(labels)), test)
    return images[train], labels[train], images[test], labels[test]


def _read_usps(path: Path) -> Raw:
    with np.load(path) as arrays:
        train_x, test_x = (_as_mnist(arrays[name]) for name in ("train_x", "test_x"))
        return train_x, arrays["train_y"].astype(np.int64), test_x, arrays["test_y"].astype(np.int64)


def _as_mnist(images: NDArray[np.uint8]) -> Pixels:
    """Digits that fill 16x16 images, bilinearly enlarged to 20x20 in the middle of 28x28, like MNIST's digits."""
    pixels = torch.from_numpy(images).unsqueeze(1).float() / 255
    enlarged = functional.interpolate(pixels, size=(20, 20), mode="bilinear").clamp(0, 1)
    return functional.pad(enlarged, (4, 4, 4, 4)).squeeze(1).numpy()


def _download_usps(path: Path) -> None:
    if path.is_file():
        return
    (train_x, train_y), (test_x, test_y) = (_download_usps_part(part) for part in ("train", "test"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        np.savez_compressed(file, train_x=train_x, train_y=train_y, test_x=test_x, test_y=test_y)


def _download_usps_part(part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    with tempfile.TemporaryDirectory() as folder:
        import_torchvision().datasets.utils.download_url(_USPS_URL.format(part=part), folder, "part.gz")
        lines = np.loadtxt(Path(folder) / "part.gz", np.float32, ndmin=2)
    # Half-way in single precision: the file of the checksum was rounded so where a level lies between two bytes.
    levels = ((lines[:, 1:] + 1) / 2).astype(np.float64)
    return np.rint(255 * levels).astype(np.uint8).reshape(-1, 16, 16), lines[:, 0].astype(np.uint8)
