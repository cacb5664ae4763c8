"""The prepared file holds what loading gives, is made once, and is shared by everyone who maps it."""

import dataclasses
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from lmc_tune.data import files as data_files
from lmc_tune.data import prepared
from lmc_tune.data.datasets import Dataset, load_dataset
from lmc_tune.data.files import DataError, can_prepare, prepared_path
from lmc_tune.data.prepared import open_dataset
from lmc_tune.experiment import DatasetSpec
from lmc_tune.experiment.datasets import DATASETS

CPU = torch.device("cpu")
SMALL = DatasetSpec(name="mnist", train=300, validation=20, test=50)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def assert_same(one: Dataset, other: Dataset) -> None:
    assert one.n_classes == other.n_classes
    for name in ("mean", "std"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype == torch.float32
        assert torch.equal(a, b)
    for name in ("train", "validation", "test"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a.inputs.dtype, a.labels.dtype) == (torch.float32, torch.int64)
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.labels, b.labels)


@pytest.mark.parametrize(
    "spec",
    [
        SMALL,
        DatasetSpec(name="mnist", train=300, normalise=False),
        DatasetSpec(name="fashion_mnist", train=5000, test=1),  # more than a block
        DatasetSpec(name="cifar10", train=300, validation=20, test=50),
    ],
    ids=str,
)
def test_a_prepared_data_set_is_the_loaded_one_bit_for_bit_when_made_and_when_found(real_data: Path, spec, tmp_path):
    loaded = load_dataset(spec, real_data)
    assert_same(open_dataset(spec, real_data, CPU), loaded)
    assert_same(open_dataset(spec, tmp_path / "nothing here", CPU), loaded)


def test_tensors_begin_where_a_tensor_of_their_own_would(real_data: Path):
    data = open_dataset(SMALL, real_data, CPU)
    assert [part.inputs.data_ptr() % 64 for part in (data.train, data.validation, data.test)] == [0, 0, 0]


def test_data_that_ship_in_a_package_need_no_file(cache_folder: Path, digits: Dataset):
    assert_same(open_dataset(DatasetSpec(), Path(), CPU), digits)
    assert not cache_folder.exists()


PRIVATE_MEMORY = """
    import sys
    from pathlib import Path
    import torch
    from lmc_tune.data.prepared import open_dataset
    from lmc_tune.experiment import DatasetSpec

    def kilobytes(*fields):
        lines = [line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]]
        return sum(int(words[1]) for words in lines if words[0] in fields)

    private, resident = ("Private_Clean:", "Private_Dirty:"), ("Rss:",)
    before = kilobytes(*private), kilobytes(*resident)
    data = open_dataset(DatasetSpec(name="mnist"), Path(sys.argv[1]), torch.device("cpu"))
    for chunk in data.train.inputs.split(1000):
        assert chunk.max() > 0
    print(kilobytes(*private) - before[0], kilobytes(*resident) - before[1])
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's account of memory")
def test_a_second_process_reads_the_data_without_a_copy(real_data: Path, tmp_path: Path):
    data = open_dataset(DatasetSpec(name="mnist"), real_data, CPU)
    assert data.train.inputs.max() > 0  # every page is here
    command = [sys.executable, "-c", textwrap.dedent(PRIVATE_MEMORY), str(tmp_path / "nothing here")]
    private, resident = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    size = data.train.inputs.nbytes / 1024
    assert resident > 0.95 * size
    assert private < 0.1 * size


def test_many_that_need_a_file_at_once_make_it_once(real_data: Path, monkeypatch: pytest.MonkeyPatch):
    made, write = [], prepared._write

    def counted(path, parts):
        made.append(path)
        write(path, parts)

    monkeypatch.setattr(prepared, "_write", counted)
    with ThreadPoolExecutor(4) as pool:  # each opens the lock file for itself, as processes do
        found = list(pool.map(lambda _: open_dataset(SMALL, real_data, CPU), range(4)))
    assert made == [prepared_path(SMALL)]
    for data in found:
        assert_same(data, load_dataset(SMALL, real_data))


@pytest.mark.parametrize("kept", [0, 5, 200, -1])
def test_a_file_cut_short_is_made_again(real_data: Path, kept: int):
    open_dataset(SMALL, real_data, CPU)
    path = prepared_path(SMALL)
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[:kept])
    assert_same(open_dataset(SMALL, real_data, CPU), load_dataset(SMALL, real_data))
    assert path.read_bytes() == whole


def test_what_a_killed_process_left_is_cleared_away(real_data: Path):
    path = prepared_path(SMALL)
    left = path.with_name(f".{path.name}.1.part")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    open_dataset(SMALL, real_data, CPU)
    assert path.exists()
    assert not left.exists()


def test_the_file_is_named_after_everything_that_decides_its_content(monkeypatch: pytest.MonkeyPatch):
    specs = [
        DatasetSpec(name="mnist"),
        DatasetSpec(name="fashion_mnist"),
        DatasetSpec(name="mnist", train=300),
        DatasetSpec(name="mnist", test=300),
        DatasetSpec(name="mnist", validation=300),
        DatasetSpec(name="mnist", normalise=False),
    ]
    changed = {name for spec in specs[1:] for name, value in spec if value != getattr(specs[0], name)}
    assert changed == set(DatasetSpec.model_fields)
    paths = [prepared_path(spec) for spec in specs]
    monkeypatch.setattr(data_files, "_PREPARED_VERSION", -1)
    paths.append(prepared_path(specs[0]))
    monkeypatch.undo()
    facts = DATASETS["mnist"]
    files = ((facts.files[0][0], "0" * 32), *facts.files[1:])
    monkeypatch.setitem(DATASETS, "mnist", dataclasses.replace(facts, files=files))
    paths.append(prepared_path(specs[0]))
    assert len({path.name for path in paths}) == len(paths)


def test_files_lie_below_the_users_cache_folder(cache_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert prepared_path(SMALL).parent == cache_folder / "lmc-tune" / "prepared"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert prepared_path(SMALL).parent == tmp_path / "home" / ".cache" / "lmc-tune" / "prepared"


def test_where_no_file_can_be_written_the_data_are_loaded(real_data: Path, cache_folder: Path):
    assert can_prepare()
    cache_folder.write_text("a file where a folder should be")
    assert not can_prepare()
    assert_same(open_dataset(SMALL, real_data, CPU), load_dataset(SMALL, real_data))


def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing(real_data: Path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    path = prepared_path(SMALL)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        open_dataset(SMALL, real_data, CPU)
    assert {found.suffix for found in path.parent.iterdir()} == {".lock"}


def test_data_that_are_not_there_are_named_when_a_file_has_to_be_made(tmp_path: Path):
    with pytest.raises(DataError, match=f"MNIST handwritten digits is not in {tmp_path}"):
        open_dataset(SMALL, tmp_path, CPU)


def test_the_test_set_alone_may_be_small_and_the_validation_set_empty(real_data: Path):
    data = open_dataset(DatasetSpec(name="mnist", train=10, test=10), real_data, CPU)
    assert (len(data.train), len(data.validation), len(data.test)) == (10, 0, 10)
    assert np.bincount(data.test.labels.numpy()).tolist() == [1] * 10
