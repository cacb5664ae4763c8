"""What published work claims, and what the tables of one study say about it.

A claim is stated as expectations: numbers, one per replicate, and the side of a limit on which their mean should lie.
The interval of the mean decides each expectation, and the expectations decide the claim. A claim's note says how this
was changed after a result had been seen.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from lmc_tune.analysis.reproduction.sweep_tables import Study
from lmc_tune.analysis.wording import SMALL_DIFFERENCE, setting
from lmc_tune.core.barrier import Array

Outcome = Literal["supported", "contradicted", "not decidable"]
Side = Literal["below", "above"]
Unit = Literal["fraction", "percentage points", "nats", "correlation"]

_PAPER = "Hepburn et al. 2025"
# Fewer values decide nothing.
_LEAST = 3
_MIDPOINTS = ["test_midpoint", "train_midpoint"]


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What a claim says of one number.

    values: one per replicate; a value that is not finite makes the expectation not decidable, because the mean is not
        known.
    side: of ``limit`` on which the mean lies if the claim is right; None for a number that is only shown.
    case: expectations with the same case have to hold together; by default each is its own case.
    """

    what: str
    values: Array
    unit: Unit
    side: Side | None = None
    limit: float = 0.0
    case: str = ""

    @property
    def known(self) -> Array:
        return self.values[np.isfinite(self.values)]

    @property
    def mean(self) -> float:
        return float(self.known.mean()) if len(self.known) else np.nan

    def interval(self, confidence: float) -> tuple[float, float]:
        """Student's interval of the mean; infinite for fewer than two values."""
        n = len(self.known)
        if n < 2:
            return -np.inf, np.inf
        reach = stats.t.ppf(0.5 + confidence / 2, n - 1) * self.known.std(ddof=1) / np.sqrt(n)
        return self.mean - reach, self.mean + reach

    def outcome(self, confidence: float) -> Outcome:
        """Decided by the side on which the whole interval lies."""
        if len(self.known) < max(_LEAST, len(self.values)):
            return "not decidable"
        low, high = self.interval(confidence)
        if high < self.limit:
            return "supported" if self.side == "below" else "contradicted"
        if low > self.limit:
            return "supported" if self.side == "above" else "contradicted"
        return "not decidable"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim and what would support it.

    text: the claim, in our words. source: who claims it, and where. preset: the study that tests it.
    note: what a reader has to know about its expectations, and how they were changed after a result was seen.
    holds: ``every`` if every expectation has to hold; ``one`` if those of one case do: something can happen.
    """

    id: str
    text: str
    source: str
    preset: str
    holds: Literal["every", "one"]
    expectations: Callable[[Study], list[Expectation]]
    note: str = ""

    def confidence(self, found: Sequence[Expectation]) -> float:
        """Of each interval, so that all intervals of the claim hold together with 95% (Bonferroni)."""
        return 1 - 0.05 / max(1, sum(expectation.side is not None for expectation in found))

    def outcome(self, found: Sequence[Expectation]) -> Outcome:
        """The outcome of the claim, given its expectations."""
        confidence, cases = self.confidence(found), defaultdict[str, list[Outcome]](list)
        for expectation in found:
            if expectation.side is not None:
                cases[expectation.case or expectation.what].append(expectation.outcome(confidence))
        outcomes = [_every(of_case) for of_case in cases.values()]
        return _every(outcomes) if self.holds == "every" else _one(outcomes)


def _every(outcomes: Sequence[Outcome]) -> Outcome:
    if "contradicted" in outcomes:
        return "contradicted"
    return "supported" if set(outcomes) == {"supported"} else "not decidable"


def _one(outcomes: Sequence[Outcome]) -> Outcome:
    if "supported" in outcomes:
        return "supported"
    return "contradicted" if set(outcomes) == {"contradicted"} else "not decidable"


def _by(rows: pd.DataFrame, *columns: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Groups with their names, e.g. ``mlp 64, learning rate 0.1``, sorted."""
    for key, group in rows.groupby(list(columns), dropna=False):
        yield ", ".join(_named(column, value) for column, value in zip(columns, key, strict=True)), group


def _named(column: str, value: object) -> str:
    return str(value) if column in ("network", "model") else setting(column, value)


def _numbers(column: pd.Series) -> Array:
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _paper_rates(rows: pd.DataFrame) -> pd.DataFrame:
    """The pairs at the paper's learning rate: 1e-4 for VGG, 1e-3 for the others."""
    return rows[rows["lr"] == np.where(rows["model"] == "vgg", 1e-4, 1e-3)]


def _hidden_layers(rows: pd.DataFrame) -> pd.Series:
    """Number of hidden layers of perceptrons; 0 for other networks."""
    return rows["hidden"].fillna("").map(lambda widths: len(widths.split("-")) if widths else 0)


