"""YAML with line numbers, for messages that point into the file."""

import re
from typing import Any

import yaml

Place = tuple[str | int, ...]  # the path of a value, e.g. ("axes", "lr", 2)


class _Loader(yaml.SafeLoader):
    """Reads ``1e-3`` as a number, as YAML 1.2 does; PyYAML wants ``1.0e-3`` and takes anything else for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class YamlError(Exception):
    """Text that is no usable YAML: the line, and what is wrong there."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line


def load_value(text: str) -> Any:
    """One YAML value.

    Raises:
        YamlError: if it is none.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise YamlError(_line_of(error), f"not valid YAML: {getattr(error, 'problem', error)}") from error


def load_with_lines(text: str) -> tuple[Any, dict[Place, int]]:
    """A document as plain data, and the line of every value by its path.

    Raises:
        YamlError: if it is not YAML, gives a key twice, or an alias stands inside what it names.
    """
    lines: dict[Place, int] = {}
    content = load_value(text)
    try:
        root = yaml.compose(text, _Loader)
        if root is not None:
            _walk(root, (), lines)
    except RecursionError as error:
        raise YamlError(1, "an alias (*name) stands inside what it names; write the value out") from error
    return content, lines


def dotted(place: Place) -> str:
    """``axes.lr[2]``."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    return text.removeprefix(".")


def _walk(node: yaml.Node, place: Place, lines: dict[Place, int]) -> None:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            at = (*place, str(key.value))
            if at in lines:
                raise YamlError(key.start_mark.line + 1, f"{dotted(at)}: is given twice; YAML would keep the last")
            lines[at] = key.start_mark.line + 1
            _walk(value, at, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*place, index), lines)


def _line_of(error: yaml.YAMLError) -> int:
    mark = getattr(error, "problem_mark", None)
    return mark.line + 1 if mark else 1
