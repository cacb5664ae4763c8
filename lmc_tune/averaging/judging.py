"""From values of examples to statements: is a path connected, is one network better than another."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lmc_tune.averaging.metric import Quantity
from lmc_tune.averaging.paths import Curve
from lmc_tune.core.band import Band
from lmc_tune.core.barrier import Array
from lmc_tune.core.statistics import Verdict
from lmc_tune.errors import UserError

# The threshold of errors (Frankle et al. 2020), as in sweeps.
ERROR_THRESHOLD = 0.02
# The threshold of other losses, whose scale is not known, in parts of the members' mean loss.
LOSS_PART = 0.05
# Test examples from which losses, and whether a network has learned, can be judged.
FEWEST = 30


@dataclass(frozen=True, kw_only=True)
class Judging:
    """By what paths are judged: the chord barrier of a quantity, in its own unit.

    relative: whether the threshold is a part of the members' mean loss, since none was given.
    """

    quantity: Quantity
    threshold: float
    confidence: float = 0.95
    relative: bool = False


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The verdict on one path and split.

    barrier, low, high: chord barrier of the mean curve, and the bounds of that of the true curve, over examples.
    n: examples. band: of the curve above the chord; None where a value on the path is not finite, and the barrier is
    infinite.
    """

    verdict: Verdict
    barrier: float
    low: float
    high: float
    n: int
    band: Band | None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The mean of paired differences, with its interval."""

    mean: float
    low: float
    high: float


def judge(curve: Curve, how: Judging) -> Judged:
    """Connected if the whole interval of the barrier lies below the threshold, disconnected if it lies above.

    Args:
        curve: of the judged quantity.
        how: the threshold, and the confidence that the band holds at all positions at once.
    """
    error = how.quantity == "error"
    band = curve.band(how.confidence, 1 / curve.n if error else 0.0)
    if band is None:
        infinite = float("inf")
        return Judged(verdict="disconnected", barrier=infinite, low=infinite, high=infinite, n=curve.n, band=None)
    barrier, low, high = band.barrier
    if error:
        high = min(high, 1.0)
    elif curve.n < FEWEST:  # of errors, the band itself is too wide then
        low, high = -float("inf"), float("inf")
    verdict: Verdict = "connected" if high < how.threshold else "disconnected" if low > how.threshold else "undecided"
    return Judged(verdict=verdict, barrier=barrier, low=low, high=high, n=curve.n, band=band)


def difference(one: Array, other: Array, confidence: float) -> Difference:
    """Of the means of two networks' values on the same examples, with Student's interval."""
    apart = one - other
    mean, n = float(apart.mean()), len(apart)
    if n < 2:
        return Difference(mean=mean, low=-float("inf"), high=float("inf"))
    reach = float(stats.t.ppf((1 + confidence) / 2, n - 1) * apart.std(ddof=1) / np.sqrt(n))
    return Difference(mean=mean, low=mean - reach, high=mean + reach)


def judging_of(quantity: Quantity, mean: float, threshold: float | None, confidence: float) -> Judging:
    """By what networks are judged.

    Args:
        quantity: that is judged.
        mean: of the members, in its unit.
        threshold: None for 2% of errors, or for 5% of the members' mean loss.
        confidence: of intervals.
    """
    if threshold is not None and quantity == "error" and threshold >= 1:
        raise UserError(f"threshold {threshold:g} is no error: errors are fractions, so write 0.02 for 2%")
    relative = threshold is None and quantity == "loss"
    if threshold is None:
        threshold = ERROR_THRESHOLD if quantity == "error" else LOSS_PART * mean
        if not threshold > 0:
            raise UserError(f"the members' mean loss is {mean:.4g}, so that no part of it is a threshold; give one")
    return Judging(quantity=quantity, threshold=threshold, confidence=confidence, relative=relative)


def has_learned(wrong: Array, labels: NDArray[np.int64]) -> bool | None:
    """Whether a network errs less than always naming the most frequent class, by more than chance (95%).

    None if that cannot be known: of one class alone, or of few examples.

    Args:
        wrong: (n,) its errors, 0 or 1.
        labels: (n,) of the same examples.
    """
    classes, counts = np.unique(labels, return_counts=True)
    better = difference(np.asarray(labels != classes[counts.argmax()], dtype=np.float64), wrong, 0.95).low > 0
    return True if better else None if len(classes) < 2 or len(labels) < FEWEST else False
