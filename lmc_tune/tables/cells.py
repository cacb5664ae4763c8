"""From pairs to cells: counts, exclusions, mean barrier with its interval, and one of five verdicts per cell.

A *cell* is one point of the space; its pairs differ in the replicate alone. Everything is computed for all cells at
once, and nothing depends on the order of the rows.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from lmc_tune.core.barrier import DEFINITIONS, MAY_BE_NEGATIVE, Array
from lmc_tune.core.statistics import (
    MODERATED,
    STUDENTS,
    VERDICTS,
    Verdict,
    fit_spread,
    mean_interval,
    verdict_of_interval,
)
from lmc_tune.experiment import (
    CONDITIONS,
    SAME_WITHOUT_BATCH_NORM,
    Condition,
    PathSplit,
    VerdictSpec,
    condition_column,
    condition_name,
)
from lmc_tune.experiment.datasets import DATASETS
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.tables.columns import BARRIER_COLUMNS, PATH_FIELDS, RESULTS, SPEC_FIELDS
from lmc_tune.tables.rows import GATED, GATED_ACCURACIES, STATUSES, gate, spec_fields

CELL_FIELDS = [name for name in SPEC_FIELDS if name != "replicate"]

# Known of every finished pair; everything in OK_MEANS means something only for pairs whose members were trained.
PAIR_MEANS = [column.name for column in RESULTS.columns if column.mean == "pairs"]
OK_MEANS = [column.name for column in RESULTS.columns if column.mean == "ok"]

# The judged barrier of a pair, by condition.
CONDITION_BARRIERS: dict[str, Condition] = {
    f"{condition_name(condition)}_barrier": condition for condition in CONDITIONS
}

# The judged barrier of a pair less that of another run's.
BARRIER_DIFFERENCE = "barrier_difference"

# Values that differ by no more are equal.
ROUNDING = 1e-12

# On both, a cell has a mean barrier and, unless it is excluded, a verdict.
SPLITS: tuple[PathSplit, ...] = ("test", "train")


def judged_columns(verdict: VerdictSpec) -> list[str]:
    """The columns of the results that a verdict's cells, and those of the other definitions, are worked out from."""
    barriers = [verdict.model_copy(update={"barrier": definition}).column for definition in DEFINITIONS]
    of_path = [*PATH_FIELDS, *barriers, *(verdict.on(split).column for split in SPLITS)]
    same = SAME_WITHOUT_BATCH_NORM.get(verdict.condition, verdict.condition)
    under = [condition_column(condition, column) for condition in (verdict.condition, same) for column in of_path]
    under += [condition_column(condition, verdict.column) for condition in CONDITIONS]
    means = [name for name in (*OK_MEANS, "permutable_units", "frozen_units") if name not in PATH_FIELDS]
    return list(
        dict.fromkeys(
            [
                "key",
                "cell",
                "status",
                "reason",
                "question",
                *SPEC_FIELDS,
                "target_reached",
                "lowest_own_accuracy",
                *of_path,
                *under,
                *PAIR_MEANS,
                *means,
            ]
        )
    )


def planned_cells(space: SearchSpace) -> pd.DataFrame:
    """One row per cell of a space, run or not, in the order of the cells' ids.

    Columns: ``cell``, the spec's columns, and ``question``, what is asked of the cell's pairs.
    """
    schema = pa.schema([RESULTS.schema.field(name) for name in ["cell", "question", *CELL_FIELDS]])
    cells = space.cells()
    asked = {model.text: space.measure.of(model).key for model in (cell.first.model for cell in cells)}
    rows = [{"cell": cell.key, "question": asked[cell.first.model.text], **spec_fields(cell.first)} for cell in cells]
    planned: pd.DataFrame = pa.Table.from_pylist(rows, schema=schema).sort_by("cell").to_pandas()
    return planned


def summarise(results: pd.DataFrame, verdict: VerdictSpec) -> pd.DataFrame:
    """The cells of a table of results: :func:`judge_cells` of its pairs in any order, gated in any way."""
    return judge_cells(regate(results, verdict), verdict)


