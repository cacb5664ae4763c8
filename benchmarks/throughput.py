"""Steps of training per second, stacked and one by one: ``python -m benchmarks.throughput [--device cuda]``.

Stacks of more and more pairs run alternately with the loop one would write, in one process, on one device and on random
examples; set-up and scoring are left out on both sides. Of lmc-tune's dependencies it needs only torch, torchvision,
numpy, pydantic, pyarrow and safetensors.
"""

import argparse
import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial

import torch

from benchmarks.floor import Floor, measure_floor
from benchmarks.networks import NETWORKS, Network
from benchmarks.plain_loop import train_epoch
from benchmarks.publish import RESULTS, Row
from benchmarks.rows import Benchmark, add_options, run
from benchmarks.timing import RUNS, medians, wall_clock
from lmc_tune.data.examples import Examples
from lmc_tune.experiment import DatasetSpec, GroupSpec, ShiftSpec, TrainSpec
from lmc_tune.models.stack import Way
from lmc_tune.sweeps.plan import Slots
from lmc_tune.training.engines import engine_for
from lmc_tune.training.order import epoch_batches
from lmc_tune.training.stacked import StackedRun, ways_of
from lmc_tune.training.task import Task
from lmc_tune.work.bench import Device
from lmc_tune.work.device import exact_device

BATCH_SIZES = (_SMALL, _LARGE) = (32, 512)
# What the largest stack has to reach on a GPU, in small batches.
_OF_PERCEPTRONS = {"least_ratio": 30, "least_share_of_floor": 0.4}
LEAST: dict[str, dict[str, float]] = {
    "MLP-L1": _OF_PERCEPTRONS,
    "MLP-L3": _OF_PERCEPTRONS,
    "VGG-11 batch norm": {"least_ratio": 8},
    "ResNet-20": {"least_ratio": 8},
}
# Steps in a run of small batches on a CPU; a run of large batches takes proportionally fewer.
_STEPS = {"small MLP": 160, "MLP-L1": 32, "MLP-L3": 16, "VGG-11 batch norm": 1, "ResNet-20": 4, "ResNet-18": 1}
# The most important first.
TRAINED = ("MLP-L3", "ResNet-20", "MLP-L1", "VGG-11 batch norm", "small MLP", "ResNet-18")
_STEPS_ON_GPU = 50
# A step of a large batch takes too long on a CPU.
_LARGE_ON_GPU_ONLY = ("VGG-11 batch norm", "ResNet-18")
# Of the largest cohort in a sweep.
_MOST_PAIRS = {kind: Slots(number=1, gpu=kind == "cuda").cohort_size(10**6) for kind in ("cpu", "cuda")}
# How many times larger a stack is than the one before: on a GPU there is less time, and more to cover.
_FACTOR = {"cpu": 2, "cuda": 4}
# Seconds of a stack's run beyond which no larger stack is tried.
_LONG = {"cpu": 0.8, "cuda": 2.0}
_EXAMPLES = 8192
# Each member's budget, for which pairs per hour are counted.
_BUDGET_EPOCHS, _BUDGET_EXAMPLES = 20, 25_000


