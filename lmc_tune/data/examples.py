"""Examples in memory: all of them, some of them, several sets as one."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Indices = NDArray[np.int64]

# So many tokens are passed forward where one image would be: batches of windows then take as much memory as of images.
_TOKENS_FOR_AN_IMAGE = 16
# How many images are read at once while some of them are gathered.
_GATHERED = 512


class ExampleSet(Protocol):
    """Examples that can be read in chunks, on one device."""

    @property
    def labels(self) -> Tensor: ...
    def __len__(self) -> int: ...
    def chunks(self, size: int) -> "Iterator[Examples]": ...


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Inputs (n, channels, height, width) float32 and labels int64, on one device.

    labels: (n,), or (n, classes) of 0 and 1 where an example may have several. Of text, inputs are tokens (n, context)
    int64, and labels the token behind each.
    """

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Indices) -> "Examples":
        """A copy of the examples at ``indices``, in that order."""
        at = torch.from_numpy(np.ascontiguousarray(indices)).to(self.labels.device)
        return Examples(inputs=self.inputs[at], labels=self.labels[at])

    def chunks(self, size: int) -> "Iterator[Examples]":
        """All examples in their order, ``size`` at a time."""
        for inputs, labels in zip(self.inputs.split(size), self.labels.split(size), strict=True):
            yield Examples(inputs=inputs, labels=labels)

    def to(self, device: torch.device) -> "Examples":
        return Examples(inputs=self.inputs.to(device), labels=self.labels.to(device))


@dataclass(frozen=True, kw_only=True)
class Part:
    """The examples of ``whole`` at ``indices``, in that order, for reading in chunks without a copy of them all."""

    whole: Examples
    indices: Indices

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> Tensor:
        return self.whole.labels[self._positions]

    def chunks(self, size: int) -> Iterator[Examples]:
        """All examples in their order, ``size`` at a time; each chunk's inputs are overwritten by the next."""
        whole = self.whole
        # One buffer for all chunks: short-lived tensors between long-lived ones would leave holes as large as a copy.
        buffer = whole.inputs.new_empty(min(size, len(self)), *whole.inputs.shape[1:])
        for at in self._positions.split(size):
            inputs = torch.index_select(whole.inputs, 0, at, out=buffer[: len(at)])
            yield Examples(inputs=inputs, labels=whole.labels[at])

    @property
    def _positions(self) -> Tensor:
        return torch.from_numpy(self.indices).to(self.whole.labels.device)


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Several sets of examples, one after the other."""

    sets: tuple[ExampleSet, ...]

    def __len__(self) -> int:
        return sum(map(len, self.sets))

    @property
    def labels(self) -> Tensor:
        return torch.cat([one.labels for one in self.sets])

    def chunks(self, size: int) -> Iterator[Examples]:
        """All examples in their order, at most ``size`` at a time; no chunk spans two sets."""
        for one in self.sets:
            yield from one.chunks(size)


@dataclass(frozen=True, kw_only=True)
class Woven:
    """Two parts of equal length; every chunk has as many examples of one as of the other."""

    a: Part
    b: Part

    def __len__(self) -> int:
        return len(self.a) + len(self.b)

    @property
    def labels(self) -> Tensor:
        return torch.cat([self.a.labels, self.b.labels])

    def chunks(self, size: int) -> Iterator[Examples]:
        """All examples, at most ``size`` at a time, an even number: two at least."""
        half = max(1, size // 2)
        for one, other in zip(self.a.chunks(half), self.b.chunks(half), strict=True):
            inputs, labels = torch.cat([one.inputs, other.inputs]), torch.cat([one.labels, other.labels])
            yield Examples(inputs=inputs, labels=labels)


def are_text(inputs: Tensor) -> bool:
    """Whether inputs are tokens: whole numbers."""
    return not inputs.is_floating_point()


def at_once(examples: ExampleSet, most: int) -> int:
    """How many examples are read at once where ``most`` images would be: of text fewer, at least one."""
    some = next(examples.chunks(2), None)
    if some is None or not are_text(some.inputs):
        return most
    return max(1, most * _TOKENS_FOR_AN_IMAGE // some.inputs.shape[1])


def spread(examples: ExampleSet, n: int) -> Examples:
    """``n`` of the examples, evenly spaced among them; all if there are fewer."""
    size = at_once(examples, _GATHERED)
    chosen = torch.linspace(0, len(examples) - 1, min(n, len(examples))).round().long()
    first, found = 0, []
    for some in examples.chunks(size):
        at = (chosen[(chosen >= first) & (chosen < first + len(some))] - first).to(some.labels.device)
        found.append(Examples(inputs=some.inputs[at], labels=some.labels[at]))
        first += len(some)
    return Examples(inputs=torch.cat([one.inputs for one in found]), labels=torch.cat([one.labels for one in found]))
