import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lmc_tune.core.statistics import (
    LEAST_CELLS,
    LEAST_PAIRS,
    PRIOR_DEGREES,
    STEEPEST,
    Spread,
    fit_spread,
    mean_interval,
    verdict_of_interval,
)
from tests.core.barriers import clipped_normal, sweep_of

values = st.floats(-100, 100, allow_subnormal=False)
samples = st.lists(values, min_size=LEAST_PAIRS, max_size=8)
spreads = st.builds(Spread, power=st.floats(0, STEEPEST), offset=st.floats(-8, 2), least=st.floats(1e-4, 1e-2))


def moments(data):
    return np.mean(data, axis=-1), np.var(data, axis=-1, ddof=1), np.shape(data)[-1]


@pytest.mark.parametrize("n", [3, 4, 5, 20])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_without_a_spread_the_interval_is_students(n, confidence):
    data = np.random.default_rng(n).gamma(2.0, size=n)
    expected = stats.t.interval(confidence, n - 1, loc=data.mean(), scale=stats.sem(data))
    assert mean_interval(*moments(data), confidence) == pytest.approx(expected, rel=1e-12)


@given(samples, spreads, st.sampled_from([0.8, 0.95]))
def test_with_a_spread_its_bounds_are_the_last_means_that_the_pairs_do_not_contradict(data, spread, confidence):
    mean, variance, n = moments(data)
    low, high = mean_interval(mean, variance, n, confidence, spread=spread)
    t = stats.t.ppf(0.5 + confidence / 2, n - 1 + PRIOR_DEGREES)

    def contradicted(mu):
        expected = math.exp(spread.offset) * max(mu, spread.least) ** spread.power
        s = math.sqrt((PRIOR_DEGREES * expected + (n - 1) * variance) / (PRIOR_DEGREES + n - 1))
        return abs(mean - mu) > t * s / math.sqrt(n)

    inward, outward = 1 - 1e-6, 1 + 1e-6
    for bound in (low, high):
        assert not contradicted(mean + (bound - mean) * inward)
        assert contradicted(mean + (bound - mean) * outward)


def test_a_spread_that_does_not_depend_on_the_mean_moderates_the_variance_alone():
    # s² = (4 · 1 + 2 · 4) / 6 = 2, t of 6 degrees of freedom: 2.4469.
    low, high = mean_interval(10.0, 4.0, 3, spread=Spread(power=0.0, offset=0.0, least=0.1))
    assert high - 10 == pytest.approx(2.446911851 * math.sqrt(2 / 3), rel=1e-9)
    assert low == pytest.approx(20 - high)


def test_the_spread_is_a_line_through_the_corrected_log_variances():
    rng = np.random.default_rng(0)
    sizes = np.repeat([3, 5, 10], 200)
    means = np.exp(rng.uniform(-6, -1, len(sizes)))
    variances = np.exp(-2 + 1.5 * np.log(means)) * rng.chisquare(sizes - 1) / (sizes - 1)
    spread = fit_spread(means, variances, sizes)
    assert spread.power == pytest.approx(1.5, abs=0.1)
    assert spread.variance(0.02) == pytest.approx(math.exp(-2 + 1.5 * math.log(0.02)), rel=0.1)
    assert spread.variance(0.0) == spread.variance(means.min())


def test_cells_without_spread_or_with_too_few_pairs_say_nothing_of_it():
    means, variances, sizes = np.full(LEAST_CELLS, 0.1), np.full(LEAST_CELLS, 0.01), np.full(LEAST_CELLS, 5)
    alike = fit_spread(means, variances, sizes)
    assert alike.power == 0
    for changed in (np.array([0.0]), np.array([np.nan])):
        assert fit_spread([*means, *changed], [*variances, 1.0], [*sizes, 5]) == alike
    assert fit_spread([*means, 0.1], [*variances, 0.0], [*sizes, 5]) == alike
    assert fit_spread([*means, 0.1], [*variances, 1.0], [*sizes, LEAST_PAIRS - 1]) == alike
    assert fit_spread(means[1:], variances[1:], sizes[1:]) is None


@pytest.mark.parametrize("power", [-1.0, 3.0])
def test_the_spread_never_falls_and_never_grows_so_fast_that_a_mean_has_no_bound(power):
    means = np.geomspace(0.001, 0.5, 20)
    spread = fit_spread(means, 0.01 * means**power, np.full(20, 5))
    assert spread.power == min(max(power, 0), STEEPEST)
    assert np.isfinite(mean_interval(means, 0.01 * means**power, 5, spread=spread)).all()


