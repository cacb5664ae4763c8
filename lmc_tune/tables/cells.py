"""From pairs to cells: counts, exclusions, mean barrier with its interval, and one of five verdicts per cell.

A *cell* is one point of the space; its pairs differ in the replicate alone. Everything is computed for all cells at
once, and nothing depends on the order of the rows.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from lmc_tune.core.barrier import DEFINITIONS, Array
from lmc_tune.core.statistics import ESTIMATOR, VERDICTS, Verdict, mean_interval, verdict_of_interval
from lmc_tune.experiment import BATCH_NORM_CONDITIONS, CONDITIONS, Condition, VerdictSpec, condition_column
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.tables.columns import BARRIER_COLUMNS, PATH_FIELDS, RESULTS, SPEC_FIELDS
from lmc_tune.tables.rows import GATED, STATUSES, gate, spec_fields

CELL_FIELDS = [name for name in SPEC_FIELDS if name != "replicate"]

# Known of every finished pair; everything in OK_MEANS means something only for pairs whose members were trained.
PAIR_MEANS = [column.name for column in RESULTS.columns if column.mean == "pairs"]
OK_MEANS = [column.name for column in RESULTS.columns if column.mean == "ok"]

# The judged barrier of a pair, by condition.
CONDITION_BARRIERS: dict[str, Condition] = {f"{condition}_barrier": condition for condition in CONDITIONS}

# mean_interval holds 9999 resampled means per cell: this many cells at once take about 20 MB.
CELLS_AT_ONCE = 256


def judged_columns(verdict: VerdictSpec) -> list[str]:
    """The columns of the results that a verdict's cells, and those of the other definitions, are worked out from."""
    barriers = [verdict.model_copy(update={"barrier": definition}).column for definition in DEFINITIONS]
    of_path = [*PATH_FIELDS, *barriers]
    under = [condition_column(verdict.condition, column) for column in of_path]
    under += [condition_column(condition, verdict.column) for condition in CONDITIONS]
    means = [name for name in OK_MEANS if name not in PATH_FIELDS]
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
    ``estimator``, ``threshold``, ``confidence``; ``verdict`` and ``judged`` (the mean is known and the verdict rests on
    it); and means of what was measured: noise scale, steps and shifts over all pairs, the rest over the ok pairs, the
    mean barriers under every condition (:data:`CONDITION_BARRIERS`) among them.

    One ok pair without a finite barrier leaves the cell's mean unknown: leaving it out would flatter the cell.

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
    barriers = _barriers(pairs, verdict)
    cells["n_without_barrier"] = np.bincount(code[ok & ~np.isfinite(barriers)], minlength=n)
    intervals = _intervals(code[ok], barriers[ok, None], n, verdict.confidence)
    cells[["mean_barrier", "low", "high"]] = intervals[:, 0]
    cells["estimator"], cells["threshold"], cells["confidence"] = ESTIMATOR, verdict.threshold, verdict.confidence
    cells["verdict"] = _verdicts(cells, verdict.threshold)
    cells["judged"] = (2 * cells["n_ok"] > cells["n_pairs"]) & np.isfinite(cells["mean_barrier"])
    return pd.concat([cells, _means(pairs, code, n, ok)], axis="columns")


def mean_intervals(
    pairs: pd.DataFrame, columns: Sequence[str], cells: pd.Series, confidence: float
) -> dict[str, pd.DataFrame]:
    """Of each column the ``mean`` over the ok pairs of each cell, with the bounds ``low`` and ``high``.

    NaN, −∞ and ∞ where a cell has no ok pair, or one of them has no finite value.

    Args:
        pairs: as :func:`regate` gives them.
        columns: numbers of a pair.
        cells: ids; the tables have their index.
        confidence: of the intervals, in (0, 1).
    """
    counted = pairs[(pairs["status"] == "ok") & pairs["cell"].isin(cells)]
    code = pd.Categorical(counted["cell"], categories=cells).codes.astype(np.intp)
    values = counted[list(columns)].to_numpy(dtype=np.float64, na_value=np.nan)
    found = _intervals(code, values, len(cells), confidence)
    return {
        name: pd.DataFrame(found[:, at], columns=["mean", "low", "high"], index=cells.index)
        for at, name in enumerate(columns)
    }


