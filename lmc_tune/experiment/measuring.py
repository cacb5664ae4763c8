"""What is asked of trained members."""

import hashlib
from functools import cached_property
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from lmc_tune.core.calibration import Rule
from lmc_tune.experiment.landscape import DirectionsSpec, PlanesSpec
from lmc_tune.experiment.networks import NetworkSpec
from lmc_tune.experiment.spec import Count, Natural, Positive, Spec
from lmc_tune.experiment.yaml_lines import as_written

# Raise it whenever the same question would get another answer, of the same members, by more than rounding.
MEASURE_VERSION = 1

SplitName = Literal["train", "test", "validation"]

# What becomes of BatchNorm's statistics, and of other channels' moments, on a path.
Statistics = Literal["naive", "endpoint", "recalibrated", "repaired"]
# The same, of the path to B as it is, or to B with its units permuted towards A's.
Condition = Literal[Statistics, "aligned", "aligned + recalibrated", "aligned + repaired"]

# In a few words; in the order of tables and pages.
CONDITIONS: dict[Condition, str] = {
    "naive": "interpolated with the weights",
    "endpoint": "those of A",
    "recalibrated": "estimated at every λ",
    "repaired": "estimated at every λ, and every other channel rescaled (REPAIR)",
    "aligned": "as naive, after B's units were permuted towards A's",
    "aligned + recalibrated": "as recalibrated, after B's units were permuted",
    "aligned + repaired": "as repaired, after B's units were permuted",
}

# How the networks on a path to the permuted B are prepared.
ALIGNED: dict[Condition, Statistics] = {
    "aligned": "naive",
    "aligned + recalibrated": "recalibrated",
    "aligned + repaired": "repaired",
}
_STATISTICS: dict[Condition, Statistics] = {**{name: name for name in get_args(Statistics)}, **ALIGNED}

# Without BatchNorm these change nothing: they are the same as others.
SAME_WITHOUT_BATCH_NORM: dict[Condition, Condition] = {
    "endpoint": "naive",
    "recalibrated": "naive",
    "aligned + recalibrated": "aligned",
}

# Questions that the first schema did not have.
_LATER = ("snapshots", "layers", "alignment", "directions", "planes", "ensemble")

# Starts of weight matching: of residual networks, one alone often ends in a worse optimum.
RESTARTS = 5


class AlignmentSpec(Spec):
    """How B's units are permuted towards A's.

    by: what is compared: ``weights`` (Ainsworth et al. 2023), or ``activations`` on the training data (Li et al. 2016).
    restarts: starts of the descent that matches weights, the first from the identity; None for activations, which are
        matched in one step.
    """

    by: Literal["weights", "activations"] = "weights"
    restarts: Count | None = Field(default=None, validate_default=True)

    @field_validator("restarts")
    @classmethod
    def _of_weights(cls, restarts: int | None, info: ValidationInfo) -> int | None:
        by = info.data.get("by")
        if by == "activations" and restarts is not None:
            raise ValueError("is for by: weights; activations are matched in one step, so leave it out")
        return RESTARTS if by == "weights" and restarts is None else restarts


class LayersSpec(Spec):
    """Which sets of layers are moved alone, each from A and from B, while all others stay at that member.

    families: ``single``: every layer by itself; ``shallow``: the first one, two, … layers from the input; ``deep``: the
        last ones, from the output.
    window: besides, every so many consecutive layers; None for none.
    groups: besides, sets with names of one's own: patterns of layers' names, as of files, e.g.
        ``{attention: ["*attention*"]}``.
    lambdas: ``midpoint``: networks half-way alone; or points of an equally spaced grid, odd.
    conditions: of those of ``measure``; None for all of them.
    """

    families: tuple[Literal["single", "shallow", "deep"], ...] = ("single", "shallow", "deep")
    window: Count | None = None
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    lambdas: Literal["midpoint"] | Annotated[int, Field(strict=True, ge=3)] = "midpoint"
    conditions: tuple[Condition, ...] | None = None

    @field_validator("groups", mode="before")
    @classmethod
    def _one_pattern_is_a_list(cls, groups: Any) -> Any:
        if not isinstance(groups, dict):
            return groups
        found = {name: [patterns] if isinstance(patterns, str) else patterns for name, patterns in groups.items()}
        for name, patterns in found.items():
            are_texts = isinstance(patterns, list | tuple) and all(isinstance(one, str) for one in patterns)
            if not (isinstance(name, str) and are_texts and patterns):
                raise ValueError(
                    f"write a pattern of layers' names behind the name of every group, or a list of them, e.g. "
                    f"{{attention: '*attention*'}}; got {name}: {as_written(patterns)}"
                )
        return found

    @field_validator("lambdas", mode="before")
    @classmethod
    def _midpoint_or_grid(cls, lambdas: Any) -> Any:
        is_grid = isinstance(lambdas, int) and not isinstance(lambdas, bool) and lambdas >= 3
        if lambdas != "midpoint" and not is_grid:
            raise ValueError(f"write midpoint, or an odd number of points from 3; got {as_written(lambdas)}")
        if is_grid and lambdas % 2 == 0:
            raise ValueError(f"must be odd so that λ = ½ is on the grid; use {lambdas + 1}")
        return lambdas

    @field_validator("conditions")
    @classmethod
    def _some_condition(cls, conditions: tuple[Condition, ...] | None) -> tuple[Condition, ...] | None:
        if conditions == ():
            raise ValueError("name a condition at least, or leave it out for all of measure.conditions")
        return conditions

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not (self.families or self.groups or self.window):
            raise ValueError("asks nothing: give families, window or groups, e.g. families: [single]")
        return self


