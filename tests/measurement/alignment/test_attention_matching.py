"""Matching attention: the best order of heads, and of units inside them, is found."""

import math
from itertools import permutations as all_orders
from itertools import product as all_of

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmc_tune.data.examples import Examples
from lmc_tune.measurement.alignment.activations import match_activations
from lmc_tune.measurement.alignment.groups import Group
from lmc_tune.measurement.alignment.matching import match_weights
from lmc_tune.measurement.alignment.multi import match_together
from lmc_tune.measurement.alignment.proof import check_unchanged
from lmc_tune.measurement.alignment.specification import Specification, inverse, random_permutations
from lmc_tune.measurement.alignment.trace import specification_of
from tests.measurement.alignment.transformers import HEADS, MADE, inputs, state, transformer


def product(a, b, specification: Specification) -> float:
    counted = {place.entry for group in specification.free.values() for place in group.places if place.counts}
    return float(sum((a[name] * b[name]).sum() for name in counted))


def every_order(group: Group):
    """All that keep heads together, spelt out."""
    for heads in all_orders(range(group.heads)):
        slots = [
            list(range(*group.head(kind, head).indices(group.size)))
            for kind in range(len(group.widths))
            for head in heads
        ]
        for inside in all_of(*(all_orders(slot) for slot in slots)):
            yield np.array([unit for slot in inside for unit in slot])


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([(1, (4,)), (2, (3, 2)), (3, (2, 1)), (2, (1, 1, 2)), (4, (1, 1))]), st.integers(0, 10_000))
def test_the_best_permutation_is_the_best_of_all_that_keep_heads_together(shape, seed):
    heads, widths = shape
    group = Group(heads=heads, widths=widths, places=())
    rng = np.random.default_rng(seed)
    gains = rng.normal(size=(group.size, group.size))
    orders = {tuple(order) for order in every_order(group)}
    assert len(orders) == math.factorial(heads) * math.prod(math.factorial(width) ** heads for width in widths)
    best = group.best(gains)
    units = np.arange(group.size)
    assert tuple(best) in orders
    assert gains[units, best].sum() == pytest.approx(max(gains[units, order].sum() for order in map(list, orders)))
    assert tuple(group.random(rng)) in orders
    everything = all_orders(range(group.size)) if group.size <= 5 else (rng.permutation(group.size) for _ in range(200))
    assert all(group.allows(np.array(order)) == (tuple(order) in orders) for order in everything)


@pytest.mark.parametrize("name", ["torch's", "by hand", "unbind"])
def test_one_layer_of_attention_has_the_best_of_all_2592_permutations(name):
    model, other = transformer(name, depth=1), transformer(name, 1, depth=1)
    specification = specification_of(model, inputs())
    number, group = next(one for one in specification.free.items() if one[1].heads == HEADS)
    alone = Specification(groups=(group,), fixed=specification.fixed)
    a, b = model.state_dict(), other.state_dict()
    reached = [product(a, alone.permuted(b, {0: order}), alone) for order in every_order(group)]
    assert len(reached) == 2592
    found = match_weights(alone, a, b)
    assert found.objective == pytest.approx(max(reached), rel=1e-12)
    assert found.identity == pytest.approx(product(a, b, alone), rel=1e-12)
    assert found.objective > found.identity
    whole = match_weights(specification, a, b)  # the MLP's units share no weight with attention's
    np.testing.assert_array_equal(whole.permutations[number], found.permutations[0])


@pytest.mark.parametrize("name", MADE)
def test_planted_heads_and_units_inside_them_are_found_again(name):
    model = transformer(name)
    specification = specification_of(model, inputs())
    start, planted = state(model), random_permutations(specification, 5)
    found = match_weights(specification, start, specification.permuted(start, planted))
    for number, permutation in inverse(planted).items():
        np.testing.assert_array_equal(found.permutations[number], permutation)


@pytest.mark.parametrize("name", MADE)
def test_with_a_free_residual_stream_the_planted_objective_is_reached_within_five_starts(name):
    model = transformer(name)
    specification = specification_of(model, inputs(), residual="free")
    start = state(model)
    found = match_weights(
        specification, start, specification.permuted(start, random_permutations(specification, 5)), restarts=5
    )
    assert found.objective == pytest.approx(product(start, start, specification), rel=1e-9)


@pytest.mark.parametrize("name", MADE)
def test_the_objective_of_two_networks_is_never_below_the_identitys_and_no_swap_is_better(name):
    model, other = transformer(name), transformer(name, 1)
    specification = specification_of(model, inputs())
    a, b = model.state_dict(), other.state_dict()
    found = match_weights(specification, a, b)
    moved = specification.permuted(b, found.permutations)
    assert found.objective == pytest.approx(product(a, moved, specification), rel=1e-9)
    assert found.objective >= found.identity
    for seed in range(20):
        again = specification.permuted(moved, random_permutations(specification, seed))
        assert product(a, again, specification) <= found.objective + 1e-9


@pytest.mark.parametrize("name", MADE)
def test_attention_is_recognised_by_its_queries_keys_and_values(name):
    model = transformer(name)
    specification = specification_of(model, inputs())
    start, planted = state(model), random_permutations(specification, 5)
    examples = Examples(inputs=inputs(300), labels=torch.zeros(300, dtype=torch.int64))
    found = match_activations(model, specification, start, specification.permuted(start, planted), examples)
    for number, permutation in inverse(planted).items():
        np.testing.assert_array_equal(found[number], permutation)


def test_several_transformers_are_brought_together():
    models = [transformer("torch's", seed) for seed in range(3)]
    specification = specification_of(models[0], inputs())
    found = match_together(specification, [model.state_dict() for model in models])
    assert found.converged
    assert found.objectives[-1] > found.objectives[0]
    assert all(later >= earlier - 1e-9 for earlier, later in zip(found.objectives, found.objectives[1:], strict=False))
    for model, permutations in zip(models, found.permutations, strict=True):
        check_unchanged(model, specification, model.state_dict(), permutations, inputs())
