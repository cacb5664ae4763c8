"""Telling how a sweep goes: a bar on a terminal, plain lines otherwise."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lmc_tune.results import PairResult, Status
from lmc_tune.sweep.run import SweepListener

_SECONDS_BETWEEN_LINES = 15.0


class _Lines(SweepListener):
    """One line now and then, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._counts: Counter[Status] = Counter()
        self._total = 0
        self._last = 0.0

    def say(self, message: str) -> None:
        print(message, file=self._stream, flush=True)

    def start(self, total: int, done: Counter[Status]) -> None:
        self._total, self._counts = total, done
        self.say(f"{total} pairs, {done.total()} of them finished already" if done else f"{total} pairs")
        self._last = time.monotonic()

    def finished(self, results: Sequence[PairResult]) -> None:
        self._counts.update(result.status for result in results)
        now = time.monotonic()
        done = self._counts.total()
        if now - self._last >= _SECONDS_BETWEEN_LINES or done >= self._total:
            self._last = now
            self.say(f"{done}/{self._total} pairs ({_counted(self._counts)})")


class _Bar(SweepListener):
    """A progress bar."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._counts: Counter[Status] = Counter()
        self._task: TaskID | None = None

    def say(self, message: str) -> None:
        self._progress.console.print(message, highlight=False, markup=False, soft_wrap=True)

    def start(self, total: int, done: Counter[Status]) -> None:
        self._counts = done
        self._task = self._progress.add_task(_counted(done), total=total, completed=done.total())

    def finished(self, results: Sequence[PairResult]) -> None:
        self._counts.update(result.status for result in results)
        if self._task is not None:
            self._progress.update(self._task, advance=len(results), description=_counted(self._counts))


def _counted(counts: Counter[Status]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))


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
