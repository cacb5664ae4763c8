import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmc_tune.core.measured_shift import energy_coefficient, total_variation
from tests import oracles

counts = st.lists(st.integers(0, 50), min_size=3, max_size=3).filter(any)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([10, 10], [20, 20], 0.0),  # sizes do not matter
        ([4, 0], [0, 9], 1.0),
        ([8, 2], [2, 8], 0.6),  # the 80/20 split
        ([3, 1, 0], [1, 1, 2], 0.5),  # ½ (½ + 0 + ½)
    ],
)
def test_total_variation_by_hand(a, b, expected):
    assert total_variation(a, b) == pytest.approx(expected, abs=1e-12)


@given(counts, counts)
def test_total_variation_is_the_largest_difference_in_probability_of_any_event(a, b):
    p, q = np.array(a) / sum(a), np.array(b) / sum(b)
    events = [[bool(bits >> c & 1) for c in range(3)] for bits in range(8)]
    assert total_variation(a, b) == pytest.approx(max(abs(p[e].sum() - q[e].sum()) for e in events), abs=1e-12)


@given(counts, counts, counts)
def test_total_variation_is_a_distance(a, b, c):
    assert total_variation(a, b) == pytest.approx(total_variation(b, a))
    assert total_variation(a, c) <= total_variation(a, b) + total_variation(b, c) + 1e-12


@pytest.mark.parametrize(("a", "b"), [([0, 0], [1, 1]), ([1, 1], [0, 0]), ([1, 2], [1, 2, 3])])
def test_total_variation_of_no_distribution_is_refused(a, b):
    with pytest.raises(ValueError, match="two count vectors over the same classes, neither of them empty"):
        total_variation(a, b)


def points(rng, n, d, shift=0.0):
    return rng.normal(size=(n, d)) + shift


@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 1), (5, 3, 2), (20, 30, 4), (12, 12, 64), (3, 4, 5000)])
@pytest.mark.parametrize("shift", [0.5, 3.0, 100.0])
def test_the_energy_coefficient_agrees_with_the_loop_over_pairs(n, m, d, shift):
    rng = np.random.default_rng(n)
    a, b = points(rng, n, d), points(rng, m, d, shift)
    assert energy_coefficient(a, b) == pytest.approx(oracles.energy_coefficient(a, b), rel=1e-9)


def test_two_different_points_are_as_far_apart_as_can_be():
    assert energy_coefficient([[0.0, 0.0]], [[3.0, 4.0]]) == pytest.approx(1.0)


def test_by_hand_on_a_line():
    # X = {0, 2}, Y = {1}: E|X−Y| = 1, E|X−X'| = 1, E|Y−Y'| = 0; H = (2 − 1) / 2.
    assert energy_coefficient([[0.0], [2.0]], [[1.0]]) == pytest.approx(0.5)


def test_the_same_array_reads_exactly_zero_and_its_permutation_zero_to_rounding():
    a = np.random.default_rng(0).normal(size=(50, 8))
    assert energy_coefficient(a, a) == 0.0
    assert energy_coefficient(a, a[::-1]) == pytest.approx(0.0, abs=1e-5)
    assert energy_coefficient(np.zeros((3, 2)), np.zeros((4, 2))) == 0.0


@given(st.integers(0, 2**32 - 1))
def test_one_changed_point_is_seen(seed):
    a = np.random.default_rng(seed).normal(size=(6, 2))
    b = a.copy()
    b[0] += 2.0
    assert energy_coefficient(a, b) > 1e-3


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.floats(-10, 10))
def test_it_is_symmetric_in_0_and_1_and_free_of_scale_and_offset(seed, scale, offset):
    rng = np.random.default_rng(seed)
    a, b = points(rng, 8, 3), points(rng, 5, 3, 1.0)
    h = energy_coefficient(a, b)
    assert 0 <= h <= 1
    assert energy_coefficient(b, a) == pytest.approx(h, abs=1e-4)
    assert energy_coefficient(scale * (a + offset), scale * (b + offset)) == pytest.approx(h, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    ("a", "b"), [(np.zeros((0, 2)), np.zeros((3, 2))), (np.zeros((3, 2)), np.zeros((3, 1))), (np.zeros(3), np.zeros(3))]
)
def test_what_has_no_distance_is_refused(a, b):
    with pytest.raises(ValueError, match=r"expected two \(examples, features\) arrays of equal width, got"):
        energy_coefficient(a, b)
