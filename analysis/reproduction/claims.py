"""What published work claims, and how the tables of one study are read for each claim.

A note says what a reader has to know about a claim's expectations. How claims were changed after a result had been seen
is recorded with their outcomes (docs/reproduction/outcomes.csv).
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from lmc_tune.analysis.reproduction.basin_share import basin_reading
from lmc_tune.analysis.reproduction.ensemble_claims import ENSEMBLE_CLAIMS
from lmc_tune.analysis.reproduction.expectations import Claim, Expectation, Reading, Side
from lmc_tune.analysis.reproduction.layer_claims import LAYER_CLAIMS
from lmc_tune.analysis.reproduction.sweep_tables import Study, groups_by, numbers
from lmc_tune.analysis.wording import SMALL_DIFFERENCE
from lmc_tune.core.barrier import Array

_PAPER = "Hepburn et al. 2025"
_MIDPOINTS = ["test_midpoint", "train_midpoint"]


def _paper_rates(rows: pd.DataFrame) -> pd.DataFrame:
    """The pairs at the paper's learning rate: 1e-4 for VGG, 1e-3 for the others."""
    return rows[rows["lr"] == np.where(rows["model"] == "vgg", 1e-4, 1e-3)]


def _hidden_layers(rows: pd.DataFrame) -> pd.Series:
    """Number of hidden layers of perceptrons; 0 for other networks."""
    return rows["hidden"].fillna("").map(lambda widths: len(widths.split("-")) if widths else 0)


def barrier_and_difference(study: Study, rows: pd.DataFrame, barrier: Side, difference: Side) -> Reading:
    """For every network: the side of the threshold on which its barrier lies, and the side of the guide for its Δ.

    Values are of judged pairs. The barrier of the train error is shown, because overfitted members can look connected
    on test data.
    """
    judged = study.judged.index
    on_train = study.verdict.model_copy(update={"of": "train_error"}).column
    found = []
    for network, group in groups_by(rows, "network"):  # also those without a judged pair
        counted = group[group.index.isin(judged)]
        found += [
            Expectation(
                what=f"{network}: barrier",
                values=numbers(counted[study.verdict.column]),
                unit="fraction",
                side=barrier,
                limit=study.verdict.threshold,
            ),
            Expectation(
                what=f"{network}: Δ",
                values=numbers(counted["accuracy_difference"]),
                unit="percentage points",
                side=difference,
                limit=SMALL_DIFFERENCE,
            ),
            Expectation(what=f"{network}: train barrier", values=numbers(counted[on_train]), unit="fraction"),
        ]
    return Reading(expectations=found, unmet="" if found else "The study has no such network at the paper's rate.")


def shallow_is_stable(study: Study) -> Reading:
    rows = _paper_rates(study.pairs)
    return barrier_and_difference(study, rows[_hidden_layers(rows) == 1], barrier="below", difference="above")


def deep_has_barriers(study: Study) -> Reading:
    rows = _paper_rates(study.pairs)
    deep = rows[rows["model"].isin(["vgg", "resnet"])]
    return barrier_and_difference(study, deep, barrier="above", difference="below")


def overfitting(study: Study) -> Reading:
    """Where the longest training is connected: its interpolants against those of the shortest that was enough."""
    found = []
    for name, group in groups_by(study.judged, "network", "lr"):
        trained = np.unique(group["epochs"]).tolist()
        short, long = (group[group["epochs"] == epochs].set_index("replicate") for epochs in (trained[0], trained[-1]))
        if trained[0] == trained[-1] or (long["verdict"] != "connected").any():
            continue
        words = f"{trained[-1]} epochs minus {trained[0]}"
        of_both = long.index.intersection(short.index)
        difference = long.loc[of_both, _MIDPOINTS] - short.loc[of_both, _MIDPOINTS]
        found += [
            Expectation(
                what=f"{name}: test accuracy at λ = ½, {words}",
                values=numbers(difference["test_midpoint"]),
                unit="fraction",
                side="below",
                case=name,
            ),
            Expectation(
                what=f"{name}: train minus test accuracy at λ = ½, {words}",
                values=numbers(difference["train_midpoint"] - difference["test_midpoint"]),
                unit="fraction",
                side="above",
                case=name,
            ),
            Expectation(
                what=f"{name}, {trained[-1]} epochs: members' last test loss minus their lowest",
                values=numbers(long["overfitting"]),
                unit="nats",
            ),
        ]
    unmet = "" if found else "In no network is the longest of several trainings that pass the gate connected."
    return Reading(expectations=found, unmet=unmet)


