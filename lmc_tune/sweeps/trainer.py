"""Trains what a search proposes, batch by batch, on Ray."""

import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lmc_tune.data.files import can_prepare, prepared_path
from lmc_tune.experiment import GroupSpec, TextSpec
from lmc_tune.experiment.datasets import facts_of
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.storage import Place, StorageError, hurried
from lmc_tune.sweeps.answers import answered
from lmc_tune.sweeps.backend import (
    has_token,
    machines,
    ray_session,
    run_on_ray,
    slots_of,
    why_no_worker,
)
from lmc_tune.sweeps.keeping import Keeping
from lmc_tune.sweeps.options import Options
from lmc_tune.sweeps.ownership import StoreFullError
from lmc_tune.sweeps.plan import PASSES, Slots, pack, pending, workers_here
from lmc_tune.sweeps.progress import Progress, SweepListener
from lmc_tune.sweeps.search import search_named
from lmc_tune.sweeps.search.propose import SoFar
from lmc_tune.sweeps.watch import Watch
from lmc_tune.tables.rows import PairResult, Status, failed_result, model_label
from lmc_tune.tables.store import MEMBERS, Store
from lmc_tune.tables.sweep_record import SweepRecord
from lmc_tune.tracking.background import BackgroundMirror
from lmc_tune.work.bench import Workbench

if TYPE_CHECKING:
    import pandas as pd

# Ray passes errors on as text. Python's own errors name the file, Arrow's do not.
_NO_SPACE = re.compile(r"(?:No space left on device|Disk quota exceeded)(: '(?P<file>.+)'$)?", re.MULTILINE)
_NO_STORAGE = re.compile(r"\bStorageError: (?P<said>.+)$", re.MULTILINE)


@dataclass(kw_only=True)
class Trainer:
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
        datasets = {dataset for pair in self.pairs for dataset in pair.datasets}
        for dataset in datasets:
            if isinstance(dataset, TextSpec) or not facts_of(dataset).files:
                continue
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
                raise disk_full(Path(full["file"]).parent if full["file"] else _fullest(self.store.folder))
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


def disk_full(folder: Place) -> StoreFullError:
    """That no space is left there, and what to do."""
    return StoreFullError(
        f"no space left in {folder}: the sweep has stopped, and every pair finished so far is kept. Free some space "
        f"and run the same command again."
    )


def _fullest(folder: Place) -> Place:
    """Where no space is left, if the system does not say: Ray's temporary files may be on another disk."""
    tmp = Path(tempfile.gettempdir())
    return tmp if shutil.disk_usage(tmp).free < 2**20 else folder
