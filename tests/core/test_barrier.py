import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmc_tune.core.barrier import DEFINITIONS, average_barriers, barrier, locate_barrier, path_grid
from tests import oracles
from tests.cases import CURVES, ROOT_5

heights = st.floats(-10, 10, allow_subnormal=False)
# Few distinct levels, so that ties and plateaus are common.
steps = st.integers(0, 4).map(float)
NESTED = ("chord", "endpoint_mean", "max_endpoint", "local_minima")


def curves(values=heights | steps, sizes=(3, 5, 7, 9)):
    """(lambdas, values) on an odd equally spaced grid."""
    return st.sampled_from(sizes).flatmap(
        lambda n: st.lists(values, min_size=n, max_size=n).map(lambda v: (path_grid(n), np.array(v)))
    )


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("name", CURVES)
def test_the_check_table_is_reproduced(name, definition):
    curve, expected = CURVES[name]
    grid = np.linspace(0, 1, 11)
    got = barrier(grid, [curve(x) for x in grid], definition)
    assert got == pytest.approx(expected[definition], abs=1e-12)


def test_the_check_table_agrees_with_its_printed_digits():
    tilted = CURVES["tilted hump"][1]
    assert round(tilted["endpoint_mean"], 4) == 0.6327
    assert round(tilted["max_endpoint"], 4) == 0.1827


def test_ten_points_miss_the_top_of_the_hump():
    grid = np.linspace(0, 1, 10)
    assert barrier(grid, 0.1 + 4 * grid * (1 - grid)) == pytest.approx(80 / 81)  # 4 · 4/9 · 5/9; prints 0.9877


@given(curves())
def test_every_height_agrees_with_the_oracle(curve):
    expected = oracles.barrier_heights(curve[0].tolist(), curve[1].tolist())
    assert set(expected) == set(DEFINITIONS)
    for definition in DEFINITIONS:
        assert barrier(*curve, definition) == pytest.approx(expected[definition], abs=1e-9)


@given(curves())
def test_the_height_is_read_at_the_reported_position(curve):
    grid, values = curve
    first, last = values[0], values[-1]
    baselines = {
        "chord": (1 - grid) * first + grid * last,
        "endpoint_mean": np.full_like(grid, (first + last) / 2),
        "midpoint": np.full_like(grid, (first + last) / 2),
        "max_endpoint": np.full_like(grid, max(first, last)),
    }
    for definition, baseline in baselines.items():
        found = locate_barrier(grid, values, definition)
        at = grid.tolist().index(found.lambda_)
        assert found.height == pytest.approx(values[at] - baseline[at], abs=1e-9)


@given(curves(), heights)
def test_adding_a_constant_leaves_every_barrier(curve, constant):
    grid, values = curve
    for definition in DEFINITIONS:
        assert barrier(grid, values + constant, definition) == pytest.approx(barrier(*curve, definition), abs=1e-9)


@given(curves(), st.floats(0.01, 100))
def test_scaling_the_curve_scales_every_barrier(curve, factor):
    grid, values = curve
    for definition in DEFINITIONS:
        expected = factor * barrier(grid, values, definition)
        assert barrier(grid, factor * values, definition) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(curves())
def test_swapping_the_members_keeps_every_height(curve):
    grid, values = curve
    for definition in DEFINITIONS:
        assert barrier(grid, values[::-1], definition) == pytest.approx(barrier(grid, values, definition), abs=1e-9)


@given(curves(values=st.integers(-1000, 1000).map(float), sizes=(3, 5, 9)))
def test_swapping_the_members_mirrors_the_position(curve):
    grid, values = curve  # grids of 1/2, 1/4, 1/8 and whole numbers: exact arithmetic
    for definition in DEFINITIONS:
        there, back = locate_barrier(grid, values, definition), locate_barrier(grid, values[::-1], definition)
        assert back.height == there.height
        if there.height == 0 and definition == "local_minima":
            assert there.lambda_ == back.lambda_ == 0  # no interior top, no position
            continue
        tied = _positions_of_height(grid, values, definition, there.height)
        assert there.lambda_ == min(tied)
        assert back.lambda_ == 1 - max(tied)


