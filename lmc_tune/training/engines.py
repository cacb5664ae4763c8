"""Choosing how members are trained: one after the other, or as stacks."""

import copy
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Literal

import torch
from torch import Tensor

from lmc_tune.data.examples import at_once
from lmc_tune.experiment import FactorySpec, MemberSpec, MlpSpec, TrainSpec
from lmc_tune.experiment.datasets import facts_of
from lmc_tune.measurement.evaluate import CHUNK
from lmc_tune.models.inference import VECTOR
from lmc_tune.models.stack import Way
from lmc_tune.training.loop import train_member
from lmc_tune.training.progress import CurvePoint, Progress
from lmc_tune.training.stacked import ALIGNED, train_stacked, ways_of
from lmc_tune.training.task import Task

Engine = Literal["loop", "stacked"]

# The weights of a larger perceptron, or the activations of a larger batch, times the members of a stack, do not fit
# into a core's cache: the loop is then as fast or faster.
_MOST_PARAMETERS_ON_CPU = 50_000
_LARGEST_BATCH_ON_CPU = 256
# A stack is checked by so many steps of all its members, of whom so many are trained by the loop as well, at rates at
# which rounding does not grow.
_STEPS, _LOOPED, _HIGHEST_RATE = 3, 4, 0.01
# Every entry of a member may end away from where the loop leaves it by this share of the way that it went, or by so
# many times what initial weights that are off by rounding do to it (docs/decisions/0017-the-stack-is-checked.md).
_SHARE = {"float32": 0.05, "bfloat16": 0.5}
_ROUNDING = {"float32": 2**-20, "bfloat16": 2**-9}
_TIMES = {"float32": 10, "bfloat16": 3}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The engine of a program. why: the reason if `auto` would otherwise take another engine; else empty."""

    engine: Engine
    why: str = ""


class Engines:
    """The engines of the programs that a worker runs.

    Where `auto` takes the stack on a device that this code may never have run on, the first members of each program are
    trained for a few steps by both engines beforehand, as copies: if a stack fails there or gives other members, this
    may cost speed, but never results.
    """

    def __init__(self) -> None:
        self._checked: dict[tuple[object, ...], Choice] = {}

    def choose(self, member: MemberSpec, device: torch.device, tasks: Callable[[], Sequence[Task]]) -> Choice:
        """The engine that trains members of this one's program.

        Args:
            member: any of them.
            device: where they are trained.
            tasks: gives the members that are to be trained together; called if they have to be checked.

        Raises:
            torch.OutOfMemoryError: if memory is short for so many; fewer can be tried.
        """
        engine = engine_for(member, device)
        if engine == "loop" or member.train.engine != "auto" or not is_unproven(device):
            return Choice(engine=engine)
        program = (*member.program, device)
        if program not in self._checked:
            why = _fault(tasks())
            self._checked[program] = Choice(engine="loop", why=why) if why else Choice(engine="stacked")
        return self._checked[program]


def is_unproven(device: torch.device) -> bool:
    """Whether stacks on this device depend on hardware and libraries that no test has seen."""
    return device.type == "cuda"


def engine_for(member: MemberSpec, device: torch.device) -> Engine:
    """The engine that the space asks for; by default, stacks where they are faster than the loop.

    That is on a GPU, where one network alone leaves it idle, and on a CPU for small perceptrons. There the stack has
    to give a member bit for bit the same result in every cohort, as the loop does (docs/decisions/0008-engines.md). A
    user's own network is trained in the loop: not everything that PyTorch can do can be stacked.
    """
    if member.distil:  # a stack of students would need one of teachers beside it
        return "loop"
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
    """The settings shared by the members of one stack; splits, and so steps, may differ by a few examples."""
    return task.spec.program, task.steps_per_epoch, task.n_steps, task.epochs_done, task.last_epoch, id(task.test)


def _fault(tasks: Sequence[Task]) -> str:
    """Why these members cannot be trained as a stack; empty if a stack takes a few steps as the loop does."""
    # In half precision only gross faults can be distinguished from rounding.
    checked = (_shortened(tasks, precision) for precision in sorted({"float32", tasks[0].spec.precision}, reverse=True))
    return next(filter(None, (_fault_of(copies, way) for copies in checked for way in ways_of(copies[0]))), "")


def _fault_of(copies: Sequence[Task], way: Way) -> str:
    some = copies[:_LOOPED]
    try:
        stacked = train([replace(task, way=way) for task in copies], "stacked")
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a library or a driver may say
        return f"a stack cannot be trained here: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    looped, nudged = train(some, "loop"), train([_nudged(task) for task in some], "loop")
    for task, *progress in zip(some, stacked[: len(some)], looped, nudged, strict=True):
        if entry := _differing(task, *progress):
            return f"in {_STEPS} steps a stack came to another {entry} than the loop"
    return ""


def _shortened(tasks: Sequence[Task], precision: str) -> list[Task]:
    """The same members at their start, with few steps to go, and copies of everything that training changes."""
    models = {id(task.model): copy.deepcopy(task.model) for task in tasks}
    tests = {id(task.test): next(task.test.chunks(at_once(task.test, CHUNK))) for task in tasks}

    def short(spec: TrainSpec) -> TrainSpec:
        budget = {"steps": _STEPS, "epochs": None, "target_loss": None}
        return spec.model_copy(update={**budget, "lr": min(spec.lr, _HIGHEST_RATE), "precision": precision})

    return [
        replace(
            task,
            model=models[id(task.model)],
            test=tests[id(task.test)],
            spec=short(task.spec),
            resume=None,
            checkpoint=None,
            epochs=None,
        )
        for task in tasks
    ]


def _nudged(task: Task) -> Task:
    """A member whose initial weights are off by rounding."""
    generator, size = torch.Generator().manual_seed(0), _ROUNDING[task.spec.precision]

    def off(tensor: Tensor) -> Tensor:
        noise = torch.randn(tensor.shape, generator=generator).to(tensor)
        return tensor * (1 + size * noise) if tensor.is_floating_point() else tensor

    return replace(task, start={name: off(tensor) for name, tensor in task.start.items()})


def _differing(task: Task, *progress: Progress) -> str:
    """The first entry that differs from the expected value; empty if there is none.

    Args:
        task: the member.
        progress: the results of a stack, of the loop, and of the loop from weights off by rounding.
    """
    precision = task.spec.precision
    found, expected, nudged = (_entries(task, one.state, one.curve) for one in progress)
    start = _entries(task, {name: tensor.cpu() for name, tensor in task.start.items()})
    for name, tensor in expected.items():
        went = (tensor - start.get(name, 0.0)).norm()
        allowed = max(_SHARE[precision] * went, _TIMES[precision] * (nudged[name] - tensor).norm())
        if not (found[name] - tensor).norm() <= allowed:  # NaN is not
            return name
    return ""


def _entries(task: Task, state: Mapping[str, Tensor], curve: Sequence[CurvePoint] = ()) -> dict[str, Tensor]:
    """A member's result by name, float64: its state (in half precision, all weights as one) and its losses."""
    entries = {name: tensor.double() for name, tensor in state.items()}
    if task.spec.precision == "bfloat16":
        entries = {"weights": torch.cat([entries[name].flatten() for name, _ in task.model.named_parameters()])}
    losses = {"train_loss": [p.train_loss for p in curve], "test_loss": [p.test_loss for p in curve]}
    return entries | {name: torch.tensor(values, dtype=torch.float64) for name, values in losses.items() if values}
