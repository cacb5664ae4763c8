"""Interpolation curves of cells: error and loss along the path, over the ok pairs."""

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.charts import FAINT, finish
from lmc_tune.core.barrier import Array
from lmc_tune.specs import VerdictSpec

TEST, TRAIN = "#1f6f92", "#b5651d"

# Curves of this many cells make about 2 MB of a page; beyond it they are thinned so that it still opens.
MANY_CELLS = 400


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Mean, lowest and highest curve of every cell that has an ok pair.

    lambdas: (points,) the common grid that every pair's own, refined grid is interpolated onto.
    bands: by quantity (``test_error`` as a fraction, ``test_loss`` in nats, ...) and cell, (3, points).
    """

    lambdas: Array
    bands: dict[str, dict[str, Array]]

    def of(self, cell: str) -> dict[str, Array]:
        """The cell's bands by quantity; empty if it has none."""
        return {quantity: cells[cell] for quantity, cells in self.bands.items() if cell in cells}


def collect_curves(pairs: pd.DataFrame, paths: pd.DataFrame, verdict: VerdictSpec) -> Curves:
    """Curves of all cells in the verdict's condition, 51 points each; 11 and the judged split alone if cells are many.

    Args:
        pairs: as :func:`analysis.cells.regate` gives them.
        paths: one row per pair × condition × split × λ; pairs that are not ok are passed over.
    """
    ok = pairs.loc[pairs["status"] == "ok", ["key", "cell"]]
    used = paths[paths["condition"] == verdict.condition].merge(ok, on="key", how="inner")
    many = ok["cell"].nunique() > MANY_CELLS
    splits = [verdict.of.split("_")[0]] if many else ["test", "train"]
    lambdas = np.linspace(0, 1, 11 if many else 51)
    bands = {}
    for split in splits:
        part = used[used["split"] == split].sort_values(["cell", "key", "lambda"], kind="stable")
        bands[f"{split}_error"] = _bands(part, 1 - part["correct"] / part["n"], lambdas)
        bands[f"{split}_loss"] = _bands(part, part["loss_sum"] / part["n"], lambdas)
    return Curves(lambdas=lambdas, bands=bands)


def _bands(points: pd.DataFrame, values: pd.Series, lambdas: Array) -> dict[str, Array]:
    """(3, points) mean, minimum and maximum over the pairs of each cell."""
    if points.empty:
        return {}
    pair = points.groupby(["cell", "key"], sort=True).ngroup().to_numpy()
    first = np.flatnonzero(np.diff(pair, prepend=-1))
    on_grid = _resample(pair, points["lambda"].to_numpy(), values.to_numpy(dtype=np.float64), lambdas)
    cell = points["cell"].to_numpy()[first]
    start = np.flatnonzero(np.concatenate([[True], cell[1:] != cell[:-1]]))
    size = np.diff(start, append=len(cell))[:, None]
    stacked = np.stack(
        [
            np.add.reduceat(on_grid, start) / size,
            np.minimum.reduceat(on_grid, start),
            np.maximum.reduceat(on_grid, start),
        ],
        axis=1,
    )
    return dict(zip(cell[start].tolist(), stacked, strict=True))


def _resample(pair: NDArray[np.integer[Any]], lambdas: Array, values: Array, grid: Array) -> Array:
    """(pairs, points) every pair's curve on the grid, by linear interpolation.

    All pairs are interpolated in one call: pair k's curve is laid out from 2k to 2k + 1.
    """
    wanted = 2 * np.arange(pair[-1] + 1)[:, None] + grid
    return np.interp(wanted, 2 * pair + lambdas, values)


def curve_chart(verdict: VerdictSpec) -> Any:
    """Error above loss along the path of one cell, whose rows are put into the data set ``curves`` by the page.

    Rows: ``quantity``, ``split``, ``lambda``, ``mean``, ``low``, ``high``, and ``chord`` on the judged split alone.
    The axes start at 0 and fit the cell.
    """
    from_zero = alt.Scale(zero=True)
    error = alt.Y("mean:Q", title="error", scale=from_zero, axis=alt.Axis(format=".3~%", tickCount=5))
    loss = alt.Y("mean:Q", title="loss (nats)", scale=from_zero, axis=alt.Axis(tickCount=5))
    data = alt.NamedData(name="curves")
    charts = [
        _curve_layers(
            alt.Chart(data).transform_filter(f"datum.quantity === '{name}'"), y, with_chord=verdict.of.endswith(name)
        )
        for name, y in (("error", error), ("loss", loss))
    ]
    return finish(alt.vconcat(*charts, spacing=14))


def _curve_layers(base: alt.Chart, y: alt.Y, *, with_chord: bool) -> Any:
    x = alt.X(
        "lambda:Q",
        title="position on the path λ (0 = A, 1 = B)",
        scale=alt.Scale(domain=[0, 1], nice=False),
        axis=alt.Axis(format=".1~f", tickCount=5),
    )
    colour = alt.Color(
        "split:N",
        title=None,
        scale=alt.Scale(domain=["test", "train"], range=[TEST, TRAIN]),
        legend=alt.Legend(orient="top", symbolType="stroke", symbolStrokeWidth=2.5, symbolOpacity=1, symbolSize=300),
    )
    dash = alt.StrokeDash("split:N", title=None, scale=alt.Scale(domain=["test", "train"], range=[[1, 0], [6, 3]]))
    chord = base.transform_filter("datum.chord !== null").mark_line(strokeWidth=1.2, strokeDash=[2, 3], color=FAINT)
    return alt.layer(
        base.mark_area(opacity=0.16).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour),
        *([chord.encode(x=x, y=alt.Y("chord:Q"))] if with_chord else []),
        base.mark_line(strokeWidth=2.2).encode(x=x, y=y, color=colour, strokeDash=dash),
    ).properties(width=292, height=112)
