"""The whole unit of work: a cohort of pairs in, their rows out. No Ray, no MLflow.

Idempotent by key: a pair that the store already holds is returned, not trained; a failed one is tried again.
"""

import errno
import hashlib
import os
import secrets
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache

import torch
from safetensors.torch import save
from torch import nn

from lmc_tune.experiment import BATCH_NORM_CONDITIONS, Cohort, Condition, PairSpec
from lmc_tune.measurement.conditions import has_batch_norm, prepare_networks
from lmc_tune.measurement.path import Path as MeasuredPath
from lmc_tune.measurement.path import measure_path
from lmc_tune.storage import Place, StorageError, replacing
from lmc_tune.tables.rows import PairResult, failed_result, gate, spec_columns
from lmc_tune.training.engines import Choice, Engines, engine_for, train
from lmc_tune.training.progress import Progress
from lmc_tune.training.task import Task
from lmc_tune.work.bench import Workbench
from lmc_tune.work.columns import (
    layer_rows,
    path_columns,
    path_rows,
    similarity_columns,
    training_columns,
    whole_columns,
)
from lmc_tune.work.device import exact_device
from lmc_tune.work.prepare import Pair, Setup, checkpoints, joint_task, prepare, tasks_of


def cohort_name(cohort: Cohort) -> str:
    """What the names of the cohort's shards begin with: a hash of its pairs' keys."""
    keys = " ".join(pair.key for pair in cohort.pairs)
    return hashlib.blake2b(keys.encode(), digest_size=8).hexdigest()


def run_cohort(cohort: Cohort, bench: Workbench) -> list[PairResult]:
    """Run the pairs of a cohort that have no result yet; return the results of all, in order.

    The loop engine runs pair after pair; the stacked one trains them all at once, then measures pair after pair. Every
    pair is published as soon as it is finished. An exception inside a pair becomes a ``failed`` row with its traceback
    and the cohort goes on; one from the store (disk full, folder gone) ends the cohort, since nothing further could be
    kept.

    Args:
        cohort: the pairs.
        bench: store, data, device.
    """
    name, store = cohort_name(cohort), bench.store
    results = store.recall(name, [spec.key for spec in cohort.pairs])
    # Of this writer alone: a worker that was taken for dead may still be at the same cohort.
    shard = f"{name}-{secrets.token_hex(4)}"
    left = [spec for spec in cohort.pairs if spec.key not in results or results[spec.key].status == "failed"]
    at_once = len(left) if engine_for(cohort.pairs[0], exact_device(bench.device)) == "stacked" else 1
    try:
        for first in range(0, len(left), max(1, at_once)):
            specs = left[first : first + at_once]
            store.mark_running(shard, [spec.key for spec in specs])
            for result in _run_or_fail(specs, bench):
                results[result.key] = result
                store.write_shard(shard, list(results.values()))
                _forget(result.key, bench)
    finally:
        store.unmark_running(shard)
    return [results[spec.key] for spec in cohort.pairs]


def run_pair(spec: PairSpec, bench: Workbench) -> PairResult:
    """Train and measure one pair; exceptions pass through."""
    (pair,) = train_pairs([prepare(spec, bench)])
    result = _finish(pair, bench)
    _forget(spec.key, bench)
    return result


def _forget(key: str, bench: Workbench) -> None:
    """Remove the checkpoints of a pair that is finished."""
    for checkpoint in checkpoints(key, bench).values():
        checkpoint.remove()


@cache
def _engines() -> Engines:
    """One for the life of a worker, however many cohorts it runs."""
    return Engines()


def _choice(setups: Sequence[Setup]) -> Choice:
    """What trains some pairs of one program."""

    def tasks() -> list[Task]:
        return [task for setup in setups for task in tasks_of(setup)]

    return _engines().choose(setups[0].spec, setups[0].device, tasks)


def train_pairs(setups: Sequence[Setup]) -> list[Pair]:
    """Train both members of some pairs of one program, after their joint training, if there is one."""
    engine = _choice(setups).engine
    joint: list[Progress | None] = [None] * len(setups)
    if setups[0].spec.train.spawn_epoch:
        joint = list(train([joint_task(setup) for setup in setups], engine))
    tasks = [
        task
        for setup, common in zip(setups, joint, strict=True)
        for task in tasks_of(setup, common and replace(common, curve=[], seconds=0.0))
    ]
    trained = train(tasks, engine)
    return [
        Pair(setup=setup, a=a, b=b, joint=common)
        for setup, a, b, common in zip(setups, trained[::2], trained[1::2], joint, strict=True)
    ]