def _positions_of_height(grid, values, definition, height):
    """Every position at which a definition's height is reached, the smallest is the one to report."""
    if definition == "midpoint":
        return [0.5]
    if definition == "local_minima":
        n = len(values)
        starts = [at for at in range(1, n - 1) if oracles.top_over_minima(values, at) == height]
        ends = [n - 1 - at for at in range(1, n - 1) if oracles.top_over_minima(values[::-1], at) == height]
        return [float(grid[at]) for at in (*starts, *ends)]
    first, last = values[0], values[-1]
    baseline = {
        "chord": first + grid * (last - first),
        "endpoint_mean": (first + last) / 2,
        "max_endpoint": max(first, last),
    }
    return grid[values - baseline[definition] == height].tolist()


@given(curves(values=heights, sizes=(9, 17)))
def test_a_finer_nested_grid_never_lowers_a_barrier(curve):
    grid, values = curve
    for definition in NESTED:
        coarse = barrier(grid[::2], values[::2], definition)
        assert barrier(grid, values, definition) >= coarse - 1e-9


@given(curves())
def test_the_definitions_stand_in_their_order(curve):
    h = {definition: barrier(*curve, definition) for definition in DEFINITIONS}
    gap = abs(curve[1][0] - curve[1][-1]) / 2
    assert h["chord"] >= 0
    assert h["max_endpoint"] >= 0
    assert h["local_minima"] >= 0
    assert h["endpoint_mean"] == pytest.approx(h["max_endpoint"] + gap, abs=1e-9)
    assert h["max_endpoint"] <= h["chord"] + 1e-9
    assert abs(h["endpoint_mean"] - h["chord"]) <= gap + 1e-9
    assert h["midpoint"] <= h["chord"] + 1e-9
    if h["max_endpoint"] > 1e-9:  # then the top is interior and its flanks reach below both ends
        assert h["local_minima"] >= h["endpoint_mean"] - 1e-9


def test_the_chord_barrier_stands_at_the_top_of_the_difference_not_of_the_loss():
    grid = path_grid(5)
    values = [0.0, 2.0, 2.5, 3.0, 4.0]  # the loss is highest at λ = 1, its excess over the chord (1.0) at λ = ¼
    assert locate_barrier(grid, values).lambda_ == 0.25
    assert locate_barrier(grid, values).height == 1.0


def test_local_minima_reads_the_top_over_its_own_flanks_not_the_highest_top():
    grid = path_grid(7)
    values = [5.0, 4.0, 4.5, 0.0, 2.0, 0.0, 0.5]
    # The highest top, 4.5, stands 2.5 over the minima 4 and 0 beside it, the lower one 2 over 0 and 0.
    assert locate_barrier(grid, values, "local_minima").height == pytest.approx(4.5 - 2.0)
    lower_wins = [5.0, 4.4, 4.5, 4.0, 4.0, 4.3, 0.0]
    # 4.5 − ½ (4.4 + 0) = 2.3 against 4.3 − ½ (4 + 0) = 2.3: the smaller λ is reported on a tie.
    found = locate_barrier(grid, lower_wins, "local_minima")
    assert found.height == pytest.approx(2.3)


def test_a_plateau_counts_as_one_top_and_is_reported_at_its_start():
    found = locate_barrier(path_grid(7), [0.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.0], "local_minima")
    assert (found.height, found.lambda_) == (1.0, pytest.approx(1 / 6))
    assert locate_barrier(path_grid(7), [0.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.0]).lambda_ == pytest.approx(1 / 6)


def test_a_plateau_that_reaches_an_end_is_no_interior_top():
    assert barrier(path_grid(5), [1.0, 1.0, 0.0, 1.0, 1.0], "local_minima") == 0


@given(st.data())
def test_positions_that_tie_but_for_rounding_are_reported_at_the_smallest(data):
    """Errors are fractions of one n: exact arithmetic says which positions tie."""
    n = data.draw(st.integers(1, 400))
    wrong = data.draw(st.lists(st.integers(0, n), min_size=9, max_size=9))
    ends = Fraction(wrong[0], n), Fraction(wrong[-1], n)
    excess = [Fraction(w, n) - (ends[0] + Fraction(i, 8) * (ends[1] - ends[0])) for i, w in enumerate(wrong)]
    found = locate_barrier(path_grid(9), [w / n for w in wrong], "chord")
    assert found.lambda_ == excess.index(max(excess)) / 8
    assert found.height == pytest.approx(float(max(excess)), abs=1e-15)


