"""Noticing finished pairs: the workers publish shards, the driver reads them."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from lmc_tune.storage import Place, StorageError
from lmc_tune.tables.rows import PairResult
from lmc_tune.tables.store import DamagedTableError, Store

_SECONDS_BETWEEN_LOOKS = 0.5


class Watch:
    """Calls ``on_results`` from its own thread with every pair that finishes from now on, each once.

    ``on_look`` is called from that thread too, twice a second, after every look at the shards. Use as a context
    manager; pairs that are there at its start are not reported, and on exit the shards are read a last time.
    """

    def __init__(
        self, store: Store, on_results: Callable[[list[PairResult]], None], on_look: Callable[[], None]
    ) -> None:
        self._store = store
        self._on_results = on_results
        self._on_look = on_look
        self._seen: set[tuple[str, str | None]] = set()
        self._stamps: dict[Place, tuple[int, int]] = {}
        self._stop = threading.Event()
        self._looking = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="watch shards", daemon=True)

    def __enter__(self) -> Self:
        self._fresh()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if kind is None:  # otherwise there is no time, and the tables have everything
            self.look()

    def _work(self) -> None:
        while not self._stop.wait(_SECONDS_BETWEEN_LOOKS):
            self.look()
            self._on_look()

    def look(self) -> None:
        """Report new results now, if there are any."""
        with self._looking:
            try:
                fresh = self._fresh()
            except StorageError:
                return  # compaction reports it
            if fresh:
                self._on_results(fresh)

    def _fresh(self) -> list[PairResult]:
        fresh = []
        for path, stamp in self._store.shard_stamps().items():
            if self._stamps.get(path) == stamp:
                continue
            try:
                results = self._store.read_shard(path.stem)
            except DamagedTableError:
                continue  # compaction reports it
            self._stamps[path] = stamp
            fresh += [result for result in results if _answer(result) not in self._seen]
            self._seen |= {_answer(result) for result in results if result.status != "failed"}
        return fresh


def _answer(result: PairResult) -> tuple[str, str | None]:
    """What makes a result new: its pair and its question, since a pair may be measured again."""
    return result.key, result.row.get("question")
