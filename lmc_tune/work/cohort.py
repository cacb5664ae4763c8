"""The whole unit of work: a cohort of groups in, their rows out. No Ray, no MLflow.

Idempotent by key: a group whose question the store answers already is returned, not measured; a failed one is tried
again; a member that is kept is not trained again.
"""

import errno
import hashlib
import os
import secrets
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from lmc_tune.experiment import Cohort, Ensemble, Federated, GroupSpec, MeasureSpec
from lmc_tune.measurement.ends import Ends
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.registry import MEASUREMENTS
from lmc_tune.models.state import State
from lmc_tune.storage import StorageError
from lmc_tune.tables.columns import NestedName, Row
from lmc_tune.tables.rows import PairResult, failed_result, gate, spec_columns
from lmc_tune.training.engines import engine_for
from lmc_tune.training.progress import Progress
from lmc_tune.work.bench import Workbench
from lmc_tune.work.device import exact_device
from lmc_tune.work.ensemble import finish_ensemble
from lmc_tune.work.facts import TrainedPair, learning_rows, training_facts, training_status
from lmc_tune.work.federation import run_federation
from lmc_tune.work.members import MemberShelf, Trained
from lmc_tune.work.prepare import Setup, prepare, supplies


def cohort_name(cohort: Cohort) -> str:
    """What the names of the cohort's shards begin with: a hash of its groups' keys."""
    keys = " ".join(group.key for group in cohort.groups)
    return hashlib.blake2b(keys.encode(), digest_size=8).hexdigest()


def run_cohort(cohort: Cohort, bench: Workbench) -> list[PairResult]:
    """Run the groups of a cohort that have no result yet; return the results of all, in order.

    The loop engine trains and measures group after group; the stacked one trains all at once that are shown one domain,
    then measures group after group. Every group is published as soon as it is finished. An exception inside a group
    becomes a ``failed`` row with its traceback and the cohort goes on; one from the store (disk full, folder gone) ends
    the cohort, since nothing further could be kept.

    Args:
        cohort: the groups.
        bench: store, data, device, and what is asked.
    """
    name, store = cohort_name(cohort), bench.store
    known = store.recall(name, [group.key for group in cohort.groups])
    # Of this writer alone, as are its rows: a worker that was taken for dead may still be at the same cohort.
    shard, found = f"{name}-{secrets.token_hex(4)}", dict[str, PairResult]()
    left = [group for group in cohort.groups if not _answers(known.get(group.key), bench.measure.of(group.model))]
    shelf = MemberShelf(bench, left, supplies().engines)
    try:
        for groups in _at_once(left, exact_device(bench.device)):
            store.mark_running(shard, [group.key for group in groups])
            for result in _run_or_fail(groups, bench, shelf, known):
                found[result.key] = result
                store.write_shard(shard, list(found.values()))
                shelf.release(next(group for group in groups if group.key == result.key))
    finally:
        store.unmark_running(shard)
    return [{**known, **found}[group.key] for group in cohort.groups]


def run_pair(spec: GroupSpec, bench: Workbench) -> PairResult:
    """Train and measure one group; exceptions pass through."""
    if isinstance(spec.recipe, Federated):
        return run_federation(spec, bench)
    shelf = MemberShelf(bench, [spec], supplies().engines)
    ((setup, trained),) = train_groups([prepare(spec, bench)], shelf)
    result = _finish(setup, trained, bench, shelf)
    shelf.release(spec)
    return result


def train_groups(setups: Sequence[Setup], shelf: MemberShelf) -> list[tuple[Setup, Trained]]:
    """Train the members of some groups, or find them on the shelf."""
    return list(zip(setups, shelf.train(setups), strict=True))


def _answers(result: PairResult | None, question: MeasureSpec) -> bool:
    return result is not None and result.status != "failed" and result.columns.get("question") == question.key


def _at_once(groups: Sequence[GroupSpec], device: torch.device) -> Iterator[list[GroupSpec]]:
    """Groups that are trained together: all whose members are stacked and shown the same domains, else each alone."""
    stacks: dict[str, list[GroupSpec]] = {}
    for group in groups:
        federated = isinstance(group.recipe, Federated)  # whose clients are a stack of their own
        if not federated and any(engine_for(member, device) == "stacked" for member in group.members.values()):
            stacks.setdefault(group.shift.text if group.shift.kind == "domain" else "", []).append(group)
        else:
            yield [group]
    yield from stacks.values()