def judge_cells(pairs: pd.DataFrame, verdict: VerdictSpec) -> pd.DataFrame:
    """One row per cell, in the order of the cells' ids.

    Columns: ``cell`` and the spec's columns; ``n_pairs`` finished pairs, of which ``n_ok``, ``n_undertrained``,
    ``n_diverged`` and ``n_failed`` add up to it; ``n_under_resolved`` and ``n_without_barrier`` of the ok pairs;
    ``mean_barrier``, ``low`` and ``high`` over the ok pairs, in the unit of the judged curve (fraction or nats);
    ``estimator``, ``threshold``, ``confidence``, ``one_example`` (one example of the test set or of a member's part, as
    a fraction; 0 for losses: bounds are at least so far from the mean); ``verdict`` and ``judged`` (the mean is known
    and the verdict rests on it). The same on both splits, whichever is judged: ``test_barrier``, ``test_low``,
    ``test_high`` and ``on_test`` (connected, disconnected or undecided; None where the split was not measured or the
    cell is excluded), ``train_…`` and ``on_train``; ``split_apart``: connected on one split, disconnected on the other.
    And means of what was measured: noise scale, steps and shifts over all pairs, the rest over the ok pairs, the mean
    barriers under every condition (:data:`CONDITION_BARRIERS`) among them.

    One ok pair without a finite barrier leaves the cell's mean unknown: leaving it out would flatter the cell. A cell's
    interval also depends on how much the pairs of the other cells differ
    (:func:`~lmc_tune.core.statistics.fit_spread`); ``estimator`` says whether that is known.

    Args:
        pairs: as :func:`regate` gives them.
        verdict: which barrier is judged, against what, how surely.

    Raises:
        ValueError: if the table lacks the judged column.
    """
    cells, code = _count(pairs)
    n = len(cells)
    ok = (pairs["status"] == "ok").to_numpy()
    unresolved = pairs["under_resolved"].astype("boolean").fillna(value=False).to_numpy(dtype=bool)
    cells["n_under_resolved"] = np.bincount(code[ok & unresolved], minlength=n)
    cells["n_without_barrier"] = np.bincount(code[ok & ~np.isfinite(_barriers(pairs, verdict))], minlength=n)
    excluded = _excluded(cells)
    for split in SPLITS:
        one_example = _one_example(pairs, code, cells, verdict.on(split))
        found, estimator = _barrier_intervals(pairs, code, ok, one_example, verdict.on(split))
        if split == verdict.split:
            cells["estimator"], cells["one_example"] = estimator, one_example
        cells[[f"{split}_barrier", f"{split}_low", f"{split}_high"]] = found
        on_split = _verdicts(found, verdict.threshold)
        on_split[excluded.notna()] = None
        cells[f"on_{split}"] = on_split
    cells["split_apart"] = [
        {on_test, on_train} == {"connected", "disconnected"}
        for on_test, on_train in cells[["on_test", "on_train"]].itertuples(index=False)
    ]
    judged = verdict.split
    cells[["mean_barrier", "low", "high"]] = cells[[f"{judged}_barrier", f"{judged}_low", f"{judged}_high"]]
    cells["threshold"], cells["confidence"] = verdict.threshold, verdict.confidence
    cells["verdict"] = excluded.fillna(cells[f"on_{judged}"]).fillna("undecided")
    cells["judged"] = excluded.isna() & np.isfinite(cells["mean_barrier"])
    return pd.concat([cells, _means(pairs, code, n, ok)], axis="columns")


