"""Two networks: their path under every condition that may help, and what it is worth."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np
import torch

from lmc_tune.averaging.align import align
from lmc_tune.averaging.average import averaged
from lmc_tune.averaging.data import Split
from lmc_tune.averaging.findings import Aligned, Named, OfCondition, PairFindings
from lmc_tune.averaging.judging import Judging, judging_of
from lmc_tune.averaging.metric import Metric, class_labels, is_text
from lmc_tune.averaging.paths import Condition, Method, ScoredPath, Values, check_repeats, in_order, score_path, scored
from lmc_tune.averaging.worth import Worth
from lmc_tune.core.barrier import path_grid
from lmc_tune.data.examples import ExampleSet, Part
from lmc_tune.errors import UserError
from lmc_tune.experiment import SplitName, Statistics
from lmc_tune.measurement.alignment.links import Residual
from lmc_tune.measurement.alignment.specification import Specification
from lmc_tune.measurement.alignment.trace import specification_of
from lmc_tune.measurement.conditions import layers_to_repair, recalibrate
from lmc_tune.measurement.lines import MeasurementError
from lmc_tune.measurement.network import Network
from lmc_tune.models.state import State, distance

# The most examples whose activations are matched.
_MATCHED_ON = 2000


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How a pair is measured.

    conditions: None for those that are of use: naive; recalibrated, where there is BatchNorm; and, unless one of these
    is connected, aligned ones. align: which alignments; None as needed, by weights and, should that not be enough, by
    activations. lambdas: positions on the path, an odd number. threshold: None for 2% of errors, or for 5% of the
    members' mean loss. residual: whether units of the residual stream of attention are permuted.
    """

    conditions: tuple[Condition, ...] | None = None
    align: tuple[Method, ...] | None = None
    lambdas: int = 11
    threshold: float | None = None
    confidence: float = 0.95
    residual: Residual = "fixed"

    def __post_init__(self) -> None:
        if self.lambdas < 3 or self.lambdas % 2 == 0:
            raise UserError(f"a path needs an odd number of positions, 3 or more, ½ among them; got {self.lambdas}")
        if not 0 < self.confidence < 1:
            raise UserError(f"confidence must be between 0 and 1, e.g. 0.95; got {self.confidence:g}")
        if self.threshold is not None and not self.threshold > 0:
            raise UserError(f"threshold must be above 0, e.g. 0.02 for 2% of errors; got {self.threshold:g}")
        if self.conditions == ():
            raise UserError("name a condition at least, or none, for those that may help")


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What networks are measured with.

    network: of their architecture; its weights are overwritten. statistics: examples to estimate statistics on,
    shuffled; None if there are none. say: called with the name of each phase.
    """

    network: Network
    splits: Mapping[SplitName, Split]
    metric: Metric
    asked: Asked
    statistics: ExampleSet | None
    say: Callable[[str], None] = lambda _: None

    def values(self, state: State, statistics: Statistics, splits: Iterable[SplitName]) -> Values:
        """Every example's values of one network, recalibrated first if ``statistics`` says so, else as it is."""
        model = self.network.loaded(state)
        if statistics == "recalibrated" and self.statistics is not None:
            recalibrate(self.network, model, self.statistics)
        return {
            (name, quantity): values
            for name in splits
            for quantity, values in scored(model, self.splits[name], self.metric)[0].items()
        }

    def least_stale(self, measured: Iterable[Condition]) -> Statistics:
        """How networks away from the path are prepared: recalibrated where some on it are, and there is BatchNorm."""
        estimated = any(condition.statistics in {"recalibrated", "repaired"} for condition in measured)
        return "recalibrated" if estimated and self.network.norms else "naive"


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
        """Everything that is asked of the pair; nothing more where the naive path already says all."""
        check_repeats(self.by.network.loaded(self.a.state), self.by.splits["test"], self.by.metric)
        naive = self.scored(Condition())
        self._check_members(naive)
        labels = class_labels(self.by.splits["test"], self.by.metric)
        worth = Worth(naive=naive, labels=labels, judging=self._judging(naive))
        members = worth.member(self.a, 0.0), worth.member(self.b, 1.0)
        names = self.by.network.parameters
        paths = [worth.path(naive)]
        identical = all(torch.equal(entry, self.b.state[name]) for name, entry in self.a.state.items())
        if not identical or self.by.asked.align or self.by.asked.conditions:
            for condition in self._conditions(lambda: _is_settled(paths)):
                if self._can_be_aligned(condition):
                    scored = self.scored(condition)
                    paths.append(worth.path(scored))
        self.notes += without_training(self.by, [path.condition for path in paths])
        ensemble, to_better = worth.ensemble()
        return PairFindings(
            members=members,
            judging=worth.judging,
            metric=self.by.metric.name,
            unit=self.by.metric.unit,
            paths=tuple(paths),
            alignments=tuple(found for _, found in self.aligned.values()),
            identical=identical,
            distance=distance(self.a.state, self.b.state, names),
            cosine=_cosine(self.a.state, self.b.state, names),
            disagreement=worth.disagreement(),
            ensemble=ensemble,
            ensemble_to_better=to_better,
            notes=tuple(self.notes),
            text=is_text(self.by.splits["test"], self.by.metric),
        )

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

    def _conditions(self, settled: Callable[[], bool]) -> Iterator[Condition]:
        """What comes after naive, decided as results come in."""
        if self.by.asked.conditions is not None:
            for condition in sorted(set(self.by.asked.conditions) - {Condition()}, key=in_order):
                if self.possible(condition):
                    yield condition
            return
        statistics = self._useful_statistics()
        if "recalibrated" in statistics:
            yield Condition(None, "recalibrated")
        for method in self.by.asked.align if self.by.asked.align is not None else get_args(Method):
            if self.by.asked.align is None and settled():
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
        if condition.statistics in {"endpoint", "recalibrated"} and not self.by.network.norms:
            self._note(f"{condition.label} was left out: there is no BatchNorm")
            return False
        if condition.alignment is None:
            return True
        if self.by.statistics is None:
            self._note("alignment needs batches of (inputs, labels): it was not tried")
            return False
        if self.specification is None:
            self.specification = specification_of(
                self.by.network.module, next(self.by.statistics.chunks(2)).inputs, residual=self.by.asked.residual
            )
            if not self.specification.free:
                self._note(f"no hidden unit can be permuted: {[*self.specification.hindrances, 'there is none'][0]}")
        return bool(self.specification.free)

    def _can_be_aligned(self, condition: Condition) -> bool:
        """Whether B reaches the end of the path; where alignment was not asked for, a note says why not."""
        try:
            self.end(condition)
        except MeasurementError as error:
            if self.by.asked.align or self.by.asked.conditions:
                raise
            self._note(f"{condition.label} was left out: {error}")
            return False
        return True

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


def _is_settled(paths: Sequence[OfCondition]) -> bool:
    """Whether aligning units would change nothing: a path is connected, or the ends have learned nothing."""
    verdicts = {path.judged["test"].verdict for path in paths}
    return "connected" in verdicts or verdicts == {"undertrained"}


def without_training(by: Measuring, conditions: Sequence[Condition]) -> list[str]:
    """What cannot be seen, or was done otherwise, where no training data were given."""
    if "train" in by.splits:
        return []
    found = ["without training data: two overfitted networks may look connected on test data alone"]
    if any(condition.statistics in {"recalibrated", "repaired"} for condition in conditions):
        found.append("without training data: statistics were estimated on the inputs of the test examples")
    return found


def _cosine(a: State, b: State, names: tuple[str, ...]) -> float:
    """The cosine between all parameters of both as vectors; NaN if one is 0."""
    dot = sum(float((a[name].double() * b[name].double()).sum()) for name in names)
    norms = [sum(float(state[name].double().square().sum()) for name in names) ** 0.5 for state in (a, b)]
    return dot / norms[0] / norms[1] if all(norms) else float("nan")
