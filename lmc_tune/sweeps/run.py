"""A sweep from the first look at the folder to the report: resumable, and nothing finished is ever lost."""

import errno
import os
import re
import shutil
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lmc_tune.core.duration import in_words
from lmc_tune.data.files import can_prepare, check_files, check_memory, prepared_path
from lmc_tune.errors import UserError
from lmc_tune.experiment import FactorySpec, GroupSpec
from lmc_tune.experiment.checks import too_few_examples
from lmc_tune.experiment.datasets import facts_of
from lmc_tune.experiment.space import SPACE_FILE, SearchSpace
from lmc_tune.storage import FolderError, Place, StorageError, hurried, written
from lmc_tune.sweeps.answers import answered, asked_again, said_of_moved_ranges
from lmc_tune.sweeps.backend import (
    check_scratch,
    has_token,
    machines,
    prepare_environment,
    ray_session,
    run_on_ray,
    slots_of,
    why_no_worker,
)
from lmc_tune.sweeps.factories import check_factories, said_of_changed_code
from lmc_tune.sweeps.keeping import Keeping, keeping
from lmc_tune.sweeps.ownership import StoreFullError, owned, write_description
from lmc_tune.sweeps.plan import PASSES, Slots, pack, pending, workers_here
from lmc_tune.sweeps.progress import Progress, SweepListener
from lmc_tune.sweeps.search import SearchName, search_named
from lmc_tune.sweeps.search.propose import SoFar
from lmc_tune.sweeps.watch import Watch
from lmc_tune.tables.rows import STATUSES, PairResult, Status, failed_result, model_label
from lmc_tune.tables.store import MEMBERS, RESULTS_FILE, Store
from lmc_tune.tables.sweep_record import REPORT_FILE, SweepRecord, fingerprint
from lmc_tune.tracking import connection
from lmc_tune.tracking.background import BackgroundMirror
from lmc_tune.work.bench import Device, Workbench

if TYPE_CHECKING:
    import pandas as pd

# Ray passes errors on as text. Python's own errors name the file, Arrow's do not.
_NO_SPACE = re.compile(r"(?:No space left on device|Disk quota exceeded)(: '(?P<file>.+)'$)?", re.MULTILINE)
_NO_STORAGE = re.compile(r"\bStorageError: (?P<said>.+)$", re.MULTILINE)
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a sweep is run; none of it changes a result.

    folders: the first in which factories are looked for, here and in the workers.
    address: of a Ray cluster; None for this machine. max_hours: the sweep then ends as if it were interrupted.
    """

    data_root: Path
    folders: tuple[str, ...] = ()
    workers: int | None = None
    device: Device = "auto"
    address: str | None = None
    tracking_uri: str | None = None
    search: SearchName = "grid"
    max_pairs: int | None = None
    max_hours: float | None = None
    report: bool = True


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a call did.

    trained: pairs that it trained and measured. remeasured: finished pairs that it measured again, with members that
    had all been kept. unanswered: finished pairs that could not be measured again. counts: all planned pairs by status,
    ``pending`` and ``left_out`` (by a search that has ended) included. checkpoints: networks of unfinished pairs that
    have a checkpoint. ended: the search wants no more pairs, and none of those it wanted failed.
    """

    folder: Place
    trained: int
    remeasured: int
    unanswered: int
    counts: dict[str, int]
    checkpoints: int
    report: Place | None
    mirrored: bool
    interrupted: bool
    ended: bool

    @property
    def judged(self) -> bool:
        """Whether there is an answer: some pair has a result that answers what is asked."""
        return any(self.counts.get(status) for status in STATUSES)

    def plain(self) -> dict[str, object]:
        """As ``lmc-tune sweep --json`` prints it."""
        return {
            "folder": str(self.folder),
            "trained": self.trained,
            "remeasured": self.remeasured,
            "unanswered": self.unanswered,
            "counts": self.counts,
            "complete": self.ended,
            "checkpoints": self.checkpoints,
            "report": str(self.report) if self.report else None,
            "mirrored": self.mirrored,
            "interrupted": self.interrupted,
        }


