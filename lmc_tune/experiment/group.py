"""A group: members that are compared. A pair is the group with two."""

from functools import cached_property
from typing import Annotated, Self

from pydantic import Field, model_validator

from lmc_tune.core.seeding import child_seed
from lmc_tune.experiment.data import DataSpec, ShiftSpec
from lmc_tune.experiment.member import MemberSpec, content_key
from lmc_tune.experiment.networks import ModelSpec
from lmc_tune.experiment.recipes import Pair, Recipe
from lmc_tune.experiment.spec import Natural, Seed, Spec, canonical
from lmc_tune.experiment.training import TrainSpec


class GroupSpec(Spec):
    """A recipe, at one setting (data set, model, training, shift), for one replicate.

    What is asked of its members is not part of it: another question about a finished group trains nothing.
    """

    dataset: DataSpec
    model: ModelSpec
    train: TrainSpec
    shift: ShiftSpec
    recipe: Recipe = Pair()
    replicate: Natural
    seed: Seed = 0

    @model_validator(mode="after")
    def _possible(self) -> Self:
        self.recipe.check(self)
        batch_sizes = {member.train.batch_size for member in self.members.values()}
        if getattr(self.model, "norm", None) == "batch" and 1 in batch_sizes:
            raise ValueError("norm: batch has no statistics in a batch of 1; use a batch_size of at least 2")
        return self

    @cached_property
    def members(self) -> dict[str, MemberSpec]:
        """The members by name."""
        return self.recipe.members_of(self)

    @property
    def part_size(self) -> int:
        """Examples that a member sees; slightly fewer if a split has to leave some out."""
        return self.recipe.part_size(self)

    @property
    def training_size(self) -> int:
        """Examples that all members see together."""
        return self.recipe.training_size(self)

    @cached_property
    def trained(self) -> dict[str, MemberSpec]:
        """All that is trained for it by key, the trunks of branches aside: members, and before them those from whom
        they learn.
        """
        teachers = [member.distil.teacher for member in self.members.values() if member.distil]
        return {member.key: member for member in (*teachers, *self.members.values())}

    @cached_property
    def key(self) -> str:
        """Content hash of the recipe, the shift and the members, 24 hexadecimal digits."""
        members = (f"{name}={member.key}" for name, member in self.members.items())
        return content_key(" ".join([self.recipe.text, self.shift.text, *members]))

    @cached_property
    def cell(self) -> str:
        """Key of the group's cell: that of its replicate 0."""
        return self.key if self.replicate == 0 else self.model_copy(update={"replicate": 0}).key

    @property
    def datasets(self) -> tuple[DataSpec, ...]:
        """The data sets that are needed: the group's, and another if its shift names one."""
        other = self.shift.other_dataset(self.dataset)
        return (self.dataset,) if other is None else (self.dataset, other)

    @cached_property
    def text(self) -> str:
        """The group as the table stores it, canonical JSON without the engine, which changes only rounding."""
        return canonical(self.model_dump(mode="json", exclude={"train": {"engine"}}))

    def seed_for(self, *labels: str | int) -> int:
        """The replicate's seed for one purpose: ``init``, ``split``, ``recalibration``..."""
        return child_seed(self.seed, "replicate", self.replicate, *labels)


class Cohort(Spec):
    """Groups that one worker runs; at least one. Members that they share are trained once."""

    groups: Annotated[tuple[GroupSpec, ...], Field(min_length=1)]
