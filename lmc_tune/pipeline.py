"""The whole unit of work: a cohort of pairs in, their rows out. No Ray, no MLflow.

Idempotent by key: a pair that the store already holds is returned, not trained; a failed one is tried again.
"""

import errno
import hashlib
import math
import time
import traceback
from collections.abc import Sequence
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
from lmc_tune.data.datasets import Dataset, Examples, Indices, load_dataset
from lmc_tune.data.shifts import Parts, split
from lmc_tune.measurement.evaluate import evaluate, logits_of, score_of
from lmc_tune.measurement.path import Path as MeasuredPath
from lmc_tune.measurement.path import measure_path
from lmc_tune.models.registry import build_model
from lmc_tune.results import PairResult, Row, failed_result, gate, spec_columns
from lmc_tune.specs import Cohort, DatasetSpec, PairSpec
from lmc_tune.store import replacing
from lmc_tune.training.loop import Trained, train_member
from lmc_tune.workbench import Workbench

# Examples of each part that the measured covariate shift looks at; its cost grows with the square.
_SHIFT_SAMPLE = 500


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A trained pair in memory: the initial state, and both members with the part that each was trained on."""

    model: nn.Module
    start: dict[str, Tensor]
    a: Trained
    b: Trained
    part_a: Examples
    part_b: Examples

    @property
    def members(self) -> tuple[tuple[str, Trained, Examples], ...]:
        """Name, training and part of each member."""
        return (("a", self.a, self.part_a), ("b", self.b, self.part_b))


def cohort_name(cohort: Cohort) -> str:
    """Name of the cohort's shard: a hash of its pairs' keys."""
    keys = " ".join(pair.key for pair in cohort.pairs)
    return hashlib.blake2b(keys.encode(), digest_size=8).hexdigest()


def run_cohort(cohort: Cohort, bench: Workbench) -> list[PairResult]:
    """Run the pairs of a cohort that have no result yet; return the results of all, in order.

    Every pair is published as soon as it is finished. An exception inside a pair becomes a ``failed`` row with its
    traceback and the cohort goes on; one from the store (disk full, folder gone) ends the cohort, since nothing
    further could be kept.

    Args:
        cohort: the pairs.
        bench: store, data, device.
    """
    name, store = cohort_name(cohort), bench.store
    results = store.recall(name, [spec.key for spec in cohort.pairs])
    try:
        for spec in cohort.pairs:
            if spec.key in results and results[spec.key].status != "failed":
                continue
            store.mark_running(name, spec.key)
            results[spec.key] = _run_or_fail(spec, bench)
            store.write_shard(name, list(results.values()))
    finally:
        store.unmark_running(name)
    return [results[spec.key] for spec in cohort.pairs]


def run_pair(spec: PairSpec, bench: Workbench) -> PairResult:
    """Train and measure one pair; exceptions pass through."""
    device = _device(bench.device)
    dataset = _dataset(spec.dataset, bench.data_root, device)
    started = time.perf_counter()
    parts = split(dataset.train.labels.cpu().numpy(), spec.shift, spec.seed_for("split"))
    pair = train_pair(spec, dataset, parts, device)
    trained = time.perf_counter()
    if bench.members:
        save_members(pair, spec.key, bench.members)
    training, predictions = _training_columns(spec, pair, dataset)
    row = {
        **spec_columns(spec),
        **training,
        "seconds_train": trained - started,
        "device": _device_name(device),
    }
    curves = [{"member": name, **asdict(point)} for name, member, _ in pair.members for point in member.curve]
    if pair.a.diverged or pair.b.diverged:  # non-finite weights have no path
        return PairResult(row={**row, "seconds_measure": 0.0}, curves=curves)
    both = dataset.train.take(np.union1d(parts.a, parts.b))
    data = {"train": both, "test": dataset.test, "validation": dataset.validation}
    measured = {str(name): data[name] for name in spec.measure.splits}
    path = measure_path(pair.model, pair.a.state, pair.b.state, measured, spec.measure)
    row |= path_columns(path) | _similarity_columns(predictions, dataset.test.labels.cpu().numpy())
    row["seconds_measure"] = time.perf_counter() - trained
    return PairResult(row=gate(row, bench.min_train_accuracy), paths=_path_rows(path), curves=curves)


def train_pair(spec: PairSpec, dataset: Dataset, parts: Parts, device: torch.device) -> Pair:
    """Train both members from one initialisation, each on its part."""
    shape = tuple(dataset.train.inputs.shape[1:])
    model = build_model(spec.model, shape, dataset.n_classes, spec.seed_for("init"), device)
    start = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def member(part: Examples, order_seed: int) -> Trained:
        model.load_state_dict(start)
        return train_member(model, part, dataset.test, spec.train, order_seed)

    order_a = spec.seed_for("order")
    order_b = order_a if spec.train.noise == "fixed" else spec.seed_for("order", "b")
    part_a, part_b = dataset.train.take(parts.a), dataset.train.take(parts.b)
    return Pair(
        model=model, start=start, a=member(part_a, order_a), b=member(part_b, order_b), part_a=part_a, part_b=part_b
    )


def save_members(pair: Pair, key: str, folder: Path) -> None:
    """Write ``KEY-a.safetensors``, ``KEY-b.safetensors`` and ``KEY-start.safetensors``, each atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    for member, state in (("a", pair.a.state), ("b", pair.b.state), ("start", pair.start)):
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


