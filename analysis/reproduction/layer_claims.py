"""What Adilova et al. 2024 claim of single layers, of directions and of federations, and how tables are read for each.

The rules were committed before any of these studies ran (docs/protocols.md).
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from lmc_tune.analysis.reproduction.expectations import Claim, Expectation, Reading
from lmc_tune.analysis.reproduction.sweep_tables import Study, groups_by, numbers
from lmc_tune.core.barrier import Array

_PAPER = "Adilova et al. 2024"
# Rises that differ by less than a tenth of the larger one are called alike.
_ALIKE = 0.1
# A test accuracy that is higher by less than a point is not called better.
_POINT = 0.01
_NOT_JUDGED = "No cell of which layers were moved is judged."


def no_layer_alone(study: Study) -> Reading:
    """The whole network's barrier above the threshold, and the highest one of any single layer below it."""
    found = list[Expectation]()
    for name, pairs in groups_by(_layered(study), "network", "lr", "shift"):
        whole = _of_pairs(study, pairs, "full").set_index("key")
        single = _of_pairs(study, pairs, "single").groupby("key")[["error", "loss"]].max()
        threshold = study.verdict.threshold
        found += [
            Expectation(
                what=f"{name}: barrier of all layers",
                values=numbers(whole["error"]),
                unit="fraction",
                side="above",
                limit=threshold,
            ),
            Expectation(
                what=f"{name}: highest barrier of any single layer",
                values=numbers(single["error"]),
                unit="fraction",
                side="below",
                limit=threshold,
            ),
            Expectation(
                what=f"{name}: barrier of the test loss of all layers", values=numbers(whole["loss"]), unit="nats"
            ),
            Expectation(
                what=f"{name}: highest barrier of the test loss of any single layer",
                values=numbers(single["loss"]),
                unit="nats",
            ),
        ]
    return Reading(expectations=found, unmet="" if found else _NOT_JUDGED)


def middle_layers(study: Study) -> Reading:
    """Which share of the layers, counted from either end, has half of the barrier: between a third and two thirds."""
    found = list[Expectation]()
    for name, pairs in groups_by(_layered(study), "network", "lr", "shift"):
        for family, end in (("shallow", "input"), ("deep", "output")):
            shares = _half_height(study, pairs, family)
            what = f"{name}: share of the layers, from the {end}, that has half of the barrier of the test loss"
            found += [
                Expectation(what=what, values=shares, unit="fraction", side="above", limit=1 / 3),
                Expectation(what=what, values=shares, unit="fraction", side="below", limit=2 / 3),
            ]
    return Reading(expectations=found, unmet="" if found else _NOT_JUDGED)


def _half_height(study: Study, pairs: pd.DataFrame, family: str) -> Array:
    """(pairs,) with k layers the first number that has half of the barrier of all L: (k − ½)/L; NaN without one."""
    whole = _of_pairs(study, pairs, "full")
    growing = pd.concat([_of_pairs(study, pairs, family), whole]).sort_values(["key", "layers"], kind="stable")
    full = whole.set_index("key")
    reached = growing[growing["loss"] >= growing["key"].map(full["loss"]) / 2].drop_duplicates("key").set_index("key")
    share: pd.Series = (reached["layers"].reindex(full.index) - 0.5) / full["layers"]
    return numbers(share.where(full["loss"] > 0))


def _layered(study: Study) -> pd.DataFrame:
    """The judged pairs of which layers were moved."""
    return study.judged[study.judged["key"].isin(study.layers["key"])]


def _of_pairs(study: Study, pairs: pd.DataFrame, family: str) -> pd.DataFrame:
    layers = study.layers
    return layers[(layers["family"] == family) & layers["key"].isin(pairs["key"])]


def own_direction(study: Study) -> Reading:
    """Half of the way to the other member, layer by layer, against random directions that are as long."""
    found = [
        Expectation(
            what=f"{name}: rise of the test loss towards the other member against random directions",
            values=_relative(steps[steps["position"].notna()], pairs, "interpolation", "random"),
            unit="plain",
            side="outside",
            limit=_ALIKE,
        )
        for name, pairs, steps in _steps(study)
    ]
    return Reading(expectations=found, unmet="" if found else "No cell of which directions were measured is judged.")


