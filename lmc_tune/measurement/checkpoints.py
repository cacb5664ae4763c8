"""Checkpoints from a disk, as many programs write them: which weights are in a file, and whether they are a network's.

Nothing in a file is executed: pickles are read by torch's own reader of weights, which makes tensors and plain values.
"""

import glob
import json
import re
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path, PurePosixPath, PureWindowsPath
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lmc_tune.core.home import expanded
from lmc_tune.errors import UserError
from lmc_tune.models.state import State

# Where programs keep the weights in a checkpoint, in the order in which they are looked for. timm evaluates the moving
# average where there is one.
_PLACES = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "net",
    "weights",
    "params",
)
# What wrappers put before every name: DataParallel, torch.compile.
_WRAPPERS = ("module.", "_orig_mod.")
# What training scripts store next to the weights, and torch's reader refuses: timm's options (timm allows them in the
# same way), and paths among Lightning's hyperparameters, under the names of several versions of Python. To make these
# has no other effect; paths become pure ones, which touch no disk.
_PLAIN: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    Namespace,
    *(
        (kind, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name, kind in (("PosixPath", PurePosixPath), ("WindowsPath", PureWindowsPath))
    ),
]
# Hugging Face's names, in the order in which they are looked for.
_FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights by name, on the CPU, and where in a file they were.

    took: in words, e.g. ``state_dict of run/epoch=3.ckpt``.
    """

    path: Path
    state: Mapping[str, Tensor]
    took: str

    def of(self, expected: State) -> "Checkpoint":
        """The entries of a network, under its own names.

        Wrappers' prefixes are removed, and one that all of the network's names share in the file, such as Lightning's
        ``model.``; what lies beside it (a loss, a metric) is left out.

        Args:
            expected: the network's state.

        Raises:
            UserError: naming the first entry that is missing, left over, of another shape, or not finite.
        """
        whole = ((prefix, found) for prefix, found in _renamings(self.state) if not expected.keys() - found.keys())
        prefix, named = next(whole, ("", self.state))
        state = {name: named[name] for name in expected} if prefix else dict(named)
        check_fits(str(self.path), expected, state)
        words = [self.took]
        if prefix:
            words.append(f"names without {prefix!r}")
        if left := len(self.state) - len(state):
            words.append(f"{left} entries that are not the network's left out")
        return Checkpoint(path=self.path, state=state, took=", ".join(words))


def check_fits(source: str, expected: State, state: State) -> None:
    """Raise UserError, naming the source and the first entry that is missing, left over, misshapen, or not finite."""
    for name, entry in expected.items():
        if name not in state:
            raise UserError(f"{source} lacks {name!r}, which the network has{_nearest_shape(entry, state)}")
        if state[name].shape != entry.shape:
            raise UserError(
                f"{source} is of another architecture: {name!r} is {_shape(state[name])} there, and "
                f"{_shape(entry)} in the network"
            )
    for name in state:
        if name not in expected:
            raise UserError(f"{source} has {name!r}, which the network does not have")
    for name, entry in state.items():
        if entry.is_floating_point() and not torch.isfinite(entry).all():
            raise UserError(f"{source} cannot be measured: {name!r} holds values that are not finite")


def read_checkpoint(path: str | PathLike[str]) -> Checkpoint:
    """The weights in a file or a folder.

    safetensors; ``.pt``, ``.pth``, ``.ckpt``, ``.bin`` of torch, in which the weights may lie in a dictionary beside
    other things; a folder of Hugging Face, whose weights may be cut into several files.

    Raises:
        UserError: if there are no weights, or the file holds code.
    """
    place = Path(path)
    if place.is_dir():
        return _of_folder(place)
    if not place.exists():
        raise UserError(f"there is no checkpoint {place}")
    state, took = _find(place, _loaded(place))
    return Checkpoint(path=place, state=state, took=f"{took} of {place}" if took else str(place))


def files_of(pattern: str) -> tuple[str, ...]:
    """The files of a pattern, numbers in their names in the order of numbers.

    Raises:
        UserError: if there are none.
    """

    def parts(file: str) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file)]

    found = sorted(glob.glob(str(expanded(pattern))), key=parts)  # noqa: PTH207 - a pattern may be absolute
    if not found:
        raise UserError(f"{pattern}: there are no such files; on a command line, write a pattern in quotes")
    return tuple(found)


def _of_folder(folder: Path) -> Checkpoint:
    for name in _FOLDER_FILES:
        file = folder / name
        if not file.exists():
            continue
        if not name.endswith(".index.json"):
            found = read_checkpoint(file)
            return Checkpoint(path=folder, state=found.state, took=found.took)
        index = json.loads(file.read_text(encoding="utf-8"))
        parts = sorted(set(index["weight_map"].values()))
        state: dict[str, Tensor] = {}
        for part in parts:
            if Path(part).name != part:
                raise UserError(f"{file} names a file outside of its folder: {part}")
            state |= read_checkpoint(folder / part).state
        return Checkpoint(path=folder, state=state, took=f"{folder}, {len(parts)} files")
    if (folder / "adapter_config.json").exists():
        raise UserError(
            f"{folder} holds an adapter, not the weights of a network; merge it into them first: "
            f"model.merge_and_unload().save_pretrained(FOLDER)"
        )
    raise UserError(f"{folder} is a folder without weights: none of {', '.join(_FOLDER_FILES)} is in it")


def _loaded(file: Path) -> Any:
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} is no safetensors file, or is damaged: {error}") from error
    try:
        with torch.serialization.safe_globals(_PLAIN):
            return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(f"{file} {_why_not(file, error)}") from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        kind = "a zip archive, but no checkpoint of torch" if zipfile.is_zipfile(file) else "no checkpoint of torch"
        raise UserError(f"{file} is {kind}, or is damaged{_detail(error)}") from error


def _why_not(file: Path, error: UnpicklingError) -> str:
    if not re.search(r"Unsupported (global|class)|GLOBAL", str(error)):
        return "is no checkpoint of torch, or is damaged"
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    said = (
        f"holds more than weights{f' ({named[1]})' if named else ''}: reading it would run code from it, which is "
        f"refused. Save its state dict alone: torch.save(model.state_dict(), {str(file.with_suffix('.weights.pt'))!r})"
    )
    if file.suffix == ".ckpt":
        said += (
            ". Lightning stores what save_hyperparameters() is given, even with save_weights_only=True; leave out "
            "objects with save_hyperparameters(ignore=[...])"
        )
    return said


def _detail(error: Exception) -> str:
    """The first line of an error, where it is more than a number."""
    first = next(iter(str(error).splitlines()), "")
    return f": {first}" if " " in first else ""


def _find(file: Path, content: Any) -> tuple[dict[str, Tensor], str]:
    """The weights in what a file holds, and the keys that lead to them."""
    if not isinstance(content, Mapping):
        raise UserError(f"{file} holds a {type(content).__name__}, not the state dict of a network")
    if "param_groups" in content:
        raise UserError(f"{file} holds the state of an optimizer, not of a network")
    if state := _tensors(content):
        return state, ""
    for name in _PLACES:
        if isinstance(inside := content.get(name), Mapping):
            try:
                state, deeper = _find(file, inside)
            except UserError:
                continue
            return state, f"{name}.{deeper}" if deeper else name
    keys = ", ".join(map(str, list(content)[:8])) or "nothing"
    raise UserError(f"{file} holds no state dict of a network; it has {keys}")


def _tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The content itself if it is a state dict; empty if it is not."""
    if content and all(isinstance(name, str) and isinstance(entry, Tensor) for name, entry in content.items()):
        return {str(name): entry.detach() for name, entry in content.items()}
    return {}


def _renamings(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """The state under names without the prefixes that a wrapper or a training loop may have put before them."""
    yield "", state
    removed, names = "", dict(state)
    while wrapper := next((prefix for prefix in _WRAPPERS if all(name.startswith(prefix) for name in names)), ""):
        removed += wrapper
        names = {name.removeprefix(wrapper): entry for name, entry in names.items()}
        yield removed, names
    for first in dict.fromkeys(name.partition(".")[0] for name in names):
        prefix = f"{first}."
        inside = {name.removeprefix(prefix): entry for name, entry in names.items() if name.startswith(prefix)}
        if inside:
            yield f"{removed}{prefix}", inside
            yield from ((f"{removed}{prefix}{more}", deeper) for more, deeper in _unwrapped(inside))


def _unwrapped(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in state):
            yield wrapper, {name.removeprefix(wrapper): entry for name, entry in state.items()}


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"


def _nearest_shape(entry: Tensor, state: State) -> str:
    """What entries of the same shape are called in the file."""
    alike = [name for name, tensor in state.items() if tensor.shape == entry.shape]
    return f"; of its shape, it has {', '.join(map(repr, alike[:3]))}" if alike else ""
