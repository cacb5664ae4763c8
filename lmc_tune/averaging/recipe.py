"""A recipe: which layers of two checkpoints to average, and whose the others are, so that the network stays good."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lmc_tune.averaging.findings import Recipe
from lmc_tune.averaging.judging import Judged, Judging, difference, judge
from lmc_tune.averaging.metric import Quantity
from lmc_tune.averaging.mixed import SIDES, Mixed, Splits
from lmc_tune.averaging.paths import Curve, Values
from lmc_tune.averaging.soups import Positions
from lmc_tune.core.barrier import Array
from lmc_tune.experiment import SplitName
from lmc_tune.measurement.layerwise.blends import Blend
from lmc_tune.measurement.layerwise.sets import Base

Layers = frozenset[int]


def order_of(alone: Sequence[float], distances: Sequence[float]) -> list[int]:
    """In which order layers are tried: by how much each raises the member's value alone, per squared distance.

    Those that raise it by nothing come first, the farthest of them before all.

    Example:
        >>> order_of([0.3, -0.1, 0.0, 0.2], [1.0, 2.0, 3.0, 2.0])
        [2, 1, 3, 0]
    """
    squares = [distance**2 for distance in distances]
    rises = [max(rise, 0.0) / square if square else 0.0 for rise, square in zip(alone, squares, strict=True)]
    return sorted(range(len(alone)), key=lambda at: (rises[at], -squares[at], at))


def most_averaged(order: Sequence[int], fits: Callable[[Layers], bool], kept: Layers = frozenset()) -> Layers:
    """As many layers as fit together: all if they do, else as many of the first half as fit, then of the second.

    Args:
        order: layers, in which they are tried.
        fits: whether a network with these layers averaged is good enough; asked of larger sets first.
        kept: layers that fit, and stay.

    Example:
        >>> most_averaged(range(4), lambda layers: not layers >= {1, 2})
        frozenset({0, 1, 3})
    """
    together = kept | frozenset(order)
    if together == kept or fits(together):
        return together
    if len(order) == 1:
        return kept
    middle = len(order) // 2
    return most_averaged(order[middle:], fits, most_averaged(order[:middle], fits, kept))


def risen(values: Values, ends: tuple[Values, Values]) -> dict[tuple[SplitName, Quantity], float]:
    """Means of a network less those of both members."""
    return {at: float(own.mean() - sum(end[at].mean() for end in ends) / 2) for at, own in values.items()}


def judge_between(own: Array, ends: tuple[Array, Array], judging: Judging) -> Judged:
    """The barrier of a network against the mean of both members: of the path from one through it to the other."""
    return judge(Curve(lambdas=np.array([0.0, 0.5, 1.0]), values=np.stack([ends[0], own, ends[1]], axis=1)), judging)


@dataclass(kw_only=True)
class Choosing:
    """Finds what can be averaged on one half of the test examples, and measures it on the other.

    distances: of the layers. halves: positions of the examples that choose, and of those that measure.
    """

    mixed: Mixed
    judging: Judging
    distances: Sequence[float]
    halves: tuple[Positions, Positions]
    _levels: dict[Blend, float] = field(default_factory=dict)

    def recipe(self, ends: tuple[Values, Values]) -> Recipe:
        """That of the member with which more of the squared distance can be averaged; else of the better one.

        Args:
            ends: every example's values of both whole members.
        """
        found = {base: self._most(base) for base in SIDES if self._fits(base, frozenset())}
        shares = {base: self._share(layers) for base, layers in found.items()}
        at, measured, confidence = self._judged_at, self.halves[1], self.judging.confidence
        better: Base = "a" if ends[0][at].mean() <= ends[1][at].mean() else "b"
        kept = max(found, key=lambda base: (shares[base], base == better))
        blend = self._blend(kept, found[kept])
        values = self.mixed.measured(blend, self.mixed.by.splits)
        own, one, other = (network[at][measured] for network in (values, *ends))
        return Recipe(
            lambdas=blend,
            kept=None if len(found[kept]) == len(blend) else kept,
            share=shares[kept],
            judged=judge_between(own, (one, other), self.judging),
            to_mean=difference(own, (one + other) / 2, confidence),
            to_better=difference(own, one if better == "a" else other, confidence),
            rises=risen(values, ends),
        )

    def learn(self, blend: Blend, values: Values) -> None:
        """Remember a network that was measured already."""
        level = float(values[self._judged_at][self.halves[0]].mean())
        self._levels[blend] = level if np.isfinite(level) else np.inf

    @property
    def _judged_at(self) -> tuple[SplitName, Quantity]:
        return "test", self.judging.quantity

    def _most(self, base: Base) -> Layers:
        member = self._level(self._blend(base, frozenset()))
        alone = [self._level(self._blend(base, frozenset({at}))) - member for at in range(len(self.distances))]
        return most_averaged(order_of(alone, self.distances), lambda layers: self._fits(base, layers))

    def _fits(self, base: Base, layers: Layers) -> bool:
        return self._level(self._blend(base, layers)) <= self._mean() + self.judging.threshold

    def _share(self, layers: Layers) -> float:
        squares = np.square(self.distances)
        return float(squares[sorted(layers)].sum() / squares.sum()) if squares.any() else 1.0

    def _blend(self, base: Base, layers: Layers) -> Blend:
        return tuple(0.5 if at in layers else SIDES[base] for at in range(len(self.distances)))

    def _level(self, blend: Blend) -> float:
        """The judged value on the examples that choose; infinite if it is no number."""
        if blend not in self._levels:
            test: Splits = {"test": self.mixed.by.splits["test"]}
            self.learn(blend, self.mixed.values([blend], test)[blend])
        return self._levels[blend]

    def _mean(self) -> float:
        return sum(self._level(self.mixed.whole(base)) for base in SIDES) / 2