def mean_intervals(
    pairs: pd.DataFrame,
    columns: Sequence[str],
    cells: pd.DataFrame,
    verdict: VerdictSpec,
    *,
    barriers: Collection[str] = CONDITION_BARRIERS,
) -> dict[str, pd.DataFrame]:
    """Of each column the ``mean`` over the ok pairs of each cell, with the bounds ``low`` and ``high``.

    NaN, −∞ and ∞ where a cell has no ok pair, or one of them has no finite value. Barriers have the intervals that the
    verdicts rest on, other numbers Student's; that of a :data:`BARRIER_DIFFERENCE` is no narrower than one example.

    Args:
        pairs: as :func:`regate` gives them.
        columns: numbers of a pair.
        cells: as :func:`judge_cells` gives them; the tables have their index.
        verdict: how they were judged.
        barriers: those of the columns that are barriers, in the unit of the judged curve.
    """
    counted = pairs[(pairs["status"] == "ok") & pairs["cell"].isin(cells["cell"])]
    code = pd.Categorical(counted["cell"], categories=cells["cell"]).codes.astype(np.intp)
    tables = {}
    for name in columns:
        values = counted[name].to_numpy(dtype=np.float64, na_value=np.nan)
        mean, variance, size = _moments(code, values, len(cells))
        if CONDITION_BARRIERS.get(name) == verdict.condition:
            bounds = cells[["low", "high"]].to_numpy()
            bounds[~np.isfinite(mean)] = -np.inf, np.inf
        elif name in barriers:
            bounds, _ = _barrier_bounds(mean, variance, size, cells["one_example"].to_numpy(), verdict)
        else:
            bounds = mean_interval(mean, variance, size, verdict.confidence)
            if name == BARRIER_DIFFERENCE:
                one = cells["one_example"].to_numpy()
                bounds = np.column_stack([np.fmin(bounds[:, 0], mean - one), np.fmax(bounds[:, 1], mean + one)])
        tables[name] = pd.DataFrame({"mean": mean, "low": bounds[:, 0], "high": bounds[:, 1]}, index=cells.index)
    return tables


def regate(results: pd.DataFrame, verdict: VerdictSpec) -> pd.DataFrame:
    """The pairs sorted by cell and replicate, their status decided by this verdict's train-accuracy gate.

    Whatever gate the table was written with, and whatever its order, the same pairs come out. What depends on the
    condition (barriers, λ*, Δ, merge gain, retention, under-resolved) is that of the verdict's; a network without
    BatchNorm has one for those that only BatchNorm tells apart. :data:`CONDITION_BARRIERS` are added, NaN where a
    condition was not measured.
    """
    beside = {
        name: results.get(condition_column(condition, verdict.column), np.nan)
        for name, condition in CONDITION_BARRIERS.items()
    }
    rows = _under_condition(results, verdict.condition).assign(**beside)
    rows = rows.sort_values(["cell", "replicate", "key"], kind="stable").reset_index(drop=True)
    known = [name for name in GATED_ACCURACIES if name in rows]
    low = (rows[known] < verdict.min_train_accuracy).any(axis="columns")
    moved = (low & rows["status"].isin(["ok", "undertrained"])) | (~low & (rows["status"] == "undertrained"))
    if moved.any():
        fresh = [
            gate({str(name): value for name, value in row.items()}, verdict.min_train_accuracy)
            for row in rows.loc[moved, [name for name in GATED if name in rows]].to_dict("records")
        ]
        rows.loc[moved, "status"] = [row["status"] for row in fresh]
        rows.loc[moved, "reason"] = [row["reason"] for row in fresh]
    return rows


def _under_condition(results: pd.DataFrame, condition: Condition) -> pd.DataFrame:
    if condition == "naive":
        return results
    columns = [column for column in (*PATH_FIELDS, *BARRIER_COLUMNS) if column in results]
    same = SAME_WITHOUT_BATCH_NORM.get(condition, condition)
    without = (results["model"] != "factory") & (results["norm"] != "batch")
    own, instead = ({column: condition_column(one, column) for column in columns} for one in (condition, same))
    if same == "naive" and without.all():
        return results
    return results.assign(
        **{column: results[instead[column]].where(without, results[own[column]]) for column in columns}
    )


def exclusions(pairs: pd.DataFrame, verdict: VerdictSpec) -> pd.DataFrame:
    """What was left out of the means and why: cell, status, count and the first reason given (by replicate).

    ``pairs`` are as :func:`regate` gives them.

    Ok pairs without a finite barrier are listed as ``ok``: they are what leaves their cell undecided.
    """
    without = (pairs["status"] == "ok") & ~np.isfinite(_barriers(pairs, verdict))
    unknown = f"{verdict.column} is not finite; the mean of the cell is unknown"
    left_out = pairs.assign(reason=pairs["reason"].mask(without, unknown))[(pairs["status"] != "ok") | without]
    groups = left_out.groupby(["cell", "status"], sort=True)
    table = groups.agg(count=("key", "size"), reason=("reason", "first")).reset_index()
    table["reason"] = table["reason"].fillna("")
    return table