def basins(study: Study) -> Reading:
    """At λ = ½, which no number has chosen: the lowest loss of a path is chosen among those that are compared."""
    found = [
        Expectation(
            what=f"{name}: better endpoint's test loss minus that at λ = ½",
            values=numbers(group["midpoint_depth"]),
            unit="nats",
            side="above",
        )
        for name, group in groups_by(study.judged, "network", "lr")
    ]
    return Reading(expectations=found, unmet="" if found else "No cell is judged.")


def noise(study: Study) -> Reading:
    """Rank correlations of learning rate and batch size with barrier and disagreement, replicate by replicate.

    A barrier has an expectation only where a cell of the network is disconnected; the others are only shown.
    """
    settings: tuple[tuple[str, str, str, Side], ...] = (
        ("learning rate", "lr", "batch_size", "above"),
        ("batch size", "batch_size", "lr", "below"),
    )
    found = [
        Expectation(
            what=f"{network}: rank correlation of {words} and {quantity}",
            values=rank_correlations(group, varied, held, column),
            unit="plain",
            side=side if quantity == "disagreement" or (group["verdict"] == "disconnected").any() else None,
        )
        for network, group in groups_by(study.judged, "network")
        for words, varied, held, side in settings
        for quantity, column in (("barrier", study.verdict.column), ("disagreement", "disagreement"))
    ]
    barriers = (study.judged["verdict"] == "disconnected").any()
    return Reading(
        expectations=found, unmet="" if barriers else "No cell is disconnected: there is no barrier to lower."
    )


def rank_correlations(rows: pd.DataFrame, varied: str, held: str, column: str) -> Array:
    """(replicates,) means over values of ``held`` that have at least three points; 0 where the column is constant."""
    found = []
    for _, replicate in rows.groupby("replicate"):
        each = [
            stats.spearmanr(group[varied], group[column]).statistic if len(group[column].unique()) > 1 else 0.0
            for _, group in replicate.groupby(held)
            if len(group) > 2
        ]
        found.append(float(np.mean(each)) if each else np.nan)
    return np.array(found)


def same_errors(study: Study) -> Reading:
    quantities: dict[str, tuple[str, Side | None]] = {
        "error_overlap_ratio": ("both wrong, relative to independent errors", "above"),
        "same_error": ("same wrong label, as a share of all errors", "above"),
    }
    reading = basin_reading(study, quantities)
    shown = [
        Expectation(what=f"{name}: {title}", values=numbers(group[column]), unit="fraction")
        for name, group in groups_by(study.judged, "network", "lr", "spawn_epoch")
        for column, (title, _) in quantities.items()
    ]
    return replace(reading, expectations=[*reading.expectations, *shown])


def ensembles(study: Study) -> Reading:
    reading = basin_reading(
        study,
        {
            "disagreement": ("disagreement", "below"),
            "ensemble_gain_accuracy": ("ensemble's accuracy minus the mean member's", "below"),
            "ensemble_accuracy": ("ensemble's accuracy", None),
        },
    )
    shown = [
        Expectation(
            what=f"{name} cells: {what}'s accuracy minus the mean member's",
            values=numbers(rows.groupby("replicate")[f"{what.split()[-1]}_gain_accuracy"].mean()),
            unit="fraction",
        )
        for name in ("connected", "disconnected")
        for rows in (study.judged[study.judged["verdict"] == name],)
        for what in ("weight average", "ensemble")
    ]
    return replace(reading, expectations=[*reading.expectations, *shown])


def normalisation(study: Study) -> Reading:
    """Barriers of the four settings.

    BatchNorm's should be low where, without it, normalised inputs are disconnected and raw inputs are connected.
    """
    found, verdicts = [], []
    for name, group in groups_by(study.pairs, "model", "hidden", "lr"):
        of = {on: _verdicts(group[(group["norm"] == "none") & (group["normalise"] == on)]) for on in (True, False)}
        verdicts.append(f"{name}: {of[True]} and {of[False]}")
        breaks = of == {True: "disconnected", False: "connected"}
        for norm, words in (("none", "no norm"), ("batch", "BatchNorm")):
            for on in (True, False):
                chosen = group[(group["norm"] == norm) & (group["normalise"] == on)]
                found.append(
                    Expectation(
                        what=f"{name}: barrier, {'normalised' if on else 'raw'} inputs, {words}",
                        values=numbers(chosen.loc[chosen.index.isin(study.judged.index), study.verdict.column]),
                        unit="fraction",
                        side="below" if breaks and norm == "batch" and on else None,
                        limit=study.verdict.threshold,
                    )
                )
    unmet = (
        "No network without a norm is disconnected with normalised inputs and connected with raw ones. Verdicts on "
        f"normalised and on raw inputs: {'; '.join(verdicts)}."
    )
    return Reading(expectations=found, unmet="" if any(expectation.side for expectation in found) else unmet)