def subspaces(study: Study) -> Reading:
    """Noise at the members in the span of their training, against noise that is as long and orthogonal to it."""
    found = [
        Expectation(
            what=f"{name}: rise of the test loss in the span of training against its complement",
            values=_relative(steps[steps["lambda"].isin([0.0, 1.0])], pairs, "span", "complement"),
            unit="plain",
            side="outside",
            limit=_ALIKE,
        )
        for name, pairs, steps in _steps(study)
    ]
    return Reading(expectations=found, unmet="" if found else "No cell of which directions were measured is judged.")


def _steps(study: Study) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """The name of a cell, its pairs, and their steps of half of the members' distance."""
    half = study.steps[study.steps["alpha"] == 0.5]
    for name, pairs in groups_by(study.judged[study.judged["key"].isin(half["key"])], "network", "lr"):
        yield name, pairs, half[half["key"].isin(pairs["key"])]


def _relative(steps: pd.DataFrame, pairs: pd.DataFrame, first: str, second: str) -> Array:
    """(pairs,) mean rise of one kind minus that of the other, in shares of the larger one; from −2 to 2."""
    means = steps.groupby(["key", "kind"])["rise"].mean()
    one, other = (numbers(means.xs(kind, level="kind").reindex(pairs["key"])) for kind in (first, second))
    relative: Array = (one - other) / np.maximum(np.abs(one), np.abs(other))
    return relative


def rates_and_layers(study: Study) -> Reading:
    """Layers that break alone at the highest rate minus those at the lowest, replicate by replicate."""
    found = list[Expectation]()
    for name, pairs in groups_by(_layered(study), "network"):
        rates = np.unique(pairs["lr"]).tolist()
        counts = [_breaking(study, pairs[pairs["lr"] == rate]) for rate in (rates[0], rates[-1])]
        if len(rates) > 1:
            found.append(
                _more(f"{name}: layers that break alone, learning rate {rates[-1]:g} minus {rates[0]:g}", *counts)
            )
    return Reading(expectations=found, unmet="" if found else "No network has two learning rates that are judged.")


def tasks_and_layers(study: Study) -> Reading:
    """Layers that break alone on CIFAR-10 minus those on MNIST, at equal rates and without another shift."""
    pairs = _layered(study)
    pairs = pairs[pairs["shift"] == "covariate"]
    found = list[Expectation]()
    for name, own in groups_by(pairs, "lr"):
        counts = {task: _breaking(study, of_task) for task, of_task in own.groupby("dataset")}
        if counts.keys() >= {"mnist", "cifar10"}:
            found.append(
                _more(f"{name}: layers that break alone, CIFAR-10 minus MNIST", counts["mnist"], counts["cifar10"])
            )
    return Reading(expectations=found, unmet="" if found else "No learning rate is judged on both data sets.")


def _breaking(study: Study, pairs: pd.DataFrame) -> pd.Series:
    """By replicate, how many single layers of a pair have a barrier above the threshold."""
    single = _of_pairs(study, pairs, "single")
    counts = (single["error"] > study.verdict.threshold).groupby(single["key"]).sum()
    return pd.Series(counts.reindex(pairs["key"]).to_numpy(dtype=np.float64), index=pairs["replicate"])


def _more(what: str, few: pd.Series, many: pd.Series) -> Expectation:
    return Expectation(what=what, values=numbers((many - few).dropna()), unit="plain", side="above")


def baseline(study: Study) -> Reading:
    """Under another domain: no barrier over the chord of the path, and one over the mean of the members."""
    found, threshold = list[Expectation](), study.verdict.threshold
    over_mean = study.verdict.model_copy(update={"barrier": "endpoint_mean"}).column
    pairs = study.judged[study.judged["shift"] == "domain"]
    for name, own in groups_by(pairs, "dataset", "lr"):
        unequal = np.abs(numbers(own["test_accuracy_a"]) - numbers(own["test_accuracy_b"]))
        found += [
            Expectation(
                what=f"{name}: barrier over the chord",
                values=numbers(own[study.verdict.column]),
                unit="fraction",
                side="below",
                limit=threshold,
                case=name,
            ),
            Expectation(
                what=f"{name}: barrier over the mean of the members",
                values=numbers(own[over_mean]),
                unit="fraction",
                side="above",
                limit=threshold,
                case=name,
            ),
            Expectation(what=f"{name}: difference of the members' test accuracies", values=unequal, unit="fraction"),
        ]
    return Reading(expectations=found, unmet="" if found else "No cell under another domain is judged.")