def _finish(pair: Pair, bench: Workbench) -> PairResult:
    """Measure a trained pair."""
    setup, started, choice = pair.setup, time.perf_counter(), _choice([pair.setup])
    spec, data = setup.spec, setup.data
    if bench.members:
        save_members(pair, spec.key, bench.members)
    row = {
        **spec_columns(spec),
        **training_columns(pair),
        "seconds_train": pair.seconds,
        "seconds_measure": 0.0,
        "device": _device_name(setup.device),
        "engine": choice.engine,
        "engine_reason": choice.why,
    }
    curves = [
        {"member": name, **asdict(point), "step": point.step + pair.further_steps}
        for name, member, _ in pair.members
        for point in member.curve
    ]
    curves += [{"member": "joint", **asdict(point)} for point in (pair.joint.curve if pair.joint else ())]
    if pair.a.diverged or pair.b.diverged:  # non-finite weights have no path
        return PairResult(row=row, curves=curves)
    by_split = {"train": data.train, "test": data.test, "validation": data.validation}
    measured = {str(name): by_split[name] for name in spec.measure.splits}
    a, b = ({name: tensor.to(setup.device) for name, tensor in m.state.items()} for m in (pair.a, pair.b))
    statistics = data.shuffled(spec.seed_for("recalibration"))
    paths: dict[Condition, MeasuredPath] = {}
    for condition in spec.conditions:
        if condition in BATCH_NORM_CONDITIONS and not has_batch_norm(setup.model):  # a network of the user's own
            paths[condition] = paths["naive"]
        else:
            paths[condition] = measure_path(setup.model, a, b, measured, spec.measure, condition, statistics)
        row |= path_columns(paths[condition], condition)
    networks = prepare_networks(_best(spec, setup.model), setup.model, a, b, statistics, [0.0, 0.5, 1.0])
    row |= similarity_columns(networks, data.test)
    layers = layer_rows(pair, networks)
    row |= whole_columns(pair, layers)
    row["seconds_measure"] = time.perf_counter() - started
    rows = [point for condition, path in paths.items() for point in path_rows(path, condition)]
    return PairResult(row=gate(row, bench.min_train_accuracy), paths=rows, curves=curves, layers=layers)


def _best(spec: PairSpec, model: nn.Module) -> Condition:
    """The condition of members and weight average: naive, unless statistics would be stale and may be recalibrated."""
    return "recalibrated" if "recalibrated" in spec.conditions and has_batch_norm(model) else "naive"


def save_members(pair: Pair, key: str, folder: Place) -> None:
    """Write ``KEY-a.safetensors``, ``KEY-b.safetensors`` and ``KEY-start.safetensors``, each atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    for member, state in (("a", pair.a.state), ("b", pair.b.state), ("start", pair.setup.start)):
        with replacing(folder / f"{key}-{member}.safetensors") as file:
            file.write(save({name: tensor.contiguous() for name, tensor in state.items()}))


def _run_or_fail(specs: Sequence[PairSpec], bench: Workbench) -> Iterator[PairResult]:
    """Train some pairs together, then measure them one by one; whatever crashes is a failed row."""
    setups = []
    for spec in specs:
        try:
            setups.append(prepare(spec, bench))
        except Exception as error:  # noqa: BLE001
            yield _failed(spec, error)
    yield from _train_or_split(setups, bench)


def _train_or_split(setups: Sequence[Setup], bench: Workbench) -> Iterator[PairResult]:
    """The results of some pairs.

    If they cannot be trained together (the device's memory is short, or one of them is at fault), each half is tried.
    """
    if not setups:
        return
    failure, apart = None, False
    try:
        apart = len(setups) > 1 and _choice(setups).engine == "loop"
        pairs = [] if apart else train_pairs(setups)
    except Exception as error:  # noqa: BLE001
        failure = _failed(setups[0].spec, error)
    if apart:  # so that each is kept as soon as it is finished
        for setup in setups:
            yield from _train_or_split([setup], bench)
    elif failure is None:
        for pair in pairs:
            try:
                yield _finish(pair, bench)
            except Exception as error:  # noqa: BLE001
                yield _failed(pair.setup.spec, error)
    elif len(setups) == 1:
        yield failure
    else:  # outside of the except clause, whose traceback would keep the memory
        half = len(setups) // 2
        yield from _train_or_split(setups[:half], bench)
        yield from _train_or_split(setups[half:], bench)


def _failed(spec: PairSpec, error: Exception) -> PairResult:
    """Failure is data: the row keeps the traceback and the sweep goes on; but storage that is full or away is not the
    pair's fault.
    """
    full = (os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))
    if isinstance(error, StorageError) or any(said in str(error) for said in full):
        raise error
    return failed_result(spec, "".join(traceback.format_exception(error)))


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
