"""A recipe in files: as JSON, as a configuration of mergekit, or its network."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import yaml
from safetensors.torch import save_file

from lmc_tune.averaging.findings import LayerFindings, PairFindings
from lmc_tune.averaging.paths import Condition
from lmc_tune.errors import UserError
from lmc_tune.models.state import State

Form = Literal["json", "mergekit", "network"]
_FORMS: Mapping[str, Form] = {".json": "json", ".yaml": "mergekit", ".yml": "mergekit", ".safetensors": "network"}


def form_of(file: Path) -> Form:
    """What a recipe's file holds, by the end of its name.

    Raises:
        UserError: if its name ends otherwise.
    """
    form = _FORMS.get(file.suffix)
    if form is None:
        raise UserError(f"{file}: end a recipe's name in .json, .yaml (for mergekit) or .safetensors (its network)")
    return form


def hindrance(found: PairFindings, form: Form) -> str:
    """Why a recipe cannot be had in a form, with what to do; empty if it can."""
    layers = found.layers
    if layers is None:
        return "layers were not measured: ask for them, of networks that have learned"
    if layers.recipe.is_empty:
        kept = found.members[0 if layers.recipe.kept == "a" else 1]
        return f"no layer that differs can be averaged, so its network would be {kept.name}; use that one"
    return "" if form != "mergekit" else _hindrance_to_mergekit(found, layers)


def _hindrance_to_mergekit(found: PairFindings, layers: LayerFindings) -> str:
    """That which no other measurement would remove comes first."""
    if why := no_whole_numbers(layers.counts):
        return why
    if not all(member.file for member in found.members):
        return "mergekit reads files, and these weights were given in memory; write the network (.safetensors)"
    if layers.condition != Condition():
        return (
            f"the recipe holds for {layers.condition.label} networks, and mergekit merges weights as they are; write "
            f"the network (.safetensors), or measure with --conditions naive"
        )
    return ""


def no_whole_numbers(names: Sequence[str]) -> str:
    """Why mergekit cannot average networks with these entries of whole numbers; empty if there are none."""
    return (
        f"mergekit's linear method takes no whole numbers, and {names[0]!r} is one; write the network (.safetensors), "
        f"or the shares (.json)"
        if names
        else ""
    )


def whole_numbers(state: State) -> tuple[str, ...]:
    """The names of entries that are whole numbers, such as BatchNorm's counters."""
    return tuple(name for name, entry in state.items() if not entry.is_floating_point())


def mergekit_text(found: PairFindings, layers: LayerFindings) -> str:
    """A configuration of mergekit's ``linear`` method, with the share of each model in every tensor.

    mergekit takes the first filter that is part of a tensor's name. The filters are whole names, the longest first, so
    that each tensor meets its own: any other filter that is a part of its name is shorter. A tensor that the network
    does not have meets none, and mergekit says so.
    """
    of_b = {name: lambda_ for layer, lambda_ in layers.lambdas for name in layer.entries}
    names = sorted(of_b, key=lambda name: (-len(name), name))
    shares = {name: 1 - of_b[name] for name in names}, {name: of_b[name] for name in names}
    models = [
        {"model": member.file, "parameters": {"weight": [{"filter": name, "value": own[name]} for name in names]}}
        for member, own in zip(found.members, shares, strict=True)
    ]
    head = "# Shares of two checkpoints, tensor by tensor: mergekit-yaml for folders, mergekit-pytorch for files.\n"
    return head + yaml.safe_dump({"merge_method": "linear", "models": models}, sort_keys=False, allow_unicode=True)


def write_text(text: str, file: Path) -> None:
    """Write a text into a file, whose folder is made.

    Raises:
        UserError: if it cannot be written.
    """
    with _writing(file):
        file.write_text(text, encoding="utf-8")


def write_state(state: State, file: Path) -> None:
    """Write weights as safetensors, likewise."""
    entries = {name: entry.clone() for name, entry in state.items()}  # of tied entries each its own
    with _writing(file):
        save_file(entries, file, metadata={"format": "pt"})


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}; choose another place") from error
