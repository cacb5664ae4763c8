"""What all charts share: palette, type, axes, and cells drawn as points with the intervals of their means."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import altair as alt
import numpy as np
import pandas as pd

from lmc_tune.analysis.phase import Axis, PhaseDiagram
from lmc_tune.analysis.wording import quantity
from lmc_tune.core.statistics import Verdict
from lmc_tune.experiment import VerdictSpec

# Blue against orange holds up in the common colour blindnesses; letters and shapes carry the rest.
VERDICT_COLOURS: dict[Verdict, str] = {
    "connected": "#2f7d9f",
    "disconnected": "#e8995c",
    "undecided": "#f7ecc5",
    "undertrained": "#d9dcdf",
    "diverged": "#5b6067",
}
DARK_VERDICTS: tuple[Verdict, ...] = ("connected", "diverged")
VERDICT_SHAPES: dict[Verdict, str] = {"connected": "circle", "disconnected": "diamond", "undecided": "triangle-up"}
INK, FAINT, PAPER, RULE, GRID = "#1d2226", "#4a5157", "#ffffff", "#b9bfc4", "#eceef0"
# On tiles, whose colours are much the same in every theme.
ON_LIGHT, ON_DARK = "#1d2225", "#fefefe"
# Of the outline of a tile that is picked: no other line has it.
PICKED = "#c2185b"
NOT_JUDGED, BLANK = "#e9ebed", "#ccd2d6"
# The part of viridis that can be read on the page.
LEGIBLE = (0.05, 0.8)

Theme = Literal["light", "dark", "paper"]
# What takes the place of a text in the spec of a light chart.
THEMES: dict[Theme, dict[str, str]] = {
    "light": {},
    "dark": {
        INK: "#e6e9eb",
        FAINT: "#a9b1b7",
        PAPER: "#15191c",
        RULE: "#4d555b",
        GRID: "#272d31",
        NOT_JUDGED: "#868d93",
        BLANK: "#41494f",
        PICKED: "#ff6f9f",
        VERDICT_COLOURS["undecided"]: "#e6d9a8",
        VERDICT_COLOURS["undertrained"]: "#a5acb1",
        "#b98d00": "#d9b13b",
        "#1f6f92": "#5fb2d6",
        "#b5651d": "#e0935a",
        "#00568a": "#2e8bc0",
        "#a34700": "#cc6b1f",
        "[0.05,0.8]": "[0.35,1]",
    },
    "paper": {INK: "#000000", FAINT: "#000000", RULE: "#000000", GRID: "#e2e2e2"},
}
FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, sans-serif"
# Two panels side by side leave room for the curves at 1280 px.
PANEL_WIDTH = 312
# So many points of one panel lie on top of each other unless they are small.
MANY_POINTS = 250

# So many characters of a title in bold stand over so many pixels.
CHARACTER_WIDTH = 7.4

Channel = TypeVar("Channel", alt.X, alt.Y)


def themed(spec: dict[str, Any], theme: Theme) -> dict[str, Any]:
    """The spec of a light chart in another theme; its ``datasets`` stay as they are."""
    plain = {name: part for name, part in spec.items() if name != "datasets"}
    drawing = json.dumps(plain, separators=(",", ":"))  # as the page's script writes it
    for light, other in THEMES[theme].items():
        drawing = drawing.replace(light, other)
    return {**json.loads(drawing), "datasets": spec["datasets"]}


def wrapped(title: str, width: float) -> list[str]:
    """A title of parts ``a · b`` in lines that fit over so many pixels, broken between parts where possible.

    A line that ends inside of a part ends with a space: the page's script, which breaks lines anew, can tell.
    """
    most = max(8, int(width / CHARACTER_WIDTH))
    lines = [""]
    for part in title.split(" · "):
        joined = f"{lines[-1]} · {part}" if lines[-1] else part
        if len(joined) <= most:
            lines[-1] = joined
        else:
            pieces = textwrap.wrap(part, most) or [""]
            lines = [line for line in lines if line] + [f"{piece} " for piece in pieces[:-1]] + pieces[-1:]
    return lines


def barrier_title(verdict: VerdictSpec) -> str:
    return f"mean barrier of {quantity(verdict)}" + ("" if verdict.quantity == "error" else " (nats)")


def tick_style(*, percent: bool) -> str:
    """A d3 format for axes and legends: it has no precision, so Vega takes as many digits as tell the ticks apart."""
    return "~%" if percent else "~g"


def barrier_format(verdict: VerdictSpec) -> str:
    """A d3 format for single barriers in the unit of the judged curve."""
    return ".3~%" if verdict.quantity == "error" else ".3~g"


def tick_axis(axis: Axis, *, titled: bool = True) -> alt.Axis:
    """Ticks at the values themselves; the title says the scale."""
    number_format = tick_format(axis.ticks)
    steps = axis.scale == "steps"
    return alt.Axis(
        title=f"{axis.title} ({'equal steps' if steps else f'{axis.scale} scale'})" if titled else None,
        values=axis.drawn(axis.ticks).tolist(),
        format=number_format,
        labelExpr=f"format({list(axis.ticks)}[datum.value], '{number_format}')" if steps else alt.Undefined,
        labelOverlap="greedy",
        labelSeparation=5,
        grid=False,
    )


def tick_format(ticks: Sequence[float]) -> str:
    """Whole numbers in full; of others as many digits as tell the values apart, at least two."""
    if all(value.is_integer() for value in ticks):
        return "d"
    digits = next(digits for digits in range(2, 18) if len({f"{value:.{digits}g}" for value in ticks}) == len(ticks))
    return f".{digits}~g"


def tile_scale(axis: Axis) -> alt.Scale:
    """From the first tile's border to the last one's."""
    kind = "linear" if axis.scale == "steps" else axis.scale
    return alt.Scale(type=kind, domain=axis.drawn(axis.edges)[[0, -1]].tolist(), nice=False)


def barrier_axis(channel: type[Channel], table: pd.DataFrame, verdict: VerdictSpec, *, titled: bool = True) -> Channel:
    """The mean barrier, from 0 over the threshold and all intervals; untitled beside one that is titled."""
    return fitted(
        channel,
        table[["shown_barrier", "shown_low", "shown_high"]],
        (0.0, verdict.threshold),
        title=barrier_title(verdict) if titled else None,
        number_format=tick_style(percent=verdict.quantity == "error"),
    )


def fitted(
    channel: type[Channel],
    values: pd.DataFrame,
    beside: Sequence[float],
    *,
    title: str | None,
    number_format: str = "~f",
) -> Channel:
    """The first column along an axis that holds all finite values of the table, and those beside them.

    The domain is given: one that is read off the marks would be worked out, and all drawn again, whenever one moves.
    """
    given = values.to_numpy(dtype=np.float64)
    known = np.append(given[np.isfinite(given)], beside)
    return channel(
        f"{values.columns[0]}:Q",
        title=title,
        scale=alt.Scale(domain=[known.min(), known.max()], nice=True),
        axis=alt.Axis(format=number_format, tickCount=6, labelOverlap="greedy", labelSeparation=4),
    )


@dataclass(frozen=True, kw_only=True)
class Points:
    """How the rows of a table stand as points with intervals.

    x, y: the axes. colour: None for all alike. offset: sets points of one place apart, across their intervals.
    channel: the axis that the intervals run along. low, high: the columns of their bounds.
    guide: the value of the dashed line across them.
    """

    x: alt.X
    y: alt.Y
    colour: alt.Color | None = None
    offset: alt.XOffset | alt.YOffset | None = None
    channel: Literal["x", "y"] = "y"
    low: str = "shown_low"
    high: str = "shown_high"
    guide: float

    @property
    def place(self) -> dict[str, Any]:
        """Where a point stands."""
        across = "xOffset" if self.channel == "y" else "yOffset"
        return {"x": self.x, "y": self.y} | ({across: self.offset} if self.offset is not None else {})

    @property
    def bar(self) -> dict[str, Any]:
        """Where its interval runs."""
        start = (alt.Y if self.channel == "y" else alt.X)(f"{self.low}:Q")
        return self.place | {self.channel: start, f"{self.channel}2": f"{self.high}:Q"}

    @property
    def ink(self) -> dict[str, Any]:
        return {"color": self.colour} if self.colour is not None else {}


def interval_layers(table: pd.DataFrame, points: Points, diagram: PhaseDiagram, picked: str | None) -> list[alt.Chart]:
    """The guide, intervals and means of the judged cells: columns as ``phase_table``."""
    base = alt.Chart(table)
    crowded = len(table) > MANY_POINTS
    has_interval = table[[points.low, points.high]].notna().all(axis="columns")  # one pair alone has none
    known = table if has_interval.all() else table[has_interval]
    bars = alt.Chart(known).mark_rule(strokeWidth=1.6, opacity=0.3 if crowded else 0.75)
    guide = alt.Chart(pd.DataFrame({"guide": [points.guide]})).mark_rule(strokeDash=[5, 4], color=FAINT)
    return [
        guide.encode(**{points.channel: "guide:Q"}),
        *([bars.encode(**points.bar, **points.ink)] if len(known) else []),
        base.mark_point(
            filled=True, size=16 if crowded else 70, opacity=1, stroke=PAPER, strokeWidth=0 if crowded else 0.8
        ).encode(
            shape=verdict_shape(),
            tooltip=tooltips(diagram),
            **points.place,
            **points.ink,
        ),
        *outline(base.mark_point(size=190, strokeWidth=2, color=INK).encode(**points.place), picked),
    ]


def verdict_colour() -> alt.Color:
    """The colours of the verdicts that rest on a mean barrier, dark enough for a point or a line on white."""
    inks = [*(VERDICT_COLOURS[name] for name in ("connected", "disconnected")), "#b98d00"]
    scale = alt.Scale(domain=list(VERDICT_SHAPES), range=inks)
    return alt.Color("verdict:N", title="verdict", scale=scale, legend=alt.Legend(orient="top"))


def verdict_shape() -> alt.Shape:
    """Their shapes; the legend is one with that of their colours."""
    scale = alt.Scale(domain=list(VERDICT_SHAPES), range=list(VERDICT_SHAPES.values()))
    return alt.Shape("verdict:N", title="verdict", scale=scale, legend=alt.Legend(orient="top"))


def outline(chart: alt.Chart, picked: str | None) -> list[alt.Chart]:
    """The chart of the picked cell and, dashed, of the one that is shown for the moment; nothing if none is picked.

    The parameters ``picked`` and ``shown`` move them. Two marks that move: a mark on every cell, clear but for two,
    would have all of them drawn again.
    """
    if picked is None:
        return []
    moving = chart.transform_filter("datum.cell === picked || datum.cell === shown")
    moving.mark.strokeDash = alt.ExprRef("datum.cell === picked ? [1, 0] : [3, 2]")
    return [moving]


def tooltips(diagram: PhaseDiagram) -> list[alt.Tooltip]:
    """Where a cell is and what came out, in four lines: they cover its neighbours, and the page shows the rest beside.

    Columns as ``phase_table``.
    """
    places = [alt.Tooltip(f"{axis.column}:Q", title=axis.title, format="~g") for axis in diagram.axes] or [
        alt.Tooltip("panel:N")
    ]
    return [*places, alt.Tooltip("verdict:N"), alt.Tooltip("mean:N", title="mean barrier")]


def as_list(params: Any) -> list[Any]:
    """The parameters that a chart has already."""
    return params if isinstance(params, list) else []


def finish(chart: Any, picked: str | None = None) -> Any:
    """The chart with the page's type and rules, and the parameters of :func:`outline` where a cell is picked.

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
        gridColor=GRID,
    )
    legend = alt.LegendConfig(
        labelFontSize=11.5,
        titleFontSize=11.5,
        titleFontWeight="normal",
        labelColor=INK,
        titleColor=INK,
        padding=7,
        symbolBaseFillColor=FAINT,
        symbolBaseStrokeColor=FAINT,
    )
    title = alt.TitleConfig(fontSize=13, fontWeight=600, color=INK, subtitleColor=FAINT, anchor="start")
    chart.config = alt.Config(
        font=FONT, background=PAPER, padding=4, view=alt.ViewConfig(stroke=None), axis=axis, legend=legend, title=title
    )
    if picked is not None:
        chart.params = [
            *as_list(chart.params),
            *(alt.param(name=name, value=picked).param for name in ("picked", "shown")),
        ]
    return chart