def compare_definitions(pairs: pd.DataFrame, verdict: VerdictSpec) -> pd.DataFrame:
    """How many cells each barrier definition would call what, at the same threshold: one row per definition.

    ``pairs`` are as :func:`regate` gives them. A definition whose column is not among theirs is left out.
    """
    ok = (pairs["status"] == "ok").to_numpy()
    cells, code = _count(pairs)
    excluded, table = _excluded(cells), []
    for definition in DEFINITIONS:
        other = verdict.model_copy(update={"barrier": definition})
        if other.column in pairs:
            found, _ = _barrier_intervals(pairs, code, ok, _one_example(pairs, code, cells, other), other)
            counts = excluded.fillna(_verdicts(found, verdict.threshold)).fillna("undecided").value_counts()
            table.append({name: int(counts.get(name, 0)) for name in VERDICTS} | {"definition": definition})
    return pd.DataFrame(table, columns=["definition", *VERDICTS])


def _count(rows: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.intp]]:
    """The cells with their numbers of pairs, and the index of every row's cell."""
    cells = rows.drop_duplicates("cell")[["cell", *CELL_FIELDS]].reset_index(drop=True)
    code = pd.Categorical(rows["cell"], categories=cells["cell"]).codes.astype(np.intp)
    cells["n_pairs"] = np.bincount(code, minlength=len(cells))
    for status in STATUSES:
        cells[f"n_{status}"] = np.bincount(code[rows["status"] == status], minlength=len(cells))
    return cells, code


def _barriers(rows: pd.DataFrame, verdict: VerdictSpec) -> Array:
    if verdict.column not in rows:
        raise ValueError(f"the results have no column {verdict.column!r}; the verdict asks for it")
    return rows[verdict.column].to_numpy(dtype=np.float64, na_value=np.nan)


def _barrier_intervals(
    pairs: pd.DataFrame, code: NDArray[np.intp], ok: NDArray[np.bool_], one_example: Array, verdict: VerdictSpec
) -> tuple[Array, str]:
    """(cells, 3) mean, low and high of the barrier that a verdict judges, and the estimator.

    NaN, −∞ and ∞ where it was not measured, no pair is ok, or one of them has no finite barrier.
    """
    if verdict.column not in pairs:
        return np.tile([np.nan, -np.inf, np.inf], (len(one_example), 1)), STUDENTS
    mean, variance, size = _moments(code[ok], _barriers(pairs, verdict)[ok], len(one_example))
    bounds, estimator = _barrier_bounds(mean, variance, size, one_example, verdict)
    return np.column_stack([mean, bounds]), estimator


def _barrier_bounds(
    mean: Array, variance: Array, size: Array, one_example: Array, verdict: VerdictSpec
) -> tuple[Array, str]:
    """(cells, 2) bounds of the mean barrier of each cell of a sweep, and the estimator.

    A barrier is known to one example: the bounds are at least so far from the mean, and a smaller variance than that of
    rounding to whole examples is not told apart from it. Bounds stay where barriers can be. Of barriers that may be
    negative they are Student's, since the spread says nothing about negative means.
    """
    signed = verdict.barrier in MAY_BE_NEGATIVE
    seen = np.where(variance > 0, np.maximum(variance, one_example**2 / 12), variance)
    spread = None if signed else fit_spread(mean, seen, size)
    bounds = mean_interval(mean, variance, size, verdict.confidence, spread=spread)
    low, high = np.fmin(bounds[:, 0], mean - one_example), np.fmax(bounds[:, 1], mean + one_example)
    known = np.isfinite(low)
    if not signed:
        low = np.where(known, np.maximum(low, 0), low)
    if verdict.quantity == "error":
        high = np.where(known, np.minimum(high, 1), high)
    return np.column_stack([low, high]), MODERATED if spread else STUDENTS