class Plain:
    """Members trained one after the other, an epoch at a time."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks
        self._parts = [task.whole.take(task.positions.cpu().numpy()) for task in tasks]
        self.models = [copy.deepcopy(task.model) for task in tasks]
        self._optimizers = [
            torch.optim.SGD(model.parameters(), lr=task.spec.lr, momentum=task.spec.momentum)
            for model, task in zip(self.models, tasks, strict=True)
        ]

    def epoch(self, number: int) -> None:
        members = zip(self.models, self._optimizers, self._parts, self._tasks, strict=True)
        for model, optimizer, part, task in members:
            order = epoch_batches(len(part), task.spec.batch_size, task.noise_seed, number)
            train_epoch(model, optimizer, part, order)


def make_tasks(  # noqa: PLR0913 - what a step depends on
    network: Network,
    *,
    members: int,
    batch_size: int,
    steps: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> list[Task]:
    """Members that have the same initial weights and see their own examples, ``steps`` batches in an epoch."""
    generator = torch.Generator().manual_seed(0)
    n = max(_EXAMPLES, steps * batch_size)
    drawn = network.examples(n, generator)
    whole = Examples(inputs=drawn.inputs.to(device, dtype), labels=drawn.labels.to(device))
    model = network.build(0, device).to(dtype)
    start = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return [
        Task(
            model=model,
            start=start,
            whole=whole,
            positions=torch.randperm(n, generator=generator)[: steps * batch_size].to(device),
            test=Examples(inputs=whole.inputs[:1], labels=whole.labels[:1]),
            spec=_spec(batch_size),
            noise_seed=member,
        )
        for member in range(members)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=TRAINED, action="append", help="these networks")
    add_options(parser)
    chosen = parser.parse_args()
    run(benchmark(chosen.device, chosen.only), chosen.seconds, chosen.out or (None if chosen.only else RESULTS))


def benchmark(kind: Device, only: Sequence[str] | None = None) -> Benchmark:
    """Small batches first: the targets are for them."""
    return Benchmark(
        result=f"throughput-{kind}",
        jobs=[
            {"network": name, "batch_size": size}
            for size in BATCH_SIZES
            for name in only or TRAINED
            if kind == "cuda" or size == _SMALL or name not in _LARGE_ON_GPU_ONLY
        ],
        session=partial(_session, kind),
        measure=partial(_measure, kind),
    )


@contextmanager
def _session(kind: Device) -> Iterator[Mapping[str, object]]:
    torch.set_num_threads(1)
    device = torch.cuda.get_device_name() if kind == "cuda" else "one core"
    yield {"device": device, **_floor(kind).facts()}


def _measure(kind: Device, network: str, batch_size: int) -> Iterator[list[Row]]:
    return throughput_rows(network, batch_size, exact_device(kind), _floor(kind), _MOST_PAIRS[kind])


@cache
def _floor(kind: Device) -> Floor:
    return measure_floor(exact_device(kind))


def targets() -> tuple[tuple[str, float, str], ...]:
    """Columns, their values, and the networks that have to reach them."""
    wanted: dict[tuple[str, float], list[str]] = {}
    for name, least in LEAST.items():
        for target in least.items():
            wanted.setdefault(target, []).append(name)
    return tuple((*target, ", ".join(names)) for target, names in wanted.items())


def steps_of(name: str, batch_size: int, device: torch.device) -> int:
    """Steps in a run."""
    return _STEPS_ON_GPU if device.type == "cuda" else max(1, _STEPS[name] * _SMALL // batch_size)


def throughput_rows(name: str, batch_size: int, device: torch.device, floor: Floor, most: int) -> Iterator[list[Row]]:
    """One row per size of the cohort, while a larger one can be expected to finish; the largest has the targets.

    With every new row, all rows so far are yielded.
    """
    network, steps = NETWORKS[name], steps_of(name, batch_size, device)
    per_pair = 2 * _BUDGET_EPOCHS * (_BUDGET_EXAMPLES // batch_size)
    rows, failed = list[Row](), list[Row]()
    for pairs in sizes(most, _FACTOR[device.type]):
        try:
            tasks = make_tasks(network, members=2 * pairs, batch_size=batch_size, steps=steps, device=device)
            ways = ways_of(tasks[0]) if device.type == "cuda" else ("vmap",)
            found = {way: time_way(tasks, way) for way in ways}
        except torch.OutOfMemoryError:
            failed = [{"network": name, "batch_size": batch_size, "pairs": pairs, "failed": "out of memory"}]
            break
        way, *others = sorted(found, key=lambda way: found[way]["stack"])
        rates = {side: count * steps / found[way][side] for side, count in (("plain", 1), ("stack", 2 * pairs))}
        row: Row = {
            "network": name,
            "batch_size": batch_size,
            "pairs": pairs,
            "runs": RUNS,
            **{f"{side}_steps_per_second": rate for side, rate in rates.items()},
            "way": way if others else None,
            "other_way_steps_per_second": 2 * pairs * steps / found[others[0]]["stack"] if others else None,
            "ratio": rates["stack"] / rates["plain"],
            "least_ratio": None,
            **{f"{side}_pairs_per_hour": 3600 * rate / per_pair for side, rate in rates.items()},
            "share_of_floor": floor.seconds(network, batch_size) * rates["stack"],
            "least_share_of_floor": None,
            "auto_takes": engine_for(_pair(network, batch_size).members["a"], device),
        }
        rows = [*rows, row]
        yield rows
        if found[way]["stack"] > _LONG[device.type]:
            break
    if rows and device.type == "cuda" and batch_size == _SMALL:
        rows[-1] |= LEAST.get(name, {})
    yield rows + failed


def sizes(most: int, factor: int) -> list[int]:
    """1, ``factor``, ``factor``² and so on, up to ``most``, which is the last."""
    found = [1]
    while found[-1] < most:
        found.append(min(factor * found[-1], most))
    return found


def time_way(tasks: Sequence[Task], way: Way) -> dict[str, float]:
    """Median seconds of an epoch of one member alone, and of the stack of all."""
    rates = [[task.spec.lr for task in tasks]] * tasks[0].steps_per_epoch
    stack = partial(StackedRun(tasks, way).epoch, rates=rates)
    return medians({"plain": Plain(tasks[:1]).epoch, "stack": stack}, clock=wall_clock(tasks[0].positions.device))


def _spec(batch_size: int) -> TrainSpec:
    return TrainSpec(lr=0.01, momentum=0.9, batch_size=batch_size, epochs=_BUDGET_EPOCHS)


def _pair(network: Network, batch_size: int) -> GroupSpec:
    return GroupSpec(
        dataset=DatasetSpec(name=network.dataset),
        model=network.spec,
        train=_spec(batch_size),
        shift=ShiftSpec(),
        replicate=0,
    )


if __name__ == "__main__":
    main()