def _finish(
    setup: Setup, trained: Trained, bench: Workbench, shelf: MemberShelf, before: PairResult | None = None
) -> PairResult:
    """Measure a trained group; ``before`` is what was known of it, if anything was."""
    if isinstance(setup.spec.recipe, Ensemble):
        return finish_ensemble(setup, trained, bench, shelf, before)
    pair, started = TrainedPair.of(setup, trained), time.perf_counter()
    spec, asked = setup.spec, bench.measure.of(setup.spec.model)
    members, known = _members(pair, asked), before.columns if before else {}
    ends = Ends().measure(members, asked).columns
    columns = {
        **spec_columns(spec),
        "question": asked.key,
        **training_facts(pair),
        **ends,
        **training_status(pair, ends),
        "seconds_train": shelf.seconds(spec) or known.get("seconds_train") or 0.0,
        "seconds_measure": 0.0,
        **{name: _of_training(pair, name) or known.get(name) or "" for name in ("device", "engine", "engine_reason")},
    }
    tables: dict[NestedName, list[Row]] = {"curves": learning_rows(pair)}
    if pair.a.diverged or pair.b.diverged:  # non-finite weights have no path
        return PairResult(columns=columns, tables=tables)
    for measurement in MEASUREMENTS:
        found = measurement.measure(members, asked)
        columns |= found.columns
        if twice := tables.keys() & found.tables.keys():
            raise ValueError(f"two measurements have rows of the table {min(twice)}; only one may")
        tables |= found.tables
    columns["seconds_measure"] = time.perf_counter() - started
    return PairResult(columns=gate(columns, bench.min_train_accuracy), tables=tables)


def _of_training(pair: TrainedPair, name: str) -> str:
    """What is kept of how the members were trained; both answers if they differ."""
    answers = (getattr(progress, name) for _, progress, _ in pair.members)
    return " and ".join(dict.fromkeys(filter(None, answers)))


def _members(pair: TrainedPair, asked: MeasureSpec) -> Members:
    setup, data = pair.setup, pair.setup.data
    by_split = {"train": data.train, "test": data.test, "validation": data.validation}
    return Members(
        network=Network(setup.model),
        states={name: _on(setup.device, member.state) for name, member, _ in pair.members},
        data={str(split): by_split[split] for split in asked.splits},
        own={name: examples for name, _, examples in pair.members},
        statistics=data.shuffled(setup.spec.seed_for("recalibration")),
        start=_on(setup.device, setup.start),
        snapshots={name: _snapshots(setup, member, asked) for name, member, _ in pair.members},
        seed=setup.spec.seed_for("measurement"),
    )


def _snapshots(setup: Setup, member: Progress, asked: MeasureSpec) -> dict[int, State]:
    known = {0: setup.start, **member.snapshots}
    return {epoch: _on(setup.device, known[epoch]) for epoch in asked.snapshots if epoch in known}


def _on(device: torch.device, state: State) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in state.items()}


def _run_or_fail(
    groups: Sequence[GroupSpec], bench: Workbench, shelf: MemberShelf, known: Mapping[str, PairResult]
) -> Iterator[PairResult]:
    """Train some groups together, then measure them one by one; whatever crashes is a failed row."""
    setups = []
    for group in groups:
        try:
            if isinstance(group.recipe, Federated):
                yield run_federation(group, bench)
                continue
            setups.append(prepare(group, bench))
        except Exception as error:  # noqa: BLE001
            yield _failed(group, error)
    yield from _train_or_split(setups, bench, shelf, known)


def _train_or_split(
    setups: Sequence[Setup], bench: Workbench, shelf: MemberShelf, known: Mapping[str, PairResult]
) -> Iterator[PairResult]:
    """The results of some groups.

    If they cannot be trained together (the device's memory is short, or one of them is at fault), each half is tried.
    """
    if not setups:
        return
    failure = None
    try:
        groups = train_groups(setups, shelf)
    except Exception as error:  # noqa: BLE001
        failure = _failed(setups[0].spec, error)
    if failure is None:
        for setup, trained in groups:
            try:
                yield _finish(setup, trained, bench, shelf, known.get(setup.spec.key))
            except Exception as error:  # noqa: BLE001
                yield _failed(setup.spec, error)
    elif len(setups) == 1:
        yield failure
    else:  # outside of the except clause, whose traceback would keep the memory
        half = len(setups) // 2
        yield from _train_or_split(setups[:half], bench, shelf, known)
        yield from _train_or_split(setups[half:], bench, shelf, known)


def _failed(spec: GroupSpec, error: Exception) -> PairResult:
    """Failure is data: the row keeps the traceback and the sweep goes on; but storage that is full or away is not the
    pair's fault.
    """
    full = (os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))
    if isinstance(error, StorageError) or any(said in str(error) for said in full):
        raise error
    return failed_result(spec, "".join(traceback.format_exception(error)))
