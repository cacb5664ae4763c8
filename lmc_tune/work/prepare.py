"""A group in memory: its data and network, and what there is to train of its members."""

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lmc_tune.core.measured_shift import energy_coefficient, total_variation
from lmc_tune.data.augment import Augmentation
from lmc_tune.data.datasets import Dataset
from lmc_tune.data.domains import PairData, pair_data, split_views, views
from lmc_tune.data.examples import Examples, ExampleSet, Part
from lmc_tune.data.prepared import open_dataset
from lmc_tune.data.shifts import Parts
from lmc_tune.experiment import DataSpec, FactorySpec, GroupSpec, MemberSpec, ModelSpec, ShiftSpec
from lmc_tune.experiment.datasets import DatasetFacts, facts_of
from lmc_tune.measurement.network import Network
from lmc_tune.models.registry import build_model
from lmc_tune.models.state import state_of
from lmc_tune.tables.columns import Row
from lmc_tune.training.checkpoint import Checkpoint
from lmc_tune.training.distillation import Teacher
from lmc_tune.training.disturbance import disturbance
from lmc_tune.training.engines import Engines
from lmc_tune.training.progress import Progress
from lmc_tune.training.task import Task
from lmc_tune.work.bench import Workbench
from lmc_tune.work.device import exact_device

# Examples of each part that the measured covariate shift looks at; its cost grows with the square.
_SHIFT_SAMPLE = 500


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A group before training: its data, a network, and the initial state of its members, on the CPU.

    folders: where factories are looked for.

    Groups of one architecture may share the network: whoever uses it loads weights into it first.
    """

    spec: GroupSpec
    n_classes: int
    mean: Tensor
    std: Tensor
    data: PairData
    measured_shift: Row
    model: nn.Module
    start: dict[str, Tensor]
    device: torch.device
    folders: tuple[str, ...] = ()

    def start_of(self, member: MemberSpec) -> dict[str, Tensor]:
        """The initial state of a member, on the CPU: that of all, or its own."""
        if not member.init:
            return self.start
        shape = tuple(self.data.a.whole.inputs.shape[1:])
        return state_of(build_model(member.model, shape, self.n_classes, member.init_seed, folders=self.folders))


def prepare(spec: GroupSpec, bench: Workbench) -> Setup:
    """Load a group's data, split them, and build its network."""
    device = exact_device(bench.device)
    known, source = supplies(), (spec.dataset, bench.data_root, device)
    dataset = known.dataset(*source)
    parts, measured_shift = known.split(*source, spec.shift, _split_seed(spec))
    data = pair_data(*known.views(*source, spec.shift), parts)
    model, start = network_of(spec, dataset, bench)
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
        folders=bench.folders,
    )


def _split_seed(spec: GroupSpec) -> int | None:
    """What decides how the training set is split; None if all members see all of it."""
    shared = any(member.part.side == "whole" for member in spec.members.values())
    return None if shared else spec.seed_for("split")


def network_of(spec: GroupSpec, dataset: Dataset, bench: Workbench) -> tuple[nn.Module, dict[str, Tensor]]:
    """A group's network, on the bench's device, and the initial state of its members, on the CPU."""
    device, shape = exact_device(bench.device), tuple(dataset.train.inputs.shape[1:])
    built = build_model(spec.model, shape, dataset.n_classes, spec.seed_for("init"), folders=bench.folders)
    start = state_of(built)
    if isinstance(spec.model, FactorySpec):  # which may keep more than its state
        return built.to(device), start
    return supplies().network(spec.model, shape, dataset.n_classes, device), start


def task_of(  # noqa: PLR0913, PLR0917
    setup: Setup,
    member: MemberSpec,
    checkpoint: Checkpoint,
    begin: Progress | None = None,
    epochs: int | None = None,
    snapshots: tuple[int, ...] = (),
    teacher: Progress | None = None,
) -> Task:
    """Training a member of the group, from where its checkpoint stands; from its beginning if that came by an epoch
    without the snapshot that is asked for.

    Args:
        setup: of a group that has the member, or branches of it.
        member: what is to be trained.
        checkpoint: its file.
        begin: where it begins if there is no checkpoint; None for the initial weights.
        epochs: to the end of this epoch; None for the whole budget.
        snapshots: epochs at whose end the state is copied.
        teacher: whom it learns from; None if it learns from labels alone.

    Raises:
        ValueError: if the member's data set, model, seed or replicate are not the group's, of which they are made.
    """
    group = setup.spec
    for name in ("dataset", "model", "seed", "replicate"):
        if getattr(member, name) != getattr(group, name):
            raise ValueError(f"a member has the {name} of its group")
    whole, positions, test = _shown(setup.data, member)
    disturbed, distil = member.perturbation, member.distil
    return Task(
        model=setup.model,
        start=setup.start_of(member),
        whole=whole,
        positions=torch.from_numpy(positions).to(setup.device),
        test=test,
        spec=member.train,
        noise_seed=member.noise_seed,
        augment=Augmentation.of(member.train, setup.mean, setup.std),
        disturbance=disturbance(disturbed, setup.start, Network(setup.model).layers, member.seed_for("perturbation"))
        if disturbed
        else None,
        course=member.course,
        teacher=Teacher(state=teacher.state, beta=distil.beta, temperature=distil.temperature)
        if distil and teacher
        else None,
        resume=next((known for known in (checkpoint.read(snapshots), begin) if known and known.has(snapshots)), None),
        checkpoint=checkpoint,
        epochs=epochs,
        snapshots=snapshots,
    )


