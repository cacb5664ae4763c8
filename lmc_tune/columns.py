"""What a trained and measured pair is found to be, as columns of its row and rows of its path."""

import math
from collections.abc import Sequence

import numpy as np

from lmc_tune.core.barrier import DEFINITIONS
from lmc_tune.core.interpolation import distance
from lmc_tune.core.noise import noise_scale
from lmc_tune.core.similarity import disagreement, error_overlap
from lmc_tune.data.datasets import Indices, Part
from lmc_tune.measurement.evaluate import evaluate, logits_of, score_of
from lmc_tune.measurement.path import Path
from lmc_tune.pair import Pair, Setup
from lmc_tune.results import Row
from lmc_tune.specs import Condition, condition_column


def training_columns(pair: Pair) -> tuple[Row, list[Indices]]:
    """What is known of the members as they are, and the labels that each predicts on the test set."""
    setup, model = pair.setup, pair.setup.model
    spec, test = setup.spec, setup.data.test
    n_train = len(setup.data.a)
    row: Row = {
        "n_train": n_train,
        "steps": spec.train.steps_for(n_train),
        "noise_scale": noise_scale(spec.train.lr, spec.train.batch_size, n_train),
        **setup.measured_shift,
    }
    names = tuple(name for name, _ in model.named_parameters())
    predictions, reasons = [], []
    for name, member, examples in pair.members:
        model.load_state_dict(member.state)
        logits = logits_of(model, test)
        predictions.append(logits.argmax(1).cpu().numpy())
        scores = {"train": evaluate(model, examples), "test": score_of(logits, test.labels)}
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
    n_classes = setup.n_classes
    if loss <= math.log(n_classes):
        return ""
    setup.model.load_state_dict(setup.start)
    if loss <= evaluate(setup.model, examples).loss:
        return ""
    return f"rose above chance level: train loss {loss:.3g} > ln {n_classes}"


def similarity_columns(predictions: Sequence[Indices], labels: Indices) -> Row:
    a, b = predictions
    overlap = error_overlap(a, b, labels)
    return {
        "disagreement": disagreement(a, b),
        "error_overlap": overlap.both_wrong,
        "error_overlap_ratio": overlap.over_independence,
        "same_error": overlap.same_wrong_label,
    }


def path_columns(path: Path, condition: Condition) -> Row:
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
    return {condition_column(condition, column): value for column, value in row.items()}


def path_rows(path: Path, condition: Condition) -> list[Row]:
    return [
        {
            "condition": condition,
            "split": split_name,
            "lambda": float(lambda_),
            "loss_sum": score.loss_sum,
            "correct": score.correct,
            "n": score.n,
        }
        for lambda_, scores in zip(path.lambdas, path.scores, strict=True)
        for split_name, score in scores.items()
    ]
