"""What Adilova et al. 2024 claim of single layers, of directions and of federations, and how tables are read for each.

The rules were committed before any of these studies was read (docs/protocols.md).
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from lmc_tune.analysis.reproduction.expectations import Claim, Expectation, Reading, Unit
from lmc_tune.analysis.reproduction.sweep_tables import Study, groups_by, numbers
from lmc_tune.analysis.wording import listed
from lmc_tune.core.barrier import Array

_PAPER = "Adilova et al. 2024"
# Rises that differ by less than a tenth of the larger one are called alike, and those of less than this nothing, nats.
_ALIKE, _NOTHING = 0.1, 0.01
_NO_RISE = " or rises by 0.01 nats"
# A test accuracy that is higher by less than a point is not called better.
_POINT = 0.01


def no_layer_alone(study: Study) -> Reading:
    """The whole network's barrier above the threshold, and the rise of its most sensitive layer below it."""
    threshold = study.verdict.threshold
    shown: tuple[tuple[str, str, Unit, float | None], ...] = (
        ("", "error", "fraction", threshold),
        (" of the test loss", "loss", "nats", None),
        (" of the train error", "train_error", "fraction", None),
    )

    def expected(name: str, pairs: pd.DataFrame) -> list[Expectation]:
        rows = study.layers[study.layers["key"].isin(pairs["key"])]
        if not len(rows):
            return []
        whole = rows[(rows["family"] == "full") & (rows["base"] == "a")].set_index("key").reindex(pairs["key"])
        return [
            one
            for of, column, unit, limit in shown
            for one in (
                Expectation(
                    what=f"{name}: barrier{of} of all layers",
                    values=numbers(whole[f"{column}_barrier"]),
                    unit=unit,
                    side=None if limit is None else "above",
                    limit=limit or 0.0,
                ),
                Expectation(
                    what=f"{name}: rise{of} of the most sensitive layer of the other pairs",
                    values=_most_sensitive(rows, f"{column}_rise"),
                    unit=unit,
                    side=None if limit is None else "below",
                    limit=limit or 0.0,
                ),
            )
        ]

    return _by_cell(study, expected, "network", "lr", "shift")


def _most_sensitive(rows: pd.DataFrame, column: str) -> Array:
    """(pairs,) the rise of the layer and base that rise most in the mean over the *other* pairs.

    The highest of many measured numbers is too high; which one is the highest is asked of other pairs.
    """
    single = rows[rows["family"] == "single"].set_index(["key", "moved", "base"])[column]
    rises = single.unstack("key").to_numpy(dtype=np.float64)  # noqa: PD010 - pivot_table would take means
    others = rises.sum(axis=1, keepdims=True) - rises
    chosen: Array = np.take_along_axis(rises, np.argmax(others, axis=0)[None], axis=0)[0]
    return chosen


def middle_layers(study: Study) -> Reading:
    """The share of the whole barrier that the middle third of the layers adds to cumulative ones: above a third."""

    def expected(name: str, pairs: pd.DataFrame) -> list[Expectation]:
        rows = study.layers[study.layers["key"].isin(pairs["key"])]
        return [
            Expectation(
                what=f"{name}: share of the barrier of the test loss that the middle third adds, from the {end}",
                values=_share_of_middle(rows, family),
                unit="fraction",
                side="above",
                limit=1 / 3,
            )
            for family, end in (("shallow", "input"), ("deep", "output"))
            if len(rows)
        ]

    return _by_cell(study, expected, "network", "lr", "shift")


def _share_of_middle(rows: pd.DataFrame, family: str) -> Array:
    """(pairs,) NaN where all layers together have no barrier; barriers are means of both bases."""
    means = rows.groupby(["key", "family", "layers"])["loss_barrier"].mean()
    whole = means.xs("full", level="family").reset_index("layers")
    third = whole["layers"] / 3
    growing = means.xs(family, level="family")
    upper, lower = (
        numbers(growing.reindex(pd.MultiIndex.from_arrays([whole.index, np.rint(factor * third).astype(int)])))
        for factor in (2, 1)
    )
    full = numbers(whole["loss_barrier"])
    share: Array = np.where(full > 0, (upper - lower) / full, np.nan)
    return share