def partial_averaging(study: Study) -> Reading:
    """Averages of some layers minus averages of all: not better on alike clients, better on very unlike ones."""
    accuracy, found = "averaged_test_accuracy", list[Expectation]()
    ok = study.pairs[study.pairs["status"] == "ok"]
    for name, own in groups_by(ok, "client_split"):
        by_layers = {
            str(layers): rows.set_index("replicate")[accuracy] for layers, rows in own.groupby("averaged_layers")
        }
        for layers in sorted(by_layers.keys() - {"all", "none"}):
            alike = (own["client_split"] == "iid").all()
            found.append(
                Expectation(
                    what=f"{name}: test accuracy of clients, some layers averaged minus all",
                    values=numbers((by_layers[layers] - by_layers["all"]).dropna()),
                    unit="fraction",
                    side="below" if alike else "above",
                    limit=_POINT if alike else 0.0,
                )
            )
        found += [
            Expectation(
                what=f"{name}: test accuracy of clients, averaged: {layers}", values=numbers(values), unit="fraction"
            )
            for layers, values in by_layers.items()
        ]
    return Reading(expectations=found, unmet="" if found else "No federation is finished.")


_SINGLE = (
    "A layer's barrier is the worse one of both bases, at λ = ½, over the mean of the whole members. Of every pair the "
    "highest of all layers counts, so the noise of many layers works against the claim."
)

LAYER_CLAIMS = (
    Claim(
        id="R9",
        text="No single layer of a norm-free ResNet-18 that was trained at a high rate has a barrier, though the whole "
        "network has one.",
        source=f"{_PAPER}, Fig. 1",
        preset="layers_resnet18_highlr",
        reading=no_layer_alone,
        note=_SINGLE,
    ),
    Claim(
        id="R10",
        text="The same after training at a low rate.",
        source=_PAPER,
        preset="layers_resnet18_lowlr",
        reading=no_layer_alone,
        note=_SINGLE,
    ),
    Claim(
        id="R11",
        text="The same in a language model of GPT's kind.",
        source=_PAPER,
        preset="layers_gpt",
        reading=no_layer_alone,
        note=f"{_SINGLE} The text is the King James Bible; errors are of characters, and the gate is the study's own.",
    ),
    Claim(
        id="R12",
        text="Cumulative barriers rise in the middle layers, from the input as from the output.",
        source=_PAPER,
        preset="layers_resnet18_highlr",
        reading=middle_layers,
        note="The number of layers, from either end, that have half of the barrier of all should lie between a third "
        "and two thirds of them.",
    ),
    Claim(
        id="R13",
        text="The direction from one member to the other differs from random directions of equal length.",
        source=_PAPER,
        preset="layers_vgg11",
        reading=own_direction,
        note="Layer by layer, half of its own distance; the mean over layers and members of how far the test loss "
        "rises. The claim does not say which rise is larger; a difference of less than a tenth contradicts it.",
    ),
    Claim(
        id="R14",
        text="Subspaces differ in robustness: noise in the span of training and noise orthogonal to it, of equal norm.",
        source=_PAPER,
        preset="layers_vgg11",
        reading=subspaces,
        note="Norms are half of the members' distance. The claim does not say which rise is larger; a difference of "
        "less than a tenth contradicts it.",
    ),
    Claim(
        id="R15",
        text="A higher learning rate makes more layers sensitive.",
        source=_PAPER,
        preset="layers_vgg11",
        reading=rates_and_layers,
        note="A layer counts if its barrier alone lies above the threshold.",
    ),
    Claim(
        id="R16",
        text="A harder task makes more layers sensitive.",
        source=_PAPER,
        preset="layers_mlp",
        reading=tasks_and_layers,
        note="CIFAR-10 against MNIST; a layer counts if its barrier alone lies above the threshold.",
    ),
    Claim(
        id="R17",
        text="Where the members' errors differ, their mean misleads as the baseline of a barrier.",
        source=_PAPER,
        preset="layers_mlp",
        reading=baseline,
        holds="one",
        note="B sees noisy images, and both are tested on clean and on noisy ones. One cell is enough in which the "
        "path has no barrier over its chord, and has one over the mean of the members.",
    ),
    Claim(
        id="R18",
        text="In federated learning, averaging some layers is not better than averaging all, except on extremely "
        "unlike clients.",
        source=_PAPER,
        preset="federated_dirichlet",
        reading=partial_averaging,
        note="Test accuracy of clients after the last average. On alike clients (iid) the difference should lie below "
        "one point, on very unlike ones (Dirichlet 0.01) above 0. Which layers: those of the authors' public code.",
    ),
)
