"""Ensembles side by side: what each family is worth, and how far it is from independent members."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lmc_tune.analysis.phase import FAMILY_FIELDS, PhaseDiagram
from lmc_tune.core.statistics import mean_interval
from lmc_tune.tables.barriers import judged_rows
from lmc_tune.tables.cells import CELL_FIELDS, mean_intervals
from lmc_tune.tables.rows import ensemble_label

# The family that others are compared with: members in basins of their own.
REFERENCE = "deep"
WORTH = (
    "member_accuracy",
    "ensemble_accuracy",
    "average_accuracy",
    "connectivity",
    "ensemble_nll",
    "ensemble_ece",
    "scaled_ece",
    "jensen_shannon",
    "training_steps",
    "stored_bytes",
)
# Numbers that are compared with the reference's accuracy as an ensemble.
COMPARED = {"ensemble": "ensemble_accuracy", "average": "average_accuracy"}


def family_table(diagram: PhaseDiagram) -> pd.DataFrame:
    """A row per cell with an ok ensemble, in order: ``cell``, ``panel``, ``name``, the family in words, the spec's
    columns, ``n_ok``; and of each of :data:`WORTH` the mean over the ok ensembles, ``…_low`` and ``…_high``, its
    Student's interval.
    """
    cells, pairs = diagram.cells, diagram.pairs
    known = [name for name in WORTH if name in pairs]
    found = mean_intervals(pairs, known, cells, diagram.verdict)
    axes = [axis.column for axis in diagram.axes]
    names = [ensemble_label(row, without=["member_count", *axes]) for row in cells.to_dict("records")]
    table = cells[["cell", "panel", "n_ok", *CELL_FIELDS]].assign(name=names)
    for name, interval in found.items():
        bounds = interval.rename(columns={"mean": name, "low": f"{name}_low", "high": f"{name}_high"})
        table = table.join(bounds.replace([np.inf, -np.inf], np.nan))
    return diagram.in_order(table[table["n_ok"] > 0]).reset_index(drop=True)


def differences(diagram: PhaseDiagram) -> pd.DataFrame:
    """How far ensembles, and averages of their weights, are from the ensemble of independent members.

    A row per cell and ``what`` (:data:`COMPARED`): ``difference``, ``low`` and ``high``, accuracy in percentage points,
    Student's over the ``n`` replicates that are ok in both; paired, since a replicate has the same data and seeds in
    all cells. None for cells that have no reference which differs in its family alone, nor for the reference's own
    ensemble.
    """
    others = [name for name in CELL_FIELDS if name not in FAMILY_FIELDS]
    pairs = diagram.pairs[diagram.pairs["status"] == "ok"]
    setting = pairs[others].astype(object).where(pairs[others].notna(), None).apply(tuple, axis="columns")
    known = pairs.assign(setting=setting)[["cell", "replicate", "setting", "family", *COMPARED.values()]]
    reference = known[known["family"] == REFERENCE].rename(columns={"ensemble_accuracy": "reference"})
    both = known.merge(reference[["setting", "replicate", "reference"]], on=["setting", "replicate"])
    rows = []
    for cell, own in both.groupby("cell", sort=False):
        for what, column in COMPARED.items():
            apart = 100 * (own[column] - own["reference"]).to_numpy(dtype=np.float64)
            if (own["family"].iloc[0] == REFERENCE and what == "ensemble") or not np.isfinite(apart).all():
                continue
            variance = apart.var(ddof=1) if len(apart) > 1 else np.nan
            ((low, high),) = mean_interval([apart.mean()], [variance], [len(apart)], diagram.verdict.confidence)
            rows.append(
                {"cell": cell, "what": what, "difference": apart.mean(), "low": low, "high": high, "n": len(apart)}
            )
    return pd.DataFrame(rows, columns=["cell", "what", "difference", "low", "high", "n"])


def growth(diagram: PhaseDiagram, parts: Iterable[pa.Table]) -> pd.DataFrame:
    """``cell``, ``members``, ``accuracy`` and ``nll``: means over the ok ensembles of the cell."""
    table = _of_cells(diagram, (part.to_pandas() for part in parts if len(part)))
    return table.groupby(["cell", "members"])[["accuracy", "nll"]].mean().reset_index()


def pair_curves(diagram: PhaseDiagram, parts: Iterable[pa.Table]) -> pd.DataFrame:
    """Accuracy on the paths between two members, less what the members' accuracies would average to.

    ``cell``, ``lambda`` and, in percentage points, ``q``, ``lowest`` and ``highest``: mean and range over pairs and ok
    ensembles of the cell, under the judged condition, at the positions that all paths have.
    """
    found = []
    for part in parts:
        rows = part.filter(pc.and_(pc.equal(part["what"], "pair"), pc.equal(part["split"], "test")))
        found.append(rows.filter(judged_rows(rows, diagram.verdict.condition)).to_pandas())
    table = _of_cells(diagram, found)
    if table.empty:
        return pd.DataFrame(columns=["cell", "lambda", "q", "lowest", "highest"])
    table["q"] = 100 * (table["correct"] / table["n"] - table["expected_accuracy"])
    groups = table.groupby(["cell", "lambda"])["q"]
    curves = groups.agg(q="mean", lowest="min", highest="max", paths="size").reset_index()
    most = curves.groupby("cell")["paths"].transform("max")
    return curves[curves["paths"] == most].drop(columns="paths")


def _of_cells(diagram: PhaseDiagram, tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Rows of the ok ensembles, with their ``cell``."""
    cell_of = diagram.pairs.loc[diagram.pairs["status"] == "ok"].set_index("key")["cell"]
    found = [table for table in tables if len(table)]
    if not found:
        return pd.DataFrame(columns=["cell", "members", "accuracy", "nll"])
    table = pd.concat(found)
    return table.assign(cell=table["key"].map(cell_of)).dropna(subset="cell")
