"""One pair of networks, one test set: what is uncertain of its barrier is which examples were tested on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from lmc_tune.core.barrier import Array

# Draws of the bootstrap, and how many of them are held in memory at once.
DRAWS, AT_ONCE = 2000, 200


@dataclass(frozen=True, kw_only=True)
class Band:
    """A curve over positions, and bounds that hold at all of them at once.

    mean, low, high: (positions,) of the excess over a baseline, e.g. the chord.
    """

    mean: Array
    low: Array
    high: Array

    @property
    def barrier(self) -> tuple[float, float, float]:
        """The maximum of the curve, and bounds of the maximum of the true curve."""
        return float(self.mean.max()), float(self.low.max()), float(self.high.max())


def simultaneous_band(excess: ArrayLike, confidence: float = 0.95, *, resolution: float = 0.0, seed: int = 0) -> Band:
    """A band that holds the true curve at all positions with a given confidence.

    The interval of a maximum cannot be had by bootstrapping it: the maximum of a noisy flat curve lies above 0, and its
    draws lie higher still. The band is mean ± c · s, where s is the standard error at each position and c the quantile
    of the largest |draw| / s over all positions; the maxima of its two bounds hold the true maximum. A draw gives every
    example one normal weight for all positions, so that neighbouring positions vary together (multiplier bootstrap;
    Chernozhukov, Chetverikov and Kato 2013).

    Where few examples differ from the baseline, the normal distribution says too little of those that were not seen.
    The examples above and below it are then counts of rare events: the band reaches to both sides at least as far as
    the exact bound of a Poisson mean (Garwood 1936), wherever it can be off at all.

    Of losses with heavy tails and few examples the band is too narrow: the standard error does not know of values that
    were not seen.

    Args:
        excess: (examples, positions) of every example its loss or error less the baseline; positions at which the
            baseline is the curve itself are exactly 0.
        confidence: in (0, 1).
        resolution: what one example adds to the mean, 1/n for errors; 0 for losses.
        seed: of the draws.

    Raises:
        ValueError: if there are fewer than two examples or values are not finite.
    """
    values = np.asarray(excess, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(f"a band needs two examples at least, (examples, positions); got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("a band needs finite values")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    n = len(values)
    mean = values.mean(axis=0)
    away = values - mean
    error = away.std(axis=0, ddof=1) / np.sqrt(n)
    moving = error > 0
    c = _quantile(away[:, moving] / (n * error[moving]), confidence, seed) if moving.any() else 0.0
    fixed = ~np.any(values != 0, axis=0)
    ends = np.zeros(values.shape[1], dtype=bool)
    ends[[0, -1]] = True
    reaches = []
    for sign in (-1, 1):
        reach = np.maximum(c * error, _unseen(np.maximum(sign * values, 0.0), confidence, resolution))
        reach[fixed & ends] = 0.0
        reaches.append(sign * reach)
    return Band(mean=mean, low=mean + reaches[0], high=mean + reaches[1])


def _unseen(events: Array, confidence: float, resolution: float) -> Array:
    """(positions,) by how much a mean may be larger than the one that was seen, if its events are rare.

    Args:
        events: (examples, positions) parts of an event in every example, at least 0.
        confidence: that the bounds to both sides hold.
        resolution: what one event adds to the mean; 0 for values that are no events.
    """
    seen = events.sum(axis=0)
    most = special.gammaincinv(seen + 1, (1 + confidence) / 2)
    return np.asarray((most - seen) * resolution)


def _quantile(scaled: Array, confidence: float, seed: int) -> float:
    """Of the largest |draw| over all positions, of which each has variance 1.

    Args:
        scaled: (examples, positions) deviations from the mean in standard errors of the mean.
    """
    if scaled.shape[1] == 1:  # a draw is normal
        return float(special.ndtri((1 + confidence) / 2))
    rng = np.random.default_rng(seed)
    largest = [
        np.abs(rng.standard_normal((AT_ONCE, len(scaled))) @ scaled).max(axis=1) for _ in range(DRAWS // AT_ONCE)
    ]
    return float(np.quantile(np.concatenate(largest), confidence))
