"""What all charts share: palette, type, axes, and mean barriers drawn as points with their intervals."""

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from analysis.phase import Axis, PhaseDiagram
from analysis.words import axis_title, is_error, quantity
from lmc_tune.core.statistics import Verdict
from lmc_tune.specs import VerdictSpec

# Blue against orange holds up in the common colour blindnesses; letters and shapes carry the rest.
VERDICT_COLOURS: dict[Verdict, str] = {
    "connected": "#2f7d9f",
    "disconnected": "#e8995c",
    "undecided": "#f7ecc5",
    "undertrained": "#d9dcdf",
    "diverged": "#5b6067",
}
DARK_VERDICTS: tuple[Verdict, ...] = ("connected", "diverged")
VERDICT_SHAPES = {"connected": "circle", "disconnected": "diamond", "undecided": "triangle-up"}
INK, FAINT, PAPER, RULE = "#1d2226", "#4a5157", "#ffffff", "#b9bfc4"
FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, sans-serif"
# Two panels side by side leave room for the curves at 1280 px.
PANEL_WIDTH = 312
# So many points of one panel lie on top of each other unless they are small.
MANY_POINTS = 250


def barrier_title(verdict: VerdictSpec) -> str:
    return f"mean barrier of {quantity(verdict)}" + ("" if is_error(verdict) else " (nats)")


def barrier_format(verdict: VerdictSpec) -> str:
    """A d3 format for barriers in the unit of the judged curve."""
    return ".3~%" if is_error(verdict) else ".3~g"


def tick_axis(axis: Axis) -> alt.Axis:
    """Ticks at the values themselves; the title says the scale."""
    whole = all(value.is_integer() for value in axis.ticks)
    return alt.Axis(
        title=f"{axis_title(axis.column)} ({axis.scale} scale)",
        values=list(axis.ticks),
        format="d" if whole else ".3~g",
        labelOverlap="greedy",
        labelSeparation=5,
        grid=False,
    )


def tile_scale(axis: Axis) -> alt.Scale:
    """From the first tile's border to the last one's."""
    return alt.Scale(type=axis.scale, domain=[axis.edges[0], axis.edges[-1]], nice=False)


def barrier_height(table: pd.DataFrame, verdict: VerdictSpec) -> alt.Y:
    """The mean barrier upwards, from 0 over the threshold and all intervals.

    The domain is given: one that is read off the marks would be worked out, and all drawn again, whenever one moves.
    """
    shown = table[["shown_barrier", "shown_low", "shown_high"]].to_numpy(dtype=np.float64)
    known = np.append(shown[np.isfinite(shown)], [0.0, verdict.threshold])
    return alt.Y(
        "shown_barrier:Q",
        title=barrier_title(verdict),
        scale=alt.Scale(domain=[known.min(), known.max()], nice=True),
        axis=alt.Axis(format=barrier_format(verdict), tickCount=6),
    )


def interval_layers(
    table: pd.DataFrame, place: tuple[alt.X, alt.Y], diagram: PhaseDiagram, colour: alt.Color | None, picked: str | None
) -> list[alt.Chart]:
    """Threshold, intervals and means of the judged cells: columns as :func:`analysis.phase_chart.phase_table`."""
    x, y = place
    base = alt.Chart(table)
    crowded = len(table) > MANY_POINTS
    ink = {"color": colour} if colour is not None else {}
    has_interval = table[["shown_low", "shown_high"]].notna().all(axis="columns")  # one pair alone has none
    known = table if has_interval.all() else table[has_interval]
    bars = alt.Chart(known).mark_rule(strokeWidth=1.6, opacity=0.3 if crowded else 0.75)
    threshold = pd.DataFrame({"threshold": [diagram.verdict.threshold]})
    shapes = alt.Scale(domain=list(VERDICT_SHAPES), range=list(VERDICT_SHAPES.values()))
    return [
        alt.Chart(threshold).mark_rule(strokeDash=[5, 4], color=FAINT).encode(y="threshold:Q"),
        *([bars.encode(x=x, y=alt.Y("shown_low:Q"), y2="shown_high:Q", **ink)] if len(known) else []),
        base.mark_point(
            filled=True, size=16 if crowded else 70, opacity=1, stroke=PAPER, strokeWidth=0 if crowded else 0.8
        ).encode(
            x=x,
            y=y,
            shape=alt.Shape("verdict:N", scale=shapes, title="verdict", legend=alt.Legend(orient="top")),
            tooltip=tooltips(diagram),
            **ink,
        ),
        *outline(base.mark_point(size=190, strokeWidth=2, color=INK).encode(x=x, y=y), picked),
    ]


def outline(chart: alt.Chart, picked: str | None) -> list[alt.Chart]:
    """The chart of the picked cell alone, moved by the parameter ``picked``; nothing if none is picked.

    One mark that moves: a mark on every cell, clear but for one, would have all of them drawn again.
    """
    if picked is None:
        return []
    return [chart.transform_filter("datum.cell === picked")]


def tooltips(diagram: PhaseDiagram) -> list[alt.Tooltip]:
    """Where a cell is and what came out, in four lines: they cover its neighbours, and the page shows the rest beside.

    Columns as :func:`analysis.phase_chart.phase_table`.
    """
    places = [alt.Tooltip(f"{axis.column}:Q", title=axis_title(axis.column), format="~g") for axis in diagram.axes] or [
        alt.Tooltip("panel:N")
    ]
    return [*places, alt.Tooltip("verdict:N"), alt.Tooltip("mean:N", title="mean barrier")]


def finish(chart: Any, picked: str | None = None) -> Any:
    """The chart with the page's type and rules, and the parameter ``picked`` where a cell is picked.

    Set in place: each of Altair's own ``configure_x`` and ``add_params`` copies every layer of every panel.
    """
    axis = alt.AxisConfig(
        labelColor=FAINT,
        titleColor=INK,
        labelFontSize=11,
        titleFontSize=11.5,
        titleFontWeight="normal",
        titlePadding=7,
        domainColor=RULE,
        tickColor=RULE,
        gridColor="#eceef0",
    )
    legend = alt.LegendConfig(
        labelFontSize=11.5,
        titleFontSize=11.5,
        titleFontWeight="normal",
        labelColor=INK,
        titleColor=INK,
        padding=7,
    )
    title = alt.TitleConfig(fontSize=13, fontWeight=600, color=INK, anchor="start")
    chart.config = alt.Config(
        font=FONT, background=PAPER, padding=4, view=alt.ViewConfig(stroke=None), axis=axis, legend=legend, title=title
    )
    if picked is not None:
        chart.params = [alt.param(name="picked", value=picked).param]
    return chart
