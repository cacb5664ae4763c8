"""How a member is trained."""

from functools import cached_property
from typing import Any, Literal, Self

from pydantic import ValidationError, field_validator, model_serializer, model_validator

from lmc_tune.experiment.spec import Chance, Count, Fraction, Natural, NonNegative, Positive, Spec, canonical

# Settings in which members that are trained as one stack may differ.
PER_MEMBER = {"lr", "momentum", "weight_decay", "schedule", "warmup"}


class TrainSpec(Spec):
    """How each member is trained. Exactly one of ``epochs`` and ``steps`` is set.

    schedule: of the rate after warm-up (docs/definitions.md): ``constant``; ``step`` divides it by 10 after 1/2 and
        again after 3/4 of these steps; ``cosine`` lets it fall towards 0.
    warmup: fraction of all steps over which the rate rises linearly to ``lr``, before the schedule.
    crop, flip, jitter: augmentation (:class:`lmc_tune.data.augment.Augmentation`): shifts by up to ``crop`` pixels,
        mirrors half of the images, changes brightness, contrast and saturation by up to the fraction ``jitter``.
    precision: of the forward and backward pass; ``bfloat16`` is automatic mixed precision. Weights, updates and all
        measuring are float32.
    target_loss: training stops after the first epoch whose mean training loss is at most this, nats; epochs or steps
        are then the most it may take, and a member that does not get there leaves its pair undertrained.
    spawn_epoch: epochs of joint training, on both parts together, after which the members go on apart, each on its own
        part, for the rest of the epochs (instability analysis, Frankle et al. 2020). Schedules run on, and the
        optimizer keeps what it remembers.
    noise: ``fixed``: in every step both members see the same positions of their parts, augmented alike, and drop the
        same activations; ``varied``: each its own.
    engine: ``loop`` trains one member after the other, ``stacked`` all of a cohort at once; ``auto`` chooses by device
        and model. It changes results only by rounding and is not part of a pair's key.
    """

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Positive
    batch_size: Count
    momentum: Chance = 0.0
    nesterov: bool = False
    weight_decay: NonNegative = 0.0
    epochs: Count | None = None
    steps: Count | None = None
    target_loss: Positive | None = None
    spawn_epoch: Natural = 0
    schedule: Literal["constant", "step", "cosine"] = "constant"
    warmup: Fraction = 0.0
    crop: Natural = 0
    flip: bool = False
    jitter: Fraction = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    noise: Literal["fixed", "varied"] = "fixed"
    engine: Literal["auto", "loop", "stacked"] = "auto"

    @cached_property
    def text(self) -> str:
        """Canonical JSON without the engine, which changes only rounding."""
        return canonical(self.model_dump(mode="json", exclude={"engine"}))

    @property
    def program(self) -> str:
        """The settings that members of one stack share."""
        return self.model_dump_json(exclude=PER_MEMBER | {"engine"})

    def steps_for(self, n_train: int) -> int:
        """Steps of one member whose part has ``n_train`` examples; incomplete batches are dropped."""
        return self.steps if self.steps is not None else (n_train // self.batch_size) * (self.epochs or 0)

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("set exactly one of epochs and steps, and leave the other out (or null)")
        if self.spawn_epoch and self.epochs is None:
            raise ValueError("spawn_epoch counts epochs; set epochs instead of steps")
        if self.epochs is not None and self.spawn_epoch >= self.epochs:
            raise ValueError(
                f"spawn_epoch {self.spawn_epoch} leaves none of {self.epochs} epochs to train apart; lower it or raise "
                f"epochs"
            )
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov needs optimizer: sgd and a momentum above 0")
        if self.optimizer != "sgd" and self.momentum > 0:
            raise ValueError(f"momentum belongs to sgd; {self.optimizer} has its own moments: remove momentum")
        return self


class TrainChanges(Spec):
    """Settings of one member's training that differ from its group's; the fields are those of :class:`TrainSpec`."""

    optimizer: Literal["sgd", "adam", "adamw"] | None = None
    lr: Positive | None = None
    batch_size: Count | None = None
    momentum: Chance | None = None
    nesterov: bool | None = None
    weight_decay: NonNegative | None = None
    epochs: Count | None = None
    steps: Count | None = None
    target_loss: Positive | None = None
    schedule: Literal["constant", "step", "cosine"] | None = None
    warmup: Fraction | None = None
    crop: Natural | None = None
    flip: bool | None = None
    jitter: Fraction | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _is_a_value(cls, value: Any) -> Any:
        if value is None:
            raise ValueError(
                "null is no value for B: leave the key out, and B has A's value (an axis can be b: [{}, {lr: 0.3}])"
            )
        return value

    @model_serializer
    def given(self) -> dict[str, Any]:
        """What is changed."""
        return {name: value for name, value in self if value is not None}

    def applied_to(self, train: TrainSpec) -> TrainSpec:
        """The training with the changes made; a budget of epochs takes the place of one of steps, and vice versa.

        Raises:
            ValueError: if together they are impossible.
        """
        if not (given := self.given()):
            return train
        budget = {"epochs": None, "steps": None} if given.keys() & {"epochs", "steps"} else {}
        try:
            return TrainSpec.model_validate({**train.model_dump(), **budget, **given})
        except ValidationError as error:
            raise ValueError(f"b: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
