"""How alike two members are: in what they predict and where they err."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, kw_only=True)
class ErrorOverlap:
    """How the errors of two members coincide on the same examples.

    both_wrong: P(A wrong and B wrong), fraction of examples.
    same_wrong_label: P(A and B give the same wrong label | A wrong or B wrong); 0 if neither errs.
    over_independence: P(both wrong) / (P(A wrong) P(B wrong)); 1 for independent errors, NaN if a member never errs.
    """

    both_wrong: float
    same_wrong_label: float
    over_independence: float


def disagreement(predictions_a: ArrayLike, predictions_b: ArrayLike) -> float:
    """Fraction of examples on which the predicted labels differ."""
    a, b = np.asarray(predictions_a), np.asarray(predictions_b)
    _check_same_examples(a, b)
    return float(np.mean(a != b))


def error_overlap(predictions_a: ArrayLike, predictions_b: ArrayLike, labels: ArrayLike) -> ErrorOverlap:
    """Coincidence of errors; each argument is (n,) integer labels of the same n examples."""
    a, b, y = np.asarray(predictions_a), np.asarray(predictions_b), np.asarray(labels)
    _check_same_examples(a, b)
    _check_same_examples(a, y)
    wrong_a, wrong_b = a != y, b != y
    both = float(np.mean(wrong_a & wrong_b))
    either = int(np.sum(wrong_a | wrong_b))
    same = int(np.sum(wrong_a & (a == b)))
    expected = float(np.mean(wrong_a) * np.mean(wrong_b))
    return ErrorOverlap(
        both_wrong=both,
        same_wrong_label=same / either if either else 0.0,
        over_independence=both / expected if expected > 0 else float("nan"),
    )


def _check_same_examples(a: np.ndarray, b: np.ndarray) -> None:
    if a.ndim != 1 or a.shape != b.shape or a.size == 0:
        raise ValueError(f"expected labels of the same examples, got shapes {a.shape} and {b.shape}")
