"""Showing the progress of a sweep: a bar on a terminal, plain lines otherwise."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lmc_tune.core.duration import in_words
from lmc_tune.core.printable import printable
from lmc_tune.sweeps.run import SweepListener
from lmc_tune.tables.rows import PairResult, Status

_SECONDS_BETWEEN_LINES = 15.0


class _Counts:
    """Pairs by status; a pair that is tried again counts once."""

    def __init__(self, before: Counter[Status]) -> None:
        self._before = before
        self._latest: dict[str, Status] = {}

    def add(self, results: Sequence[PairResult]) -> None:
        self._latest |= {result.key: result.status for result in results}

    @property
    def total(self) -> int:
        return self._before.total() + len(self._latest)

    def __str__(self) -> str:
        counts = self._before + Counter(self._latest.values())
        return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))


class _Lines(SweepListener):
    """One line now and then, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._counts = _Counts(Counter())
        self._total = 0
        self._began = self._last = 0.0

    def say(self, message: str) -> None:
        print(printable(message), file=self._stream, flush=True)

    def start(self, total: int, done: Counter[Status]) -> None:
        self._total, self._counts = total, _Counts(done)
        pairs = "1 pair" if total == 1 else f"{total} pairs"
        self.say(f"{pairs}, {done.total()} of them finished already" if done else pairs)
        self._began = self._last = time.monotonic()

    def finished(self, results: Sequence[PairResult]) -> None:
        self._counts.add(results)
        now = time.monotonic()
        if now - self._last >= _SECONDS_BETWEEN_LINES or self._counts.total >= self._total:
            self._last = now
            self.say(self._so_far())

    def waiting(self, running: int, seconds_left: float | None) -> None:
        elapsed = in_words(time.monotonic() - self._began)
        self.say(f"{self._so_far()}, {running} running, {elapsed} so far{_left(seconds_left)}")

    def _so_far(self) -> str:
        counts = f" ({self._counts})" if self._counts.total else ""
        return f"{self._counts.total}/{self._total} pairs{counts}"


class _Bar(SweepListener):
    """A progress bar."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._counts = _Counts(Counter())
        self._task: TaskID | None = None

    def say(self, message: str) -> None:
        self._progress.console.print(printable(message), highlight=False, markup=False, soft_wrap=True)

    def start(self, total: int, done: Counter[Status]) -> None:
        self._counts = _Counts(done)
        self._task = self._progress.add_task(str(self._counts), total=total, completed=done.total())

    def finished(self, results: Sequence[PairResult]) -> None:
        self._counts.add(results)
        if self._task is not None:
            self._progress.update(self._task, completed=self._counts.total, description=str(self._counts))

    def waiting(self, running: int, seconds_left: float | None) -> None:
        if self._task is not None:
            description = f"{self._counts} ({running} running{_left(seconds_left)})".lstrip()
            self._progress.update(self._task, description=description)


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f", about {in_words(seconds)} left"


@contextmanager
def listener_for(stream: TextIO) -> Iterator[SweepListener]:
    """A bar if the stream is a terminal, lines if it is not."""
    if not stream.isatty():
        yield _Lines(stream)
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("pairs"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(file=stream)) as progress:
        yield _Bar(progress)
