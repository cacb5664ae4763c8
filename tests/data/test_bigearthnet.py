"""BigEarthNet, on a few small patches in the layout of its archive."""

import hashlib
import json
import math
import os
import re
import shutil
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score
from torch.nn import functional

from lmc_tune.data import datasets
from lmc_tune.data import files as data_files
from lmc_tune.data.datasets import download, load_dataset
from lmc_tune.data.domains import pair_data, split_views, views
from lmc_tune.data.files import DamagedDataError, DataError, check_files, check_memory
from lmc_tune.data.prepared import open_dataset
from lmc_tune.experiment import DatasetSpec, GroupSpec, MeasureSpec, ShiftSpec, TrainSpec, VggSpec
from lmc_tune.experiment.datasets import DATASETS
from lmc_tune.models.registry import build_model
from lmc_tune.tables.store import Store
from lmc_tune.vision import import_torchvision
from lmc_tune.work.bench import Workbench
from lmc_tune.work.cohort import run_pair

SIZES = {"train": 12, "val": 2, "test": 6}
# In the order of the channels, with the pixels of a side.
BANDS = dict(
    zip(
        ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"),
        (20, 120, 120, 120, 60, 60, 60, 120, 60, 20, 60, 60),
        strict=True,
    )
)
# Of the 43 classes on disk, with their numbers among the 19; airports are none of them.
LABELS = {
    "Continuous urban fabric": 0,
    "Discontinuous urban fabric": 0,
    "Non-irrigated arable land": 2,
    "Pastures": 4,
    "Mixed forest": 10,
    "Sea and ocean": 18,
    "Airports": None,
}
SPEC = DatasetSpec(name="bigearthnet", train=10, test=6)


def name_of(split: str, number: int) -> str:
    return f"S2A_MSIL2A_20170613T101031_{list(SIZES).index(split)}_{number}"


def labels_of(split: str, number: int) -> list[str]:
    rng = np.random.default_rng([list(SIZES).index(split), number])
    return [label for label in LABELS if rng.random() < 0.4]


def values_of(split: str, number: int) -> dict[str, np.ndarray]:
    """Bands of 10 metres vary from pixel to pixel, up to clouds brighter than white; the others do not."""
    rng = np.random.default_rng([9, list(SIZES).index(split), number])
    return {
        band: rng.integers(12_000, size=(120, 120)) if side == 120 else np.full((side, side), rng.integers(9000))
        for band, side in BANDS.items()
    }


def write_patch(folder: Path, split: str, number: int) -> None:
    folder.mkdir(parents=True)
    for band, values in values_of(split, number).items():
        side = len(values)
        where = {"crs": "EPSG:32633", "transform": rasterio.Affine(1200 / side, 0, 600_000, 0, -1200 / side, 5_500_000)}
        path = folder / f"{folder.name}_{band}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", width=side, height=side, count=1, dtype="uint16", **where
        ) as file:
            file.write(values.astype(np.uint16), 1)
    about = {"labels": labels_of(split, number), "coordinates": {"ulx": 600_000, "uly": 5_500_000}}
    (folder / f"{folder.name}_labels_metadata.json").write_text(json.dumps(about))


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bigearthnet")
    for split, n in SIZES.items():
        lines = [f"{name_of(split, k)},S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{k}\n" for k in range(n)]
        (root / f"bigearthnet-{split}.csv").write_text("".join(lines))
        for k in range(n):
            write_patch(root / "BigEarthNet-v1.0" / name_of(split, k), split, k)
    return root


