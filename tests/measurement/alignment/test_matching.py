"""Weight matching: planted permutations are found again, and nothing that it finds is worse than the identity."""

from itertools import permutations as all_orders

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lmc_tune.experiment import MlpSpec, ResnetSpec, VggSpec
from lmc_tune.measurement.alignment.matching import match_weights
from lmc_tune.measurement.alignment.specification import Specification, inverse, random_permutations
from lmc_tune.measurement.alignment.trace import specification_of
from lmc_tune.models.registry import build_model
from tests.cases import NETWORKS, examples_for, shape_of

SEQUENTIAL = {
    "1 hidden layer": MlpSpec(hidden=(40,)),
    "3 hidden layers": MlpSpec(hidden=(40, 30, 20)),
    "5 hidden layers": MlpSpec(hidden=(32,) * 5, norm="batch"),
    "VGG-11": VggSpec(width=1 / 8),
    "VGG-11 with BatchNorm": VggSpec(width=1 / 8, norm="batch"),
}


def made(spec, seed: int = 0) -> tuple[nn.Module, Specification]:
    model = build_model(spec, shape_of(spec), 4, seed)
    return model, specification_of(model, examples_for(spec, 2, dtype=torch.float32).inputs)


def product(state_a, state_b, specification: Specification) -> float:
    """The objective, entry by entry: an oracle without permutations."""
    counted = {place.entry for group in specification.free.values() for place in group.places if place.counts}
    return float(sum((state_a[name].double() * state_b[name].double()).sum() for name in counted))


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_a_planted_permutation_is_recovered_exactly(name):
    model, specification = made(SEQUENTIAL[name])
    state, planted = model.state_dict(), random_permutations(specification, 5)
    found = match_weights(specification, state, specification.permuted(state, planted))
    for number, permutation in inverse(planted).items():
        np.testing.assert_array_equal(found.permutations[number], permutation)


@pytest.mark.parametrize(
    "spec", [ResnetSpec(depth=20, width=1 / 2), NETWORKS["vit"], NETWORKS["gpt"]], ids=["resnet-20", "vit", "gpt"]
)
def test_of_residual_networks_the_planted_objective_is_reached_within_five_starts(spec):
    model, specification = made(spec)
    state = model.state_dict()
    moved = specification.permuted(state, random_permutations(specification, 5))
    found = match_weights(specification, state, moved, restarts=5)
    assert found.objective == pytest.approx(product(state, state, specification), rel=1e-9)


@settings(max_examples=25)
@given(st.integers(2, 6), st.integers(0, 10_000))
def test_one_hidden_layer_has_the_best_of_all_permutations(units, seed):
    spec = MlpSpec(hidden=(units,))
    (model, specification), (other, _) = made(spec, seed), made(spec, seed + 1)
    a, b = model.state_dict(), other.state_dict()
    best = max(
        product(a, specification.permuted(b, {number: np.array(order)}), specification)
        for number in specification.free
        for order in all_orders(range(units))
    )
    found = match_weights(specification, a, b)
    assert found.objective == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("name", ["mlp batch", "vgg", "resnet batch", "resnet layer", "vit", "gpt"])
@pytest.mark.parametrize("restarts", [1, 3])
def test_the_objective_is_the_product_of_the_weights_and_never_falls_below_the_identitys(name, restarts):
    (model, specification), (other, _) = made(NETWORKS[name], 0), made(NETWORKS[name], 1)
    a, b = model.state_dict(), other.state_dict()
    found = match_weights(specification, a, b, restarts=restarts)
    assert found.identity == pytest.approx(product(a, b, specification), rel=1e-9, abs=1e-9)
    moved = specification.permuted(b, found.permutations)
    assert found.objective == pytest.approx(product(a, moved, specification), rel=1e-9, abs=1e-9)
    assert found.objective >= found.identity
    assert found.objective == max(found.objectives)
    assert len(found.objectives) == restarts


def test_more_starts_never_find_less_and_the_same_seed_finds_the_same():
    spec = ResnetSpec(depth=8, width=1 / 2)
    (model, specification), (other, _) = made(spec, 0), made(spec, 1)
    a, b = model.state_dict(), other.state_dict()
    few, many, again = (match_weights(specification, a, b, restarts=n, seed=4) for n in (1, 4, 4))
    assert many.objective >= few.objective
    assert many.objectives[0] == few.objectives[0]
    for number, permutation in many.permutations.items():
        np.testing.assert_array_equal(again.permutations[number], permutation)


def test_statistics_move_and_do_not_count():
    model, specification = made(NETWORKS["mlp batch"])
    state = {name: entry.clone() for name, entry in model.state_dict().items()}
    for name, entry in state.items():
        if name.endswith("running_mean"):
            entry.copy_(1000 * torch.arange(len(entry)))
    planted = random_permutations(specification, 2)
    moved = specification.permuted(state, planted)
    assert not torch.equal(moved["norm1.running_mean"], state["norm1.running_mean"])
    found = match_weights(specification, {**state, "norm1.running_mean": torch.randn(6)}, moved)
    for number, permutation in inverse(planted).items():
        np.testing.assert_array_equal(found.permutations[number], permutation)


def test_a_network_without_a_free_group_stays_as_it_is():
    specification = Specification(groups=())
    found = match_weights(specification, {}, {})
    assert (found.permutations, found.objective, found.identity) == ({}, 0.0, 0.0)
