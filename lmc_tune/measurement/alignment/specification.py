"""Which axes of a network's weights may be permuted together: traced from the module itself.

Every axis of every parameter is either in a group, whose axes are permuted alike, or fixed; an axis may also consist of
parts, each in a group. A group is *frozen* where an operation does not let a permutation pass; the reason names it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from lmc_tune.measurement.alignment.groups import Group, Permutation, Place
from lmc_tune.models.state import State

# Why the units of a network's output stay.
OUTPUT = "it is the network's output"
# By the number of the group.
Permutations = Mapping[int, Permutation]


@dataclass(frozen=True, kw_only=True)
class Specification:
    """The groups of a network; ``fixed``: by entry and dimension, why an axis is in none."""

    groups: tuple[Group, ...]
    fixed: Mapping[tuple[str, int], str] = field(default_factory=dict)

    @property
    def free(self) -> dict[int, Group]:
        """The groups that can be permuted, by their number."""
        return {number: group for number, group in enumerate(self.groups) if not group.frozen}

    @property
    def units(self) -> int:
        """How many units can be permuted."""
        return sum(group.size for group in self.free.values())

    @property
    def frozen(self) -> list[str]:
        """Why groups cannot be permuted, or not inside their heads: each reason once, groups of many axes first."""
        groups = sorted(self.groups, key=lambda group: len(group.places), reverse=True)
        reasons = [reason for group in groups for reason in ([group.frozen] if group.frozen else group.rigid)]
        return list(dict.fromkeys(reasons))

    @property
    def hindrances(self) -> list[str]:
        """Why hidden units cannot be permuted, each reason once; of a network without groups, why it has none."""
        reasons = self.frozen if self.groups else dict.fromkeys(self.fixed.values())
        return [reason for reason in reasons if reason != OUTPUT]

    def identity(self) -> dict[int, Permutation]:
        return {number: np.arange(group.size) for number, group in self.free.items()}

    def permuted(self, state: State, permutations: Permutations) -> dict[str, Tensor]:
        """The state of the same function whose units stand in another order: unit i is the old unit p[i].

        Args:
            state: of the network.
            permutations: of free groups; the others stay.

        Raises:
            ValueError: if a group is frozen, or what is given is no permutation of its units that keeps heads together.
        """
        found = dict(state)
        for number, permutation in permutations.items():
            group = self.groups[number]
            if group.frozen:
                raise ValueError(f"group {number} cannot be permuted: {group.frozen}")
            if not group.allows(permutation):
                together = f" that keeps its {group.heads} heads together" if group.heads > 1 else ""
                raise ValueError(f"group {number} has {group.size} units; give a permutation of them{together}")
            for place in group.places:
                found[place.entry] = group.moved(found[place.entry], place, permutation)
        return found

    def uses(self, entry: str) -> Iterator[tuple[int, Place]]:
        """The free groups that an entry has axes of."""
        for number, group in self.free.items():
            for place in group.places:
                if place.entry == entry:
                    yield number, place


def composed(first: Permutations, then: Permutations) -> dict[int, Permutation]:
    """One permutation after the other."""
    return {number: first[number][permutation] for number, permutation in then.items()}


def inverse(permutations: Permutations) -> dict[int, Permutation]:
    return {number: np.argsort(permutation) for number, permutation in permutations.items()}


def random_permutations(specification: Specification, seed: int) -> dict[int, Permutation]:
    """One of every free group."""
    rng = np.random.default_rng(seed)
    return {number: group.random(rng) for number, group in specification.free.items()}


def check_complete(specification: Specification, state: State, parameters: Sequence[str]) -> None:
    """Raise AssertionError unless every axis of every parameter is fixed, or its parts are in one group each."""
    parts: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for group in specification.groups:
        for place in group.places:
            part = (place.start, place.start + group.extent(place))
            parts.setdefault((place.entry, place.dim), []).append(part)
    for name in {*parameters, *(entry for entry, _ in parts)}:
        for dim, size in enumerate(state[name].shape):
            own, is_fixed = sorted(parts.get((name, dim), [])), (name, dim) in specification.fixed
            if (own and is_fixed) or (name in parameters and not own and not is_fixed):
                raise AssertionError(
                    f"axis {dim} of {name} is {'also' if is_fixed else 'neither in a group nor'} fixed"
                )
            if own and [0, *(stop for _, stop in own)] != [*(start for start, _ in own), size]:
                raise AssertionError(f"axis {dim} of {name} has {size} indices; these are in groups: {own}")
