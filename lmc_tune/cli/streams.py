"""The standard streams: a command does its work whether or not somebody reads them."""

import os
import sys
from contextlib import suppress
from typing import Any, TextIO


class Heedless:
    """A stream that discards everything after the first failed write: its reader is gone, or its disk is full."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self) -> None:
        # Data left in its buffers would otherwise fail again when Python ends, and change the exit code.
        with suppress(OSError):
            os.dup2(_nowhere(), self._stream.fileno())


def prepare_streams() -> None:
    """Open those of the three streams that are closed, and make sure that writing to stderr never fails.

    Otherwise the next file that is opened, say a table, would get the number of a closed stream, and whatever libraries
    print would go into it.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(_nowhere(), "r" if name == "stdin" else "w", encoding="utf-8"))
    if not isinstance(sys.stderr, Heedless):
        sys.stderr = Heedless(sys.stderr)


def _nowhere() -> int:
    return os.open(os.devnull, os.O_RDWR)