def _run_or_fail(spec: PairSpec, bench: Workbench) -> PairResult:
    try:
        return run_pair(spec, bench)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # of the disk's making, not the pair's
            raise
        # Failure is data: the row keeps the traceback and the sweep goes on.
        return failed_result(spec, traceback.format_exc())


def _training_columns(spec: PairSpec, pair: Pair, dataset: Dataset) -> tuple[Row, list[Indices]]:
    """What is known of the members as they are, and the labels that each predicts on the test set."""
    n_train = len(pair.part_a)
    row: Row = {
        "n_train": n_train,
        "steps": spec.train.steps_for(n_train),
        "noise_scale": noise_scale(spec.train.lr, spec.train.batch_size, n_train),
        **_measured_shift(pair, dataset.n_classes),
    }
    names = tuple(name for name, _ in pair.model.named_parameters())
    predictions = []
    for name, member, part in pair.members:
        pair.model.load_state_dict(member.state)
        logits = logits_of(pair.model, dataset.test)
        predictions.append(logits.argmax(1).cpu().numpy())
        scores = {"train": evaluate(pair.model, part), "test": score_of(logits, dataset.test.labels)}
        for split_name, score in scores.items():
            row[f"{split_name}_loss_{name}"] = score.loss
            row[f"{split_name}_accuracy_{name}"] = score.accuracy
        row[f"distance_{name}"] = distance(member.state, pair.start, names)
    row["distance"] = distance(pair.a.state, pair.b.state, names)
    reason = _divergence(pair, row, dataset.n_classes)
    return {**row, "status": "diverged" if reason else "ok", "reason": reason}, predictions


def _divergence(pair: Pair, row: Row, n_classes: int) -> str:
    """Why the pair counts as diverged; empty if it does not.

    The initial weights may already lie above chance level: a member that hardly moved from there is undertrained, so
    its loss has to have risen as well.
    """
    reasons = []
    for name, member, part in pair.members:
        loss = row[f"train_loss_{name}"]
        if member.diverged:
            reasons.append(f"member {name.upper()}: {member.diverged}")
        elif not loss <= math.log(n_classes) and not loss <= _initial_loss(pair, part):
            reasons.append(f"member {name.upper()} rose above chance level: train loss {loss:.3g} > ln {n_classes}")
    return "; ".join(reasons)


def _initial_loss(pair: Pair, examples: Examples) -> float:
    pair.model.load_state_dict(pair.start)
    return evaluate(pair.model, examples).loss


def _similarity_columns(predictions: Sequence[Indices], labels: Indices) -> Row:
    a, b = predictions
    overlap = error_overlap(a, b, labels)
    return {
        "disagreement": disagreement(a, b),
        "error_overlap": overlap.both_wrong,
        "error_overlap_ratio": overlap.over_independence,
        "same_error": overlap.same_wrong_label,
    }


def _measured_shift(pair: Pair, n_classes: int) -> Row:
    parts = (pair.part_a, pair.part_b)
    counts = [part.labels.bincount(minlength=n_classes).cpu().numpy() for part in parts]
    samples = [part.inputs[:_SHIFT_SAMPLE].flatten(1).cpu().numpy() for part in parts]
    return {"label_shift": total_variation(*counts), "covariate_shift": energy_coefficient(*samples)}


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
    """Loaded once per worker, however many pairs it runs."""
    return load_dataset(spec, root, device)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
