"""Which axes of a network's weights may be permuted together: traced from the module itself.

Every axis of every parameter is either in a group, whose axes are permuted alike, or fixed. A group is *frozen* where
an operation does not let a permutation pass; the reason names it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmc_tune.models.state import State

# Why the units of a network's output stay.
OUTPUT = "it is the network's output"
Permutation = NDArray[np.int64]
# By the number of the group.
Permutations = Mapping[int, Permutation]


@dataclass(frozen=True, kw_only=True)
class Place:
    """An axis of an entry of the state: ``block`` neighbouring indices belong to each unit.

    counts: whether it is a weight; statistics move with the units, and say nothing of how close weights are.
    """

    entry: str
    dim: int
    block: int = 1
    counts: bool = True


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where units can be seen: along a dimension of what a node of the traced graph makes, ``block`` values each."""

    node: str
    dim: int
    block: int = 1


@dataclass(frozen=True, kw_only=True)
class Group:
    """Axes that are permuted alike. sites: where its units can be seen, behind activation functions if there are any.
    frozen: why they cannot be permuted; empty if they can.
    """

    size: int
    places: tuple[Place, ...]
    sites: tuple[Site, ...] = ()
    frozen: str = ""


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
        """Why groups cannot be permuted, each reason once."""
        return list(dict.fromkeys(group.frozen for group in self.groups if group.frozen))

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
            ValueError: if a group is frozen, or what is given is no permutation of its units.
        """
        found = dict(state)
        for number, permutation in permutations.items():
            group = self.groups[number]
            if group.frozen:
                raise ValueError(f"group {number} cannot be permuted: {group.frozen}")
            if not np.array_equal(np.sort(permutation), np.arange(group.size)):
                raise ValueError(f"group {number} has {group.size} units; give a permutation of them")
            for place in group.places:
                tensor = found[place.entry]
                found[place.entry] = tensor.index_select(place.dim, indices(permutation, place, tensor.device))
        return found

    def uses(self, entry: str) -> Iterator[tuple[int, Place]]:
        """The free groups that an entry has axes of."""
        for number, group in self.free.items():
            for place in group.places:
                if place.entry == entry:
                    yield number, place


def indices(permutation: Permutation, place: Place, device: torch.device) -> Tensor:
    """Of an axis, where every index of the permuted one comes from."""
    block = (permutation[:, None] * place.block + np.arange(place.block)).ravel()
    return torch.from_numpy(block).to(device)


def composed(first: Permutations, then: Permutations) -> dict[int, Permutation]:
    """One permutation after the other."""
    return {number: first[number][permutation] for number, permutation in then.items()}


def inverse(permutations: Permutations) -> dict[int, Permutation]:
    return {number: np.argsort(permutation) for number, permutation in permutations.items()}


def random_permutations(specification: Specification, seed: int) -> dict[int, Permutation]:
    """One of every free group."""
    rng = np.random.default_rng(seed)
    return {number: rng.permutation(group.size) for number, group in specification.free.items()}


def check_complete(specification: Specification, state: State, parameters: Sequence[str]) -> None:
    """Raise AssertionError unless every axis of every parameter is in exactly one group, or fixed."""
    seen: dict[tuple[str, int], int] = {}
    for group in specification.groups:
        for place in group.places:
            seen[place.entry, place.dim] = seen.get((place.entry, place.dim), 0) + 1
            size = state[place.entry].shape[place.dim]
            if size != group.size * place.block:
                raise AssertionError(f"{place.entry} has {size} along {place.dim}, not {group.size} × {place.block}")
    for name in parameters:
        for dim in range(state[name].dim()):
            times = seen.get((name, dim), 0) + ((name, dim) in specification.fixed)
            if times != 1:
                raise AssertionError(f"axis {dim} of {name} is in {times} groups")
