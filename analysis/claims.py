"""What published work claims, and what the tables of one study say of it.

A claim is put as expectations: numbers, one per replicate, and the side of a limit on which their mean should lie. The
interval of the mean decides each, and they decide the claim. A claim's note tells what in this was changed after a
result had been seen.
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
from analysis.words import SMALL_DIFFERENCE, setting
from lmc_tune.core.barrier import Array
from lmc_tune.results import model_label
from lmc_tune.specs import Condition, VerdictSpec

Outcome = Literal["supported", "contradicted", "not decidable"]
Side = Literal["below", "above"]
Unit = Literal["fraction", "percentage points", "nats", "correlation"]

_PAPER = "Hepburn et al. 2025"


@dataclass(frozen=True, kw_only=True)
class Study:
    """The tables of one sweep, as a claim needs them.

    pairs: as :func:`analysis.cells.regate` gives them, with ``network``; ``verdict``, that of the pair's cell;
        ``basin_depth``, in nats (:func:`analysis.basins.basin_depths`); ``test_midpoint`` and ``train_midpoint``, the
        accuracies at λ = ½; ``overfitting``, how far the members' last test loss lies above their lowest, in nats.
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
            "test_midpoint": _midpoint_accuracy(paths, "test", verdict.condition),
            "train_midpoint": _midpoint_accuracy(paths, "train", verdict.condition),
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

    def interval(self, confidence: float) -> tuple[float, float]:
        """Student's, of the mean; infinite for less than two values."""
        n = len(self.known)
        if n < 2:
            return -np.inf, np.inf
        reach = stats.t.ppf(0.5 + confidence / 2, n - 1) * self.known.std(ddof=1) / np.sqrt(n)
        return self.mean - reach, self.mean + reach

    def outcome(self, confidence: float) -> Outcome:
        """Where the whole interval lies."""
        low, high = self.interval(confidence)
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

    def confidence(self, found: Sequence[Expectation]) -> float:
        """Of each interval, so that all of a claim's hold together with 95% (Bonferroni)."""
        return 1 - 0.05 / max(1, sum(expectation.side is not None for expectation in found))

    def outcome(self, found: Sequence[Expectation]) -> Outcome:
        """What the expectations come to."""
        confidence = self.confidence(found)
        outcomes = [expectation.outcome(confidence) for expectation in found if expectation.side is not None]
        decisive: Outcome
        other: Outcome
        decisive, other = ("contradicted", "supported") if self.holds == "every" else ("supported", "contradicted")
        if decisive in outcomes:
            return decisive
        return other if outcomes and all(outcome == other for outcome in outcomes) else "not decidable"


def _by(rows: pd.DataFrame, *columns: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Groups with their names, e.g. ``mlp 64, learning rate 0.1``, sorted."""
    for key, group in rows.groupby(list(columns), dropna=False):
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
    """Of every network: on which side of the threshold its barrier lies, and of the guide its Δ; of ok pairs alone."""
    return [
        expectation
        for network, group in _by(rows, "network")
        for ok in [group[group["status"] == "ok"]]
        for expectation in (
            Expectation(
                what=f"{network}: barrier",
                values=_column(ok, study.barrier_column),
                unit="fraction",
                side=barrier,
                limit=study.verdict.threshold,
            ),
            Expectation(
                what=f"{network}: Δ",
                values=_column(ok, "accuracy_difference"),
                unit="percentage points",
                side=difference,
                limit=SMALL_DIFFERENCE,
            ),
        )
    ]


def shallow_is_stable(study: Study) -> list[Expectation]:
    rows = _paper_rates(study.pairs)
    return _barrier_and_difference(study, rows[_hidden_layers(rows) == 1], barrier="below", difference="above")


def deep_has_barriers(study: Study) -> list[Expectation]:
    rows = _paper_rates(study.pairs)
    deep = rows[rows["model"].isin(["vgg", "resnet"])]
    return _barrier_and_difference(study, deep, barrier="above", difference="below")


def overfitting(study: Study) -> list[Expectation]:
    """Where the longest training is connected: its interpolants beside those of the shortest."""
    found = []
    for name, group in _by(study.ok, "network", "lr"):
        trained = np.unique(group["epochs"]).tolist()
        short, long = (group[group["epochs"] == epochs].set_index("replicate") for epochs in (trained[0], trained[-1]))
        if trained[0] == trained[-1] or (long["verdict"] != "connected").any():
            continue
        words = f"{trained[-1]} epochs less {trained[0]}"
        accuracy = long["test_midpoint"] - short["test_midpoint"]
        gap = long["train_midpoint"] - short["train_midpoint"] - accuracy
        found += [
            Expectation(
                what=f"{name}: test accuracy at λ = ½, {words}",
                values=_numbers(accuracy),
                unit="fraction",
                side="below",
            ),
            Expectation(
                what=f"{name}: train less test accuracy at λ = ½, {words}",
                values=_numbers(gap),
                unit="fraction",
                side="above",
            ),
            Expectation(
                what=f"{name}, {trained[-1]} epochs: members' test loss at the end above its lowest",
                values=_column(long, "overfitting"),
                unit="nats",
            ),
        ]
    return found


def _midpoint_accuracy(paths: pa.Table, split: Literal["train", "test"], condition: Condition) -> pd.Series:
    """By key."""
    at = pc.and_(pc.equal(paths["split"], split), pc.equal(paths["lambda"], 0.5))
    rows = paths.filter(pc.and_(at, judged_rows(paths, condition))).to_pandas().set_index("key")
    accuracy: pd.Series = rows["correct"] / rows["n"]
    return accuracy


def _overfitting(curves: pd.DataFrame) -> pd.Series:
    """By key, the mean over the members."""
    of_members = curves[curves["member"] != "joint"].sort_values("step", kind="stable")
    loss = of_members.groupby(["key", "member"])["test_loss"]
    rise: pd.Series = (loss.last() - loss.min()).groupby("key").mean()
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
    """Rank correlations of learning rate and batch size with barrier and disagreement, replicate by replicate.

    Barriers are expected to follow where a network has any: of one whose cells are all below the threshold they are
    told.
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
        for network, group in _by(study.ok, "network")
        for words, varied, held, side in settings
        for quantity, column in (("barrier", study.barrier_column), ("disagreement", "disagreement"))
    ]


