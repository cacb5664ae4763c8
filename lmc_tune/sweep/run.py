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
from lmc_tune.results import PairResult, Store, failed_result
from lmc_tune.space import SearchSpace
from lmc_tune.specs import PairSpec
from lmc_tune.sweep.backend import ray_session, run_on_ray
from lmc_tune.sweep.folder import REPORT_FILE, StoreFullError, describe, owned
from lmc_tune.sweep.plan import COHORT_LIMITS, pack, pending, workers_here
from lmc_tune.sweep.watch import Watch
from lmc_tune.tracking.background import BackgroundMirror
from lmc_tune.tracking.mirror import SweepIdentity
from lmc_tune.workbench import Device, Workbench


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a sweep is run; none of it changes a result."""

    data_root: Path
    workers: int | None = None
    device: Device = "auto"
    address: str | None = None
    tracking_uri: str | None = None
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

    def run(self) -> Outcome:
        left = pending(self.pairs, self.store.statuses())
        todo = left[: self.options.max_pairs]
        self.store.clear_running()
        describe(self.folder, self.space, self.workers, planned_pairs=len(self.pairs))
        self.listener.start(len(self.pairs), len(self.pairs) - len(left))
        mirror = BackgroundMirror(
            self.folder, SweepIdentity.read(self.folder), self.options.tracking_uri, self.listener.say
        )
        try:
            with _interruptible() as interrupted:
                if todo:
                    self._train(todo, mirror)
            self.store.compact(self.space.verdict)
            report = self._report(fresh=bool(todo)) if self.options.report else None
        except BaseException:
            mirror.close("FAILED")
            raise
        mirrored = mirror.close("KILLED" if interrupted() else "FINISHED")
        statuses = self.store.statuses()
        return Outcome(
            folder=self.folder,
            trained=sum(statuses.get(pair.key, "failed") != "failed" for pair in todo),
            counts=dict(Counter(statuses.get(pair.key, "pending") for pair in self.pairs)),
            report=report,
            mirrored=mirrored,
            interrupted=interrupted(),
        )

    def _train(self, todo: Sequence[PairSpec], mirror: BackgroundMirror) -> None:
        """Run ``todo``; a pair that still has no result after the last pass becomes a failed row."""

        def on_results(results: list[PairResult]) -> None:
            mirror.send(results)
            self.listener.finished(results)

        with Watch(self.store, on_results), ray_session(self.workers, self.options.address):
            left, errors = list(todo), list[str]()
            for largest in COHORT_LIMITS:
                errors = run_on_ray(pack(left, self.workers, largest), self._bench(), self.workers)
                if any("No space left on device" in error for error in errors):
                    raise StoreFullError(
                        f"no space left in {self.folder}: the sweep has stopped, and every pair finished so far is "
                        f"kept. Free some space and run the same command again."
                    )
                left = pending(left, self.store.statuses())
                if not left:
                    return
            statuses = self.store.statuses()
            reason = errors[-1] if errors else "its worker ended without a result"
            if dead := [pair for pair in left if pair.key not in statuses]:
                self.store.write_shard("failed", [failed_result(pair, reason) for pair in dead])

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
