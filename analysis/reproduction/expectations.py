"""How a claim is decided: expectations, what a study's tables say of them, and the outcome.

A claim is stated as expectations: numbers, one per replicate, and the side of a limit on which their mean should lie.
The interval of the mean decides each expectation, and the expectations decide the claim. A claim can stay open for
three reasons, which have names of their own: more replicates could decide it (``undecided``), the study does not test
it (``premise not met``), or something else explains the numbers as well (``not decidable``).
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from lmc_tune.analysis.reproduction.sweep_tables import Study
from lmc_tune.analysis.wording import UNKNOWN, number, percent, percentage_points
from lmc_tune.core.barrier import Array
from lmc_tune.core.statistics import LEAST_PAIRS, mean_interval

Outcome = Literal["supported", "contradicted", "undecided", "premise not met", "not decidable"]
Side = Literal["below", "above", "outside"]
# Studies of more replicates are not worth planning.
MOST_REPLICATES = 1000
Unit = Literal["fraction", "percentage points", "nats", "plain"]


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What a claim says of one number.

    values: one per replicate; a value that is not finite leaves the expectation undecided, because the mean is not
        known.
    side: of ``limit`` on which the mean lies if the claim is right, or ``outside`` of the range from −limit to +limit;
        None for a number that is only shown.
    case: expectations with the same case belong together (``Claim.cases``); by default each is its own case.
    """

    what: str
    values: Array
    unit: Unit
    side: Side | None = None
    limit: float = 0.0
    case: str = ""

    @property
    def known(self) -> Array:
        return self.values[np.isfinite(self.values)]

    @property
    def mean(self) -> float:
        return float(self.known.mean()) if len(self.known) else np.nan

    def interval(self, confidence: float) -> tuple[float, float]:
        """Student's interval of the mean; infinite for fewer than three values."""
        n = len(self.known)
        variance = self.known.var(ddof=1) if n > 1 else np.nan
        low, high = mean_interval(self.mean, variance, n, confidence)
        return float(low), float(high)

    def outcome(self, confidence: float) -> Outcome:
        """Decided by the side on which the whole interval lies."""
        if len(self.known) < len(self.values):
            return "undecided"
        low, high = self.interval(confidence)
        if self.side == "outside":
            if high < -self.limit or low > self.limit:
                return "supported"
            return "contradicted" if -self.limit < low and high < self.limit else "undecided"
        if high < self.limit:
            return "supported" if self.side == "below" else "contradicted"
        if low > self.limit:
            return "supported" if self.side == "above" else "contradicted"
        return "undecided"

    @property
    def _distance(self) -> float:
        """Of the mean from the nearest limit."""
        return abs((abs(self.mean) if self.side == "outside" else self.mean) - self.limit)

    def margin(self, confidence: float) -> float:
        """How far the mean lies from the limit, in half widths of its interval; above 1 it is decided."""
        low, high = self.interval(confidence)
        if not np.isfinite([low, high]).all():
            return 0.0
        return self._distance / (0.5 * (high - low)) if high > low else np.inf

    def deciding_replicates(self, confidence: float) -> int | None:
        """The smallest n at which Student's interval, with this mean and spread, would exclude the limit.

        That is the first n with t(n − 1) · s / √n < |mean − limit|. None if n would exceed :data:`MOST_REPLICATES`, or
        if the spread is not known.
        """
        if len(self.known) < LEAST_PAIRS:
            return None
        n = np.arange(LEAST_PAIRS, MOST_REPLICATES + 1)
        half = stats.t.ppf(0.5 + confidence / 2, n - 1) * self.known.std(ddof=1) / np.sqrt(n)
        enough = n[half < self._distance]
        return int(enough[0]) if len(enough) else None

    def open_words(self, confidence: float) -> str:
        """What an undecided expectation lacks, e.g. ``width 3.53%, 12 replicates would decide``; empty for others."""
        if self.side is None or self.outcome(confidence) != "undecided":
            return ""
        low, high = self.interval(confidence)
        if len(self.known) < len(self.values):
            return "a value is not known"
        if not np.isfinite([low, high]).all():
            return "no interval"
        needed = self.deciding_replicates(confidence)
        more = f"{needed} replicates" if needed else f"only over {MOST_REPLICATES} replicates"
        return f"width {value_words(high - low, self.unit).removeprefix('+')}, {more} would decide"

    def interval_words(self, confidence: float) -> str:
        """E.g. ``1.70% to 7.90%``; ``none`` for fewer than three values."""
        low, high = self.interval(confidence)
        if not np.isfinite([low, high]).all():
            return "none"
        return f"{value_words(low, self.unit)} to {value_words(high, self.unit)}"

    @property
    def expected_words(self) -> str:
        """E.g. ``below 2%`` or ``outside ±0.1``; empty for a number that is only shown."""
        sign = "±" if self.side == "outside" else ""
        return f"{self.side} {sign}{value_words(self.limit, self.unit)}" if self.side else ""

    def words(self, confidence: float) -> str:
        """The mean and its interval, e.g. ``4.80% (1.70% to 7.90%)``."""
        return f"{value_words(self.mean, self.unit)} ({self.interval_words(confidence)})"


