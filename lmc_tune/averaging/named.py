"""Functions that a user names by their file: ``file.py:build``."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmc_tune.core.home import expanded
from lmc_tune.errors import UserError
from lmc_tune.models.foreign import kept_apart, said

Function = Callable[..., Any]


def names_function(spec: str) -> bool:
    """Whether a text is of the form ``file.py:function``."""
    return spec.rpartition(":")[0].endswith(".py")


def function_named(spec: str, option: str) -> Function:
    """The function that ``file.py:function`` names. Its file is run.

    Args:
        spec: the text; a file relative to the current folder, or ``~``.
        option: under which it was given, for messages.

    Raises:
        UserError: if there is no such file or function, or the file fails.
    """
    path, _, name = spec.rpartition(":")
    file = expanded(path)
    if not file.is_file():
        raise UserError(f"{option}: there is no file {file}")
    found = importlib.util.spec_from_file_location(f"_named_{file.stem}", file)
    if found is None or found.loader is None:
        raise UserError(f"{option}: {file} is no Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # dataclasses and pickles look for it there
    _see_beside(file)
    try:
        with kept_apart():
            found.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"{option}: {file} cannot be run: {said(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [own for own, value in vars(module).items() if callable(value) and value.__module__ == found.name]
        raise UserError(f"{option}: {file} has no function {name!r}; it has {', '.join(known) or 'none'}")
    made: Function = function
    return made


def called(function: Function, spec: str, option: str, *args: Any, **kwargs: Any) -> Any:
    """What a user's function returns; an error of it is a message."""
    try:
        with kept_apart():
            return function(*args, **kwargs)
    except (Exception, SystemExit) as error:
        raise UserError(f"{option}: {spec} failed with {said(error)}") from error


def _see_beside(file: Path) -> None:
    """Modules beside the file can be imported by it; they come last, so that they hide none of ours."""
    folder = str(file.absolute().parent)
    if folder not in sys.path:
        sys.path.append(folder)