class EnsembleMeasureSpec(Spec):
    """What is asked of an ensemble.

    draws: weighted averages of all members, at weights from Dirichlet(1, …, 1).
    pairs: of members, whose paths are measured: all if there are no more, else so many at random.
    subsets: ensembles of a smaller size that are looked at: all if there are no more, else so many at random.
    rule: what an ensemble averages: the members' probabilities, logits or log-probabilities.
    """

    draws: Count = 50
    pairs: Count = 10
    subsets: Count = 200
    rule: Rule = "probability"


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
    snapshots: epochs at whose end the weights of every member are remembered, for questions about the course of
        training; 0 is the start.
    layers: which sets of layers are moved alone, at the end of training and at every snapshot; None if none are.
    alignment: how B is aligned; None if it is not. It adds ``aligned``, ``aligned + recalibrated`` where there is
        BatchNorm, and ``aligned + repaired`` to the conditions.
    directions: whether the direction of the path is special; None if it is not asked.
    planes: loss and error on a plane through three weight vectors; None if it is not asked.
    ensemble: what is asked of ensembles; None for what is usual.
    """

    lambdas: Annotated[int, Field(strict=True, ge=3)] = 25
    splits: Annotated[tuple[SplitName, ...], Field(min_length=1)] = ("train", "test")
    conditions: tuple[Condition, ...] | None = None
    refinements: Natural = 6
    tolerance_error: Positive = 0.002
    tolerance_loss: Positive = 0.01
    snapshots: tuple[Natural, ...] = ()
    layers: LayersSpec | None = None
    alignment: AlignmentSpec | None = None
    directions: DirectionsSpec | None = None
    planes: PlanesSpec | None = None
    ensemble: EnsembleMeasureSpec | None = None

    @field_validator("splits")
    @classmethod
    def _splits_in_order(cls, splits: tuple[SplitName, ...]) -> tuple[SplitName, ...]:
        """One set of splits, one spec."""
        return tuple(split for split in get_args(SplitName) if split in splits)

    @field_validator("conditions", mode="before")
    @classmethod
    def _aligned_by_alignment(cls, conditions: Any) -> Any:
        for condition in conditions if isinstance(conditions, list | tuple) else ():
            if isinstance(condition, str) and condition in ALIGNED:
                raise ValueError(f"{condition} is added by measure.alignment, e.g. alignment: {{by: weights}}")
        return conditions

    @field_validator("conditions")
    @classmethod
    def _conditions_in_order(cls, conditions: tuple[Condition, ...] | None) -> tuple[Condition, ...] | None:
        if conditions is None:
            return None
        if "naive" not in conditions:
            raise ValueError("conditions must include naive: the others are compared with it")
        return tuple(condition for condition in CONDITIONS if condition in conditions)

    def of(self, model: NetworkSpec) -> "MeasureSpec":
        """What is asked of a network: open conditions are filled in, those of an alignment added, and those left out
        that only repeat another.
        """
        asked: tuple[Condition, ...] = ("naive", "recalibrated") if self.conditions is None else self.conditions
        if self.alignment is not None:
            asked = (*asked, *(condition for condition in ALIGNED if condition not in asked))
        if not model.may_have_batch_norm:
            asked = tuple(condition for condition in asked if condition not in SAME_WITHOUT_BATCH_NORM)
        return self.model_copy(update={"conditions": asked})

    @field_validator("snapshots")
    @classmethod
    def _snapshots_in_order(cls, snapshots: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(snapshots)))

    @model_serializer(mode="wrap")
    def _without_later_questions(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A question that came later has no entry where it is not asked: finished folders stay finished."""
        content: dict[str, Any] = handler(self)
        return {name: value for name, value in content.items() if value or name not in _LATER}

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

    @model_validator(mode="after")
    def _knows_the_trajectory(self) -> Self:
        noise = self.directions.noise if self.directions else None
        if noise and noise.needs_snapshots and not self.snapshots:
            raise ValueError(
                "directions.noise in the span of training needs snapshots, e.g. snapshots: [0, 1, 2]; or ask for "
                "kinds: [path, isotropic]"
            )
        return self


def condition_name(condition: Condition) -> str:
    """A condition in a column's name, e.g. ``aligned_recalibrated``."""
    return condition.replace(" + ", "_")


def condition_column(condition: Condition, column: str) -> str:
    """The name of a column of the results under a condition; ``naive`` is left out."""
    return column if condition == "naive" else f"{condition_name(condition)}_{column}"


def statistics_of(condition: Condition) -> Statistics:
    """How the networks on a condition's path are prepared."""
    return _STATISTICS[condition]
