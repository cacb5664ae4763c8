"""Where networks are that are scored."""

import doctest

import pytest
import torch

from lmc_tune.measurement import lines
from lmc_tune.measurement.lines import Mixture, Segment
from lmc_tune.models.state import lerp_state
from tests import oracles
from tests.cases import network, state

A, B, C = (state(network(seed, norm=True)) for seed in (1, 2, 3))
FIRST = frozenset({"1.weight", "1.bias"})
REST = frozenset(A) - FIRST


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("position", [0.0, 0.3, 0.5, 1.0])
def test_a_whole_segment_is_the_straight_path(position):
    found = Segment(A, B).at(position)
    assert same(found, lerp_state(A, B, position))
    for name, expected in oracles.lerp(A, B, position).items():
        if A[name].is_floating_point():
            assert found[name].double().numpy() == pytest.approx(expected, abs=1e-6)


def test_only_what_is_moved_moves():
    found = Segment(A, B, moved=FIRST).at(0.5)
    for name, tensor in found.items():
        assert torch.equal(tensor, lerp_state(A, B, 0.5)[name] if name in FIRST else A[name])
    assert same(Segment(A, B, moved=frozenset()).at(0.7), A)
    assert same(Segment(A, B, moved=frozenset(A)).at(0.7), Segment(A, B).at(0.7))


def test_moving_some_of_a_to_b_is_moving_the_others_of_b_to_a():
    """At the far end A with B's first layer is B with A's others."""
    assert same(Segment(A, B, moved=FIRST).at(1.0), Segment(B, A, moved=REST).at(1.0))


def test_a_mixture_of_two_is_their_segment_and_of_one_is_itself():
    for weight in (0.0, 0.25, 1.0):
        mixed, straight = Mixture((A, B)).weighted((1 - weight, weight)), Segment(A, B).at(weight)
        assert all(torch.allclose(mixed[name], straight[name], atol=1e-6) for name in straight)
    assert same(Mixture((A, B, C)).weighted((1.0, 0.0, 0.0)), A)


def test_a_mixture_is_the_weighted_sum_entry_by_entry():
    found = Mixture((A, B, C)).weighted((0.5, 0.2, 0.3))
    for name, tensor in found.items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, 0.5 * A[name] + 0.2 * B[name] + 0.3 * C[name], atol=1e-6)
        else:
            assert torch.equal(tensor, A[name])


def test_what_cannot_be_mixed_is_refused():
    with pytest.raises(ValueError, match="2 weights for 3 states; give one for each"):
        Mixture((A, B, C)).weighted((0.5, 0.5))
    with pytest.raises(ValueError, match="A and B differ in architecture"):
        Mixture((A, state(network(1, hidden=7, norm=True)))).weighted((0.5, 0.5))


def test_the_examples_are_right():
    found = doctest.testmod(lines)
    assert found.attempted > 3
    assert found.failed == 0


@pytest.mark.parametrize("moved", [{"3"}, {"1.wieght", "1.bias"}])
def test_an_entry_that_is_not_there_cannot_be_moved(moved):
    """A path on which nothing moves is flat, and would be called connected."""
    with pytest.raises(ValueError, match=r"no entry '(3|1.wieght)' to move; name entries of the state"):
        Segment(state(network(1)), state(network(2)), moved=frozenset(moved))
