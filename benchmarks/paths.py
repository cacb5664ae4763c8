"""Measuring a path beside the loop one would write: ``python -m benchmarks.paths [--device cuda]``.

The loop copies the model for every position, reads the examples through a ``DataLoader`` in batches of 128 and adds
losses and hits up batch by batch. Both sides run alternately in one process per network, on one thread, on random
networks and images; the ratio of their medians is reported, and by how much their losses differ. What a process did
before matters: behind VGG-11 in one process, where the allocator seems to keep large blocks, ResNet-20's loop took a
third less time and its ratio was 1.26.
"""

import argparse
import copy
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.publish import publish
from lmc_tune.core.barrier import path_grid
from lmc_tune.data.datasets import Examples
from lmc_tune.measurement.scan import scan
from lmc_tune.models.registry import build_model
from lmc_tune.specs import MlpSpec, ModelSpec, ResnetSpec, VggSpec

_RUNS = 5
_MNIST, _CIFAR = (1, 28, 28), (3, 32, 32)
_POSITIONS = {"cpu": (25, 5), "cuda": (25, 25)}  # of perceptrons, of convolutional networks
_EXAMPLES = {"cpu": (10_000, 256), "cuda": (10_000, 10_000)}
_NETWORKS: dict[str, tuple[ModelSpec, tuple[int, int, int]]] = {
    "MLP-L1": (MlpSpec(hidden=(512,)), _MNIST),
    "MLP-L3": (MlpSpec(hidden=(512, 512, 512)), _MNIST),
    "VGG-11": (VggSpec(), _CIFAR),
    "VGG-11 batch norm": (VggSpec(norm="batch"), _CIFAR),
    "ResNet-20": (ResnetSpec(), _CIFAR),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    device = parser.parse_args().device
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh, max_tasks_per_child=1) as processes:
        rows = list(processes.map(_row, _NETWORKS, len(_NETWORKS) * [device]))
    publish(f"paths-{device}", rows)


def _row(name: str, device: str) -> dict[str, object]:
    torch.set_num_threads(1)
    spec, shape = _NETWORKS[name]
    convolutional = shape == _CIFAR
    positions, n = _POSITIONS[device][convolutional], _EXAMPLES[device][convolutional]
    generator = torch.Generator().manual_seed(0)
    examples = Examples(
        inputs=torch.randn(n, *shape, generator=generator), labels=torch.randint(10, (n,), generator=generator)
    )
    on_device = Examples(inputs=examples.inputs.to(device), labels=examples.labels.to(device))
    a, b, model = (build_model(spec, shape, 10, seed, device) for seed in range(3))
    lambdas = path_grid(positions).tolist()
    ways: dict[str, Callable[[], list[float]]] = {
        "loop": lambda: _loop(model, a.state_dict(), b.state_dict(), lambdas, examples, device),
        "scan": lambda: [score.loss for score in scan(model, a.state_dict(), b.state_dict(), lambdas, on_device)],
    }
    losses = {way: measure() for way, measure in ways.items()}  # first calls allocate
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(_RUNS):
        for way, measure in ways.items():
            seconds[way].append(_seconds(measure, device))
    medians = {way: statistics.median(found) for way, found in seconds.items()}
    return {
        "network": name,
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "positions": positions,
        "examples": n,
        "runs": _RUNS,
        **{f"{way}_seconds": median for way, median in medians.items()},
        "evaluations_per_second": positions * n / medians["scan"],
        "clock": "thread" if device == "cpu" else "wall",
        "ratio": medians["loop"] / medians["scan"],
        "least_ratio": 1.5 if convolutional else 4,
        "largest_difference_of_loss": max(abs(x - y) for x, y in zip(*losses.values(), strict=True)),
    }


def _seconds(measure: Callable[[], object], device: str) -> float:
    """Of the thread on a CPU, whatever else runs on the machine; on the clock with a GPU."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = clock()
    measure()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - started


@torch.no_grad()
def _loop(  # noqa: PLR0913, PLR0917 - what a path is
    model: nn.Module,
    state_a: Mapping[str, Tensor],
    state_b: Mapping[str, Tensor],
    lambdas: Sequence[float],
    examples: Examples,
    device: str,
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
