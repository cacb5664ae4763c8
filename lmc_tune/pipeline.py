"""The whole unit of work: a cohort of pairs in, their rows out. No Ray, no MLflow.

Idempotent by key: a pair that the store already holds is returned, not trained; a failed one is tried again.
"""

import errno
import hashlib
import math
import os
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lmc_tune.core.barrier import DEFINITIONS
from lmc_tune.core.divergence import energy_coefficient, total_variation
from lmc_tune.core.interpolation import distance
from lmc_tune.core.noise import noise_scale
from lmc_tune.core.similarity import disagreement, error_overlap
from lmc_tune.data.augment import Augmentation
from lmc_tune.data.datasets import Dataset, Examples, Indices, Part
from lmc_tune.data.prepared import open_dataset
from lmc_tune.data.shifts import Parts, split
from lmc_tune.device import exact_device
from lmc_tune.measurement.evaluate import evaluate, logits_of, score_of
from lmc_tune.measurement.path import Path as MeasuredPath
from lmc_tune.measurement.path import measure_path
from lmc_tune.models.registry import build_model
from lmc_tune.results import PairResult, Row, failed_result, gate, spec_columns
from lmc_tune.specs import Cohort, DatasetSpec, FactorySpec, ModelSpec, PairSpec, ShiftSpec
from lmc_tune.store import replacing
from lmc_tune.training.checkpoint import Checkpoint
from lmc_tune.training.engines import engine_for, train
from lmc_tune.training.task import Task, Trained
from lmc_tune.workbench import Workbench

# Examples of each part that the measured covariate shift looks at; its cost grows with the square.
_SHIFT_SAMPLE = 500


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A pair before training: its data, a network, and the initial state of both members, on the CPU.

    Pairs of one architecture may share the network: whoever uses it loads weights into it first.
    """

    spec: PairSpec
    dataset: Dataset
    parts: Parts
    measured_shift: Row
    model: nn.Module
    start: dict[str, Tensor]
    device: torch.device
    checkpoints: Mapping[str, Checkpoint]

    @property
    def tasks(self) -> tuple[Task, Task]:
        """Training A, and training B."""
        spec = self.spec
        order_a = spec.seed_for("order")
        order_b = order_a if spec.train.noise == "fixed" else spec.seed_for("order", "b")

        augment = Augmentation.of(spec.train, self.dataset.mean, self.dataset.std)

        def task(member: str, part: Indices, noise_seed: int) -> Task:
            checkpoint = self.checkpoints[member]
            return Task(
                model=self.model,
                start=self.start,
                whole=self.dataset.train,
                positions=torch.from_numpy(part).to(self.device),
                test=self.dataset.test,
                spec=spec.train,
                noise_seed=noise_seed,
                augment=augment,
                resume=checkpoint.read(),
                checkpoint=checkpoint,
            )

        return task("a", self.parts.a, order_a), task("b", self.parts.b, order_b)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A trained pair in memory."""

    setup: Setup
    a: Trained
    b: Trained

    @property
    def members(self) -> tuple[tuple[str, Trained, Indices], ...]:
        """Name, training, and part of the training set of each member."""
        return (("a", self.a, self.setup.parts.a), ("b", self.b, self.setup.parts.b))


def cohort_name(cohort: Cohort) -> str:
    """Name of the cohort's shard: a hash of its pairs' keys."""
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
    left = [spec for spec in cohort.pairs if spec.key not in results or results[spec.key].status == "failed"]
    at_once = len(left) if engine_for(cohort.pairs[0], exact_device(bench.device)) == "stacked" else 1
    try:
        for first in range(0, len(left), max(1, at_once)):
            specs = left[first : first + at_once]
            store.mark_running(name, [spec.key for spec in specs])
            for result in _run_or_fail(specs, bench):
                results[result.key] = result
                store.write_shard(name, list(results.values()))
                _forget(result.key, bench)
    finally:
        store.unmark_running(name)
    return [results[spec.key] for spec in cohort.pairs]


def run_pair(spec: PairSpec, bench: Workbench) -> PairResult:
    """Train and measure one pair; exceptions pass through."""
    setup, started = prepare(spec, bench), time.perf_counter()
    (pair,) = train_pairs([setup])
    result = _finish(pair, bench, time.perf_counter() - started)
    _forget(spec.key, bench)
    return result


def prepare(spec: PairSpec, bench: Workbench) -> Setup:
    """Load a pair's data, split them, and build its network."""
    device = exact_device(bench.device)
    dataset = _dataset(spec.dataset, bench.data_root, device)
    parts, measured_shift = _split(spec.dataset, bench.data_root, device, spec.shift, spec.seed_for("split"))
    shape = tuple(dataset.train.inputs.shape[1:])
    built = build_model(spec.model, shape, dataset.n_classes, spec.seed_for("init"))
    start = {name: tensor.detach().clone() for name, tensor in built.state_dict().items()}
    if isinstance(spec.model, FactorySpec):  # which may keep more than its state
        model = built.to(device)
    else:
        model = _network(spec.model, shape, dataset.n_classes, device)
    return Setup(
        spec=spec,
        dataset=dataset,
        parts=parts,
        measured_shift=measured_shift,
        model=model,
        start=start,
        device=device,
        checkpoints=_checkpoints(spec.key, bench),
    )


