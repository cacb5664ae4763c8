"""How alike the members of a pair are, and what their ensemble and their weight average are worth."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import numpy as np
from torch import Tensor, nn

from lmc_tune.core.average_precision import mean_average_precision
from lmc_tune.core.barrier import Array
from lmc_tune.core.calibration import calibration, combine, gain, log_probabilities
from lmc_tune.core.similarity import cohens_kappa, disagreement, error_overlap, jensen_shannon, true_class_variance
from lmc_tune.data.decisions import decisions, has_yes_and_no
from lmc_tune.data.examples import ExampleSet, are_text, spread
from lmc_tune.experiment import MeasureSpec
from lmc_tune.measurement.conditions import Prepared, least_stale, prepare
from lmc_tune.measurement.evaluate import logits_of
from lmc_tune.measurement.layerwise.layers import layers_of
from lmc_tune.measurement.lines import Segment
from lmc_tune.measurement.measurement import Found, Sizes, Work
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.representation import compare_grams, layer_grams, weight_similarity
from lmc_tune.tables.columns import Row

# Logits that predictions of text are compared by: of so many windows as have about so many. Memory grows with them.
_MOST_LOGITS = 2**21


class Similarity:
    """Predictions, calibration, weights and layers of a pair and of its weight average, all under one condition.

    That is recalibrated where it is asked for and there is BatchNorm, whose statistics would be stale; else naive.
    """

    name = "similarity"

    def measure(self, members: Members, asked: MeasureSpec) -> Found:
        """Columns of the pair, and a row of the table of layers for each layer."""
        condition, line = least_stale(asked, members.network), Segment(*members.pair)
        networks = prepare(condition, members.network, line, members.statistics, [0.0, 0.5, 1.0])
        columns = similarity_columns(networks, members.data["test"])
        layers = layer_rows(members, networks)
        return Found(columns=columns | whole_columns(members, layers), tables={"layers": layers})

    def work(self, sizes: Sizes, asked: MeasureSpec) -> Work:
        """The test set for both members and their average, whose statistics are estimated first."""
        recalibrated = "recalibrated" in (asked.conditions or ())
        return Work(scored_apart=3 * sizes.test, estimated=3 * sizes.both if recalibrated else 0)


def similarity_columns(networks: Prepared, test: ExampleSet) -> Row:
    """How alike the members predict, and what their ensemble and their weight average are worth, on the test set.

    Args:
        networks: A, the weight average and B, all under one condition: members with statistics of their own training
            beside an average with statistics estimated anew would differ in more than their weights.
        test: of several labels or tokens per example, every one is a prediction of its own. Of text, some windows,
            evenly spaced.
    """
    test = compared(networks.network.loaded(networks.states[0]), test)
    labels, logits = test.labels.cpu(), {}
    for name, state in zip(("a", "average", "b"), networks.states, strict=True):
        logits[name] = logits_of(networks.network.loaded(state), test).double().cpu()
    pooled = has_yes_and_no(logits["a"], labels)
    scores = {name: decisions(values, labels)[0].numpy() for name, values in logits.items()}
    truth = decisions(logits["a"], labels)[1].numpy()
    predicted = {name: values.argmax(1) for name, values in scores.items()}
    probabilities = {name: np.exp(log_probabilities(values)) for name, values in scores.items()}

    def alike(one: str, other: str) -> Row:
        overlap = error_overlap(predicted[one], predicted[other], truth)
        found = {
            "disagreement": disagreement(predicted[one], predicted[other]),
            "error_overlap": overlap.both_wrong,
            "jensen_shannon": jensen_shannon([probabilities[one], probabilities[other]]),
            "true_class_variance": true_class_variance([probabilities[one], probabilities[other]], truth),
        }
        if not pooled:  # of decisions pooled over labels, whose frequencies differ, they say nothing
            found["error_overlap_ratio"] = overlap.over_independence
            found["same_error"] = overlap.same_wrong_label
            found["kappa"] = cohens_kappa(predicted[one], predicted[other])
        return found

    with_average = [alike("average", member) for member in ("a", "b")]
    known = {name: calibration(values, truth) for name, values in scores.items()}
    ensemble = combine([scores["a"], scores["b"]])
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
            for quality, value in gain(known[combined], [known["a"], known["b"]]).items()
        },
        **(_ranking_columns(logits, ensemble, labels) if pooled else {}),
    }


def compared(model: nn.Module, test: ExampleSet) -> ExampleSet:
    """The examples whose predictions are compared: all images, and as many windows of text as memory allows."""
    first = next(test.chunks(2))
    if not are_text(first.inputs):
        return test
    each = logits_of(model, first)[0].numel()
    return spread(test, max(1, _MOST_LOGITS // each))


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


def layer_rows(members: Members, networks: Prepared) -> list[Row]:
    """Similarity of every layer: of its weights, and of its outputs on test examples, of the same networks."""
    network, states, test = members.network, members.pair, members.data["test"]
    layers = layers_of(network.module, next(test.chunks(2)).inputs)
    names = [layer.name for layer in layers]
    a, of_average, b = (layer_grams(network, state, test, names) for state in networks.states)
    alike, with_average = compare_grams(a, b), [compare_grams(member, of_average) for member in (a, b)]
    start = members.start
    return [
        {
            "layer": layer.name,
            "position": position,
            **(asdict(weight_similarity(*states, start, layer.parameters)) if start is not None else {}),
            "cka": alike[layer.name],
            "average_cka": _mean(found[layer.name] for found in with_average),
        }
        for position, layer in enumerate(layers)
    ]


def whole_columns(members: Members, layers: Sequence[Row]) -> Row:
    """What the layers' rows come to: the cosine of all weights, and means over the layers that have outputs."""
    means = {
        column: _mean(row[column] for row in layers if math.isfinite(row[column])) for column in ("cka", "average_cka")
    }
    if members.start is None:
        return means
    names = members.network.parameters
    return {"weight_cosine": weight_similarity(*members.pair, members.start, names).cosine, **means}


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return float(np.mean(known)) if known else math.nan
