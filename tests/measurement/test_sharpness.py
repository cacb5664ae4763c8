"""Sharpness of members: filter-normalised directions filter by filter, and the rows of both tables."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lmc_tune.experiment import DirectionsSpec, MeasureSpec, SharpnessSpec
from lmc_tune.measurement.directions import Directions
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.sharpness import filter_directions, filter_normalised, sharpness_rows
from lmc_tune.models.state import lerp_state
from tests.cases import network, state
from tests.measurement.around import pair, plain_score
from tests.measurement.cases import IMAGES, image_network
from tests.measurement.test_hessian import dense

SPEC = SharpnessSpec(examples=40, radii=(0.1, 0.5), draws=2)
ASKED = MeasureSpec(directions=DirectionsSpec(random=None, sharpness=SPEC), conditions=("naive", "recalibrated"))


def test_every_filter_has_the_length_of_the_networks_own():
    model = image_network("resnet batch", 1)
    step = filter_normalised(Network(model), state(model), seed=3)
    kinds = {name: type(model.get_submodule(name.rpartition(".")[0])) for name in state(model)}
    moved = {name for name, kind in kinds.items() if kind in (nn.Conv2d, nn.Linear) and name.endswith("weight")}
    assert step.keys() == moved
    for name, entry in step.items():
        for own, filter_ in zip(entry, model.state_dict()[name], strict=True):
            assert float((own**2).sum()) == pytest.approx(float((filter_**2).sum()), rel=1e-12)
    first, second = (filter_normalised(Network(model), state(model), seed=seed) for seed in (3, 4))
    assert all(torch.equal(entry, first[name]) for name, entry in step.items())
    assert not any(torch.equal(entry, second[name]) for name, entry in step.items())


def test_scaling_the_network_scales_the_direction():
    """So that the rise of the loss does not depend on scales that a following norm takes away (Li et al. 2018)."""
    model = network(1)
    one = filter_normalised(Network(model), state(model), seed=0)
    ten = filter_normalised(Network(model), {name: 10 * entry for name, entry in state(model).items()}, seed=0)
    assert all(torch.allclose(ten[name], 10 * entry) for name, entry in one.items())


def test_rows_are_scores_by_the_book():
    members = pair()
    tables = Directions().measure(members, ASKED).tables
    steps = {(one.position, one.draw): one for some in filter_directions(members, SPEC) for one in some}
    assert len(steps) == 3 * 2
    rows = [row for row in tables["directions"] if row["kind"] == "filter"]
    assert len(rows) == 2 * 2 * len(steps)
    for row in rows:
        direction, weights = steps[row["lambda"], row["draw"]], lerp_state(*members.pair, row["lambda"])
        for name, step in direction.step.items():
            weights[name] = weights[name] + row["alpha"] * step
        assert row["loss_sum"] == pytest.approx(
            plain_score(network(0).double(), weights, members.data[row["split"]])[0]
        )
        norms = [
            float((weights_of**2).sum()) for name, weights_of in direction.origin.items() if name in direction.step
        ]
        assert row["norm"] == pytest.approx(row["alpha"] * np.sqrt(sum(norms)))
    assert {row["lambda"] for row in tables["directions"] if row["kind"] == "unmoved"} == {0.0, 0.5, 1.0}


@pytest.mark.parametrize("examples", [40, None, 1000])
def test_curvature_is_that_of_the_first_training_examples(examples):
    members = pair()
    rows = sharpness_rows(members, SPEC.model_copy(update={"examples": examples}), "naive")
    n = min(examples or 60, 60)
    for row, state_ in zip(rows, [lerp_state(*members.pair, at) for at in (0.0, 0.5, 1.0)], strict=True):
        model = network(0).double()
        model.load_state_dict(state_)
        some = members.data["train"].take(np.arange(n))
        assert row["eigenvalue"] == pytest.approx(np.linalg.eigvalsh(dense(model, some))[-1], rel=1e-6)
        assert row["examples"] == n
    assert [row["lambda"] for row in rows] == [0.0, 0.5, 1.0]


def test_running_statistics_are_those_of_the_condition():
    members = pair(norm=True)
    naive, recalibrated = (sharpness_rows(members, SPEC, condition) for condition in ("naive", "recalibrated"))
    model = network(0, norm=True).double()
    model.load_state_dict(lerp_state(*members.pair, 0.5))
    some = members.data["train"].take(np.arange(40))
    assert naive[1]["eigenvalue"] == pytest.approx(np.linalg.eigvalsh(dense(model, some))[-1], rel=1e-6)
    model[2].reset_running_stats()
    model[2].momentum = None
    model.train()(members.data["train"].inputs)
    assert recalibrated[1]["eigenvalue"] == pytest.approx(np.linalg.eigvalsh(dense(model, some))[-1], rel=1e-6)


def test_a_flat_loss_has_no_curvature():
    """A network whose outputs are all alike and do not depend on its only weights."""

    class Still(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return functional.pad(0 * self.weight[0] * inputs.flatten(1)[:, :1], (0, 2))

    from lmc_tune.measurement.hessian import top_eigenvalue

    found = top_eigenvalue(Network(Still()), state(Still()), pair().data["train"], seed=0)
    assert found.value == pytest.approx(0, abs=1e-12)


def test_points_are_compared_in_the_same_directions():
    """Members that are equal have equal rises, however few draws there are."""
    model = image_network("mlp", 1)
    members = Members(
        network=Network(model),
        states={"a": state(model), "b": state(model)},
        data={"train": IMAGES, "test": IMAGES},
        statistics=IMAGES,
        start=state(model),
    )
    steps = [one for some in filter_directions(members, SPEC) for one in some]
    first = {one.draw: one.step for one in steps if one.position == 0.0}
    for one in steps:
        assert all(torch.equal(entry, first[one.draw][name]) for name, entry in one.step.items())
