"""Work done side by side on one GPU."""

from collections.abc import Callable
from itertools import cycle

import torch
from torch import Tensor

# Kernels of small networks fill a GPU when about as many run at once.
_MOST = 16


class Lanes:
    """Streams of a GPU, whose kernels run at the same time; on a CPU, work is done one after the other.

    Autograd runs backward on the streams of the forward pass. A step with lanes can be recorded as a CUDA graph,
    where they become branches.

    Args:
        device: where the work is done.
        jobs: their least number in each call.
    """

    def __init__(self, device: torch.device, jobs: int) -> None:
        self._streams = [torch.cuda.Stream(device) for _ in range(min(jobs, _MOST))] if device.type == "cuda" else []

    def each(self, work: Callable[[int], Tensor], jobs: int) -> list[Tensor]:
        """The results of ``work`` for every number below ``jobs``."""
        if not self._streams:
            return [work(number) for number in range(jobs)]
        here = torch.cuda.current_stream()
        for stream in self._streams:
            stream.wait_stream(here)
        found = []
        for number, stream in zip(range(jobs), cycle(self._streams), strict=False):
            with torch.cuda.stream(stream):
                found.append(work(number))
        for stream in self._streams:
            here.wait_stream(stream)
        return found
