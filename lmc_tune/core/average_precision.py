"""How well scores rank the examples with a label before those without it."""

import numpy as np
from numpy.typing import ArrayLike


def mean_average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Average precision Σ_k (R_k − R_{k−1}) P_k over the thresholds of a label, mean over the labels (macro).

    P_k and R_k are precision and recall at the k-th highest threshold; equal scores share one. Labels that no example
    has are left out. In [0, 1]; random scores have about a label's frequency. NaN if there is no label left, or a
    score is not finite.

    Args:
        scores: (n, L), higher for examples that are more likely to have the label.
        labels: (n, L) of 0 and 1.

    Raises:
        ValueError: if the shapes differ or are not (n, L).
    """
    from sklearn.metrics import average_precision_score  # noqa: PLC0415 - seconds that single labels need not pay

    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if s.ndim != 2 or s.shape != y.shape:
        raise ValueError(f"expected scores and labels (examples, labels) of one shape, got {s.shape} and {y.shape}")
    there = y.any(axis=0)
    if not there.any() or not np.isfinite(s).all():
        return float("nan")
    return float(average_precision_score(y[:, there], s[:, there], average="macro"))
