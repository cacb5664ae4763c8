"""Several checkpoints: the barrier of every pair, which of them lie in one basin, and what their soups are worth."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import networkx as nx
import numpy as np
from torch import Tensor

from lmc_tune.averaging.findings import Quality
from lmc_tune.averaging.judging import Difference, Judged, Judging, difference, has_learned, judge, judging_of
from lmc_tune.averaging.metric import class_labels
from lmc_tune.averaging.pair import Measuring, Named, Pair
from lmc_tune.averaging.paths import Condition, SplitName, check_repeats, scored
from lmc_tune.core.barrier import Array
from lmc_tune.errors import UserError
from lmc_tune.measurement.alignment.specification import Specification
from lmc_tune.measurement.conditions import recalibrate
from lmc_tune.models.state import State

Indices = tuple[int, ...]


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
class Basins:
    """Which members belong together under one condition.

    judged, on_train: of every pair i < j, on the examples of each kind. groups: as :func:`groups`. chains: as
    :func:`chains`; connectivity is not transitive, so that they may be larger. window: as :func:`widest_window`.
    """

    condition: Condition
    judged: Mapping[tuple[int, int], Judged]
    on_train: Mapping[tuple[int, int], Judged]
    groups: tuple[Indices, ...]
    chains: tuple[Indices, ...]
    window: Indices


@dataclass(frozen=True, kw_only=True)
class ManyFindings:
    """What was found of several checkpoints.

    names, files, took, qualities, learned: of every member. trajectory: whether their order means something. chosen_on,
    measured_on: how many test examples chose the members of the soups, and on how many others soups are measured.
    """

    names: tuple[str, ...]
    files: tuple[str, ...]
    took: tuple[str, ...]
    qualities: tuple[Quality, ...]
    learned: tuple[bool | None, ...]
    judging: Judging
    metric: str
    unit: str
    basins: tuple[Basins, ...]
    uniform: Soup
    greedy: Soup
    chosen_on: int
    measured_on: int
    trajectory: bool
    notes: tuple[str, ...]

    @property
    def best(self) -> int:
        """The member with the lowest judged value on the test examples."""
        values = [quality.means["test", self.judging.quantity] for quality in self.qualities]
        return int(np.argmin(values))


@dataclass(kw_only=True)
class Many:
    """Several members, of which no more than two are in memory besides the network.

    load: gives a member's weights by its number.
    """

    by: Measuring
    names: Sequence[str]
    load: Callable[[int], Named]
    trajectory: bool = False
    notes: list[str] = field(default_factory=list)

    def measure(self) -> ManyFindings:
        """Every pair once, then the soups."""
        members = [self._member(number) for number in range(len(self.names))]
        values = np.stack([one.values for one in members])
        judging = judging_of(
            self.by.metric.judged, float(values.mean()), self.by.asked.threshold, self.by.asked.confidence
        )
        basins = tuple(self._basins(condition, judged) for condition, judged in self._pairs(judging).items())
        uniform, greedy = self._soups(values, basins[-1].condition, judging)
        n = values.shape[1]
        return ManyFindings(
            names=tuple(self.names),
            files=tuple(one.file for one in members),
            took=tuple(one.took for one in members),
            qualities=tuple(one.quality for one in members),
            learned=tuple(one.learned for one in members),
            judging=judging,
            metric=self.by.metric.name,
            unit=self.by.metric.unit,
            basins=basins,
            uniform=uniform,
            greedy=greedy,
            chosen_on=len(range(0, n, 2)),
            measured_on=len(range(1, n, 2)),
            trajectory=self.trajectory,
            notes=tuple(self.notes),
        )

    def _member(self, number: int) -> "_Member":
        named = self.load(number)
        self.by.say(f"measuring {named.name}")
        model = self.by.network.loaded(named.state)
        if number == 0:
            check_repeats(model, self.by.splits["test"], self.by.metric)
        means = {}
        for split, examples in self.by.splits.items():
            found, _ = scored(model, examples, self.by.metric)
            for quantity, values in found.items():
                if not np.isfinite(values).all():
                    raise UserError(f"{named.name} has a {quantity} that is not finite on {split} examples")
                means[split, quantity] = float(values.mean())
            if split == "test":
                on_test = found
        labels = class_labels(self.by.splits["test"], self.by.metric)
        return _Member(
            file=named.file,
            took=named.took,
            quality=Quality(means=means),
            learned=None if labels is None else has_learned(on_test["error"], labels),
            values=on_test[self.by.metric.judged],
        )

    def _pairs(self, judging: Judging) -> dict[Condition, dict[tuple[int, int], dict[SplitName, Judged]]]:
        """Every pair under every condition, each once."""
        found: dict[Condition, dict[tuple[int, int], dict[SplitName, Judged]]] = {}
        total = len(self.names) * (len(self.names) - 1) // 2
        specification: Specification | None = None
        first, first_at = self.load(0), 0
        for done, (i, j) in enumerate(combinations(range(len(self.names)), 2), start=1):
            if i != first_at:
                first, first_at = self.load(i), i
            pair = Pair(
                by=self._quietly(),
                a=first,
                b=self.load(j),
                specification=specification,
            )
            self.by.say(f"measuring pair {done} of {total}")
            for condition in self._conditions(pair):
                curves = pair.scored(condition).curves
                found.setdefault(condition, {})[i, j] = {
                    split: judge(curves[split, judging.quantity], judging) for split in self.by.splits
                }
            specification = pair.specification
            self.notes += [note for note in pair.notes if note not in self.notes]
        return found

    def _quietly(self) -> Measuring:
        """A pair's own phases would hide which pair it is."""
        return replace(self.by, say=lambda _: None)

    def _conditions(self, pair: Pair) -> list[Condition]:
        """Those that are asked for; else naive, recalibrated where there is BatchNorm, aligned where that is named."""
        if self.by.asked.conditions is not None:
            return [condition for condition in self.by.asked.conditions if pair.possible(condition)]
        recalibrates = bool(self.by.network.norms) and self.by.statistics is not None
        found = [Condition(), *([Condition(None, "recalibrated")] if recalibrates else [])]
        aligned = [method for method in self.by.asked.align or () if pair.possible(Condition(method))]
        return found + [Condition(method, "recalibrated" if recalibrates else "naive") for method in aligned]

    def _basins(self, condition: Condition, judged: Mapping[tuple[int, int], Mapping[SplitName, Judged]]) -> Basins:
        of_split = {split: {at: one[split] for at, one in judged.items()} for split in self.by.splits}
        connected = {at for at, one in of_split["test"].items() if one.verdict == "connected"}
        return Basins(
            condition=condition,
            judged=of_split["test"],
            on_train=of_split.get("train", {}),
            groups=groups(len(self.names), connected),
            chains=chains(len(self.names), connected),
            window=widest_window(len(self.names), connected),
        )

    def _soups(self, values: Array, condition: Condition, judging: Judging) -> tuple[Soup, Soup]:
        """The average of all, and that of those which do not make it worse, in order of how good they are alone.

        Every other test example chooses; the others measure. Aligned soups would need all members in one place: units
        are not aligned.
        """
        recalibrates = condition.statistics == "recalibrated"
        order = tuple(int(at) for at in np.argsort(values[:, ::2].mean(axis=1), kind="stable"))
        best = values[order[0]]

        def of(state: State, another: State, share: float) -> Array:
            model = self.by.network.moved_to(state, another, share)
            if recalibrates and self.by.statistics is not None:
                recalibrate(self.by.network, model, self.by.statistics)
            found, _ = scored(model, self.by.splits["test"], self.by.metric)
            return found[self.by.metric.judged]

        def soup(members: Indices, tried: Indices, found: Array) -> Soup:
            measured = found[1::2]
            return Soup(
                members=members,
                order=tried,
                value=float(measured.mean()),
                to_best=difference(measured, best[1::2], judging.confidence),
            )

        self.by.say("measuring soups")
        everyone = tuple(range(len(self.names)))
        whole = _mean_of(self.load(number).state for number in everyone)
        uniform = soup(everyone, everyone, of(whole, whole, 0.0))
        kept, mixed = [order[0]], _mean_of([self.load(order[0]).state])
        current = of(mixed, mixed, 0.0)
        for number in order[1:]:
            another, share = self.load(number).state, 1 / (len(kept) + 1)
            found = of(mixed, another, share)
            if np.isfinite(found).all() and found[::2].mean() <= current[::2].mean():
                _mix_in(mixed, another, share)
                current, kept = found, [*kept, number]
        return uniform, soup(tuple(kept), order, current)

    def soup(self, members: Indices, condition: Condition) -> dict[str, Tensor]:
        """The average of some members, recalibrated where the condition says so, on the CPU."""
        model = self.by.network.loaded(_mean_of(self.load(number).state for number in members))
        if condition.statistics == "recalibrated" and self.by.statistics is not None:
            recalibrate(self.by.network, model, self.by.statistics)
        return {name: entry.detach().cpu().clone() for name, entry in model.state_dict().items()}


