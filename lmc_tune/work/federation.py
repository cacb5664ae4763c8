"""A federation as a unit of work: its clients are trained and averaged, and every round is measured."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import torch

from lmc_tune.core.measured_shift import total_variation
from lmc_tune.core.noise import noise_scale
from lmc_tune.data.augment import Augmentation
from lmc_tune.data.clients import client_parts
from lmc_tune.data.examples import Part
from lmc_tune.experiment import Federated, GroupSpec
from lmc_tune.experiment.datasets import DatasetFacts, facts_of
from lmc_tune.measurement.evaluate import evaluate
from lmc_tune.measurement.network import Network
from lmc_tune.tables.columns import NestedName, Row
from lmc_tune.tables.rows import PairResult, gate, spec_columns
from lmc_tune.training.engines import train
from lmc_tune.training.federation import Client, Federation, Round, federate
from lmc_tune.training.progress import Progress
from lmc_tune.training.task import Task
from lmc_tune.work.bench import Workbench
from lmc_tune.work.device import exact_device
from lmc_tune.work.prepare import label_counts, network_of, supplies
from lmc_tune.work.rounds import RoundScores, barriers_of, client_columns, score_round
from lmc_tune.work.unfinished import Unfinished


def run_federation(spec: GroupSpec, bench: Workbench) -> PairResult:
    """Train a federation and measure each of its rounds; exceptions pass through.

    What is known of an unfinished one is written after a round, at most every ``checkpoint_seconds``, and another call
    goes on from there.
    """
    federation = prepare_federation(spec, bench)
    unfinished = Unfinished(path=bench.store.checkpoints / f"{spec.key}.safetensors", seconds=bench.checkpoint_seconds)
    after, rows, spent = unfinished.read() or (None, list[Row](), 0.0)
    last, scores = after, RoundScores(number=0, trained=[])

    for found in federate(federation, partial(_train, spec), after):
        started = time.perf_counter()
        last, scores = found, score_round(federation, found)
        rows += scores.rows()
        spent += time.perf_counter() - started
        if not found.diverged and found.number < federation.spec.rounds:
            unfinished.offer(found, rows, spent)
    assert last is not None  # noqa: S101 - there is at least one round, and the last one is never kept
    started = time.perf_counter()
    columns = {
        **spec_columns(spec),
        "question": (asked := bench.measure.of(spec.model)).key,
        **_training_facts(spec, federation, last),
        **client_columns(scores, federation.weights),
        **_status(federation, last, scores, facts_of(spec.dataset)),
    }
    tables: dict[NestedName, list[Row]] = {"curves": _learning_rows(last), "rounds": rows}
    if last.pooled is not None:
        tables["barriers"] = barriers_of(federation, last, scores, asked.conditions or ())
    columns["seconds_measure"] = spent + time.perf_counter() - started
    unfinished.remove()
    return PairResult(columns=gate(columns, bench.min_train_accuracy), tables=tables)


def prepare_federation(spec: GroupSpec, bench: Workbench) -> Federation:
    """Load a federation's data, share them out, and build its network.

    Raises:
        ValueError: if a client has fewer examples than a batch.
    """
    recipe = spec.recipe
    assert isinstance(recipe, Federated)  # noqa: S101 - asked for by its callers
    device, known = exact_device(bench.device), supplies()
    dataset = known.dataset(spec.dataset, bench.data_root, device)
    labels = dataset.train.labels.cpu().numpy()
    parts = client_parts(labels, recipe, spec.seed_for("split"))
    _check_batches(parts, spec.train.batch_size)
    model, start = network_of(spec, dataset, bench)
    clients = [
        Client(
            task=Task(
                model=model,
                start=start,
                whole=dataset.train,
                positions=torch.from_numpy(part).to(device),
                test=dataset.test,
                spec=member.train,
                noise_seed=member.noise_seed,
                augment=Augmentation.of(member.train, dataset.mean, dataset.std),
            ),
            own=Part(whole=dataset.train, indices=part),
        )
        for part, member in zip(parts, spec.members.values(), strict=True)
    ]
    together = np.random.default_rng(spec.seed_for("recalibration")).permutation(np.concatenate(parts))
    return Federation(
        spec=recipe,
        network=Network(model),
        clients=clients,
        everything=Part(whole=dataset.train, indices=together),
        test=dataset.test,
    )


def _check_batches(parts: Sequence[np.ndarray], batch_size: int) -> None:
    smallest = min(range(len(parts)), key=lambda at: len(parts[at]))
    if len(parts[smallest]) < batch_size:
        raise ValueError(
            f"client {smallest + 1} has {len(parts[smallest])} examples and no full batch of {batch_size}; lower "
            f"batch_size or clients, or raise dataset.train"
        )


def _train(spec: GroupSpec, tasks: list[Task]) -> list[Progress]:
    """Train the clients for a round, by the engine of their program."""
    member, device = next(iter(spec.members.values())), tasks[0].positions.device
    choice = supplies().engines.choose(member, device, lambda: tasks)
    return train([replace(t, engine=choice.engine, engine_reason=choice.why) for t in tasks], choice.engine)


def _training_facts(spec: GroupSpec, federation: Federation, last: Round) -> Row:
    """What is known of how the clients were trained; numbers of examples are means over them."""
    train_spec, sizes = spec.train, federation.sizes
    n_train = round(sum(sizes) / len(sizes))
    return {
        "n_train": n_train,
        "steps": max(train_spec.steps_for(size) for size in sizes),
        "noise_scale": noise_scale(train_spec.lr, train_spec.batch_size, n_train),
        "label_shift": _label_shift(federation, facts_of(spec.dataset)),
        "seconds_train": math.fsum(client.seconds for client in last.trained),
        **{name: getattr(last.trained[0], name) for name in ("device", "engine", "engine_reason")},
    }


def _label_shift(federation: Federation, facts: DatasetFacts) -> float:
    """Total variation between the labels of a client and of all of them; mean over all examples."""
    counts = [label_counts(client.own.labels, facts) for client in federation.clients]
    apart = [total_variation(own, sum(counts)) for own in counts]
    return math.fsum(weight * one for weight, one in zip(federation.weights, apart, strict=True))


def _learning_rows(last: Round) -> list[Row]:
    """The learning curves of the clients, as the table of curves keeps them."""
    return [
        {"member": f"client {number}", **asdict(point)}
        for number, client in enumerate(last.trained, 1)
        for point in client.curve
    ]


def _status(federation: Federation, last: Round, scores: RoundScores, facts: DatasetFacts) -> Row:
    """``status`` and ``reason``: whether a client diverged, by its training or by what it came to."""
    if last.diverged:
        return {"status": "diverged", "reason": last.diverged}
    classes = 2 if facts.multi_label else facts.n_classes
    reasons = []
    for number, (client, found) in enumerate(zip(federation.clients, scores.trained, strict=True), 1):
        loss = found["own"].loss
        if loss <= math.log(classes):
            continue
        if loss > evaluate(federation.network.loaded(client.task.start), client.own).loss:
            reasons.append(f"client {number}: rose above chance level: train loss {loss:.3g} > ln {classes}")
    return {"status": "diverged" if reasons else "ok", "reason": "; ".join(reasons)}
