"""Measuring a path, compared with the loop one would write: ``python -m benchmarks.paths [--device cuda]``.

The loop copies the model for every position, reads the examples through a ``DataLoader`` in batches of 128 and adds up
losses and hits batch by batch. It runs in an ordinary Python process. The scan runs in a process whose memory is
managed like that of a sweep's workers; the loop runs there once more, because glibc's settings alone make it faster for
some networks. All three run in turn, on one thread, on random networks and images; every network has its own processes.
The table has the ratios of their medians, by how much losses differ, and how near the scan comes to what the device can
multiply.
"""

import argparse
import copy
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.floor import flops_of, peak_flops
from benchmarks.networks import NETWORKS, Network
from benchmarks.publish import RESULTS, Row
from benchmarks.rows import Benchmark, add_options, run
from benchmarks.timing import RUNS, Clock, wall_clock
from lmc_tune.core.barrier import path_grid
from lmc_tune.data.examples import Examples
from lmc_tune.measurement import network as measured
from lmc_tune.measurement.lines import Segment
from lmc_tune.measurement.scan import scan
from lmc_tune.sweeps.backend import MEMORY
from lmc_tune.work.bench import Device
from lmc_tune.work.device import exact_device

# Targets of the ratio: of perceptrons, of convolutional networks.
LEAST_RATIO = (4, 1.5)
# On a GPU most of the loop's time is the DataLoader's, position after position.
_POSITIONS = {"cpu": (25, 5), "cuda": (25, 5)}
_EXAMPLES = {"cpu": (10_000, 1024), "cuda": (10_000, 10_000)}
# The most important first.
_MEASURED = ("MLP-L3", "ResNet-20", "MLP-L1", "VGG-11 batch norm", "VGG-11")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=_MEASURED, action="append", help="these networks")
    add_options(parser)
    chosen = parser.parse_args()
    run(benchmark(chosen.device, chosen.only), chosen.seconds, chosen.out or (None if chosen.only else RESULTS))


def benchmark(kind: Device, only: Sequence[str] | None = None) -> Benchmark:
    return Benchmark(
        result=f"paths-{kind}",
        jobs=[{"network": name} for name in only or _MEASURED],
        session=_session,
        measure=partial(_measure, kind),
    )


@contextmanager
def _session() -> Iterator[Mapping[str, object]]:
    """Nothing is shared: every network has its own processes, and its row names the device."""
    yield {}


def _measure(kind: Device, network: str) -> Iterator[list[Row]]:
    yield [_row(network, kind)]


def _row(name: str, kind: Device) -> Row:
    network = NETWORKS[name]
    positions, n = _POSITIONS[kind][network.convolutional], _EXAMPLES[kind][network.convolutional]
    with _process({}) as usual, _process(MEMORY) as worker:
        sides = {"loop": (usual, 0), "kept_loop": (worker, 0), "scan": (worker, 1)}
        found: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(RUNS + 1):  # the first run, which allocates, does not count
            for side, (process, way) in sides.items():
                found[side].append(process.submit(_seconds, name, kind, way).result())
        facts = worker.submit(_facts, name, kind).result()
    seconds = {side: statistics.median(runs[1:]) for side, runs in found.items()}
    return {
        "network": name,
        "device": facts["device"],
        "positions": positions,
        "examples": n,
        "runs": RUNS,
        **{f"{side}_seconds": taken for side, taken in seconds.items()},
        "evaluations_per_second": positions * n / seconds["scan"],
        "ratio": seconds["loop"] / seconds["scan"],
        "least_ratio": LEAST_RATIO[network.convolutional],
        "kept_ratio": seconds["kept_loop"] / seconds["scan"],
        "peak_gflop_per_second": facts["peak"] / 1e9,
        "share_of_peak": facts["flops"] / seconds["scan"] / facts["peak"],
        "largest_difference_of_loss": facts["difference"],
    }


@contextmanager
def _process(environment: Mapping[str, str]) -> Iterator[ProcessPoolExecutor]:
    """One process, started with additional environment variables."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as process:
        with patch.dict(os.environ, environment):
            process.submit(os.getpid).result()
        yield process


@cache
def _ways(name: str, kind: Device) -> tuple[Callable[[], list[float]], Callable[[], list[float]]]:
    convolutional = NETWORKS[name].convolutional
    sizes = _POSITIONS[kind][convolutional], _EXAMPLES[kind][convolutional]
    return ways(NETWORKS[name], *sizes, exact_device(kind))


def _clock(kind: Device) -> Clock:
    """On a CPU, the time of the process alone, whatever else runs on the machine."""
    return time.process_time if kind == "cpu" else wall_clock(exact_device(kind))


def _seconds(name: str, kind: Device, way: int) -> float:
    work, clock = _ways(name, kind)[way], _clock(kind)
    started = clock()
    work()
    return clock() - started


def _facts(name: str, kind: Device) -> dict[str, Any]:
    """What the scan computes, by how much losses differ, and what the device can do."""
    loop, scanned = _ways(name, kind)
    return {
        "device": torch.cuda.get_device_name() if kind == "cuda" else "one core",
        "difference": max(abs(x - y) for x, y in zip(loop(), scanned(), strict=True)),
        "flops": flops_of(scanned),
        "peak": peak_flops(exact_device(kind), _clock(kind)),
    }


def ways(
    network: Network, positions: int, n: int, device: torch.device
) -> tuple[Callable[[], list[float]], Callable[[], list[float]]]:
    """The loop and the scan; both give the mean loss at every position of a path, on n random examples."""
    examples = network.examples(n, torch.Generator().manual_seed(0))
    on_device = examples.to(device)
    a, b, model = (network.build(seed, device) for seed in range(3))
    lambdas = path_grid(positions).tolist()

    def loop() -> list[float]:
        return _loop(model, a.state_dict(), b.state_dict(), lambdas, examples, device)

    def scanned() -> list[float]:
        path = Segment(a.state_dict(), b.state_dict())
        return [score.loss for score in scan(measured.Network(model), path, lambdas, on_device)]

    return loop, scanned


@torch.no_grad()
def _loop(  # noqa: PLR0913, PLR0917 - what a path is
    model: nn.Module,
    state_a: Mapping[str, Tensor],
    state_b: Mapping[str, Tensor],
    lambdas: Sequence[float],
    examples: Examples,
    device: torch.device,
) -> list[float]:
    """Mean loss at every position."""
    loader = DataLoader(TensorDataset(examples.inputs, examples.labels), batch_size=128)
    losses = []
    for lambda_ in lambdas:
        network = copy.deepcopy(model)
        network.load_state_dict({name: (1 - lambda_) * a + lambda_ * state_b[name] for name, a in state_a.items()})
        network.eval()
        loss, hits = 0.0, 0
        for batch in loader:
            inputs, labels = (part.to(device) for part in batch)
            logits = network(inputs)
            loss += functional.cross_entropy(logits, labels, reduction="sum").item()
            hits += int((logits.argmax(1) == labels).sum())
        losses.append(loss / len(examples))
    return losses


if __name__ == "__main__":
    main()