def _checkpoints(key: str, bench: Workbench) -> dict[str, Checkpoint]:
    """By member."""
    return {
        member: Checkpoint(
            path=bench.store.checkpoints / f"{key}-{member}.safetensors", seconds=bench.checkpoint_seconds
        )
        for member in ("a", "b")
    }


def _forget(key: str, bench: Workbench) -> None:
    """Remove the checkpoints of a pair that is finished."""
    for checkpoint in _checkpoints(key, bench).values():
        checkpoint.remove()


def train_pairs(setups: Sequence[Setup]) -> list[Pair]:
    """Train both members of some pairs of one program."""
    engine = engine_for(setups[0].spec, setups[0].device)
    trained = train([task for setup in setups for task in setup.tasks], engine)
    return [Pair(setup=setup, a=a, b=b) for setup, a, b in zip(setups, trained[::2], trained[1::2], strict=True)]


def _finish(pair: Pair, bench: Workbench, seconds_train: float) -> PairResult:
    """Measure a trained pair."""
    setup, started = pair.setup, time.perf_counter()
    spec, dataset = setup.spec, setup.dataset
    if bench.members:
        save_members(pair, spec.key, bench.members)
    training, predictions = _training_columns(pair)
    row = {
        **spec_columns(spec),
        **training,
        "seconds_train": seconds_train,
        "seconds_measure": 0.0,
        "device": _device_name(setup.device),
    }
    curves = [{"member": name, **asdict(point)} for name, member, _ in pair.members for point in member.curve]
    if pair.a.diverged or pair.b.diverged:  # non-finite weights have no path
        return PairResult(row=row, curves=curves)
    both = Part(whole=dataset.train, indices=np.union1d(setup.parts.a, setup.parts.b))
    data: dict[str, Examples | Part] = {"train": both, "test": dataset.test, "validation": dataset.validation}
    measured = {str(name): data[name] for name in spec.measure.splits}
    a, b = ({name: tensor.to(setup.device) for name, tensor in m.state.items()} for m in (pair.a, pair.b))
    path = measure_path(setup.model, a, b, measured, spec.measure)
    row |= path_columns(path) | _similarity_columns(predictions, dataset.test.labels.cpu().numpy())
    row["seconds_measure"] = time.perf_counter() - started
    return PairResult(row=gate(row, bench.min_train_accuracy), paths=_path_rows(path), curves=curves)


def save_members(pair: Pair, key: str, folder: Path) -> None:
    """Write ``KEY-a.safetensors``, ``KEY-b.safetensors`` and ``KEY-start.safetensors``, each atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    for member, state in (("a", pair.a.state), ("b", pair.b.state), ("start", pair.setup.start)):
        with replacing(folder / f"{key}-{member}.safetensors") as part:
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, part)


def path_columns(path: MeasuredPath) -> Row:
    """Every barrier of the path with its λ*; ``accuracy_difference`` at the λ* of the test error's chord barrier."""
    row: Row = {"under_resolved": path.under_resolved}
    for split_name in ("train", "test"):
        for quantity in ("error", "loss"):
            for definition in DEFINITIONS:
                found = path.barrier(split_name, quantity, definition)
                column = f"{split_name}_{quantity}_barrier_{definition}"
                row[column], row[f"{column}_lambda"] = found.height, found.lambda_
    row["barrier_lambda"] = row["test_error_barrier_chord_lambda"]
    accuracy = path.curve("test", "accuracy")
    at = int(np.searchsorted(path.lambdas, row["barrier_lambda"]))
    row["accuracy_difference"] = 100 * float(accuracy[at] - 0.5 * (accuracy[0] + accuracy[-1]))
    return row


def _run_or_fail(specs: Sequence[PairSpec], bench: Workbench) -> Iterator[PairResult]:
    """Train some pairs together, then measure them one by one; whatever crashes is a failed row."""
    setups = []
    for spec in specs:
        try:
            setups.append(prepare(spec, bench))
        except Exception as error:  # noqa: BLE001
            yield _failed(spec, error)
    for setup, pair, seconds in _train_or_split(setups):
        if isinstance(pair, str):
            yield failed_result(setup.spec, pair)
            continue
        try:
            yield _finish(pair, bench, seconds)
        except Exception as error:  # noqa: BLE001
            yield _failed(setup.spec, error)


def _failed(spec: PairSpec, error: Exception) -> PairResult:
    """Failure is data: the row keeps the traceback and the sweep goes on; but a full disk is not the pair's fault."""
    _raise_if_full(error)
    return failed_result(spec, "".join(traceback.format_exception(error)))


def _raise_if_full(error: Exception) -> None:
    if os.strerror(errno.ENOSPC) in str(error):  # safetensors has an error of its own for it
        raise error


