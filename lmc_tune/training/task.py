"""The training of a member, as engines take it."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from lmc_tune.core.seeding import child_seed
from lmc_tune.data.augment import Augmentation
from lmc_tune.data.examples import Examples, ExampleSet
from lmc_tune.experiment import Course, TrainSpec
from lmc_tune.measurement.evaluate import Score
from lmc_tune.models.stack import Way
from lmc_tune.training.checkpoint import Checkpoint
from lmc_tune.training.distillation import Teacher
from lmc_tune.training.disturbance import Disturbance
from lmc_tune.training.order import epoch_batches
from lmc_tune.training.progress import CurvePoint, Progress
from lmc_tune.training.schedule import course_rate, learning_rate

# The inputs of each step, by name; entries of an epoch have the steps first. batch: (batch_size,) int64, the places of
# its examples in the training set; drop: () int64, the seed of dropout; also the augmentation's draws.
Feed = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One member to train.

    model: a network of the member's architecture, on the device of the examples; engines overwrite its weights.
    start: its initial state, on any device.
    whole, positions: the training set, and the places of the member's part in it, (n,) int64 on the same device.
    test: measured after every epoch for the learning curve; it never influences training.
    noise_seed: decides the order of the examples (:func:`~lmc_tune.training.order.epoch_batches`), how they are
        augmented, and what is dropped.
    augment: changes the inputs of every step; None if they stay as they are.
    disturbance: perturbs the weights once; None without a perturbation.
    course: of the learning rate, if the training is longer than its schedule. teacher: whose predictions it learns from
        besides the labels; None if it does not. Only the loop takes one.
    resume: the progress of an interrupted or a joint training; None to begin at the start.
    epochs: train only to the end of this epoch; None for the whole budget.
    snapshots: epochs at whose end the state is copied.
    way: how a stack of such members is applied; None for the one that trains faster.
    checkpoint: gets the progress after every epoch; None to keep none.
    engine, engine_reason: what trains it, and why, if another engine would be expected; both are kept with it.
    began, sharing: when its training began, by time.perf_counter, and how many members are trained in that time.

    Raises:
        ValueError: if a batch is larger than the part.
    """

    model: nn.Module
    start: Mapping[str, Tensor]
    whole: Examples
    positions: Tensor
    test: ExampleSet
    spec: TrainSpec
    noise_seed: int
    augment: Augmentation | None = None
    disturbance: Disturbance | None = None
    course: Course | None = None
    teacher: Teacher | None = None
    resume: Progress | None = None
    checkpoint: Checkpoint | None = None
    epochs: int | None = None
    snapshots: tuple[int, ...] = ()
    way: Way | None = None
    engine: str = ""
    engine_reason: str = ""
    began: float = field(default_factory=time.perf_counter)
    sharing: int = 1

    def __post_init__(self) -> None:
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"batch_size {self.spec.batch_size} is above the {len(self.positions)} examples that a member sees; "
                f"lower it or raise dataset.train"
            )

    @property
    def steps_per_epoch(self) -> int:
        return len(self.positions) // self.spec.batch_size

    @property
    def decisions_per_step(self) -> int:
        """One per example, or one per label or token where examples have several."""
        return self.spec.batch_size * math.prod(self.whole.labels.shape[1:])

    @property
    def n_steps(self) -> int:
        """Of the whole training; one with a course has no end of its own, and goes on to the epoch asked for."""
        if self.course and self.epochs:
            return self.epochs * self.steps_per_epoch
        return self.spec.steps_for(len(self.positions))

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        if self.course is None:
            return learning_rate(self.spec, step, self.n_steps)
        return course_rate(self.spec, self.course, step, self.course.epochs * self.steps_per_epoch)

    @property
    def epochs_done(self) -> int:
        return self.resume.epochs if self.resume else 0

    @property
    def last_epoch(self) -> int:
        whole = math.ceil(self.n_steps / self.steps_per_epoch)
        return whole if self.epochs is None else min(self.epochs, whole)

    @property
    def has_ended(self) -> bool:
        """Whether the resumed progress leaves nothing to train."""
        before = self.resume
        if before is None:
            return False
        return bool(before.diverged) or before.epochs >= self.last_epoch or self.is_enough(before.curve)

    def snapshots_before(self) -> dict[int, dict[str, Tensor]]:
        """Those of the resumed progress."""
        return dict(self.resume.snapshots) if self.resume else {}

    def is_enough(self, curve: Sequence[CurvePoint]) -> bool:
        """Whether the last epoch got to the target loss."""
        target = self.spec.target_loss
        return target is not None and bool(curve) and curve[-1].train_loss <= target

    @property
    def seconds(self) -> float:
        """Seconds of training so far, including the resumed part."""
        before = self.resume.seconds if self.resume else 0.0
        return before + (time.perf_counter() - self.began) / self.sharing

    def offer(self, make: Callable[[], Progress]) -> None:
        """Offer an epoch's progress to the checkpoint."""
        if self.checkpoint:
            self.checkpoint.offer(lambda: self._told(make()))

    def finish(self, progress: Progress) -> Progress:
        """The finished member, written to its checkpoint; with moments only if training continues from it."""
        finished = self._told(progress if self.epochs is not None else replace(progress, moments={}))
        if self.checkpoint:
            self.checkpoint.finish(finished)
        return finished

    def settle(self) -> None:
        """Keep a member whose training had ended before, if members are to be kept."""
        if self.checkpoint and self.resume:
            self.checkpoint.settle(self.resume if self.epochs is not None else replace(self.resume, moments={}))

    def _told(self, progress: Progress) -> Progress:
        """The progress with what else is known of its training."""
        device = self.positions.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        return replace(
            progress, seconds=self.seconds, engine=self.engine, engine_reason=self.engine_reason, device=name
        )

    def feed(self, epoch: int, n_steps: int) -> Feed:
        """The inputs of an epoch's first steps."""
        n, size, whole_epoch = len(self.positions), self.spec.batch_size, self.steps_per_epoch
        order = epoch_batches(n, size, self.noise_seed, epoch)[:n_steps]
        generator = torch.Generator().manual_seed(child_seed(self.noise_seed, "dropout", epoch))
        drop = torch.randint(2**63 - 1, (whole_epoch,), generator=generator)[:n_steps]
        feed = {"batch": self.positions[order.to(self.positions.device)], "drop": drop.to(self.positions.device)}
        if self.augment:
            draws = self.augment.draws(self.noise_seed, epoch, whole_epoch, size)
            feed |= {name: draw[:n_steps] for name, draw in draws.items()}
        return feed

    def examples(self, feed: Feed) -> tuple[Tensor, Tensor]:
        """Inputs (batch_size, ...) and labels of one step."""
        return self.augmented(self.whole.inputs[feed["batch"]], feed), self.whole.labels[feed["batch"]]

    def augmented(self, inputs: Tensor, feed: Feed) -> Tensor:
        """Inputs of one step, or of several members' steps at once, as the augmentation changes them."""
        return self.augment.apply(inputs, feed) if self.augment else inputs

    def precision(self) -> AbstractContextManager[None]:
        """The context of a forward pass of training."""
        if self.spec.precision == "float32":
            return nullcontext()
        # The cache of cast weights would outlive a captured graph, and saves nothing where weights are used once.
        return torch.autocast(self.positions.device.type, dtype=torch.bfloat16, cache_enabled=False)

    def point(self, step: int, lr: float, loss: float, accuracy: float, tested: Score) -> CurvePoint:
        """The member after ``step`` steps, the last at rate ``lr``; loss and accuracy over the epoch's batches."""
        return CurvePoint(
            step=step,
            epoch=step / self.steps_per_epoch,
            lr=lr,
            train_loss=loss,
            train_accuracy=accuracy,
            test_loss=tested.loss,
            test_accuracy=tested.accuracy,
        )


def divergence(loss: float, epoch: int) -> str:
    """Why training stops after an epoch with this mean loss; empty if it does not."""
    return "" if math.isfinite(loss) else f"the training loss became {loss} in epoch {epoch + 1}"
