"""Recipes: how the members of a group are made from one setting.

A recipe is a spec with a name in its field ``recipe``, ``check`` and ``members_of``. Training and keeping members need
no more; the rows of a group and the measurements of a path take two members. A federation's clients are trained
together, by :mod:`lmc_tune.training.federation`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Tag

from lmc_tune.experiment.data import ShiftSpec
from lmc_tune.experiment.datasets import part_size, training_size
from lmc_tune.experiment.ensembles import EnsembleSpec, Family
from lmc_tune.experiment.federation import Client, FederationSpec
from lmc_tune.experiment.member import (
    Branch,
    Course,
    Distil,
    MemberSpec,
    Noise,
    PartSpec,
    Perturbation,
    Side,
    part_of,
)
from lmc_tune.experiment.spec import Spec
from lmc_tune.experiment.training import TrainChanges, TrainSpec

if TYPE_CHECKING:
    from lmc_tune.experiment.group import GroupSpec


# What groups are called.
GroupKind = Literal["pair", "federation", "ensemble"]


class Pair(Spec):
    """Two members, ``a`` and ``b``, from a common start, each on its own side of the shift.

    b: settings of B's training that differ from A's.
    perturb: B is a copy of A, on its data and with its noise, whose weights are disturbed once.
    """

    kind: ClassVar[GroupKind] = "pair"
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

    def part_size(self, group: "GroupSpec") -> int:
        """Examples of a member's part."""
        return part_size(group.dataset, group.shift)

    def training_size(self, group: "GroupSpec") -> int:
        """Examples of all parts together."""
        return _of_both(group)

    def members_of(self, group: "GroupSpec") -> dict[str, MemberSpec]:
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

    kind: ClassVar[GroupKind] = "federation"
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

    def part_size(self, group: "GroupSpec") -> int:
        """Examples of a client, in the mean."""
        return training_size(group.dataset) // self.clients

    def training_size(self, group: "GroupSpec") -> int:
        """Examples of all clients together."""
        return training_size(group.dataset)

    def members_of(self, group: "GroupSpec") -> dict[str, MemberSpec]:
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


