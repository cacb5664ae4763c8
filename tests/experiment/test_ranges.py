"""What other steps do to the values of a range."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmc_tune.experiment.ranges import SPACINGS, moved, nested_steps, spaced

THREE, FOUR = spaced("log", [0.01, 1], 3), spaced("log", [0.01, 1], 4)


def test_a_logarithmic_range_of_four_steps_shares_its_bounds_alone_with_one_of_three():
    assert set(THREE) & set(FOUR) == {0.01, 1.0}
    assert nested_steps(THREE, FOUR) == 5
    assert set(THREE) < set(spaced("log", [0.01, 1], 5))


@given(st.sampled_from(SPACINGS), st.floats(1e-4, 1), st.floats(2, 1e4), st.integers(2, 12), st.integers(2, 12))
def test_the_nested_steps_keep_every_earlier_value_and_no_fewer_would(kind, low, factor, n, m):
    bounds = [float(f"{bound:.4g}") for bound in (low, low * factor)]
    before, now = spaced(kind, bounds, n), spaced(kind, bounds, m)
    steps = nested_steps(before, now)
    if set(before) <= set(now):
        assert steps is None
        return
    fewest = next(k for k in range(m, 200) if set(before) <= set(spaced(kind, bounds, k)))
    assert steps == fewest


@pytest.mark.parametrize(
    "now",
    [
        [0.01, 0.1, 1.0],  # as it was
        [0.01, 0.02, 0.1, 1.0],  # no range, and nothing is lost
        [0.01, 0.2, 1.0],  # no range
        spaced("log", [0.01, 2], 4),  # another end
        spaced("linear", [0.01, 1], 4),  # another spacing
        [{"kind": "covariate"}, {"kind": "label"}],
        [0.01],
    ],
)
def test_nothing_is_offered_where_a_range_was_not_merely_given_other_steps(now):
    assert nested_steps(THREE, now) is None


def test_whole_numbers_stay_whole():
    assert nested_steps([2, 4, 8, 16, 32], spaced("log", [2, 32], 3)) == 5
    assert nested_steps(spaced("linear", [4, 16], 3), spaced("linear", [4, 16], 4)) == 5


def test_every_axis_that_moved_is_named():
    before = {"lr": THREE, "batch_size": [8, 32], "momentum": [0.0, 0.9]}
    assert moved(before, {"lr": FOUR, "batch_size": [8, 32], "noise": ["fixed"]}) == (
        "axes.lr now has 4 steps in place of 3, which moves the values between its bounds; with steps: 5 all earlier "
        "values stay"
    )
    assert moved(before, before) == ""
