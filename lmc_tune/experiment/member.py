"""One member: everything that decides one set of weights, and nothing else.

Its :attr:`~MemberSpec.key` is a hash of that, plus :data:`SCHEMA_VERSION`. What several groups have in common is one
member, trained once: part A under every severity of a covariate shift, the trunk of all branches.
"""

import hashlib
from functools import cached_property
from typing import Literal

from lmc_tune.core.seeding import child_seed
from lmc_tune.experiment.data import Corruption, DataSpec, ShiftSpec
from lmc_tune.experiment.federation import Client
from lmc_tune.experiment.networks import ModelSpec
from lmc_tune.experiment.spec import Chance, Count, Natural, NonNegative, Positive, Seed, Spec
from lmc_tune.experiment.training import TrainSpec

# Raise it whenever the same spec would give another result by more than rounding.
SCHEMA_VERSION = 5

# ``whole``: the whole training set, which no pair has: its members share it or halve it.
Side = Literal["a", "b", "both", "whole"]
# Whose noise a member has: which positions it sees in which step, how they are augmented, and what is dropped.
Noise = Literal["a", "b", "joint", "client", "numbered"]
_NOISE_LABELS: dict[Noise, tuple[str, ...]] = {"a": ("order",), "b": ("order", "b"), "joint": ("order", "joint")}


class PartSpec(Spec):
    """What a member sees of the training set: one side of a shift, or both (:func:`part_of`)."""

    shift: ShiftSpec
    side: Side


def part_of(shift: ShiftSpec, side: Side) -> PartSpec:
    """The part of one side of a shift; parts that are the same have one spec.

    A sees the first half under ``none``, under a covariate shift of any severity, and where B's images are corrupted;
    under ``none``, B sees it too.
    """
    alike = shift.kind in {"none", "covariate"} or isinstance(shift.domain, Corruption)
    if side != "both" and (shift.kind == "none" or (side == "a" and alike)):
        return PartSpec(shift=ShiftSpec(kind="none"), side="a")
    return PartSpec(shift=shift, side=side)


class Branch(Spec):
    """A start from another member's training at the end of an epoch, its optimizer's moments included."""

    trunk: "MemberSpec"
    epoch: Count


class Perturbation(Spec):
    """Weights that are disturbed once, in training (the butterfly experiment, Kwok et al. 2025).

    step: how many steps are taken before it.
    scale: norm of the noise divided by the norm that the disturbed weights had initially; 0 changes nothing.
    weights: one weight or all of one layer, drawn at random, or all weights; the noise is Gaussian.
    """

    step: Natural
    scale: NonNegative
    weights: Literal["one", "layer", "all"] = "all"


class Course(Spec):
    """How the learning rate goes on where a training is longer than its schedule.

    epochs: of the schedule, its warm-up included. then: ``stay`` at the lowest rate, or ``restart`` the schedule, over
        and over. lowest_lr: the rate falls no lower after the warm-up.
    """

    epochs: Count
    then: Literal["stay", "restart"]
    lowest_lr: NonNegative = 0.0


class Distil(Spec):
    """Learning from another member's predictions besides the labels (Hinton et al. 2015), by the loss
    (1 − β) τ² KL(teacher ‖ student) + β CE, both softened by τ in the divergence.

    teacher: a member that has been trained. beta: weight of the labels. temperature: τ.
    """

    teacher: "MemberSpec"
    beta: Chance
    temperature: Positive


class MemberSpec(Spec):
    """One member.

    Seeds derive from ``seed`` and ``replicate`` alone: replicate k starts from the same initial weights (of its model),
    the same split (of its shift) and the same orders in every cell, so that cells are compared with common random
    numbers.

    train: with the defaults of ``noise`` and ``spawn_epoch``, which the fields ``noise`` and ``branch`` replace.
    client: whose weights at the end of the last round they are, before the last average; the clients of a federation
        are trained together.
    course: how long the schedule is, if not as long as the training. distil: what it learns from besides its labels.
    number: of the member in an ensemble, where that decides anything: its noise under ``numbered``.
    init: 0 for the initial weights that all members of a replicate have in common; others draw their own.
    """

    dataset: DataSpec
    model: ModelSpec
    train: TrainSpec
    part: PartSpec
    noise: Noise = "a"
    branch: Branch | None = None
    perturbation: Perturbation | None = None
    client: Client | None = None
    course: Course | None = None
    distil: Distil | None = None
    number: Natural = 0
    init: Natural = 0
    replicate: Natural
    seed: Seed = 0

    @cached_property
    def text(self) -> str:
        """Canonical text of what decides the weights."""
        parts = (self.dataset.text, self.model.text, self.train.text, self.part.text, self.noise)
        begin = f"{self.branch.trunk.key}@{self.branch.epoch}" if self.branch else ""
        perturbation = self.perturbation.text if self.perturbation else ""
        later = [
            *([self.client.text] if self.client else []),
            *([f"course {self.course.text}"] if self.course else []),
            *([self._distilled] if self.distil else []),
            *([f"number {self.number}"] if self.number else []),
            *([f"init {self.init}"] if self.init else []),
        ]
        return " ".join([*parts, begin, perturbation, str(self.replicate), str(self.seed), *later])

    @property
    def _distilled(self) -> str:
        assert self.distil  # noqa: S101 - asked for by its caller
        return f"distil {self.distil.teacher.key} {self.distil.beta!r} {self.distil.temperature!r}"

    @cached_property
    def key(self) -> str:
        """Content hash, 24 hexadecimal digits."""
        return content_key(self.text)

    @property
    def program(self) -> tuple[str, ...]:
        """The settings that members of one stack share; splits, and so steps, may differ by a few examples."""
        taught = ("taught",) if self.distil else ()
        return self.dataset.text, self.model.text, self.train.program, *taught

    def seed_for(self, *labels: str | int) -> int:
        """The replicate's seed for one purpose: ``init``, ``split``, ``perturbation``..."""
        return child_seed(self.seed, "replicate", self.replicate, *labels)

    @property
    def init_seed(self) -> int:
        """The seed of its initial weights."""
        return self.seed_for("init", self.init) if self.init else self.seed_for("init")

    @property
    def noise_seed(self) -> int:
        """The seed from which the orders, augmentations and dropouts of its training derive."""
        if self.noise == "client" and self.client:
            return self.seed_for("order", "client", self.client.number)
        if self.noise == "numbered":
            return self.seed_for("order", "member", self.number)
        return self.seed_for(*_NOISE_LABELS[self.noise])


def content_key(text: str) -> str:
    """A hash of a content's text and of the schema's version, 24 hexadecimal digits."""
    return hashlib.blake2b(f"{SCHEMA_VERSION} {text}".encode(), digest_size=12).hexdigest()
