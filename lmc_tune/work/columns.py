"""What a trained and measured pair is found to be, as columns of its row and rows of its path."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
from torch import Tensor

from lmc_tune.core.average_precision import mean_average_precision
from lmc_tune.core.barrier import DEFINITIONS, Array
from lmc_tune.core.calibration import calibration, combine, gain, log_probabilities
from lmc_tune.core.noise import noise_scale
from lmc_tune.core.similarity import cohens_kappa, disagreement, error_overlap, jensen_shannon, true_class_variance
from lmc_tune.data.decisions import decisions
from lmc_tune.data.examples import ExampleSet, Part
from lmc_tune.experiment import Condition, condition_column
from lmc_tune.measurement.conditions import PathNetworks
from lmc_tune.measurement.evaluate import evaluate, logits_of
from lmc_tune.measurement.path import Path
from lmc_tune.measurement.representation import compare_grams, layer_grams, layer_parameters, weight_similarity
from lmc_tune.models.state import distance
from lmc_tune.tables.rows import Row
from lmc_tune.training.progress import Progress
from lmc_tune.work.members import Trained
from lmc_tune.work.prepare import Setup


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A trained pair in memory; ``joint`` is what its members share, if they were trained together first."""

    setup: Setup
    a: Progress
    b: Progress
    joint: Progress | None = None

    @classmethod
    def of(cls, setup: Setup, trained: Trained) -> Self:
        """The pair of a group's members."""
        return cls(setup=setup, a=trained.members["a"], b=trained.members["b"], joint=trained.trunk)

    @property
    def further_steps(self) -> int:
        """Steps of joint training beyond those that its epochs have on one part alone."""
        if self.joint is None or not self.joint.curve:
            return 0
        train = self.setup.spec.train
        return self.joint.curve[-1].step - len(self.joint.curve) * (len(self.setup.data.a) // train.batch_size)

    @property
    def members(self) -> tuple[tuple[str, Progress, Part], ...]:
        """Name, training, and part of the training set of each member."""
        return (("a", self.a, self.setup.data.a), ("b", self.b, self.setup.data.b))


def training_columns(pair: Pair) -> Row:
    """What is known of the members as they were trained."""
    setup, model = pair.setup, pair.setup.model
    spec, test = setup.spec, setup.data.test
    n_train = len(setup.data.a)
    row: Row = {
        "n_train": n_train,
        "steps": _steps(pair, n_train),
        "target_reached": _reached(pair),
        "noise_scale": noise_scale(spec.train.lr, spec.train.batch_size, n_train),
        **setup.measured_shift,
    }
    names = tuple(name for name, _ in model.named_parameters())
    reasons = []
    for name, member, examples in pair.members:
        model.load_state_dict(member.state)
        scores = {"train": evaluate(model, examples), "test": evaluate(model, test)}
        for split_name, score in scores.items():
            row[f"{split_name}_loss_{name}"] = score.loss
            row[f"{split_name}_accuracy_{name}"] = score.accuracy
        row[f"distance_{name}"] = distance(member.state, setup.start, names)
        if reason := member.diverged or _rose(setup, examples, scores["train"].loss):
            reasons.append(f"member {name.upper()}: {reason}")
    row["distance"] = distance(pair.a.state, pair.b.state, names)
    return {**row, "status": "diverged" if reasons else "ok", "reason": "; ".join(reasons)}


def _steps(pair: Pair, n_train: int) -> int:
    """Of the member that took more: those of its budget, or up to its target loss; joint ones are among them."""
    budgets = {name: member.train for name, member in pair.setup.spec.members.items()}
    return pair.further_steps + max(
        budgets[name].steps_for(n_train)
        if budgets[name].target_loss is None
        # Where joint training diverged, members have no curve of their own.
        else (member.curve[-1].step if member.curve else 0)
        for name, member, _ in pair.members
    )


def _reached(pair: Pair) -> bool | None:
    """Whether all members that have a target loss got to it; None without one."""
    targets = {name: member.train.target_loss for name, member in pair.setup.spec.members.items()}
    reached = [
        bool(member.curve) and member.curve[-1].train_loss <= target
        for name, member, _ in pair.members
        if (target := targets[name]) is not None
    ]
    return all(reached) if reached else None


def _rose(setup: Setup, examples: Part, loss: float) -> str:
    """Whether a member's loss ended above chance level and above where it began; empty if it did not.

    The initial weights may already lie above chance level: a member that hardly moved from there is undertrained, so
    its loss has to have risen as well.
    """
    n_classes = 2 if examples.labels.ndim == 2 else setup.n_classes
    if loss <= math.log(n_classes):
        return ""
    setup.model.load_state_dict(setup.start)
    if loss <= evaluate(setup.model, examples).loss:
        return ""
    return f"rose above chance level: train loss {loss:.3g} > ln {n_classes}"


def similarity_columns(networks: PathNetworks, test: ExampleSet) -> Row:
    """How alike the members predict, and what their ensemble and their weight average are worth, on the test set.

    Args:
        networks: A, the weight average and B, all under one condition: members with statistics of their own training
            beside an average with statistics estimated anew would differ in more than their weights.
        test: of several labels per example, every one is a prediction of its own.
    """
    labels, logits = test.labels.cpu(), {}
    for name, state in zip(("a", "average", "b"), networks.states, strict=True):
        networks.network.load_state_dict(state)
        logits[name] = logits_of(networks.network, test).double().cpu()
    scores = {name: decisions(values, labels)[0].numpy() for name, values in logits.items()}
    truth = decisions(logits["a"], labels)[1].numpy()
    predicted = {name: values.argmax(1) for name, values in scores.items()}
    probabilities = {name: np.exp(log_probabilities(values)) for name, values in scores.items()}

    def alike(one: str, other: str) -> Row:
        overlap = error_overlap(predicted[one], predicted[other], truth)
        found = {
            "disagreement": disagreement(predicted[one], predicted[other]),
            "error_overlap": overlap.both_wrong,
            "jensen_shannon": jensen_shannon(probabilities[one], probabilities[other]),
            "true_class_variance": true_class_variance(probabilities[one], probabilities[other], truth),
        }
        if labels.ndim == 1:  # of decisions pooled over labels, whose frequencies differ, they say nothing
            found["error_overlap_ratio"] = overlap.over_independence
            found["same_error"] = overlap.same_wrong_label
            found["kappa"] = cohens_kappa(predicted[one], predicted[other])
        return found

    with_average = [alike("average", member) for member in ("a", "b")]
    known = {name: calibration(values, truth) for name, values in scores.items()}
    ensemble = combine(scores["a"], scores["b"])
    known["ensemble"] = calibration(ensemble, truth)
    return {
        **alike("a", "b"),
        **{f"average_{name}": _mean(row[name] for row in with_average) for name in with_average[0]},
        **{
            f"test_{quality}_{name}": getattr(known[name], quality)
            for quality in ("brier", "ece")
            for name in ("a", "b")
        },
        **{
            f"{combined}_{quality}": value
            for combined in ("ensemble", "average")
            for quality, value in asdict(known[combined]).items()
        },
        **{
            f"{combined}_gain_{quality}": value
            for combined in ("ensemble", "average")
            for quality, value in gain(known[combined], known["a"], known["b"]).items()
        },
        **(_ranking_columns(logits, ensemble, labels) if labels.ndim == 2 else {}),
    }


def _ranking_columns(logits: Mapping[str, Tensor], ensemble: Array, labels: Tensor) -> Row:
    """How well the examples are ranked, label by label; ``ensemble`` are log-probabilities of no and yes."""
    ranked = {
        "test_average_precision_a": logits["a"].numpy(),
        "test_average_precision_b": logits["b"].numpy(),
        # Log-odds: probabilities near 1 would tie.
        "ensemble_average_precision": (ensemble[:, 1] - ensemble[:, 0]).reshape(labels.shape),
        "average_average_precision": logits["average"].numpy(),
    }
    return {column: mean_average_precision(scores, labels.numpy()) for column, scores in ranked.items()}


def layer_rows(pair: Pair, networks: PathNetworks) -> list[Row]:
    """Similarity of every layer: of its weights, and of its outputs on test examples, of the same networks."""
    setup, states = pair.setup, (pair.a.state, pair.b.state)
    model, test = setup.model, setup.data.test
    a, of_average, b = (layer_grams(model, state, test) for state in networks.states)
    alike, with_average = compare_grams(a, b), [compare_grams(member, of_average) for member in (a, b)]
    return [
        {
            "layer": layer,
            "position": position,
            **asdict(weight_similarity(*states, setup.start, names)),
            "cka": alike[layer],
            "average_cka": _mean(found[layer] for found in with_average),
        }
        for position, (layer, names) in enumerate(layer_parameters(model).items())
    ]


def whole_columns(pair: Pair, layers: Sequence[Row]) -> Row:
    """What the layers' rows come to: the cosine of all weights, and means over the layers that have outputs."""
    names = [name for name, _ in pair.setup.model.named_parameters()]
    cosine = weight_similarity(pair.a.state, pair.b.state, pair.setup.start, names).cosine
    return {"weight_cosine": cosine} | {
        column: _mean(row[column] for row in layers if math.isfinite(row[column])) for column in ("cka", "average_cka")
    }


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return float(np.mean(known)) if known else math.nan


def path_columns(path: Path, condition: Condition) -> Row:
    """Every barrier of the path with its λ*; ``accuracy_difference`` at the λ* of the test error's chord barrier.

    Without a barrier the chord ties at both ends, where the difference would be half that of the members: it is then
    read at the midpoint.
    """
    row: Row = {"under_resolved": path.under_resolved}
    for split_name in ("train", "test"):
        for quantity in ("error", "loss"):
            for definition in DEFINITIONS:
                found = path.barrier(split_name, quantity, definition)
                column = f"{split_name}_{quantity}_barrier_{definition}"
                row[column], row[f"{column}_lambda"] = found.height, found.lambda_
    row["barrier_lambda"] = row["test_error_barrier_chord_lambda"]
    accuracy = path.curve("test", "accuracy")
    at = int(np.searchsorted(path.lambdas, row["barrier_lambda"] if row["test_error_barrier_chord"] > 0 else 0.5))
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
