"""The tables of cells: in words for the page, and in full precision as CSV."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.analysis.wording import (
    LETTERS,
    UNKNOWN,
    axis_title,
    confidence,
    height,
    interval,
    left_out,
    percent,
    percentage_points,
)

# What a longer one leaves out is said, and where it is.
MOST_ROWS = 1000
# Digits after the point in a column of numbers.
MOST_DECIMALS = 4
# Of the CSV, after where a cell is; the means that were measured follow, then what all cells have in common.
OUTCOME = ["verdict", "mean_barrier", "low", "high", "n_ok", "n_pairs", "n_undertrained", "n_diverged", "n_failed"]

Row = Mapping[Any, Any]


def full_table(diagram: PhaseDiagram) -> pd.DataFrame:
    """Every cell in the order of the panels and axes, in full precision; bounds that are not known are missing.

    First where it is, then what came out, then all else that :func:`lmc_tune.tables.cells.judge_cells` says, the cell's
    id last. Columns without any value are left out.
    """
    cells = known(diagram.in_order(diagram.cells)).dropna(axis="columns", how="all")
    first = ["panel", *(axis.column for axis in diagram.axes), *diagram.facets, *OUTCOME]
    rest = [name for name in cells.columns if name not in {*first, "cell"}]
    common = [name for name in rest if len(cells[name].unique()) == 1]
    others = [name for name in rest if name not in common]
    return cells[[*(name for name in first if name in cells), *others, *common, "cell"]]


def known(cells: pd.DataFrame) -> pd.DataFrame:
    """The table, in which bounds that are not known are missing."""
    return cells.replace([np.inf, -np.inf], np.nan)


def cell_table(diagram: PhaseDiagram) -> pd.DataFrame:
    """The first cells in words, in order; indexed by the cell's id, columns as headed."""
    verdict, cells = diagram.verdict, diagram.in_order(diagram.cells).head(MOST_ROWS)
    rows = cells.to_dict("records")
    table = {
        **places(diagram, cells),
        "verdict": cells["verdict"],
        "mean barrier": [height(row["mean_barrier"], verdict) for row in rows],
        f"{confidence(verdict)} interval": [interval(row["low"], row["high"], verdict) for row in rows],
        f"on {diagram.verdict.other_split}": [_on_other_split_briefly(diagram, row) for row in rows],
        "n": cells["n_ok"].astype(str),
        "left out": [left_out(row) for row in rows],
        "under-resolved": cells["n_under_resolved"].astype(str),
        diagram.title("noise_scale"): evenly(cells["noise_scale"]),
    }
    if diagram.group != "pair":
        said = [accuracies(diagram, row) for row in rows]
        table |= {name: [row[name] for row in said] for name in said[0]}
        return _indexed({name: column for name, column in table.items() if name != "under-resolved"}, cells)
    table |= {
        "test accuracy A, B": [both(row, "test_accuracy") for row in rows],
        "train accuracy A, B": [both(row, "train_accuracy") for row in rows],
        axis_title("disagreement"): [percent(value) for value in cells["disagreement"]],
        axis_title("distance"): evenly(cells["distance"]),
    }
    return _indexed(table, cells)


def cell_places(diagram: PhaseDiagram) -> pd.DataFrame:
    """Where the first cells stand, in words, in order; indexed by the cell's id, columns as headed."""
    cells = diagram.in_order(diagram.cells).head(MOST_ROWS)
    return _indexed(places(diagram, cells), cells)


def _indexed(table: Mapping[str, Any], cells: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({name: list(column) for name, column in table.items()}, index=pd.Index(cells["cell"]))


def places(diagram: PhaseDiagram, cells: pd.DataFrame) -> dict[str, Any]:
    """Where cells stand, in words; columns as headed."""
    axes = diagram.axes
    return {
        **({"panel": cells["panel"]} if len(diagram.panels) > 1 or not axes else {}),
        **{axis.title: evenly(cells[axis.column]) for axis in axes},
    }


def on_other_split(diagram: PhaseDiagram, row: Row) -> str:
    """What the split says that is not judged, e.g. ``disconnected, 9.1%``."""
    split = diagram.verdict.other_split
    said = row[f"on_{split}"]
    return UNKNOWN if pd.isna(said) else f"{said}, {height(row[f'{split}_barrier'], diagram.verdict)}"


def _on_other_split_briefly(diagram: PhaseDiagram, row: Row) -> str:
    """E.g. ``9.1% D``."""
    split = diagram.verdict.other_split
    said = row[f"on_{split}"]
    return UNKNOWN if pd.isna(said) else f"{height(row[f'{split}_barrier'], diagram.verdict)} {LETTERS[said]}"


def accuracies(diagram: PhaseDiagram, row: Row) -> dict[str, str]:
    """Of a pair: both members. Of a federation after its last round: the clients before the average, on test and on
    their own; the average. Of an ensemble: the mean member, the ensemble, the average of all weights, and q̄.
    """
    if diagram.group == "pair":
        return {"test accuracy A, B": both(row, "test_accuracy")}
    if diagram.group == "ensemble":
        return {
            "mean member": percent(row["member_accuracy"]),
            "ensemble": percent(row["ensemble_accuracy"]),
            "average of weights": percent(row["average_accuracy"]),
            "q̄": percentage_points(row["connectivity"]),
        }
    return {
        "clients on test": percent(row["clients_test_accuracy"]),
        "clients on own": percent(row["clients_own_accuracy"]),
        "average on test": percent(row["pooled_test_accuracy"]),
    }


def both(row: Row, name: str) -> str:
    """A number of both members."""
    a, b = (percent(row[f"{name}_{member}"]) for member in ("a", "b"))
    return UNKNOWN if UNKNOWN == a == b else f"{a.removesuffix('%')}, {b}"


def evenly(column: pd.Series) -> list[str]:
    """Numbers with as many decimals each: as many as three significant digits need, two in the smallest number."""
    values = column.to_numpy(dtype=np.float64)
    sizes = [abs(value) for value in values if math.isfinite(value) and value]
    needed = max((_decimals(f"{size:.3g}") for size in sizes), default=0)
    two = max((1 - math.floor(math.log10(size)) for size in sizes), default=0)
    decimals = min(needed, max(two, 0), MOST_DECIMALS)
    return [f"{value + 0.0:.{decimals}f}".replace("-", "−") if math.isfinite(value) else UNKNOWN for value in values]


def _decimals(text: str) -> int:
    mantissa, _, exponent = text.partition("e")
    return max(0, len(mantissa.partition(".")[2]) - int(exponent or 0))


def numeric(table: pd.DataFrame) -> list[bool]:
    """By column, whether it holds numbers, intervals or what is not known: such columns stand on the right."""
    number = re.compile(r"[+−]?\d|–$|no interval$")
    return [all(number.match(str(value)) for value in table[name]) and name != "panel" for name in table.columns]
