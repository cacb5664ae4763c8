"""How good predicted probabilities are, and how much better those of an ensemble.

Logits (n, classes) are scores of n examples, each row up to a constant; log-probabilities are logits too. They are
normalised here in float64, so that no probability is rounded to 0 on the way to its logarithm. Logits of NaN or +∞, as
of a diverged member, make every quality but the accuracy NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import reduce
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

Rule = Literal["probability", "logit", "log_probability"]
RULES: tuple[Rule, ...] = get_args(Rule)

Array = NDArray[np.float64]

BINS = 15  # Guo et al. 2017, Table 1
# How far the sum of a row may be from 1: more than the rounding of a softmax in float32 over many classes.
_ROUNDING = 1e-3


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How good predicted probabilities are on labelled examples.

    accuracy: fraction of examples whose most probable class is the label.
    nll: mean −ln p(label), nats, in [0, ∞].
    brier: mean Σ_c (p_c − [c is the label])², in [0, 2].
    ece: expected calibration error, in [0, 1].
    """

    accuracy: float
    nll: float
    brier: float
    ece: float


def calibration(logits: ArrayLike, labels: ArrayLike, bins: int = BINS) -> Calibration:
    """Every quality of one network's or ensemble's predictions.

    Args:
        logits: (n, classes) logits or log-probabilities.
        labels: (n,) integers in [0, classes).
        bins: of confidence, for the expected calibration error.
    """
    probabilities = np.exp(log_probabilities(logits))
    return Calibration(
        accuracy=accuracy(probabilities, labels),
        nll=negative_log_likelihood(logits, labels),
        brier=brier_score(probabilities, labels),
        ece=calibration_error(probabilities, labels, bins),
    )


def gain(ensemble: Calibration, members: Sequence[Calibration]) -> dict[str, float]:
    """How much better the ensemble is than the mean of its members, by quality; positive is better for all of them."""
    better = {field.name: 1 if field.name == "accuracy" else -1 for field in fields(Calibration)}
    return {
        name: sign * (getattr(ensemble, name) - sum(getattr(one, name) for one in members) / len(members))
        for name, sign in better.items()
    }


def combine(logits: Sequence[ArrayLike], rule: Rule = "probability") -> Array:
    """The predictions of an ensemble.

    ``probability`` averages the members' probabilities. ``logit`` and ``log_probability`` average their logits and
    log-probabilities and normalise. These two rules are the same: logits and log-probabilities differ by a
    constant per example, which normalising removes.

    Args:
        logits: of every member, (n, classes) logits or log-probabilities of the same examples.
        rule: what is averaged.

    Returns:
        (n, classes) log-probabilities.

    Raises:
        ValueError: if there are no members, the shapes differ, or there is no such rule.

    Example:
        >>> one, other = [[0.0, -np.inf]], [[np.log(0.5), np.log(0.5)]]
        >>> np.exp(combine([one, other])).round(4)
        array([[0.75, 0.25]])
    """
    members = [log_probabilities(own) for own in logits]
    if not members:
        raise ValueError("an ensemble has one member at least")
    for own in members[1:]:
        if own.shape != members[0].shape:
            raise ValueError(
                f"expected logits of the same examples and classes, got shapes {members[0].shape} and {own.shape}"
            )
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r} of combining; choose one of {', '.join(RULES)}")
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        if rule == "probability":
            return np.asarray(reduce(np.logaddexp, members) - np.log(len(members)))
        return log_probabilities(sum(members) / len(members))


# Temperatures that are looked at: beyond them predictions are uniform, or certain.
_TEMPERATURES = (0.01, 100.0)


def temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """T such that logits / T have the least NLL on these examples (Guo et al. 2017, Sec. 4.2), from 0.01 to 100.

    Take examples on which neither the network was trained nor its calibration is reported. NaN where the NLL has no
    value, as of a diverged network.

    Args:
        logits: (n, classes) logits or log-probabilities; an ensemble's are those of :func:`combine`.
        labels: (n,) integers in [0, classes).

    Example:
        Three of four are right, so the logits of 9 : 1 were too sure; at T = 2 they are those of 3 : 1.

        >>> round(temperature([[np.log(9), 0.0]] * 4, [0, 0, 0, 1]), 6)
        2.0
    """
    known = log_probabilities(logits)
    if not np.isfinite(negative_log_likelihood(known, labels)):
        return float("nan")
    found = minimize_scalar(
        lambda log_t: negative_log_likelihood(known / np.exp(log_t), labels),
        bounds=tuple(np.log(_TEMPERATURES)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return float(np.exp(found.x))


def log_probabilities(logits: ArrayLike) -> Array:
    """ln softmax of logits (n, classes), in float64."""
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim != 2 or z.size == 0:
        raise ValueError(f"expected logits (examples, classes), got shape {z.shape}")
    with np.errstate(invalid="ignore", over="ignore"):
        # In a row with +∞ softmax has no value; NaN makes it undefined for the other classes too.
        return np.asarray(log_softmax(np.where(z == np.inf, np.nan, z), axis=1))


def accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Fraction of examples whose most probable class is the label; ties go to the smaller class.

    Args:
        probabilities: (n, classes), rows that sum to 1.
        labels: (n,) integers in [0, classes).
    """
    return float(np.mean(_confidences(probabilities, labels)[1]))


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike) -> float:
    """Mean −ln p(label), nats; infinite if a label has probability 0.

    Args:
        logits: (n, classes) logits or log-probabilities.
        labels: (n,) integers in [0, classes).
    """
    return float(-np.mean(at_labels(log_probabilities(logits), labels)))


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean over the examples of Σ_c (p_c − [c is the label])², in [0, 2] (Brier 1950).

    Args:
        probabilities: (n, classes), rows that sum to 1.
        labels: (n,) integers in [0, classes).
    """
    differences = distributions(probabilities).copy()
    at_labels(differences, labels)
    differences[np.arange(len(differences)), np.asarray(labels)] -= 1
    return float(np.mean(np.sum(differences**2, axis=1)))


def calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error Σ_b (n_b / n) |accuracy_b − mean confidence_b|, in [0, 1] (Guo et al. 2017, Eq. 3).

    The confidence of an example is its largest probability. Bin b of B is ((b − 1) / B, b / B], the first with 0: a
    confidence of exactly 1 is in the last.

    Args:
        probabilities: (n, classes), rows that sum to 1.
        labels: (n,) integers in [0, classes).
        bins: of equal width, at least 1.
    """
    if bins < 1:
        raise ValueError(f"calibration error needs at least one bin, got {bins}")
    confidences, hits = _confidences(probabilities, labels)
    inner_edges = np.arange(1, bins) / bins
    gaps = np.bincount(np.searchsorted(inner_edges, confidences), weights=hits - confidences)
    return float(np.abs(gaps).sum() / len(confidences))


def at_labels(values: Array, labels: ArrayLike) -> Array:
    """(n,) entries of ``values`` (n, classes) at the labels (n,).

    Raises:
        ValueError: if labels are not one integer in [0, classes) for every example.
    """
    n, classes = values.shape
    y = np.asarray(labels)
    if y.shape != (n,):
        raise ValueError(f"expected one label for each of {n} examples, got shape {y.shape}")
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= classes:
        raise ValueError(f"expected integer labels from 0 to {classes - 1}, got {y.dtype} from {y.min()} to {y.max()}")
    return np.asarray(values[np.arange(n), y])


def distributions(probabilities: ArrayLike) -> Array:
    """Checked (n, classes) probabilities in float64; rows of NaN pass.

    Raises:
        ValueError: if a row is no distribution.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.size == 0:
        raise ValueError(f"expected probabilities (examples, classes), got shape {p.shape}")
    if np.any(p < 0) or np.any(np.abs(p.sum(axis=1) - 1) > _ROUNDING):
        raise ValueError("expected probabilities, every row non-negative with sum 1; take the softmax of logits first")
    return p


def _confidences(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    p = distributions(probabilities)
    at_labels(p, labels)
    return p.max(axis=1), p.argmax(axis=1) == np.asarray(labels)
