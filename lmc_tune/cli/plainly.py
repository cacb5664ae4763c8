"""What every command says in the same way: news, JSON, errors in one sentence, examples in its help."""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from lmc_tune.core.printable import printable

BAD_INPUT = 2
INTERRUPTED = 130

_LEAST_ROOM = 40

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; all else goes to stderr.")]


def examples(*commands: str) -> str:
    """The end of a command's help: click keeps the lines of a paragraph that begins with a backspace."""
    return "\b\n" + "\n".join(["Example:" if len(commands) == 1 else "Examples:", *(f"  {line}" for line in commands)])


def note(text: str) -> None:
    """A message on stderr; on a terminal its lines are cut between words."""
    from lmc_tune.cli.terminal import folded, width_of

    width = width_of(sys.stderr)
    typer.echo(printable(text if width is None else folded(text, width)), err=True)


def print_entry(name: str, text: str, column: int) -> None:
    """A line of a list on stdout: a name, and a text that begins in a column.

    On a terminal the text is cut between words and continues below itself, or below the name where it has little room.
    """
    from lmc_tune.cli.terminal import folded, width_of

    width = width_of(sys.stdout)
    start = f"{name:<{column}}"
    if width is None or len(start) + len(text) <= width:
        typer.echo(printable(start + text))
        return
    if width - len(start) < _LEAST_ROOM:
        typer.echo(printable(name))
        start = " " * min(column, 4)
    lines = folded(text, width - len(start)).split("\n")
    typer.echo(printable("\n".join([start + lines[0], *(" " * len(start) + line for line in lines[1:])])))


def print_json(content: Any) -> None:
    """Plain values as one line of JSON on stdout."""
    typer.echo(json.dumps(content, ensure_ascii=False))


@contextmanager
def plain_errors(interrupted: Callable[[], str] = lambda: "Interrupted.") -> Iterator[None]:
    """Turn errors that a user can fix into one message and an exit code.

    interrupted: returns what is said after Ctrl-C.
    """
    from lmc_tune.errors import UserError

    try:
        yield
    except UserError as error:
        note(str(error))
        raise typer.Exit(error.exit_code) from error
    except OSError as error:
        note(_what_the_system_says(error))
        raise typer.Exit(BAD_INPUT if isinstance(error, FileNotFoundError) else 1) from error
    except KeyboardInterrupt:
        note(interrupted())
        raise typer.Exit(INTERRUPTED) from None


def _what_the_system_says(error: OSError) -> str:
    """A sentence for an error of the system; our own errors already are sentences."""
    from lmc_tune.storage import what_fails

    if error.errno is None:
        return str(error)
    try:
        here = Path.cwd()
    except FileNotFoundError:
        return "the current folder has been deleted; change to a folder that exists (cd), and run the command again"
    where = here if error.filename is None else Path(os.fsdecode(error.filename))
    return f"{where} cannot be used ({what_fails(where, error)}); change that, or name another place"


def program() -> str:
    """How lmc-tune was called, such that it can be called again."""
    called = sys.argv[0]
    if called == shutil.which("lmc-tune") or not Path(called).name:
        return "lmc-tune"
    if Path(called).name == "__main__.py":
        return "python -m lmc_tune"
    return shlex.quote(called)


def this_command() -> str:
    """The command line that was typed, without credentials."""
    from lmc_tune.tracking.connection import without_credentials

    return without_credentials(f"{program()} {shlex.join(sys.argv[1:])}")
