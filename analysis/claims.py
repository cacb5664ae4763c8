"""What published work claims, and what the tables of one study say of it.

A claim is put as expectations: numbers, one per replicate, and the side of a limit on which their mean should lie. The
interval of the mean decides each, and they decide the claim; limits and sides are those of the claim, written down
before any result is seen.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from scipy import stats

from analysis.cells import judge_cells, regate
from lmc_tune.core.barrier import Array
from lmc_tune.core.statistics import mean_interval
from lmc_tune.results import model_label
from lmc_tune.specs import VerdictSpec

Outcome = Literal["supported", "contradicted", "not decidable"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
Side = Literal["below", "above"]
Unit = Literal["fraction", "percentage points", "nats", "correlation"]

# Hepburn et al. 2025 draw this guide in their Fig. 4: an interpolant that loses more is no longer a good network.
SMALL_DIFFERENCE = -5.0
_PAPER = "Hepburn et al. 2025"


@dataclass(frozen=True, kw_only=True)
class Study:
    """The tables of one sweep, as a claim needs them.

    pairs: as :func:`analysis.cells.regate` gives them, with ``network`` and ``verdict``, that of the pair's cell.
    cells: as :func:`analysis.cells.judge_cells` gives them, with ``network``.
    paths, curves: rows of the ok pairs.
    """

    verdict: VerdictSpec
    pairs: pd.DataFrame
    cells: pd.DataFrame
    paths: pd.DataFrame
    curves: pd.DataFrame

    @classmethod
    def of(cls, results: pd.DataFrame, paths: pd.DataFrame, curves: pd.DataFrame, verdict: VerdictSpec) -> "Study":
        pairs = regate(results, verdict)
        cells = judge_cells(pairs, verdict)
        networks = {row["cell"]: model_label(row) for row in cells.to_dict("records")}
        judged = cells.set_index("cell")["verdict"]
        pairs = pairs.assign(network=pairs["cell"].map(networks), verdict=pairs["cell"].map(judged))
        ok = pairs.loc[pairs["status"] == "ok", "key"]
        return cls(
            verdict=verdict,
            pairs=pairs,
            cells=cells.assign(network=cells["cell"].map(networks)),
            paths=paths[paths["key"].isin(ok)],
            curves=curves[curves["key"].isin(ok)],
        )

    @property
    def ok(self) -> pd.DataFrame:
        """The pairs whose members were trained."""
        return self.pairs[self.pairs["status"] == "ok"]

    @property
    def barrier(self) -> str:
        """The judged column."""
        return self.verdict.column


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What a claim says of one number.

    values: one per replicate, or per pair; what is not finite was not measured and is left out.
    side: where the mean lies, from ``limit``, if the claim is right; None for a number that is only told.
    """

    what: str
    values: Array
    unit: Unit
    side: Side | None = None
    limit: float = 0.0

    @property
    def known(self) -> Array:
        return self.values[np.isfinite(self.values)]

    @property
    def mean(self) -> float:
        return float(self.known.mean()) if len(self.known) else np.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Of the mean, at 95%; infinite for less than two values."""
        if len(self.known) == 0:
            return -np.inf, np.inf
        low, high = mean_interval(self.known)
        return float(low), float(high)

    @property
    def outcome(self) -> Outcome:
        low, high = self.interval
        if high < self.limit:
            return "supported" if self.side == "below" else "contradicted"
        if low > self.limit:
            return "supported" if self.side == "above" else "contradicted"
        return "not decidable"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim and what would bear it out.

    text: the claim, in our words. source: who claims it, and where. preset: the study it is read from.
    holds: whether ``every`` expectation has to hold, or ``one`` is enough: the claim says that something can happen.
    """

    id: str
    text: str
    source: str
    preset: str
    holds: Literal["every", "one"]
    expectations: Callable[[Study], list[Expectation]]

    def outcome(self, found: Sequence[Expectation]) -> Outcome:
        """What the expectations come to."""
        outcomes = [expectation.outcome for expectation in found if expectation.side is not None]
        decisive: Outcome
        other: Outcome
        decisive, other = ("contradicted", "supported") if self.holds == "every" else ("supported", "contradicted")
        if decisive in outcomes:
            return decisive
        return other if outcomes and all(outcome == other for outcome in outcomes) else "not decidable"