def _barrier_and_difference(study: Study, rows: pd.DataFrame, barrier: Side, difference: Side) -> list[Expectation]:
    """For every network: the side of the threshold on which its barrier lies, and the side of the guide for its Δ.

    Values are of judged pairs.
    """
    judged = study.judged.index
    found = []
    for network, group in _by(rows, "network"):  # also those without a judged pair
        counted = group[group.index.isin(judged)]
        found += [
            Expectation(
                what=f"{network}: barrier",
                values=_numbers(counted[study.verdict.column]),
                unit="fraction",
                side=barrier,
                limit=study.verdict.threshold,
            ),
            Expectation(
                what=f"{network}: Δ",
                values=_numbers(counted["accuracy_difference"]),
                unit="percentage points",
                side=difference,
                limit=SMALL_DIFFERENCE,
            ),
        ]
    return found


def shallow_is_stable(study: Study) -> list[Expectation]:
    rows = _paper_rates(study.pairs)
    return _barrier_and_difference(study, rows[_hidden_layers(rows) == 1], barrier="below", difference="above")


def deep_has_barriers(study: Study) -> list[Expectation]:
    rows = _paper_rates(study.pairs)
    deep = rows[rows["model"].isin(["vgg", "resnet"])]
    return _barrier_and_difference(study, deep, barrier="above", difference="below")


def overfitting(study: Study) -> list[Expectation]:
    """Where the longest training is connected: its interpolants against those of the shortest that was enough."""
    found = []
    for name, group in _by(study.judged, "network", "lr"):
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
                values=_numbers(difference["test_midpoint"]),
                unit="fraction",
                side="below",
                case=name,
            ),
            Expectation(
                what=f"{name}: train minus test accuracy at λ = ½, {words}",
                values=_numbers(difference["train_midpoint"] - difference["test_midpoint"]),
                unit="fraction",
                side="above",
                case=name,
            ),
            Expectation(
                what=f"{name}, {trained[-1]} epochs: members' last test loss minus their lowest",
                values=_numbers(long["overfitting"]),
                unit="nats",
            ),
        ]
    return found


def basins(study: Study) -> list[Expectation]:
    return [
        Expectation(
            what=f"{name}: better endpoint's test loss minus the path's lowest",
            values=_numbers(group["basin_depth"]),
            unit="nats",
            side="above",
        )
        for name, group in _by(study.judged, "network", "lr")
    ]


def noise(study: Study) -> list[Expectation]:
    """Rank correlations of learning rate and batch size with barrier and disagreement, replicate by replicate.

    A barrier has an expectation only where a cell of the network is disconnected; the others are only shown.
    """
    settings: tuple[tuple[str, str, str, Side], ...] = (
        ("learning rate", "lr", "batch_size", "above"),
        ("batch size", "batch_size", "lr", "below"),
    )
    return [
        Expectation(
            what=f"{network}: rank correlation of {words} and {quantity}",
            values=_correlations(group, varied, held, column),
            unit="correlation",
            side=side if quantity == "disagreement" or (group["verdict"] == "disconnected").any() else None,
        )
        for network, group in _by(study.judged, "network")
        for words, varied, held, side in settings
        for quantity, column in (("barrier", study.verdict.column), ("disagreement", "disagreement"))
    ]


def _correlations(rows: pd.DataFrame, varied: str, held: str, column: str) -> Array:
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


def same_errors(study: Study) -> list[Expectation]:
    quantities = {
        "error_overlap_ratio": "both wrong, relative to independent errors",
        "same_error": "same wrong label, as a share of all errors",
    }
    return [
        *(_same_basin_less_other(study, what, column, "above") for column, what in quantities.items()),
        *(
            Expectation(what=f"{name}: {what}", values=_numbers(group[column]), unit="fraction")
            for name, group in _by(study.judged, "network", "lr", "spawn_epoch")
            for column, what in quantities.items()
        ),
    ]


def ensembles(study: Study) -> list[Expectation]:
    """Accuracies of ensembles have no expectation: members of one basin were trained on more data, and are better."""
    return [
        _same_basin_less_other(study, "disagreement", "disagreement", "below"),
        _same_basin_less_other(study, "ensemble's accuracy minus the mean member's", "ensemble_gain_accuracy", "below"),
        _same_basin_less_other(study, "ensemble's accuracy", "ensemble_accuracy", None),
        *(
            Expectation(
                what=f"{name} cells: {what}'s accuracy minus the mean member's",
                values=_numbers(rows.groupby("replicate")[f"{what.split()[-1]}_gain_accuracy"].mean()),
                unit="fraction",
            )
            for name in ("connected", "disconnected")
            for rows in (study.judged[study.judged["verdict"] == name],)
            for what in ("weight average", "ensemble")
        ),
    ]


def _same_basin_less_other(study: Study, what: str, column: str, side: Side | None) -> Expectation:
    """Connected minus disconnected cells of the same network and rate; means over these, replicate by replicate."""
    means = study.judged.pivot_table(
        index=["replicate", "network", "lr"], columns="verdict", values=column, aggfunc="mean"
    ).reindex(columns=["connected", "disconnected"])
    differences = (means["connected"] - means["disconnected"]).dropna().groupby("replicate").mean()
    return Expectation(
        what=f"{what}: connected minus disconnected cells", values=_numbers(differences), unit="fraction", side=side
    )


