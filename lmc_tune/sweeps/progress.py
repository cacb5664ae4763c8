"""What a running sweep says of itself: phases, pairs, and an estimate of the time left."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from lmc_tune.experiment import GroupSpec
from lmc_tune.storage import StorageError, hurried
from lmc_tune.sweeps.plan import planned_steps
from lmc_tune.sweeps.status import Pace
from lmc_tune.tables.rows import PairResult, Status
from lmc_tune.tables.store import Store

_SECONDS_BETWEEN_NEWS, _SECONDS_BETWEEN_NEWS_OF_A_BUCKET = 2.0, 10.0
_SECONDS_TO_START = 60.0


class SweepListener(Protocol):
    """Receives the news of a sweep."""

    def say(self, message: str) -> None:
        """A line of news."""

    def phase(self, name: str) -> None:
        """What is done from now on, e.g. ``reading data``."""

    def start(self, total: int, done: Counter[Status], group: str = "pair") -> None:
        """``total`` groups of this name are planned; ``done`` counts those that are finished already, by status."""

    def aim(self, total: int, *, last: bool) -> None:
        """So many pairs are finished as soon as those are that have been proposed so far.

        last: no others are going to be proposed in this call.
        """

    def finished(self, results: Sequence[PairResult]) -> None:
        """Pairs that have just finished."""

    def working(self, running: int, seconds_left: float | None) -> None:
        """``running`` pairs are being trained or measured. Called every few seconds.

        seconds_left: until all proposed pairs are finished, estimated; None before the first pair is finished.
        """


class Progress:
    """Follows the batches of a sweep, and says to the listener who is at work and how long it will take.

    workers: how many share the work.
    """

    def __init__(
        self, listener: SweepListener, store: Store, untrained: frozenset[str], why_no_worker: Callable[[], str]
    ) -> None:
        """Begin to wait for workers.

        Args:
            listener: receives the news.
            store: of the run folder, where workers say what they are running.
            untrained: keys of finished pairs that are only measured again.
            why_no_worker: called if no worker starts; returns the reason in words.
        """
        self.workers = 1
        self._listener = listener
        self._store = Store(hurried(store.folder))
        self._untrained = untrained
        self._why_no_worker = why_no_worker
        self._pace = Pace()
        self._steps_left: dict[str, int] = {}  # of the proposed pairs without a result; 0 if they are only measured
        self._batches = 0
        self._work = ""
        self._begun = self._asked_why = self._over = False
        self._waiting_since, self._looked = time.monotonic(), 0.0
        often = isinstance(store.folder, Path)
        self._seconds_between_news = _SECONDS_BETWEEN_NEWS if often else _SECONDS_BETWEEN_NEWS_OF_A_BUCKET

    def read_pace(self, planned: Iterable[str]) -> None:
        """Learn from the planned pairs that are finished already how long a pair takes."""
        results = self._store.results(["steps", "seconds_train", "seconds_measure"])
        self._pace = Pace.of_table(results[results["key"].isin(list(planned))])

    def announce(self, batch: Sequence[GroupSpec], *, done: int, rounds: bool, last: bool) -> None:
        """Say what is going to be run.

        Args:
            batch: the pairs that have just been proposed.
            done: how many of the others are finished.
            rounds: whether batches are counted: each depends on the results of the one before.
            last: whether no others are going to be proposed in this call.
        """
        self._batches += 1
        self._steps_left = {pair.key: 0 if pair.key in self._untrained else planned_steps(pair) for pair in batch}
        work = "training" if any(self._steps_left.values()) else "measuring again"
        self._work = f"{work}, round {self._batches}" if rounds else work
        self._listener.aim(done + len(batch), last=last)
        if self._begun:
            self._listener.phase(self._work)

    def finished(self, results: Sequence[PairResult]) -> None:
        """Say which pairs have finished."""
        self._begin()
        self._pace = self._pace.with_pairs(result.row for result in results)
        self._waiting_since = time.monotonic()
        for result in results:
            if result.status != "failed":
                self._steps_left.pop(result.key, None)
        self._listener.finished(results)

    def look(self) -> None:
        """Say every few seconds who is at work and how long that will take, and once if nobody is."""
        now = time.monotonic()
        if self._over or now - self._looked < self._seconds_between_news:
            return
        self._looked = now
        try:
            running = len(self._store.running() & self._steps_left.keys())
        except (StorageError, OSError):
            return  # compaction reports it
        if running:
            self._begin()
        silent = now - self._waiting_since
        if not self._begun and not self._asked_why and silent >= _SECONDS_TO_START:
            self._asked_why = True
            self._listener.say(f"no worker has started: {self._why_no_worker()}; Ctrl-C ends the sweep")
        if self._begun:
            self._listener.working(running, self._seconds_left(silent))

    def end(self, phase: str) -> None:
        """Say that nobody is at work any more, and what is done instead."""
        self._over = True
        self._listener.working(0, None)
        self._listener.phase(phase)

    def _begin(self) -> None:
        if not self._begun:
            self._begun, self._waiting_since = True, time.monotonic()
            self._listener.phase(self._work)

    def _seconds_left(self, silent: float) -> float | None:
        """Until the proposed pairs are finished, estimated from the pairs finished so far.

        silent: seconds since the last of them, in which the workers have gone on.
        """
        left = self._steps_left
        again = sum(steps == 0 for steps in left.values())
        estimate = self._pace.seconds_left(sum(left.values()), again, min(self.workers, len(left)))
        return None if estimate is None else max(0.0, estimate - silent)
