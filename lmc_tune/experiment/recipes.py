"""Recipes: how the members of a group are made from one setting.

A recipe is a spec with a name in its field ``recipe``, ``check`` and ``members``. Training and keeping members need no
more; the rows of a group and the measurements of a path take two members. A federation's clients are trained together,
by :mod:`lmc_tune.training.federation`.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Tag

from lmc_tune.experiment.data import ShiftSpec
from lmc_tune.experiment.federation import Client, FederationSpec
from lmc_tune.experiment.member import Branch, MemberSpec, Perturbation, part_of
from lmc_tune.experiment.spec import Spec
from lmc_tune.experiment.training import TrainChanges, TrainSpec

if TYPE_CHECKING:
    from lmc_tune.experiment.group import GroupSpec


class Pair(Spec):
    """Two members, ``a`` and ``b``, from a common start, each on its own side of the shift.

    b: settings of B's training that differ from A's.
    perturb: B is a copy of A, on its data and with its noise, whose weights are disturbed once.
    """

    recipe: Literal["pair"] = "pair"
    b: TrainChanges = TrainChanges()
    perturb: Perturbation | None = None

    def check(self, group: "GroupSpec") -> None:
        """Raise ValueError if the recipe does not fit the group's setting."""
        if group.train.spawn_epoch and self.b.optimizer not in {None, group.train.optimizer}:
            raise ValueError("after joint training (spawn_epoch) B's optimizer goes on: leave b.optimizer out")
        if self.perturb is None:
            return
        if group.shift.kind != "none":
            raise ValueError("perturb disturbs a copy of A on A's data; say shift: none")
        if group.train.spawn_epoch or self.b.given():
            raise ValueError("perturb disturbs a copy of A; leave spawn_epoch and b out")
        if group.train.target_loss is not None and self.perturb.step:
            raise ValueError("a member at its target_loss stops, perhaps before perturb.step; leave target_loss out")

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


class Federated(FederationSpec):
    """The clients of a federation, ``client 1``, ``client 2``, …: all begin at the same weights.

    Under ``noise: fixed`` all clients see the same positions of their parts in every step, as far as parts are equally
    large; under ``varied`` each has noise of its own, the first client that of ``fixed``.
    """

    recipe: Literal["federated"] = "federated"

    def check(self, group: "GroupSpec") -> None:
        """Raise ValueError if the recipe does not fit the group's setting."""
        train = group.train
        if group.shift.kind != "none":
            raise ValueError("federated.split gives every client its own data; leave shift out")
        if train.steps is not None or train.epochs != self.epochs:
            raise ValueError("the epochs of a client are rounds x local_epochs; leave train.epochs and train.steps out")
        if train.target_loss is not None or train.spawn_epoch:
            raise ValueError("clients train for all their rounds, apart; leave target_loss and spawn_epoch out")
        if self.norm and not group.model.may_have_batch_norm:
            raise ValueError(f"federated.norm is for BatchNorm, and {group.model.label} has none; leave it out")

    def members(self, group: "GroupSpec") -> dict[str, MemberSpec]:
        """The members by name."""
        federation = FederationSpec.model_validate(self.model_dump(exclude={"recipe"}))
        first = MemberSpec(
            dataset=group.dataset,
            model=group.model,
            train=_own(group.train),
            part=part_of(ShiftSpec(kind="none"), "both"),
            client=Client(federation=federation, number=1),
            replicate=group.replicate,
            seed=group.seed,
        )
        others: dict[str, Any] = {} if group.train.noise == "fixed" else {"noise": "client"}
        return {"client 1": first} | {
            f"client {number}": first.model_copy(
                update={"client": Client(federation=federation, number=number), **others}
            )
            for number in range(2, self.clients + 1)
        }


def recipe_name(given: Any) -> str:
    """The name of the recipe that a mapping or a spec describes; ``pair`` is the default."""
    return str(given.get("recipe", "pair") if isinstance(given, dict) else given.recipe)


Recipe = Annotated[
    Annotated[Pair, Tag("pair")] | Annotated[Federated, Tag("federated")],
    Discriminator(recipe_name),
]


def _trunk(group: "GroupSpec") -> MemberSpec:
    """Training on both parts together. It ends at an epoch, not at a loss."""
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
    """The training without the settings that only groups have."""
    return train.model_copy(update={"noise": "fixed", "spawn_epoch": 0})