@pytest.mark.parametrize("level", [0.1, 1 / 3, 7.7])
def test_a_flat_path_has_a_barrier_of_exactly_zero_by_every_definition(level):
    assert [barrier(path_grid(25), np.full(25, level), d) for d in DEFINITIONS] == [0.0] * 5


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 1, 2, 4])
def test_a_non_finite_value_anywhere_makes_the_height_nan(definition, bad, at):
    values = np.arange(5.0)
    values[at] = bad
    found = locate_barrier(path_grid(5), values, definition)
    assert math.isnan(found.height)
    assert math.isnan(found.lambda_)


def test_a_grid_without_its_midpoint_is_refused_where_the_midpoint_is_needed():
    grid = np.linspace(0, 1, 10)
    with pytest.raises(ValueError, match=r"midpoint needs λ = ½ on the grid; build the grid with path_grid"):
        barrier(grid, grid, "midpoint")


@pytest.mark.parametrize(
    ("lambdas", "values", "message"),
    [
        ([0.1, 0.5, 1.0], [1, 2, 3], r"must run from 0 to 1, got lambdas\[0\]=0\.1; build it with path_grid"),
        ([0.0, 0.5, 0.9], [1, 2, 3], r"must run from 0 to 1, got lambdas\[-1\]=0\.9"),
        ([0.0, 0.5, 0.5, 1.0], [1, 2, 3, 4], "must increase strictly; sort them and drop duplicates"),
        ([0.0, 0.6, 0.4, 1.0], [1, 2, 3, 4], "must increase strictly"),
        ([0.0, 1.0], [1, 2, 3], r"equally long 1-D arrays, got shapes \(2,\) and \(3,\)"),
        ([[0.0, 1.0]], [[1, 2]], "equally long 1-D arrays"),
        ([0.0], [1], "equally long 1-D arrays"),
    ],
)
def test_what_is_not_a_curve_is_refused(lambdas, values, message):
    with pytest.raises(ValueError, match=message):
        barrier(lambdas, values)


def test_an_unknown_definition_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown barrier definition 'cord'; choose one of chord, endpoint_mean"):
        barrier([0, 1], [0, 1], "cord")


@pytest.mark.parametrize("n", [-1, 0, 1, 2, 4, 10])
def test_a_path_grid_without_a_midpoint_is_refused(n):
    with pytest.raises(ValueError, match=f"odd number of points, at least 3.*got {n}$"):
        path_grid(n)


@given(st.integers(1, 200).map(lambda k: 2 * k + 1))
def test_a_path_grid_holds_both_ends_and_the_midpoint_exactly(n):
    grid = path_grid(n)
    assert len(grid) == n
    assert (grid[0], grid[n // 2], grid[-1]) == (0.0, 0.5, 1.0)
    assert np.diff(grid) == pytest.approx(1 / (n - 1))


def test_the_hand_values_use_the_exact_sines():
    assert math.sin(0.6 * math.pi) ** 2 == pytest.approx((5 + ROOT_5) / 8)
    assert math.sin(0.9 * math.pi) ** 2 == pytest.approx((3 - ROOT_5) / 8)


@given(heights, heights, heights)
def test_the_barriers_of_two_members_average_are_those_of_the_path_with_one_point_between(a, b, average):
    found = average_barriers(average, [a, b], [0.5, 0.5])
    assert found == {
        definition: pytest.approx(barrier([0, 0.5, 1], [a, average, b], definition), abs=1e-12)
        for definition in DEFINITIONS
        if definition != "local_minima"
    }


def test_the_average_of_unlike_clients_by_hand():
    """Members at 0.2, 0.4 and 0.6 with ½, ¼ and ¼ have a mean of 0.35; the average is at 0.5."""
    found = average_barriers(0.5, [0.2, 0.4, 0.6], [0.5, 0.25, 0.25])
    assert found == pytest.approx({"chord": 0.15, "endpoint_mean": 0.25, "midpoint": 0.15, "max_endpoint": 0.0})
    better = average_barriers(0.1, [0.2, 0.4, 0.6], [0.5, 0.25, 0.25])
    assert better == pytest.approx({"chord": 0.0, "endpoint_mean": 0.25, "midpoint": -0.25, "max_endpoint": 0.0})