def _by(rows: pd.DataFrame, *columns: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Groups with their names, in the order in which they first come."""
    for key, group in rows.groupby(list(columns), sort=False, dropna=False):
        parts = [f"{value:g}" if isinstance(value, float) else str(value) for value in key]
        yield ", ".join(parts), group


def _column(rows: pd.DataFrame, name: str) -> Array:
    return rows[name].to_numpy(dtype=np.float64, na_value=np.nan)


def _paper_rates(rows: pd.DataFrame) -> pd.DataFrame:
    """The pairs at the rate of the paper: 1e-4 for VGG, 1e-3 for the others."""
    return rows[rows["lr"] == np.where(rows["model"] == "vgg", 1e-4, 1e-3)]


def _hidden_layers(rows: pd.DataFrame) -> pd.Series:
    """Of perceptrons; 0 of all else."""
    return rows["hidden"].fillna("").map(lambda widths: len(widths.split("-")) if widths else 0)


def _barrier_and_difference(study: Study, rows: pd.DataFrame, barrier: Side, difference: Side) -> list[Expectation]:
    """Of every network: on which side of the threshold its barrier lies, and of the guide its Δ."""
    return [
        expectation
        for network, group in _by(rows, "network")
        for expectation in (
            Expectation(
                what=f"{network}: barrier",
                values=_column(group, study.barrier),
                unit="fraction",
                side=barrier,
                limit=study.verdict.threshold,
            ),
            Expectation(
                what=f"{network}: Δ",
                values=_column(group, "accuracy_difference"),
                unit="percentage points",
                side=difference,
                limit=SMALL_DIFFERENCE,
            ),
        )
    ]


def shallow_is_stable(study: Study) -> list[Expectation]:
    rows = _paper_rates(study.ok)
    return _barrier_and_difference(study, rows[_hidden_layers(rows) == 1], barrier="below", difference="above")


def deep_has_barriers(study: Study) -> list[Expectation]:
    rows = _paper_rates(study.ok)
    deep = rows[rows["model"].isin(["vgg", "resnet"])]
    return _barrier_and_difference(study, deep, barrier="above", difference="below")


def overfitting(study: Study) -> list[Expectation]:
    """Of the cells that are connected: members overfit, and longer training makes interpolants worse."""
    found = []
    midpoint = _test_loss(study, 0.5)
    rise = _overfitting(study.curves)
    for setting, group in _by(study.ok, "network", "lr"):
        connected = group[group["verdict"] == "connected"]
        for epochs, rows in connected.groupby("epochs"):
            found.append(
                Expectation(
                    what=f"{setting}, {epochs} epochs: test loss at the end above its lowest",
                    values=rise.reindex(rows["key"]).to_numpy(),
                    unit="nats",
                    side="above",
                )
            )
        longest = connected[connected["epochs"] == connected["epochs"].max()]
        shortest = group[group["epochs"] == group["epochs"].min()]
        if len(longest) and longest["epochs"].iloc[0] > shortest["epochs"].iloc[0]:
            ends = [
                pd.Series(midpoint.reindex(rows["key"]).to_numpy(), index=rows["replicate"])
                for rows in (longest, shortest)
            ]
            found.append(
                Expectation(
                    what=f"{setting}: test loss at λ = ½, longest less shortest training",
                    values=(ends[0] - ends[1]).to_numpy(),
                    unit="nats",
                    side="above",
                )
            )
    return found


def _test_loss(study: Study, at: float) -> pd.Series:
    """By key."""
    rows = _judged_paths(study)
    rows = rows[rows["lambda"] == at].set_index("key")
    return rows["loss_sum"] / rows["n"]


def _judged_paths(study: Study) -> pd.DataFrame:
    """The test rows of the paths under the verdict's condition; where that would repeat them, the naive ones."""
    rows = study.paths[study.paths["split"] == "test"]
    own = rows["condition"] == study.verdict.condition
    measured = set(rows.loc[own, "key"])
    return rows[own | ((rows["condition"] == "naive") & ~rows["key"].isin(measured))]


def _overfitting(curves: pd.DataFrame) -> pd.Series:
    """By key, how far the members' last test loss lies above their lowest, in nats."""
    ordered = curves.sort_values("step", kind="stable").groupby(["key", "member"])["test_loss"]
    return (ordered.last() - ordered.min()).groupby("key").mean()


def basins(study: Study) -> list[Expectation]:
    """How far the lowest test loss inside the path lies below the better endpoint."""
    rows = _judged_paths(study).sort_values(["key", "lambda"])
    loss = rows["loss_sum"] / rows["n"]
    ends = rows["lambda"].isin([0.0, 1.0])
    depth = loss[ends].groupby(rows["key"]).min() - loss[~ends].groupby(rows["key"]).min()
    return [
        Expectation(
            what=f"{setting}: better endpoint's test loss above the path's lowest",
            values=depth.reindex(group["key"]).to_numpy(),
            unit="nats",
            side="above",
        )
        for setting, group in _by(study.ok, "network", "lr")
    ]


def noise(study: Study) -> list[Expectation]:
    """Rank correlations of learning rate and batch size with barrier and disagreement, replicate by replicate."""
    settings: tuple[tuple[str, str, str, Side], ...] = (
        ("learning rate", "lr", "batch_size", "above"),
        ("batch size", "batch_size", "lr", "below"),
    )
    return [
        Expectation(
            what=f"{network}: rank correlation of {words} and {quantity}",
            values=_correlations(group, varied, held, column),
            unit="correlation",
            side=side,
        )
        for network, group in _by(study.ok, "network")
        for words, varied, held, side in settings
        for quantity, column in (("barrier", study.barrier), ("disagreement", "disagreement"))
    ]


def _correlations(rows: pd.DataFrame, varied: str, held: str, column: str) -> Array:
    """(replicates,) means over the values of ``held`` that have three points or more and are not constant."""
    found = []
    for _, replicate in rows.groupby("replicate"):
        each = [
            stats.spearmanr(group[varied], group[column]).statistic
            for _, group in replicate.groupby(held)
            if len(group) > 2 and len(group[column].unique()) > 1
        ]
        found.append(float(np.mean(each)) if each else np.nan)
    return np.array(found)


def same_errors(study: Study) -> list[Expectation]:
    return [
        _same_basin_less_other(study, what, column, "fraction", "above")
        for what, column in (
            ("both wrong, of what independent errors give", "error_overlap_ratio"),
            ("same wrong label, of all errors", "same_error"),
        )
    ]


def ensembles(study: Study) -> list[Expectation]:
    return [
        _same_basin_less_other(
            study, "ensemble's accuracy over the mean member's", "ensemble_gain_accuracy", "fraction", "below"
        ),
        _same_basin_less_other(study, "disagreement", "disagreement", "fraction", "below"),
        *(
            Expectation(
                what=f"{name} cells: {what}'s accuracy over the mean member's",
                values=_column(study.ok[study.ok["verdict"] == name], f"{column}_gain_accuracy"),
                unit="fraction",
            )
            for name in ("connected", "disconnected")
            for what, column in (("weight average", "average"), ("ensemble", "ensemble"))
        ),
    ]


def _same_basin_less_other(study: Study, what: str, column: str, unit: Unit, side: Side) -> Expectation:
    """The mean over connected cells less that over disconnected ones, replicate by replicate."""
    means = study.ok.pivot_table(index="replicate", columns="verdict", values=column, aggfunc="mean")
    means = means.reindex(columns=["connected", "disconnected"])
    return Expectation(
        what=f"{what}: connected less disconnected cells",
        values=(means["connected"] - means["disconnected"]).to_numpy(dtype=np.float64),
        unit=unit,
        side=side,
    )


def normalisation(study: Study) -> list[Expectation]:
    """Barriers of the four settings of each rate, and their differences."""
    differences: tuple[tuple[str, tuple[str, bool], tuple[str, bool], Side | None], ...] = (
        ("normalised less raw inputs, no norm", ("none", True), ("none", False), "above"),
        ("no norm less BatchNorm, normalised inputs", ("none", True), ("batch", True), "above"),
        ("no norm less BatchNorm, raw inputs", ("none", False), ("batch", False), None),
    )
    found = []
    for setting, group in _by(study.ok, "model", "lr"):
        barriers = {
            key: rows.set_index("replicate")[study.barrier] for key, rows in group.groupby(["norm", "normalise"])
        }
        for (norm, normalised), values in barriers.items():
            words = f"{'normalised' if normalised else 'raw'} inputs, {'BatchNorm' if norm == 'batch' else 'no norm'}"
            found.append(Expectation(what=f"{setting}: barrier, {words}", values=values.to_numpy(), unit="fraction"))
        for words, one, other, side in differences:
            if one in barriers and other in barriers:
                difference = (barriers[one] - barriers[other]).to_numpy()
                what = f"{setting}: barrier, {words}"
                found.append(Expectation(what=what, values=difference, unit="fraction", side=side))
    return found


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
    ),
    Claim(
        id="R3",
        text="Without a barrier interpolants can still generalise poorly, and overfitting explains it.",
        source=f"{_PAPER}, Fig. 5",
        preset="shift_overfitting_fig5",
        holds="every",
        expectations=overfitting,
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
    ),
    Claim(
        id="R6",
        text="Members of one basin make the same errors more often than members of different basins.",
        source=_PAPER,
        preset="shift_ensemble_spawn",
        holds="every",
        expectations=same_errors,
    ),
    Claim(
        id="R7",
        text="BatchNorm restores connectivity where normalised inputs would break it: without it, normalised inputs "
        "have a higher barrier than raw ones, and with it a lower one than without.",
        source=f"{_PAPER}, as summarised by others",
        preset="shift_normalisation_2x2",
        holds="every",
        expectations=normalisation,
    ),
    Claim(
        id="R8",
        text="Ensembles inside one basin are cheap; members from different basins are more diverse, and their ensemble "
        "gains more.",
        source=_PAPER,
        preset="shift_ensemble_spawn",
        holds="every",
        expectations=ensembles,
    ),
)
