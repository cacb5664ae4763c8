import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmc_tune.models.state import distance, lerp_into, lerp_state
from tests import oracles
from tests.cases import network, state

A, B = state(network(1, norm=True)), state(network(2, norm=True))
WEIGHTS = tuple(name for name, _ in network(1, norm=True).named_parameters())
positions = st.floats(0, 1)


def test_the_ends_of_the_path_are_the_members_bit_for_bit():
    for name, tensor in lerp_state(A, B, 0.0).items():
        assert torch.equal(tensor, A[name])
    for name, tensor in lerp_state(A, B, 1.0).items():
        if tensor.is_floating_point():
            assert torch.equal(tensor, B[name])


@given(positions)
def test_every_entry_is_the_weighted_mean(lambda_):
    floating = {name for name, tensor in A.items() if tensor.is_floating_point()}
    expected = oracles.lerp({n: A[n] for n in floating}, {n: B[n] for n in floating}, lambda_)
    found = lerp_state(A, B, lambda_)
    assert list(found) == list(A)
    for name in floating:
        assert found[name].numpy() == pytest.approx(expected[name], rel=1e-5, abs=1e-6)


@given(positions)
def test_what_is_written_into_a_network_is_the_same_bit_for_bit(lambda_):
    target = state(network(3, norm=True))
    memory = {name: tensor.data_ptr() for name, tensor in target.items()}
    lerp_into(target, A, B, lambda_)
    assert {name: tensor.data_ptr() for name, tensor in target.items()} == memory
    for name, tensor in lerp_state(A, B, lambda_).items():
        assert torch.equal(target[name], tensor)


@given(positions)
def test_a_member_with_itself_stays_where_it_is(lambda_):
    for name, tensor in lerp_state(A, A, lambda_).items():
        assert torch.equal(tensor, A[name])


@given(positions)
def test_swapping_the_members_mirrors_the_path(lambda_):
    there, back = lerp_state(A, B, lambda_), lerp_state(B, A, 1 - lambda_)
    for name in WEIGHTS:
        assert torch.allclose(there[name], back[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.5, 1.0])
def test_counts_are_never_interpolated(lambda_):
    a, b = (
        {"seen": torch.tensor(3), "mask": torch.tensor([True])},
        {"seen": torch.tensor(9), "mask": torch.tensor([False])},
    )
    found = lerp_state(a, b, lambda_)
    assert found["seen"].dtype == torch.int64
    assert (found["seen"].item(), found["mask"].item()) == (3, True)


def test_distance_by_hand():
    a = {"w": torch.tensor([3.0, 0.0]), "b": torch.tensor([[1.0]]), "buffer": torch.tensor([99.0])}
    b = {"w": torch.tensor([0.0, 4.0]), "b": torch.tensor([[13.0]]), "buffer": torch.tensor([0.0])}
    assert distance(a, b, ("w", "b")) == 13.0  # √(9 + 16 + 144)
    assert distance(a, a, ("w", "b", "buffer")) == 0.0


def test_distance_is_summed_in_float64():
    a = {"w": torch.tensor([3e-25, 4e-25])}  # their squares vanish in float32
    assert distance(a, {"w": torch.zeros(2)}, ("w",)) == pytest.approx(5e-25, rel=1e-6)


@pytest.mark.parametrize(
    ("b", "message"),
    [
        ({}, "differ in architecture: only A has 'w'"),
        ({"w": torch.zeros(2), "x": torch.zeros(1)}, "differ in architecture: only B has 'x'"),
        ({"w": torch.zeros(3)}, r"differ in architecture: 'w' is \(2,\) in A and \(3,\) in B"),
        ({"w": torch.zeros(2, dtype=torch.float64)}, "differ in precision: 'w' is torch.float32 and torch.float64"),
    ],
)
def test_members_of_different_architecture_are_refused(b, message):
    with pytest.raises(ValueError, match=message):
        lerp_state({"w": torch.zeros(2)}, b, 0.5)
