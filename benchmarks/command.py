"""Commands of lmc-tune, run by this Python."""

import sys
from collections.abc import Sequence


def command(*words: str, sets: Sequence[str] = ()) -> list[str]:
    """``lmc-tune`` with these words, and with ``--set`` before each of ``sets``."""
    return [sys.executable, "-m", "lmc_tune", *words, *(word for text in sets for word in ("--set", text))]