def _shown(data: PairData, member: MemberSpec) -> tuple[Examples, NDArray[np.int64], ExampleSet]:
    """A training set and where in it the member's part is; and the test set as the member sees it."""
    if member.part.side in {"a", "whole"}:
        return data.a.whole, data.a.indices, data.test_a
    if member.part.side == "b":
        return data.b.whole, data.b.indices, data.test_b
    if isinstance(data.train, Part):
        return data.train.whole, data.train.indices, data.test
    a, b = (part.whole.take(part.indices) for part in (data.a, data.b))  # of two domains
    whole = Examples(inputs=torch.cat([a.inputs, b.inputs]), labels=torch.cat([a.labels, b.labels]))
    return whole, np.arange(len(whole)), data.test


class Supplies:
    """What a process keeps between groups: data sets, their views, splits, networks, and which stacks it has checked.

    No result depends on it; :meth:`clear` gives its memory back.
    """

    def __init__(self) -> None:
        self.engines = Engines()
        self.dataset = lru_cache(maxsize=2)(open_dataset)
        self.network = lru_cache(maxsize=2)(_any_network)
        self.views = lru_cache(maxsize=2)(self._views)
        self.split = lru_cache(maxsize=64)(self._split)

    def clear(self) -> None:
        """Forget everything."""
        self.engines = Engines()
        for cached in (self.dataset, self.network, self.views, self.split):
            cached.cache_clear()

    def _views(self, spec: DataSpec, root: Path, device: torch.device, shift: ShiftSpec) -> tuple[Dataset, Dataset]:
        """The data set as each member sees it; made once for all replicates of a domain shift."""
        other = shift.other_dataset(spec)
        return views(self.dataset(spec, root, device), shift, self.dataset(other, root, device) if other else None)

    def _split(
        self, spec: DataSpec, root: Path, device: torch.device, shift: ShiftSpec, seed: int | None
    ) -> tuple[Parts, Row]:
        """The two parts, and how far they are apart: the same for every rate, batch size and network of a replicate.
        Without a seed both are the whole training set.

        Indices alone: what is kept here must not hold the views of domains that are done with.
        """
        seen = self.views(spec, root, device, shift)
        if seed is None:
            everything = np.arange(len(seen[0].train))
            return Parts(a=everything, b=everything), {"label_shift": 0.0, "covariate_shift": 0.0}
        data = pair_data(*seen, parts := split_views(*seen, shift, seed))
        facts = facts_of(spec)
        counts = [label_counts(part.labels, facts) for part in (data.a, data.b)]
        samples = [_features(next(part.chunks(_SHIFT_SAMPLE)).inputs, facts) for part in (data.a, data.b)]
        return parts, {"label_shift": total_variation(*counts), "covariate_shift": energy_coefficient(*samples)}


@cache
def supplies() -> Supplies:
    """The supplies of this process."""
    return Supplies()


def _any_network(spec: ModelSpec, shape: tuple[int, ...], n_classes: int, device: torch.device) -> nn.Module:
    return build_model(spec, shape, n_classes, seed=0, device=device)


def label_counts(labels: Tensor, facts: DatasetFacts) -> NDArray[np.int64]:
    """(n_classes,) how many examples, or tokens, have each label."""
    known: NDArray[np.int64] = labels.cpu().numpy()
    return known.sum(0) if facts.multi_label else np.bincount(known.ravel(), minlength=facts.n_classes)


def _features(inputs: Tensor, facts: DatasetFacts) -> NDArray[np.float64]:
    """(n, features) in which parts are compared: all pixels; of text, how frequent every token is in a window."""
    if not facts.is_text:
        pixels: NDArray[np.float64] = inputs.flatten(1).cpu().numpy()
        return pixels
    counts = [np.bincount(window, minlength=facts.n_classes) for window in inputs.cpu().numpy()]
    return np.stack(counts) / facts.shape[0]