@given(samples, st.floats(0.1, 10), values)
def test_shifting_and_scaling_the_data_shifts_and_scales_students_interval(data, factor, constant):
    moved = mean_interval(*moments(factor * np.array(data) + constant))
    assert moved == pytest.approx(factor * mean_interval(*moments(data)) + constant, rel=1e-6, abs=1e-6)


@given(samples, st.none() | spreads)
def test_more_confidence_never_narrows_the_interval_and_it_holds_the_mean(data, spread):
    narrow, wide = (mean_interval(*moments(data), level, spread=spread) for level in (0.8, 0.95))
    assert wide[0] <= narrow[0] <= np.mean(data) <= narrow[1] <= wide[1]


@pytest.mark.parametrize("spread", [None, Spread(power=1.2, offset=-2.0, least=0.01)])
def test_every_cell_of_a_table_has_its_own_interval(spread):
    rng = np.random.default_rng(0)
    means, variances, sizes = rng.random((2, 3)), rng.random((2, 3)), rng.integers(3, 9, (2, 3))
    together = mean_interval(means, variances, sizes, spread=spread)
    assert together.shape == (2, 3, 2)
    for at in np.ndindex(2, 3):
        assert together[at] == pytest.approx(mean_interval(means[at], variances[at], sizes[at], spread=spread))


def test_fewer_than_three_pairs_and_unknown_means_have_no_interval():
    unknown = [-math.inf, math.inf]
    spread = Spread(power=1.2, offset=-2.0, least=0.01)
    for given_spread in (None, spread):
        found = mean_interval([0.3, 0.3, math.nan, 0.3], [0.0, 0.0, math.nan, 0.1], [1, 2, 5, 3], spread=given_spread)
        assert found[:3].tolist() == [unknown] * 3
        assert np.isfinite(found[3]).all()


def test_an_interval_too_narrow_for_the_means_rounding_has_an_end():
    narrow = mean_interval([0.3, 0.3], [0.0, 0.0], [3, 5], spread=Spread(power=0.0, offset=-80.0, least=0.1))
    np.testing.assert_allclose(narrow, 0.3, rtol=1e-8)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.5, 95.0, math.nan])
def test_a_confidence_outside_0_and_1_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence must be between 0 and 1, got"):
        mean_interval(1.0, 2.0, 3, confidence)


# 300 sweeps of 24 cells, 6 of them exactly at the threshold: the standard error of a rate of 3% is 0.4 points.
@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 4, 5, 10])
@pytest.mark.parametrize("clipped", [False, True], ids=["normal", "clipped-normal"])
@pytest.mark.parametrize(("variation", "scatter"), [(0.6, 0.0), (0.6, 0.4), (0.6, 0.8), (1.0, 0.0)])
def test_verdicts_at_the_threshold_are_seldom_wrong_and_intervals_cover(n, clipped, variation, scatter):
    found = sweep_of(n, clipped=clipped, variation=variation, scatter=scatter)
    assert found.false_connected <= 0.05
    assert found.false_disconnected <= 0.05
    assert found.coverage >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 4, 5])
@pytest.mark.parametrize("clipped", [False, True], ids=["normal", "clipped-normal"])
def test_more_cells_are_decided_than_by_students_interval(n, clipped):
    moderated = sweep_of(n, clipped=clipped, variation=0.6, scatter=0.4)
    student = sweep_of(n, clipped=clipped, variation=0.6, scatter=0.4, moderated=False)
    assert moderated.decided > student.decided + 0.01


def test_clipped_normal_data_have_the_mean_that_was_asked_for():
    data = clipped_normal(np.random.default_rng(0), np.array([0.02]), np.array([1.0]), 400_000)
    assert data.min() == 0
    assert data.mean() == pytest.approx(0.02, rel=0.01)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.0, 0.0199, "connected"),
        (0.0201, 0.5, "disconnected"),
        (0.01, 0.03, "undecided"),
        (0.0, 0.02, "undecided"),
        (0.02, 0.5, "undecided"),
        (0.02, 0.02, "undecided"),
        (-0.1, -0.05, "connected"),
        (-math.inf, math.inf, "undecided"),
        (math.nan, math.nan, "undecided"),
    ],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(low, high, verdict):
    assert verdict_of_interval(low, high, 0.02) == verdict
