"""What the networks of a path are worth on the test examples: members, their average, their ensemble."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lmc_tune.averaging.findings import Member, Named, OfCondition, Quality
from lmc_tune.averaging.judging import Difference, Judged, Judging, difference, has_learned, judge
from lmc_tune.averaging.metric import Quantity
from lmc_tune.averaging.paths import Curve, ScoredPath
from lmc_tune.core.barrier import Array
from lmc_tune.core.calibration import calibration, combine
from lmc_tune.experiment import SplitName


@dataclass(frozen=True, kw_only=True)
class Worth:
    """Compares networks with the two members.

    naive: the path from one to the other. labels: (n,) of the test examples, where each has one class; else None.
    """

    naive: ScoredPath
    labels: NDArray[np.int64] | None
    judging: Judging

    def member(self, named: Named, end: float) -> Member:
        """The member at an end of the path, 0 or 1."""
        values = {where: curve.values[:, 0 if end == 0 else -1] for where, curve in self.naive.curves.items()}
        return Member(
            name=named.name,
            file=named.file,
            took=named.took,
            quality=self._quality(values, self.naive.outputs.get(end)),
            learned=None if self.labels is None else has_learned(values["test", "error"], self.labels),
        )

    def path(self, scored: ScoredPath) -> OfCondition:
        """A path under one condition: its verdicts, and its average compared with the members."""
        judged = {
            split: curve for (split, quantity), curve in scored.curves.items() if quantity == self.judging.quantity
        }
        average, members = judged["test"].at_half, self._members(self.judging.quantity)
        ends = scored.curves.get(("test", "error"))
        return OfCondition(
            condition=scored.condition,
            lambdas=judged["test"].lambdas,
            judged={split: self._judged(curve, ends) for split, curve in judged.items()},
            means={at: curve.mean for at, curve in scored.curves.items()},
            barriers={at: curve.barriers() for at, curve in scored.curves.items()},
            average=self._quality({at: curve.at_half for at, curve in scored.curves.items()}, scored.outputs.get(0.5)),
            to_mean=difference(average, members.mean(axis=1), self.judging.confidence),
            to_better=difference(average, _better(members), self.judging.confidence),
        )

    def ensemble(self) -> tuple[Quality, Difference] | tuple[None, None]:
        """Of both members' probabilities, and its errors less the better member's; None unless they classify."""
        if self.labels is None:
            return None, None
        together = combine([self.naive.outputs[0.0], self.naive.outputs[1.0]])
        wrong = (together.argmax(1) != self.labels).astype(np.float64)
        losses = -together[np.arange(len(self.labels)), self.labels]
        quality = self._quality({("test", "error"): wrong, ("test", "loss"): losses}, together)
        return quality, difference(wrong, _better(self._members("error")), self.judging.confidence)

    def disagreement(self) -> float | None:
        """The fraction of test examples for which the members predict another class."""
        if self.labels is None:
            return None
        a, b = (self.naive.outputs[end].argmax(1) for end in (0.0, 1.0))
        return float(np.mean(a != b))

    def _judged(self, curve: Curve, ends: Curve | None) -> Judged:
        """A flat path between networks that have learned nothing says nothing."""
        found = judge(curve, self.judging)
        if self.labels is None or ends is None:
            return found
        lazy = any(has_learned(ends.values[:, end], self.labels) is False for end in (0, -1))
        return replace(found, verdict="undertrained") if lazy else found

    def _members(self, quantity: Quantity) -> Array:
        """(n, 2) of both members."""
        return self.naive.curves["test", quantity].values[:, [0, -1]]

    def _quality(self, values: Mapping[tuple[SplitName, Quantity], Array], outputs: Array | None) -> Quality:
        means = {at: float(np.mean(column)) for at, column in values.items()}
        if outputs is None or self.labels is None or not np.isfinite(outputs).all():
            return Quality(means=means)
        known = calibration(outputs, self.labels)
        return Quality(means=means, brier=known.brier, ece=known.ece)


def _better(members: Array) -> Array:
    """(n,) of the member whose mean is lower."""
    return np.asarray(members[:, int(members.mean(axis=0).argmin())])