def _moments(code: NDArray[np.intp], values: Array, n_cells: int) -> tuple[Array, Array, Array]:
    """Mean and variance of the values of each cell, NaN where one of them is not finite, and their number."""
    order = np.lexsort((values, code))  # by value within the cell: no sum depends on the order of the pairs
    code, values = code[order], np.where(np.isfinite(values), values, np.nan)[order]
    size = np.bincount(code, minlength=n_cells)
    filled, start = size > 0, np.cumsum(size) - size

    def summed(terms: Array) -> Array:
        sums = np.full(n_cells, np.nan)
        if len(terms):
            sums[filled] = np.add.reduceat(terms, start[filled])
        return sums

    mean = summed(values) / np.maximum(size, 1)
    variance = summed((values - mean[code]) ** 2) / np.maximum(size - 1, 1)
    lowest, highest = values[start[filled]], values[(start + size - 1)[filled]]
    alike = np.zeros(n_cells, dtype=bool)
    alike[filled] = highest - lowest <= ROUNDING
    variance[alike] = 0.0  # otherwise the rounding of the mean would pass for a spread
    return mean, variance, size.astype(np.float64)


def _verdicts(intervals: Array, threshold: float) -> pd.Series:
    """What intervals say; None where the mean is not known."""
    verdicts = [
        verdict_of_interval(low, high, threshold) if np.isfinite(mean) else None for mean, low, high in intervals
    ]
    return pd.Series(verdicts, dtype=object)


def _one_example(pairs: pd.DataFrame, code: NDArray[np.intp], cells: pd.DataFrame, verdict: VerdictSpec) -> Array:
    """(cells,) one example, or token, as a fraction of the test set or of a member's part of the training set.

    0 for losses, and where no pair was trained. A path on train is measured on both parts, so this errs on the safe
    side.
    """
    if verdict.quantity == "loss":
        return np.zeros(len(cells))
    if verdict.split == "train":
        examples = pairs["n_train"].groupby(code).mean().reindex(range(len(cells)))
    else:
        examples = cells["test_examples"].fillna(cells["dataset"].map({name: f.n_test for name, f in DATASETS.items()}))
    tokens = cells["context"].fillna(1)  # of images, one label each
    decisions: Array = examples.to_numpy(dtype=np.float64, na_value=np.nan) * tokens.to_numpy(np.float64)
    return np.nan_to_num(1 / decisions)


def _excluded(cells: pd.DataFrame) -> pd.Series:
    """The verdict of each cell of which at least half of the finished pairs are not ok; None for the others."""
    columns = ["n_pairs", "n_undertrained", "n_diverged", "n_failed"]
    verdicts = [
        _excluded_verdict(undertrained, diverged, failed) if 2 * (undertrained + diverged + failed) >= n_pairs else None
        for n_pairs, undertrained, diverged, failed in cells[columns].itertuples(index=False)
    ]
    return pd.Series(verdicts, index=cells.index, dtype=object)


def _excluded_verdict(undertrained: int, diverged: int, failed: int) -> Verdict:
    if failed > undertrained + diverged:
        return "undecided"
    return "diverged" if diverged >= undertrained else "undertrained"


def _means(rows: pd.DataFrame, code: NDArray[np.intp], n_cells: int, ok: NDArray[np.bool_]) -> pd.DataFrame:
    everywhere = pd.RangeIndex(n_cells)
    of_pairs = rows[PAIR_MEANS].groupby(code).mean()
    of_ok = rows.loc[ok, OK_MEANS].groupby(code[ok]).mean()
    n_ok = np.bincount(code[ok], minlength=n_cells)
    for name in CONDITION_BARRIERS:  # unlike pandas' mean, unknown where one pair's is
        total = np.bincount(code[ok], weights=rows.loc[ok, name], minlength=n_cells)
        of_ok[name] = pd.Series(np.where(n_ok > 0, total, np.nan) / np.maximum(n_ok, 1))
    return pd.concat([of_pairs.reindex(everywhere), of_ok.reindex(everywhere)], axis="columns")
