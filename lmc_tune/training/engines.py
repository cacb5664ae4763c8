"""Choosing how members are trained: one after the other, or as stacks."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import torch

from lmc_tune.specs import FactorySpec, PairSpec
from lmc_tune.training.loop import train_member
from lmc_tune.training.stacked import train_stacked
from lmc_tune.training.task import Task, Trained

Engine = Literal["loop", "stacked"]


def engine_for(pair: PairSpec, device: torch.device) -> Engine:
    """What the space asks for; if it leaves it open, stacks on a GPU, where one network alone leaves it idle.

    A user's own network is trained in the loop: not everything that PyTorch can do can be stacked.
    """
    if pair.train.engine != "auto":
        return pair.train.engine
    return "stacked" if device.type == "cuda" and not isinstance(pair.model, FactorySpec) else "loop"


def train(tasks: Sequence[Task], engine: Engine) -> list[Trained]:
    """Train members of one program; results in their order."""
    if engine == "loop":
        return [train_member(task) for task in tasks]
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)  # splits may differ by a few examples
    for at, task in enumerate(tasks):
        alike[task.steps_per_epoch, task.n_steps].append(at)
    trained: dict[int, Trained] = {}
    for places in alike.values():
        trained |= dict(zip(places, train_stacked([tasks[at] for at in places]), strict=True))
    return [trained[at] for at in range(len(tasks))]
