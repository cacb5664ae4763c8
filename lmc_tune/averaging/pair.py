"""Two networks: their path under every condition that may help, and what it is worth."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np
import torch

from lmc_tune.averaging.align import align
from lmc_tune.averaging.average import averaged
from lmc_tune.averaging.data import Split
from lmc_tune.averaging.findings import Aligned, Member, OfCondition, PairFindings, Quality
from lmc_tune.averaging.judging import (
    Difference,
    Judging,
    difference,
    has_learned,
    judge,
    judging_of,
)
from lmc_tune.averaging.metric import Metric, Quantity, class_labels
from lmc_tune.averaging.paths import Condition, Method, ScoredPath, SplitName, check_repeats, score_path
from lmc_tune.core.barrier import Array, path_grid
from lmc_tune.core.calibration import calibration, combine
from lmc_tune.data.examples import ExampleSet, Part
from lmc_tune.errors import UserError
from lmc_tune.experiment import Statistics
from lmc_tune.measurement.alignment.specification import Specification
from lmc_tune.measurement.alignment.trace import specification_of
from lmc_tune.measurement.conditions import layers_to_repair
from lmc_tune.measurement.network import Network
from lmc_tune.models.state import State, distance

# Of activations that are matched.
_MATCHED_ON = 2000


@dataclass(frozen=True, kw_only=True)
class Named:
    """A member's weights. file: where they were read. took: what was read, in words."""

    name: str
    state: State
    file: str = ""
    took: str = ""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How a pair is measured.

    conditions: None for those that are of use: naive; recalibrated, where there is BatchNorm; and, unless one of these
    is connected, aligned ones. align: which alignments; None as needed, by weights and, should that not be enough, by
    activations. lambdas: positions on the path, an odd number. threshold: None for 2% of errors, or for 5% of the
    members' mean loss.
    """

    conditions: tuple[Condition, ...] | None = None
    align: tuple[Method, ...] | None = None
    lambdas: int = 11
    threshold: float | None = None
    confidence: float = 0.95


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What networks are measured with.

    network: of their architecture; its weights are overwritten. statistics: examples to estimate statistics on,
    shuffled; None if there are none. say: is told each phase.
    """

    network: Network
    splits: Mapping[SplitName, Split]
    metric: Metric
    asked: Asked
    statistics: ExampleSet | None
    say: Callable[[str], None] = lambda _: None


