"""Options that are given alone, or with a mapping behind them: ``--planes``, ``--planes '{points: 21}'``."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer.core

# What an option that is given alone stands for, in YAML.
ALONE = "true"


def with_values(arguments: Sequence[str], options: Iterable[str]) -> list[str]:
    """Arguments in which each of the options has a value: the one behind it (:func:`is_value`), else :data:`ALONE`.

    Whatever else is behind it, such as a checkpoint, is an argument of its own.

    Example:
        >>> with_values(["--planes", "{points: 21}", "--layers", "a.pt"], ["--planes", "--layers"])
        ['--planes={points: 21}', '--layers=true', 'a.pt']
    """
    found: list[str] = []
    for argument in arguments:
        alone = bool(found) and found[-1] in options
        if alone and is_value(argument):
            found[-1] += f"={argument}"
        else:
            found.append(argument)
    return [f"{argument}={ALONE}" if argument in options else argument for argument in found]


def is_value(argument: str) -> bool:
    """Whether what is behind an option is meant as its value, possible or not: a mapping, a list, a number, a truth
    value, unless a file is called so. All else names a file.
    """
    from lmc_tune.experiment.yaml_lines import YamlError, load_value

    if argument.lstrip().startswith("{"):
        return True
    try:
        value = load_value(argument)
    except YamlError:
        return False
    return value is not None and not isinstance(value, str) and not Path(argument).exists()


class MeasureCommand(typer.core.TyperCommand):
    """A command with the options ``--directions`` and ``--planes``, and ``--layers``, which takes no value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does, once these options have their values."""
        for option, argument in pairwise(args):
            if option == "--layers" and is_value(argument):
                ctx.fail(f"Option '--layers' takes no value, got {argument}: every layer is measured; leave it out.")
        return super().parse_args(ctx, with_values(args, ("--directions", "--planes")))
