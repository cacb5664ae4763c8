"""Timing ways of doing the same work, in turn."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch

RUNS = 5
# Seconds since some moment.
Clock = Callable[[], float]

_Name = TypeVar("_Name", bound=Hashable)


def medians(
    ways: Mapping[_Name, Callable[[int], object]], runs: int = RUNS, clock: Clock = time.perf_counter
) -> dict[_Name, float]:
    """Median seconds of each way, run in turn; the first run, which allocates and records, does not count.

    Args:
        ways: each is called with the number of the run, from 0.
        runs: how many runs of each way count.
        clock: is read before and after each call.
    """
    seconds: dict[_Name, list[float]] = {name: [] for name in ways}
    for number in range(runs + 1):
        for name, work in ways.items():
            started = clock()
            work(number)
            seconds[name].append(clock() - started)
    return {name: statistics.median(found[1:]) for name, found in seconds.items()}


def wall_clock(device: torch.device) -> Clock:
    """A clock that first waits until the device has done its work."""
    if device.type != "cuda":
        return time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return clock
