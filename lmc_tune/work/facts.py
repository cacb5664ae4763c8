"""What is known of a trained pair before it is measured."""

import math
from dataclasses import asdict, dataclass
from typing import Self

from lmc_tune.core.noise import noise_scale
from lmc_tune.data.examples import ExampleSet, Part
from lmc_tune.experiment.datasets import facts_of
from lmc_tune.measurement.evaluate import evaluate
from lmc_tune.measurement.network import Network
from lmc_tune.models.state import State
from lmc_tune.tables.columns import Row
from lmc_tune.training.progress import Progress
from lmc_tune.work.members import Trained
from lmc_tune.work.prepare import Setup


@dataclass(frozen=True, kw_only=True)
class TrainedPair:
    """A trained pair in memory; ``joint`` is what its members share, if they were trained together first."""

    setup: Setup
    a: Progress
    b: Progress
    joint: Progress | None = None

    @classmethod
    def of(cls, setup: Setup, trained: Trained) -> Self:
        """The pair of a group's members."""
        return cls(setup=setup, a=trained.members["a"], b=trained.members["b"], joint=trained.trunk)

    def further_steps(self, name: str) -> int:
        """Steps of joint training beyond those that its epochs have on the member's part alone, in its batches."""
        if self.joint is None or not self.joint.curve:
            return 0
        batch_size = self.setup.spec.members[name].train.batch_size
        return self.joint.curve[-1].step - len(self.joint.curve) * (len(self.setup.data.a) // batch_size)

    @property
    def members(self) -> tuple[tuple[str, Progress, Part], ...]:
        """Name, training, and part of the training set of each member."""
        return (("a", self.a, self.setup.data.a), ("b", self.b, self.setup.data.b))


def training_facts(pair: TrainedPair) -> Row:
    """What is known of how the members were trained."""
    spec, n_train = pair.setup.spec, len(pair.setup.data.a)
    return {
        "n_train": n_train,
        "steps": _steps(pair, n_train),
        "target_reached": _reached(pair),
        "noise_scale": noise_scale(spec.train.lr, spec.train.batch_size, n_train),
        **pair.setup.measured_shift,
    }


def training_status(pair: TrainedPair, ends: Row) -> Row:
    """``status`` and ``reason``: whether a member diverged, by its training and by what it came to."""
    reasons = []
    for name, member, examples in pair.members:
        if reason := member.diverged or rose_above_chance(
            pair.setup, examples, ends[f"train_loss_{name}"], pair.setup.start
        ):
            reasons.append(f"member {name.upper()}: {reason}")
    return {"status": "diverged" if reasons else "ok", "reason": "; ".join(reasons)}


def learning_rows(pair: TrainedPair) -> list[Row]:
    """The learning curves of the members and of what they share, as the table of curves keeps them."""
    curves = [
        {"member": name, **asdict(point), "step": point.step + pair.further_steps(name)}
        for name, member, _ in pair.members
        for point in member.curve
    ]
    return curves + [{"member": "joint", **asdict(point)} for point in (pair.joint.curve if pair.joint else ())]


def _steps(pair: TrainedPair, n_train: int) -> int:
    """Of the member with more: those of its budget, or up to its target loss; joint ones are among them."""

    def of(name: str, member: Progress) -> int:
        train = pair.setup.spec.members[name].train
        if train.target_loss is None:
            return train.steps_for(n_train)
        # Where joint training diverged, members have no curve of their own.
        return member.curve[-1].step if member.curve else 0

    return max(pair.further_steps(name) + of(name, member) for name, member, _ in pair.members)


def _reached(pair: TrainedPair) -> bool | None:
    """Whether all members that have a target loss got to it; None without one."""
    targets = {name: member.train.target_loss for name, member in pair.setup.spec.members.items()}
    reached = [
        bool(member.curve) and member.curve[-1].train_loss <= target
        for name, member, _ in pair.members
        if (target := targets[name]) is not None
    ]
    return all(reached) if reached else None


def rose_above_chance(setup: Setup, examples: ExampleSet, loss: float, start: State) -> str:
    """Whether a member's loss ended above chance level and above that of its ``start``; empty if it did not.

    The initial weights may already lie above chance level: a member that hardly moved from there is undertrained, so
    its loss has to have risen as well.
    """
    n_classes = 2 if facts_of(setup.spec.dataset).multi_label else setup.n_classes
    if loss <= math.log(n_classes):
        return ""
    if loss <= evaluate(Network(setup.model).loaded(start), examples).loss:
        return ""
    return f"rose above chance level: train loss {loss:.3g} > ln {n_classes}"
