"""Which pairs of a run folder answer what is asked, and what asking something else costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmc_tune.core.duration import in_words
from lmc_tune.experiment import GroupSpec, MeasureSpec
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.storage import Place
from lmc_tune.sweep.plan import workers_here
from lmc_tune.tables.rows import Status
from lmc_tune.tables.store import Store
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


@dataclass(frozen=True, kw_only=True)
class AskedAgain:
    """Finished pairs that have to answer a new question.

    pairs: how many. members: how many they have; lost: how many of these were not kept and have to be trained again.
    seconds: about how long that training takes on the sweep's workers, judging by the time it took before.
    """

    pairs: int
    members: int
    lost: int
    seconds: float

    def __str__(self) -> str:
        trained = f"{self.lost} of their {self.members} members were not kept and are trained again"
        cost = f"{trained}, which takes about {in_words(self.seconds)}" if self.lost else "no member is trained again"
        return f"{self.pairs} finished pairs are measured again, since `measure` asks something else: {cost}"


def asked_again(pairs: Sequence[GroupSpec], store: Store, measure: MeasureSpec, workers: int) -> AskedAgain | None:
    """What this question costs a run folder; None if all its finished pairs answer it."""
    again = _other_answers(pairs, store, measure)
    if not again:
        return None
    members = {member.key for pair in again for member in pair.members.values()}
    lost = len(members - store.members())
    results = store.results(["seconds_train"])
    took = float(results.loc[results["key"].isin([pair.key for pair in again]), "seconds_train"].sum())
    return AskedAgain(
        pairs=len(again), members=len(members), lost=lost, seconds=took * lost / len(members) / max(1, workers)
    )


def only_measured(pairs: Sequence[GroupSpec], store: Store, measure: MeasureSpec) -> set[str]:
    """Keys of the finished pairs that have to answer a new question, and none of whose members has to be trained."""
    kept = store.members()
    again = _other_answers(pairs, store, measure)
    return {pair.key for pair in again if kept.issuperset(member.key for member in pair.members.values())}


def _other_answers(pairs: Sequence[GroupSpec], store: Store, measure: MeasureSpec) -> list[GroupSpec]:
    """The pairs whose answer is to another question."""
    done = store.answers()
    known = answered(pairs, done, measure)
    return [pair for pair in pairs if pair.key in done and pair.key not in known]


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a run folder holds of a space: pairs that answer what is asked, and those that are asked again."""

    finished: int
    again: AskedAgain | None

    def plain(self) -> dict[str, object]:
        """As ``lmc-tune space --out DIR --json`` prints it."""
        return {"finished": self.finished, "asked_again": None if self.again is None else vars(self.again)}


def held(space: SearchSpace, folder: Place) -> Held:
    """Look into a run folder, which need not exist."""
    pairs, store = space.pairs(), Store(folder)
    known = answered(pairs, store.answers(), space.measure)
    workers = SweepRecord.read(folder).workers if (folder / SWEEP_FILE).exists() else workers_here()
    return Held(
        finished=sum(status != "failed" for status in known.values()),
        again=asked_again(pairs, store, space.measure, workers),
    )
