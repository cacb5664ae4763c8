"""Clients: one training set becomes the parts of many, which are disjoint and together all of it."""

import numpy as np
from numpy.typing import NDArray

from lmc_tune.data.examples import Indices
from lmc_tune.experiment import Dirichlet, FederationSpec, Pathological


def client_parts(labels: Indices, federation: FederationSpec, seed: int) -> list[Indices]:
    """Indices into the training set of every client, each in random order.

    ``iid``: a random permutation, cut into equal parts. ``dirichlet``: every client draws its shares of the classes and
    fills an equal part by them (:func:`_by_shares`). ``classes``: every client has so many classes
    (:func:`_by_classes`). Equal parts differ by one example at most.

    Args:
        labels: (N,) integer labels of the training set; (N, classes) where examples may have several, under ``iid``.
        federation: how many clients, and the split.
        seed: decides which example goes where.

    Raises:
        ValueError: if the clients' classes are fewer than the data set's, or a client would have the same class twice.
    """
    rng = np.random.default_rng(seed)
    if federation.split == "iid":
        cuts = np.cumsum(federation.sizes(len(labels)))[:-1]
        return np.split(rng.permutation(len(labels)).astype(np.int64), cuts)
    by_class = [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    match federation.split:
        case Dirichlet(dirichlet=alpha):
            parts = _by_shares(by_class, federation.sizes(len(labels)), alpha, rng)
        case Pathological(classes=classes):
            parts = _by_classes(by_class, federation.clients, classes, rng)
    return [rng.permutation(part) for part in parts]


def _by_shares(by_class: list[Indices], sizes: list[int], alpha: float, rng: np.random.Generator) -> list[Indices]:
    """Parts of given sizes, filled by class shares q ~ Dirichlet(α, …, α) (Hsu et al. 2019).

    Where a class runs out, what is missing is drawn by the shares of the other classes; where a client has no share of
    any class that is left, by how much is left. So the last clients are less skewed than their shares.
    """
    left = np.array([len(indices) for indices in by_class])
    taken = np.zeros_like(left)
    parts = []
    for size in sizes:
        shares = rng.dirichlet(np.full(len(by_class), alpha))
        counts = np.zeros_like(left)
        while (missing := size - counts.sum()) > 0:
            open_ = left > counts
            weights = np.where(open_, shares, 0.0)
            weights = weights if weights.sum() > 0 else (left - counts).astype(np.float64)
            counts = np.minimum(counts + rng.multinomial(missing, weights / weights.sum()), left)
        parts.append(_next(by_class, taken, counts))
        taken, left = taken + counts, left - counts
    return parts


def _by_classes(by_class: list[Indices], clients: int, each: int, rng: np.random.Generator) -> list[Indices]:
    """Parts of ``each`` classes (McMahan et al. 2017, with whole classes in the place of shards).

    Every class is cut into equal shards, as many as clients get it; the numbers of clients of two classes differ by one
    at most.
    """
    n = len(by_class)
    if each > n or each * clients < n:
        raise ValueError(f"{clients} clients with {each} classes each do not share out {n} classes")
    shards = np.full(n, each * clients // n)
    shards[rng.permutation(n)[: each * clients % n]] += 1
    pieces = [list(np.array_split(indices, number)) for indices, number in zip(by_class, shards, strict=True)]
    parts = []
    for _ in range(clients):  # those with the most shards left, so that no client has to take a class twice
        order = rng.permutation(n)
        chosen = sorted(order, key=lambda c: -len(pieces[c]))[:each]
        parts.append(np.concatenate([pieces[c].pop() for c in chosen]))
    return parts


def _next(by_class: list[Indices], taken: NDArray[np.int64], counts: NDArray[np.int64]) -> Indices:
    """The next examples of each class, so many of each."""
    return np.concatenate(
        [indices[at : at + n] for indices, at, n in zip(by_class, taken, counts, strict=True)], dtype=np.int64
    )