def value_words(value: float, unit: Unit) -> str:
    if not np.isfinite(value):
        return UNKNOWN
    if unit == "fraction":
        return percent(value, 2)
    if unit == "percentage points":
        return f"{percentage_points(value)} pp"
    return f"{number(value)} nats" if unit == "nats" else number(value)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the tables of one study say of a claim.

    expectations: with their values.
    unmet: which condition of the claim the study does not meet; empty if it meets all.
    alternative: what else explains the numbers; empty if nothing does. More replicates would not tell the two apart.
    """

    expectations: Sequence[Expectation]
    unmet: str = ""
    alternative: str = ""

    @property
    def confidence(self) -> float:
        """Of each interval, so that all intervals of the claim hold together with 95% (Bonferroni)."""
        return 1 - 0.05 / max(1, sum(expectation.side is not None for expectation in self.expectations))

    @property
    def cases(self) -> list[list[Expectation]]:
        """The expectations that say on which side their mean lies, those of a case together."""
        of = defaultdict[str, list[Expectation]](list)
        for expectation in self.expectations:
            if expectation.side is not None:
                of[expectation.case or expectation.what].append(expectation)
        return list(of.values())


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim and what would support it.

    text: the claim, in our words. source: who claims it, and where. preset: the study that tests it.
    reading: how the tables of a study are read.
    holds: ``every`` if every case has to hold; ``one`` if one is enough: something can happen.
    cases: a case of several expectations is decided as ``every`` one says, or as the ``same`` outcome of all of them.
    note: what a reader has to know about the expectations.
    """

    id: str
    text: str
    source: str
    preset: str
    reading: Callable[[Study], Reading]
    holds: Literal["every", "one"] = "every"
    cases: Literal["every", "same"] = "every"
    note: str = ""

    def outcome(self, reading: Reading) -> Outcome:
        """The outcome of the claim, given what one study says.

        What contradicts a claim counts although part of it was not tested; what supports it does not.
        """
        outcomes = [self._of_case(case, reading.confidence) for case in reading.cases]
        found = _every(outcomes) if self.holds == "every" else _one(outcomes)
        if reading.unmet and found != "contradicted":
            return "premise not met"
        return "not decidable" if reading.alternative and found == "undecided" else found

    def _of_case(self, case: Sequence[Expectation], confidence: float) -> Outcome:
        outcomes = [expectation.outcome(confidence) for expectation in case]
        return _every(outcomes) if self.cases == "every" else same(outcomes)

    def deciding(self, reading: Reading) -> Expectation | None:
        """The expectation on which the outcome rests: the clearest where one is enough, the least clear where all are
        needed; None where the study does not test the claim.
        """
        outcome, confidence = self.outcome(reading), reading.confidence

        def clearness(expectation: Expectation) -> float:
            return expectation.margin(confidence)

        of_case = max if outcome == "contradicted" else min
        enough: Outcome = "contradicted" if self.holds == "every" else "supported"
        of_claim = max if outcome == enough else min
        found = [
            of_case((one for one in case if one.outcome(confidence) == outcome), key=clearness)
            for case in reading.cases
            if self._of_case(case, confidence) == outcome
        ]
        return of_claim(found, key=clearness) if found else None

    def open_because(self, reading: Reading) -> str:
        """Why a study does not test the claim, or cannot decide it; empty for other outcomes."""
        outcome = self.outcome(reading)
        if outcome == "premise not met":
            return reading.unmet
        return reading.alternative if outcome == "not decidable" else ""


def same(outcomes: Collection[Outcome]) -> Outcome:
    """The outcome that all of them are; ``undecided`` where they differ."""
    first, *others = set(outcomes)
    return "undecided" if others else first


def _every(outcomes: Sequence[Outcome]) -> Outcome:
    if "contradicted" in outcomes:
        return "contradicted"
    return "supported" if set(outcomes) == {"supported"} else "undecided"


def _one(outcomes: Sequence[Outcome]) -> Outcome:
    if "supported" in outcomes:
        return "supported"
    return "contradicted" if set(outcomes) == {"contradicted"} else "undecided"
