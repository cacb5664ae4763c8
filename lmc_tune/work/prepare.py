"""A pair in memory: its data and network before training, its members after it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lmc_tune.core.divergence import energy_coefficient, total_variation
from lmc_tune.data.augment import Augmentation
from lmc_tune.data.datasets import Dataset
from lmc_tune.data.domains import PairData, pair_data, split_views, views
from lmc_tune.data.examples import Examples, Part
from lmc_tune.data.prepared import open_dataset
from lmc_tune.data.shifts import Parts
from lmc_tune.experiment import DatasetSpec, FactorySpec, ModelSpec, PairSpec, ShiftSpec
from lmc_tune.experiment.datasets import DATASETS
from lmc_tune.models.registry import build_model
from lmc_tune.models.state import state_of
from lmc_tune.tables.rows import Row
from lmc_tune.training.checkpoint import Checkpoint
from lmc_tune.training.progress import Progress
from lmc_tune.training.task import Task
from lmc_tune.work.bench import Workbench
from lmc_tune.work.device import exact_device

# Examples of each part that the measured covariate shift looks at; its cost grows with the square.
_SHIFT_SAMPLE = 500


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A pair before training: its data, a network, and the initial state of both members, on the CPU.

    Pairs of one architecture may share the network: whoever uses it loads weights into it first.
    """

    spec: PairSpec
    n_classes: int
    mean: Tensor
    std: Tensor
    data: PairData
    measured_shift: Row
    model: nn.Module
    start: dict[str, Tensor]
    device: torch.device
    checkpoints: Mapping[str, Checkpoint]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A trained pair in memory; ``joint`` is what its members share, if they were trained together first."""

    setup: Setup
    a: Progress
    b: Progress
    joint: Progress | None = None

    @property
    def further_steps(self) -> int:
        """Steps of joint training beyond those that its epochs have on one part alone."""
        if self.joint is None or not self.joint.curve:
            return 0
        train = self.setup.spec.train
        return self.joint.curve[-1].step - len(self.joint.curve) * (len(self.setup.data.a) // train.batch_size)

    @property
    def members(self) -> tuple[tuple[str, Progress, Part], ...]:
        """Name, training, and part of the training set of each member."""
        return (("a", self.a, self.setup.data.a), ("b", self.b, self.setup.data.b))

    @property
    def seconds(self) -> float:
        """That training took, joint training included."""
        return self.a.seconds + self.b.seconds + (self.joint.seconds if self.joint else 0.0)


def prepare(spec: PairSpec, bench: Workbench) -> Setup:
    """Load a pair's data, split them, and build its network."""
    device = exact_device(bench.device)
    dataset = _dataset(spec.dataset, bench.data_root, device)
    parts, measured_shift = _split(spec.dataset, bench.data_root, device, spec.shift, spec.seed_for("split"))
    data = pair_data(*_views(spec.dataset, bench.data_root, device, spec.shift), parts)
    shape = tuple(dataset.train.inputs.shape[1:])
    built = build_model(spec.model, shape, dataset.n_classes, spec.seed_for("init"), folders=bench.folders)
    start = state_of(built)
    if isinstance(spec.model, FactorySpec):  # which may keep more than its state
        model = built.to(device)
    else:
        model = _network(spec.model, shape, dataset.n_classes, device)
    return Setup(
        spec=spec,
        n_classes=dataset.n_classes,
        mean=dataset.mean,
        std=dataset.std,
        data=data,
        measured_shift=measured_shift,
        model=model,
        start=start,
        device=device,
        checkpoints=checkpoints(spec.key, bench),
    )


