"""Several networks aligned to each other, and the proof that alignment changes no function."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lmc_tune.experiment import MlpSpec, ResnetSpec
from lmc_tune.measurement.alignment.matching import match_weights
from lmc_tune.measurement.alignment.multi import match_together
from lmc_tune.measurement.alignment.proof import check_unchanged
from lmc_tune.measurement.alignment.specification import Group, random_permutations
from lmc_tune.measurement.alignment.trace import specification_of
from lmc_tune.measurement.lines import MeasurementError
from lmc_tune.models.registry import build_model
from tests.cases import NETWORKS

IMAGES = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def members(spec, n: int):
    models = [build_model(spec, (3, 32, 32), 4, seed) for seed in range(n)]
    return specification_of(models[0], IMAGES), [model.state_dict() for model in models], models[0]


def pairwise(specification, states) -> float:
    counted = {place.entry for group in specification.free.values() for place in group.places if place.counts}
    return sum(
        float((one[name].double() * other[name].double()).sum())
        for at, one in enumerate(states)
        for other in states[:at]
        for name in counted
    )


@pytest.mark.parametrize(
    "spec",
    [MlpSpec(hidden=(24, 16)), ResnetSpec(depth=8, width=1 / 4), NETWORKS["vit"]],
    ids=["mlp", "resnet", "vit"],
)
def test_the_objective_is_that_of_all_pairs_and_never_falls(spec):
    specification, states, _ = members(spec, 4)
    found = match_together(specification, states)
    assert found.converged
    moved = [specification.permuted(state, p) for state, p in zip(states, found.permutations, strict=True)]
    assert found.objectives[0] == pytest.approx(pairwise(specification, states), rel=1e-9, abs=1e-9)
    assert found.objectives[-1] == pytest.approx(pairwise(specification, moved), rel=1e-9, abs=1e-9)
    assert all(later >= earlier - 1e-9 for earlier, later in zip(found.objectives, found.objectives[1:], strict=False))
    assert found.objectives[-1] > found.objectives[0]
    again = match_together(specification, moved)  # a fixed point
    assert again.objectives[-1] == pytest.approx(found.objectives[-1], rel=1e-9)


def test_copies_in_other_orders_are_brought_together_again():
    specification, (state, *_), _ = members(MlpSpec(hidden=(30, 20)), 1)
    copies = [specification.permuted(state, random_permutations(specification, seed)) for seed in range(4)]
    found = match_together(specification, copies)
    moved = [specification.permuted(copy, p) for copy, p in zip(copies, found.permutations, strict=True)]
    for one in moved[1:]:
        assert all(torch.equal(one[name], moved[0][name]) for name in state)


def test_two_members_are_matched_as_a_pair_is():
    specification, states, _ = members(MlpSpec(hidden=(20,)), 2)
    together = match_together(specification, states)
    pair = match_weights(specification, *states)
    assert together.objectives[-1] == pytest.approx(pair.objective, rel=1e-9)


def test_one_network_has_no_others():
    specification, states, _ = members(MlpSpec(hidden=(4,)), 1)
    with pytest.raises(ValueError, match="two at least, got 1"):
        match_together(specification, states)


@pytest.mark.parametrize("name", ["mlp batch", "vgg", "resnet layer", "vit"])
def test_a_permutation_is_proved_to_change_nothing(name):
    specification, (state, *_), model = members(NETWORKS[name], 1)
    check_unchanged(model, specification, state, random_permutations(specification, 1), IMAGES)


def test_a_specification_that_is_wrong_is_found_out_and_the_layer_is_named():
    specification, (state, *_), model = members(MlpSpec(hidden=(12, 10)), 1)
    second = next(number for number, group in specification.free.items() if group.size == 10)

    def without(entry: str) -> tuple[Group, ...]:
        places = tuple(place for place in specification.groups[second].places if place.entry != entry)
        return tuple(
            replace(group, places=places) if number == second else group
            for number, group in enumerate(specification.groups)
        )

    swapped = {second: np.roll(np.arange(10), 1)}
    hidden, head = (replace(specification, groups=without(entry)) for entry in ("linear2.bias", "head.weight"))
    with pytest.raises(MeasurementError, match=r"do not compute the same function: activation2 differs by"):
        check_unchanged(model, hidden, _with_bias(state), swapped, IMAGES)
    with pytest.raises(MeasurementError, match=r"outputs differ by .*, though all hidden units that can be seen agree"):
        check_unchanged(model, head, state, swapped, IMAGES)


def _with_bias(state):
    return {**state, "linear2.bias": torch.arange(10, dtype=torch.float32)}
