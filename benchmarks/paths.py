"""Measuring a path beside the loop one would write: ``python -m benchmarks.paths [--device cuda]``.

The loop copies the model for every position, reads the examples through a ``DataLoader`` in batches of 128 and adds
losses and hits up batch by batch. Both sides run alternately in one process per network, on one thread, on random
networks and images; the ratio of their medians is reported, by how much their losses differ, and how near the scan
comes to what the device can multiply. What a process did before matters: behind VGG-11 in one process, where the
allocator seems to keep large blocks, ResNet-20's loop took a third less time and its ratio was 1.26.
"""

import argparse
import copy
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.floor import flops_of, peak_flops
from benchmarks.networks import NETWORKS, Network
from benchmarks.publish import publish
from benchmarks.timing import RUNS, medians, wall_clock
from lmc_tune.core.barrier import path_grid
from lmc_tune.data.examples import Examples
from lmc_tune.device import exact_device
from lmc_tune.measurement.scan import scan
from lmc_tune.sweep.backend import ENVIRONMENT
from lmc_tune.workbench import Device

# Of perceptrons, of convolutional networks.
LEAST_RATIO = (4, 1.5)
_POSITIONS = {"cpu": (25, 5), "cuda": (25, 25)}
_EXAMPLES = {"cpu": (10_000, 1024), "cuda": (10_000, 10_000)}
_MEASURED = ("MLP-L1", "MLP-L3", "VGG-11", "VGG-11 batch norm", "ResNet-20")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", choices=_MEASURED, action="append", help="these networks")
    chosen = parser.parse_args()
    names = chosen.only or _MEASURED
    os.environ.update(ENVIRONMENT)  # of a sweep's workers, where paths are measured
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh, max_tasks_per_child=1) as processes:
        rows = list(processes.map(_row, names, len(names) * [chosen.device]))
    publish(f"paths-{chosen.device}", rows, whole=not chosen.only)


def _row(name: str, kind: Device) -> dict[str, object]:
    torch.set_num_threads(1)
    device, network = exact_device(kind), NETWORKS[name]
    positions, n = _POSITIONS[kind][network.convolutional], _EXAMPLES[kind][network.convolutional]
    # Of the process on a CPU, whatever else runs on the machine.
    clock = time.process_time if kind == "cpu" else wall_clock(device)
    loop, scanned = ways(network, positions, n, device)
    largest_difference = max(abs(x - y) for x, y in zip(loop(0), scanned(0), strict=True))
    seconds = medians({"loop": loop, "scan": scanned}, clock=clock)
    peak = peak_flops(device, clock)
    return {
        "network": name,
        "device": torch.cuda.get_device_name() if kind == "cuda" else kind,
        "positions": positions,
        "examples": n,
        "runs": RUNS,
        "loop_seconds": seconds["loop"],
        "scan_seconds": seconds["scan"],
        "evaluations_per_second": positions * n / seconds["scan"],
        "clock": "thread" if kind == "cpu" else "wall",
        "ratio": seconds["loop"] / seconds["scan"],
        "least_ratio": LEAST_RATIO[network.convolutional],
        "peak_gflop_per_second": peak / 1e9,
        "share_of_peak": flops_of(lambda: scanned(0)) / seconds["scan"] / peak,
        "largest_difference_of_loss": largest_difference,
    }


def ways(
    network: Network, positions: int, n: int, device: torch.device
) -> tuple[Callable[[int], list[float]], Callable[[int], list[float]]]:
    """The loop and the scan; both give the mean loss at every position of a path, on n random examples."""
    examples = network.examples(n, torch.Generator().manual_seed(0))
    on_device = examples.to(device)
    a, b, model = (network.build(seed, device) for seed in range(3))
    lambdas = path_grid(positions).tolist()

    def loop(_: int) -> list[float]:
        return _loop(model, a.state_dict(), b.state_dict(), lambdas, examples, device)

    def scanned(_: int) -> list[float]:
        return [score.loss for score in scan(model, a.state_dict(), b.state_dict(), lambdas, on_device)]

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