def _train_or_split(setups: Sequence[Setup]) -> Iterator[tuple[Setup, Pair | str, float]]:
    """Every pair, or the traceback of its failure, and its share of the seconds.

    If pairs cannot be trained together (the device's memory is short, or one of them is at fault), each half is tried.
    """
    if not setups:
        return
    started, failure = time.perf_counter(), ""
    try:
        pairs = train_pairs(setups)
    except Exception as error:  # noqa: BLE001
        _raise_if_full(error)
        failure = traceback.format_exc()
    if not failure:
        seconds = (time.perf_counter() - started) / len(setups)
        yield from ((pair.setup, pair, seconds) for pair in pairs)
    elif len(setups) == 1:
        yield setups[0], failure, 0.0
    else:  # outside of the except clause, whose traceback would keep the memory
        half = len(setups) // 2
        yield from _train_or_split(setups[:half])
        yield from _train_or_split(setups[half:])


def _training_columns(pair: Pair) -> tuple[Row, list[Indices]]:
    """What is known of the members as they are, and the labels that each predicts on the test set."""
    setup, model = pair.setup, pair.setup.model
    spec, dataset = setup.spec, setup.dataset
    n_train = len(setup.parts.a)
    row: Row = {
        "n_train": n_train,
        "steps": spec.train.steps_for(n_train),
        "noise_scale": noise_scale(spec.train.lr, spec.train.batch_size, n_train),
        **setup.measured_shift,
    }
    names = tuple(name for name, _ in model.named_parameters())
    predictions, reasons = [], []
    for name, member, part in pair.members:
        examples = Part(whole=dataset.train, indices=part)
        model.load_state_dict(member.state)
        logits = logits_of(model, dataset.test)
        predictions.append(logits.argmax(1).cpu().numpy())
        scores = {"train": evaluate(model, examples), "test": score_of(logits, dataset.test.labels)}
        for split_name, score in scores.items():
            row[f"{split_name}_loss_{name}"] = score.loss
            row[f"{split_name}_accuracy_{name}"] = score.accuracy
        row[f"distance_{name}"] = distance(member.state, setup.start, names)
        if reason := member.diverged or _rose(setup, examples, scores["train"].loss):
            reasons.append(f"member {name.upper()}: {reason}")
    row["distance"] = distance(pair.a.state, pair.b.state, names)
    return {**row, "status": "diverged" if reasons else "ok", "reason": "; ".join(reasons)}, predictions


def _rose(setup: Setup, examples: Part, loss: float) -> str:
    """Whether a member's loss ended above chance level and above where it began; empty if it did not.

    The initial weights may already lie above chance level: a member that hardly moved from there is undertrained, so
    its loss has to have risen as well.
    """
    n_classes = setup.dataset.n_classes
    if loss <= math.log(n_classes):
        return ""
    setup.model.load_state_dict(setup.start)
    if loss <= evaluate(setup.model, examples).loss:
        return ""
    return f"rose above chance level: train loss {loss:.3g} > ln {n_classes}"


def _similarity_columns(predictions: Sequence[Indices], labels: Indices) -> Row:
    a, b = predictions
    overlap = error_overlap(a, b, labels)
    return {
        "disagreement": disagreement(a, b),
        "error_overlap": overlap.both_wrong,
        "error_overlap_ratio": overlap.over_independence,
        "same_error": overlap.same_wrong_label,
    }


def _path_rows(path: MeasuredPath) -> list[Row]:
    return [
        {
            "condition": "naive",
            "split": split_name,
            "lambda": float(lambda_),
            "loss_sum": score.loss_sum,
            "correct": score.correct,
            "n": score.n,
        }
        for lambda_, scores in zip(path.lambdas, path.scores, strict=True)
        for split_name, score in scores.items()
    ]


@lru_cache(maxsize=2)
def _dataset(spec: DatasetSpec, root: Path, device: torch.device) -> Dataset:
    """Opened once per worker, however many pairs it runs."""
    return open_dataset(spec, root, device)


@lru_cache(maxsize=2)
def _network(spec: ModelSpec, shape: tuple[int, ...], n_classes: int, device: torch.device) -> nn.Module:
    return build_model(spec, shape, n_classes, seed=0, device=device)


@lru_cache(maxsize=64)
def _split(spec: DatasetSpec, root: Path, device: torch.device, shift: ShiftSpec, seed: int) -> tuple[Parts, Row]:
    """The two parts, and how far they are apart: the same for every rate, batch size and network of a replicate."""
    dataset = _dataset(spec, root, device)
    labels = dataset.train.labels.cpu().numpy()
    parts = split(labels, shift, seed)
    counts = [np.bincount(labels[part], minlength=dataset.n_classes) for part in (parts.a, parts.b)]
    samples = [dataset.train.take(part[:_SHIFT_SAMPLE]).inputs.flatten(1).cpu().numpy() for part in (parts.a, parts.b)]
    return parts, {"label_shift": total_variation(*counts), "covariate_shift": energy_coefficient(*samples)}


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