def _correlations(rows: pd.DataFrame, varied: str, held: str, column: str) -> Array:
    """(replicates,) means over the values of ``held`` that have three points or more; 0 for what does not vary."""
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
        "error_overlap_ratio": "both wrong, of what independent errors give",
        "same_error": "same wrong label, of all errors",
    }
    return [
        *(_same_basin_less_other(study, what, column, "above") for column, what in quantities.items()),
        *(
            Expectation(what=f"{name}: {what}", values=_column(group, column), unit="fraction")
            for name, group in _by(study.ok, "network", "lr", "spawn_epoch")
            for column, what in quantities.items()
        ),
    ]


def ensembles(study: Study) -> list[Expectation]:
    return [
        _same_basin_less_other(study, "disagreement", "disagreement", "below"),
        _same_basin_less_other(study, "ensemble's accuracy", "ensemble_accuracy", "below"),
        _same_basin_less_other(study, "ensemble's accuracy over the mean member's", "ensemble_gain_accuracy", "below"),
        *(
            Expectation(
                what=f"{name} cells: {what}'s accuracy over the mean member's",
                values=_column(study.ok[study.ok["verdict"] == name], f"{what.split()[-1]}_gain_accuracy"),
                unit="fraction",
            )
            for name in ("connected", "disconnected")
            for what in ("weight average", "ensemble")
        ),
    ]


def _same_basin_less_other(study: Study, what: str, column: str, side: Side) -> Expectation:
    """Connected less disconnected cells of the same network and rate; means over these, replicate by replicate."""
    means = study.ok.pivot_table(index=["replicate", "network", "lr"], columns="verdict", values=column, aggfunc="mean")
    means = means.reindex(columns=["connected", "disconnected"])
    differences = (means["connected"] - means["disconnected"]).groupby("replicate").mean()
    return Expectation(
        what=f"{what}: connected less disconnected cells", values=_numbers(differences), unit="fraction", side=side
    )


def normalisation(study: Study) -> list[Expectation]:
    """Barriers of the four settings; BatchNorm's is expected to be low where normalised inputs break without it."""
    found = []
    for name, group in _by(study.pairs, "model", "hidden", "lr"):
        for norm in ("none", "batch"):
            for normalised in (True, False):
                chosen = group[(group["norm"] == norm) & (group["normalise"] == normalised)]
                values = _column(chosen[chosen["status"] == "ok"], study.barrier_column)
                words = (
                    f"{'normalised' if normalised else 'raw'} inputs, {'BatchNorm' if norm == 'batch' else 'no norm'}"
                )
                plain = group[(group["norm"] == "none") & group["normalise"]]
                broken = (plain["verdict"] == "disconnected").all()
                found.append(
                    Expectation(
                        what=f"{name}: barrier, {words}",
                        values=values,
                        unit="fraction",
                        side="below" if broken and norm == "batch" and normalised else None,
                        limit=study.verdict.threshold,
                    )
                )
    return found


_OTHER_TWIN = (
    "The small twin became a perceptron at two learning rates after a first run with a ResNet-8 of half the width, "
    "which had no disconnected cell to compare with."
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
    ),
    Claim(
        id="R3",
        text="Interpolants can generalise poorly without a barrier, and overfitting explains it.",
        source=f"{_PAPER}, Fig. 5",
        preset="shift_overfitting_fig5",
        holds="every",
        expectations=overfitting,
        note="Read where the longest training is connected: interpolants lose test accuracy with training, and their "
        "gap between train and test grows. Put so after a first run of the small twin (three replicates), where it was "
        "read from losses, which rise by construction, and was not decidable.",
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
        note="At equal epochs a larger batch takes fewer steps, so that its members are also trained less: train "
        "accuracies stand below. Networks that have no disconnected cell were left out of what is said of barriers "
        "after a first run of the small twin (three replicates), where the claim was not decidable.",
    ),
    Claim(
        id="R6",
        text="Members of one basin make the same errors more often than members of different basins.",
        source=_PAPER,
        preset="shift_ensemble_spawn",
        holds="every",
        expectations=same_errors,
        note=f"Members that part later have seen more data together, so that they are also better: see below. {_OTHER_TWIN}",
    ),
    Claim(
        id="R7",
        text="BatchNorm can restore connectivity where normalised inputs would break it.",
        source=f"{_PAPER}, as summarised by others",
        preset="shift_normalisation_2x2",
        holds="one",
        expectations=normalisation,
        note="Read where normalised inputs without a norm are disconnected: with BatchNorm the barrier lies below the "
        "threshold. Put so after a first run of the small twin, where differences were asked of every learning rate, "
        "connected or not, and the claim was contradicted.",
    ),
    Claim(
        id="R8",
        text="Ensembles inside one basin are cheap; members from different basins are more diverse, and their ensemble "
        "gains more.",
        source=_PAPER,
        preset="shift_ensemble_spawn",
        holds="every",
        expectations=ensembles,
        note=_OTHER_TWIN,
    ),
)
