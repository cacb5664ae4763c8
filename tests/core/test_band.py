"""The band over a path: that its maximum holds the true barrier, whatever the path looks like."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from lmc_tune.core.band import simultaneous_band

LAMBDAS = np.linspace(0, 1, 13)
BUMP = np.sin(np.pi * LAMBDAS) ** 2
TRUTHS = {
    "flat": lambda level: level + 0 * LAMBDAS,
    "bump": lambda level: level + 0.1 * BUMP,
    "low bump": lambda level: level + 0.02 * BUMP,
    "valley": lambda level: level * (1 - 0.5 * BUMP),
    "one-sided": lambda level: level * LAMBDAS,
}
SIMULATIONS = 100


def errors(rng: np.random.Generator, p: NDArray[np.float64], n: int, likeness: float) -> NDArray[np.float64]:
    """(n, positions) of 0 and 1 with these probabilities, alike at neighbouring positions."""
    hidden = rng.standard_normal((n, len(p)))
    for at in range(1, len(p)):
        hidden[:, at] = likeness * hidden[:, at - 1] + np.sqrt(1 - likeness**2) * hidden[:, at]
    return (stats.norm.cdf(hidden) < p).astype(float)


def above_chord(values: NDArray[np.float64]) -> NDArray[np.float64]:
    first, last = values[..., :1], values[..., -1:]
    excess = values - (first + LAMBDAS * (last - first))
    excess[..., [0, -1]] = 0.0
    return excess


@pytest.mark.slow
@pytest.mark.parametrize("name", TRUTHS)
@pytest.mark.parametrize("level", [0.005, 0.05, 0.3])
@pytest.mark.parametrize(("n", "likeness"), [(100, 0.98), (400, 0.7)])
def test_the_true_barrier_is_held_as_often_as_is_said(name, level, n, likeness, monkeypatch):
    monkeypatch.setattr("lmc_tune.core.band.DRAWS", 400)
    rng = np.random.default_rng(7)
    p = TRUTHS[name](level)
    truth = above_chord(p).max()
    held = 0
    for number in range(SIMULATIONS):
        band = simultaneous_band(above_chord(errors(rng, p, n, likeness)), resolution=1 / n, seed=number)
        _, low, high = band.barrier
        held += low <= truth + 1e-12 and truth - 1e-12 <= high
    fewest = stats.binom.ppf(0.001, SIMULATIONS, 0.95)  # by chance, one such test in a thousand falls below
    assert held >= fewest


def test_one_position_has_the_interval_of_a_mean():
    values = np.random.default_rng(0).normal(0.3, 1.0, (400, 1))
    band = simultaneous_band(values)
    reach = stats.norm.ppf(0.975) * values.std(ddof=1) / np.sqrt(400)
    assert band.mean[0] == pytest.approx(values.mean())
    assert band.high[0] - band.mean[0] == pytest.approx(reach, rel=0.05)  # a quantile of 2 000 draws
    assert band.mean[0] - band.low[0] == pytest.approx(reach, rel=0.05)


def test_positions_that_vary_together_cost_nothing_and_others_do():
    one = np.random.default_rng(1).normal(size=(300, 1))
    together = simultaneous_band(np.repeat(one, 20, axis=1))
    alone = simultaneous_band(np.repeat(one, 2, axis=1))
    apart = simultaneous_band(np.random.default_rng(2).normal(size=(300, 20)))
    assert together.high[0] - together.mean[0] == pytest.approx(alone.high[0] - alone.mean[0], rel=1e-9)
    assert (apart.high - apart.mean).mean() > 1.3 * (alone.high - alone.mean).mean()


def test_of_one_position_the_band_is_the_normal_interval():
    values = np.random.default_rng(1).normal(size=(300, 1))
    band = simultaneous_band(values, 0.9)
    reach = 1.6448536269514722 * values.std(ddof=1) / np.sqrt(300)  # the normal quantile of 0.95
    np.testing.assert_allclose([band.high - band.mean, band.mean - band.low], reach)


def test_where_no_example_was_ever_wrong_the_band_reaches_what_cannot_be_seen():
    band = simultaneous_band(np.zeros((200, 5)), resolution=1 / 200)
    np.testing.assert_array_equal(band.mean, np.zeros(5))
    unseen = -np.log(0.025)  # the chance to see none of so many expected events
    np.testing.assert_allclose(band.high, [0, *[unseen / 200] * 3, 0])
    assert band.barrier == (0.0, 0.0, pytest.approx(unseen / 200))
    surer = simultaneous_band(np.zeros((200, 5)), 0.999, resolution=1 / 200)
    assert surer.barrier[2] == pytest.approx(-np.log(0.0005) / 200)


@pytest.mark.parametrize("seen", [1, 2, 3, 5])
def test_of_few_events_the_bounds_are_those_of_a_poisson_mean(seen):
    values = np.zeros((300, 3))
    values[:seen, 1] = 1
    high = simultaneous_band(values, resolution=1 / 300).high[1] * 300
    assert stats.poisson.cdf(seen, high) == pytest.approx(0.025)


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 320, 500])
@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_rare_errors_are_not_called_rarer_than_they_are(n, confidence, monkeypatch):
    """Error-free ends and a true barrier of 2%: the upper bound lies below it in few of many test sets."""
    monkeypatch.setattr("lmc_tune.core.band.DRAWS", 400)
    rng, times, below = np.random.default_rng(11), 400, 0
    for number in range(times):
        values = np.zeros((n, 5))
        values[:, 1:4] = errors(rng, np.full(3, 0.02), n, 0.95)
        below += simultaneous_band(values, confidence, resolution=1 / n, seed=number).high.max() < 0.02
    assert below <= stats.binom.ppf(0.999, times, (1 - confidence) / 2)


@pytest.mark.slow
def test_skewed_losses_are_held_where_there_are_many(monkeypatch):
    monkeypatch.setattr("lmc_tune.core.band.DRAWS", 400)
    rng, times, held = np.random.default_rng(5), 200, 0
    for number in range(times):
        values = np.zeros((1000, 3))
        values[:, 1] = rng.exponential(0.5, 1000)
        _, low, high = simultaneous_band(values, seed=number).barrier
        held += low <= 0.5 <= high
    assert held >= stats.binom.ppf(0.001, times, 0.95)


def test_the_same_examples_give_the_same_band_in_any_order():
    values = above_chord(errors(np.random.default_rng(3), TRUTHS["bump"](0.1), 200, 0.9))
    first = simultaneous_band(values, resolution=1 / 200)
    again = simultaneous_band(values, resolution=1 / 200)
    np.testing.assert_array_equal(first.high, again.high)
    turned = simultaneous_band(values[::-1], resolution=1 / 200)
    np.testing.assert_allclose(turned.high, first.high, rtol=0.1)


@pytest.mark.parametrize(
    ("excess", "confidence", "said"),
    [
        (np.zeros((1, 5)), 0.95, "two examples at least"),
        (np.zeros(5), 0.95, "two examples at least"),
        (np.array([[0.0, np.nan], [0.0, 1.0]]), 0.95, "finite"),
        (np.zeros((2, 5)), 1.0, "between 0 and 1"),
    ],
)
def test_what_has_no_band_is_refused(excess, confidence, said):
    with pytest.raises(ValueError, match=said):
        simultaneous_band(excess, confidence)
