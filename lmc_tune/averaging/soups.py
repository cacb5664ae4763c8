"""Soups: averages of several networks (Wortsman et al. 2022)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lmc_tune.averaging.basins import Indices
from lmc_tune.averaging.judging import Difference, difference
from lmc_tune.averaging.pair import Measuring
from lmc_tune.averaging.paths import scored
from lmc_tune.core.barrier import Array
from lmc_tune.core.seeding import child_seed
from lmc_tune.measurement.conditions import recalibrate
from lmc_tune.models.state import State

Positions = NDArray[np.intp]


def halves(n: int, labels: NDArray[np.int64] | None) -> tuple[Positions, Positions]:
    """Two disjoint halves of n examples, drawn at random; with as many of every class in both as can be.

    Args:
        n: how many examples there are, at least 2.
        labels: (n,) classes; None if there are none.
    """
    order = np.random.default_rng(child_seed(0, "halves of the test examples")).permutation(n)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    return np.sort(order[::2]), np.sort(order[1::2])


@dataclass(frozen=True, kw_only=True)
class Soup:
    """The average of some members.

    order: in which they were tried. value: judged, on the examples that did not choose them. to_best: less that of the
    member that is best on those that did; negative is better.
    """

    members: Indices
    order: Indices
    value: float
    to_best: Difference


@dataclass(frozen=True, kw_only=True)
class Soups:
    """What makes and measures soups: one state, and the soup so far, are in memory besides the network.

    load: gives a member's weights by its number. recalibrates: whether BatchNorm's statistics are estimated on a soup.
    halves: the test examples that choose members, and those that measure soups.
    """

    by: Measuring
    load: Callable[[int], State]
    recalibrates: bool
    halves: tuple[Positions, Positions]
    confidence: float

    def both(self, values: Array) -> tuple[Soup, Soup]:
        """The average of all, and that of those which do not make it worse, in order of how good they are alone.

        Args:
            values: (members, examples) of the members alone, judged.
        """
        everyone = tuple(range(len(values)))
        order = tuple(int(at) for at in np.argsort(values[:, self.halves[0]].mean(axis=1), kind="stable"))
        best = values[order[0]]
        mean = self.mean_of(everyone)
        uniform = self._soup(everyone, everyone, self._values(mean, mean, 0.0), best)
        mean = self.mean_of(order[:1])
        kept, current = list(order[:1]), self._values(mean, mean, 0.0)
        for number in order[1:]:
            tried = self._stirred(mean, number, 1 / (len(kept) + 1), current)
            if tried is not None:
                current, kept = tried, [*kept, number]
        return uniform, self._soup(tuple(kept), order, current, best)

    def mean_of(self, members: Indices) -> dict[str, Tensor]:
        """Their mean, in memory that no member has."""
        found = {name: entry.clone() for name, entry in self.load(members[0]).items()}
        for n, number in enumerate(members[1:], start=2):
            _mix_in(found, self.load(number), 1 / n)
        return found

    def average(self, members: Indices) -> dict[str, Tensor]:
        """The soup as weights on the CPU, with its own statistics where these are estimated."""
        mean = self.mean_of(members)
        self._prepared(mean, mean, 0.0)
        state = self.by.network.module.state_dict()
        return {name: entry.detach().cpu().clone() for name, entry in state.items()}

    def _stirred(self, mean: dict[str, Tensor], number: int, share: float, current: Array) -> Array | None:
        """Mix one more in, unless that makes the soup worse; its values then, or None."""
        state = self.load(number)
        found = self._values(mean, state, share)
        chosen = self.halves[0]
        if not (np.isfinite(found).all() and found[chosen].mean() <= current[chosen].mean()):
            return None
        _mix_in(mean, state, share)
        return found

    def _prepared(self, state: State, another: State, share: float) -> None:
        model = self.by.network.moved_to(state, another, share)
        if self.recalibrates and self.by.statistics is not None:
            recalibrate(self.by.network, model, self.by.statistics)

    def _values(self, state: State, another: State, share: float) -> Array:
        self._prepared(state, another, share)
        found, _ = scored(self.by.network.module, self.by.splits["test"], self.by.metric)
        return found[self.by.metric.judged]

    def _soup(self, members: Indices, order: Indices, values: Array, best: Array) -> Soup:
        measured = values[self.halves[1]]
        return Soup(
            members=members,
            order=order,
            value=float(measured.mean()),
            to_best=difference(measured, best[self.halves[1]], self.confidence),
        )


def _mix_in(state: dict[str, Tensor], another: State, share: float) -> None:
    """Move a state towards another, in place; counts stay."""
    for name, entry in state.items():
        if entry.is_floating_point():
            entry.lerp_(another[name], share)
