"""Interpolation curves of cells: error and loss along the path, over the ok pairs."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self

import altair as alt
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lmc_tune.analysis.report.charts.style import FAINT, finish
from lmc_tune.core.barrier import Array
from lmc_tune.experiment import VerdictSpec
from lmc_tune.tables.barriers import judged_rows

COLOURS = {"test": "#1f6f92", "train": "#b5651d"}
DASHES = {"test": [1, 0], "train": [6, 3]}

# All curves of so many cells make 2 MB of a page, and 4 MB those of the second number, thinned. Beyond either, the page
# keeps fewer so that it still opens.
MANY_CELLS = 400
VERY_MANY_CELLS = 10_000


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Mean, lowest and highest curve of every cell that has an ok pair.

    lambdas: (points,) the common grid that every pair's own, refined grid is interpolated onto.
    bands: by quantity (``test_error`` as a fraction, ``test_loss`` in nats, ...) and cell, (3, points).
    """

    lambdas: Array
    bands: dict[str, dict[str, Array]]

    @property
    def thinned(self) -> bool:
        """Whether not all quantities were kept: there are too many cells."""
        return len(self.bands) < len(_kept(0, VerdictSpec()))

    def of(self, cell: str) -> dict[str, Array]:
        """The cell's bands by quantity; empty if it has none."""
        return {quantity: cells[cell] for quantity, cells in self.bands.items() if cell in cells}


def collect_curves(pairs: pd.DataFrame, parts: Iterable[pa.Table], verdict: VerdictSpec) -> Curves:
    """Curves of all cells in the verdict's condition.

    Error and loss on both splits, 51 points each; of many cells 11 points on the judged split; of very many 5 points
    of the judged quantity.

    The parts are added up one after the other, so that the paths never stand in memory together; how they were cut
    moves a mean by rounding alone.

    Args:
        pairs: as :func:`lmc_tune.tables.cells.regate` gives them.
        parts: rows of the paths of whole pairs, as :meth:`lmc_tune.tables.store.Store.parts` gives them; pairs that are
            not ok are passed over.
    """
    ok = pairs.loc[pairs["status"] == "ok", ["key", "cell"]]
    code, cells = pd.factorize(ok["cell"], sort=True)
    cell_of = pd.Series(code, index=ok["key"])
    lambdas = np.linspace(0, 1, 5 if len(cells) > VERY_MANY_CELLS else 11 if len(cells) > MANY_CELLS else 51)
    kept = _kept(len(cells), verdict)
    splits = list(dict.fromkeys(name.split("_")[0] for name in kept))
    bands = {name: _Band.of(len(cells), len(lambdas)) for name in kept}
    for part in parts:
        measured = part.filter(judged_rows(part, verdict.condition))
        for split in splits:
            rows = measured.filter(pc.equal(measured["split"], split))
            cell, curves = _on_grid(rows, cell_of, lambdas)
            for what, lines in curves.items():
                if f"{split}_{what}" in bands:
                    bands[f"{split}_{what}"].add(cell, lines)
    return Curves(lambdas=lambdas, bands={name: band.by_cell(cells) for name, band in bands.items()})


def _kept(n_cells: int, verdict: VerdictSpec) -> list[str]:
    """The quantities whose curves of so many cells fit into a page."""
    if n_cells > VERY_MANY_CELLS:
        return [verdict.of]
    splits = [verdict.of.split("_")[0]] if n_cells > MANY_CELLS else ["test", "train"]
    return [f"{split}_{what}" for split in splits for what in ("error", "loss")]


@dataclass(frozen=True, kw_only=True)
class _Band:
    """What is known so far of the curves of all cells: how many there were, their sum, lowest and highest."""

    n: NDArray[np.int64]
    total: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, cells: int, points: int) -> Self:
        shape = (cells, points)
        return cls(
            n=np.zeros(cells, dtype=np.int64),
            total=np.zeros(shape),
            low=np.full(shape, np.inf),
            high=np.full(shape, -np.inf),
        )

    def add(self, cell: NDArray[np.intp], lines: Array) -> None:
        """Take in (pairs, points) curves of the cells with these numbers."""
        order = np.argsort(cell, kind="stable")
        at, start, n = np.unique(cell[order], return_index=True, return_counts=True)
        if len(at):
            lines = lines[order]
            self.n[at] += n
            self.total[at] += np.add.reduceat(lines, start)
            self.low[at] = np.minimum(self.low[at], np.minimum.reduceat(lines, start))
            self.high[at] = np.maximum(self.high[at], np.maximum.reduceat(lines, start))

    def by_cell(self, cells: pd.Index) -> dict[str, Array]:
        """(3, points) mean, minimum and maximum of every cell that has a curve."""
        at = np.flatnonzero(self.n)
        stacked = np.stack([self.total[at] / self.n[at, None], self.low[at], self.high[at]], axis=1)
        return dict(zip(cells[at].tolist(), stacked, strict=True))


