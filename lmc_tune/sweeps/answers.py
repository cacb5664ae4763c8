"""Which pairs of a run folder answer what is asked, and what asking something else costs."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lmc_tune.core.duration import in_words
from lmc_tune.experiment import GroupSpec, MeasureSpec
from lmc_tune.experiment.ranges import moved
from lmc_tune.experiment.reading import SpaceError, parse_space
from lmc_tune.experiment.space import SPACE_FILE, SearchSpace
from lmc_tune.storage import Place, files
from lmc_tune.sweeps.plan import workers_here
from lmc_tune.tables.rows import Status
from lmc_tune.tables.store import MEMBERS, Store
from lmc_tune.tables.sweep_record import SWEEP_FILE, SweepRecord


def answered(
    pairs: Sequence[GroupSpec], done: Mapping[str, tuple[Status, str]], measure: MeasureSpec
) -> dict[str, Status]:
    """Status by key of the pairs that answer what is asked, and of those that failed.

    Args:
        pairs: what is planned.
        done: status and question by key of all finished pairs (:meth:`Store.answers`).
        measure: what is asked.
    """
    asked: dict[str, str] = {}
    found: dict[str, Status] = {}
    for pair in pairs:
        if pair.key not in done:
            continue
        status, answer = done[pair.key]
        network = pair.model.text
        if network not in asked:
            asked[network] = measure.of(pair.model).key
        if status == "failed" or answer == asked[network]:
            found[pair.key] = status
    return found


# Of what has changed in a space, so much is named.
MOST_CHANGES = 4


@dataclass(frozen=True, kw_only=True)
class AskedAgain:
    """Finished pairs that have to answer a new question.

    pairs: how many. members: how many they have; lost: how many of these were not kept, or not with the snapshots that
    are asked for, and have to be trained again. snapshots: whether any are asked for.
    untrained: keys of the pairs none of whose members has to be trained. seconds: about how long the training takes on
    the sweep's workers, judging by the time it took before. group: what the pairs are called.
    """

    pairs: int
    members: int
    lost: int
    untrained: frozenset[str]
    seconds: float
    snapshots: bool = False
    group: str = "pair"

    def __str__(self) -> str:
        kept = "kept with these snapshots" if self.snapshots else "kept"
        trained = f"{self.lost} of their {self.members} members were not {kept} and are trained again"
        cost = f"{trained}, which takes about {in_words(self.seconds)}" if self.lost else "no member is trained again"
        return f"{self.pairs} finished {self.group}s are measured again, since `measure` asks something else: {cost}"


def asked_again(
    pairs: Sequence[GroupSpec], done: Mapping[str, tuple[Status, str]], store: Store, measure: MeasureSpec, workers: int
) -> AskedAgain | None:
    """What this question costs a run folder; None if all its finished pairs answer it.

    Args:
        pairs, done, measure: as for :func:`answered`.
        store: of the folder.
        workers: of the sweep.
    """
    known = answered(pairs, done, measure)
    again = {pair.key: set(pair.trained) for pair in pairs if pair.key in done and pair.key not in known}
    if not again:
        return None
    members, kept = set().union(*again.values()), store.members()
    if measure.snapshots:
        kept = _with_snapshots(kept & members, measure.snapshots, store.folder / MEMBERS)
    lost, took = len(members - kept), 0.0
    if lost:
        results = store.results(["seconds_train"])
        took = float(results.loc[results["key"].isin(list(again)), "seconds_train"].sum())
    return AskedAgain(
        pairs=len(again),
        members=len(members),
        lost=lost,
        untrained=frozenset(key for key, own in again.items() if own <= kept),
        seconds=took * lost / len(members) / max(1, workers),
        snapshots=bool(measure.snapshots),
        group=pairs[0].recipe.kind,
    )


def _with_snapshots(members: Collection[str], snapshots: Sequence[int], folder: Place) -> set[str]:
    """The kept members that have all snapshots of epochs that they came by."""
    from lmc_tune.training.checkpoint import epochs_of, snapshot_name  # noqa: PLC0415 - brings torch

    there = {path.stem for path in files(folder, end=".safetensors")}
    lacking = {
        key: min(missing)
        for key in members
        if (missing := [epoch for epoch in snapshots if epoch and snapshot_name(key, epoch) not in there])
    }
    return {key for key in members if key not in lacking or epochs_of(folder / f"{key}.safetensors") < lacking[key]}


def said_of_moved_ranges(space: SearchSpace, folder: Place) -> str:
    """That a range of the space has other values than in the folder's own, and how many steps keep them; mostly empty.

    ``log: [0.01, 1], steps: 3`` and ``steps: 4`` share their bounds alone, which whoever wants a finer map finds out
    from pairs that are no longer in the space.
    """
    before = _space_before(folder)
    return moved(before.axes, space.axes) if before else ""


def said_of_changes(space: SearchSpace, folder: Place) -> str:
    """Which settings of the folder's own space are others, in brackets; empty if that is not known."""
    before = _space_before(folder)
    if before is None:
        return ""
    old, new = _settings(before), _settings(space)
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    shown = [
        f"{key}: {old.get(key, 'not set')} there, {new.get(key, 'not set')} here" for key in changed[:MOST_CHANGES]
    ]
    more = [f"{len(changed) - len(shown)} more"] if len(changed) > len(shown) else []
    return f" ({'; '.join([*shown, *more])})" if shown else ""


