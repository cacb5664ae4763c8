"""How claims that the small twins left open are decided at medium size: rules that were committed before any run.

Each entry is a claim in the words of :data:`~lmc_tune.analysis.reproduction.claims.CLAIMS`, with a study and a rule of
its own. docs/protocols.md has the same in prose, with the reasons; neither changes once a study has run.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from lmc_tune.analysis.reproduction.claims import (
    CLAIMS,
    barrier_and_difference,
    rank_correlations,
    shallow_is_stable,
)
from lmc_tune.analysis.reproduction.expectations import Expectation, Reading, Side, Unit
from lmc_tune.analysis.reproduction.sweep_tables import Study, groups_by, numbers
from lmc_tune.core.barrier import Array

# Fewer batch sizes have no rank correlation that says anything.
_LEAST_BATCH_SIZES = 3


def _shown(what: str, values: ArrayLike, unit: Unit) -> Expectation:
    return Expectation(what=what, values=np.asarray(values, dtype=np.float64), unit=unit)


def _only(column: pd.Series) -> str:
    """The one value of a column, e.g. the verdict of the pairs of one cell."""
    (value,) = column.unique()
    return str(value)


def deep_has_barriers(study: Study) -> Reading:
    """The small twin's rule, at the study's one rate: it is not the paper's for VGG."""
    deep = study.pairs[study.pairs["model"].isin(["vgg", "resnet"])]
    return barrier_and_difference(study, deep, barrier="above", difference="below")


def poor_without_barrier(study: Study) -> Reading:
    """Interpolants minus members after the longer training, and how that differs from the shorter one.

    The claim is of networks without a barrier: one whose longer training is disconnected, or not judged, tests nothing.
    """
    brief, lasting = np.unique(study.pairs["epochs"]).tolist()
    on_test, on_train, found = study.verdict, study.verdict.on("train"), list[Expectation]()
    for network, group in groups_by(study.pairs, "network"):
        judged = group[group.index.isin(study.judged.index)].set_index("replicate")
        short, long = (judged[judged["epochs"] == epochs] for epochs in (brief, lasting))
        verdict = _only(group.loc[group["epochs"] == lasting, "verdict"])
        side: Side | None = "below" if verdict in ("connected", "undecided") else None
        what = f"{network}: test accuracy at λ = ½ minus the members'"
        before, after = _midpoint_minus_members(short), _midpoint_minus_members(long)
        claimed = [
            replace(
                _shown(f"{network}: barrier, {lasting} epochs", numbers(long[on_test.column]), "fraction"),
                limit=on_test.threshold,
            ),
            _shown(f"{what}, {lasting} epochs", after, "percentage points"),
            _shown(f"{what}, {lasting} epochs minus {brief}", (after - before).dropna(), "percentage points"),
        ]
        found += [replace(one, side=side, case=network) for one in claimed]
        found += [
            _shown(f"{what}, {brief} epochs", before, "percentage points"),
            _shown(
                f"{network}: train accuracy at λ = ½ minus the members', on the data of both, {lasting} epochs",
                100 * numbers(long["train_midpoint"] - long["train_ends"]),
                "percentage points",
            ),
            _shown(f"{network}: train barrier, {lasting} epochs", numbers(long[on_train.column]), "fraction"),
            _shown(
                f"{network}: members' last test loss minus their lowest, {lasting} epochs",
                numbers(long["overfitting"]),
                "nats",
            ),
        ]
    unmet = f"No network is trained and without a barrier after {lasting} epochs."
    return Reading(expectations=found, unmet="" if any(one.side for one in found) else unmet)


def _midpoint_minus_members(pairs: pd.DataFrame) -> pd.Series:
    """Test accuracy at λ = ½ minus the mean of the members', percentage points."""
    members = 0.5 * (pairs["test_accuracy_a"] + pairs["test_accuracy_b"])
    difference: pd.Series = 100 * (pairs["test_midpoint"] - members).astype(np.float64)
    return difference


def basins_at_a_chosen_position(study: Study) -> Reading:
    """At the λ whose validation loss is lowest: no test example has chosen it."""
    found = [
        replace(
            _shown(
                f"{network}: better endpoint's test loss minus that at the λ chosen on validation",
                numbers(group.loc[group.index.isin(study.judged.index), "chosen_depth"]),
                "nats",
            ),
            side="above",
        )
        for network, group in groups_by(study.pairs, "network")
    ]
    return Reading(expectations=found, unmet="" if len(study.judged) else "No cell is judged.")


