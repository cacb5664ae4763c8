"""One pair of trainings, and what is asked of it.

A :class:`PairSpec` names everything that decides a pair's result. Its :attr:`~PairSpec.key` is a hash over *all* its
fields, defaults included, plus :data:`SCHEMA_VERSION`: two experiments never share a key, and the same experiment
always finds its result again.
"""

import hashlib
import json
from typing import Annotated, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from lmc_tune.core.seeding import child_seed
from lmc_tune.experiment.data import DatasetSpec, ShiftSpec
from lmc_tune.experiment.measuring import BATCH_NORM_CONDITIONS, Condition, MeasureSpec
from lmc_tune.experiment.networks import ModelSpec
from lmc_tune.experiment.spec import Number, Seed, Spec
from lmc_tune.experiment.training import TrainSpec

# Raise it whenever the same PairSpec would give another result by more than rounding.
SCHEMA_VERSION = 4


class PairSpec(Spec):
    """One pair: two members trained from one initialisation on two parts of the data, then measured.

    Seeds derive from ``seed`` and ``replicate`` alone, not from the cell: replicate k of every cell starts from the
    same initial weights (of its model), the same split (of its shift) and the same orders, so that cells are compared
    with common random numbers.
    """

    dataset: DatasetSpec
    model: ModelSpec
    train: TrainSpec
    shift: ShiftSpec
    measure: MeasureSpec
    replicate: Number
    seed: Seed = 0

    @field_validator("measure")
    @classmethod
    def _conditions_of_the_network(cls, measure: MeasureSpec, known: ValidationInfo) -> MeasureSpec:
        """Conditions that are left open; those that would only repeat another are dropped."""
        if "model" not in known.data:
            return measure
        asked: tuple[Condition, ...] = ("naive", "recalibrated") if measure.conditions is None else measure.conditions
        if not known.data["model"].may_have_batch_norm:
            asked = tuple(condition for condition in asked if condition not in BATCH_NORM_CONDITIONS)
        return measure.model_copy(update={"conditions": asked})

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if "validation" in self.measure.splits and self.dataset.validation == 0:
            raise ValueError("measure.splits names validation, but dataset.validation holds no example out")
        if getattr(self.model, "norm", None) == "batch" and self.train.batch_size == 1:
            raise ValueError("norm: batch has no statistics in a batch of 1; use a batch_size of at least 2")
        return self

    @property
    def key(self) -> str:
        """Content hash, 24 hexadecimal digits."""
        text = f"{SCHEMA_VERSION} {self.content()}"
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    @property
    def datasets(self) -> tuple[DatasetSpec, ...]:
        """What has to be there: the pair's data set, and another if its shift names one."""
        other = self.shift.other_dataset(self.dataset)
        return (self.dataset,) if other is None else (self.dataset, other)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What is measured of the pair's network."""
        assert self.measure.conditions is not None  # noqa: S101 - filled in when the pair was made
        return self.measure.conditions

    @property
    def cell(self) -> str:
        """Key of the pair's cell: that of its replicate 0."""
        return self.model_copy(update={"replicate": 0}).key

    def content(self) -> str:
        """Everything that decides the result, as canonical JSON."""
        fields = self.model_dump(mode="json", exclude={"train": {"engine"}})
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    def seed_for(self, *labels: str | int) -> int:
        """The pair's own seed for one purpose: ``init``, ``split``, ``order``..."""
        return child_seed(self.seed, "replicate", self.replicate, *labels)


class Cohort(Spec):
    """Pairs of one program, run by one worker; at least one."""

    pairs: Annotated[tuple[PairSpec, ...], Field(min_length=1)]
