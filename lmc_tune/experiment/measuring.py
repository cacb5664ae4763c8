"""What is asked of trained members."""

import hashlib
from functools import cached_property
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from lmc_tune.experiment.networks import NetworkSpec
from lmc_tune.experiment.spec import Natural, Positive, Spec

# Raise it whenever the same question would get another answer, of the same members, by more than rounding.
MEASURE_VERSION = 1

Split = Literal["train", "test", "validation"]


Condition = Literal["naive", "endpoint", "recalibrated", "repaired"]

# What becomes of BatchNorm's statistics on a path under each of them, in a few words; in the order of tables and pages.
CONDITIONS: dict[Condition, str] = {
    "naive": "interpolated with the weights",
    "endpoint": "those of A",
    "recalibrated": "estimated at every λ",
    "repaired": "estimated at every λ, and every other channel rescaled (REPAIR)",
}

# These change nothing without BatchNorm.
BATCH_NORM_CONDITIONS: tuple[Condition, ...] = ("endpoint", "recalibrated")


class MeasureSpec(Spec):
    """What is measured along the path and how finely.

    lambdas: points of the first, equally spaced grid; odd, so that λ = ½ is on it.
    refinements: at most this many times, every barrier's top is bracketed by two more points; 0 keeps the grid...
    tolerance_error, tolerance_loss: ...until no barrier of error (fraction) or loss (nats) moved by more than this. The
        tolerance of an error is at least one example of its split.
        A pair whose barriers still move after the last refinement is flagged ``under_resolved``; on a grid that is not
        refined, one whose loss is seen to rise higher between its points.
    splits: ``train`` and ``test``, and ``validation`` where the data set holds examples out.
    conditions: how interpolated networks are prepared, ``naive`` among them. ``naive``: BatchNorm's running statistics
        are interpolated with the weights; ``endpoint``: they are A's; ``recalibrated``: they are estimated anew on the
        training data at every λ; ``repaired``: besides, every channel that no BatchNorm rescales gets the mean and
        standard deviation that lie between the members' (REPAIR, Jordan et al. 2023). Left out, they are naive and,
        where there is BatchNorm, recalibrated. Of a network without BatchNorm the first three are one.
    """

    lambdas: Annotated[int, Field(strict=True, ge=3)] = 25
    splits: Annotated[tuple[Split, ...], Field(min_length=1)] = ("train", "test")
    conditions: tuple[Condition, ...] | None = None
    refinements: Natural = 6
    tolerance_error: Positive = 0.002
    tolerance_loss: Positive = 0.01

    @field_validator("splits")
    @classmethod
    def _splits_in_order(cls, splits: tuple[Split, ...]) -> tuple[Split, ...]:
        """One set of splits, one spec."""
        return tuple(split for split in get_args(Split) if split in splits)

    @field_validator("conditions")
    @classmethod
    def _conditions_in_order(cls, conditions: tuple[Condition, ...] | None) -> tuple[Condition, ...] | None:
        if conditions is None:
            return None
        if "naive" not in conditions:
            raise ValueError("conditions must include naive: the others are compared with it")
        return tuple(condition for condition in CONDITIONS if condition in conditions)

    def of(self, model: NetworkSpec) -> "MeasureSpec":
        """What is asked of a network: open conditions are filled in, those that only repeat another left out."""
        asked: tuple[Condition, ...] = ("naive", "recalibrated") if self.conditions is None else self.conditions
        if not model.may_have_batch_norm:
            asked = tuple(condition for condition in asked if condition not in BATCH_NORM_CONDITIONS)
        return self.model_copy(update={"conditions": asked})

    @cached_property
    def key(self) -> str:
        """Which question this is, 12 hexadecimal digits; rows say which they answer."""
        return self.key_of(MEASURE_VERSION)

    def key_of(self, version: int) -> str:
        """The key of the question as a :data:`MEASURE_VERSION` answers it."""
        return hashlib.blake2b(f"{version} {self.text}".encode(), digest_size=6).hexdigest()

    @model_validator(mode="after")
    def _has_midpoint(self) -> Self:
        if self.lambdas % 2 == 0:
            raise ValueError(f"lambdas must be odd so that λ = ½ is on the grid; use {self.lambdas + 1}")
        if "test" not in self.splits or "train" not in self.splits:
            raise ValueError("splits must name both train and test: the verdict reads test, the gate reads train")
        return self


def condition_column(condition: Condition, column: str) -> str:
    """The name of a column of the results under a condition; ``naive`` is left out."""
    return column if condition == "naive" else f"{condition}_{column}"