def _settings(space: SearchSpace) -> dict[str, str]:
    """What decides a space's pairs, as text by its key."""
    found = {f"axes.{name}": str(list(values)) for name, values in space.axes.items()}
    for section, values in space.fixed.items():
        found |= {f"{section}.{name}": str(value) for name, value in values.items()}
    found |= {f"content of {json.loads(source)['path']}": known.hash for source, known in space.texts.items()}
    return found | {"seed": str(space.seed)}


def _space_before(folder: Place) -> SearchSpace | None:
    """That of the folder; None if there is none, or it is damaged and will be written again."""
    try:
        return parse_space((folder / SPACE_FILE).read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, SpaceError):
        return None


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a run folder holds of a space.

    finished: pairs that answer what is asked. failed: pairs that crashed, and are tried again. again: finished pairs
    that are asked something else. left: the pairs that a sweep would run, those two among them. left_out: pairs that a
    search which has ended does not want. others: pairs that are not in the space. moved: why they are not, if a range
    of the space has other steps than in the folder.
    """

    finished: int
    failed: int
    again: AskedAgain | None
    left: tuple[GroupSpec, ...]
    left_out: int
    others: int
    moved: str

    def plain(self) -> dict[str, object]:
        """As ``lmc-tune space --out DIR --json`` prints it."""
        again = None
        if self.again:
            again = {name: getattr(self.again, name) for name in ("pairs", "members", "lost", "seconds")}
        return {
            "finished": self.finished,
            "failed": self.failed,
            "asked_again": again,
            "left_out": self.left_out,
            "other_pairs": self.others,
            "moved": self.moved or None,
        }


def held(space: SearchSpace, folder: Place) -> Held:
    """Look into a run folder, which need not exist."""
    pairs, store = space.pairs(), Store(folder)
    done = store.answers()
    known = answered(pairs, done, space.measure)
    record = SweepRecord.read(folder) if (folder / SWEEP_FILE).exists() else None
    left = [pair for pair in pairs if known.get(pair.key, "failed") == "failed"]
    ended = record is not None and record.has_ended(space)
    others = len(done.keys() - {pair.key for pair in pairs})
    return Held(
        finished=len(pairs) - len(left),
        failed=sum(status == "failed" for status in known.values()),
        again=asked_again(pairs, done, store, space.measure, record.workers if record else workers_here()),
        left=() if ended else tuple(left),
        left_out=len(left) if ended else 0,
        others=others,
        moved=said_of_moved_ranges(space, folder) if others else "",
    )