def _verdicts(pairs: pd.DataFrame) -> str:
    """Of the cells of these pairs, in a few words."""
    return " or ".join(sorted(set(pairs["verdict"]))) or "not run"


_JOINT = (
    "Members that separate later were trained jointly, on the data of both, for longer. What the basin alone accounts "
    "for is estimated twice: with the spawn epoch as a (linear) covariate, and between cells of the nearest spawn "
    "epochs. A quantity supports or contradicts the claim only if both estimates do."
)

CLAIMS = (
    Claim(
        id="R1",
        text="Perceptrons with one hidden layer are stable at batch size 32 under fixed noise and covariate shift: no "
        "barrier of the test error, and interpolants lose less than 5 points of test accuracy.",
        source=f"{_PAPER}, Fig. 4",
        preset="shift_depth_fig4",
        reading=shallow_is_stable,
        note="The paper evaluates on test data. A test-error path is blind to a barrier between overfitted members, so "
        "train barriers are shown.",
    ),
    Claim(
        id="R2",
        text="Deep networks (VGG, ResNet) have barriers in the same setting, and interpolants lose more than 5 points "
        "of test accuracy.",
        source=f"{_PAPER}, Fig. 4",
        preset="shift_depth_fig4",
        reading=deep_has_barriers,
        note="The paper draws its guide at −5 points; a barrier between 2% and 5% meets half of the claim.",
    ),
    Claim(
        id="R3",
        text="Interpolants can generalise poorly without a barrier, and overfitting explains it.",
        source=f"{_PAPER}, Fig. 5",
        preset="shift_overfitting_fig5",
        reading=overfitting,
        holds="one",
        note="The claim is tested where the longest training is connected: compared with the shortest training that "
        "passes the gate on train accuracy, its interpolants should have less test accuracy and a wider gap between "
        "train and test; one network with both is enough. The gap widens with almost any longer training, so in fact "
        "the test accuracy decides.",
    ),
    Claim(
        id="R4",
        text="Interpolants can have a lower test loss than both endpoints.",
        source=f"{_PAPER}, Fig. 3",
        preset="shift_depth_fig4",
        reading=basins,
        holds="one",
        note="It is tested at λ = ½. The lowest loss of a path, chosen on the examples on which it is read, lies below "
        "that of an endpoint by chance alone, and almost never above; a λ that is fixed beforehand can lie on either "
        "side. The better endpoint is still chosen on these examples, against the claim. Another λ than ½ can be lower "
        "where this one is not: a contradiction is one of midpoints.",
    ),
    Claim(
        id="R5",
        text="Larger batches and smaller learning rates lower the barrier and make members more alike.",
        source=_PAPER,
        preset="shift_batch_lr",
        reading=noise,
        note="Every member trains until its train loss is low enough: at equal epochs a larger batch takes fewer "
        "steps, and members that are trained less are more alike. A network without a disconnected cell has no barrier "
        "to lower; its barriers are shown without an expectation, and a study without any such cell does not test the "
        "claim.",
    ),
    Claim(
        id="R6",
        text="Members of one basin make the same errors more often than members of different basins.",
        source=_PAPER,
        preset="shift_ensemble_spawn",
        reading=same_errors,
        cases="same",
        note=_JOINT,
    ),
    Claim(
        id="R7",
        text="BatchNorm can restore connectivity where normalised inputs would break it.",
        source=f"{_PAPER}, as summarised by others",
        preset="shift_normalisation_2x2",
        reading=normalisation,
        holds="one",
        note="The claim is tested where, without a norm, normalised inputs are disconnected and raw inputs are "
        "connected: with BatchNorm, the barrier of normalised inputs should lie below the threshold.",
    ),
    Claim(
        id="R8",
        text="Members of different basins are more diverse than members of one basin, and their ensemble gains more.",
        source=_PAPER,
        preset="shift_ensemble_spawn",
        reading=ensembles,
        cases="same",
        note=f"{_JOINT} The other half of the claim, that ensembles inside one basin are cheap, is not tested.",
    ),
    *LAYER_CLAIMS,
    *ENSEMBLE_CLAIMS,
)
