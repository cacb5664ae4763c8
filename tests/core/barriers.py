"""Sweeps whose true mean barriers are known, to count how often their verdicts are wrong."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from lmc_tune.core.statistics import fit_spread, mean_interval

THRESHOLD = 0.02
SWEEPS, CELLS, AT_THRESHOLD = 300, 24, 6
# Near what the records of reproduction.md have: log standard deviation rises by 0.5 to 0.8 of the log mean.
SLOPE = 0.75


@dataclass(frozen=True, kw_only=True)
class Found:
    """Rates over the simulated cells: of those at the threshold, wrong verdicts; of all, true means that the interval
    holds; of the others, right verdicts."""

    false_connected: float
    false_disconnected: float
    coverage: float
    decided: float


def clipped_normal(rng, means, variations, n):
    """(..., n) normal values set to 0 where negative.

    means: (...) of the clipped values. variations: (...) standard deviation by mean before clipping.
    """
    kept = stats.norm.cdf(1 / variations) + variations * stats.norm.pdf(1 / variations)
    centre = means / kept
    return np.maximum(0, rng.normal(centre[..., None], (centre * variations)[..., None], (*means.shape, n)))


def sweep_of(n, *, clipped, variation, scatter, moderated=True):
    """Verdicts of sweeps with n pairs per cell.

    variation: standard deviation by mean at the threshold. scatter: of the log standard deviation, between cells of
    one mean. moderated: False for Student's interval.
    """
    rng = np.random.default_rng([n, clipped])
    means = np.exp(rng.uniform(np.log(0.002), np.log(0.4), (SWEEPS, CELLS)))
    means[:, :AT_THRESHOLD] = THRESHOLD
    variations = variation * (means / THRESHOLD) ** (SLOPE - 1) * np.exp(scatter * rng.normal(size=means.shape))
    if clipped:
        data = clipped_normal(rng, means, variations, n)
    else:
        data = rng.normal(means[..., None], (means * variations)[..., None], (*means.shape, n))
    mean, variance = data.mean(axis=-1), data.var(axis=-1, ddof=1)
    low, high = np.empty_like(mean), np.empty_like(mean)
    for at in range(SWEEPS):
        spread = fit_spread(mean[at], variance[at], np.full(CELLS, n)) if moderated else None
        low[at], high[at] = mean_interval(mean[at], variance[at], n, spread=spread).T
    connected, disconnected = high < THRESHOLD, low > THRESHOLD
    others = slice(AT_THRESHOLD, None)
    right = (connected & (means < THRESHOLD)) | (disconnected & (means > THRESHOLD))
    return Found(
        false_connected=connected[:, :AT_THRESHOLD].mean(),
        false_disconnected=disconnected[:, :AT_THRESHOLD].mean(),
        coverage=((low <= means) & (means <= high)).mean(),
        decided=right[:, others].mean(),
    )
