"""Members as they are given, state dicts or files: what they are called, and their weights, fit for a network."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from lmc_tune.averaging.findings import Named
from lmc_tune.measurement.checkpoints import check_fits, read_checkpoint
from lmc_tune.models.state import State

Member = State | str | os.PathLike[str]


def named_members(states: Sequence[Member] | Mapping[str, Member]) -> dict[str, Member]:
    """Two are A and B; several files have their own names, where these differ."""
    if isinstance(states, Mapping):
        return dict(states)
    paths = [os.fspath(state) if isinstance(state, str | os.PathLike) else "" for state in states]
    names = [Path(path).name for path in paths]
    stems = [name.removesuffix(Path(name).suffix) for name in names]
    for known in (stems, names, paths):
        if len(states) > 2 and all(known) and len(set(known)) == len(states):
            return dict(zip(known, states, strict=True))
    return {_letter(at): state for at, state in enumerate(states)}


def _letter(at: int) -> str:
    """A, B, … Z, then numbers."""
    return chr(ord("A") + at) if at < 26 else str(at + 1)


def load_member(model: nn.Module, name: str, member: Member, device: torch.device) -> Named:
    """A member's weights, on a device and in the network's precision.

    Raises:
        UserError: if they are not those of the network's architecture, or a file cannot be read.
    """
    if isinstance(member, nn.Module):
        member = member.state_dict()
    if isinstance(member, Mapping):
        expected = model.state_dict()
        check_fits(name, expected, _with_twins(expected, member))
        return Named(name=name, state=_placed(expected, member, device))
    state, took = read_member(model, member, device)
    return Named(name=name, state=state, file=os.fspath(member), took=took)


def read_member(model: nn.Module, file: str | os.PathLike[str], device: torch.device) -> tuple[State, str]:
    """A checkpoint of the model's architecture, and what was read of which file."""
    read = read_checkpoint(file)
    expected = model.state_dict()
    own = read.of({name: expected[name] for name in _not_left_out(expected, read.state)})
    return _placed(expected, own.state, device), own.took


def _placed(expected: State, state: State, device: torch.device) -> dict[str, Tensor]:
    """A state that fits, on a device and in the network's precision."""
    whole = _with_twins(expected, state)
    return {name: whole[name].detach().to(device=device, dtype=entry.dtype) for name, entry in expected.items()}


def _with_twins(expected: State, state: State) -> dict[str, Tensor]:
    """The state, with entries that it leaves out since they are another entry by a second name."""
    twins = {entry.data_ptr(): state[name] for name, entry in expected.items() if name in state}
    missing = {name: twins.get(entry.data_ptr()) for name, entry in expected.items() if name not in state}
    return {**state, **{name: entry for name, entry in missing.items() if entry is not None}}


def _not_left_out(expected: State, state: State) -> list[str]:
    """Entries of a network, but for those that a file leaves out since they are another entry by a second name."""
    there = {entry.data_ptr() for name, entry in expected.items() if name in state}
    return [name for name, entry in expected.items() if name in state or entry.data_ptr() not in there]
