"""How a report is to be made otherwise than the run folder says: judged, arranged and drawn."""

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from lmc_tune.analysis.phase import usual_axes
from lmc_tune.analysis.report.charts.style import Theme
from lmc_tune.analysis.wording import confidence, gate, listed, quantity, threshold
from lmc_tune.errors import UserError
from lmc_tune.experiment import VerdictSpec
from lmc_tune.experiment.wording import problems_of


@dataclass(frozen=True, kw_only=True)
class View:
    """What was asked for; None is what the run folder says.

    threshold: in the unit of the judged curve. confidence, barrier, condition: as in ``VerdictSpec``.
    x, y: the columns of the phase diagram's axes. colour: the column of its second map, in the place of the barrier.
    theme: of page and pictures; by default a page follows the screen, and pictures are light. width: of pictures, in
    millimetres. chart: which one pictures show, by its name on the page.
    """

    threshold: float | None = None
    confidence: float | None = None
    barrier: str | None = None
    condition: str | None = None
    x: str | None = None
    y: str | None = None
    colour: str | None = None
    theme: Theme | None = None
    width: float | None = None
    chart: str = "phase"

    @property
    def is_other(self) -> bool:
        """Whether cells are judged, arranged or coloured otherwise: such a report does not replace the folder's own."""
        asked = (self.threshold, self.confidence, self.barrier, self.condition, self.x, self.y, self.colour)
        return any(value is not None for value in asked)

    def judging(self, verdict: VerdictSpec) -> VerdictSpec:
        """The verdict with what was asked for in its place.

        Raises:
            UserError: if that is impossible.
        """
        asked = {name: getattr(self, name) for name in ("threshold", "confidence", "barrier", "condition")}
        try:
            return VerdictSpec.model_validate(
                verdict.model_dump() | {name: value for name, value in asked.items() if value is not None}
            )
        except ValidationError as error:
            problems = [f"{f'--{at[0]}: ' if at else ''}{wrong}" for at, wrong in problems_of(error, VerdictSpec)]
            raise UserError("; ".join(problems)) from error

    @property
    def axes(self) -> tuple[str, str]:
        """The columns of both axes."""
        return usual_axes(self.x, self.y)


def differences(asked: VerdictSpec, own: VerdictSpec, source: str) -> list[str]:
    """That cells are judged otherwise than a source says; nothing if they are not."""
    words: dict[str, Any] = {
        "of": quantity,
        "barrier": lambda verdict: verdict.barrier,
        "condition": lambda verdict: verdict.condition,
        "threshold": threshold,
        "confidence": confidence,
        "min_train_accuracy": gate,
    }
    changed = [
        f"{name} {said(asked)} instead of {said(own)}"
        for name, said in words.items()
        if getattr(asked, name) != getattr(own, name)
    ]
    return [f"Judged otherwise than {source} says: {listed(changed)}."] if changed else []