def _on_grid(
    rows: pa.Table, cell_of: pd.Series, lambdas: Array
) -> tuple[NDArray[np.intp], dict[Literal["error", "loss"], Array]]:
    """Of one split's rows, the cell of every pair that has one, and the pairs' curves on the grid: (pairs, points)."""
    key = rows["key"].combine_chunks().dictionary_encode()
    cell = cell_of.reindex(key.dictionary.to_pandas()).fillna(-1).to_numpy(dtype=np.intp)
    pair = key.indices.to_numpy()
    known = cell[pair] >= 0
    pair = (np.cumsum(cell >= 0) - 1)[pair[known]]
    at, n, correct, loss_sum = (rows[name].to_numpy()[known] for name in ("lambda", "n", "correct", "loss_sum"))
    return cell[cell >= 0], {
        "error": _resample(pair, at, 1 - correct / n, lambdas),
        "loss": _resample(pair, at, loss_sum / n, lambdas),
    }


def _resample(pair: NDArray[np.integer[Any]], lambdas: Array, values: Array, grid: Array) -> Array:
    """(pairs, points) every pair's curve on the grid, by linear interpolation.

    All pairs are interpolated in one call: pair k's curve is laid out from 2k to 2k + 1.
    """
    if not len(pair):
        return np.empty((0, len(grid)))
    wanted = 2 * np.arange(pair[-1] + 1)[:, None] + grid
    return np.interp(wanted, 2 * pair + lambdas, values)


def curve_chart(verdict: VerdictSpec, quantities: Collection[str]) -> Any:
    """Error above loss along the path of one cell, whose rows are put into the data set ``curves`` by the page.

    Drawn are those of error and loss that are among the quantities (``test_error``, ...).
    Rows: ``quantity``, ``split``, ``lambda``, ``mean``, ``low``, ``high``, and ``chord`` on the judged split alone.
    The axes start at 0 and fit the cell.
    """
    from_zero = alt.Scale(zero=True)
    error = alt.Y("mean:Q", title="error", scale=from_zero, axis=alt.Axis(format="~%", tickCount=5))
    loss = alt.Y("mean:Q", title="loss (nats)", scale=from_zero, axis=alt.Axis(tickCount=5))
    data = alt.NamedData(name="curves")
    splits = [split for split in COLOURS if any(quantity.startswith(split) for quantity in quantities)]
    drawn = [name for name in ("error", "loss") if any(quantity.endswith(name) for quantity in quantities)]
    charts = [
        _curve_layers(
            alt.Chart(data).transform_filter(f"datum.quantity === '{name}'"),
            y,
            splits,
            with_chord=verdict.of.endswith(name),
            titled=name == drawn[-1],
        )
        for name, y in (("error", error), ("loss", loss))
        if name in drawn
    ]
    return finish(alt.vconcat(*charts, spacing=10))


def _curve_layers(base: alt.Chart, y: alt.Y, splits: list[str], *, with_chord: bool, titled: bool) -> Any:
    x = alt.X(
        "lambda:Q",
        title="position on the path λ (0 = A, 1 = B)" if titled else None,
        scale=alt.Scale(domain=[0, 1], nice=False),
        axis=alt.Axis(format=".1~f", tickCount=5),
    )
    colour = alt.Color(
        "split:N",
        title=None,
        scale=alt.Scale(domain=splits, range=[COLOURS[split] for split in splits]),
        legend=alt.Legend(orient="top", symbolType="stroke", symbolStrokeWidth=2.5, symbolOpacity=1, symbolSize=300),
    )
    dash = alt.StrokeDash(
        "split:N", title=None, scale=alt.Scale(domain=splits, range=[DASHES[split] for split in splits])
    )
    chord = base.transform_filter("datum.chord !== null").mark_line(strokeWidth=1.2, strokeDash=[2, 3], color=FAINT)
    return alt.layer(
        base.mark_area(opacity=0.16).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour),
        *([chord.encode(x=x, y=alt.Y("chord:Q"))] if with_chord else []),
        base.mark_line(strokeWidth=2.2).encode(x=x, y=y, color=colour, strokeDash=dash),
    ).properties(width=286, height=98)
