"""A training step recorded once as a CUDA graph and replayed: launching kernels limits small networks."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

# Steps before a recording: kernels are chosen and memory is laid out.
_WARM_UP = 3


def can_record(device: torch.device) -> bool:
    return device.type == "cuda"


def record(work: Callable[[], None]) -> Callable[[], None]:
    """A recording of CUDA work, made after a few runs; calling it repeats the work on the same memory."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


class Replay:
    """A step that can be replayed with other inputs.

    Args:
        step: reads its feed and updates ``state`` in place, without looking at any value on the host.
        feed: tensors of the shapes that every later feed has.
        state: everything that a step changes; it is the same after the recording as before.
    """

    def __init__(
        self, step: Callable[[Mapping[str, Tensor]], None], feed: Mapping[str, Tensor], state: Sequence[Tensor]
    ) -> None:
        self._feed = {name: tensor.clone() for name, tensor in feed.items()}
        before = [tensor.detach().clone() for tensor in state]
        self._again = record(lambda: step(self._feed))
        with torch.no_grad():
            for tensor, was in zip(state, before, strict=True):
                tensor.copy_(was)

    def __call__(self, feed: Mapping[str, Tensor]) -> None:
        for name, tensor in feed.items():
            self._feed[name].copy_(tensor)
        self._again()
