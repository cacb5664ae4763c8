"""Cells as points: which are drawn, what colours them, and one panel per panel of the phase diagram."""

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.analysis.report.charts.phase_chart import phase_table
from lmc_tune.analysis.report.charts.style import (
    LEGIBLE,
    PANEL_WIDTH,
    Points,
    finish,
    interval_layers,
    tick_format,
    wrapped,
)
from lmc_tune.analysis.wording import number

MANY_COLOURS = 8
DRAWN = ("cell", "panel", "verdict", "mean", "shown_barrier", "shown_low", "shown_high")


def judged_cells(diagram: PhaseDiagram) -> pd.DataFrame:
    """The judged cells: what is drawn of ``phase_table``, and ``colour``; their index is that of the diagram's cells.

    ``colour`` is the batch size where it varies, else the value of the first axis. More is joined to it, since a column
    that is assigned to a table without rows fills it with rows.
    """
    column = colour_column(diagram)
    colour = diagram.cells[column].astype(float) if column else 0.0
    table = phase_table(diagram).iloc[: len(diagram.cells)].assign(colour=colour)
    return table.loc[table["judged"], [*DRAWN, *(axis.column for axis in diagram.axes), "colour"]]


def colour_column(diagram: PhaseDiagram) -> str | None:
    """What tells the points apart beside their place: the batch size if it varies, else the first axis."""
    if len(diagram.cells["batch_size"].unique()) > 1:
        return "batch_size"
    return diagram.x.column if diagram.x is not None else None


def point_colour(diagram: PhaseDiagram, table: pd.DataFrame) -> alt.Color | None:
    """Of the column ``colour``: a step per value, or of many values a scale."""
    column = colour_column(diagram)
    if column is None:
        return None
    values = np.unique(table["colour"])
    scheme = alt.SchemeParams(name="viridis", extent=list(LEGIBLE))
    if len(values) > MANY_COLOURS:
        named = values[np.linspace(0, len(values) - 1, MANY_COLOURS).round().astype(int)].tolist()
        legend = alt.Legend(orient="top", values=named, format=tick_format(named))
        scale = alt.Scale(type="log" if values[0] > 0 else "linear", scheme=scheme)
        return alt.Color("colour:Q", title=diagram.title(column), scale=scale, legend=legend)
    names = {f"{value:g}": number(value) for value in values}
    return alt.Color(
        "colour:O",
        title=diagram.title(column),
        scale=alt.Scale(domain=values.tolist(), scheme=scheme),
        legend=alt.Legend(orient="top", labelExpr=f"({names})[datum.label] || datum.label", columns=8),
    )


def panels_of_points(diagram: PhaseDiagram, table: pd.DataFrame, points: Points, picked: str | None) -> Any:
    """Points with their intervals, one panel per panel of the phase diagram, all on the same axes.

    Args:
        diagram: whose panels.
        table: as :func:`judged_cells` gives it, with what the points need.
        points: how its rows stand.
        picked: the cell that is outlined.
    """
    parts = {panel: table[table["panel"] == panel] for panel in diagram.panels}
    if diagram.x is None:  # every panel is one cell
        parts = {"": table}
    panels = [
        alt.layer(*interval_layers(part, points, diagram, picked)).properties(
            width=PANEL_WIDTH, height=210, title=wrapped(panel, PANEL_WIDTH) if len(parts) > 1 else ""
        )
        for panel, part in parts.items()
        if len(part)
    ]
    chart: Any = alt.concat(*panels, columns=3, spacing=28).resolve_scale(
        x="shared", y="shared", color="shared", shape="shared"
    )
    return finish(chart, picked)


def shown(intervals: pd.DataFrame, name: str) -> pd.DataFrame:
    """Means and bounds as a chart can show them, missing where not finite: ``name``, ``name_low``, ``name_high``.

    Args:
        intervals: as :func:`lmc_tune.tables.cells.mean_intervals` gives them.
        name: of the quantity.
    """
    columns = {"mean": name, "low": f"{name}_low", "high": f"{name}_high"}
    return intervals.rename(columns=columns).replace([np.inf, -np.inf], np.nan)
