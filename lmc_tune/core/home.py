"""Folders and files as users name them."""

import os
from pathlib import Path


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with a leading ``~`` or ``~user`` expanded; for an unknown user it stays, as in a shell."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib's raises for an unknown user