def own_direction(study: Study) -> Reading:
    """Half of the way to the other member, layer by layer, against random directions that are as long."""

    def expected(name: str, pairs: pd.DataFrame) -> list[Expectation]:
        steps = _half_steps(study, pairs)
        of_layers = steps[steps["position"] >= 0]
        values, larger = _apart_from_random(of_layers, pairs) if len(of_layers) else (np.empty(0), 0.0)
        if larger < _NOTHING:
            return []
        means = of_layers.groupby(["kind", "key"])["rise"].agg(_mean)
        return [
            Expectation(
                what=f"{name}: difference between the rises towards the other member and in random directions",
                values=values,
                unit="plain",
                side="above",
                limit=_ALIKE,
            ),
            *(
                Expectation(
                    what=f"{name}: rise of the test loss, {words}, mean over layers",
                    values=numbers(means.xs(kind).reindex(pairs["key"])),
                    unit="nats",
                )
                for kind, words in (("interpolation", "towards the other member"), ("random", "in random directions"))
            ),
        ]

    return _by_cell(study, expected, "network", "lr", lacking=_NO_RISE)


def _apart_from_random(steps: pd.DataFrame, pairs: pd.DataFrame) -> tuple[Array, float]:
    """(pairs,) how far the way to the other member differs from random ones, more than these differ among themselves.

    Differences are absolute, summed over layers and members, in shares of the larger rises: 0 if the way is one more
    random direction. Also the mean of the larger rises, nats.
    """
    place = ["key", "layer", "lambda"]
    way = steps[steps["kind"] == "interpolation"].set_index(place)["rise"]
    random = steps[steps["kind"] == "random"].set_index([*place, "draw"])["rise"]
    draws = random.unstack("draw").reindex(way.index).to_numpy(dtype=np.float64)  # noqa: PD010
    mean = draws.mean(axis=1)
    n = draws.shape[1]
    # A draw is as far from the mean of the n − 1 others as √(n²/(n²−1)) times a new one from the mean of all n.
    among = np.abs(draws - (n * mean[:, None] - draws) / max(n - 1, 1)).mean(axis=1) * np.sqrt((n * n - 1) / (n * n))
    larger = np.maximum(np.abs(way), np.abs(mean))
    table = pd.DataFrame({"apart": np.abs(way - mean) - among, "larger": larger}, index=way.index)
    sums = table.groupby("key").sum(min_count=1).where(table.isna().groupby("key").sum() == 0).reindex(pairs["key"])
    return numbers(sums["apart"] / sums["larger"]), float(larger.mean())


def subspaces(study: Study) -> Reading:
    """Noise at the members in the span of their training, against noise that is as long and orthogonal to it."""

    def expected(name: str, pairs: pd.DataFrame) -> list[Expectation]:
        steps = _half_steps(study, pairs)
        means = steps[steps["lambda"].isin([0.0, 1.0])].groupby(["kind", "key"])["rise"].agg(_mean)
        if not {"span", "complement"} <= set(means.index.get_level_values("kind")):
            return []
        span, complement = (numbers(means.xs(kind).reindex(pairs["key"])) for kind in ("span", "complement"))
        larger = np.maximum(np.abs(span), np.abs(complement))
        if larger.mean() < _NOTHING:
            return []
        return [
            Expectation(
                what=f"{name}: rise of the test loss in the span of training against its complement",
                values=(span - complement) / larger,
                unit="plain",
                side="outside",
                limit=_ALIKE,
            )
        ]

    return _by_cell(study, expected, "network", "lr", lacking=_NO_RISE)


def _half_steps(study: Study, pairs: pd.DataFrame) -> pd.DataFrame:
    """Steps of half of the members' distance."""
    return study.steps[(study.steps["alpha"] == 0.5) & study.steps["key"].isin(pairs["key"])]