def normalisation(study: Study) -> list[Expectation]:
    """Barriers of the four settings.

    BatchNorm's should be low where, without it, normalised inputs are disconnected and raw inputs are connected.
    """
    found = []
    for name, group in _by(study.pairs, "model", "hidden", "lr"):
        plain = group[group["norm"] == "none"]
        normalised, raw = (set(plain.loc[plain["normalise"] == on, "verdict"]) for on in (True, False))
        breaks = normalised == {"disconnected"} and raw == {"connected"}
        for norm, words in (("none", "no norm"), ("batch", "BatchNorm")):
            for on in (True, False):
                chosen = group[(group["norm"] == norm) & (group["normalise"] == on)]
                found.append(
                    Expectation(
                        what=f"{name}: barrier, {'normalised' if on else 'raw'} inputs, {words}",
                        values=_numbers(chosen.loc[chosen.index.isin(study.judged.index), study.verdict.column]),
                        unit="fraction",
                        side="below" if breaks and norm == "batch" and on else None,
                        limit=study.verdict.threshold,
                    )
                )
    return found


_OTHER_TWIN = (
    "The small twin became a perceptron at two learning rates after a first run with a ResNet-8 of half the width, "
    "which had no disconnected cell to compare with."
)
_MORE_DATA = (
    "Members that separate later were trained jointly, on the data of both, for longer, so they are also better."
)

CLAIMS = (
    Claim(
        id="R1",
        text="Perceptrons with one hidden layer are stable at batch size 32 under fixed noise and covariate shift: no "
        "barrier, and interpolants lose little accuracy.",
        source=f"{_PAPER}, Fig. 4",
        preset="shift_depth_fig4",
        holds="every",
        expectations=shallow_is_stable,
    ),
    Claim(
        id="R2",
        text="Deep networks (VGG, ResNet) have barriers in the same setting, and interpolants lose accuracy.",
        source=f"{_PAPER}, Fig. 4",
        preset="shift_depth_fig4",
        holds="every",
        expectations=deep_has_barriers,
        note="After a run in which a ResNet at 52% train accuracy contradicted the claim, the small twin trains longer "
        "on fewer examples and requires the train accuracy of the full preset.",
    ),
    Claim(
        id="R3",
        text="Interpolants can generalise poorly without a barrier, and overfitting explains it.",
        source=f"{_PAPER}, Fig. 5",
        preset="shift_overfitting_fig5",
        holds="one",
        expectations=overfitting,
        note="The claim is tested where the longest training is connected: compared with the shortest training that "
        "passes the gate on train accuracy, its interpolants should have less test accuracy and a wider gap between "
        "train and test; one network with both is enough. It was stated like this after two runs of the small twin: "
        "tested on losses, which rise by construction, it was not decidable; compared with members of 47% train "
        "accuracy, and with both required of every network, it was contradicted.",
    ),
    Claim(
        id="R4",
        text="Interpolants can have a lower test loss than both endpoints.",
        source=f"{_PAPER}, Fig. 3",
        preset="shift_depth_fig4",
        holds="one",
        expectations=basins,
    ),
    Claim(
        id="R5",
        text="Larger batches and smaller learning rates lower the barrier and make members more alike.",
        source=_PAPER,
        preset="shift_batch_lr",
        holds="every",
        expectations=noise,
        note="Every member trains until its train loss is low enough: at equal epochs, as in the first two runs of the "
        "small twin, which were not decidable, a larger batch takes fewer steps, and members that are trained less "
        "are more alike. Since the first of these runs, barriers of networks that have no disconnected cell are shown "
        "without an expectation.",
    ),
    Claim(
        id="R6",
        text="Members of one basin make the same errors more often than members of different basins.",
        source=_PAPER,
        preset="shift_ensemble_spawn",
        holds="every",
        expectations=same_errors,
        note=f"{_MORE_DATA} {_OTHER_TWIN}",
    ),
    Claim(
        id="R7",
        text="BatchNorm can restore connectivity where normalised inputs would break it.",
        source=f"{_PAPER}, as summarised by others",
        preset="shift_normalisation_2x2",
        holds="one",
        expectations=normalisation,
        note="The claim is tested where, without a norm, normalised inputs are disconnected and raw inputs are "
        "connected: with BatchNorm, the barrier should lie below the threshold. It was stated like this after two runs "
        "of the small twin that contradicted it: the first required differences at every learning rate; the second did "
        "not ask about raw inputs, which broke connectivity too.",
    ),
    Claim(
        id="R8",
        text="Ensembles inside one basin are cheap; members from different basins are more diverse, and their ensemble "
        "gains more.",
        source=_PAPER,
        preset="shift_ensemble_spawn",
        holds="every",
        expectations=ensembles,
        note=f"{_MORE_DATA} Accuracies of ensembles, which had an expectation in a first run that decided nothing, are "
        f"therefore shown without one. {_OTHER_TWIN}",
    ),
)
