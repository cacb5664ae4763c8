"""What networks are measured on: batches in memory, from a loader, arrays, or examples that are there already."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmc_tune.data.examples import Examples, are_text
from lmc_tune.errors import UserError

Batch = Any


@dataclass(frozen=True, kw_only=True)
class Split:
    """Examples of one kind, in memory.

    batches: as a loader gives them, on one device. n: how many examples. examples: the same, where every batch is
    inputs and labels that can be joined; only these can have statistics estimated, and units matched.
    """

    batches: tuple[Batch, ...]
    n: int
    examples: Examples | None

    def __len__(self) -> int:
        return self.n


def split_of(data: Any, *, device: torch.device, batch_size: int, limit: int | None = None) -> Split:
    """Examples, from whatever holds them.

    Args:
        data: inputs and labels as a pair of tensors, :class:`~lmc_tune.data.examples.Examples`, or an iterable of
            batches, each inputs and labels, a mapping, or anything that a loss takes.
        device: where they are kept.
        batch_size: of tensors, and of batches that can be joined.
        limit: the first so many are taken.

    Raises:
        UserError: if there are none.
    """
    if isinstance(data, str):
        raise UserError(f"data are batches, or a pair of tensors, not {data!r}; names are for the command line")
    if isinstance(data, Examples):
        data = (data.inputs, data.labels)
    if isinstance(data, list | tuple) and len(data) == 2 and all(isinstance(one, np.ndarray) for one in data):
        data = tuple(map(torch.from_numpy, data))
    if _is_pair(data) and len(data[0]) == len(data[1]):
        return _joined(data[0][:limit].to(device), data[1][:limit].to(device), batch_size)
    batches = tuple(moved(batch, device) for batch in _up_to(data, limit))
    if not batches:
        raise UserError("there are no examples in the data; give batches of at least two examples in all")
    if all(_is_pair(batch) for batch in batches) and _alike(batches):
        inputs, labels = (torch.cat([batch[at] for batch in batches]) for at in (0, 1))
        return _joined(inputs, labels, batch_size)
    return Split(batches=batches, n=sum(map(size_of, batches)), examples=None)


def with_classes(split: Split) -> Split:
    """The same, with classes where every row of the labels has one 1 and else 0 (one-hot)."""
    examples = split.examples
    if examples is None or examples.labels.dim() != 2 or examples.labels.shape[1] < 2:
        return split
    labels = examples.labels
    if are_text(examples.inputs) and labels.shape == examples.inputs.shape:  # a token for every token
        return split
    if not (bool(((labels == 0) | (labels == 1)).all()) and bool((labels.sum(1) == 1).all())):
        return split
    return _joined(examples.inputs, labels.argmax(1), len(split.batches[0][1]))


def size_of(batch: Batch) -> int:
    """How many examples a batch has."""
    if isinstance(batch, Tensor):
        return len(batch)
    if isinstance(batch, Mapping):
        batch = tuple(batch.values())
    if isinstance(batch, list | tuple):
        for one in batch:
            if isinstance(one, Tensor) and one.dim():
                return len(one)
    try:
        return len(batch)
    except TypeError as error:
        raise UserError(f"a batch of type {type(batch).__name__} has no length; give tensors, or a mapping") from error


def called_on(model: torch.nn.Module, batch: Batch) -> Any:
    """What a network makes of a batch: of a mapping by name, without its labels; else of its first part."""
    if isinstance(batch, Mapping):
        return model(**{name: value for name, value in batch.items() if name != "labels"})
    return model(batch[0] if isinstance(batch, list | tuple) else batch)


def _joined(inputs: Tensor, labels: Tensor, batch_size: int) -> Split:
    if len(inputs) < 2:
        raise UserError(f"there are {len(inputs)} examples in the data; give at least two")
    batches = tuple(zip(inputs.split(batch_size), labels.split(batch_size), strict=True))
    return Split(batches=batches, n=len(inputs), examples=Examples(inputs=inputs, labels=labels))


def _is_pair(batch: Any) -> bool:
    return isinstance(batch, list | tuple) and len(batch) == 2 and all(isinstance(one, Tensor) for one in batch)


def _is_single(label: Any) -> bool:
    return isinstance(label, int | float) or (isinstance(label, Tensor) and label.dim() == 0)


def _alike(batches: tuple[Batch, ...]) -> bool:
    return len({(batch[0].shape[1:], batch[1].shape[1:], batch[0].dtype, batch[1].dtype) for batch in batches}) == 1


def _up_to(data: Iterable[Batch], limit: int | None) -> Iterator[Batch]:
    """Batches until there are enough examples; the last is cut if it can be."""
    left = limit
    for batch in data:
        if isinstance(batch, list | tuple) and len(batch) == 2 and _is_single(batch[1]):
            raise UserError(
                "the data give single examples, not batches: wrap them in "
                "torch.utils.data.DataLoader(data, batch_size=64)"
            )
        if left is None:
            yield batch
            continue
        if left <= 0:
            return
        n = size_of(batch)
        yield first_of(batch, left) if n > left else batch
        left -= n


def first_of(batch: Batch, n: int) -> Batch:
    """The first n examples of a batch."""
    if isinstance(batch, Mapping):
        return {name: first_of(value, n) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        return tuple(first_of(value, n) for value in batch)
    return batch[:n] if isinstance(batch, Tensor) and batch.dim() else batch


def moved(batch: Batch, device: torch.device) -> Batch:
    """A batch with all its tensors on a device."""
    if isinstance(batch, Mapping):
        return {name: moved(value, device) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        return tuple(moved(value, device) for value in batch)
    if isinstance(batch, np.ndarray):
        batch = torch.from_numpy(batch)
    return batch.to(device) if isinstance(batch, Tensor) else batch
