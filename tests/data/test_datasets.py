import gzip
import hashlib
import math
import pickle
import re
import shutil
import tarfile
import threading
import tracemalloc
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from lmc_tune.data import datasets
from lmc_tune.data.datasets import Dataset, download, load_dataset, select, stratified
from lmc_tune.data.examples import Part
from lmc_tune.data.files import DamagedDataError, DataError, check_files, resolve_data_root
from lmc_tune.experiment import DatasetSpec
from lmc_tune.experiment.datasets import DATASETS
from lmc_tune.vision import import_torchvision
from tests import oracles

REAL = ("mnist", "fashion_mnist", "usps", "cifar10")
# From the data's own documentation.
MNIST_TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
COUNTS = {
    "mnist": (MNIST_TRAIN, MNIST_TEST),
    "fashion_mnist": ([6000] * 10, [1000] * 10),
    "usps": (
        [1194, 1005, 731, 658, 652, 556, 664, 645, 542, 644],
        [359, 264, 198, 166, 200, 160, 170, 147, 166, 177],
    ),
    "cifar10": ([5000] * 10, [1000] * 10),
}
# Mean and standard deviation per channel of the training pixels in [0, 1], as the literature normalises with them.
MOMENTS = {
    "mnist": ([0.1307], [0.3081]),
    "fashion_mnist": ([0.2860], [0.3530]),
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
}
labellings = st.lists(st.integers(0, 4), min_size=1, max_size=40).map(np.array)


def class_counts(examples) -> list[int]:
    return np.bincount(examples.labels.numpy(), minlength=10).tolist()


def rows(examples) -> set[bytes]:
    return {row.numpy().tobytes() for row in examples.inputs.flatten(1)}


@given(labellings, st.data(), st.integers(0, 100))
def test_a_stratified_subset_has_the_largest_remainder_share_of_every_class(labels, data, seed):
    n = data.draw(st.integers(0, len(labels)))
    chosen = stratified(labels, n, seed)
    classes, counts = np.unique(labels, return_counts=True)
    expected = oracles.stratified_counts(counts.tolist(), n)
    assert [int(np.sum(labels[chosen] == c)) for c in classes] == expected
    assert sorted(set(chosen.tolist())) == chosen.tolist()


def test_equal_remainders_go_to_the_smaller_label():
    # Quotas 1/3, 1/3 and 7/3: the missing example belongs to class 0, also where 7/3 − 2 > 1/3 in floating point.
    labels = np.repeat([0, 1, 2], [1, 1, 7])
    assert np.bincount(labels[stratified(labels, 3, 0)], minlength=3).tolist() == [1, 0, 2]


def test_a_stratified_subset_depends_on_its_seed_alone():
    labels = np.arange(200) % 7
    assert stratified(labels, 50, 3).tolist() == stratified(labels, 50, 3).tolist()
    assert stratified(labels, 50, 3).tolist() != stratified(labels, 50, 4).tolist()
    assert stratified(labels, 200, 3).tolist() == list(range(200))


@pytest.mark.parametrize("n", [-1, 4])
def test_a_subset_larger_than_the_data_is_refused(n):
    with pytest.raises(ValueError, match=f"a subset of {n} examples cannot be drawn from 3"):
        stratified(np.array([0, 1, 1]), n, 0)


def test_nothing_can_be_drawn_from_nothing():
    assert stratified(np.array([], dtype=np.int64), 0, 0).tolist() == []


def test_digits_are_all_of_scikit_learns_digits_split_once(digits: Dataset):
    facts = DATASETS["digits"]
    assert (len(digits.train), len(digits.test), len(digits.validation)) == (facts.n_train, facts.n_test, 0)
    assert digits.train.inputs.shape[1:] == facts.shape
    raw = load_dataset(DatasetSpec(normalise=False), Path())
    images, labels = load_digits(return_X_y=True)
    together = np.concatenate([raw.train.inputs.flatten(1), raw.test.inputs.flatten(1)])
    ours = sorted(
        zip(
            (16 * together).round().astype(int).tolist(),
            np.concatenate([raw.train.labels, raw.test.labels]),
            strict=True,
        )
    )
    assert ours == sorted(zip(images.astype(int).tolist(), labels, strict=True))
    whole = np.bincount(labels).tolist()
    assert class_counts(raw.test) == oracles.stratified_counts(whole, facts.n_test)


