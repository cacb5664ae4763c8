"""Units that flow through a network, and the axes of weights that they run along."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn

from lmc_tune.measurement.alignment.specification import Group, Place, Site, Specification

STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Ref:
    """Units of a group along a dimension, ``block`` neighbouring indices each."""

    group: int
    block: int = 1


Dims = tuple[Ref | None, ...]


@dataclass(frozen=True)
class Value:
    """A tensor, and which units run along its dimensions."""

    tensor: Tensor
    dims: Dims


@dataclass(frozen=True, kw_only=True)
class Call:
    """A layer or an operation that is run. args, kwargs: what it was given, tensors as values. made: what came out.

    module: None for an operation.
    """

    name: str
    args: Any
    made: Any
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    module: Any = None


class Links:
    """Groups of axes that grow together as they meet: a forest of sets."""

    def __init__(self, model: nn.Module) -> None:
        self.state = dict(model.state_dict(keep_vars=True))
        self.parameters = {name for name, _ in model.named_parameters()}
        self.parent: list[int] = []
        self.size: list[int] = []
        self.places: list[list[Place]] = []
        self.reasons: list[str] = []
        self.fixed: dict[tuple[str, int], str] = {}
        self.used: set[str] = set()
        self.made: list[tuple[Site, int, bool]] = []

    def new(self, size: int) -> Ref:
        """Units that nothing is known of yet."""
        self.parent.append(len(self.parent))
        self.size.append(size)
        self.places.append([])
        self.reasons.append("")
        return Ref(self.parent[-1])

    def root(self, group: int) -> int:
        """The group that has grown out of this one."""
        while self.parent[group] != group:
            self.parent[group] = self.parent[self.parent[group]]
            group = self.parent[group]
        return group

    def freeze(self, ref: Ref | None, reason: str) -> None:
        """These units stay; the first reason counts."""
        if ref is not None:
            root = self.root(ref.group)
            self.reasons[root] = self.reasons[root] or reason

    def freeze_all(self, values: Any, reason: str) -> None:
        """All units of some values stay."""

        def one(value: Any) -> None:
            for ref in _dims(value):
                self.freeze(ref, reason)

        fx.node.map_aggregate(values, one)

    def link(self, one: Ref | None, other: Ref | None, reason: str) -> Ref | None:
        """The units of both are the same; where one has none, the other's cannot move."""
        if one is None or other is None:
            self.freeze(one or other, reason)
            return None
        a, b = self.root(one.group), self.root(other.group)
        if one.block != other.block or self.size[a] != self.size[b]:
            self.freeze(one, reason)
            self.freeze(other, reason)
            return None
        if a != b:
            self.parent[b] = a
            self.places[a] += self.places[b]
            self.reasons[a] = self.reasons[a] or self.reasons[b]
        return one

    def attach(self, ref: Ref | None, entry: str, dim: int, size: int, why: str) -> None:
        """An axis of an entry runs along units, or is fixed."""
        if ref is not None and self.size[self.root(ref.group)] * ref.block != size:
            self.freeze(ref, why)
            ref = None
        if ref is None:
            self.fixed[entry, dim] = why
            return
        counts = entry.rpartition(".")[2] not in STATISTICS
        self.places[self.root(ref.group)].append(Place(entry=entry, dim=dim, block=ref.block, counts=counts))

    def again(self, entry: str) -> bool:
        """Whether an entry was used before; its axes are then frozen, since a permutation meets it twice."""
        if entry not in self.used:
            self.used.add(entry)
            return False
        for group in range(len(self.parent)):
            if any(place.entry == entry for place in self.places[self.root(group)]):
                self.freeze(Ref(group), f"{entry} is used twice")
        return True

    def opaque(self, given: Any, made: Any, reason: str, entries: Sequence[str] = ()) -> Any:
        """What was given cannot be permuted, and nothing is known of what was made."""
        self.freeze_all(given, reason)
        for entry in entries:
            for dim in range(self.state[entry].dim()) if entry in self.state else ():
                self.fixed[entry, dim] = reason
        return fx.node.map_aggregate(made, unlabelled)

    def note(self, node: str, value: Any, *, activation: bool) -> None:
        """Remember where units can be seen."""
        if isinstance(value, Value):
            for dim, ref in enumerate(value.dims):
                if ref is not None:
                    self.made.append((Site(node=node, dim=dim, block=ref.block), ref.group, activation))

    def specification(self) -> Specification:
        """What the axes have grown into.

        Units that an entry meets along two of its axes stay: their cost would be quadratic.
        """
        groups = []
        for group in range(len(self.parent)):
            if self.root(group) != group or not self.places[group]:
                continue
            places, reason = tuple(self.places[group]), self.reasons[group]
            entries = [place.entry for place in places]
            if both := next((entry for entry in entries if entries.count(entry) > 1), ""):
                reason = reason or f"{both} reads and makes the same units"
            groups.append(Group(size=self.size[group], places=places, sites=self._sites(group), frozen=reason))
        for name in self.parameters - self.used:
            for dim in range(self.state[name].dim()):
                self.fixed.setdefault((name, dim), "it is not used")
        return Specification(groups=tuple(groups), fixed=self.fixed)

    def _sites(self, group: int) -> tuple[Site, ...]:
        """Behind activation functions; where units pass none, wherever they are."""
        own = [(site, activation) for site, made, activation in self.made if self.root(made) == group]
        return tuple(site for site, activation in own if activation) or tuple(site for site, _ in own)


def _dims(value: Any) -> list[Ref]:
    return [ref for ref in value.dims if ref is not None] if isinstance(value, Value) else []


def unlabelled(value: Any) -> Any:
    """A tensor along which no units run; whatever else as it is."""
    return Value(value, (None,) * value.dim()) if isinstance(value, Tensor) else value
