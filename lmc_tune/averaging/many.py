"""Several checkpoints: the barrier of every pair, which of them lie in one basin, and what their soups are worth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lmc_tune.averaging.basins import Indices, chains, groups, widest_window
from lmc_tune.averaging.findings import Named, Quality
from lmc_tune.averaging.judging import Judged, Judging, has_learned, judge, judging_of
from lmc_tune.averaging.metric import class_labels
from lmc_tune.averaging.pair import Measuring, Pair, without_training
from lmc_tune.averaging.paths import Condition, check_repeats, in_order, scored
from lmc_tune.averaging.soups import Soup, Soups, halves
from lmc_tune.averaging.surroundings import PlaneFindings
from lmc_tune.core.barrier import Array
from lmc_tune.errors import UserError
from lmc_tune.experiment import SplitName
from lmc_tune.measurement.alignment.specification import Specification


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

    names, took, qualities, learned: of every member. trajectory: whether their order means something. chosen_on,
    measured_on: how many test examples chose the members of the soups, and on how many others soups are measured.
    planes: through three of them; None unless it was asked for.
    """

    names: tuple[str, ...]
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
    planes: PlaneFindings | None = None

    @property
    def chosen(self) -> Basins:
        """Under whose condition members are averaged."""
        return most_joined(self.basins)

    @property
    def best(self) -> int:
        """The member that is best on the examples that choose, with which soups are compared."""
        return self.greedy.order[0]


@dataclass(kw_only=True)
class Many:
    """Several members, of which no more than two are in memory besides the network.

    load: gives a member's weights by its number.
    """

    by: Measuring
    names: Sequence[str]
    load: Callable[[int], Named]
    trajectory: bool = False
    specification: Specification | None = None
    notes: list[str] = field(default_factory=list)

    def measure(self) -> ManyFindings:
        """Every pair once, then the soups."""
        members = [self._member(number) for number in range(len(self.names))]
        values = np.stack([one.values for one in members])
        judging = judging_of(
            self.by.metric.judged, float(values.mean()), self.by.asked.threshold, self.by.asked.confidence
        )
        learned = [one.learned is not False for one in members]
        basins = tuple(
            self._basins(condition, _undertrained(judged, learned))
            for condition, judged in self._pairs(judging).items()
        )
        self.notes += without_training(self.by, [one.condition for one in basins])
        self.by.say("measuring soups")
        soups = self.soups(most_joined(basins).condition)
        uniform, greedy = soups.both(values)
        return ManyFindings(
            names=tuple(self.names),
            took=tuple(one.took for one in members),
            qualities=tuple(one.quality for one in members),
            learned=tuple(one.learned for one in members),
            judging=judging,
            metric=self.by.metric.name,
            unit=self.by.metric.unit,
            basins=basins,
            uniform=uniform,
            greedy=greedy,
            chosen_on=len(soups.halves[0]),
            measured_on=len(soups.halves[1]),
            trajectory=self.trajectory,
            notes=tuple(self.notes),
        )

    def soups(self, condition: Condition) -> Soups:
        """What makes soups as a condition says; units are not aligned, since that is done pair by pair."""
        return Soups(
            by=self.by,
            load=lambda number: self.load(number).state,
            recalibrates=condition.statistics == "recalibrated",
            halves=halves(len(self.by.splits["test"]), class_labels(self.by.splits["test"], self.by.metric)),
            confidence=self.by.asked.confidence,
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
            took=named.took,
            quality=Quality(means=means),
            learned=None if labels is None else has_learned(on_test["error"], labels),
            values=on_test[self.by.metric.judged],
        )

    def _pairs(self, judging: Judging) -> dict[Condition, dict[tuple[int, int], dict[SplitName, Judged]]]:
        """Every pair under every condition, each once."""
        found: dict[Condition, dict[tuple[int, int], dict[SplitName, Judged]]] = {}
        for i in range(len(self.names) - 1):
            self._row(i, judging, found)
        return found

    def _row(
        self, i: int, judging: Judging, found: dict[Condition, dict[tuple[int, int], dict[SplitName, Judged]]]
    ) -> None:
        """The pairs of a member with all that come after it."""
        n, first = len(self.names), self.load(i)
        for j in range(i + 1, n):
            self.by.say(f"measuring pair {i * n - i * (i + 1) // 2 + j - i} of {n * (n - 1) // 2}")
            for condition, by_split in self._judged(first, j, judging).items():
                found.setdefault(condition, {})[i, j] = by_split

    def _judged(self, first: Named, j: int, judging: Judging) -> dict[Condition, dict[SplitName, Judged]]:
        pair = Pair(by=self._quietly(), a=first, b=self.load(j), specification=self.specification)
        found = {}
        for condition in self._conditions(pair):
            curves = pair.scored(condition).curves
            found[condition] = {split: judge(curves[split, judging.quantity], judging) for split in self.by.splits}
        self.specification = pair.specification
        self.notes += [note for note in pair.notes if note not in self.notes]
        return found

    def _quietly(self) -> Measuring:
        """A pair's own phases would hide which pair it is."""
        return replace(self.by, say=lambda _: None)

    def _conditions(self, pair: Pair) -> list[Condition]:
        """Those that are asked for; else naive, recalibrated where there is BatchNorm, aligned where that is named."""
        if self.by.asked.conditions is not None:
            wanted = sorted(set(self.by.asked.conditions), key=in_order)
            if other := [one.label for one in wanted if one.statistics in {"endpoint", "repaired"}]:
                raise UserError(
                    f"{other[0]}: of more than two checkpoints, networks can be naive, recalibrated, aligned"
                )
            return [condition for condition in wanted if pair.possible(condition)]
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


@dataclass(frozen=True, kw_only=True)
class _Member:
    took: str
    quality: Quality
    learned: bool | None
    values: Array


def most_joined(basins: Sequence[Basins]) -> Basins:
    """The condition with fewest groups, then most connected pairs, then the first; soups are prepared as it says."""

    def apart(one: Basins) -> tuple[int, int]:
        return len(one.groups), -sum(judged.verdict == "connected" for judged in one.judged.values())

    return min(basins, key=apart)


def _undertrained(
    judged: Mapping[tuple[int, int], Mapping[SplitName, Judged]], learned: Sequence[bool]
) -> dict[tuple[int, int], dict[SplitName, Judged]]:
    """The same, but for pairs with a member that has not learned: their flat paths mean nothing."""
    return {
        (i, j): {
            split: one if learned[i] and learned[j] else replace(one, verdict="undertrained")
            for split, one in by_split.items()
        }
        for (i, j), by_split in judged.items()
    }