def test_normalised_training_inputs_have_mean_0_and_deviation_1_and_the_rest_follows(digits: Dataset):
    raw = load_dataset(DatasetSpec(normalise=False), Path())
    pixels = raw.train.inputs.double()
    assert 0 <= pixels.min() < pixels.max() == 1
    assert digits.train.inputs.double().mean().item() == pytest.approx(0, abs=1e-6)
    assert digits.train.inputs.double().std(correction=0).item() == pytest.approx(1, abs=1e-6)
    expected = (raw.test.inputs.double() - pixels.mean()) / pixels.std(correction=0)
    assert torch.allclose(digits.test.inputs.double(), expected, atol=1e-5)


def test_subsets_are_stratified_disjoint_and_the_same_every_time():
    spec = DatasetSpec(train=501, test=103, validation=207)
    data, again = load_dataset(spec, Path()), load_dataset(spec, Path())
    whole = load_dataset(DatasetSpec(), Path())
    held_out = oracles.stratified_counts(class_counts(whole.train), 207)
    rest = [n - k for n, k in zip(class_counts(whole.train), held_out, strict=True)]
    assert class_counts(data.validation) == held_out
    assert class_counts(data.train) == oracles.stratified_counts(rest, 501)
    assert class_counts(data.test) == oracles.stratified_counts(class_counts(whole.test), 103)
    assert not rows(data.train) & rows(data.validation)
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(data, part).inputs, getattr(again, part).inputs)
        assert torch.equal(getattr(data, part).labels, getattr(again, part).labels)


def test_holding_out_more_keeps_normalisation_to_the_kept_examples():
    data = load_dataset(DatasetSpec(train=100, validation=700), Path())
    assert data.train.inputs.double().mean().item() == pytest.approx(0, abs=1e-6)
    assert data.train.inputs.double().std(correction=0).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("sizes", [{"train": 1438}, {"test": 361}, {"validation": 1000, "train": 438}])
def test_asking_for_more_than_there_is_is_refused(sizes):
    with pytest.raises(ValueError, match=r"a subset of \d+ examples cannot be drawn from \d+"):
        load_dataset(DatasetSpec(**sizes), Path())


def test_take_keeps_the_order_asked_for(digits: Dataset):
    at = np.array([5, 2, 2, 1000])[::-1]
    taken = digits.train.take(at)
    assert taken.labels.tolist() == [digits.train.labels[i].item() for i in (1000, 2, 2, 5)]
    assert torch.equal(taken.inputs[3], digits.train.inputs[5])


@pytest.mark.parametrize("size", [1, 7, 100, 4096])
def test_a_part_read_in_chunks_is_a_copy_of_it_read_in_chunks(digits: Dataset, size: int):
    at = np.random.default_rng(0).permutation(len(digits.train))[:100]
    part, copy = Part(whole=digits.train, indices=at), digits.train.take(at)
    assert len(part) == len(copy)
    assert torch.equal(part.labels, copy.labels)
    for found, expected in zip(part.chunks(size), copy.chunks(size), strict=True):
        assert torch.equal(found.inputs, expected.inputs)
        assert torch.equal(found.labels, expected.labels)


def test_a_part_is_read_through_one_buffer(digits: Dataset):
    part = Part(whole=digits.train, indices=np.arange(100))
    assert len({chunk.inputs.data_ptr() for chunk in part.chunks(30)}) == 1


def test_inputs_do_not_depend_on_how_many_are_scaled_at_once(digits: Dataset, monkeypatch: pytest.MonkeyPatch):
    raw = load_dataset(DatasetSpec(normalise=False), Path())
    monkeypatch.setattr(datasets, "_BLOCK", 100)
    assert torch.equal(load_dataset(DatasetSpec(normalise=False), Path()).train.inputs, raw.train.inputs)
    assert torch.allclose(load_dataset(DatasetSpec(), Path()).train.inputs, digits.train.inputs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "usps", pytest.param("cifar10", marks=pytest.mark.slow)])
