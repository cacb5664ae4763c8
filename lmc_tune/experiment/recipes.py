"""Recipes: which members a group has, made of one setting."""

from typing import TYPE_CHECKING, Literal

from lmc_tune.experiment.member import Branch, MemberSpec, Perturbation, part_of
from lmc_tune.experiment.spec import Spec
from lmc_tune.experiment.training import TrainChanges, TrainSpec

if TYPE_CHECKING:
    from lmc_tune.experiment.group import GroupSpec


class Pair(Spec):
    """Two members, ``a`` and ``b``, from one beginning, each on its own side of the shift.

    b: what B's training has otherwise than A's.
    perturb: B is a copy of A, on its data and with its noise, whose weights are disturbed once.
    """

    recipe: Literal["pair"] = "pair"
    b: TrainChanges = TrainChanges()
    perturb: Perturbation | None = None

    def members(self, group: "GroupSpec") -> dict[str, MemberSpec]:
        """The members by name."""
        train, shift = group.train, group.shift
        a = MemberSpec(
            dataset=group.dataset,
            model=group.model,
            train=_own(train),
            part=part_of(shift, "a"),
            branch=Branch(trunk=_trunk(group), epoch=train.spawn_epoch) if train.spawn_epoch else None,
            replicate=group.replicate,
            seed=group.seed,
        )
        if self.perturb:
            return {"a": a, "b": a.model_copy(update={"perturbation": self.perturb})}
        differs: dict[str, object] = {"part": part_of(shift, "b"), "noise": "a" if train.noise == "fixed" else "b"}
        if self.b.given():
            differs["train"] = _own(self.b.applied_to(train))
        return {"a": a, "b": a.model_copy(update=differs)}


def _trunk(group: "GroupSpec") -> MemberSpec:
    """Training on both parts together. It goes to an epoch, not to a loss."""
    return MemberSpec(
        dataset=group.dataset,
        model=group.model,
        train=_own(group.train).model_copy(update={"target_loss": None}),
        part=part_of(group.shift, "both"),
        noise="joint",
        replicate=group.replicate,
        seed=group.seed,
    )


def _own(train: TrainSpec) -> TrainSpec:
    """Without what only groups know."""
    return train.model_copy(update={"noise": "fixed", "spawn_epoch": 0})
