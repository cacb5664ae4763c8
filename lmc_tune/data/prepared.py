"""One copy of a data set for all workers of a machine: a file of ready tensors, which every process maps.

The file is a .safetensors file in :func:`~lmc_tune.data.files.prepared_path`, written by the first process that
needs it. Mapped pages belong to the kernel: all processes share them, and they are dropped when memory is short.
"""

import fcntl
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lmc_tune.data.datasets import Dataset, Selection, load_dataset, select
from lmc_tune.data.examples import Examples
from lmc_tune.data.files import can_prepare, prepared_path
from lmc_tune.experiment import DatasetSpec, DataSpec, TextSpec
from lmc_tune.experiment.datasets import facts_of
from lmc_tune.storage import replacing

# Bytes. Where tensors begin at a multiple, kernels are fastest, and round as in memory that torch allocates.
_ALIGNMENT = 64


def open_dataset(spec: DataSpec, root: Path, device: torch.device) -> Dataset:
    """The data set of :func:`~lmc_tune.data.datasets.load_dataset`, on a device; treat as read-only.

    On the CPU the tensors are mapped from the prepared file, which is made if it is missing or damaged. Data that ship
    in a package, and texts, are small, and are loaded; so are all where the cache folder cannot be written to.

    Raises:
        DataError: if a file has to be made, and the data are missing or damaged, or fewer than asked for.
        OSError: if a file cannot be written, for example because the disk is full; it names the file.
    """
    facts = facts_of(spec)
    tensors = None if isinstance(spec, TextSpec) or not facts.files else _tensors(spec, root)
    if tensors is None:
        dataset = load_dataset(spec, root)
    else:
        parts = {
            name: Examples(inputs=tensors[f"{name}.inputs"], labels=tensors[f"{name}.labels"])
            for name in ("train", "validation", "test")
        }
        dataset = Dataset(n_classes=facts.n_classes, mean=tensors["mean"], std=tensors["std"], **parts)
    return dataset.to(device)


def _tensors(spec: DatasetSpec, root: Path) -> dict[str, Tensor] | None:
    """The data mapped from the prepared file; None if there is none and it cannot be written here."""
    path = prepared_path(spec)
    if (found := _mapped(path)) or not can_prepare():
        return found
    try:
        with _alone(path):
            if not (found := _mapped(path)):  # no other process wrote it while this one waited
                _write(path, select(spec, root))
                found = load_file(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a failed write does not know it
        raise
    return found


def _mapped(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a whole file, None for any other."""
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        return None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock for writing a file, waiting for it; the kernel's lock vanishes with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, parts: Mapping[str, Selection]) -> None:
    """Write the prepared file block by block; the tensors never lie in memory."""
    for left in path.parent.glob(f".{path.name}.*.part"):  # by a process that was killed
        left.unlink()
    with replacing(path) as file:
        file.write(_header(parts))
        for selection in parts.values():
            for block in selection.blocks():
                file.write(block.data)
        for selection in parts.values():
            file.write(selection.labels.data)
        for moments in (parts["train"].mean, parts["train"].std):
            file.write(moments.data)


def _header(parts: Mapping[str, Selection]) -> bytes:
    """The header of a .safetensors file: its own length, and the place of each tensor, as JSON."""
    tensors: list[tuple[str, tuple[int, ...], str, int]] = [
        *((f"{name}.inputs", selection.shape, "F32", 4) for name, selection in parts.items()),
        *((f"{name}.labels", selection.labels.shape, "I64", 8) for name, selection in parts.items()),
        *((name, parts["train"].mean.shape, "F32", 4) for name in ("mean", "std")),
    ]
    entries, end = {}, 0
    for name, shape, dtype, item in tensors:
        start, end = end, end + item * math.prod(shape)
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": (start, end)}
    text = json.dumps(entries).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
