"""Steps of training per second, stacked and one by one: ``python -m benchmarks.throughput [--device cuda] [--quick]``.

Stacks of more and more pairs against the loop one would write, alternately in one process on one device, on random
examples; set-up and scoring are left out on both sides. The *floor* is the least time that the device could take for a
step's arithmetic, or for moving its bytes, whichever is longer. Of lmc-tune's packages it needs torch, torchvision,
numpy, pydantic, pyarrow and safetensors.
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain_loop import train_epoch
from benchmarks.publish import publish
from lmc_tune.data.datasets import Examples
from lmc_tune.models.registry import build_model
from lmc_tune.specs import (
    DatasetSpec,
    MeasureSpec,
    MlpSpec,
    ModelSpec,
    PairSpec,
    ResnetSpec,
    ShiftSpec,
    TrainSpec,
    VggSpec,
)
from lmc_tune.training.engines import engine_for
from lmc_tune.training.order import epoch_batches
from lmc_tune.training.stacked import StackedRun
from lmc_tune.training.task import Task

_BATCH_SIZES = (32, 512)
_RUNS = 5
_MOST_PAIRS = {"cpu": 64, "cuda": 256}
# Seconds of a stack's run beyond which no larger stack is tried.
_LONG = {"cpu": 0.8, "cuda": 2.0}
_EXAMPLES = 8192
# The budget by which pairs per hour are counted: of each member.
_BUDGET_EPOCHS, _BUDGET_EXAMPLES = 20, 25_000
# What each step of SGD moves at the least, in float32: weights read, gradient written, momentum read and written,
# weights written.
_BYTES_PER_PARAMETER = 5 * 4
_RAY_SECONDS, _RAY_START_SECONDS = 20, 90


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network and its kind of images. steps: in a run of batches of 32; slow_on_cpu: too slow for batches of 512."""

    spec: ModelSpec
    dataset: str = "mnist"
    steps: int
    slow_on_cpu: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        return (1, 28, 28) if self.dataset == "mnist" else (3, 32, 32)

    def steps_of(self, batch_size: int, device: str) -> int:
        return 50 if device == "cuda" else max(1, self.steps * 32 // batch_size)


CASES = {
    "small MLP": Case(spec=MlpSpec(hidden=(32,)), steps=160),
    "MLP-L1": Case(spec=MlpSpec(hidden=(512,)), steps=32),
    "MLP-L3": Case(spec=MlpSpec(hidden=(512, 512, 512)), steps=16),
    "VGG-11": Case(spec=VggSpec(norm="batch"), dataset="cifar10", steps=1, slow_on_cpu=True),
    "ResNet-20": Case(spec=ResnetSpec(), dataset="cifar10", steps=4),
    "ResNet-18": Case(spec=ResnetSpec(depth=18), dataset="cifar10", steps=1, slow_on_cpu=True),
}


class Trainer(Protocol):
    """Trains members an epoch at a time."""

    def epoch(self, number: int) -> None: ...
    def states(self) -> list[dict[str, Tensor]]: ...


class Stacked:
    """The members of a stack."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._run = StackedRun(tasks)
        self._rates = [[task.spec.lr for task in tasks]] * tasks[0].steps_per_epoch

    def epoch(self, number: int) -> None:
        self._run.epoch(number, self._rates)

    def states(self) -> list[dict[str, Tensor]]:
        return [self._run.stack.state(member) for member in range(self._run.stack.size)]


class Plain:
    """The same members, one after the other."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks
        self._parts = [task.whole.take(task.positions.cpu().numpy()) for task in tasks]
        self._models = [copy.deepcopy(task.model) for task in tasks]
        self._optimizers = [
            torch.optim.SGD(model.parameters(), lr=task.spec.lr, momentum=task.spec.momentum)
            for model, task in zip(self._models, tasks, strict=True)
        ]

    def epoch(self, number: int) -> None:
        members = zip(self._models, self._optimizers, self._parts, self._tasks, strict=True)
        for model, optimizer, part, task in members:
            order = epoch_batches(len(part), task.spec.batch_size, task.noise_seed, number)
            train_epoch(model, optimizer, part, order)

    def states(self) -> list[dict[str, Tensor]]:
        return [model.state_dict() for model in self._models]


def make_tasks(  # noqa: PLR0913 - what a step depends on
    case: Case,
    *,
    members: int,
    batch_size: int,
    steps: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> list[Task]:
    """Members that begin alike and see their own examples, ``steps`` batches in an epoch."""
    generator = torch.Generator().manual_seed(0)
    n = max(_EXAMPLES, steps * batch_size)
    whole = Examples(
        inputs=torch.randn(n, *case.shape, generator=generator).to(device, dtype),
        labels=torch.randint(10, (n,), generator=generator).to(device),
    )
    model = build_model(case.spec, case.shape, 10, seed=0, device=device).to(dtype)
    start = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return [
        Task(
            model=model,
            start=start,
            whole=whole,
            positions=torch.randperm(n, generator=generator)[: steps * batch_size].to(device),
            test=Examples(inputs=whole.inputs[:1], labels=whole.labels[:1]),
            spec=TrainSpec(lr=0.01, momentum=0.9, batch_size=batch_size, epochs=_BUDGET_EPOCHS),
            noise_seed=member,
        )
        for member in range(members)
    ]


def medians(trainers: Mapping[str, Trainer], device: str, runs: int = _RUNS) -> dict[str, float]:
    """Median seconds of an epoch of each, run alternately; the first, which allocates and records, does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(runs + 1):
        for name, trainer in trainers.items():
            seconds[name].append(_seconds(partial(trainer.epoch, number), device))
    return {name: statistics.median(found[1:]) for name, found in seconds.items()}


def _seconds(work: Callable[[], object], device: str) -> float:
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def step_flops(case: Case, batch_size: int) -> float:
    """Floating-point operations of one member's step, counted on a batch of two."""
    model = build_model(case.spec, case.shape, 10, seed=0).train()
    with FlopCounterMode(display=False) as counter:
        functional.cross_entropy(model(torch.zeros(2, *case.shape)), torch.tensor([0, 1])).backward()
    return float(counter.get_total_flops()) * batch_size / 2


def step_bytes(case: Case, batch_size: int) -> float:
    """Bytes that one member's step moves at the least: weights, gradient, momentum and inputs once each."""
    model = build_model(case.spec, case.shape, 10, seed=0)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return _BYTES_PER_PARAMETER * parameters + 4 * batch_size * torch.Size(case.shape).numel()


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What a device can do. flops: by network's kind, products of large matrices; bytes: of a copy, both per second.

    Perceptrons multiply in float32; for convolutions PyTorch takes TF32 where the device has it.
    """

    perceptron_flops: float
    convolution_flops: float
    bytes: float

    def seconds(self, case: Case, batch_size: int) -> float:
        """Least time of one member's step."""
        flops = self.perceptron_flops if isinstance(case.spec, MlpSpec) else self.convolution_flops
        return max(step_flops(case, batch_size) / flops, step_bytes(case, batch_size) / self.bytes)

    def facts(self) -> dict[str, object]:
        return {
            "perceptron_gflop_per_second": self.perceptron_flops / 1e9,
            "convolution_gflop_per_second": self.convolution_flops / 1e9,
            "copy_gb_per_second": self.bytes / 1e9,
        }


def measure_floor(device: str, side: int, runs: int = _RUNS) -> Floor:
    """The best of some runs, of square matrices of this side and of arrays of 256 MB."""
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    source = torch.zeros(2**26, device=device)
    target = torch.zeros_like(source)

    def best(work: Callable[[], object]) -> float:
        return min(_seconds(work, device) for _ in range(runs + 1))

    allowed, flops = torch.backends.cuda.matmul.allow_tf32, []
    for tf32 in (False, True):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        flops.append(2 * side**3 / best(lambda: torch.mm(a, b)))
    torch.backends.cuda.matmul.allow_tf32 = allowed
    copied = 2 * 4 * source.numel() / best(lambda: target.copy_(source))
    return Floor(perceptron_flops=flops[0], convolution_flops=flops[1], bytes=copied)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", choices=CASES, action="append", help="these networks")
    parser.add_argument("--quick", action="store_true", help="stacks of up to two pairs, batches of 32")
    parser.add_argument("--ray-fraction", type=int, metavar="K", help="instead: K loops at once, each 1/K of the GPU")
    chosen = parser.parse_args()
    names, device = chosen.only or list(CASES), chosen.device
    torch.set_num_threads(1)
    if chosen.ray_fraction:
        if device != "cuda":
            parser.error("--ray-fraction needs --device cuda")
        rows = _ray_rows(names, chosen.ray_fraction)
        publish("throughput-ray", rows, {"device": torch.cuda.get_device_name()})
        return
    floor = measure_floor(device, side=8192 if device == "cuda" else 2048)
    sizes, most = ((32,), 2) if chosen.quick else (_BATCH_SIZES, _MOST_PAIRS[device])
    rows = [row for name in names for size in sizes for row in throughput_rows(name, size, device, floor, most)]
    facts = {"device": torch.cuda.get_device_name() if device == "cuda" else "one core", **floor.facts()}
    publish(f"throughput-{device}", rows, facts)


def throughput_rows(name: str, batch_size: int, device: str, floor: Floor, most: int) -> Iterator[dict[str, object]]:
    """One row per size of the cohort, while a larger one can be expected to finish."""
    case, pairs, last = CASES[name], 1, 0.0
    if device == "cpu" and case.slow_on_cpu and batch_size > 32:
        yield _row(name, batch_size, device, floor)
        return
    steps = case.steps_of(batch_size, device)
    while pairs <= most and last <= _LONG[device]:
        try:
            tasks = make_tasks(case, members=2 * pairs, batch_size=batch_size, steps=steps, device=device)
            found = medians({"plain": Plain(tasks[:1]), "stack": Stacked(tasks)}, device)
        except torch.OutOfMemoryError:
            return
        plain, stack = steps / found["plain"], 2 * pairs * steps / found["stack"]
        yield _row(name, batch_size, device, floor, pairs=pairs, plain=plain, stack=stack)
        pairs, last = 2 * pairs, found["stack"]


def _row(  # noqa: PLR0913 - what a row says
    name: str,
    batch_size: int,
    device: str,
    floor: Floor,
    *,
    pairs: int | None = None,
    plain: float | None = None,
    stack: float | None = None,
) -> dict[str, object]:
    """Rates are members' steps per second; without them the row says what was left out."""
    case = CASES[name]
    per_pair = 2 * _BUDGET_EPOCHS * (_BUDGET_EXAMPLES // batch_size)
    return {
        "network": name,
        "batch_size": batch_size,
        "pairs": pairs,
        "runs": _RUNS if pairs else 0,
        "plain_steps_per_second": plain,
        "stack_steps_per_second": stack,
        "ratio": stack / plain if stack and plain else None,
        "plain_pairs_per_hour": 3600 * plain / per_pair if plain else None,
        "stack_pairs_per_hour": 3600 * stack / per_pair if stack else None,
        "share_of_floor": floor.seconds(case, batch_size) * stack if stack else None,
        "auto_takes": _auto(case, batch_size, device),
    }


def _auto(case: Case, batch_size: int, device: str) -> str:
    pair = PairSpec(
        dataset=DatasetSpec(name=case.dataset),
        model=case.spec,
        train=TrainSpec(lr=0.01, momentum=0.9, batch_size=batch_size, epochs=_BUDGET_EPOCHS),
        shift=ShiftSpec(),
        measure=MeasureSpec(),
        replicate=0,
    )
    return engine_for(pair, torch.device(device))


def _ray_rows(names: Sequence[str], loops: int) -> list[dict[str, object]]:
    from lmc_tune.sweep.backend import ray_session  # noqa: PLC0415 - Ray is not needed otherwise

    with ray_session(loops):
        return [_ray_row(name, size, loops, {"gpu": 1 / loops}) for name in names for size in _BATCH_SIZES]


def _ray_row(name: str, batch_size: int, loops: int, resources: Mapping[str, float]) -> dict[str, object]:
    """Steps per second of several plain loops at once, each a trial with these resources, all begun together."""
    from ray import tune  # noqa: PLC0415

    def trial(config: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        device = "cuda" if "gpu" in resources else "cpu"
        steps = CASES[name].steps_of(batch_size, device)
        plain = Plain(make_tasks(CASES[name], members=1, batch_size=batch_size, steps=steps, device=device))
        plain.epoch(0)
        _wait(device)
        early = config["start"] - time.time()
        if early < 0:
            raise RuntimeError(f"a loop was ready {-early:.0f} seconds after the others had begun")
        time.sleep(early)
        done, started = 0, time.perf_counter()
        while time.perf_counter() < started + _RAY_SECONDS:
            plain.epoch(done + 1)
            _wait(device)
            done += 1
        tune.report({"steps_per_second": done * steps / (time.perf_counter() - started)})

    with tempfile.TemporaryDirectory() as scratch:
        results = tune.Tuner(
            tune.with_resources(trial, dict(resources)),
            param_space={"start": time.time() + _RAY_START_SECONDS, "loop": tune.grid_search(list(range(loops)))},
            run_config=tune.RunConfig(storage_path=scratch, verbose=0),
        ).fit()
    if results.errors:
        raise RuntimeError(f"{len(results.errors)} of {loops} loops failed: {results.errors[0]}")
    rate = sum(float((results[at].metrics or {})["steps_per_second"]) for at in range(loops))
    return {"network": name, "batch_size": batch_size, "loops": loops, "steps_per_second": rate}


if __name__ == "__main__":
    main()
