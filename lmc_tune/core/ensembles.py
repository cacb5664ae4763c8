"""Ensembles as numbers: what more members bring, and whether their averages are as good (Lion et al. 2024)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax

from lmc_tune.core.calibration import Array, Rule, at_labels, log_probabilities
from lmc_tune.core.seeding import child_seed

# Of each number of members; of fewer subsets, all are taken.
MOST_SUBSETS = 200
# Numbers in memory at once: subsets x examples x classes.
_AT_ONCE = 2**24


def dirichlet_weights(members: int, draws: int, seed: int = 0) -> Array:
    """(draws, members) weights from Dirichlet(1, …, 1), uniform over all weights that are positive and sum to 1.

    They depend on nothing else, so that ensembles of as many members are compared at the same weights.
    """
    rng = np.random.default_rng(child_seed(seed, "dirichlet", members))
    return np.asarray(rng.dirichlet(np.ones(members), size=draws))


def connectivity(averages: ArrayLike, members: ArrayLike, weights: ArrayLike) -> Array:
    """q(w) = Acc(Σ wᵢ θᵢ) − Σ wᵢ Acc(θᵢ), percentage points: below 0 a barrier, above 0 averaging helps.

    Args:
        averages: (draws,) accuracies of the weighted averages, fractions.
        members: (members,) accuracies of the members.
        weights: (draws, members) of the averages; rows sum to 1.

    Example:
        >>> connectivity([0.5, 0.75], [0.8, 0.6], [[0.5, 0.5], [0.75, 0.25]]).round(6)
        array([-20.,   0.])
    """
    return np.asarray(100 * (np.asarray(averages) - np.asarray(weights) @ np.asarray(members)))


@dataclass(frozen=True, kw_only=True)
class Size:
    """Ensembles of some of the members: means over subsets of this size.

    members: in each. subsets: how many were looked at; exact: they are all there are.
    accuracy: fraction; nll: nats. accuracy_error: the standard error that sampling subsets leaves, fraction; 0 where
        they are exact.
    """

    members: int
    subsets: int
    exact: bool
    accuracy: float
    nll: float
    accuracy_error: float


def sizes(
    logits: Sequence[ArrayLike],
    labels: ArrayLike,
    rule: Rule = "probability",
    *,
    most: int = MOST_SUBSETS,
    seed: int = 0,
) -> list[Size]:
    """What ensembles of 1, 2, …, all members come to, mean over the subsets of each size.

    Args:
        logits: of every member, (n, classes) of the same examples.
        labels: (n,) integers in [0, classes).
        rule: what an ensemble averages (:func:`~lmc_tune.core.calibration.combine`).
        most: subsets of a size are all taken if there are no more; else so many different ones are drawn.
        seed: of what is drawn.
    """
    known = np.stack([log_probabilities(own) for own in logits])
    values = np.exp(known) if rule == "probability" else known
    y, found = np.asarray(labels), []
    for size in range(1, len(values) + 1):
        members, exact = _subsets(len(values), size, most, seed)
        accuracies, losses = _qualities(values, y, members / size, rule)
        spread = 0.0 if exact else float(accuracies.std(ddof=1)) * sqrt(1 / len(members) - 1 / comb(len(values), size))
        found.append(
            Size(
                members=size,
                subsets=len(members),
                exact=exact,
                accuracy=float(accuracies.mean()),
                nll=float(losses.mean()),
                accuracy_error=spread,
            )
        )
    return found


def _subsets(n: int, size: int, most: int, seed: int) -> tuple[Array, bool]:
    """(subsets, n) of 0 and 1, and whether they are all that there are."""
    if exact := comb(n, size) <= most:
        chosen: set[tuple[int, ...]] = set(combinations(range(n), size))
    else:
        rng, chosen = np.random.default_rng(child_seed(seed, "subsets", n, size)), set()
        while len(chosen) < most:
            chosen.add(tuple(sorted(rng.choice(n, size, replace=False).tolist())))
    found = np.zeros((len(chosen), n))
    for row, subset in zip(found, sorted(chosen), strict=True):
        row[list(subset)] = 1
    return found, exact


def _qualities(values: Array, labels: NDArray[np.int64], weights: Array, rule: Rule) -> tuple[Array, Array]:
    """(subsets,) accuracy and NLL of the averages with these weights of (members, n, classes) values."""
    hits, losses = np.zeros(len(weights)), np.zeros(len(weights))
    n = values.shape[1]
    for at in _slices(n, max(1, _AT_ONCE // (len(weights) * values.shape[2]))):
        averaged = np.tensordot(weights, values[:, at], axes=1)
        for subset, mean in enumerate(averaged):
            with np.errstate(divide="ignore"):
                found = np.log(mean) if rule == "probability" else log_softmax(mean, axis=1)
            hits[subset] += np.count_nonzero(mean.argmax(axis=1) == labels[at])
            losses[subset] -= at_labels(found, labels[at]).sum()
    return hits / n, losses / n


def _slices(n: int, size: int) -> Iterator[slice]:
    return (slice(first, first + size) for first in range(0, n, size))
