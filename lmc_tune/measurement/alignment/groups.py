"""Units that may change places, and how: heads among each other, and the units of a kind inside each head."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

Permutation = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A part of an axis of an entry of the state that runs along the units of a kind.

    start: the first index of the part. block: how many neighbouring indices belong to each unit.
    counts: whether it is a weight; statistics move with the units, and say nothing of how close weights are.
    """

    entry: str
    dim: int
    start: int = 0
    block: int = 1
    kind: int = 0
    counts: bool = True


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where the units of a kind can be seen: along a dimension of what a node of the traced graph makes."""

    node: str
    dim: int
    start: int = 0
    block: int = 1
    kind: int = 0


@dataclass(frozen=True, kw_only=True)
class Group:
    """Axes that are permuted alike.

    Its units belong to ``heads``, which may change places; inside a head, so may the units of a kind. Attention has two
    kinds: the units of queries and keys, and those of values. Other groups are one head with one kind of units, which
    may stand in any order. Units are numbered by kind, then by head.

    widths: of every kind, how many units a head has. sites: where its units can be seen, behind activation functions if
    there are any. frozen: why it cannot be permuted; empty if it can. rigid: why each kind whose units keep their order
    inside a head does so; a head then has one unit of it.
    """

    widths: tuple[int, ...]
    heads: int = 1
    places: tuple[Place, ...]
    sites: tuple[Site, ...] = ()
    frozen: str = ""
    rigid: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many units there are."""
        return self.heads * sum(self.widths)

    def kind(self, kind: int) -> slice:
        """The units of a kind."""
        start = self.heads * sum(self.widths[:kind])
        return slice(start, start + self.heads * self.widths[kind])

    def head(self, kind: int, head: int) -> slice:
        """The units of a kind inside a head."""
        start = self.kind(kind).start + head * self.widths[kind]
        return slice(start, start + self.widths[kind])

    def extent(self, where: Place | Site) -> int:
        """How many indices of an axis they take up."""
        return self.heads * self.widths[where.kind] * where.block

    def by_unit(self, tensor: Tensor, where: Place | Site) -> Tensor:
        """(units of the kind, the rest): all that a tensor holds of every unit."""
        part = tensor.narrow(where.dim, where.start, self.extent(where)).movedim(where.dim, 0)
        return part.reshape(part.shape[0] // where.block, -1)

    def moved(self, tensor: Tensor, place: Place, permutation: Permutation) -> Tensor:
        """An entry whose units stand in another order: unit i is the old unit p[i]."""
        units = self.kind(place.kind)
        order = permutation[units] - units.start
        whole = np.arange(tensor.shape[place.dim])
        part = whole[place.start : place.start + self.extent(place)].reshape(len(order), place.block)
        part[:] = part[order]
        return tensor.index_select(place.dim, torch.from_numpy(whole).to(tensor.device))

    def allows(self, permutation: Permutation) -> bool:
        """Whether it is a permutation of the units that keeps heads together."""
        if not np.array_equal(np.sort(permutation), np.arange(self.size)):
            return False
        heads = []
        for kind, width in enumerate(self.widths):
            units = self.kind(kind)
            heads.append((permutation[units] - units.start).reshape(self.heads, width) // width)
        order = heads[0][:, :1]
        return bool(np.isin(order, np.arange(self.heads)).all() and all((one == order).all() for one in heads))

    def random(self, rng: np.random.Generator) -> Permutation:
        """One of the permutations that keep heads together."""
        return self._permutation(rng.permutation(self.heads), lambda kind, _: rng.permutation(self.widths[kind]))

    def best(self, gains: NDArray[np.float64]) -> Permutation:
        """The permutation p with the largest sum of gains[i, p[i]] of those that keep heads together.

        Which units inside a head are best depends only on which head they come from, so that a linear assignment for
        every two heads, and then one of heads, find it.
        """
        inside: dict[tuple[int, int, int], Permutation] = {}
        heads = np.zeros((self.heads, self.heads))
        for one, other in np.ndindex(heads.shape):
            for kind in range(len(self.widths)):
                block = gains[self.head(kind, one), self.head(kind, other)]
                units, order = linear_sum_assignment(block, maximize=True)
                heads[one, other] += block[units, order].sum()
                inside[kind, one, other] = order
        _, best = linear_sum_assignment(heads, maximize=True)
        return self._permutation(best, lambda kind, head: inside[kind, head, int(best[head])])

    def _permutation(self, heads: Permutation, inside: Callable[[int, int], Permutation]) -> Permutation:
        """Head i is the old head heads[i], and its units of a kind are those at inside(kind, i) of it."""
        order = [
            self.head(kind, int(old)).start + inside(kind, head)
            for kind in range(len(self.widths))
            for head, old in enumerate(heads)
        ]
        return np.concatenate(order).astype(np.int64)
