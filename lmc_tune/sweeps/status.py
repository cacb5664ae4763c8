"""The state of a run folder: counts, failures, time left."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from lmc_tune.experiment.space import Cell, SearchSpace
from lmc_tune.storage import FolderError, Place
from lmc_tune.sweeps.ownership import is_owned
from lmc_tune.sweeps.plan import planned_steps
from lmc_tune.tables.columns import Row
from lmc_tune.tables.planned import marked, planned_space, questions, why_no_run
from lmc_tune.tables.rows import STATUSES, pair_name, spec_columns
from lmc_tune.tables.store import Store
from lmc_tune.tables.sweep_record import SweepRecord

if TYPE_CHECKING:  # imported by the first look at a table
    import pandas as pd

_DESCRIBING = ["cell", "replicate", "status", "reason", "question", "member_a", "member_b"]
_TIMES = ["steps", "seconds_train", "seconds_measure"]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A pair that crashed: its key, its place in the space, and the last line of its traceback."""

    key: str
    what: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class SweepStatus:
    """Counts by status of the planned pairs, the failed pairs, and an estimate of what is left.

    search: of the latest call.
    counts: pairs by status, and those that are ``running``, ``pending`` or ``left_out`` by a search that has ended.
    checkpoints: members of unfinished pairs that have a checkpoint.
    seconds_left: from the time per step of the finished pairs; of a pair that has an answer to another question, and
        whose members are kept, from the mean time of measuring a pair. None before the first pair is finished.
    stale: finished pairs that answer an earlier question than the space asks. They count as pending.
    other_pairs: finished pairs of the folder that are not (or no longer) in its space.
    """

    space: SearchSpace
    search: str
    counts: dict[str, int]
    failures: list[Failure]
    checkpoints: int
    seconds_left: float | None
    stale: int
    other_pairs: int

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def complete(self) -> bool:
        """Whether every pair that the search wants is finished, and none failed."""
        return not any(self.counts[name] for name in ("failed", "running", "pending"))

    @property
    def judged(self) -> bool:
        """Whether there is an answer: some pair has a result that answers what is asked."""
        return any(self.counts[status] for status in STATUSES)

    def plain(self) -> dict[str, object]:
        """As ``lmc-tune status --json`` prints it."""
        return {
            "name": self.space.name,
            "counts": self.counts,
            "total": self.total,
            "complete": self.complete,
            "checkpoints": self.checkpoints,
            "seconds_left": self.seconds_left,
            "failed": [{"key": f.key, "pair": f.what, "reason": f.reason} for f in self.failures],
            "stale": self.stale,
            "other_pairs": self.other_pairs,
        }


def read_status(folder: Place) -> SweepStatus:
    """Read the state of a sweep, running or not.

    Raises:
        FolderError: if the folder holds no sweep.
        UserError: if its space is damaged.
        DamagedTableError: if a table cannot be read.
    """
    space = planned_space(folder)
    if space is None:
        raise FolderError(f"no sweep in {folder}{why_no_run(folder)}")
    cells = {cell.key: cell for cell in space.cells()}
    store = Store(folder)
    results = store.results([*_DESCRIBING, *_TIMES])
    # By cell and replicate: computing a key for every planned pair would take longer than everything else.
    found = marked(results, questions(space), space.replicates)
    planned = found[found["planned"]]
    mine, trained = planned[~planned["stale"]], _with_members(planned[planned["stale"]], store)
    running = store.running() - set(mine["key"]) if is_owned(folder) else set()
    counts: dict[str, int] = {status: int((mine["status"] == status).sum()) for status in STATUSES}
    pending = len(cells) * space.replicates - len(mine) - len(running)
    ended = Counter([*mine["cell"], *trained["cell"]])
    left = sum((space.replicates - ended[key]) * planned_steps(cell.first) for key, cell in cells.items())
    record = SweepRecord.read(folder)
    left_out = pending if record.has_ended(space) else 0
    return SweepStatus(
        space=space,
        search=record.search,
        counts=counts | {"running": len(running), "pending": pending - left_out, "left_out": left_out},
        failures=_failures(mine, cells),
        checkpoints=len(store.checkpointed()),
        seconds_left=0.0 if left_out else Pace.of_table(planned).seconds_left(left, len(trained), record.workers),
        stale=len(planned) - len(mine),
        other_pairs=len(results) - len(planned),
    )


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long finished pairs took in all, from which the time left is estimated.

    measured: how many of them were measured. steps: of all of them.
    """

    measured: int = 0
    steps: int = 0
    seconds_train: float = 0.0
    seconds_measure: float = 0.0

    @classmethod
    def of_table(cls, finished: "pd.DataFrame") -> Self:
        """That of rows of the results; what is missing counts nothing."""
        return cls(
            measured=int(finished["seconds_measure"].count()),
            steps=int(finished["steps"].sum()),
            seconds_train=float(finished["seconds_train"].sum()),
            seconds_measure=float(finished["seconds_measure"].sum()),
        )

    def with_pairs(self, rows: Iterable[Row]) -> "Pace":
        """This and the rows of further pairs."""
        known = [row for row in rows if row.get("seconds_measure") is not None]
        return Pace(
            measured=self.measured + len(known),
            steps=self.steps + sum(row.get("steps") or 0 for row in known),
            seconds_train=self.seconds_train + sum(row.get("seconds_train") or 0.0 for row in known),
            seconds_measure=self.seconds_measure + sum(row["seconds_measure"] for row in known),
        )

    def seconds_left(self, steps: int, measured_again: int, workers: int) -> float | None:
        """For so many steps with their measuring, and so many pairs that are measured alone; None if nothing is known.

        Args:
            steps: of the pairs that are to be trained.
            measured_again: pairs that are not.
            workers: how many share the work.
        """
        if self.steps == 0 or self.measured == 0:
            return None
        per_step = (self.seconds_train + self.seconds_measure) / self.steps
        again = self.seconds_measure / self.measured * measured_again
        return (per_step * steps + again) / max(1, workers)


def _failures(results: "pd.DataFrame", cells: Mapping[str, Cell]) -> list[Failure]:
    failed: list[dict[str, Any]] = results[results["status"] == "failed"].to_dict("records")  # type: ignore[assignment]
    return [
        Failure(
            key=row["key"],
            what=pair_name(spec_columns(cells[row["cell"]].pair(row["replicate"]))),
            reason=(row["reason"].strip().splitlines() or ["unknown"])[-1],
        )
        for row in failed
    ]


def _with_members(results: "pd.DataFrame", store: Store) -> "pd.DataFrame":
    """The pairs both of whose members are kept."""
    kept = list(store.members()) if len(results) else []  # to list them takes long where there are many
    return results[results["member_a"].isin(kept) & results["member_b"].isin(kept)]
