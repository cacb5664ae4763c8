"""Intervals and verdicts: they turn the pairs of a cell into one statement."""

import math
from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from lmc_tune.core.seeding import child_seed

Verdict = Literal["connected", "disconnected", "undecided", "undertrained", "diverged"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

ESTIMATOR = "mean, expanded percentile bootstrap"
N_RESAMPLES = 9999
DRAWS_AT_ONCE = 2**17


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> NDArray[np.float64]:
    """Bootstrap confidence interval of the mean along the last axis.

    The percentile bootstrap is too narrow for the handful of replicates a cell has (at n = 5 a nominal 95% covers
    about 84%). The percentiles are therefore expanded as in Hesterberg 2015, "What Teachers Should Know about the
    Bootstrap", Sec. 4.2: the tail α/2 becomes Φ(−√(n/(n−1)) · t_{1−α/2, n−1}). At a nominal 95% and normal data this
    covers about 92% at n = 5 and 95% at n = 10; no bootstrap interval can leave the range of the data, so at n = 3
    it stays near 75%. Barriers that are all equal give an interval of width zero.

    Deterministic, and independent of the order of the values: they are sorted and the resampling seed is fixed.

    Args:
        values: (..., n) finite numbers, n ≥ 1.
        confidence: in (0, 1).

    Returns:
        (..., 2) lower and upper bound; (−∞, ∞) where n = 1: one pair says nothing about spread.

    Raises:
        ValueError: if a value is not finite or ``confidence`` is not in (0, 1).
    """
    data = np.asarray(values, dtype=np.float64)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    if data.ndim == 0 or data.shape[-1] == 0 or not np.all(np.isfinite(data)):
        raise ValueError("mean_interval needs at least one value, all of them finite; exclude failed pairs first")
    data = np.sort(data, axis=-1)
    n = data.shape[-1]
    if n == 1:
        return np.broadcast_to([-np.inf, np.inf], (*data.shape[:-1], 2)).copy()
    t = stats.t.ppf(0.5 + confidence / 2, n - 1)
    tail = stats.norm.cdf(-math.sqrt(n / (n - 1)) * t)
    means = np.concatenate([data @ weights.T for weights in _resampling_weights(n)], axis=-1)
    bounds = np.quantile(means, [tail, 1 - tail], axis=-1)
    # A weighted mean of equal numbers can differ from them by one rounding; the range of the data is the honest limit.
    interval: NDArray[np.float64] = np.clip(np.moveaxis(bounds, 0, -1), data[..., :1], data[..., -1:])
    return interval


def _resampling_weights(n: int) -> Iterator[NDArray[np.float64]]:
    """The N_RESAMPLES resamples of n values, as many at once as a processor's cache holds.

    Yields:
        (resamples, n) how often each value was drawn, divided by n. How many come at once changes no draw.
    """
    rng = np.random.default_rng(child_seed(0, "bootstrap", n))
    at_once = max(1, DRAWS_AT_ONCE // n)
    for start in range(0, N_RESAMPLES, at_once):
        resamples = min(at_once, N_RESAMPLES - start)
        drawn = rng.integers(n, size=(resamples, n), dtype=np.uint32) + n * np.arange(resamples)[:, None]
        yield np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n) / n


def verdict_of_interval(low: float, high: float, threshold: float) -> Verdict:
    """``connected`` if the whole interval is below the threshold, ``disconnected`` if above, else ``undecided``."""
    if high < threshold:
        return "connected"
    if low > threshold:
        return "disconnected"
    return "undecided"