class DeviceError(UserError):
    """A device that is not there; the message says what to do."""


def run_sweep(space: SearchSpace, folder: Place, options: Options, listener: SweepListener) -> Outcome:
    """Run or resume a sweep.

    A KeyboardInterrupt while pairs are trained ends the sweep early and in order.

    Args:
        space: what to run.
        folder: the run folder, created if necessary.
        options: how to run it.
        listener: receives its news.

    Raises:
        DataError, DeviceError, FolderError, AddressError, SpaceError, DamagedTableError: before anything is written.
        StoreFullError, StorageError: if finished results could no longer be written; all earlier ones are kept.
        FolderError: if another process took the folder over meanwhile.
    """
    try:
        return _run(space, folder, options, listener)
    except OSError as error:
        if error.errno in _FULL:
            raise _disk_full(folder) from error
        raise


def _run(space: SearchSpace, folder: Place, options: Options, listener: SweepListener) -> Outcome:
    listener.phase("reading data")
    pairs = space.pairs()
    _check_surroundings(space, pairs, options, listener)
    with owned(folder) as check_owned:
        listener.phase("reading tables")
        store = Store(folder)
        store.check()
        done = store.answers()
        _check_same_study(space, pairs, done, folder, listener)
        known = answered(pairs, done, space.measure)
        if again := asked_again(pairs, done, store, space.measure, options.workers or workers_here()):
            listener.say(str(again))
        untrained = again.untrained if again else frozenset[str]()
        if coarse := too_few_examples(space):
            listener.say(coarse)
        if options.search == "adaptive":
            _check_deciding(space, listener)
        store.clear_running()
        workers = options.workers or workers_here()
        write_description(folder, space, workers, planned_pairs=len(pairs), search=options.search)
        kept = keeping(space, pairs, options.folders)
        listener.start(len(pairs), Counter(status for status in known.values() if status != "failed"))
        mirror = BackgroundMirror(folder, SweepRecord.read(folder), options.tracking_uri, listener.say)
        trainer = _Trainer(
            space=space,
            pairs=pairs,
            store=store,
            check_owned=check_owned,
            options=options,
            listener=listener,
            mirror=mirror,
            kept=kept,
            untrained=untrained,
        )
        try:
            with _ended_after(options.max_hours, listener):
                interrupted = trainer.train()
            if interrupted:
                store = Store(hurried(folder))
            listener.phase("writing tables")
            check_owned()
            store.clear_running()
            changed = store.compact(space.verdict, check_owned)
            statuses = answered(pairs, store.answers(), space.measure)
            unanswered = [] if interrupted else [key for key in trainer.tried if key not in statuses]
            if unanswered:
                listener.say(
                    f"{len(unanswered)} pairs could not be measured again and keep their answers to the earlier "
                    f"question; run the same command to try once more. The first of them:\n"
                    f"{trainer.reasons.get(unanswered[0], '')}"
                )
            ended = trainer.ended and trainer.tried <= statuses.keys() and "failed" not in statuses.values()
            changed |= _record_end(folder, fingerprint(space) if ended else "")
            if ended:
                store.clear_checkpoints()
            report = _report(folder, listener, changed=changed) if options.report and store.statuses() else None
            listener.phase("sending the rest to MLflow")
            mirrored = mirror.close("KILLED" if interrupted else "FINISHED")
        except BaseException as error:
            mirror.close("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise
        finished = {key for key in trainer.tried if statuses.get(key, "failed") != "failed"}
        return Outcome(
            folder=folder,
            trained=len(finished - untrained),
            remeasured=len(finished & untrained),
            unanswered=len(unanswered),
            counts=_count(statuses.get(pair.key, "left_out" if ended else "pending") for pair in pairs),
            checkpoints=len(store.checkpointed()),
            report=report,
            mirrored=mirrored,
            interrupted=interrupted,
            ended=ended,
        )


def _record_end(folder: Place, ended: str) -> bool:
    """Store whether the search has ended; True if that is news."""
    record = SweepRecord.read(folder)
    if record.ended == ended:
        return False
    replace(record, ended=ended).write(folder)
    return True


@contextmanager
def _ended_after(hours: float | None, listener: SweepListener) -> Iterator[None]:
    """Interrupt the body, as Ctrl-C does, when the hours are over. Works only in the main thread."""
    main = threading.main_thread().ident
    if hours is None or main is None:
        yield
        return

    def end() -> None:
        signal.pthread_kill(main, signal.SIGINT)
        listener.say(f"--max-hours: {in_words(3600 * hours)} are over")

    timer = threading.Timer(3600 * hours, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _disk_full(folder: Place) -> StoreFullError:
    return StoreFullError(
        f"no space left in {folder}: the sweep has stopped, and every pair finished so far is kept. Free some space "
        f"and run the same command again."
    )


def _fullest(folder: Place) -> Place:
    """Where no space is left, if the system does not say: Ray's temporary files may be on another disk."""
    tmp = Path(tempfile.gettempdir())
    return tmp if shutil.disk_usage(tmp).free < 2**20 else folder


def _count(states: Iterable[str]) -> dict[str, int]:
    """How often each state occurs, in a fixed order."""
    counts = Counter(states)
    return {state: counts[state] for state in (*STATUSES, "pending", "left_out") if counts[state]}


def _check_surroundings(
    space: SearchSpace, pairs: Sequence[GroupSpec], options: Options, listener: SweepListener
) -> None:
    """Raise if the data, device, tracking address, a factory or the temporary folder cannot be used."""
    if options.address is None:
        check_scratch()
    datasets = {dataset for pair in pairs for dataset in pair.datasets}
    for facts in sorted(set(map(facts_of, datasets)), key=lambda facts: facts.name):
        check_files(facts, options.data_root)
    for dataset in datasets:
        check_memory(dataset)
    if options.device == "cuda" and options.address is None:
        import torch  # noqa: PLC0415 - the driver does without it otherwise: its import takes seconds

        if not torch.cuda.is_available():
            raise DeviceError("no CUDA device can be used here; leave --device out, or say --device cpu")
    if given := options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"):
        connection.check(given)
    if any(isinstance(pair.model, FactorySpec) for pair in pairs):
        listener.phase("trying the factories' networks")
        prepare_environment(options.address)  # a factory's module may import ray
        check_factories(pairs, space.measure, options.folders)


def _check_deciding(space: SearchSpace, listener: SweepListener) -> None:
    """Say so if cells have too few pairs for a verdict that a search could follow."""
    from lmc_tune.core.statistics import LEAST_PAIRS  # noqa: PLC0415 - brings scipy

    if space.replicates < LEAST_PAIRS:
        listener.say(
            f"fewer than {LEAST_PAIRS} pairs decide nothing, so the search refines only where training fails; set "
            f"replicates to {LEAST_PAIRS} or more"
        )


def _check_same_study(
    space: SearchSpace,
    pairs: Sequence[GroupSpec],
    done: Mapping[str, object],
    folder: Place,
    listener: SweepListener,
) -> None:
    """Raise if the folder holds only pairs of another study; say so if it holds some."""
    others = done.keys() - {pair.key for pair in pairs}
    if not others:
        return
    specs = Store(folder).results(["spec"]).set_index("key")["spec"]
    ours = specs[sorted(others)].isin({pair.text for pair in pairs}).sum()
    version = f"; {ours} of them are pairs of this space made by another version of lmc-tune" if ours else ""
    version += said_of_changed_code(pairs, specs[sorted(others)])
    if moved := said_of_moved_ranges(space, folder):
        version += f" ({moved})"
    if len(others) == len(done):
        raise FolderError(
            f"{folder} holds another study: none of its {len(others)} finished pairs is in this space{version}; "
            f"choose another folder with --out"
        )
    listener.say(
        f"{len(others)} finished pairs in this folder are not in this space: its tables keep them, its report leaves "
        f"them out{version}. Another --out keeps studies apart."
    )


@dataclass(kw_only=True)
class _Trainer:
    """Trains what the search proposes, and reports it.

    untrained: keys of finished pairs that are only measured again. tried: keys of the pairs that it ran. ended: the
    search proposes no more. reasons: why pairs failed, by their keys.
    """

    space: SearchSpace
    pairs: Sequence[GroupSpec]
    store: Store
    check_owned: Callable[[], None]
    options: Options
    listener: SweepListener
    mirror: BackgroundMirror
    kept: Keeping
    untrained: frozenset[str] = frozenset()
    tried: set[str] = field(default_factory=set)
    ended: bool = False
    ray_logs: Path | None = None
    told_engine: bool = field(default=False, init=False)
    reasons: dict[str, str] = field(default_factory=dict, init=False)
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = Progress(self.listener, self.store, self.untrained, lambda: why_no_worker(self.ray_logs))

    def train(self) -> bool:
        """Run batch by batch until the search proposes no more or the call's share is done; True if interrupted."""
        batch = self._next_batch()
        if not batch:
            return False
        self._check_sharing()
        self.listener.say(str(self.kept))
        self.progress.read_pace([pair.key for pair in self.pairs])
        address, workers = self.options.address, self.options.workers or workers_here()
        started = f"starting {workers} workers" if workers > 1 else "starting a worker"
        self.listener.phase(started if address is None else "connecting to the cluster")
        try:
            seen = Store(hurried(self.store.folder))
            watch = Watch(seen, self._on_results, self.progress.look)
            with watch, ray_session(workers, address, self._prepare_end) as self.ray_logs:
                slots = slots_of(self.options.device, self.options.workers)
                self._tell(slots)
                try:
                    while batch:
                        self._announce(batch)
                        self.tried |= {pair.key for pair in batch}
                        self._run_batch(batch, slots)
                        batch = self._next_batch()
                    watch.look()
                finally:
                    self.progress.end("ending the workers" if address is None else "leaving the cluster")
                    if address is not None:
                        self.listener.say(f"the cluster keeps running {machines()}; end it when you are done")
        except KeyboardInterrupt:
            self.listener.say("interrupted: finishing tables and report")
            return True
        return False

    def _prepare_end(self) -> None:
        """Import what the end of the sweep needs."""
        if self.options.report:
            from lmc_tune.analysis.report import prepare  # noqa: PLC0415 - altair takes seconds to import

            prepare()

    def _tell(self, slots: Slots) -> None:
        """Say what a cluster provides, and store the number of workers for estimates of the time left."""
        if self.options.address is not None:
            kind = "GPU" if slots.gpu else "CPU core"
            self.listener.say(
                f"training on {slots.number} {kind}{'s' if slots.number > 1 else ''} of a cluster of {machines()}"
            )
            if not has_token():
                self.listener.say(
                    f"the Ray cluster at {self.options.address} requires no token: anyone who can reach its ports can "
                    f"run programs on it. Start it with RAY_AUTH_MODE=token"
                )
            if not slots.gpu and self.options.device == "auto":
                self.listener.say(
                    "the cluster has no GPU now; --device cuda --workers N requests N GPUs and waits for them"
                )
        self.progress.workers = slots.number
        record = SweepRecord.read(self.store.folder)
        if record.workers != slots.number:
            replace(record, workers=slots.number).write(self.store.folder)

    def _check_sharing(self) -> None:
        """Say so if the workers cannot share the data; their own messages are not shown."""
        datasets = {dataset for pair in self.pairs for dataset in pair.datasets if facts_of(dataset).files}
        for dataset in datasets:
            path = prepared_path(dataset)
            if not path.exists() and not can_prepare():
                self.listener.say(
                    f"{path.parent} cannot be written to, so every worker loads its own copy of the data; to let them "
                    f"share one, set XDG_CACHE_HOME to a folder that can be written to"
                )
                return

    def _next_batch(self) -> list[GroupSpec]:
        """What the search proposes; a pair that failed in this call is not tried again by it."""
        most = len(self.pairs) if self.options.max_pairs is None else self.options.max_pairs - len(self.tried)
        done = {key for key, status in self._statuses().items() if status != "failed"}
        so_far = SoFar(finished=done | self.tried, judge=self._judge)
        proposed = search_named(self.options.search)(self.space, so_far, max(1, most))
        self.ended = not proposed
        return [cell.pair(k) for cell, k in proposed[:most]]

    def _announce(self, batch: Sequence[GroupSpec]) -> None:
        """Say what is going to be run."""
        grid = self.options.search == "grid"
        done = sum(status != "failed" for status in self._statuses().values())
        last = grid or len(self.tried) + len(batch) == self.options.max_pairs
        self.progress.announce(batch, done=done, rounds=not grid, last=last)

    def _judge(self) -> "pd.DataFrame":
        from lmc_tune.tables.cells import summarise  # noqa: PLC0415 - brings scipy

        # Whole cells alone: half of a cell would change the intervals of the others, and what is run by when it was.
        results = self.store.results()
        results = results[results["key"].isin(list(self._statuses()))]
        whole = results.groupby("cell")["key"].transform("size") >= self.space.replicates
        return summarise(results[whole], self.space.verdict)

    def _on_results(self, results: list[PairResult]) -> None:
        self.progress.finished(results)
        self.reasons |= {result.key: result.row["reason"] for result in results if result.status == "failed"}
        self._tell_engine(results)
        self.mirror.send(results)

    def _tell_engine(self, results: Sequence[PairResult]) -> None:
        """Say once that pairs are trained by another engine than the usual one, and why."""
        rows = [result.row for result in results if result.row.get("engine_reason")]
        if rows and not self.told_engine:
            self.told_engine = True
            self.listener.say(
                f"{model_label(rows[0])} is trained by engine: {rows[0]['engine']}: {rows[0]['engine_reason']}. "
                f"The column engine_reason has the reason for every pair"
            )

    def _statuses(self) -> dict[str, Status]:
        return answered(self.pairs, self.store.answers(), self.space.measure)

    def _run_batch(self, batch: Sequence[GroupSpec], slots: Slots) -> None:
        """Run some pairs; one that still has no result after the last pass becomes a failed row."""
        left, errors = list(batch), list[str]()
        for attempt in range(PASSES):
            self.check_owned()
            errors = run_on_ray(pack(left, slots, attempt), self._bench(), slots)
            if full := next(filter(None, map(_NO_SPACE.search, errors)), None):
                raise _disk_full(Path(full["file"]).parent if full["file"] else _fullest(self.store.folder))
            if away := next(filter(None, map(_NO_STORAGE.search, errors)), None):
                raise StorageError(away["said"])
            left = pending(left, self._statuses())
            if not left:
                return
        known = self.store.answers()
        reason = errors[-1] if errors else "its worker ended without a result"
        self.reasons = dict.fromkeys((pair.key for pair in left), reason) | self.reasons
        if dead := [pair for pair in left if pair.key not in known]:
            self.store.write_shard(f"failed-{dead[0].key}", [failed_result(pair, reason) for pair in dead])

    def _bench(self) -> Workbench:
        return Workbench(
            store=self.store,
            data_root=self.options.data_root,
            folders=self.options.folders,
            device=self.options.device,
            measure=self.space.measure,
            min_train_accuracy=self.space.verdict.min_train_accuracy,
            members=self.store.folder / MEMBERS,
            keep_members=self.kept.keep,
        )


def _report(folder: Place, listener: SweepListener, *, changed: bool) -> Place:
    """Render the report, unless the tables have not changed and a report newer than tables and space exists."""
    path = folder / REPORT_FILE
    # By times alone, a report written before the clock was moved back would count as new.
    if changed or written(path) <= max(written(folder / source) for source in (RESULTS_FILE, SPACE_FILE)):
        listener.phase("writing the report")
        from lmc_tune.analysis.report import render  # noqa: PLC0415 - altair takes seconds to import

        render(folder)
    return path
