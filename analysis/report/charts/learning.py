"""Learning curves of cells: loss and error of the members while they were trained, over the ok pairs."""

from collections.abc import Iterable
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pyarrow as pa

from lmc_tune.analysis.report.charts.curves import COLOURS, DASHES
from lmc_tune.analysis.report.charts.style import finish
from lmc_tune.core.barrier import Array

LINES = ("train_loss", "test_loss", "train_error", "test_error")
# A curve of more epochs is drawn through so many of them.
MOST_EPOCHS = 60


def collect_learning(pairs: pd.DataFrame, parts: Iterable[pa.Table]) -> dict[str, Array]:
    """By cell the (1 + 4, epochs) epochs passed, and the means of :data:`LINES` over all members of the ok pairs.

    At every epoch those members count that were trained so far; before a split, the one network that became both.
    Losses in nats, errors as fractions. A mean over a loss that is not finite is not finite. The last epoch is always
    there.

    Args:
        pairs: as :func:`lmc_tune.tables.cells.regate` gives them.
        parts: rows of the learning curves, as :meth:`lmc_tune.tables.store.Store.parts` gives them.
    """
    ok = pairs.loc[pairs["status"] == "ok", ["key", "cell"]]
    code, cells = pd.factorize(ok["cell"], sort=True)
    cell_of = pd.Series(code, index=ok["key"])
    place, sums = _empty()
    for part in parts:
        cell = cell_of.reindex(part["key"].to_pandas()).to_numpy(dtype=np.float64)
        lines = [part[name].to_numpy() for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy")]
        values = np.column_stack([np.ones(len(cell)), *lines[:2], *(1 - line for line in lines[2:])])
        known = np.isfinite(cell)
        found = _totals(np.column_stack([cell, part["epoch"].to_numpy()])[known], values[known])
        place, sums = _totals(np.concatenate([place, found[0]]), np.concatenate([sums, found[1]]))
    curves = {}
    for at in np.unique(place[:, 0]):
        own = place[:, 0] == at
        means = sums[own, 1:] / sums[own, :1]
        curves[str(cells[int(at)])] = _thinned(np.vstack([place[own, 1], means.T]))
    return curves


def _empty() -> tuple[Array, Array]:
    return np.empty((0, 2)), np.empty((0, 1 + len(LINES)))


def _totals(place: Array, values: Array) -> tuple[Array, Array]:
    """The distinct (cell, epoch) places, sorted, and the sums of the values there."""
    if not len(place):
        return _empty()
    distinct, at = np.unique(place, axis=0, return_inverse=True)
    sums = [np.bincount(at.ravel(), weights=column) for column in values.T]
    return distinct, np.column_stack(sums)


def _thinned(curve: Array) -> Array:
    n = curve.shape[1]
    return curve[:, np.unique(np.linspace(0, n - 1, min(n, MOST_EPOCHS)).round().astype(int))]


def learning_chart(*, legend: bool = False) -> Any:
    """Error above loss by epoch of one cell, whose rows are put into the data set ``learning`` by the page.

    Rows: ``quantity``, ``split``, ``epoch``, ``value``. The axes start at 0 and fit the cell. On the page, the legend
    is that of the curves above.
    """
    data = alt.NamedData(name="learning")
    colour = alt.Color(
        "split:N",
        title=None,
        scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())),
        legend=alt.Legend(orient="top", symbolType="stroke", symbolStrokeWidth=2.5) if legend else None,
    )
    dash = alt.StrokeDash("split:N", scale=alt.Scale(domain=list(DASHES), range=list(DASHES.values())), legend=None)
    whole = alt.condition("datum.value % 1 === 0", alt.value(1), alt.value(0))
    axis = alt.Axis(  # Vega ticks halves of a few epochs, whatever least step it is given
        tickCount=5, format="d", labelOpacity=whole, tickOpacity=whole, gridOpacity=whole, labelOverlap=False
    )
    scale = alt.Scale(nice=False)
    above, below = (alt.X("epoch:Q", title=title, scale=scale, axis=axis) for title in (None, "epoch"))
    places = (
        ("error", above, alt.Y("value:Q", title="error", axis=alt.Axis(format="~%", tickCount=4))),
        ("loss", below, alt.Y("value:Q", title="loss (nats)", axis=alt.Axis(tickCount=4))),
    )
    charts = [
        alt.Chart(data)
        .transform_filter(f"datum.quantity === '{name}'")
        .mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=14))
        .encode(x=x, y=y, color=colour, strokeDash=dash)
        .properties(width=286, height=72)
        for name, x, y in places
    ]
    return finish(alt.vconcat(*charts, spacing=10))
