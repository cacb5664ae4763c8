"""Options that are given alone, or with a mapping behind them: ``--planes``, ``--planes '{points: 21}'``."""

from collections.abc import Iterable, Sequence
from typing import Any

import typer.core

# What an option that is given alone stands for, in YAML.
ALONE = "true"


def with_values(arguments: Sequence[str], options: Iterable[str]) -> list[str]:
    """Arguments in which each of the options has a value: the mapping behind it, else :data:`ALONE`.

    Whatever else is behind it, such as a checkpoint, is an argument of its own.

    Example:
        >>> with_values(["--planes", "{points: 21}", "--layers", "a.pt"], ["--planes", "--layers"])
        ['--planes={points: 21}', '--layers=true', 'a.pt']
    """
    found: list[str] = []
    for argument in arguments:
        alone = bool(found) and found[-1] in options
        if alone and argument.lstrip().startswith("{"):
            found[-1] += f"={argument}"
        else:
            found.append(argument)
    return [f"{argument}={ALONE}" if argument in options else argument for argument in found]


class Questions(typer.core.TyperCommand):
    """A command with the options ``--directions`` and ``--planes``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does, once these options have their values."""
        return super().parse_args(ctx, with_values(args, ("--directions", "--planes")))
