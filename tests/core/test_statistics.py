import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lmc_tune.core import statistics
from lmc_tune.core.seeding import child_seed
from lmc_tune.core.statistics import mean_interval, verdict_of_interval
from tests import oracles

values = st.floats(-100, 100, allow_subnormal=False)
samples = st.lists(values, min_size=2, max_size=8)


@pytest.mark.parametrize(("n", "confidence"), [(3, 0.8), (5, 0.95), (5, 0.9), (10, 0.95), (20, 0.99)])
def test_the_bounds_are_the_expanded_percentiles_of_scipys_bootstrap(n, confidence):
    data = np.random.default_rng(n).gamma(2.0, size=n)
    tail = oracles.expanded_tail(n, confidence)
    resampled = stats.bootstrap(
        (data,), np.mean, method="percentile", confidence_level=1 - 2 * tail, n_resamples=200_000, batch=20_000, rng=1
    )
    se = resampled.standard_error
    # Two Monte-Carlo errors of the quantile, of 9999 and of 200 000 resamples, and the grid of resampled means.
    density = stats.norm.pdf(stats.norm.ppf(tail)) / se
    tolerance = 5 * math.sqrt(tail / 9999) / density
    assert mean_interval(data, confidence) == pytest.approx(list(resampled.confidence_interval), abs=tolerance)


def test_two_values_give_the_exact_enumeration():
    # The resampled means of (0, 1) are 0, ½, 1 with weights ¼, ½, ¼. At n = 2 and 40% the t quantile is 0.7265,
    # the tail Φ(−√2 · 0.7265) = 0.152 < ¼: both ends. At 10% it is 0.1584 and the tail 0.411 > ¼: both the middle.
    assert mean_interval([0.0, 1.0], 0.4).tolist() == [0.0, 1.0]
    assert mean_interval([0.0, 1.0], 0.1).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("n", [2, 7, 26, 300, 2001])
@pytest.mark.parametrize("at_once", [1000, 2**17, 10**9])
def test_the_resamples_are_those_of_one_draw_however_many_come_at_once(n, at_once, monkeypatch):
    monkeypatch.setattr(statistics, "N_RESAMPLES", 600)
    monkeypatch.setattr(statistics, "DRAWS_AT_ONCE", at_once)
    data = np.sort(np.random.default_rng(n).normal(size=(2, n)))
    drawn = np.random.default_rng(child_seed(0, "bootstrap", n)).integers(n, size=(600, n))
    tail = oracles.expanded_tail(n, 0.95)
    expected = np.quantile(data[:, drawn].mean(axis=-1), [tail, 1 - tail], axis=-1).T
    # The oracle's tail is good to 1e-8; other draws would move a bound by hundredths.
    np.testing.assert_allclose(mean_interval(data), expected, rtol=1e-7)


@given(samples, st.randoms(use_true_random=False))
def test_the_order_of_the_values_never_matters(data, random):
    shuffled = random.sample(data, len(data))
    assert mean_interval(shuffled).tolist() == mean_interval(data).tolist()


@given(samples)
def test_the_interval_lies_in_the_datas_range_and_holds_its_mean(data):
    low, high = mean_interval(data)
    slack = 1e-9 * max(map(abs, data))
    assert min(data) <= low <= np.mean(data) + slack
    assert np.mean(data) - slack <= high <= max(data)


@given(samples, st.floats(0.1, 10), values)
def test_shifting_and_scaling_the_data_shifts_and_scales_the_interval(data, factor, constant):
    moved = mean_interval(factor * np.array(data) + constant)
    assert moved == pytest.approx(factor * mean_interval(data) + constant, rel=1e-9, abs=1e-9)


@given(samples)
def test_more_confidence_never_narrows_the_interval(data):
    narrow, wide = mean_interval(data, 0.8), mean_interval(data, 0.95)
    assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]


def test_every_row_of_a_table_is_its_own_interval():
    table = np.random.default_rng(0).normal(size=(2, 3, 5))
    together = mean_interval(table)
    assert together.shape == (2, 3, 2)
    for i in range(2):
        for j in range(3):
            assert together[i, j] == pytest.approx(mean_interval(table[i, j]), rel=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3])
def test_equal_values_have_an_interval_of_width_zero(n, value):
    assert mean_interval([value] * n).tolist() == [value, value]


def test_one_value_says_nothing_about_spread():
    assert mean_interval([0.3]).tolist() == [-math.inf, math.inf]
    assert mean_interval([[0.3], [0.4]]).tolist() == [[-math.inf, math.inf]] * 2


@pytest.mark.parametrize("bad", [[], [0.1, math.nan], [math.inf, 1.0], 0.5])
def test_what_cannot_be_averaged_is_refused(bad):
    with pytest.raises(ValueError, match="at least one value, all of them finite; exclude failed pairs first"):
        mean_interval(bad)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.5, 95.0, math.nan])
def test_a_confidence_outside_0_and_1_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence must be between 0 and 1, got"):
        mean_interval([1.0, 2.0], confidence)


# Coverage in 20 000 simulated cells of normal data; standard error 0.3 points at 75%, 0.15 at 95%.
@pytest.mark.slow
@pytest.mark.parametrize(("n", "claimed"), [(3, 0.75), (5, 0.92), (10, 0.95)])
def test_coverage_is_what_the_documentation_claims(n, claimed):
    cells = np.random.default_rng(7).normal(size=(20_000, n))
    covered = np.concatenate([_covers(block) for block in np.split(cells, 10)])
    assert covered.mean() == pytest.approx(claimed, abs=0.01)


@pytest.mark.slow
def test_a_plain_percentile_interval_would_cover_far_less():
    data = np.random.default_rng(8).normal(size=(2000, 5))
    resampled = data[:, np.random.default_rng(9).integers(5, size=(2000, 5))].mean(axis=2)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=1)
    assert np.mean((low <= 0) & (high >= 0)) == pytest.approx(0.84, abs=0.025)


def _covers(data):
    low, high = mean_interval(data).T
    return (low <= 0) & (high >= 0)


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


@given(samples)
def test_a_verdict_is_never_against_the_mean(data):
    verdict = verdict_of_interval(*mean_interval(data), threshold=1.0)
    if verdict == "connected":
        assert np.mean(data) < 1.0 + 1e-9
    elif verdict == "disconnected":
        assert np.mean(data) > 1.0 - 1e-9
    else:
        low, high = mean_interval(data)
        assert low <= 1.0 <= high
