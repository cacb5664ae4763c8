"""Wording of what is wrong with a space: the value, and the nearest known name."""

import difflib
from collections.abc import Iterable
from typing import Any, get_args

from pydantic_core import ErrorDetails

from lmc_tune.experiment.data import DATA, SHORT_FORMS, ShiftSpec
from lmc_tune.experiment.networks import MODELS, model_name
from lmc_tune.experiment.space import AXES, FILLED_IN, SECTIONS, SETTING, SearchSpace
from lmc_tune.experiment.yaml_lines import Location

TOP_LEVEL = (*SECTIONS, *(name for name in SearchSpace.model_fields if name != "fixed"))
# Names in other tools, and ours.
_SYNONYMS = {
    "learning_rate": "lr",
    "bs": "batch_size",
    "batchsize": "batch_size",
    "layers": "hidden",
    "widths": "hidden",
    "amp": "precision",
}
# How sections, and questions of measure, are written that are mappings.
_MAPPINGS = {
    "dataset": "{name: digits}",
    "model": "{name: mlp, hidden: [64]}",
    "train": "{lr: 0.1, batch_size: 32, epochs: 20}",
    "shift": "{kind: label, severity: 0.6}",
    "b": "{lr: 0.03}",
    "perturb": "{step: 0, scale: 0.1}",
    "federated": "{clients: 20, rounds: 10}",
    "measure": "{lambdas: 25}",
    "verdict": "{threshold: 0.02}",
    "layers": "{families: [single]}",
    "groups": "{attention: '*attention*'}",
    "alignment": "{by: weights, restarts: 5}",
    "directions": "{random: {draws: 5}}",
    "random": "{draws: 5}",
    "noise": "{kinds: [path]}",
    "sharpness": "{examples: 1000}",
    "planes": "{through: [a, b, start]}",
}


def message(detail: ErrorDetails, model: Any) -> str:
    """What is wrong with a value of a spec, and what to do."""
    if detail["type"] == "extra_forbidden":
        key = str(detail["loc"][-1])
        return f"unknown key {key!r}{_elsewhere(key, model) or nearest(key, _fields_at(model, detail['loc']))}"
    if detail["type"] == "missing":
        name = detail["loc"][-1]
        return f"is missing: give it a value here or vary it with axes.{name}" if name in AXES else "is missing"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if detail["type"] == "value_error":
        return message
    wrong = detail["input"]
    if detail["type"] in {"model_type", "dict_type"}:
        return no_mapping(detail["loc"], wrong)
    if detail["type"] == "tuple_type":
        return f"write a list, e.g. [{wrong if isinstance(wrong, int | str) else '...'}]; got {wrong!r}"
    near = nearest(wrong, _choices(detail)) if isinstance(wrong, str) else ""
    return f"{message}, got {wrong!r}{near}"


def no_mapping(place: Location, wrong: object) -> str:
    """What is wrong with a section or a question, there or in a list, that is no mapping, and how it is written."""
    name = next(step for step in reversed(place) if isinstance(step, str))
    example = f", e.g. {f'{name}: ' if name == place[-1] else ''}{_MAPPINGS[name]}" if name in _MAPPINGS else ""
    return f"write a mapping{example}; got {wrong!r}"


def _choices(detail: ErrorDetails) -> list[str]:
    expected = str(detail.get("ctx", {}).get("expected", ""))
    return [word.strip("' ") for word in expected.replace(" or ", ",").split(",")]


def _fields_at(model: Any, location: tuple[str | int, ...]) -> list[str]:
    for step in location[:-1]:
        annotation = model.model_fields[step].annotation
        model = next((own for own in get_args(annotation) if own is not type(None)), annotation)  # of one or None
    return _keys(model)


def _keys(spec: Any) -> list[str]:
    """What may be written in a section of this spec."""
    short = SHORT_FORMS if spec is ShiftSpec else ()
    return [*(field for field in spec.model_fields if field not in FILLED_IN), *short]


def sections_with(key: Any) -> list[str]:
    """The sections that have a key; none for ``name``, because every section has its own."""
    if key == "name":
        return []
    return [section for section, specs in SETTING.items() if any(key in _keys(spec) for spec in specs)]


def _elsewhere(name: str, spec: Any) -> str:
    """The section to which a key belongs that another does not know; empty if there is none."""
    sections = sections_with(name)
    if "model" in sections and spec in MODELS.values():
        return f"; {model_name({'name': spec.model_fields['name'].default})} has none"
    if "dataset" in sections and spec in DATA.values():
        return "; a text has none" if spec is DATA["text"] else "; only a text (name: text) has one"
    return f"; it belongs to {sections[0]}" if sections else ""


def nearest(name: Any, known: Iterable[str]) -> str:
    """A question whether the nearest known name is meant; empty if none is near."""
    return "".join(f"; did you mean {found}?" for found in close_to(name, known))


def nearest_top_level(key: Any) -> str:
    """As :func:`nearest`; a key that belongs in a section is named with its section."""
    if key not in AXES and (sections := sections_with(key)):
        return f"; did you mean {sections[0]}.{key}?"
    for axis in close_to(key, [*TOP_LEVEL, *AXES]):
        if axis not in TOP_LEVEL:
            return f"; did you mean {'.'.join(AXES[axis])} or axes.{axis}?"
    return nearest(key, TOP_LEVEL)


def close_to(name: Any, known: Iterable[str]) -> list[str]:
    """The known name nearest to ``name``, if there is one."""
    name, names = str(name), list(known)
    if name in names:
        return [name]
    if _SYNONYMS.get(name) in names:
        return [_SYNONYMS[name]]
    if same := [known for known in names if known.lower() == name.lower()]:
        return same[:1]
    return difflib.get_close_matches(name, names, n=1, cutoff=0.5)