def test_real_data_has_its_published_sizes_classes_and_moments(real_data: Path, name: str):
    facts = DATASETS[name]
    data = load_dataset(DatasetSpec(name=name, normalise=False), real_data)
    assert (class_counts(data.train), class_counts(data.test)) == COUNTS[name]
    assert (len(data.train), len(data.test)) == (facts.n_train, facts.n_test)
    assert data.train.inputs.shape[1:] == data.test.inputs.shape[1:] == facts.shape
    pixels = data.train.inputs.double()
    assert (pixels.min().item(), pixels.max().item()) == (0.0, 1.0)
    if name in MOMENTS:  # nobody publishes those of enlarged USPS digits
        mean, std = MOMENTS[name]
        assert pixels.mean(dim=(0, 2, 3)).tolist() == pytest.approx(mean, abs=6e-5)
        assert pixels.std(dim=(0, 2, 3)).tolist() == pytest.approx(std, abs=6e-5)


def test_colour_channels_are_normalised_one_by_one(real_data: Path):
    data = load_dataset(DatasetSpec(name="cifar10", train=2000, test=100), real_data)
    assert data.train.inputs.shape == (2000, 3, 32, 32)
    assert class_counts(data.train) == [200] * 10
    assert data.train.inputs.double().mean(dim=(0, 2, 3)).tolist() == pytest.approx([0] * 3, abs=1e-5)
    assert data.train.inputs.double().std(dim=(0, 2, 3)).tolist() == pytest.approx([1] * 3, abs=1e-4)


def test_a_real_image_is_the_one_in_the_file(real_data: Path):
    packed = (real_data / "MNIST/raw/t10k-images-idx3-ubyte").read_bytes()
    first = np.frombuffer(packed, np.uint8, count=784, offset=16).reshape(28, 28)
    data = load_dataset(DatasetSpec(name="mnist", train=10, normalise=False), real_data)
    assert (255 * data.test.inputs[0, 0]).round().to(torch.uint8).tolist() == first.tolist()
    assert data.test.labels[0] == 7


def test_cifar10_is_read_as_torchvision_reads_it(real_data: Path):
    train, test = (import_torchvision().datasets.CIFAR10(str(real_data), train=part) for part in (True, False))
    expected = (train.data, np.array(train.targets), test.data, np.array(test.targets))
    for found, published in zip(datasets._read(DatasetSpec(name="cifar10"), real_data), expected, strict=True):
        assert (found.dtype, found.shape) == (published.dtype, published.shape)
        assert np.array_equal(found, published)


