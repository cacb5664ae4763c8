"""Attention: heads change places, and units inside heads, and the function stays."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lmc_tune.measurement.alignment.links import RESIDUAL
from lmc_tune.measurement.alignment.proof import check_unchanged
from lmc_tune.measurement.alignment.specification import check_complete, inverse, random_permutations
from lmc_tune.measurement.alignment.trace import specification_of
from lmc_tune.measurement.lines import MeasurementError
from tests.measurement.alignment.transformers import (
    DIM,
    HEADS,
    MADE,
    Across,
    Biased,
    Crossed,
    Masked,
    Outer,
    Shared,
    Telling,
    Transformer,
    inputs,
    state,
    transformer,
)


@pytest.mark.parametrize("residual", ["fixed", "free"])
@pytest.mark.parametrize("name", MADE)
def test_heads_and_units_inside_them_change_places_and_the_function_stays(name, residual):
    model = transformer(name)
    specification = specification_of(model, inputs(), residual=residual)
    check_complete(specification, model.state_dict(), [entry for entry, _ in model.named_parameters()])
    free = specification.free.values()
    assert [sorted(group.widths) for group in free if group.heads == HEADS] == [sorted(MADE[name][1])] * 2
    before, start = model(inputs()).detach(), state(model)
    for seed in range(3):
        planted = random_permutations(specification, seed)
        moved = specification.permuted(start, planted)
        model.load_state_dict(moved)
        torch.testing.assert_close(model(inputs()), before, rtol=0, atol=1e-10 * float(before.abs().max()))
        back = specification.permuted(moved, inverse(planted))
        assert all(torch.equal(back[entry], start[entry]) for entry in start)
    assert not all(torch.equal(moved[entry], start[entry]) for entry in start if "att" in entry)


@pytest.mark.parametrize("name", MADE)
def test_the_residual_stream_is_fixed_unless_it_is_asked_for(name):
    model = transformer(name)
    fixed, free = (specification_of(model, inputs(), residual=residual) for residual in ("fixed", "free"))
    stream = next(group for group in fixed.groups if any(place.entry == "embed.weight" for place in group.places))
    assert stream.frozen == RESIDUAL
    assert RESIDUAL in fixed.frozen
    assert len(free.free) >= len(fixed.free) + 1
    assert RESIDUAL not in free.frozen
    assert sum(group.widths == (8,) for group in fixed.free.values()) == 2  # the hidden units of the MLPs


@pytest.mark.parametrize(("name", "reason"), [
    ("rotary", "attention.0: getitem picks some of the units"),
    ("normed", "attention.0.norm_q.weight is the same for all heads"),
    ("summed", "attention.0: sum mixes heads"),
])  # fmt: skip
def test_why_units_keep_their_order_inside_a_head_is_named(name, reason):
    assert any(reason in said for said in specification_of(transformer(name), inputs()).frozen)


@pytest.mark.parametrize(("make", "reason"), [
    (Biased, "attention.0: scaled_dot_product_attention joins units with what cannot be permuted"),
    (Shared, "attention.0: scaled_dot_product_attention joins units with what cannot be permuted"),
    (Across, "attention.0: scaled_dot_product_attention attends to positions"),
    (Crossed, "attention.0: matmul joins heads with each other"),
    (Outer, "attention.0: mul joins heads with each other"),
    (Masked, "attention.0.own masks every head differently"),
    (Telling, "attention.0.own returns the weights of every head"),
])  # fmt: skip
def test_heads_that_differ_stay_where_they_are(make, reason):
    model = Transformer(make, depth=1).double().eval()
    specification = specification_of(model, inputs())
    assert reason in specification.frozen
    assert [group.widths for group in specification.free.values()] == [(8,)]
    before, start = model(inputs()).detach(), state(model)
    model.load_state_dict(specification.permuted(start, random_permutations(specification, 1)))
    torch.testing.assert_close(model(inputs()), before, rtol=0, atol=1e-10 * float(before.abs().max()))


def test_an_order_that_takes_heads_apart_is_refused():
    model = transformer("torch's")
    specification = specification_of(model, inputs())
    number, group = next(one for one in specification.free.items() if one[1].heads == HEADS)
    keys, values = np.arange(DIM), np.arange(DIM, 2 * DIM)
    split, one_kind = keys[[0, 1, 3, 2, 4, 5]], keys[[3, 4, 5, 0, 1, 2]]
    for wrong in (np.concatenate([split, values]), np.concatenate([one_kind, values]), np.concatenate([values, keys])):
        assert not group.allows(wrong)
        with pytest.raises(
            ValueError, match="has 12 units; give a permutation of them that keeps its 2 heads together"
        ):
            specification.permuted(model.state_dict(), {number: wrong})
    assert group.allows(np.concatenate([one_kind, values[[3, 5, 4, 0, 1, 2]]]))


def test_a_projection_that_was_left_out_is_named():
    model = transformer("torch's", depth=1)
    specification = specification_of(model, inputs())
    number, group = next(one for one in specification.free.items() if one[1].heads == HEADS)
    kept = tuple(
        place for place in group.places if not (place.entry.endswith("in_proj_bias") and place.start == 2 * DIM)
    )
    wrong = tuple(replace(one, places=kept) if at == number else one for at, one in enumerate(specification.groups))
    planted = random_permutations(specification, 3)
    check_unchanged(model, specification, model.state_dict(), planted, inputs())
    with pytest.raises(MeasurementError, match=r"attention\.0\.own\.value differs by"):
        check_unchanged(model, replace(specification, groups=wrong), model.state_dict(), planted, inputs())
