"""A sweep from the first look at the folder to the report: resumable, and nothing finished is ever lost."""

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lmc_tune.data.catalogue import check_files
from lmc_tune.record import REPORT_FILE, SweepRecord
from lmc_tune.results import PairResult, failed_result
from lmc_tune.space import SearchSpace, by_replicate
from lmc_tune.specs import PairSpec
from lmc_tune.store import Store
from lmc_tune.sweep.backend import ray_session, run_on_ray
from lmc_tune.sweep.folder import StoreFullError, owned, write_description
from lmc_tune.sweep.plan import COHORT_LIMITS, pack, pending, workers_here
from lmc_tune.sweep.search import SearchName, boundary_cells
from lmc_tune.sweep.watch import Watch
from lmc_tune.tracking.background import BackgroundMirror
from lmc_tune.workbench import Device, Workbench


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a sweep is run; none of it changes a result."""

    data_root: Path
    workers: int | None = None
    device: Device = "auto"
    address: str | None = None
    tracking_uri: str | None = None
    search: SearchName = "grid"
    max_pairs: int | None = None
    report: bool = True


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a call did. trained: pairs newly finished; counts: all planned pairs by status, ``pending`` included."""

    folder: Path
    trained: int
    counts: dict[str, int]
    report: Path | None
    mirrored: bool
    interrupted: bool


class SweepListener(Protocol):
    """Who is told how a sweep goes."""

    def say(self, message: str) -> None:
        """A line of news."""

    def start(self, total: int, done: int) -> None:
        """``total`` pairs are planned and ``done`` of them finished already."""

    def finished(self, results: Sequence[PairResult]) -> None:
        """Pairs that have just finished."""


def run_sweep(space: SearchSpace, folder: Path, options: Options, listener: SweepListener) -> Outcome:
    """Run, or go on with, a sweep.

    Args:
        space: what to run.
        folder: the run folder, created if need be.
        options: how to run it.
        listener: told how it goes.

    Raises:
        DataError, FolderError, DamagedTableError: before anything is trained.
        StoreFullError: if finished results could no longer be written; all earlier ones are kept.
    """
    for name in sorted({cell.first.dataset.name for cell in space.cells()}):
        check_files(name, options.data_root)
    with owned(folder):
        return _Sweep(space, folder, options, listener).run()


class _Sweep:
    """One call of the driver, in a folder that it owns."""

    def __init__(self, space: SearchSpace, folder: Path, options: Options, listener: SweepListener) -> None:
        self.space = space
        self.folder = folder
        self.options = options
        self.listener = listener
        self.store = Store(folder)
        self.pairs = space.pairs()
        self.workers = options.workers or workers_here()
        self.tried: set[str] = set()

    def run(self) -> Outcome:
        done = self.store.statuses()
        self.store.clear_running()
        redescribed = write_description(self.folder, self.space, self.workers, planned_pairs=len(self.pairs))
        self.listener.start(len(self.pairs), len(self.pairs) - len(pending(self.pairs, done)))
        if others := len(done.keys() - {pair.key for pair in self.pairs}):
            self.listener.say(
                f"{others} finished pairs in this folder are not in this space; they stay in its tables and report. "
                f"Another --out keeps studies apart."
            )
        self.mirror = BackgroundMirror(
            self.folder, SweepRecord.read(self.folder), self.options.tracking_uri, self.listener.say
        )
        try:
            with _interruptible() as interrupted:
                self._train()
            self.store.compact(self.space.verdict)
            wanted = self.options.report and bool(self.store.statuses())
            report = self._report(fresh=redescribed or bool(self.tried)) if wanted else None
        except BaseException:
            self.mirror.close("FAILED")
            raise
        mirrored = self.mirror.close("KILLED" if interrupted() else "FINISHED")
        statuses = self.store.statuses()
        return Outcome(
            folder=self.folder,
            trained=sum(statuses.get(key, "failed") != "failed" for key in self.tried),
            counts=dict(Counter(statuses.get(pair.key, "pending") for pair in self.pairs)),
            report=report,
            mirrored=mirrored,
            interrupted=interrupted(),
        )

    def _train(self) -> None:
        """Run what the search wants, batch by batch, until it wants no more or the call's share is done."""
        batch = self._next_batch()
        if not batch:
            return
        with Watch(self.store, self._on_results), ray_session(self.workers, self.options.address):
            while batch:
                self.tried |= {pair.key for pair in batch}
                self._run_batch(batch)
                batch = self._next_batch()

    def _next_batch(self) -> list[PairSpec]:
        """Wanted pairs that have no result and were not tried in this call."""
        wanted = self.pairs if self.options.search == "grid" else self._pairs_at_the_boundary()
        left = [pair for pair in pending(wanted, self.store.statuses()) if pair.key not in self.tried]
        return left if self.options.max_pairs is None else left[: self.options.max_pairs - len(self.tried)]

    def _pairs_at_the_boundary(self) -> list[PairSpec]:
        from analysis.cells import summarise  # noqa: PLC0415 - brings scipy

        cells = summarise(self.store.results(), self.space.verdict)
        complete = cells[cells["n_pairs"] >= self.space.replicates]
        verdicts = dict(zip(complete["cell"], complete["verdict"], strict=True))
        return by_replicate(boundary_cells(self.space, verdicts), self.space.replicates)

    def _on_results(self, results: list[PairResult]) -> None:
        self.mirror.send(results)
        self.listener.finished(results)

    def _run_batch(self, batch: Sequence[PairSpec]) -> None:
        """Run some pairs; one that still has no result after the last pass becomes a failed row."""
        left, errors = list(batch), list[str]()
        for largest in COHORT_LIMITS:
            errors = run_on_ray(pack(left, self.workers, largest), self._bench(), self.workers)
            if any("No space left on device" in error for error in errors):  # Ray hands errors on as text
                raise StoreFullError(
                    f"no space left in {self.folder}: the sweep has stopped, and every pair finished so far is kept. "
                    f"Free some space and run the same command again."
                )
            left = pending(left, self.store.statuses())
            if not left:
                return
        statuses = self.store.statuses()
        reason = errors[-1] if errors else "its worker ended without a result"
        if dead := [pair for pair in left if pair.key not in statuses]:
            self.store.write_shard(f"failed-{dead[0].key}", [failed_result(pair, reason) for pair in dead])

    def _bench(self) -> Workbench:
        return Workbench(
            store=self.store,
            data_root=self.options.data_root,
            device=self.options.device,
            min_train_accuracy=self.space.verdict.min_train_accuracy,
            members=self.folder / "members" if self.space.members == "keep" else None,
        )

    def _report(self, *, fresh: bool) -> Path:
        """Render the report, unless nothing has changed since the last one."""
        path = self.folder / REPORT_FILE
        if fresh or not path.exists():
            from analysis.report import render  # noqa: PLC0415 - altair takes seconds to import

            render(self.folder, path)
        return path


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C or SIGTERM end the body early; the caller then tidies up and asks whether it happened."""
    happened = False

    def interrupt(_signal: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, interrupt) if in_main else None
    try:
        yield lambda: happened
    except KeyboardInterrupt:
        happened = True
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)
