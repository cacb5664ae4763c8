"""Shifts: one training set becomes the two members' parts.

Both parts have the same length n, and position i of A is paired with position i of B: under fixed SGD noise the
members draw the same positions in every step, so equal labels at a position mean equal labels in every batch.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmc_tune.data.examples import Indices
from lmc_tune.experiment import ShiftSpec


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Indices into the training set, (n,) each, paired by position."""

    a: Indices
    b: Indices


def split(labels: Indices, shift: ShiftSpec, seed: int) -> Parts:
    """Split a training set between the members as ``shift`` says.

    ``none``: A and B are the same stratified half. ``covariate``: disjoint stratified halves with the same label at
    every position; below severity 1 the first 1 − severity of each class's positions are A's examples in both.
    ``domain``: disjoint stratified halves, which :mod:`~lmc_tune.data.domains` shows differently.
    ``label``: disjoint parts; class c goes to A with fraction f_c (see :func:`label_fractions`), positions carry the
    same label in both as far as the counts allow, and the surplus of the longer part is dropped.

    The same seed gives the same part A for ``none`` and for ``covariate`` at every severity.

    Args:
        labels: (N,) integer labels of the training set.
        shift: what kind and how severe.
        seed: decides which example goes where.
    """
    rng = np.random.default_rng(seed)
    by_class = [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    if shift.kind == "label":
        return _skewed(by_class, label_fractions(by_class, shift, rng), rng)
    shared = 0.0 if shift.kind == "domain" else 1 - shift.severity
    return _halves(by_class, shared, rng)


def split_between(labels: Indices, others: Indices, severity: float, seed: int) -> Parts:
    """Split two data sets of the same labels between the members, with the same label at every position.

    A has examples of the first; B has the fraction ``severity`` of every class from the second, and the rest from the
    first, none of them A's. A class has as many examples as half of the first's and all of the second's allow,
    whatever the severity.

    Args:
        labels: (N,) of the first.
        others: (M,) of the second; B's indices of its examples begin at N.
        severity: in [0, 1].
        seed: decides which example goes where.
    """
    rng = np.random.default_rng(seed)
    a, b = [], []
    for label in np.unique(labels):
        own, foreign = (rng.permutation(np.flatnonzero(known == label)) for known in (labels, others))
        half = len(own) // 2
        n = min(half, len(foreign))
        k = round(severity * n)
        a.append(own[:n])
        b.append(np.concatenate([own[half : half + n - k], len(labels) + foreign[:k]]))
    return _shuffled(a, b, rng)


def label_fractions(by_class: list[Indices], shift: ShiftSpec, rng: np.random.Generator) -> NDArray[np.float64]:
    """Fraction of every class that goes to A.

    Classes are paired at random; of each pair one has fraction f and the other 1 − f, so that A and B get equally
    many examples (a class left over is halved). ``ratio``: f = r = (1 + severity)/2 for all pairs.
    ``dirichlet``: f is the first component of Dirichlet(α, α), drawn per pair, α = (1 − severity)/severity.
    """
    order = rng.permutation(len(by_class))
    fractions = np.full(len(by_class), 0.5)
    for one, other in zip(order[0::2], order[1::2], strict=False):
        f = (1 + shift.severity) / 2 if shift.skew == "ratio" else _dirichlet(shift.severity, rng)
        fractions[one], fractions[other] = f, 1 - f
    return fractions


def _dirichlet(severity: float, rng: np.random.Generator) -> float:
    if severity == 0:
        return 0.5
    if severity == 1:
        return float(rng.integers(2))
    alpha = (1 - severity) / severity
    return float(rng.dirichlet([alpha, alpha])[0])


def _halves(by_class: list[Indices], shared: float, rng: np.random.Generator) -> Parts:
    a, b = [], []
    for indices in by_class:
        half = len(indices) // 2
        k = round(shared * half)
        a.append(indices[:half])
        b.append(np.concatenate([indices[:k], indices[half + k : 2 * half]]))
    return _shuffled(a, b, rng)


def _skewed(by_class: list[Indices], fractions: NDArray[np.float64], rng: np.random.Generator) -> Parts:
    paired_a, paired_b, surplus_a, surplus_b = [], [], [], []
    for indices, fraction in zip(by_class, fractions, strict=True):
        k = round(fraction * len(indices))
        of_a, of_b = indices[:k], indices[k:]
        both = min(len(of_a), len(of_b))
        paired_a.append(of_a[:both])
        paired_b.append(of_b[:both])
        surplus_a.append(of_a[both:])
        surplus_b.append(of_b[both:])
    rest_a, rest_b = rng.permutation(np.concatenate(surplus_a)), rng.permutation(np.concatenate(surplus_b))
    n = min(len(rest_a), len(rest_b))
    return _shuffled([*paired_a, rest_a[:n]], [*paired_b, rest_b[:n]], rng)


def _shuffled(a: list[Indices], b: list[Indices], rng: np.random.Generator) -> Parts:
    """All pieces of A and of B, in one random order: pairs of positions stay together."""
    order = rng.permutation(sum(map(len, a)))
    return Parts(a=np.concatenate(a)[order], b=np.concatenate(b)[order])
