"""YAML 1.2 with line numbers, for messages that point into the file."""

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError

Location = tuple[str | int, ...]  # the path of a value, e.g. ("axes", "lr", 2)

# Counted with aliases and merged keys written out: a few lines of nested aliases can expand beyond any memory.
MOST_VALUES = 300_000


# What plain text stands for in YAML 1.2. PyYAML follows 1.1, where 010 is 8, 1:30 is 90, no is false and 1e-3 is text.
_READINGS = (
    ("bool", "true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", "<<", ["<"]),  # only in 1.1, but widely used
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own; without those of 1.1

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyYAML's own
        try:
            value = super().construct_object(node, deep)
        except ValueError as error:  # a number of thousands of digits; text that is tagged as a number
            raise ConstructorError(problem=str(error).split(";")[0], problem_mark=node.start_mark) from error
        if isinstance(value, int) and value.bit_length() > 63:
            raise ConstructorError(problem="a whole number of more than 63 bits", problem_mark=node.start_mark)
        return value

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node))
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


class _Dumper(yaml.SafeDumper):
    """Quotes text that a reader of YAML 1.1 or of 1.2 would take for something else."""


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
for _name, _pattern, _first in _READINGS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"(?:{_pattern})$"), _first)


class YamlError(Exception):
    """Text that is no usable YAML: the line, and what is wrong there."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line


def load_value(text: str) -> Any:
    """One YAML value.

    Raises:
        YamlError: as :func:`load_with_lines`.
    """
    return load_with_lines(text)[0]


def load_with_lines(text: str) -> tuple[Any, dict[Location, int]]:
    """A document as plain data, and the line of every value by its path.

    Raises:
        YamlError: if it is not YAML, has more than :data:`MOST_VALUES` values, is nested too deep, gives a key twice,
            or has an alias inside what it names.
    """
    lines: dict[Location, int] = {}
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None, lines
        _count(root, {})
        _walk(root, (), lines)  # before merged keys are put in
        return loader.construct_document(root), lines
    except yaml.YAMLError as error:
        raise YamlError(_line_of(error), f"not valid YAML: {getattr(error, 'problem', error)}") from error
    except RecursionError as error:
        raise YamlError(1, "nested too deep; write it flatter") from error


def dump(content: Any) -> str:
    """Plain data as a document; :func:`load_value` gives it back."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def as_written(value: object) -> str:
    """A value in a message: text in quotes, and what YAML writes in small letters as YAML does.

    Example:
        >>> as_written({"a": [1, True, None]})
        "{'a': [1, true, null]}"
    """
    if isinstance(value, dict):
        return f"{{{', '.join(f'{as_written(key)}: {as_written(own)}' for key, own in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_written, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else repr(value)


def dotted(place: Location) -> str:
    """``axes.lr[2]``."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    return text.removeprefix(".")


def _count(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """How many values a node stands for, aliases written out. ``known``: by node; 0 while it is counted."""
    if known.setdefault(node, 0):
        return known[node]
    n = 1
    for child in _children(node):
        if known.get(child) == 0:
            line = child.start_mark.line + 1
            raise YamlError(line, "an alias (*name) is inside what it names; write the value out")
        n += _count(child, known)
    if n > MOST_VALUES:
        raise YamlError(node.start_mark.line + 1, f"too large: more than {MOST_VALUES} values, aliases written out")
    known[node] = n
    return n


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _walk(node: yaml.Node, place: Location, lines: dict[Location, int]) -> None:
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
