"""How similar members are: their predictions, their errors, and the representations of their layers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import rel_entr

from lmc_tune.core.calibration import at_labels, distributions

Array = NDArray[np.float64]

# Share of a representation's total variance that may be pure rounding.
_ROUNDING = 1e-12


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


def cohens_kappa(predictions_a: ArrayLike, predictions_b: ArrayLike) -> float:
    """Agreement of predicted labels beyond chance, (p_o − p_e) / (1 − p_e) (Cohen 1960).

    p_o is the fraction of examples on which they agree; independent predictions with the same frequencies would agree
    on p_e = Σ_c P(A predicts c) P(B predicts c). In [−1, 1]: 1 for equal predictions, 0 for independent ones; NaN if
    both members always predict the same single label.
    """
    a, b = np.asarray(predictions_a), np.asarray(predictions_b)
    _check_same_examples(a, b)
    n = len(a)
    by_chance = sum(int(np.sum(a == c)) * int(np.sum(b == c)) for c in np.union1d(a, b))
    agreeing = n * int(np.sum(a == b))
    return (agreeing - by_chance) / (n**2 - by_chance) if by_chance < n**2 else math.nan


def jensen_shannon(probabilities: Sequence[ArrayLike]) -> float:
    """One-vs-all Jensen–Shannon divergence of some members, nats, in [0, ln 2] (Lin 1991; Lion et al. 2024).

    Each member's p is compared with the mean q of all others': ½ KL(p ‖ m) + ½ KL(q ‖ m) with m = ½ (p + q); mean over
    members and examples. For two members it is the divergence of one from the other.

    Args:
        probabilities: of every member, two at least, (n, classes) predicted for the same examples, rows that sum to 1.
    """
    members = _same_distributions(probabilities)
    others = [np.mean([*members[:at], *members[at + 1 :]], axis=0) for at in range(len(members))]
    return float(np.mean([_divergence(own, other) for own, other in zip(members, others, strict=True)]))


def _divergence(p: Array, q: Array) -> float:
    mean = (p + q) / 2
    return float(np.mean(np.sum(rel_entr(p, mean) + rel_entr(q, mean), axis=1)) / 2)


def true_class_variance(probabilities: Sequence[ArrayLike], labels: ArrayLike) -> float:
    """Mean over the examples of the members' variance of p(label), 1/M Σ (p_i − p̄)²; in [0, ¼].

    Args:
        probabilities: of every member, two at least, (n, classes) predicted for the same examples, rows that sum to 1.
        labels: (n,) integers in [0, classes).
    """
    own = np.stack([at_labels(p, labels) for p in _same_distributions(probabilities)])
    return float(np.mean(np.mean((own - own.mean(axis=0)) ** 2, axis=0)))


def cka(x: ArrayLike, y: ArrayLike, *, debiased: bool = True) -> float:
    """Linear centred kernel alignment of two representations (Kornblith et al. 2019).

    HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)) with K = X Xᵀ, L = Y Yᵀ, HSIC the Hilbert-Schmidt independence criterion.
    ``debiased`` uses the unbiased estimator of HSIC (Song et al. 2012, Eq. 5); without it, unrelated representations
    look similar unless there are many more examples than features. It is then in [−1, 1] and near 0 for
    independent representations, biased in [0, 1]; 1 for a representation with itself, rotated or scaled. NaN if a
    representation does not vary.

    Args:
        x: (n, features) representation of n examples.
        y: (n, other features) of the same examples.
        debiased: needs n ≥ 4.

    Raises:
        ValueError: if the shapes do not match, or there are too few examples.
    """
    a, b = _centred_features(x), _centred_features(y)
    if len(a) != len(b):
        raise ValueError(f"expected representations of the same examples, got shapes {a.shape} and {b.shape}")
    return gram_cka(a @ a.T, b @ b.T, debiased=debiased)


def gram_cka(gram_x: ArrayLike, gram_y: ArrayLike, *, debiased: bool = True) -> float:
    """:func:`cka` from Gram matrices X Xᵀ and Y Yᵀ, (n, n); it is the same whether features are centred or not."""
    k, m = np.asarray(gram_x, dtype=np.float64), np.asarray(gram_y, dtype=np.float64)
    if k.ndim != 2 or not k.shape == k.T.shape == m.shape:
        raise ValueError(f"expected two Gram matrices of the same examples, got shapes {k.shape} and {m.shape}")
    _check_enough(len(k), debiased=debiased)
    centre = _u_centred if debiased else _centred
    a, b = centre(k), centre(m)
    norm_a, norm_b = (
        _norm(float(np.sum(z**2)), (_ROUNDING * float(np.trace(gram))) ** 2) for z, gram in ((a, k), (b, m))
    )
    return float(np.sum(a * b)) / norm_a / norm_b


def _centred(gram: Array) -> Array:
    means = gram.mean(axis=0)
    return np.asarray(gram - means - means[:, None] + means.mean())


def _u_centred(gram: Array) -> Array:
    """Székely & Rizzo 2014: rows sum to 0 without the diagonal; products of two such matrices estimate without bias."""
    n = len(gram)
    off_diagonal = gram.copy()
    np.fill_diagonal(off_diagonal, 0)
    sums = off_diagonal.sum(axis=0)
    off_diagonal -= (sums + sums[:, None]) / (n - 2) - sums.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(off_diagonal, 0)
    return off_diagonal


def _centred_features(representation: ArrayLike) -> Array:
    x = np.asarray(representation, dtype=np.float64)
    if x.ndim != 2 or x.size == 0:
        raise ValueError(f"expected a representation (examples, features), got shape {x.shape}")
    x = x - x[0]  # so that a feature that does not vary is 0 exactly; a mean would be rounded
    return np.asarray(x - x.mean(axis=0))


def _norm(squared: float, rounding: float) -> float:
    """NaN for a square that is pure rounding: the representation does not vary."""
    return math.sqrt(squared) if squared > rounding else math.nan


def _check_enough(n: int, *, debiased: bool) -> None:
    fewest = 4 if debiased else 2
    if n < fewest:
        raise ValueError(f"{'debiased' if debiased else 'biased'} CKA needs at least {fewest} examples, got {n}")


def _same_distributions(probabilities: Sequence[ArrayLike]) -> list[Array]:
    members = [distributions(own) for own in probabilities]
    if len(members) < 2:
        raise ValueError(f"members are compared: give the probabilities of two at least, got {len(members)}")
    for own in members[1:]:
        if own.shape != members[0].shape:
            shapes = f"{members[0].shape}, {own.shape}"
            raise ValueError(f"expected probabilities of the same examples and classes, got shapes {shapes}")
    return members


def _check_same_examples(a: np.ndarray, b: np.ndarray) -> None:
    if a.ndim != 1 or a.shape != b.shape or a.size == 0:
        raise ValueError(f"expected labels of the same examples, got shapes {a.shape} and {b.shape}")
