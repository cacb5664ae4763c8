"""How a cell's pairs are judged."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lmc_tune.core.barrier import Definition
from lmc_tune.experiment.measuring import Condition
from lmc_tune.experiment.spec import Fraction, Positive, Spec

Curve = Literal["test_error", "test_loss", "train_error", "train_loss"]
PathSplit = Literal["test", "train"]


class VerdictSpec(Spec):
    """How a cell's pairs become one of five verdicts. Not part of a pair's key: it can change without retraining.

    of: the curve whose barrier is judged.
    condition: whose barrier is judged; where a network has no BatchNorm, ``recalibrated`` is ``naive``, and
        ``aligned + recalibrated`` is ``aligned``.
    threshold: in the unit of the barrier's curve (fraction for errors, nats for losses).
    confidence: of the interval of the mean barrier.
    min_train_accuracy: a pair with a member below it is ``undertrained``; a flat path then means nothing.
    """

    barrier: Definition = "chord"
    of: Curve = "test_error"
    condition: Condition = "recalibrated"
    threshold: Positive = 0.02
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    min_train_accuracy: Fraction = 0.5

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.quantity == "error" and self.threshold >= 1:
            raise ValueError(f"threshold {self.threshold:g} is no error: errors are fractions, so write 0.02 for 2%")
        return self

    @property
    def column(self) -> str:
        """The column of the results table that is judged, without its condition."""
        return barrier_column(self.of, self.barrier)

    @property
    def split(self) -> PathSplit:
        """The examples whose curve is judged."""
        return "test" if self.of.startswith("test_") else "train"

    @property
    def other_split(self) -> PathSplit:
        """The examples whose curve is not judged."""
        return "train" if self.split == "test" else "test"

    @property
    def quantity(self) -> Literal["error", "loss"]:
        """The quantity whose curve is judged."""
        return "error" if self.of.endswith("_error") else "loss"

    def on(self, split: PathSplit) -> "VerdictSpec":
        """The same verdict on a split."""
        return self.model_copy(update={"of": f"{split}_{self.quantity}"})


def barrier_column(of: str, definition: Definition) -> str:
    """The column of a barrier of a curve such as ``test_error``."""
    return f"{of}_barrier_{definition}"
