"""Ctrl-C and SIGTERM while a sweep runs."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def one_interruption() -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM raise KeyboardInterrupt, and ignore all further ones, so cleaning up can finish.

    The handlers are restored at the end, except after an interruption: the process is then about to end, and the
    signals stay ignored.
    """
    if threading.current_thread() is not threading.main_thread():  # Python sets handlers in the main thread only
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    interrupted = False

    def interrupt(_signal: int, _frame: Any) -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            raise KeyboardInterrupt

    for number in _SIGNALS:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            # Ignored by the system itself: Python drops its own handlers while it ends.
            signal.signal(number, signal.SIG_IGN if interrupted else handler)
