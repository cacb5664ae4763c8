"""Lines through weight space: where the networks are that are scored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lmc_tune.models.state import State, check_same_entries, lerp_state


class MeasurementError(Exception):
    """A line that cannot be measured; the message says why and what to do."""


class Line(Protocol):
    """Weights by position."""

    def at(self, position: float) -> dict[str, Tensor]:
        """The state at a position."""


@dataclass(frozen=True)
class Segment:
    """The straight path from A (position 0) to B (1); or, of A, with only the entries ``moved`` on their way to B.

    Raises:
        ValueError: if an entry that is to be moved is not in A.

    Example:
        >>> a, b = ({"w": torch.tensor([x]), "v": torch.tensor([x / 2])} for x in (0.0, 4.0))
        >>> Segment(a, b).at(0.5)
        {'w': tensor([2.]), 'v': tensor([1.])}
        >>> Segment(a, b, moved=frozenset({"w"})).at(0.5)
        {'w': tensor([2.]), 'v': tensor([0.])}
    """

    a: State
    b: State
    moved: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.moved is not None and (unknown := sorted(self.moved - self.a.keys())):
            raise ValueError(f"there is no entry {unknown[0]!r} to move; name entries of the state, not layers")

    def at(self, position: float) -> dict[str, Tensor]:
        """θ(λ) = (1−λ) θ_A + λ θ_B, see :func:`~lmc_tune.models.state.lerp_state`."""
        if self.moved is None:
            return lerp_state(self.a, self.b, position)
        end = {name: self.b[name] if name in self.moved else entry for name, entry in self.a.items()}
        return lerp_state(self.a, end, position)


@dataclass(frozen=True)
class Ray:
    """The line from a state, at 0, along a direction, of whose entries alone it moves.

    direction: float64 on the origin's device. Weights are added up in float64 and rounded once to the origin's type.

    Example:
        >>> Ray({"w": torch.tensor([1.0]), "v": torch.tensor([2.0])}, {"w": torch.tensor([4.0]).double()}).at(0.5)
        {'w': tensor([3.]), 'v': tensor([2.])}
    """

    origin: State
    direction: State

    def at(self, position: float) -> dict[str, Tensor]:
        """θ + position · direction."""
        moved = {
            name: (self.origin[name].double() + position * step).to(self.origin[name].dtype)
            for name, step in self.direction.items()
        }
        return {**self.origin, **moved}


@dataclass(frozen=True)
class Listed:
    """Networks at places of any kind, by their number; each state is made when it is scored."""

    states: Sequence[Callable[[], dict[str, Tensor]]]

    def at(self, position: float) -> dict[str, Tensor]:
        """The state of this number."""
        return self.states[int(position)]()


@dataclass(frozen=True)
class Mixture:
    """Weighted averages of several states of one architecture.

    Example:
        >>> Mixture(({"w": torch.tensor([0.0])}, {"w": torch.tensor([3.0])})).weighted((0.75, 0.25))
        {'w': tensor([0.7500])}
    """

    states: Sequence[State]

    def weighted(self, weights: Sequence[float]) -> dict[str, Tensor]:
        """Σ wᵢ θᵢ; integer entries are counts, not weights: they are the first's.

        Raises:
            ValueError: if there are not as many weights as states, or the states differ in architecture.
        """
        first, *others = self.states
        for other in others:
            check_same_entries(first, other)
        if len(weights) != len(self.states):
            raise ValueError(f"{len(weights)} weights for {len(self.states)} states; give one for each")
        return {
            name: self._sum(name, weights).to(entry.dtype) if entry.is_floating_point() else entry
            for name, entry in first.items()
        }

    def _sum(self, name: str, weights: Sequence[float]) -> Tensor:
        """In float64: equal states are their own average, exactly, and the order of the states changes nothing."""
        total = torch.zeros_like(self.states[0][name], dtype=torch.float64)
        for weight, state in zip(weights, self.states, strict=True):
            total += weight * state[name].double()
        return total
