"""Units that flow through a network, and the axes of weights that they run along."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor, fx, nn

from lmc_tune.measurement.alignment.groups import Group, Place, Site
from lmc_tune.measurement.alignment.specification import Specification

STATISTICS = ("running_mean", "running_var")
# Why units that attention reads and makes stay.
RESIDUAL = "the residual stream of attention"
# Units along a dimension: all of them; or, of a dimension that was split, its sections, the heads, what is in a head.
Level = Literal["units", "sections", "heads", "inside"]
Residual = Literal["fixed", "free"]


@dataclass(frozen=True)
class Ref:
    """Units of a set along a dimension, ``block`` neighbouring indices each."""

    group: int
    block: int = 1
    level: Level = "units"


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

    def named(self, *names: str) -> list[Any]:
        """What was given by position or by name; None where nothing was."""
        given = {**dict(zip(names, self.args, strict=False)), **self.kwargs}
        return [given.get(name) for name in names]


class Links:
    """Sets of units that grow together as they meet: a forest. Sets whose heads meet make one group in the end.

    layer: whose operation is run, for reasons. tied: the forest of sets that make one group. inside: why the units of a
    set keep their order inside a head. sections: the sets that one was cut into. attention: sets of queries, keys and
    values.
    """

    def __init__(self, model: nn.Module) -> None:
        self.state = dict(model.state_dict(keep_vars=True))
        self.parameters = {name for name, _ in model.named_parameters()}
        self.layer = ""
        self.parent: list[int] = []
        self.tied: list[int] = []
        self.size: list[int] = []
        self.heads: list[int] = []
        self.places: list[list[Place]] = []
        self.reasons: list[str] = []
        self.inside: list[str] = []
        self.sections: dict[int, list[int]] = {}
        self.attention: set[int] = set()
        self.fixed: dict[tuple[str, int], str] = {}
        self.used: set[str] = set()
        self.made: list[tuple[Site, int, bool]] = []

    def new(self, size: int, heads: int = 1) -> Ref:
        """Units that nothing is known of yet."""
        self.parent.append(len(self.parent))
        self.tied.append(len(self.tied))
        self.size.append(size)
        self.heads.append(heads)
        self.places.append([])
        self.reasons.append("")
        self.inside.append("")
        return Ref(self.parent[-1])

    def root(self, group: int) -> int:
        """The set that has grown out of this one."""
        return _root(self.parent, group)

    def extent(self, ref: Ref) -> int:
        """How many indices of a dimension they take up."""
        root = self.root(ref.group)
        whole = self.size[root] * ref.block
        return {"heads": self.heads[root], "inside": whole // self.heads[root]}.get(ref.level, whole)

    def freeze(self, ref: Ref | None, reason: str) -> None:
        """These units stay, or those inside a head do; the first reason counts."""
        if ref is None:
            return
        root = self.root(ref.group)
        reasons = self.inside if ref.level == "inside" else self.reasons
        reasons[root] = reasons[root] or (f"{self.layer}: {reason}" if self.layer else reason)
        for section in self.sections.get(root, ()):
            self.freeze(replace(ref, group=section), reason)

    def freeze_all(self, values: Any, reason: str) -> None:
        """All units of some values stay."""

        def one(value: Any) -> None:
            for ref in _dims(value):
                self.freeze(replace(ref, level="units"), reason)

        fx.node.map_aggregate(values, one)

    def link(self, one: Ref | None, other: Ref | None, reason: str) -> Ref | None:
        """The units of both are the same; where one has none, the other's cannot move."""
        if one is None or other is None:
            self.freeze(one or other, reason)
            return None
        a, b = self.root(one.group), self.root(other.group)
        if not self._alike(one, other):
            self.freeze(one, reason)
            self.freeze(other, reason)
            return None
        self.tie(one, other)
        if one.level != "heads" and a != b:
            self.parent[b] = a
            self.heads[a] = max(self.heads[a], self.heads[b])
            self.places[a] += self.places[b]
            self.reasons[a] = self.reasons[a] or self.reasons[b]
            self.inside[a] = self.inside[a] or self.inside[b]
        return one

    def tie(self, one: Ref, other: Ref) -> None:
        """The heads of both are the same."""
        self.tied[_root(self.tied, other.group)] = _root(self.tied, one.group)

    def same_heads(self, one: Ref, other: Ref) -> bool:
        """Whether the heads of both are the same."""
        return _root(self.tied, one.group) == _root(self.tied, other.group)

    def keeps_order(self, ref: Ref) -> bool:
        """Whether its units stay where they are inside a head."""
        return bool(self.inside[self.root(ref.group)])

    def _alike(self, one: Ref, other: Ref) -> bool:
        a, b = self.root(one.group), self.root(other.group)
        if (one.level, one.block) != (other.level, other.block) or a in self.sections or b in self.sections:
            return False
        heads = self.heads[a] == self.heads[b] or (one.level == "units" and 1 in {self.heads[a], self.heads[b]})
        return heads and (one.level == "heads" or self.size[a] == self.size[b])

    def split(self, ref: Ref, sections: int, heads: int) -> list[Ref] | None:
        """Units along up to three dimensions: sections, heads, what is in a head; None if they cannot be."""
        root = self.root(ref.group)
        sets = self.cut(ref, sections) if sections > 1 or root in self.sections else [root]
        if ref.block != 1 or not sets or any(self.heads[self.root(one)] not in {1, heads} for one in sets):
            return None
        for one in sets:
            self.heads[self.root(one)] = heads
        levels: tuple[Level, ...] = ("heads", "inside") if sections == 1 else ("sections", "heads", "inside")
        return [Ref(root, level=level) for level in levels]

    def cut(self, ref: Ref, sections: int) -> list[int]:
        """The sets of so many sections of equal size; none if units cannot be cut so."""
        root = self.root(ref.group)
        if root in self.sections:
            return self.sections[root] if len(self.sections[root]) == sections else []
        if ref.level != "units" or ref.block != 1 or self.heads[root] != 1 or self.size[root] % sections:
            return []
        size = self.size[root] // sections
        found = [self.new(size).group for _ in range(sections)]
        for at, section in enumerate(found):
            self.reasons[section] = self.reasons[root]
            self.places[section] = [
                replace(place, start=place.start + at * size * place.block) for place in self.places[root]
            ]
            self.made += [
                (replace(site, start=site.start + at * size * site.block), section, activation)
                for site, made, activation in self.made
                if self.root(made) == root
            ]
        self.places[root] = []
        self.sections[root] = found
        return found

    def attach(self, ref: Ref | None, entry: str, dim: int, size: int, why: str, *, start: int = 0) -> None:  # noqa: PLR0913
        """An axis of an entry, or ``size`` indices of it from ``start`` on, runs along units; or the axis is fixed."""
        root = -1 if ref is None else self.root(ref.group)
        if ref is not None and (ref.level != "units" or root in self.sections or self.extent(ref) != size):
            self.freeze(ref, f"{entry} {'is the same for all heads' if ref.level == 'inside' else 'has other units'}")
            ref = None
        if ref is None:
            self.fixed[entry, dim] = why
            return
        counts = entry.rpartition(".")[2] not in STATISTICS
        self.places[root].append(Place(entry=entry, dim=dim, start=start, block=ref.block, counts=counts))

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

    def settled(self, value: Any, name: str) -> Any:
        """A value as it is, but units stay where those of one head meet those of another.

        Inside heads they keep their order if the value has no heads (or not the sections) any more. Heads that
        run along two dimensions have met each other.
        """
        if not isinstance(value, Value):
            return value
        dims = list(value.dims)
        for dim, ref in enumerate(dims):
            if ref is None or ref.level == "units":
                continue
            levels = [other.level for other in _dims(value) if self.same_heads(other, ref)]
            if levels.count("heads") > 1:
                self.freeze(replace(ref, level="units"), f"{name} joins heads with each other")
            elif ref.level == "inside" and ("heads" not in levels or self._needs_sections(ref, levels)):
                self.freeze(ref, f"{name} mixes heads")
                dims[dim] = None
        return replace(value, dims=tuple(dims))

    def _needs_sections(self, ref: Ref, levels: Sequence[Level]) -> bool:
        return self.root(ref.group) in self.sections and "sections" not in levels

    def note(self, node: str, value: Any, *, activation: bool) -> None:
        """Remember where units can be seen."""
        if isinstance(value, Value):
            for dim, ref in enumerate(value.dims):
                if ref is not None and ref.level == "units" and self.root(ref.group) not in self.sections:
                    self.made.append((Site(node=node, dim=dim, block=ref.block), ref.group, activation))

    def specification(self, residual: Residual) -> Specification:
        """What the axes have grown into; residual: whether units that attention reads and makes stay."""
        roots = [group for group in range(len(self.parent)) if self.root(group) == group and self.places[group]]
        if residual == "fixed":
            self._fix_residual(roots)
        tied: dict[int, list[int]] = {}
        for root in roots:
            tied.setdefault(_root(self.tied, root), []).append(root)
        for name in self.parameters - self.used:
            for dim in range(self.state[name].dim()):
                self.fixed.setdefault((name, dim), "it is not used")
        return Specification(groups=tuple(self._group(kinds) for kinds in tied.values()), fixed=self.fixed)

    def _fix_residual(self, roots: Sequence[int]) -> None:
        attention = {self.root(group) for group in self.attention}
        entries = {place.entry for root in attention for place in self.places[root]}
        for root in roots:
            if root not in attention and any(place.entry in entries for place in self.places[root]):
                self.freeze(Ref(root), RESIDUAL)

    def _group(self, kinds: Sequence[int]) -> Group:
        """Of sets whose heads are the same.

        Units that an entry meets along two of its axes stay: their cost would be quadratic.
        """
        heads = self.heads[kinds[0]]
        widths: list[int] = []
        places: list[Place] = []
        sites: list[Site] = []
        for kind, root in enumerate(kinds):
            width = self.size[root] // heads
            unit = width if self.inside[root] else 1
            widths.append(width // unit)
            places += [replace(place, kind=kind, block=place.block * unit) for place in self.places[root]]
            sites += [replace(site, kind=kind, block=site.block * unit) for site in self._sites(root)]
        axes = [entry for entry, _ in dict.fromkeys((place.entry, place.dim) for place in places)]
        both = next((f"{entry} reads and makes the same units" for entry in axes if axes.count(entry) > 1), "")
        return Group(
            widths=tuple(widths),
            heads=heads,
            places=tuple(places),
            sites=tuple(sites),
            frozen=next((self.reasons[root] for root in kinds if self.reasons[root]), both),
            rigid=tuple(self.inside[root] for root in kinds if self.inside[root]),
        )

    def _sites(self, root: int) -> list[Site]:
        """Behind activation functions; where units pass none, wherever they are."""
        own = [(site, activation) for site, made, activation in self.made if self.root(made) == root]
        return [site for site, activation in own if activation] or [site for site, _ in own]


def _root(forest: list[int], at: int) -> int:
    while forest[at] != at:
        forest[at] = forest[forest[at]]
        at = forest[at]
    return at


def _dims(value: Any) -> list[Ref]:
    return [ref for ref in value.dims if ref is not None] if isinstance(value, Value) else []


def unlabelled(value: Any) -> Any:
    """A tensor along which no units run; whatever else as it is."""
    return Value(value, (None,) * value.dim()) if isinstance(value, Tensor) else value
