"""The least time that work takes on a device: that of its arithmetic, or of moving its bytes, whichever is longer."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.networks import Network
from benchmarks.timing import RUNS, Clock, wall_clock
from lmc_tune.experiment.datasets import DATASETS

# What each step of SGD moves at least, in float32: it reads weights and momentum, and writes gradient, momentum and
# weights.
_BYTES_PER_PARAMETER = 5 * 4
_COPIED = {"cpu": 2**26, "cuda": 2**29}  # numbers
_SIDE = {"cpu": 2048, "cuda": 8192}  # of matrices


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What a device can do per second. flops: see :func:`peak_flops`; bytes: moved by a copy."""

    flops: float
    bytes: float

    def seconds(self, network: Network, batch_size: int) -> float:
        """Least time of one member's step."""
        return max(step_flops(network, batch_size) / self.flops, step_bytes(network, batch_size) / self.bytes)

    def facts(self) -> dict[str, object]:
        return {"gflop_per_second": self.flops / 1e9, "copy_gb_per_second": self.bytes / 1e9}


def measure_floor(device: torch.device) -> Floor:
    clock = wall_clock(device)
    source = torch.zeros(_COPIED[device.type], device=device)
    target = torch.zeros_like(source)
    copied = 2 * source.nbytes / _least_seconds(lambda: target.copy_(source), clock)
    return Floor(flops=peak_flops(device, clock), bytes=copied)


def peak_flops(device: torch.device, clock: Clock = time.perf_counter) -> float:
    """Floating-point operations per second in products of large float32 matrices, by the fastest library here."""
    side = _SIDE[device.type]
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    products = [partial(torch.mm, a, b)]
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        # Convolutions use oneDNN, products use MKL; on some processors oneDNN multiplies twice as fast.
        products.append(partial(functional.linear, a.to_mkldnn(), b.to_mkldnn()))
    return 2 * side**3 / min(_least_seconds(product, clock) for product in products)


def _least_seconds(work: Callable[[], object], clock: Clock) -> float:
    def seconds() -> float:
        started = clock()
        work()
        return clock() - started

    return min(seconds() for _ in range(RUNS + 1))


def flops_of(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions that work does."""
    onednn = torch.ops.mkldnn
    counts = {"_linear_pointwise": _linear_flops, "_convolution_pointwise": _convolution_flops}
    unknown = {getattr(onednn, name): count for name, count in counts.items() if hasattr(onednn, name)}
    with FlopCounterMode(display=False, custom_mapping=unknown) as counter:
        work()
    return int(counter.get_total_flops())


def _linear_flops(inputs: torch.Size, weight: torch.Size, *_: object, **__: object) -> int:
    return 2 * inputs.numel() * weight[0]


def _convolution_flops(_: torch.Size, weight: torch.Size, *__: object, out_shape: torch.Size, **___: object) -> int:
    return 2 * out_shape.numel() * weight[1:].numel()


def step_flops(network: Network, batch_size: int) -> float:
    """Floating-point operations of one member's step, counted on a batch of two."""
    model = network.build(0).train()
    two = network.examples(2, torch.Generator())
    return flops_of(lambda: functional.cross_entropy(model(two.inputs), two.labels).backward()) * batch_size / 2


def step_bytes(network: Network, batch_size: int) -> float:
    """Bytes that one member's step moves at least: weights, gradient, momentum and inputs once each."""
    parameters = sum(parameter.numel() for parameter in network.build(0).parameters())
    inputs = torch.Size(DATASETS[network.dataset].shape).numel()
    return _BYTES_PER_PARAMETER * parameters + 4 * batch_size * inputs