def critical_rates(study: Study) -> Reading:
    """Rank correlations, replicate by replicate: of batch size and the lowest rate with a barrier, and of the settings
    with barrier and disagreement.
    """
    on_test, on_train = study.verdict, study.verdict.on("train")
    found = list[Expectation]()
    for network, rows in groups_by(study.judged, "network"):
        numbers_of: list[tuple[str, Array, Side | None]] = [
            ("batch size and critical rate", _with_critical_rate(rows, on_test.column, on_test.threshold), "above"),
            ("learning rate and barrier", rank_correlations(rows, "lr", "batch_size", on_test.column), "above"),
            ("learning rate and disagreement", rank_correlations(rows, "lr", "batch_size", "disagreement"), "above"),
            ("batch size and disagreement", rank_correlations(rows, "batch_size", "lr", "disagreement"), "below"),
            ("batch size and barrier", rank_correlations(rows, "batch_size", "lr", on_test.column), None),
            (
                "batch size and critical rate of the train barrier",
                _with_critical_rate(rows, on_train.column, on_train.threshold),
                None,
            ),
            ("learning rate and train barrier", rank_correlations(rows, "lr", "batch_size", on_train.column), None),
            ("batch size and train barrier", rank_correlations(rows, "batch_size", "lr", on_train.column), None),
        ]
        found += [
            Expectation(what=f"{network}: rank correlation of {what}", values=values, unit="plain", side=side)
            for what, values, side in numbers_of
        ]
    barriers = (study.judged["verdict"] == "disconnected").any()
    return Reading(
        expectations=found, unmet="" if barriers else "No cell is disconnected: there is no barrier to lower."
    )


def _with_critical_rate(rows: pd.DataFrame, column: str, threshold: float) -> Array:
    """(replicates,) rank correlations of batch size and the lowest learning rate whose barrier is above the threshold.

    A batch size without such a rate comes after all others. 0 where all critical rates are equal; NaN with fewer than
    three batch sizes.
    """
    found = []
    for _, replicate in rows.groupby("replicate"):
        rates = replicate["lr"].where(replicate[column] > threshold, np.inf).groupby(replicate["batch_size"]).min()
        if len(rates) < _LEAST_BATCH_SIZES:
            found.append(np.nan)
        elif rates.min() == rates.max():
            found.append(0.0)
        else:
            found.append(float(stats.spearmanr(rates.index, rates).statistic))
    return np.array(found)


def broken_and_restored(study: Study) -> Reading:
    """At each rate three barriers: without a norm that of normalised and that of raw inputs, and with BatchNorm that of
    normalised ones.

    The claim holds at a rate if they lie above, below and below the threshold.
    """
    sides: dict[tuple[str, bool], tuple[str, Side | None]] = {
        ("none", True): ("normalised inputs, no norm", "above"),
        ("none", False): ("raw inputs, no norm", "below"),
        ("batch", True): ("normalised inputs, BatchNorm", "below"),
        ("batch", False): ("raw inputs, BatchNorm", None),
    }
    barrier, found, tested = study.verdict, list[Expectation](), False
    for rate, group in groups_by(study.pairs, "lr"):
        judged = {
            setting: group[
                (group["norm"] == setting[0])
                & (group["normalise"] == setting[1])
                & group.index.isin(study.judged.index)
            ]
            for setting in sides
        }
        tested |= all(len(judged[setting]) for setting, (_, side) in sides.items() if side)
        found += [
            Expectation(
                what=f"{rate}: barrier, {words}",
                values=numbers(judged[setting][barrier.column]),
                unit="fraction",
                side=side,
                limit=barrier.threshold,
                case=rate,
            )
            for setting, (words, side) in sides.items()
        ]
        found += [
            _shown(f"{rate}: train barrier, {words}", numbers(judged[setting][barrier.on("train").column]), "fraction")
            for setting, (words, _) in sides.items()
        ]
    return Reading(
        expectations=found, unmet="" if tested else "At no learning rate are all of the settings that it names trained."
    )


def same_errors_at_equal_accuracy(study: Study) -> Reading:
    return _at_equal_accuracy(
        study,
        {
            "error_overlap_ratio": ("both wrong, relative to independent errors", "above"),
            "same_error": ("same wrong label, as a share of all errors", "above"),
        },
    )


def ensembles_at_equal_accuracy(study: Study) -> Reading:
    return _at_equal_accuracy(
        study,
        {
            "disagreement": ("disagreement", "below"),
            "ensemble_gain_accuracy": ("ensemble's accuracy minus the mean member's", "below"),
            "ensemble_accuracy": ("ensemble's accuracy", None),
        },
    )