def rates_and_layers(study: Study) -> Reading:
    """The mean rise of single layers at the highest rate minus that at the lowest, replicate by replicate."""
    rates = np.unique(study.pairs["lr"]).tolist()

    def expected(name: str, pairs: pd.DataFrame) -> list[Expectation]:
        low, high = (_mean_rise(study, pairs[pairs["lr"] == rate]) for rate in (rates[0], rates[-1]))
        what = f"{name}: mean rise of single layers, learning rate {rates[-1]:g} minus {rates[0]:g}"
        return [_more(what, low, high)] if len(low) and len(high) and len(rates) > 1 else []

    return _by_cell(study, expected, "network", lacking=" at two rates")


def tasks_and_layers(study: Study) -> Reading:
    """The mean rise of single layers on CIFAR-10 minus that on MNIST, at equal rates and without another shift."""

    def expected(name: str, pairs: pd.DataFrame) -> list[Expectation]:
        own = pairs[pairs["shift"] == "covariate"]
        easy, hard = (_mean_rise(study, own[own["dataset"] == task]) for task in ("mnist", "cifar10"))
        what = f"{name}: mean rise of single layers, CIFAR-10 minus MNIST"
        return [_more(what, easy, hard)] if len(easy) and len(hard) else []

    return _by_cell(study, expected, "lr", lacking=" on both data sets")


def _mean_rise(study: Study, pairs: pd.DataFrame) -> pd.Series:
    """By replicate, the mean over single layers and bases; empty if no layers were moved."""
    single = study.layers[(study.layers["family"] == "single") & study.layers["key"].isin(pairs["key"])]
    means = single.groupby("key")["error_rise"].agg(_mean)
    replicates = pairs.set_index("key")["replicate"]
    return pd.Series(numbers(means), index=replicates.reindex(means.index).to_numpy())


def _more(what: str, few: pd.Series, many: pd.Series) -> Expectation:
    of_both = few.index.intersection(many.index)
    return Expectation(what=what, values=numbers(many[of_both] - few[of_both]), unit="fraction", side="above")


def _mean(values: pd.Series) -> float:
    """Unknown where one of the values is."""
    return float(values.mean(skipna=False))


def baseline(study: Study) -> Reading:
    """Where members differ by more than twice the threshold and their path has no barrier over its chord: the barrier
    over their mean.
    """
    threshold, found = study.verdict.threshold, list[Expectation]()
    over_mean = study.verdict.model_copy(update={"barrier": "endpoint_mean"}).column
    pairs = study.judged[study.judged["shift"] == "domain"]
    for name, own in groups_by(pairs, "dataset", "lr"):
        unequal = Expectation(
            what=f"{name}: difference of the members' test accuracies",
            values=np.abs(numbers(own["test_accuracy_a"]) - numbers(own["test_accuracy_b"])),
            unit="fraction",
        )
        tested = unequal.interval(0.95)[0] > 2 * threshold and (own["verdict"] == "connected").all()
        found += [
            Expectation(
                what=f"{name}: barrier over the mean of the members",
                values=numbers(own[over_mean]),
                unit="fraction",
                side="above" if tested else None,
                limit=threshold,
            ),
            Expectation(
                what=f"{name}: barrier over the chord", values=numbers(own[study.verdict.column]), unit="fraction"
            ),
            unequal,
        ]
    unmet = "In no cell do the members of a connected path differ by more than twice the threshold."
    return Reading(expectations=found, unmet="" if any(one.side for one in found) else unmet)