@dataclass(frozen=True, kw_only=True)
class _Member:
    file: str
    took: str
    quality: Quality
    learned: bool | None
    values: Array


def groups(n: int, connected: Collection[tuple[int, int]]) -> tuple[Indices, ...]:
    """Members in groups of which every pair is connected: the largest such group, then the largest of the rest, …

    Connectivity is not transitive: a member may fit into several groups, and is in the first. Among equally large
    groups, that with the earliest members comes first.
    """
    left, found = set(range(n)), []
    while left:
        graph = nx.Graph()
        graph.add_nodes_from(sorted(left))
        graph.add_edges_from((i, j) for i, j in connected if i in left and j in left)
        largest = max(
            (tuple(sorted(clique)) for clique in nx.find_cliques(graph)), key=lambda one: (len(one), *_early(one))
        )
        found.append(largest)
        left -= set(largest)
    return tuple(found)


def chains(n: int, connected: Collection[tuple[int, int]]) -> tuple[Indices, ...]:
    """Members that are joined by connected pairs, one after the other; the largest first."""
    graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(connected)
    parts = (tuple(sorted(part)) for part in nx.connected_components(graph))
    return tuple(sorted(parts, key=lambda part: (-len(part), part)))


def widest_window(n: int, connected: Collection[tuple[int, int]]) -> Indices:
    """The longest run of neighbours of which every pair is connected; the latest of equally long ones."""
    best: Indices = (n - 1,)
    for start in reversed(range(n)):
        end = start
        while end + 1 < n and all((at, end + 1) in connected for at in range(start, end + 1)):
            end += 1
        if end - start + 1 > len(best):
            best = tuple(range(start, end + 1))
    return best


def _early(members: Indices) -> Indices:
    return tuple(-member for member in members)


def _mean_of(states: Iterable[State]) -> dict[str, Tensor]:
    """Their mean, in memory of its own: one more state at a time, so that no two are needed together."""
    found: dict[str, Tensor] = {}
    for n, state in enumerate(states):
        if n:
            _mix_in(found, state, 1 / (n + 1))
        else:
            found = {name: entry.clone() for name, entry in state.items()}
    return found


def _mix_in(state: Mapping[str, Tensor], another: State, share: float) -> None:
    """Move a state towards another, in place; counts stay."""
    for name, entry in state.items():
        if entry.is_floating_point():
            entry.lerp_(another[name], share)