def joint_task(setup: Setup) -> Task:
    """Training on both parts together, from the start to the epoch at which the members part."""
    data, train = setup.data, setup.spec.train
    if isinstance(data.train, Part):
        whole, positions = data.train.whole, data.train.indices
    else:  # parts of two domains
        a, b = (part.whole.take(part.indices) for part in (data.a, data.b))
        whole = Examples(inputs=torch.cat([a.inputs, b.inputs]), labels=torch.cat([a.labels, b.labels]))
        positions = np.arange(len(whole))
    return Task(
        model=setup.model,
        start=setup.start,
        whole=whole,
        positions=torch.from_numpy(positions).to(setup.device),
        test=data.test,
        spec=train.model_copy(update={"target_loss": None}),
        noise_seed=setup.spec.seed_for("order", "joint"),
        augment=Augmentation.of(train, setup.mean, setup.std),
        resume=setup.checkpoints["joint"].read(),
        checkpoint=setup.checkpoints["joint"],
        epochs=train.spawn_epoch,
    )


def tasks_of(setup: Setup, joint: Progress | None = None) -> tuple[Task, Task]:
    """Training A, and training B, from where their checkpoints stand, or from where their joint training ended."""
    spec = setup.spec
    order_a = spec.seed_for("order")
    order_b = order_a if spec.train.noise == "fixed" else spec.seed_for("order", "b")
    augment = Augmentation.of(spec.train, setup.mean, setup.std)

    def task(member: str, part: Part, noise_seed: int) -> Task:
        checkpoint = setup.checkpoints[member]
        return Task(
            model=setup.model,
            start=setup.start,
            whole=part.whole,
            positions=torch.from_numpy(part.indices).to(setup.device),
            test=setup.data.test,
            spec=spec.train,
            noise_seed=noise_seed,
            augment=augment,
            resume=checkpoint.read() or joint,
            checkpoint=checkpoint,
        )

    return task("a", setup.data.a, order_a), task("b", setup.data.b, order_b)


def checkpoints(key: str, bench: Workbench) -> dict[str, Checkpoint]:
    """By member."""
    return {
        member: Checkpoint(
            path=bench.store.checkpoints / f"{key}-{member}.safetensors", seconds=bench.checkpoint_seconds
        )
        for member in ("a", "b", "joint")
    }


@lru_cache(maxsize=2)
def _dataset(spec: DatasetSpec, root: Path, device: torch.device) -> Dataset:
    """Opened once per worker, however many pairs it runs."""
    return open_dataset(spec, root, device)


@lru_cache(maxsize=2)
def _network(spec: ModelSpec, shape: tuple[int, ...], n_classes: int, device: torch.device) -> nn.Module:
    return build_model(spec, shape, n_classes, seed=0, device=device)


@lru_cache(maxsize=2)
def _views(spec: DatasetSpec, root: Path, device: torch.device, shift: ShiftSpec) -> tuple[Dataset, Dataset]:
    """The data set as each member sees it; made once for all replicates of a domain shift."""
    other = shift.other_dataset(spec)
    return views(_dataset(spec, root, device), shift, _dataset(other, root, device) if other else None)


@lru_cache(maxsize=64)
def _split(spec: DatasetSpec, root: Path, device: torch.device, shift: ShiftSpec, seed: int) -> tuple[Parts, Row]:
    """The two parts, and how far they are apart: the same for every rate, batch size and network of a replicate.

    Indices alone: what is kept here must not hold the views of domains that are done with.
    """
    seen = _views(spec, root, device, shift)
    data = pair_data(*seen, parts := split_views(*seen, shift, seed))
    counts = [_label_counts(part.labels, DATASETS[spec.name].n_classes) for part in (data.a, data.b)]
    samples = [next(part.chunks(_SHIFT_SAMPLE)).inputs.flatten(1).cpu().numpy() for part in (data.a, data.b)]
    return parts, {"label_shift": total_variation(*counts), "covariate_shift": energy_coefficient(*samples)}


def _label_counts(labels: Tensor, n_classes: int) -> NDArray[np.int64]:
    """(n_classes,) how many examples have each label."""
    known: NDArray[np.int64] = labels.cpu().numpy()
    return known.sum(0) if known.ndim == 2 else np.bincount(known, minlength=n_classes)