def partial_averaging(study: Study) -> Reading:
    """Averages of some layers minus averages of all: not better on alike clients, better on very unlike ones."""
    accuracy, found, missing = "averaged_test_accuracy", list[Expectation](), list[str]()
    for name, planned in groups_by(study.pairs, "client_split"):
        own = planned[planned["status"] == "ok"]
        by_layers = {
            str(layers): rows.set_index("replicate")[accuracy] for layers, rows in own.groupby("averaged_layers")
        }
        some = [by_layers[layers] for layers in sorted(by_layers.keys() - {"all", "none"})]
        if not some or "all" not in by_layers:
            missing.append(name)
        alike = (planned["client_split"] == "iid").all()
        found += [
            Expectation(
                what=f"{name}: test accuracy of clients, some layers averaged minus all",
                values=numbers((part - by_layers["all"]).dropna()),
                unit="fraction",
                side="below" if alike else "above",
                limit=_POINT if alike else 0.0,
            )
            for part in some
            if "all" in by_layers
        ]
        found += [
            Expectation(what=f"{name}: {words}, averaged: {layers}", values=numbers(rows[column]), unit="fraction")
            for column, words in (
                (accuracy, "test accuracy of clients"),
                ("averaged_own_accuracy", "accuracy of clients on their own examples"),
            )
            for layers, rows in own.groupby("averaged_layers")
        ]
    return Reading(expectations=found, unmet=_unmet(missing))


def _by_cell(
    study: Study, expected: Callable[[str, pd.DataFrame], list[Expectation]], *columns: str, lacking: str = ""
) -> Reading:
    """What is expected in each group of planned pairs.

    Args:
        study: whose pairs.
        expected: takes a group's name and its judged pairs, of which there may be none; nothing where the study lacks
            what the claim asks.
        columns: that tell groups apart.
        lacking: what else than judged pairs it may lack.
    """
    found, missing = list[Expectation](), list[str]()
    for name, planned in groups_by(study.pairs, *columns):
        own = expected(name, study.judged[study.judged["key"].isin(planned["key"])])
        found += own
        missing += [] if own else [name]
    return Reading(expectations=found, unmet=_unmet(missing, lacking))


def _unmet(missing: list[str], more: str = "") -> str:
    """What a study lacks of what a claim asks; empty if nothing."""
    return f"No pair is judged{more} in: {listed(missing)}." if missing else ""


_SINGLE = (
    "A single layer is judged half-way to the other member, by how far the test error rises over that of the member "
    "whose other layers stay; over the mean of both members, a layer that changes nothing would have a barrier of half "
    "their difference. Which layer is the most sensitive is asked of the other pairs, since the highest of many "
    "measured numbers is too high."
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
        note="The middle third of the layers should add more than a third to the barrier of the test loss, counted "
        "from either end.",
    ),
    Claim(
        id="R13",
        text="The direction from one member to the other differs from random directions of equal length.",
        source=_PAPER,
        preset="layers_vgg11",
        reading=own_direction,
        note="Layer by layer, half of its own distance. Absolute differences between the rises of the test loss are "
        "summed over layers and members, and so are those among random directions; what is left, in shares of the "
        "larger rises, should be above a tenth.",
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
        note="How far the test error rises when one layer moves, in the mean over layers.",
    ),
    Claim(
        id="R16",
        text="A harder task makes more layers sensitive.",
        source=_PAPER,
        preset="layers_mlp",
        reading=tasks_and_layers,
        note="CIFAR-10 against MNIST: how far the test error rises when one layer moves, in the mean over layers.",
    ),
    Claim(
        id="R17",
        text="Where the members' errors differ, their mean misleads as the baseline of a barrier.",
        source=_PAPER,
        preset="layers_mlp",
        reading=baseline,
        holds="one",
        note="B sees noisy images, and both are tested on clean and on noisy ones. The claim is tested by connected "
        "cells whose members' accuracies differ by more than twice the threshold. That their barrier over the mean is "
        "then above the threshold is arithmetic; what data decide is whether there are such cells.",
    ),
    Claim(
        id="R18",
        text="In federated learning, averaging some layers is not better than averaging all, except on extremely "
        "unlike clients.",
        source=_PAPER,
        preset="federated_dirichlet",
        reading=partial_averaging,
        note="Test accuracy of clients after the last average. On alike clients (iid) the difference should lie below "
        "one point, on very unlike ones (Dirichlet 0.01) above 0. The layers of the full preset are those of the "
        "authors' public code. The gate asks the accuracy of every client on its own examples.",
    ),
)