@pytest.fixture(autouse=True)
def small(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The facts are those of the small one, and nothing is prepared."""
    facts = DATASETS["bigearthnet"]
    files = tuple((name, md5(written / name)) for name, _ in facts.files)
    small = replace(facts, n_train=SIZES["train"], n_test=SIZES["test"], files=files)
    monkeypatch.setitem(DATASETS, "bigearthnet", small)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def mine(written: Path, tmp_path: Path) -> Path:
    """A copy that can be spoilt."""
    return Path(shutil.copytree(written, tmp_path / "mine"))


def expected(split: str, number: int) -> tuple[torch.Tensor, list[int]]:
    """Reflectances (12, 120, 120), and the labels."""
    values = values_of(split, number)
    bands = [np.broadcast_to(v if v.shape == (120, 120) else v[0, 0], (120, 120)) for v in values.values()]
    found = {LABELS[label] for label in labels_of(split, number)}
    return torch.from_numpy(np.clip(np.stack(bands) / 1e4, 0, 1)), [int(label in found) for label in range(19)]


def test_every_patch_has_its_reflectances_and_its_labels(written: Path):
    data = load_dataset(replace_(SPEC, train=None, test=None, normalise=False), written)
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 0, 6)
    for split, examples in (("train", data.train), ("test", data.test)):
        assert examples.labels.dtype == torch.int64
        for number, (inputs, labels) in enumerate(zip(examples.inputs, examples.labels.tolist(), strict=True)):
            reflectances, wanted = expected(split, number)
            assert torch.allclose(inputs.double(), reflectances, rtol=0, atol=1e-6)
            assert labels == wanted
    assert data.train.labels.sum(1).max() > 1
    assert data.train.inputs.max() == 1


def replace_(spec: DatasetSpec, **changes: object) -> DatasetSpec:
    return spec.model_copy(update=changes)


def test_bands_are_normalised_one_by_one(written: Path):
    data = load_dataset(SPEC, written)
    assert data.train.inputs.double().mean(dim=(0, 2, 3)).tolist() == pytest.approx([0] * 12, abs=1e-4)
    assert data.train.inputs.double().std(dim=(0, 2, 3), correction=0).tolist() == pytest.approx([1] * 12, abs=1e-4)


def test_no_patch_is_read_that_is_not_asked_for(written: Path, monkeypatch: pytest.MonkeyPatch):
    asked, read = [], datasets.read_patches

    def noted(patches, indices):
        asked.append((patches.split, indices.tolist()))
        return read(patches, indices)

    monkeypatch.setattr(datasets, "read_patches", noted)
    data = load_dataset(replace_(SPEC, train=5, validation=3, test=2), written)
    assert [(split, len(indices)) for split, indices in asked] == [("train", 8), ("test", 2)]
    assert (len(data.train), len(data.validation), len(data.test)) == (5, 3, 2)
    kept = {patch.numpy().tobytes() for patch in (*data.train.inputs, *data.validation.inputs)}
    assert len(kept) == 8
    again = load_dataset(replace_(SPEC, train=5, validation=3, test=2), written)
    assert torch.equal(again.train.inputs, data.train.inputs)
    assert asked[:2] == asked[2:]


def test_more_patches_than_there_are_cannot_be_had(written: Path):
    with pytest.raises(ValueError, match="a subset of 13 examples cannot be drawn from 12"):
        load_dataset(replace_(SPEC, train=10, validation=3), written)


def test_the_prepared_file_holds_the_same(written: Path, tmp_path: Path):
    loaded = load_dataset(SPEC, written)
    for root in (written, tmp_path / "nothing here"):
        found = open_dataset(SPEC, root, torch.device("cpu"))
        for name in ("train", "test"):
            assert torch.equal(getattr(found, name).inputs, getattr(loaded, name).inputs)
            assert torch.equal(getattr(found, name).labels, getattr(loaded, name).labels)


def spoil(mine: Path, how: str) -> None:
    folder = mine / "BigEarthNet-v1.0" / name_of("train", 3)
    if how == "a band is missing":
        (folder / f"{folder.name}_B8A.tif").unlink()
    elif how == "a band is cut short":
        path = folder / f"{folder.name}_B02.tif"
        path.write_bytes(path.read_bytes()[:1000])
    elif how == "a band is no image":
        (folder / f"{folder.name}_B02.tif").write_text("moved")
    elif how == "the labels are missing":
        (folder / f"{folder.name}_labels_metadata.json").unlink()
    elif how == "the labels are cut short":
        (folder / f"{folder.name}_labels_metadata.json").write_text('{"labels": [')
    elif how == "a label is unknown":
        (folder / f"{folder.name}_labels_metadata.json").write_text('{"labels": ["Moon"]}')
    else:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    "how",
    [
        "a band is missing",
        "a band is cut short",
        "a band is no image",
        "the labels are missing",
        "the labels are cut short",
        "a label is unknown",
        "the folder is missing",
    ],
)
def test_a_damaged_patch_is_named_with_what_it_should_hold(mine: Path, how: str):
    spoil(mine, how)
    folder = mine / "BigEarthNet-v1.0" / name_of("train", 3)
    with pytest.raises(DamagedDataError) as caught:
        load_dataset(replace_(SPEC, train=None), mine)
    said = str(caught.value)
    assert said.startswith(f"the patch {folder} cannot be read: ")
    assert said.endswith(
        "It should hold 12 .tif files, one per band, and one .json file with its labels; unpack it again from "
        "BigEarthNet-S2-v1.0.tar.gz"
    )
    assert "\n" not in said


@pytest.mark.parametrize("missing", ["bigearthnet-test.csv", "BigEarthNet-v1.0"])
def test_a_missing_file_or_folder_is_named_with_the_command_that_gets_it(mine: Path, missing: str):
    path = mine / missing
    path.rename(mine / "elsewhere")
    with pytest.raises(DataError, match=f"{missing} is missing. Get it with: lmc-tune datasets get bigearthnet"):
        load_dataset(SPEC, mine)


@pytest.mark.parametrize("work", [partial(check_files, DATASETS["bigearthnet"]), partial(download, "bigearthnet")])
def test_without_torchgeo_the_command_that_installs_it_is_named(written: Path, work, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(data_files, "find_spec", lambda name: None if name == "torchgeo" else pytest.fail(name))
    said = "bigearthnet is read by torchgeo, which is not installed: pip install 'lmc-tune[bigearthnet]'"
    with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
        work(written)


def test_more_than_fits_in_memory_is_refused_before_anything_is_read(written: Path, monkeypatch: pytest.MonkeyPatch):
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 4 * 12 * 120 * 120 * 16 // 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    monkeypatch.setattr(datasets, "read_patches", lambda *_: pytest.fail("read"))
    check_memory(replace_(SPEC, train=7, validation=3))
    said = "12 training and 6 test examples of bigearthnet take 0.0124 GB, and this machine has 0.0111 GB of memory"
    with pytest.raises(DataError, match=f"{said}; ask for fewer with dataset.train and dataset.test"):
        load_dataset(replace_(SPEC, train=None, test=None), written)
    with pytest.raises(DataError, match="11 training and 6 test examples"):
        check_memory(replace_(SPEC, train=8, validation=3))


@pytest.fixture
def served(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The archive and the lists, behind torchgeo's addresses."""
    import_torchvision()
    from torchgeo.datasets import BigEarthNet

    folder = tmp_path / "served"
    folder.mkdir()
    with tarfile.open(folder / "BigEarthNet-S2-v1.0.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(written / "BigEarthNet-v1.0", "BigEarthNet-v1.0")
    for path, _ in DATASETS["bigearthnet"].files:
        shutil.copy(written / path, folder)
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        for about in (BigEarthNet.metadata["s2"], *BigEarthNet.splits_metadata.values()):
            path = folder / about["filename"]
            monkeypatch.setitem(about, "url", f"http://127.0.0.1:{server.server_port}/{path.name}")
            monkeypatch.setitem(about, "md5", md5(path))
        yield folder
        server.shutdown()
        thread.join()


def test_it_is_downloaded_verified_and_unpacked(served: Path, tmp_path: Path):
    root = tmp_path / "data"
    root.mkdir()
    download("bigearthnet", root)
    check_files(DATASETS["bigearthnet"], root)
    assert len(load_dataset(SPEC, root).train) == 10
    shutil.rmtree(served)
    download("bigearthnet", root)  # is there


def test_an_archive_that_is_there_is_verified_before_it_is_unpacked(served: Path, tmp_path: Path):
    root = tmp_path / "data"
    root.mkdir()
    with tarfile.open(root / "BigEarthNet-S2-v1.0.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("../outside")
        archive.addfile(member)
    with pytest.raises(DamagedDataError, match=r"BigEarthNet-S2-v1\.0\.tar\.gz is damaged: its md5 is .* Delete it"):
        download("bigearthnet", root)
    assert not (tmp_path / "outside").exists()
    assert [path.name for path in root.iterdir()] == ["BigEarthNet-S2-v1.0.tar.gz"]


def test_a_download_that_fails_is_told_with_what_to_do(served: Path, tmp_path: Path):
    (served / "BigEarthNet-S2-v1.0.tar.gz").unlink()
    by_hand = "by hand: bigearthnet-train.csv, bigearthnet-val.csv, bigearthnet-test.csv, BigEarthNet-v1.0"
    with pytest.raises(DataError, match=f"could not be downloaded: .* copy the files of zenodo.org.* {by_hand}"):
        download("bigearthnet", tmp_path)


MEASURE = MeasureSpec(lambdas=3, refinements=1)


def pair(shift: ShiftSpec) -> GroupSpec:
    return GroupSpec(
        dataset=SPEC,
        model=VggSpec(width=1 / 32, norm="batch"),
        train=TrainSpec(lr=0.05, batch_size=2, epochs=2, momentum=0.9),
        shift=shift,
        replicate=0,
    )


def test_a_pair_that_looks_through_disjoint_bands(written: Path, tmp_path: Path):
    """Losses, accuracies and average precision are those of the members as anyone would score them."""
    spec = pair(ShiftSpec(kind="domain", bands=[[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]))
    bench = Workbench(
        store=Store(tmp_path / "run"),
        data_root=written,
        device="cpu",
        measure=MEASURE.model_copy(update={"conditions": ("naive",)}),  # else similarity would be recalibrated members'
        members=tmp_path,
        min_train_accuracy=0.1,
    )
    result = run_pair(spec, bench)
    row = result.row
    assert row["status"] == "ok"
    assert not {"kappa", "same_error", "error_overlap_ratio", "average_kappa"} & row.keys()
    dataset = load_dataset(SPEC, written)
    seen = views(dataset, spec.shift)
    parts = split_views(*seen, spec.shift, spec.seed_for("split"))
    data = pair_data(*seen, parts)
    inputs = torch.cat([some.inputs for some in data.test.chunks(100)])
    labels = data.test.labels
    assert len(inputs) == 12
    probabilities = []
    for name in ("a", "b"):
        model = build_model(spec.model, (12, 120, 120), 19, seed=0)
        model.load_state_dict(load_file(tmp_path / f"{spec.members[name].key}.safetensors"))
        with torch.no_grad():
            logits = model.eval()(inputs).double()
        probabilities.append(logits.sigmoid())
        loss = functional.binary_cross_entropy_with_logits(logits, labels.double())
        assert row[f"test_loss_{name}"] == pytest.approx(loss.item(), rel=1e-5)
        assert row[f"test_accuracy_{name}"] == ((logits > 0) == labels).double().mean().item()
        assert row[f"test_brier_{name}"] == pytest.approx(
            2 * ((probabilities[-1] - labels) ** 2).mean().item(), rel=1e-5
        )
        assert row[f"test_average_precision_{name}"] == pytest.approx(average_precision(logits, labels), abs=1e-6)
    both = (probabilities[0] + probabilities[1]) / 2
    assert row["ensemble_average_precision"] == pytest.approx(average_precision(both, labels), abs=1e-6)
    assert row["ensemble_accuracy"] == ((both > 0.5) == labels).double().mean().item()
    expected_nll = functional.binary_cross_entropy(both, labels.double())
    assert row["ensemble_nll"] == pytest.approx(expected_nll.item(), rel=1e-5)
    disagree = (probabilities[0] > 0.5) != (probabilities[1] > 0.5)
    assert row["disagreement"] == disagree.double().mean().item()
    assert 0 <= row["average_average_precision"] <= 1
    frequencies = [dataset.train.labels[at].sum(0).double() for at in (parts.a, parts.b)]
    apart = (frequencies[0] / frequencies[0].sum() - frequencies[1] / frequencies[1].sum()).abs().sum() / 2
    assert row["label_shift"] == pytest.approx(apart.item())
    assert row["covariate_shift"] > 0.1
    decisions = {point["split"]: point["n"] for point in result.tables["paths"]}
    assert decisions == {"train": 10 * 19, "test": 12 * 19}
    assert {point["condition"] for point in result.tables["paths"]} == {"naive"}
    ends = {p["lambda"]: p for p in result.tables["paths"] if p["split"] == "test" and p["condition"] == "naive"}
    assert ends[0.0]["loss_sum"] / ends[0.0]["n"] == pytest.approx(row["test_loss_a"], rel=1e-5)
    assert math.isfinite(row["test_loss_barrier_chord"])


def average_precision(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """Mean over the labels that an example has."""
    there = labels.any(0)
    return float(np.mean([average_precision_score(labels[:, k], scores[:, k]) for k in torch.nonzero(there).flatten()]))


def test_a_member_above_chance_level_and_its_start_has_diverged(written: Path, tmp_path: Path):
    """Of a decision chance level is ln 2."""
    spec = pair(ShiftSpec())
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"lr": 30.0, "momentum": 0.0})})
    row = run_pair(spec, Workbench(store=Store(tmp_path / "run"), data_root=written, measure=MEASURE)).row
    assert row["status"] == "diverged"
    assert re.search(r"rose above chance level: train loss [\d.e+]+ > ln 2", row["reason"])


def test_joint_training_and_a_corruption_take_several_labels_as_well(written: Path, tmp_path: Path):
    spec = pair(ShiftSpec(kind="domain", domain="blur", severity=0.6))
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"spawn_epoch": 1, "engine": "stacked"})})
    row = run_pair(spec, Workbench(store=Store(tmp_path / "run"), data_root=written, measure=MEASURE)).row
    assert row["status"] in {"ok", "undertrained"}
    assert 0 <= row["test_average_precision_a"] <= 1