def _at_equal_accuracy(study: Study, quantities: Mapping[str, tuple[str, Side | None]]) -> Reading:
    """Members that separated late (one basin) minus members that separated early (two), replicate by replicate; the
    members' mean test accuracy is a covariate.
    """
    early, late = np.unique(study.pairs["spawn_epoch"]).tolist()
    accuracy = 0.5 * (study.judged["test_accuracy_a"] + study.judged["test_accuracy_b"])
    judged = study.judged.assign(accuracy=accuracy).set_index("replicate")
    apart, together = (judged[judged["spawn_epoch"] == epoch] for epoch in (early, late))
    both = together.index.intersection(apart.index)
    words = f"separated at {late} minus at {early}"

    def difference(column: str) -> Array:
        return numbers(together.loc[both, column]) - numbers(apart.loc[both, column])

    found = list[Expectation]()
    for column, (title, side) in quantities.items():
        plain = _shown(f"{title}: {words}", difference(column), "fraction")
        adjusted = pseudo_values(difference(column), difference("accuracy"))
        found += [
            plain,
            replace(plain, what=f"{title}: {words}, at equal accuracy", values=adjusted, side=side),
        ]
    found.append(_shown(f"members' test accuracy: {words}", difference("accuracy"), "fraction"))
    found += [
        _shown(f"separated at {epoch}: {name}", numbers(rows[verdict.column]), "fraction")
        for epoch, rows in ((early, apart), (late, together))
        for name, verdict in (("barrier", study.verdict), ("train barrier", study.verdict.on("train")))
    ]
    verdicts = [_only(study.pairs.loc[study.pairs["spawn_epoch"] == epoch, "verdict"]) for epoch in (early, late)]
    unmet = (
        f"Members that separate at epoch {early} should be disconnected and those that separate at epoch {late} "
        f"connected; they are {verdicts[0]} and {verdicts[1]}."
    )
    return Reading(expectations=found, unmet="" if verdicts == ["disconnected", "connected"] else unmet)


def pseudo_values(differences: ArrayLike, covariate: ArrayLike) -> Array:
    """(n,) jackknife pseudo-values of the differences' mean where the covariate's difference is 0.

    That is the intercept b of the least-squares line of the differences over those of the covariate. The value of
    replicate i is n·b − (n − 1)·b without replicate i: Student's interval of their mean is the jackknife's (Tukey
    1958), and it includes that the slope is estimated. NaN for fewer than four replicates, or if the line is not
    determined.
    """
    y, x = np.asarray(differences, dtype=np.float64), np.asarray(covariate, dtype=np.float64)
    n = len(y)
    if n < 4:
        return np.full(n, np.nan)
    without = [_intercept(np.delete(x, at), np.delete(y, at)) for at in range(n)]
    return n * _intercept(x, y) - (n - 1) * np.array(without)


def _intercept(x: Array, y: Array) -> float:
    design = np.column_stack([np.ones(len(x)), x])
    if np.linalg.matrix_rank(design) < 2:
        return np.nan
    return float(np.linalg.lstsq(design, y)[0][0])


_BY_ID = {claim.id: claim for claim in CLAIMS}
PROTOCOLS = (
    replace(
        _BY_ID["R1"],
        preset="shift_depth_fig4_medium",
        reading=shallow_is_stable,
        note="As the small twin.",
    ),
    replace(
        _BY_ID["R2"],
        preset="shift_depth_fig4_medium",
        reading=deep_has_barriers,
        note="As the small twin, but ResNet-8 has its full width, and both networks have a rate of 0.001.",
    ),
    replace(
        _BY_ID["R3"],
        preset="shift_overfitting_fig5_medium",
        reading=poor_without_barrier,
        holds="one",
        note="At fixed cells: after the longer training the barrier should be below the threshold, and the test "
        "accuracy at λ = ½ below the mean of the members', more so than after the shorter training. One network with "
        "all three is enough; one that is disconnected does not test the claim.",
    ),
    replace(
        _BY_ID["R4"],
        preset="shift_depth_fig4_medium",
        reading=basins_at_a_chosen_position,
        holds="one",
        note="The λ of a path is the inner one with the lowest loss on held-out examples, and the loss is read on test "
        "examples. The better endpoint is chosen on test examples, against the claim.",
    ),
    replace(
        _BY_ID["R5"],
        preset="shift_batch_lr_medium",
        reading=critical_rates,
        note="A replicate's critical rate at a batch size is the lowest learning rate whose barrier is above the "
        "threshold. Every member trains until its train loss is low enough.",
    ),
    replace(
        _BY_ID["R6"],
        preset="shift_ensemble_spawn_medium",
        reading=same_errors_at_equal_accuracy,
        note="Members that separate after one epoch are compared with members that separate at once, where the former "
        "are connected and the latter are not. Differences of the members' accuracy are accounted for; the epoch of "
        "joint training is not, because it is what makes one basin of two.",
    ),
    replace(
        _BY_ID["R7"],
        preset="shift_normalisation_2x2_medium",
        reading=broken_and_restored,
        holds="one",
        note="All settings train to the same loss. At one learning rate at least, the barrier without a norm should be "
        "above the threshold for normalised and below it for raw inputs, and with BatchNorm below it for normalised "
        "inputs. What the small twin takes for its premise is part of the rule here, so that the claim can fail.",
    ),
    replace(
        _BY_ID["R8"],
        preset="shift_ensemble_spawn_medium",
        reading=ensembles_at_equal_accuracy,
        note="As R6.",
    ),
)