def test_reading_cifar10_never_holds_all_images_twice(real_data: Path):
    tracemalloc.start()
    try:
        parts = select(DatasetSpec(name="cifar10"), real_data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    images = sum(math.prod(parts[name].shape) for name in ("train", "test"))  # a byte each
    assert images < peak < 1.6 * images


def test_usps_digits_are_enlarged_to_the_box_of_mnists(real_data: Path):
    with np.load(real_data / "USPS/usps.npz") as arrays:
        packed = arrays["test_x"][:20]
    data = load_dataset(DatasetSpec(name="usps", train=10, normalise=False), real_data)
    found = data.test.inputs[:20, 0]
    inside = torch.zeros(28, 28, dtype=torch.bool)
    inside[4:24, 4:24] = True
    assert not found[:, ~inside].any()
    for digit, image in zip(packed, found.numpy(), strict=True):
        assert image[4:24, 4:24] == pytest.approx(oracles.enlarged(digit / 255, 20), abs=1e-6)
    assert data.test.labels[:5].tolist() == [9, 6, 3, 6, 6]


@pytest.fixture
def usps_server(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serves the folder with USPS as it is published: lines of a label and grey levels of three decimals."""
    folder = tmp_path / "served"
    folder.mkdir()
    with np.load(real_data / "USPS/usps.npz") as arrays:
        for part in ("train", "test"):
            lines = np.column_stack([arrays[f"{part}_y"], arrays[f"{part}_x"].reshape(-1, 256) / 127.5 - 1])
            with gzip.open(folder / f"zip.{part}.gz", "wt", compresslevel=1) as file:
                np.savetxt(file, lines, "%.4f", newline=" \n")
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(datasets, "_USPS_URL", f"http://127.0.0.1:{server.server_port}/zip.{{part}}.gz")
        yield folder
        server.shutdown()
        thread.join()


def test_mnist_is_read_as_torchvision_reads_it(real_data: Path):
    train, test = (import_torchvision().datasets.MNIST(str(real_data), train=part) for part in (True, False))
    expected = (train.data, train.targets, test.data, test.targets)
    for found, published in zip(datasets._read(DatasetSpec(name="mnist"), real_data), expected, strict=True):
        assert np.array_equal(found, published.numpy())


def test_what_an_old_torchvision_left_behind_is_not_read(real_data: Path, tmp_path: Path):
    """Its class would read it in place of the files that were verified."""
    shutil.copytree(real_data / "MNIST", tmp_path / "MNIST")
    (tmp_path / "MNIST" / "processed").mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(60_000, 28, 28), torch.zeros(60_000)), tmp_path / "MNIST" / "processed" / name)
    labels = datasets._read(DatasetSpec(name="mnist"), tmp_path)[1]
    assert labels.any()


class Marker:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def planted(root: Path) -> Path:
    """CIFAR-10 with a pickle in place of every file; the file that they leave if one is unpickled."""
    mark = root / "unpickled"
    for path, _ in DATASETS["cifar10"].files:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(pickle.dumps({b"data": Marker(mark), b"labels": []}))
    return mark


@pytest.mark.parametrize(
    "work", [lambda root: load_dataset(DatasetSpec(name="cifar10"), root), lambda root: download("cifar10", root)]
)
def test_a_pickle_that_is_not_what_was_published_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work):
    monkeypatch.setattr(import_torchvision().datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    mark = planted(tmp_path)
    with pytest.raises(DataError, match=r"its md5 is|could not be downloaded"):
        work(tmp_path)
    assert not mark.exists()


def test_a_pickle_makes_arrays_and_nothing_else_even_if_it_passes_the_check(tmp_path: Path, monkeypatch):
    mark = planted(tmp_path)
    monkeypatch.setattr(datasets, "check_files", lambda *_: None)
    with pytest.raises(pickle.UnpicklingError, match="it names pathlib"):
        datasets._read(DatasetSpec(name="cifar10"), tmp_path)
    assert not mark.exists()
    pickle.loads((tmp_path / "cifar-10-batches-py/data_batch_1").read_bytes())  # noqa: S301 - else the test could not fail
    assert mark.exists()


@pytest.mark.parametrize(
    ("name", "archive"), [("cifar10", "cifar-10-python.tar.gz"), ("mnist", "train-images-idx3-ubyte.gz")]
)
def test_an_archive_that_is_not_what_was_published_is_not_unpacked(
    usps_server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, archive: str
):
    server = datasets._USPS_URL.rpartition("/")[0]
    kind = getattr(import_torchvision().datasets, DATASETS[name].torchvision_class)
    monkeypatch.setattr(kind, "url", f"{server}/{archive}", raising=False)
    monkeypatch.setattr(kind, "mirrors", [f"{server}/"], raising=False)
    with tarfile.open(usps_server / archive, "w:gz") as file:
        file.addfile(tarfile.TarInfo("../outside"))
    root = tmp_path / "root"
    with pytest.raises(DataError, match="could not be downloaded"):
        download(name, root)
    assert {path.name for path in root.rglob("*") if path.is_file()} == {archive}
    assert not (tmp_path / "outside").exists()


def test_usps_is_downloaded_and_verified(usps_server: Path, tmp_path: Path):
    download("usps", tmp_path)
    check_files(DATASETS["usps"], tmp_path)
    assert len(load_dataset(DatasetSpec(name="usps", test=10), tmp_path).train) == DATASETS["usps"].n_train


def test_usps_that_differs_from_what_was_published_is_damaged(usps_server: Path, tmp_path: Path):
    shutil.copy(usps_server / "zip.test.gz", usps_server / "zip.train.gz")
    with pytest.raises(DamagedDataError, match=r"usps.npz is damaged: its md5 is .* Delete it, then get it again"):
        download("usps", tmp_path)


@pytest.mark.parametrize("served", [None, b"<html>moved</html>", gzip.compress(b"6 -1 1\n", mtime=0)[:-5]])
def test_usps_that_is_not_served_is_told_with_what_to_do(usps_server: Path, tmp_path: Path, served: bytes | None):
    (usps_server / "zip.test.gz").unlink()
    if served is not None:
        (usps_server / "zip.test.gz").write_bytes(served)
    with pytest.raises(DataError, match=r"could not be downloaded: .* copy the files of .* by hand: USPS/usps.npz"):
        download("usps", tmp_path)
    assert not (tmp_path / "USPS").exists()


def test_an_archive_is_known_by_what_is_in_it(real_data: Path, tmp_path: Path):
    (tmp_path / "USPS").mkdir()
    path = tmp_path / "USPS/usps.npz"
    with np.load(real_data / "USPS/usps.npz") as arrays:
        whole = dict(arrays)
    np.savez(path, **whole)  # not compressed
    check_files(DATASETS["usps"], tmp_path)
    np.savez(path, **{**whole, "test_y": whole["train_y"]})
    with pytest.raises(DamagedDataError, match="its md5 is"):
        check_files(DATASETS["usps"], tmp_path)
    np.savez(path, **{f"{name}_": array for name, array in whole.items()})
    with pytest.raises(DamagedDataError, match="its md5 is"):
        check_files(DATASETS["usps"], tmp_path)
    packed = (real_data / "USPS/usps.npz").read_bytes()
    for damaged in (b"", packed[:1000], packed[: len(packed) // 2] + b"?" + packed[len(packed) // 2 + 1 :]):
        path.write_bytes(damaged)
        with pytest.raises(DamagedDataError, match=hashlib.md5(damaged, usedforsecurity=False).hexdigest()):
            check_files(DATASETS["usps"], tmp_path)


@pytest.mark.parametrize("name", REAL)
def test_missing_data_is_named_with_the_command_that_gets_it(tmp_path: Path, name: str):
    first = DATASETS[name].files[0][0]
    message = (
        rf"{DATASETS[name].title} is not in {tmp_path}: {first} is missing\. "
        rf"Get it with: lmc-tune datasets get {name} --data-root {tmp_path}, or name the folder that holds it "
        r"with --data-root or LMC_TUNE_DATA"
    )
    with pytest.raises(DataError, match=message):
        load_dataset(DatasetSpec(name=name), tmp_path)


def test_a_damaged_file_is_named_with_both_sums_and_the_mend(real_data: Path, tmp_path: Path):
    shutil.copytree(real_data / "MNIST", tmp_path / "MNIST")
    damaged = tmp_path / "MNIST/raw/train-labels-idx1-ubyte"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1  # one bit, same size
    damaged.write_bytes(content)
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    message = (
        f"{damaged} is damaged: its md5 is {found}, not a25bea736e30d166cdddb491f175f624. "
        f"Delete it, then get it again. Get it with: lmc-tune datasets get mnist --data-root {tmp_path}"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        check_files(DATASETS["mnist"], tmp_path)
    damaged.unlink()
    with pytest.raises(DataError, match="train-labels-idx1-ubyte is missing"):
        check_files(DATASETS["mnist"], tmp_path)


def test_data_that_ships_in_a_package_needs_no_files(tmp_path: Path):
    check_files(DATASETS["digits"], tmp_path)


def test_the_data_root_is_the_argument_then_the_environment_then_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LMC_TUNE_DATA", str(tmp_path / "env"))
    assert resolve_data_root(tmp_path / "arg") == (tmp_path / "arg").resolve()
    assert resolve_data_root() == (tmp_path / "env").resolve()
    monkeypatch.delenv("LMC_TUNE_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert resolve_data_root() == tmp_path / "cache" / "lmc-tune" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert resolve_data_root() == tmp_path / "home" / ".cache" / "lmc-tune" / "data"
