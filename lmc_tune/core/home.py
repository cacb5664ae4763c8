"""Folders and files as users name them."""

import os
from pathlib import Path


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with a leading ``~`` or ``~user`` expanded; for an unknown user it stays, as in a shell."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib's raises for an unknown user


def cache_folder() -> Path:
    """The user's folder for what lmc-tune can make again; it need not exist."""
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "lmc-tune"