def regate(results: pd.DataFrame, verdict: VerdictSpec) -> pd.DataFrame:
    """The pairs sorted by cell and replicate, their status decided by this verdict's train-accuracy gate.

    Whatever gate the table was written with, and whatever its order, the same pairs come out. What depends on the
    condition (barriers, λ*, Δ, under-resolved) is that of the verdict's; a network without BatchNorm has one for all
    three that only BatchNorm tells apart. :data:`CONDITION_BARRIERS` are added, NaN where a condition was not measured.
    """
    beside = {
        name: results.get(condition_column(condition, verdict.column), np.nan)
        for name, condition in CONDITION_BARRIERS.items()
    }
    rows = _under_condition(results, verdict.condition).assign(**beside)
    rows = rows.sort_values(["cell", "replicate", "key"], kind="stable").reset_index(drop=True)
    low = (rows[["train_accuracy_a", "train_accuracy_b"]] < verdict.min_train_accuracy).any(axis="columns")
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
    columns = [*PATH_FIELDS, *BARRIER_COLUMNS]
    own = {column: condition_column(condition, column) for column in columns if column in results}
    if condition in BATCH_NORM_CONDITIONS:
        kept = (results["model"] != "factory") & (results["norm"] != "batch")
    else:
        kept = pd.Series(data=False, index=results.index)
    if kept.all():
        return results
    return results.assign(**{column: results[column].where(kept, results[other]) for column, other in own.items()})


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

    ``pairs`` are as :func:`regate` gives them. A definition whose column is not among theirs is left out. The interval
    is worked out only where it can matter: it never leaves the range of its data, so pairs that all lie on one side of
    the threshold decide their cell.
    """
    ok = (pairs["status"] == "ok").to_numpy()
    cells, code = _count(pairs)
    table = []
    for definition in DEFINITIONS:
        other = verdict.model_copy(update={"barrier": definition})
        if other.column in pairs:
            cells[["low", "high"]] = _bounds(code[ok], _barriers(pairs, other)[ok], len(cells), other)
            counts = pd.Series(_verdicts(cells, verdict.threshold)).value_counts()
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


def _intervals(code: NDArray[np.intp], values: Array, n_cells: int, confidence: float) -> Array:
    """(n_cells, quantities, 3) mean, low and high of (pairs, quantities) values.

    NaN, −∞ and ∞ where no pair is ok or one of them is not finite. Quantities are worked out together, since drawing
    the resamples of many pairs takes longer than using them.
    """
    n_quantities = values.shape[1]
    table = np.tile([np.nan, -np.inf, np.inf], (n_cells, n_quantities, 1))
    values = values[np.argsort(code, kind="stable")]
    size = np.bincount(code, minlength=n_cells)
    start = np.cumsum(size) - size
    finite = np.zeros((n_cells, n_quantities), dtype=bool)
    if len(values):
        finite[size > 0] = np.logical_and.reduceat(np.isfinite(values), start[size > 0])
    for n in np.unique(size[finite.any(axis=1)]):
        cells, quantities = np.nonzero(finite & (size == n)[:, None])
        for at in range(0, len(cells), CELLS_AT_ONCE):
            chunk = slice(at, at + CELLS_AT_ONCE)
            cell, quantity = cells[chunk], quantities[chunk]
            # By value within the cell: no sum depends on the order of the pairs.
            data = np.sort(values[start[cell, None] + np.arange(n), quantity[:, None]])
            table[cell, quantity, 0] = data.mean(axis=1)
            table[cell, quantity, 1:] = mean_interval(data, confidence)
    return table


def _bounds(code: NDArray[np.intp], barriers: Array, n_cells: int, verdict: VerdictSpec) -> Array:
    """(n_cells, 2) bounds that decide as the interval's would: those of the data where they are on one side."""
    lowest, highest = np.full(n_cells, np.inf), np.full(n_cells, -np.inf)
    np.minimum.at(lowest, code, barriers)
    np.maximum.at(highest, code, barriers)
    size = np.bincount(code, minlength=n_cells)
    one_sided = (
        ((highest < verdict.threshold) | (lowest > verdict.threshold)) & np.isfinite(highest - lowest) & (size > 1)
    )
    open_ = ~one_sided[code]
    intervals = _intervals(code[open_], barriers[open_, None], n_cells, verdict.confidence)[:, 0, 1:]
    return np.where(one_sided[:, None], np.column_stack([lowest, highest]), intervals)


def _verdicts(cells: pd.DataFrame, threshold: float) -> list[Verdict]:
    """The interval's verdict, unless at least half of the finished pairs are not ok."""
    columns = ["n_pairs", "n_undertrained", "n_diverged", "n_failed", "low", "high"]
    return [
        _excluded_verdict(undertrained, diverged, failed)
        if 2 * (undertrained + diverged + failed) >= n_pairs
        else verdict_of_interval(low, high, threshold)
        for n_pairs, undertrained, diverged, failed, low, high in cells[columns].itertuples(index=False)
    ]


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