class Ensemble(EnsembleSpec):
    """The members of an ensemble, ``member 1``, ``member 2``, …; of ``mc_dropout`` the one that is trained.

    Without a shift, all are trained on the whole training set; else the odd ones on A's part and the even ones on B's,
    and what they have in common on both. Members that a pair has too are the pair's: two constrained ones are A and B
    of a pair with ``spawn_epoch: t``.
    """

    kind: ClassVar[GroupKind] = "ensemble"
    recipe: Literal["ensemble"] = "ensemble"

    def check(self, group: "GroupSpec") -> None:
        """Raise ValueError if the recipe does not fit the group's setting."""
        train = group.train
        if train.epochs is None:
            raise ValueError("the members of an ensemble are trained for epochs; set epochs instead of steps")
        if train.target_loss is not None or train.spawn_epoch:
            raise ValueError("an ensemble's members are trained to the end; leave target_loss and spawn_epoch out")
        if self.t is not None and self.t >= train.epochs:
            raise ValueError(f"t {self.t} leaves none of {train.epochs} epochs to train apart; lower t or raise epochs")
        if self.t is not None and train.noise == "fixed" and (group.shift.kind == "none" or self.members > 2):
            raise ValueError("on the same data with the same noise members are equal; say noise: varied")
        if self.lowest_lr is not None and self.lowest_lr > train.lr:
            raise ValueError(f"lowest_lr {self.lowest_lr:g} is above lr {train.lr:g}; lower it")
        if self.is_distilled and train.engine == "stacked":
            raise ValueError("members that learn from others are trained in the loop; leave engine out")
        if self.family == "snapshot" and train.epochs % self.members:
            raise ValueError(
                f"the schedule runs {self.members} times in {train.epochs} epochs; let members divide epochs"
            )
        if self.family == "mc_dropout" and not getattr(group.model, "dropout", 0.0):
            raise ValueError(f"mc_dropout needs a network that drops activations; {group.model.label} has no dropout")

    def part_size(self, group: "GroupSpec") -> int:
        """Examples that a member sees."""
        whole = group.shift.kind == "none"
        return training_size(group.dataset) if whole else part_size(group.dataset, group.shift)

    def training_size(self, group: "GroupSpec") -> int:
        """Examples that all of them see."""
        return training_size(group.dataset) if group.shift.kind == "none" else _of_both(group)

    def members_of(self, group: "GroupSpec") -> dict[str, MemberSpec]:
        """The members by name."""
        makers: dict[Family, Callable[[GroupSpec, int], MemberSpec]] = {
            "constrained": self._branched,
            "distilled": self._branched,
            "distilled_deep": self._taught,
            "swe": self._passed,
            "snapshot": self._passed,
        }
        make = makers.get(self.family, _deep)
        trained = 1 if self.family == "mc_dropout" else self.members
        return {f"member {number}": make(group, number) for number in range(1, trained + 1)}

    def _branched(self, group: "GroupSpec", number: int) -> MemberSpec:
        """One that begins where all others do."""
        differs: dict[str, Any] = {"init": 0}
        if self.t:
            differs["branch"] = Branch(trunk=_common(group), epoch=self.t)
        if self.is_distilled:
            differs["distil"] = self._from(_deep(group, number))
        return _deep(group, number).model_copy(update=differs)

    def _taught(self, group: "GroupSpec", number: int) -> MemberSpec:
        """A deep one that learns from the next: one with other initial weights and noise."""
        own, teacher = _deep(group, number), _deep(group, number % self.members + 1)
        return own.model_copy(update={"distil": self._from(teacher)}) if self.is_distilled else own

    def _passed(self, group: "GroupSpec", number: int) -> MemberSpec:
        """One of those that a single training passes through."""
        epochs = group.train.epochs or 0
        if self.family == "swe":
            each, course = epochs, Course(epochs=epochs, then="stay", lowest_lr=self.lowest_lr or 0.0)
        else:
            each = epochs // self.members
            course = Course(epochs=each, then="restart")
        train = group.train.model_copy(update={"epochs": each})
        way = _common(group).model_copy(update={"train": _own(train), "course": course})
        then = _own(train.model_copy(update={"epochs": number * each}))
        return way.model_copy(update={"train": then, "branch": Branch(trunk=way, epoch=number * each)})

    def _from(self, teacher: MemberSpec) -> Distil:
        assert self.beta is not None and self.tau is not None  # noqa: S101, PT018 - a distilled family has both
        return Distil(teacher=teacher, beta=self.beta, temperature=self.tau)


def _deep(group: "GroupSpec", number: int) -> MemberSpec:
    """One with initial weights and noise of its own; the first has those of a pair's A."""
    varied = group.train.noise == "varied"
    noise: dict[int, Noise] = {1: "a", 2: "b"} if varied else {number: "a"}
    return MemberSpec(
        dataset=group.dataset,
        model=group.model,
        train=_own(group.train),
        part=_part(group.shift, "a" if number % 2 else "b"),
        noise=noise.get(number, "numbered"),
        number=0 if number in noise else number,
        init=number - 1,
        replicate=group.replicate,
        seed=group.seed,
    )


def _part(shift: ShiftSpec, side: Side) -> PartSpec:
    """What a member of an ensemble sees: all there is, or its side of a shift."""
    return PartSpec(shift=shift, side="whole") if shift.kind == "none" else part_of(shift, side)


def _common(group: "GroupSpec") -> MemberSpec:
    """The training that members have in common."""
    return _trunk(group).model_copy(update={"part": _part(group.shift, "both")})


def _of_both(group: "GroupSpec") -> int:
    """Examples of both sides of a shift together."""
    part, shift = part_size(group.dataset, group.shift), group.shift
    return part + round(part * shift.severity) if shift.kind in {"none", "covariate"} else 2 * part


def recipe_name(given: Any) -> str:
    """The name of the recipe that a mapping or a spec describes; ``pair`` is the default."""
    return str(given.get("recipe", "pair") if isinstance(given, dict) else given.recipe)


Recipe = Annotated[
    Annotated[Pair, Tag("pair")] | Annotated[Federated, Tag("federated")] | Annotated[Ensemble, Tag("ensemble")],
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
