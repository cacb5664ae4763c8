"""Wording of what is wrong with a space: the value, and the nearest known name."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lmc_tune.experiment.data import DATA, SHORT_FORMS, ShiftSpec
from lmc_tune.experiment.networks import MODELS, model_name
from lmc_tune.experiment.space import AXES, FILLED_IN, SECTIONS, SETTING, SearchSpace
from lmc_tune.experiment.spec import Spec
from lmc_tune.experiment.yaml_lines import Location, as_written, dotted, load_value

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
    "recipe": "{family: constrained, t: 5}",
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


# How lists are written where what came is no example of one.
_LISTS = {
    "hidden": "[64]",
    "splits": "[train, test]",
    "conditions": "[naive, repaired]",
    "snapshots": "[1, 5]",
    "families": "[single]",
    "alphas": "[0.5, 1.0]",
    "positions": "[0.0, 0.5, 1.0]",
    "fractions": "[0.1, 0.5]",
    "kinds": "[path]",
    "radii": "[0.1, 0.5]",
    "through": "[a, b, start]",
}
# What kind of value is meant, in a word for those who write YAML.
_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
}


def problems_of(error: ValidationError, model: Any) -> list[tuple[Location, str]]:
    """What is wrong with the values of a spec: where, and what to do; one problem per mistake.

    A list that lacks only the items that are wrong themselves is no second mistake, and a place has no step that was
    not written.
    """
    details = error.errors()

    def repeats(detail: ErrorDetails) -> bool:
        place = detail["loc"]
        inside = (other["loc"] for other in details if len(other["loc"]) > len(place))
        return detail["type"] == "too_short" and any(other[: len(place)] == place for other in inside)

    return [(_written(detail["loc"]), message(detail, model)) for detail in details if not repeats(detail)]


def in_words(error: ValidationError, model: Any, inside: Location = ()) -> str:
    """The same as one text, with places below ``inside``."""
    found = (((*inside, *place), wrong) for place, wrong in problems_of(error, model))
    return "; ".join(f"{f'{dotted(place)}: ' if place else ''}{wrong}" for place, wrong in found)


def _written(place: Location) -> Location:
    """A place without the marks of what kind a value is of, as ``federation.ClientSplit`` has them."""
    return tuple(step for step in place if not (isinstance(step, str) and step.startswith("<")))


def message(detail: ErrorDetails, model: Any) -> str:
    """What is wrong with a value of a spec, and what to do."""
    place, wrong = _written(detail["loc"]), detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            name = str(place[-1])
            found = f"unknown key {name!r}{_elsewhere(place, model) or nearest(name, _fields_at(model, place))}"
        case "missing":
            found = _missing(place[-1])
        case "value_error":
            found = detail["msg"].removeprefix("Value error, ")
        case "model_type" | "dict_type":
            found = no_mapping(place, wrong)
        case "tuple_type" | "too_short" | "too_long":
            found = _no_such_list(detail, place)
        case "string_too_short":
            found = "is empty"
        case "string_too_long":
            found = f"has {len(wrong)} characters, which are too many; use {detail['ctx']['max_length']} at most"
        case _:
            found = _no_such_value(detail)
    return found


def _missing(name: str | int) -> str:
    if isinstance(name, int):
        return "is missing: the list is too short"
    return f"is missing: give it a value here or vary it with axes.{name}" if name in AXES else "is missing"


def _no_such_value(detail: ErrorDetails) -> str:
    """What is wrong with a number, a text, or a choice."""
    kind, wrong = detail["type"], detail["input"]
    said = f"should be {_KINDS[kind]}" if kind in _KINDS else detail["msg"].removeprefix("Input ")
    near = nearest(wrong, _choices(detail)) if isinstance(wrong, str) else ""
    quote = f"; write it in quotes: '{wrong}'" if kind == "string_type" and _is_number(wrong) else ""
    return f"{said}, got {as_written(wrong)}{near}{quote}"


def _no_such_list(detail: ErrorDetails, place: Location) -> str:
    """What is wrong with what should be a list, or with how many items it has."""
    wrong, context = detail["input"], detail.get("ctx", {})
    if detail["type"] == "too_long":
        return f"name {context['max_length']}, not {context['actual_length']}; got {as_written(wrong)}"
    example = _LISTS.get(str(place[-1]), "[...]")
    if detail["type"] == "too_short":
        return f"name at least one, e.g. {example}; got {as_written(wrong)}"
    is_item = _is_number(wrong) and all(map(_is_number, load_value(example)))
    return f"write a list, e.g. {f'[{wrong}]' if is_item else example}; got {as_written(wrong)}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def no_mapping(place: Location, wrong: object) -> str:
    """What is wrong with a section or a question, there or in a list, that is no mapping, and how it is written."""
    name = next(step for step in reversed(place) if isinstance(step, str))
    example = f", e.g. {f'{name}: ' if name == place[-1] else ''}{_MAPPINGS[name]}" if name in _MAPPINGS else ""
    return f"write a mapping{example}; got {as_written(wrong)}"


def _choices(detail: ErrorDetails) -> list[str]:
    expected = str(detail.get("ctx", {}).get("expected", ""))
    return [word.strip("' ") for word in expected.replace(" or ", ",").split(",") if word]


def _specs_in(annotation: Any) -> Iterator[type[Spec]]:
    """The specs that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        yield annotation
    for part in get_args(annotation):
        yield from _specs_in(part)


def _fields_at(model: Any, location: Location) -> list[str]:
    for step in location[:-1]:
        model = next(_specs_in(model.model_fields[step].annotation))
    return _keys(model)


def _places_of(key: str, spec: type[Spec], inside: Location = ()) -> Iterator[Location]:
    """Where a spec, and the specs in it, have a key."""
    for name, field in spec.model_fields.items():
        if name == key:
            yield (*inside, name)
        for own in _specs_in(field.annotation):
            yield from _places_of(key, own, (*inside, name))


def _keys(spec: Any) -> list[str]:
    """What may be written in a section of this spec."""
    short = SHORT_FORMS if spec is ShiftSpec else ()
    return [*(field for field in spec.model_fields if field not in FILLED_IN), *short]


def sections_with(key: Any) -> list[str]:
    """The sections that have a key; none for ``name``, because every section has its own."""
    if key == "name":
        return []
    return [section for section, specs in SETTING.items() if any(key in _keys(spec) for spec in specs)]


def _elsewhere(place: Location, spec: Any) -> str:
    """Where a key belongs that is not known at a place; empty if nowhere."""
    name = str(place[-1])
    same = [other for other in _places_of(name, spec) if other[0] == place[0] or spec is not SearchSpace]
    if same:
        return f"; did you mean {' or '.join(map(dotted, same))}?"
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
