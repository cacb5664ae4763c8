"""Members from files: what a sweep kept, and what any other program wrote."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lmc_tune.errors import UserError
from lmc_tune.experiment import MeasureSpec
from lmc_tune.measurement.ends import Ends
from lmc_tune.measurement.lines import MeasurementError
from lmc_tune.measurement.members import read_members
from lmc_tune.measurement.path import Paths, measure_path
from lmc_tune.measurement.registry import MEASUREMENTS
from lmc_tune.measurement.similarity import Similarity
from lmc_tune.models.registry import build_model
from lmc_tune.work.cohort import run_cohort
from lmc_tune.work.prepare import prepare
from tests.cases import MEASURE, blobs, cohort, network, pair_spec, state

DATA = {"train": blobs(60), "test": blobs(30, seed=1)}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {name: tmp_path / f"{name}.safetensors" for name in ("a", "b")}
    for seed, file in enumerate(found.values(), start=1):
        save_file(state(network(seed)), file)
    return found


def test_members_are_what_the_files_hold(files):
    members = read_members(network(9), files, DATA)
    for seed, name in enumerate(("a", "b"), start=1):
        assert all(torch.equal(tensor, members.states[name][entry]) for entry, tensor in state(network(seed)).items())
    assert members.start is None


def test_every_measurement_takes_members_without_a_sweep(files):
    members, asked = read_members(network(9), files, DATA, DATA["train"]), MeasureSpec(lambdas=5, refinements=1)
    asked = asked.model_copy(update={"conditions": ("naive",)})
    found = {one.name: one.measure(members, asked) for one in MEASUREMENTS}
    path = measure_path(network(0), state(network(1)), state(network(2)), DATA, asked)
    (barriers,) = found["path"].tables["barriers"]
    assert barriers["test_loss_barrier_chord"] == path.barrier("test", "loss").height
    assert "weight_cosine" not in found["similarity"].columns  # they have no start in common that is known
    assert found["similarity"].columns["disagreement"] >= 0


def test_kept_members_of_a_sweep_measure_as_they_did_in_it(bench):
    tidy = bench()
    folder, spec = tidy.store.folder / "members", pair_spec(train={"lr": 0.3, "epochs": 3})
    (result,) = run_cohort(cohort(spec), bench(members=folder))
    data = prepare(spec, tidy).data
    files = {name: folder / f"{member.key}.safetensors" for name, member in spec.members.items()}
    model = build_model(spec.model, (1, 8, 8), 10, seed=0)
    members = read_members(model, files, {"train": data.train, "test": data.test}, data.train)
    found = MEASUREMENTS[0].measure(members, MEASURE.of(spec.model)).tables
    assert found == {name: result.tables[name] for name in ("barriers", "paths")}


def test_a_file_that_is_no_member_of_the_network_is_named_with_what_differs(files, tmp_path):
    (tmp_path / "notes.txt").write_text("not weights")
    wide = tmp_path / "wide.safetensors"
    save_file(state(network(1, hidden=7)), wide)
    for file, said in (
        (tmp_path / "gone.safetensors", "gone.safetensors cannot be member 'b' of this network: .*No such file"),
        (tmp_path / "notes.txt", "notes.txt cannot be member 'b' of this network"),
        (
            wide,
            r"wide.safetensors cannot be member 'b' of this network: .*differ in architecture: '1.weight' is \(6, 4\)",
        ),
    ):
        with pytest.raises(UserError, match=said):
            read_members(network(9), {"a": files["a"], "b": file}, DATA)


def test_what_members_lack_is_asked_for(files):
    plain, asked = read_members(network(9), files, DATA), MeasureSpec(lambdas=5, conditions=("naive",))
    with pytest.raises(MeasurementError, match="nobody knows what a, b were trained on; give it as own"):
        Ends().measure(plain, asked)
    for seed, file in enumerate(files.values(), start=1):
        save_file(state(network(seed, norm=True)), file)
    normed = read_members(network(9, norm=True), files, DATA)
    with pytest.raises(MeasurementError, match="recalibrated needs examples of the training set; give them as stat"):
        Similarity().measure(normed, MeasureSpec(lambdas=5, conditions=("naive", "recalibrated")))
    found = Similarity().measure(replace(normed, data={"test": DATA["test"]}), asked)
    assert found.columns["disagreement"] >= 0


def test_a_path_is_measured_on_the_splits_that_are_asked_for(files):
    members = read_members(network(9), files, {**DATA, "validation": blobs(20, seed=2)})
    asked = MeasureSpec(lambdas=5, refinements=0, conditions=("naive",))
    for splits in (("train", "test"), ("train", "test", "validation")):
        found = Paths().measure(members, asked.model_copy(update={"splits": splits}))
        assert {row["split"] for row in found.tables["paths"]} == set(splits)
