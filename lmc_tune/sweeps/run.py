"""A sweep from the first look at the folder to the report: resumable, and nothing finished is ever lost."""

import errno
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lmc_tune.core.duration import in_words
from lmc_tune.data.files import check_files, check_memory
from lmc_tune.errors import UserError
from lmc_tune.experiment import FactorySpec, GroupSpec
from lmc_tune.experiment.checks import too_few_examples
from lmc_tune.experiment.datasets import facts_of
from lmc_tune.experiment.space import SPACE_FILE, SearchSpace
from lmc_tune.storage import FolderError, Place, hurried, written
from lmc_tune.sweeps.answers import answered, asked_again, said_of_changes, said_of_moved_ranges
from lmc_tune.sweeps.backend import (
    check_address,
    check_scratch,
    prepare_environment,
)
from lmc_tune.sweeps.factories import check_factories, said_of_changed_code
from lmc_tune.sweeps.federations import check_federations
from lmc_tune.sweeps.keeping import check_room, keeping
from lmc_tune.sweeps.moved_layers import check_layers
from lmc_tune.sweeps.ownership import owned, write_description
from lmc_tune.sweeps.plan import workers_here
from lmc_tune.sweeps.progress import SweepListener
from lmc_tune.tables.rows import STATUSES
from lmc_tune.tables.store import RESULTS_FILE, Store
from lmc_tune.tables.sweep_record import REPORT_FILE, SweepRecord, fingerprint
from lmc_tune.tracking import connection
from lmc_tune.tracking.background import BackgroundMirror

if TYPE_CHECKING:
    pass

from lmc_tune.sweeps.options import Options
from lmc_tune.sweeps.trainer import Trainer, disk_full

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a call did.

    trained: pairs that it trained and measured. remeasured: finished pairs that it measured again, with members that
    had all been kept. unanswered: finished pairs that could not be measured again. counts: all planned pairs by status,
    ``pending`` and ``left_out`` (by a search that has ended) included. checkpoints: networks of unfinished pairs that
    have a checkpoint. interrupted: by Ctrl-C, SIGTERM or ``max_hours``; over: by ``max_hours``. ended: the search wants
    no more pairs, and none of those it wanted failed.
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
    over: bool
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
            raise disk_full(folder) from error
        raise


def _run(space: SearchSpace, folder: Place, options: Options, listener: SweepListener) -> Outcome:
    listener.phase("reading data")
    pairs = space.pairs()
    _check_surroundings(space, pairs, options, listener)
    kept = keeping(space, pairs, options.folders)
    check_room(kept, folder)
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
        listener.start(len(pairs), Counter(status for status in known.values() if status != "failed"), space.group)
        mirror = BackgroundMirror(folder, SweepRecord.read(folder), options.tracking_uri, listener.say)
        trainer = Trainer(
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
            with _ended_after(options.max_hours, listener) as over:
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
                    f"{len(unanswered)} {space.group}s could not be measured again and keep their answers to the "
                    f"earlier question; run the same command to try once more. The first of them:\n"
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
            over=over.is_set(),
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
def _ended_after(hours: float | None, listener: SweepListener) -> Iterator[threading.Event]:
    """Interrupt the body, as Ctrl-C does, when the hours are over. Works only in the main thread.

    Yields:
        What is set if that happens.
    """
    over = threading.Event()
    main = threading.main_thread().ident
    if hours is None or main is None:
        yield over
        return

    def end() -> None:
        over.set()
        signal.pthread_kill(main, signal.SIGINT)
        listener.say(f"--max-hours: {in_words(3600 * hours)} are over")

    timer = threading.Timer(3600 * hours, end)
    timer.daemon = True
    timer.start()
    try:
        yield over
    finally:
        timer.cancel()


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
    else:
        check_address(options.address)
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
    check_federations(pairs, options.folders)
    check_layers(pairs, space.measure, options.folders)


def _check_deciding(space: SearchSpace, listener: SweepListener) -> None:
    """Say so if cells have too few pairs for a verdict that a search could follow."""
    from lmc_tune.core.statistics import LEAST_PAIRS  # noqa: PLC0415 - brings scipy

    if space.replicates < LEAST_PAIRS:
        listener.say(
            f"fewer than {LEAST_PAIRS} {space.group}s decide nothing, so the search refines only where training fails; "
            f"set replicates to {LEAST_PAIRS} or more"
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
    version = f"; {ours} of them are {space.group}s of this space made by another version of lmc-tune" if ours else ""
    version += said_of_changed_code(pairs, specs[sorted(others)])
    if moved := said_of_moved_ranges(space, folder):
        version += f" ({moved})"
    if len(others) == len(done):
        raise FolderError(
            f"{folder} holds another study: none of its {len(others)} finished {space.group}s is in this space"
            f"{version or said_of_changes(space, folder)}; choose another folder with --out"
        )
    listener.say(
        f"{len(others)} finished {space.group}s in this folder are not in this space: its tables keep them, its report "
        f"leaves them out{version}. Another --out keeps studies apart."
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
