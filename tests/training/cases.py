"""Members of every network that is trained here, and what it means that two trainings agree."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from lmc_tune.data.augment import Augmentation
from lmc_tune.data.examples import Examples
from lmc_tune.experiment import TrainSpec
from lmc_tune.models.registry import build_model
from lmc_tune.training.progress import Progress
from lmc_tune.training.task import Task
from tests.cases import NETWORKS, WINDOW, examples_for, shape_of, task

RULES = {
    "sgd": {"optimizer": "sgd"},
    "momentum": {"optimizer": "sgd", "momentum": 0.9},
    "nesterov": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw"},
}
AUGMENTED = {"crop": 4, "flip": True, "jitter": 0.4}
MEAN, STD = torch.full((3, 1, 1), 0.4, dtype=torch.float64), torch.full((3, 1, 1), 0.3, dtype=torch.float64)
_LABELS = torch.randint(2, (50, 4), generator=torch.Generator().manual_seed(2))


def member(network: str, number: int, **train) -> Task:
    """The number decides weights, part, order, rate, decay and schedule."""
    given = {
        "lr": 0.003 * (number + 1),
        "weight_decay": 0.01 * number,
        "schedule": ("constant", "cosine", "step")[number % 3],
        "warmup": 0.1 * number,
        "batch_size": 5,
        "steps": 20,
    }
    kind = NETWORKS[network]
    model = build_model(kind, shape_of(kind), 4, seed=number).double()
    if shape_of(kind) == WINDOW:  # text is not augmented
        train = {name: value for name, value in train.items() if name not in AUGMENTED}
    spec = TrainSpec(**(given | train))
    whole = task(model, *_shared(network), spec, number)
    return replace(whole, positions=some_of(50, 40, number), augment=Augmentation.of(spec, MEAN, STD))


@cache
def _shared(network: str) -> tuple[Examples, Examples]:
    """The training set and the test set, the same for all members of a stack."""
    return tuple(examples_for(NETWORKS[network], n, seed=seed) for n, seed in ((50, 0), (9, 1)))


def some_of(n: int, size: int, seed: int) -> Tensor:
    """(size,) positions of a part of ``n`` examples."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:size]


def single(task: Task) -> Task:
    """The same in float32."""
    whole, test = (
        Examples(inputs=e.inputs.float() if e.inputs.is_floating_point() else e.inputs, labels=e.labels)
        for e in (task.whole, task.test)
    )
    model = task.model.float()
    start = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in task.start.items()}
    augment = task.augment and replace(task.augment, mean=task.augment.mean.float(), std=task.augment.std.float())
    return replace(task, model=model, start=start, whole=whole, test=test, augment=augment)


def assert_same(one: Progress, other: Progress) -> None:
    assert one.state.keys() == other.state.keys()
    for name, tensor in one.state.items():
        assert tensor.dtype == other.state[name].dtype
        assert largest_difference(name, tensor, other.state[name], adam="step" in one.moments) < 1e-10, name
    assert [vars(p) for p in one.curve] == [pytest.approx(vars(p), abs=1e-10, nan_ok=True) for p in other.curve]
    assert one.diverged == other.diverged


def largest_difference(name: str, one: Tensor, other: Tensor, *, adam: bool) -> float:
    difference = (one - other).abs()
    if adam and name.endswith("in_proj_bias"):
        # Softmax cancels the offset of attention's keys, the middle third: its gradient is rounding, and Adam, which
        # divides by the gradient's size, makes steps of it.
        difference = difference.view(3, -1)[[0, 2]]
    return float(difference.max())


def with_many_labels(task: Task) -> Task:
    """The same, but every image may have several of four labels."""
    whole, test = (Examples(inputs=e.inputs, labels=_LABELS[: len(e)]) for e in (task.whole, task.test))
    return replace(task, whole=whole, test=test)
