"""Showing the progress of a sweep: one display on a terminal, plain lines otherwise."""

import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from lmc_tune.core.counted import counted
from lmc_tune.core.duration import in_words
from lmc_tune.core.printable import printable

if TYPE_CHECKING:  # these take a second to import, in which the display is there already
    from lmc_tune.sweeps.progress import SweepListener
    from lmc_tune.tables.rows import PairResult, Status

_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_OF_SILENCE = 60.0
_SECONDS_OF_A_LONG_START = 3.0


class _Pairs:
    """What is known of the pairs: how many are finished, by status, of how many; who is at work, and for how long.

    group: what they are called.
    """

    def __init__(self) -> None:
        self.total, self.group = 0, "pair"
        self.last = True
        self.running = 0
        self.seconds_left: float | None = None
        self._before: Counter[Status] = Counter()
        self._latest: dict[str, Status] = {}

    def start(self, total: int, done: "Counter[Status]", group: str) -> None:
        self.total, self._before, self.group = total, done, group

    def aim(self, total: int, *, last: bool) -> None:
        self.total, self.last = total, last

    def finished(self, results: "Sequence[PairResult]") -> None:
        self._latest |= {result.key: result.status for result in results}  # one that is tried again counts once

    def working(self, running: int, seconds_left: float | None) -> None:
        self.running, self.seconds_left = running, seconds_left

    def __str__(self) -> str:
        """E.g. ``3/12 pairs``."""
        return f"{self.done}/{self.total} {self.group}s"

    @property
    def done(self) -> int:
        return self._before.total() + len(self._latest)

    @property
    def by_status(self) -> str:
        counts = self._before + Counter(self._latest.values())
        return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))

    @property
    def at_work(self) -> list[str]:
        """What is running, and the time left."""
        if self.done >= self.total:
            return []
        said = [f"{self.running} running"] if self.running else []
        if self.seconds_left is not None and self.seconds_left >= 1:
            said.append(f"about {in_words(self.seconds_left)} left{'' if self.last else ' in this round'}")
        return said


class _Lines:
    """Lines with the time of day, for logs and pipes: one per phase, and one now and then while pairs are run.

    Before it is known what is planned, a phase has a line only if it takes long: bad input then is one message.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._pairs = _Pairs()
        self._said, self._line = time.monotonic(), ""
        self._started = False
        self._long_start = threading.Timer(0, lambda: None)

    def say(self, message: str) -> None:
        print(time.strftime("%H:%M:%S"), printable(message), file=self._stream, flush=True)

    def phase(self, name: str) -> None:
        if self._started:
            self.say(name)
            return
        self.close()
        self._long_start = threading.Timer(_SECONDS_OF_A_LONG_START, self.say, [name])
        self._long_start.daemon = True
        self._long_start.start()

    def close(self) -> None:
        """Say nothing more by itself."""
        self._long_start.cancel()

    def start(self, total: int, done: "Counter[Status]", group: str = "pair") -> None:
        self.close()
        self._started = True
        self._pairs.start(total, done, group)
        pairs = counted(total, group)
        self.say(f"{pairs}, {done.total()} of them finished already" if done else pairs)

    def aim(self, total: int, *, last: bool) -> None:
        self._pairs.aim(total, last=last)
        self._said = time.monotonic()

    def finished(self, results: "Sequence[PairResult]") -> None:
        self._pairs.finished(results)
        self._say_so_far(_SECONDS_BETWEEN_LINES if self._pairs.done < self._pairs.total else 0)

    def working(self, running: int, seconds_left: float | None) -> None:
        self._pairs.working(running, seconds_left)
        self._say_so_far(_SECONDS_OF_SILENCE)

    def _say_so_far(self, after_seconds: float) -> None:
        now, pairs = time.monotonic(), self._pairs
        counts = f" ({pairs.by_status})" if pairs.by_status else ""
        line = ", ".join([f"{pairs}{counts}", *pairs.at_work])
        if now - self._said >= (after_seconds if line != self._line else _SECONDS_OF_SILENCE):
            self._said, self._line = now, line
            self.say(line)


class _Display:
    """The phase with a spinner, a bar, and below it what is known of the pairs; lines of news go above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pairs = _Pairs()
        self._began = time.monotonic()
        self._spinner = Spinner("dots")
        self._counted = False

    def say(self, message: str) -> None:
        text = folded(printable(message), self._console.width)
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def phase(self, name: str) -> None:
        self._spinner.update(text=Text(name))
        self._began = time.monotonic()

    def start(self, total: int, done: "Counter[Status]", group: str = "pair") -> None:
        self._pairs.start(total, done, group)

    def aim(self, total: int, *, last: bool) -> None:
        self._pairs.aim(total, last=last)
        self._counted = True

    def finished(self, results: "Sequence[PairResult]") -> None:
        self._pairs.finished(results)

    def working(self, running: int, seconds_left: float | None) -> None:
        self._pairs.working(running, seconds_left)

    def __rich__(self) -> RenderableType:
        so_far = _clock(time.monotonic() - self._began)
        line = Table.grid(padding=(0, 2, 0, 0), expand=self._counted)
        line.add_column(no_wrap=True)
        if not self._counted:
            line.add_row(self._spinner, so_far)
            return line
        pairs = self._pairs
        line.add_column(ratio=1)
        line.add_column(no_wrap=True)
        line.add_column(no_wrap=True)
        bar = ProgressBar(total=max(1, pairs.total), completed=pairs.done)
        line.add_row(self._spinner, bar, str(pairs), so_far)
        return Group(line, Text(" · ".join(filter(None, [*pairs.at_work, pairs.by_status]))))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def folded(text: str, width: int) -> str:
    """The text in lines of at most ``width`` characters, cut between words.

    A line that holds a command, which has to stay whole to be copied, and a longer word are left to the terminal.
    """
    lines = []
    for line in text.split("\n"):
        whole = line.startswith(" ") or "lmc-tune " in line or "mlflow server" in line
        cut = textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)
        lines += [line] if whole or not cut else cut
    return "\n".join(lines)


def width_of(stream: TextIO) -> int | None:
    """The width of the terminal that a stream writes to; None if it is none."""
    return Console(file=stream).width if stream.isatty() else None


@contextmanager
def listener_for(stream: TextIO) -> "Iterator[SweepListener]":
    """A display if the stream is a terminal that can move its cursor, else lines."""
    console = Console(file=stream)
    if not stream.isatty() or console.is_dumb_terminal:
        lines = _Lines(stream)
        try:
            yield lines
        finally:
            lines.close()
        return
    display = _Display(console)
    with Live(
        get_renderable=display.__rich__, console=console, refresh_per_second=8, transient=True, redirect_stdout=False
    ):
        yield display
