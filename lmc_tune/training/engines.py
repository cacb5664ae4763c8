"""Choosing how members are trained: one after the other, or as stacks."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import Literal

import torch

from lmc_tune.experiment import PER_MEMBER, FactorySpec, MemberSpec, MlpSpec
from lmc_tune.experiment.datasets import facts_of
from lmc_tune.models.inference import VECTOR
from lmc_tune.training.loop import train_member
from lmc_tune.training.progress import Progress
from lmc_tune.training.stacked import ALIGNED, train_stacked
from lmc_tune.training.task import Task

Engine = Literal["loop", "stacked"]

# The weights of a larger perceptron, or the activations of a larger batch, times the members of a stack, leave a core's
# cache: the loop is as fast, then faster.
_MOST_PARAMETERS_ON_CPU = 50_000
_LARGEST_BATCH_ON_CPU = 256


def engine_for(member: MemberSpec, device: torch.device) -> Engine:
    """What the space asks for; if it leaves it open, stacks where they are faster than the loop.

    That is on a GPU, where one network alone leaves it idle, and on a CPU for small perceptrons. There the stack has
    to give a member bit for bit the same result in every cohort, as the loop does (docs/decisions/0008-engines.md). A
    user's own network is trained in the loop: not everything that PyTorch can do can be stacked.
    """
    if member.train.engine != "auto":
        return member.train.engine
    if device.type == "cuda":
        return "loop" if isinstance(member.model, FactorySpec) else "stacked"
    return "stacked" if _small_and_aligned(member) else "loop"


def _small_and_aligned(member: MemberSpec) -> bool:
    if not isinstance(member.model, MlpSpec):
        return False
    facts = facts_of(member.dataset)
    widths = (prod(facts.shape), *member.model.hidden)
    parameters = sum(ins * outs for ins, outs in pairwise((*widths, facts.n_classes)))
    batch_size = member.train.batch_size
    # Where rows are whole vectors, none is computed differently at its end.
    aligned = batch_size % ALIGNED == 0 and not any(width % VECTOR for width in widths)
    return aligned and parameters <= _MOST_PARAMETERS_ON_CPU and batch_size <= _LARGEST_BATCH_ON_CPU


def train(tasks: Sequence[Task], engine: Engine) -> list[Progress]:
    """Train members of one architecture; results in their order, each kept as soon as it is finished.

    The stacked engine trains those at once that differ in no more than a stack's members may.
    """
    together: dict[tuple[object, ...], list[int]] = defaultdict(list)
    trained: dict[int, Progress] = {}
    for at, task in enumerate(tasks):
        if task.resume and task.has_ended:
            trained[at] = task.resume
        else:
            together[(at,) if engine == "loop" else _shared(task)].append(at)
    for places in together.values():
        began = time.perf_counter()
        timed = [replace(tasks[at], began=began, sharing=len(places)) for at in places]
        found = [train_member(task) for task in timed] if engine == "loop" else train_stacked(timed)
        trained |= {at: task.finish(progress) for at, task, progress in zip(places, timed, found, strict=True)}
    return [trained[at] for at in range(len(tasks))]


def _shared(task: Task) -> tuple[object, ...]:
    """What members of one stack have in common; splits may differ by a few examples, and so in their steps."""
    settings = task.spec.model_dump_json(exclude=PER_MEMBER | {"engine"})
    return settings, task.steps_per_epoch, task.n_steps, task.epochs_done, task.last_epoch, id(task.test)
