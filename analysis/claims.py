"""What published work claims, and what the tables of one study say of it.

A claim is put as expectations: numbers, one per replicate, and the side of a limit on which their mean should lie. The
interval of the mean decides each, and they decide the claim. Limits and sides are those of the claim and were written
down before its result was seen; a claim's note tells of any that were not.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from analysis.basins import basin_depths
from analysis.cells import judge_cells, regate
from analysis.curves import judged_rows
from analysis.words import setting
from lmc_tune.core.barrier import Array
from lmc_tune.core.statistics import mean_interval
from lmc_tune.results import model_label
from lmc_tune.specs import Condition, VerdictSpec

Outcome = Literal["supported", "contradicted", "not decidable"]
Side = Literal["below", "above"]
Unit = Literal["fraction", "percentage points", "nats", "correlation"]

# Hepburn et al. 2025 draw this guide in their Fig. 4: an interpolant that loses more is no longer a good network.
SMALL_DIFFERENCE = -5.0
_PAPER = "Hepburn et al. 2025"


@dataclass(frozen=True, kw_only=True)
class Study:
    """The tables of one sweep, as a claim needs them.

    pairs: as :func:`analysis.cells.regate` gives them, with ``network``; ``verdict``, that of the pair's cell;
        ``basin_depth`` (:func:`analysis.basins.basin_depths`); ``midpoint_loss``, the test loss at λ = ½; and
        ``overfitting``, how far the members' last test loss lies above their lowest; the last three in nats.
    cells: as :func:`analysis.cells.judge_cells` gives them, with ``network``.
    """

    verdict: VerdictSpec
    pairs: pd.DataFrame
    cells: pd.DataFrame

    @classmethod
    def of(cls, results: pd.DataFrame, paths: pa.Table, curves: pd.DataFrame, verdict: VerdictSpec) -> "Study":
        """The study of these tables; ``paths`` holds whole pairs, sorted by key and λ."""
        pairs = regate(results, verdict)
        cells = judge_cells(pairs, verdict)
        networks = {row["cell"]: model_label(row) for row in cells.to_dict("records")}
        measured = {
            "basin_depth": basin_depths([paths], verdict.condition),
            "midpoint_loss": _midpoint_loss(paths, verdict.condition),
            "overfitting": _overfitting(curves),
        }
        pairs = pairs.assign(
            network=pairs["cell"].map(networks),
            verdict=pairs["cell"].map(cells.set_index("cell")["verdict"]),
            **{name: pairs["key"].map(values) for name, values in measured.items()},
        )
        return cls(verdict=verdict, pairs=pairs, cells=cells.assign(network=cells["cell"].map(networks)))

    @property
    def ok(self) -> pd.DataFrame:
        """The pairs whose members were trained."""
        return self.pairs[self.pairs["status"] == "ok"]

    @property
    def barrier_column(self) -> str:
        """The judged one."""
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
    note: what a reader has to know of how it is put; what was changed in that after a result was seen.
    holds: whether ``every`` expectation has to hold, or ``one`` is enough: the claim says that something can happen.
    """

    id: str
    text: str
    source: str
    preset: str
    holds: Literal["every", "one"]
    expectations: Callable[[Study], list[Expectation]]
    note: str = ""

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
    """Groups with their names, e.g. ``mlp 64, learning rate 0.1``, in the order in which they first come."""
    for key, group in rows.groupby(list(columns), sort=False, dropna=False):
        yield ", ".join(_named(column, value) for column, value in zip(columns, key, strict=True)), group


def _named(column: str, value: object) -> str:
    return str(value) if column in ("network", "model") else setting(column, value)


def _column(rows: pd.DataFrame, name: str) -> Array:
    return _numbers(rows[name])


def _numbers(column: pd.Series) -> Array:
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


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
                values=_column(group, study.barrier_column),
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
    """Of connected cells: the members of the longest training overfit, and its interpolants are the worse ones."""
    found = []
    for name, group in _by(study.ok, "network", "lr"):
        trained = np.unique(group["epochs"]).tolist()
        by_epochs = {epochs: group[group["epochs"] == epochs].set_index("replicate") for epochs in trained}
        shortest, longest = trained[0], trained[-1]
        found += [
            Expectation(
                what=f"{name}, {epochs} epochs: test loss at the end above its lowest",
                values=_column(rows, "overfitting"),
                unit="nats",
                side="above" if epochs == longest else None,
            )
            for epochs, rows in by_epochs.items()
            if _is_connected(rows)
        ]
        if shortest < longest and _is_connected(by_epochs[longest]):
            worse = by_epochs[longest]["midpoint_loss"] - by_epochs[shortest]["midpoint_loss"]
            what = f"{name}: test loss at λ = ½, {longest} epochs less {shortest}"
            found.append(Expectation(what=what, values=_numbers(worse), unit="nats", side="above"))
    return found


def _is_connected(cell: pd.DataFrame) -> bool:
    return bool((cell["verdict"] == "connected").all())


def _midpoint_loss(paths: pa.Table, condition: Condition) -> pd.Series:
    """By key."""
    at = pc.and_(pc.equal(paths["split"], "test"), pc.equal(paths["lambda"], 0.5))
    rows = paths.filter(pc.and_(at, judged_rows(paths, condition))).to_pandas().set_index("key")
    loss: pd.Series = rows["loss_sum"] / rows["n"]
    return loss


def _overfitting(curves: pd.DataFrame) -> pd.Series:
    """By key, the mean over the members."""
    ordered = curves.sort_values("step", kind="stable").groupby(["key", "member"])["test_loss"]
    rise: pd.Series = (ordered.last() - ordered.min()).groupby("key").mean()
    return rise


def basins(study: Study) -> list[Expectation]:
    return [
        Expectation(
            what=f"{name}: better endpoint's test loss above the path's lowest",
            values=_column(group, "basin_depth"),
            unit="nats",
            side="above",
        )
        for name, group in _by(study.ok, "network", "lr")
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
        for quantity, column in (("barrier", study.barrier_column), ("disagreement", "disagreement"))
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
    """Barriers of the four settings of each network and rate, and their differences; of none, where no pair is ok."""
    differences: tuple[tuple[str, tuple[str, bool], tuple[str, bool], Side | None], ...] = (
        ("normalised less raw inputs, no norm", ("none", True), ("none", False), "above"),
        ("no norm less BatchNorm, normalised inputs", ("none", True), ("batch", True), "above"),
        ("no norm less BatchNorm, raw inputs", ("none", False), ("batch", False), None),
    )
    found = []
    for name, group in _by(study.ok, "model", "hidden", "lr"):
        barriers = {
            (norm, normalised): group[(group["norm"] == norm) & (group["normalise"] == normalised)].set_index(
                "replicate"
            )[study.barrier_column]
            for norm in ("none", "batch")
            for normalised in (True, False)
        }
        for (norm, normalised), values in barriers.items():
            words = f"{'normalised' if normalised else 'raw'} inputs, {'BatchNorm' if norm == 'batch' else 'no norm'}"
            found.append(Expectation(what=f"{name}: barrier, {words}", values=_numbers(values), unit="fraction"))
        for words, one, other, side in differences:
            difference = _numbers(barriers[one] - barriers[other])
            what = f"{name}: barrier, {words}"
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
        text="Interpolants without a barrier generalise poorly where members overfit.",
        source=f"{_PAPER}, Fig. 5",
        preset="shift_overfitting_fig5",
        holds="every",
        expectations=overfitting,
        note="Read from connected cells alone. Members are expected to overfit in the longest training; at first they "
        "were in every one, which the small twin's five epochs showed to be no part of the claim.",
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
