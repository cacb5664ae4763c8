"""How far apart two parts of the data are: in their labels and in their inputs."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_FEATURES = 4096  # at a time, so that wide examples are not copied whole


def total_variation(counts_a: ArrayLike, counts_b: ArrayLike) -> float:
    """Total variation distance ½ Σ |p − q| between two label distributions given as counts; in [0, 1]."""
    a, b = np.asarray(counts_a, dtype=np.float64), np.asarray(counts_b, dtype=np.float64)
    if a.shape != b.shape or a.sum() <= 0 or b.sum() <= 0:
        raise ValueError("total_variation needs two count vectors over the same classes, neither of them empty")
    return float(0.5 * np.abs(a / a.sum() - b / b.sum()).sum())


def energy_coefficient(a: ArrayLike, b: ArrayLike) -> float:
    """Energy coefficient of inhomogeneity H = D² / (2 E‖X−Y‖), Székely & Rizzo 2013, Sec. 4.

    D² = 2 E‖X−Y‖ − E‖X−X′‖ − E‖Y−Y′‖ is the energy distance. H is in [0, 1], free of the inputs' scale, and 0
    exactly when both samples are the same multiset. Two samples of n from one distribution have about 1/n, the
    V-statistic's bias, so compare shifts at equal n.

    Args:
        a: (n, d) examples of one part, one row each.
        b: (m, d) examples of the other.
    """
    x, y = np.asarray(a), np.asarray(b)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise ValueError(f"expected two (examples, features) arrays of equal width, got {x.shape} and {y.shape}")
    between = _mean_distance(x, y)
    if between == 0:
        return 0.0
    inhomogeneity = 2 * between - _mean_distance(x, x) - _mean_distance(y, y)
    return max(0.0, inhomogeneity / (2 * between))


def _mean_distance(x: NDArray[Any], y: NDArray[Any]) -> float:
    """In float64: single precision rounds by the number of threads, which matters in a small coefficient."""
    squares = np.zeros((len(x), len(y)))
    for start in range(0, x.shape[1], _FEATURES):
        columns = slice(start, start + _FEATURES)
        # Distances ignore a common offset; removing it keeps the squared norms small and exact.
        centre = x[:, columns].mean(axis=0, dtype=np.float64)
        u, v = x[:, columns] - centre, y[:, columns] - centre
        squares += np.einsum("id,id->i", u, u)[:, None] + np.einsum("jd,jd->j", v, v) - 2 * (u @ v.T)
    # Rounding leaves a small distance between equal examples, whose root would be large.
    largest = squares.max(initial=0.0)
    return float(np.sqrt(np.where(squares > 1e-12 * largest, squares, 0)).mean())