@dataclass(kw_only=True)
class Pair:
    """Two members, measured under one condition after the other.

    specification: of the network, where it is known already. aligned: B by each method that was tried.
    """

    by: Measuring
    a: Named
    b: Named
    specification: Specification | None = None
    aligned: dict[Method, tuple[State, Aligned]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def measure(self) -> PairFindings:
        """Everything that is asked of the pair."""
        check_repeats(self.by.network.loaded(self.a.state), self.by.splits["test"], self.by.metric)
        naive = self.scored(Condition())
        self._check_members(naive)
        judging = self._judging(naive)
        paths = [self._found(naive, naive, judging)]
        for condition in self._conditions(lambda: self._connected(paths)):
            scored = self.scored(condition)
            paths.append(self._found(scored, naive, judging))
        return self._findings(naive, paths, judging)

    def average(self, condition: Condition) -> dict[str, torch.Tensor]:
        """The weights at ½ under a condition (:func:`~lmc_tune.averaging.average.averaged`)."""
        return averaged(self.by.network, (self.a.state, self.end(condition)), condition, self.by.statistics)

    def end(self, condition: Condition) -> State:
        """B as the path under a condition ends."""
        if condition.alignment is None:
            return self.b.state
        if condition.alignment not in self.aligned:
            self.by.say(f"aligning by {condition.alignment}")
            assert self.specification is not None  # noqa: S101 - asked for only then
            self.aligned[condition.alignment] = align(
                self.by.network.module,
                self.specification,
                (self.a.state, self.b.state),
                condition.alignment,
                self._matched_on(),
            )
        return self.aligned[condition.alignment][0]

    def scored(self, condition: Condition) -> ScoredPath:
        """The path under a condition."""
        end = self.end(condition)
        self.by.say(f"measuring the path: {condition.label}")
        return score_path(
            self.by.network,
            (self.a.state, end),
            path_grid(self.by.asked.lambdas),
            self.by.splits,
            self.by.metric,
            condition,
            self.by.statistics,
        )

    def _conditions(self, connected: Callable[[], bool]) -> Iterator[Condition]:
        """What comes after naive, decided as results come in."""
        if self.by.asked.conditions is not None:
            for condition in self.by.asked.conditions:
                if condition != Condition() and self.possible(condition):
                    yield condition
            return
        statistics = self._useful_statistics()
        if "recalibrated" in statistics:
            yield Condition(None, "recalibrated")
        for method in self.by.asked.align if self.by.asked.align is not None else get_args(Method):
            if self.by.asked.align is None and connected():
                return
            if not self.possible(Condition(method)):
                return
            if not self.by.network.norms or method == "weights":  # stale statistics need not be seen twice
                yield Condition(method)
            for how in statistics:
                yield Condition(method, how)

    def _useful_statistics(self) -> list[Statistics]:
        """Those that change this network, and can be estimated."""
        if self.by.statistics is None:
            if self.by.network.norms:
                self._note("BatchNorm's statistics cannot be estimated: give batches of (inputs, labels)")
            return []
        found: list[Statistics] = ["recalibrated"] if self.by.network.norms else []
        if layers_to_repair(self.by.network, next(self.by.statistics.chunks(2)).inputs):
            found.append("repaired")
        return found

    def possible(self, condition: Condition) -> bool:
        """Whether a path can be had under a condition; a note says why not.

        Raises:
            UserError: if it needs statistics, and there is nothing to estimate them on.
        """
        if condition.statistics in {"recalibrated", "repaired"} and self.by.statistics is None:
            raise UserError(f"{condition.label} estimates statistics, for which batches of (inputs, labels) are needed")
        if condition.alignment is None:
            return True
        if self.by.statistics is None:
            self._note("alignment needs batches of (inputs, labels): it was not tried")
            return False
        if self.specification is None:
            self.specification = specification_of(self.by.network.module, next(self.by.statistics.chunks(2)).inputs)
            if not self.specification.free:
                reasons = [*self.specification.frozen, *self.specification.fixed.values()]
                self._note(f"no hidden unit can be permuted: {next(iter(reasons), 'there is none')}")
        return bool(self.specification.free)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _matched_on(self) -> ExampleSet:
        assert self.by.statistics is not None  # noqa: S101 - asked for only then
        some = self.by.statistics
        if isinstance(some, Part) and len(some) > _MATCHED_ON:
            return replace(some, indices=some.indices[:_MATCHED_ON])
        return some

    def _check_members(self, naive: ScoredPath) -> None:
        for (split, quantity), curve in naive.curves.items():
            for at, member in ((0, self.a), (-1, self.b)):
                if not np.isfinite(curve.values[:, at]).all():
                    raise UserError(f"{member.name} has a {quantity} that is not finite on {split} examples")

    def _judging(self, naive: ScoredPath) -> Judging:
        ends = naive.curves["test", self.by.metric.judged].mean[[0, -1]]
        return judging_of(self.by.metric.judged, float(ends.mean()), self.by.asked.threshold, self.by.asked.confidence)

    def _connected(self, paths: list[OfCondition]) -> bool:
        return any(path.judged["test"].verdict == "connected" for path in paths)

    def _found(self, scored: ScoredPath, naive: ScoredPath, judging: Judging) -> OfCondition:
        quantity, members = judging.quantity, naive.curves["test", judging.quantity].values[:, [0, -1]]
        average = scored.curves["test", quantity].at_half
        better = members[:, int(members.mean(axis=0).argmin())]
        return OfCondition(
            condition=scored.condition,
            lambdas=scored.curves["test", quantity].lambdas,
            judged={name: judge(scored.curves[name, quantity], judging) for name in self.by.splits},
            means={at: curve.mean for at, curve in scored.curves.items()},
            barriers={at: curve.barriers() for at, curve in scored.curves.items()},
            average=self._quality({at: curve.at_half for at, curve in scored.curves.items()}, scored.outputs.get(0.5)),
            to_mean=difference(average, members.mean(axis=1), judging.confidence),
            to_better=difference(average, better, judging.confidence),
        )

    def _quality(self, values: Mapping[tuple[SplitName, Quantity], Array], outputs: Array | None) -> Quality:
        means = {at: float(np.mean(column)) for at, column in values.items()}
        labels = class_labels(self.by.splits["test"], self.by.metric)
        if outputs is None or labels is None or not np.isfinite(outputs).all():
            return Quality(means=means)
        known = calibration(outputs, labels)
        return Quality(means=means, brier=known.brier, ece=known.ece)

    def _findings(self, naive: ScoredPath, paths: list[OfCondition], judging: Judging) -> PairFindings:
        members = tuple(self._member(named, naive, at) for named, at in ((self.a, 0), (self.b, -1)))
        names = self.by.network.parameters
        ensemble, to_better = self._ensemble(naive, judging)
        outputs = [naive.outputs[at] for at in (0.0, 1.0)] if self.by.metric.classifies else []
        apart = (
            float(np.mean(outputs[0].argmax(1) != outputs[1].argmax(1)))
            if outputs and class_labels(self.by.splits["test"], self.by.metric) is not None
            else None
        )
        if "train" not in self.by.splits:
            self._note("without training data: two overfitted networks may look connected on test data alone")
        return PairFindings(
            members=(members[0], members[1]),
            judging=judging,
            metric=self.by.metric.name,
            unit=self.by.metric.unit,
            paths=tuple(paths),
            alignments=tuple(found for _, found in self.aligned.values()),
            distance=distance(self.a.state, self.b.state, names),
            cosine=_cosine(self.a.state, self.b.state, names),
            disagreement=apart,
            ensemble=ensemble,
            ensemble_to_better=to_better,
            notes=tuple(self.notes),
        )

    def _member(self, named: Named, naive: ScoredPath, at: int) -> Member:
        values = {where: curve.values[:, at] for where, curve in naive.curves.items()}
        labels = class_labels(self.by.splits["test"], self.by.metric)
        return Member(
            name=named.name,
            file=named.file,
            took=named.took,
            quality=self._quality(values, naive.outputs.get(0.0 if at == 0 else 1.0)),
            learned=None if labels is None else has_learned(values["test", "error"], labels),
        )

    def _ensemble(self, naive: ScoredPath, judging: Judging) -> tuple[Quality, Difference] | tuple[None, None]:
        labels = class_labels(self.by.splits["test"], self.by.metric)
        if labels is None:
            return None, None
        together = combine(naive.outputs[0.0], naive.outputs[1.0])
        known = calibration(together, labels)
        wrong = (together.argmax(1) != labels).astype(np.float64)
        losses = -together[np.arange(len(labels)), labels]
        members = naive.curves["test", "error"].values[:, [0, -1]]
        better = members[:, int(members.mean(axis=0).argmin())]
        quality = Quality(
            means={("test", "error"): float(wrong.mean()), ("test", "loss"): float(losses.mean())},
            brier=known.brier,
            ece=known.ece,
        )
        return quality, difference(wrong, better, judging.confidence)


def _cosine(a: State, b: State, names: tuple[str, ...]) -> float:
    """Of all parameters as one vector each; NaN if one is 0."""
    dot = sum(float((a[name].double() * b[name].double()).sum()) for name in names)
    norms = [sum(float(state[name].double().square().sum()) for name in names) ** 0.5 for state in (a, b)]
    return dot / norms[0] / norms[1] if all(norms) else float("nan")
