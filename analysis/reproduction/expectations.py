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

from lmc_tune.analysis.reproduction.sweep_tables import Study
from lmc_tune.analysis.wording import UNKNOWN, number, percent, percentage_points
from lmc_tune.core.barrier import Array
from lmc_tune.core.statistics import mean_interval

Outcome = Literal["supported", "contradicted", "undecided", "premise not met", "not decidable"]
Side = Literal["below", "above"]
Unit = Literal["fraction", "percentage points", "nats", "correlation"]


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What a claim says of one number.

    values: one per replicate; a value that is not finite leaves the expectation undecided, because the mean is not
        known.
    side: of ``limit`` on which the mean lies if the claim is right; None for a number that is only shown.
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
        if high < self.limit:
            return "supported" if self.side == "below" else "contradicted"
        if low > self.limit:
            return "supported" if self.side == "above" else "contradicted"
        return "undecided"

    def interval_words(self, confidence: float) -> str:
        """E.g. ``1.70% to 7.90%``; ``none`` for fewer than three values."""
        low, high = self.interval(confidence)
        if not np.isfinite([low, high]).all():
            return "none"
        return f"{value_words(low, self.unit)} to {value_words(high, self.unit)}"

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
        cases = defaultdict[str, list[Outcome]](list)
        for expectation in reading.expectations:
            if expectation.side is not None:
                cases[expectation.case or expectation.what].append(expectation.outcome(reading.confidence))
        of_case = _every if self.cases == "every" else same
        outcomes = [of_case(of_one) for of_one in cases.values()]
        found = _every(outcomes) if self.holds == "every" else _one(outcomes)
        if reading.unmet and found != "contradicted":
            return "premise not met"
        return "not decidable" if reading.alternative and found == "undecided" else found

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
