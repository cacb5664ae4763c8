"""The phase diagram as a chart: maps of verdicts and of mean barriers, with the boundary between the regions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt
import numpy as np
import pandas as pd

from lmc_tune.analysis.phase import Axis, PhaseDiagram
from lmc_tune.analysis.report.charts.layout import GAP, MAPS_WIDTH, NARROW, Layout, lay_out
from lmc_tune.analysis.report.charts.map_colour import coloured, map_colour, map_title
from lmc_tune.analysis.report.charts.style import (
    BLANK,
    DARK_VERDICTS,
    FAINT,
    INK,
    NOT_JUDGED,
    ON_DARK,
    ON_LIGHT,
    PAPER,
    PICKED,
    VERDICT_COLOURS,
    Points,
    barrier_axis,
    barrier_title,
    finish,
    interval_layers,
    outline,
    tick_axis,
    tick_style,
    tile_scale,
    tooltips,
    verdict_colour,
    wrapped,
)
from lmc_tune.analysis.wording import LETTERS, UNKNOWN, height
from lmc_tune.core.statistics import VERDICTS
from lmc_tune.experiment import VerdictSpec

NOT_RUN = "not run"
SUBTITLE: dict[str, Any] = {"fontSize": 11.5, "fontWeight": "normal", "color": FAINT}
# Less than that is too narrow for both legends in a row.
BOTH_LEGENDS = 720
# Of the type in tiles: its least size in pixels, and the mean width of a character in parts of its size.
LEAST_TYPE, TYPE_WIDTH = 8.5, 0.66
# What must be left of a tile's width, in pixels.
MARGIN, MARGINS = 8, {"letter": 3}
LINES_HEIGHT, AXIS_WIDTH = 280, 64
# With more panels than that, or longer names, cells of a sweep without axes stand in rows.
FEW_COLUMNS, LONG_NAME, ROW_HEIGHT, NAME_WIDTH = 6, 24, 24, 420
# How far a panel's points stand from those of the one before, in pixels, and of all panels in parts of a tile.
ASIDE, MOST_ASIDE = 12, 0.6
# Okabe and Ito's, which the colour-blind can tell apart; their yellow is too light for a line.
PANEL_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#7a5c00")


def phase_table(diagram: PhaseDiagram, colour: str | None = None) -> pd.DataFrame:
    """One row per cell as it is drawn: its tile's borders, its verdict and letter, its mean barrier in words.

    ``shown_barrier``, ``shown_low`` and ``shown_high`` are missing where the cell's verdict does not rest on them.
    Planned cells that have not been run come last, with ``not run`` in the place of a verdict.

    Args:
        diagram: what is drawn.
        colour: a column to be drawn in the place of the mean barrier
            (:func:`~lmc_tune.analysis.report.charts.map_colour.coloured`).
    """
    verdict = diagram.verdict
    cells = pd.concat([diagram.cells, diagram.not_run.assign(verdict=NOT_RUN, judged=False)], ignore_index=True)
    table = cells[["cell", "panel", "verdict", "judged"]].copy()
    for name, axis in (("x", diagram.x), ("y", diagram.y)):
        if axis is not None:
            at = np.searchsorted(axis.ticks, cells[axis.column].to_numpy(dtype=np.float64))
            table[axis.column] = np.asarray(axis.ticks)[at]
            table[name], edges = axis.drawn(table[axis.column]), axis.drawn(axis.edges)
            table[f"{name}_low"], table[f"{name}_high"] = edges[at], edges[at + 1]
    shown = cells[["mean_barrier", "low", "high"]].where(cells["judged"]).replace([np.inf, -np.inf], np.nan)
    table[["shown_barrier", "shown_low", "shown_high"]] = shown
    table["letter"] = [letters(row) for row in cells.to_dict("records")]
    table["barrier_text"] = [_in_tile(value, verdict) for value in shown["mean_barrier"]]
    table.loc[~cells["judged"], "barrier_text"] = table["letter"]
    table["letter_light"] = cells["verdict"].isin(DARK_VERDICTS)
    table["barrier_text_light"] = table["shown_barrier"] < 0.65 * _top(diagram)
    table["mean"] = [height(mean, verdict) for mean in cells["mean_barrier"]]
    return table if colour is None else coloured(table, diagram, colour)


def letters(row: Mapping[Any, Any]) -> str:
    """What stands in a cell's tile: its verdict's letter; ``C/D`` if the other split says the opposite; ``C*`` next to
    a diverged cell; a dash if it was not run."""
    if row["verdict"] == NOT_RUN:
        return UNKNOWN
    letter = LETTERS[row["verdict"]]
    if row["split_apart"]:
        letter += "/D" if letter == "C" else "/C"
    return f"{letter}*" if row["beside_diverged"] else letter


def phase_chart(
    diagram: PhaseDiagram,
    table: pd.DataFrame,
    picked: str | None = None,
    width: float = MAPS_WIDTH,
    colour: str | None = None,
) -> Any:
    """Maps of verdicts and of mean barriers, one of each per panel, with the boundary on both.

    A sweep over one axis, or none, is drawn as mean barriers with their intervals along it.

    Args:
        diagram: what is drawn.
        table: as :func:`phase_table` gives it.
        picked: outlines this cell and adds the parameters of :func:`~lmc_tune.analysis.report.charts.style.outline`.
        width: of the whole chart, in pixels. The parameter ``map_width`` is that of each map; who changes it in the
            spec changes the maps' ``width`` too.
        colour: a column that the table was made with; it is drawn in the place of the mean barrier.
    """
    if diagram.x is None or diagram.y is None:
        return finish(_lines(diagram, table, picked, width), picked)
    layout = lay_out(diagram, diagram.x, diagram.y, width)
    return maps_chart(
        Maps(
            diagram=diagram, tables=tables_of(diagram, table), picked=picked, layout=layout, width=width, colour=colour
        )
    )


def maps_chart(draw: "Maps") -> Any:
    """All maps of a diagram, arranged as its layout says; the parameter ``map_width`` as in :func:`phase_chart`."""
    layout = draw.layout
    if layout.grid:
        blocks = [titled_chart(draw.block(kind), title) for kind, title in draw.titles.items()]
        chart: Any = alt.vconcat(*blocks, spacing=30)
    else:
        chart = alt.vconcat(*(draw.row(panels[0][0], title) for title, panels in layout.rows), spacing=24)
    chart = chart.resolve_scale(fill="shared", color="shared")
    chart.params = [alt.param(name="map_width", value=layout.map_width).param]
    return finish(chart, draw.picked)


def titled_chart(chart: Any, title: str | list[str], **style: Any) -> Any:
    return chart.properties(title=alt.Title(title, offset=6, **style)) if title else chart


Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


def tables_of(diagram: PhaseDiagram, table: pd.DataFrame) -> dict[str, Tables]:
    """By panel: the planned cells, those that were run, and the pieces of the boundary as they are drawn."""
    x, y = map_axes(diagram)
    drawn = table.drop(columns=["shown_low", "shown_high"])
    found = {}
    for panel in diagram.panels:
        planned, line = drawn[drawn["panel"] == panel], diagram.boundary[diagram.boundary["panel"] == panel]
        run = planned["verdict"] != NOT_RUN
        tiles = planned if run.all() else planned[run]
        pieces = {name: (x if name[0] == "x" else y).drawn(line[name]) for name in ("x", "y", "x2", "y2")}
        found[panel] = (planned, tiles, pd.DataFrame(pieces))
    return found


@dataclass(frozen=True, kw_only=True)
class Maps:
    """Draws the maps of one diagram; ``tables``: of each panel, shared by its maps, so that a page has them once."""

    diagram: PhaseDiagram
    tables: Mapping[str, Tables]
    picked: str | None
    layout: Layout
    width: float
    colour: str | None = None

    @property
    def titles(self) -> dict[str, str]:
        """The maps of a panel, by the column that stands in their tiles."""
        second = {"barrier_text": "Mean barrier"} if self.colour is None else {"colour_text": map_title(self.colour)}
        return {"letter": "Verdict", **second}

    def row(self, panel: str, title: str) -> Any:
        """One panel: its verdicts and its barriers."""
        maps = [titled_chart(self.map(kind, panel), own, **SUBTITLE) for kind, own in self.titles.items()]
        row: Any = alt.hconcat(*maps, spacing=GAP) if self.layout.beside else alt.vconcat(*maps, spacing=GAP)
        lines = wrapped(title, self.layout.map_width * len(maps if self.layout.beside else maps[:1]))
        return row.properties(title=alt.Title(lines, offset=2)) if title else row

    def block(self, kind: str) -> Any:
        """The maps of one kind of all panels, in rows and columns."""
        rows = []
        for row, panels in self.layout.rows:
            maps = [
                self.map(kind, panel, first=at == 0).properties(
                    title=alt.Title(wrapped(f"{row} · {column}", self.layout.map_width), **SUBTITLE)
                )
                for at, (panel, column) in enumerate(panels)
            ]
            rows.append(alt.hconcat(*maps, spacing=GAP))
        return alt.vconcat(*rows, spacing=14)

    def map(self, kind: str, panel: str, *, first: bool = True) -> Any:
        """One map; its vertical axis has a title where it is the ``first`` of its row."""
        diagram, (planned, tiles, line) = self.diagram, self.tables[panel]
        everywhere, base = (alt.Chart(data).encode(**_frame(diagram, titled=first)) for data in (planned, tiles))
        layers = [
            *self._blanks(everywhere, planned),
            *self.fills(kind, base, {"stroke": PAPER, "strokeWidth": 1 if self.least_tile > 8 else 0}),
            *_boundary(diagram, line),
            *self._texts(tiles, kind),
            *self.touch(everywhere),
        ]
        return alt.layer(*layers).properties(width=self.layout.map_width, height=self.layout.map_height)

    def fills(self, kind: str, base: alt.Chart, tile: Mapping[str, Any]) -> list[alt.Chart]:
        """The tiles in colour, drawn in a style."""
        if kind == "letter":
            return [base.mark_rect(**tile).encode(fill=_verdict_fill(self.width))]
        orient: Literal["top", "bottom"] = "top" if self.width >= BOTH_LEGENDS else "bottom"
        colour = _barrier_colour(self.diagram, orient)
        if self.colour is not None:
            colour = map_colour(self.diagram, self.colour, orient)
        return [
            base.transform_filter("!datum.judged").mark_rect(fill=NOT_JUDGED, **tile),
            base.transform_filter("datum.judged").mark_rect(**tile).encode(color=colour),
        ]

    def touch(self, base: alt.Chart) -> list[alt.Chart]:
        """The picked cell's outline, and over everything a clear layer that takes the pointer."""
        clear = base.mark_rect(opacity=0).encode(tooltip=self.said())
        return [*outline(base.mark_rect(fill=None, stroke=PICKED, strokeWidth=3), self.picked), clear]

    def said(self) -> list[alt.Tooltip]:
        """Under the pointer."""
        return tooltips(self.diagram)

    @property
    def least_tile(self) -> float:
        """Mean width or height of a tile in pixels, whichever is less."""
        x, y = map_axes(self.diagram)
        return min(self.layout.map_width / len(x.ticks), self.layout.map_height / len(y.ticks))

    def _blanks(self, everywhere: alt.Chart, planned: pd.DataFrame) -> list[alt.Chart]:
        """Dashed outlines where nothing has been run, set in a little so that neighbours stay apart."""
        if self.least_tile <= 8 or not (planned["verdict"] == NOT_RUN).any():
            return []
        base = everywhere.transform_filter(f"datum.verdict === '{NOT_RUN}'")
        inset: dict[str, Any] = {"xOffset": 2, "x2Offset": -2, "yOffset": -2, "y2Offset": 2}
        return [base.mark_rect(fill=None, stroke=BLANK, strokeDash=[3, 3], **inset)]

    def _texts(self, tiles: pd.DataFrame, text: str) -> list[alt.Chart]:
        """Light on dark tiles and dark on light ones; only in tiles that are large enough for them.

        Their type follows the mean tile, between 8.5 and 13 pixels.
        """
        x, y = map_axes(self.diagram)
        height_ = self.layout.map_height
        if height_ / len(y.ticks) < LEAST_TYPE + 2:
            return []
        mean = f"min(map_width / {3.8 * len(x.ticks):.6g}, {height_ / (1.8 * len(y.ticks)):.3f})"
        size = f"clamp({mean}, {LEAST_TYPE}, 13)"
        margin = MARGINS.get(text, MARGIN)
        fits = (
            f"{TYPE_WIDTH} * length(datum.{text}) * {size} + {margin} <= map_width * {_share(x, 'x')}"
            f" && {size} + 2 <= {height_} * {_share(y, 'y')}"
        )
        base = alt.Chart(tiles).transform_filter(fits).encode(text=f"{text}:N", **_centre(self.diagram))
        style: dict[str, Any] = {"fontSize": alt.ExprRef(size), "fontWeight": 600}
        return [
            base.transform_filter(f"datum.{text}_light").mark_text(color=ON_DARK, **style),
            base.transform_filter(f"!datum.{text}_light").mark_text(color=ON_LIGHT, **style),
        ]


def _share(axis: Axis, name: str) -> str:
    """An expression: which part of the axis a tile takes."""
    low, high = axis.position(axis.edges)[[0, -1]]
    ends = [f"datum.{name}_{end}" for end in ("high", "low")]
    if axis.scale == "log":
        return f"(log({ends[0]} / {ends[1]}) / {(high - low) * math.log(10):.6g})"
    return f"(({ends[0]} - {ends[1]}) / {high - low:.6g})"


def _frame(diagram: PhaseDiagram, *, titled: bool) -> dict[str, Any]:
    x, y = map_axes(diagram)
    return {
        "x": alt.X("x_low:Q", scale=tile_scale(x), axis=tick_axis(x)),
        "x2": "x_high:Q",
        "y": alt.Y("y_low:Q", scale=tile_scale(y), axis=tick_axis(y, titled=titled)),
        "y2": "y_high:Q",
    }


def _centre(diagram: PhaseDiagram) -> dict[str, Any]:
    x, y = map_axes(diagram)
    return {"x": alt.X("x:Q", scale=tile_scale(x)), "y": alt.Y("y:Q", scale=tile_scale(y))}


def map_axes(diagram: PhaseDiagram) -> tuple[Axis, Axis]:
    if diagram.x is None or diagram.y is None:
        raise ValueError("a map needs two axes")
    return diagram.x, diagram.y


def _boundary(diagram: PhaseDiagram, line: pd.DataFrame) -> list[alt.Chart]:
    """Dark on a light halo, so that it stands out from any tile."""
    if line.empty:
        return []
    base = alt.Chart(line).encode(**_centre(diagram), x2="x2:Q", y2="y2:Q")
    return [
        base.mark_rule(color=PAPER, strokeWidth=5, strokeCap="square"),
        base.mark_rule(color=INK, strokeWidth=2.5, strokeCap="square"),
    ]


def _verdict_scale() -> alt.Scale:
    return alt.Scale(domain=list(VERDICTS), range=[VERDICT_COLOURS[name] for name in VERDICTS])


def _verdict_fill(width: float) -> alt.Fill:
    names = {name: f"{letter}  {name}" for name, letter in LETTERS.items()}
    legend = alt.Legend(
        orient="top",
        symbolType="square",
        symbolStrokeWidth=0,
        symbolSize=170,
        labelExpr=f"({names})[datum.label]",
        columns=5 if width > NARROW else 2,
    )
    return alt.Fill("verdict:N", title=None, scale=_verdict_scale(), legend=legend)


def _barrier_scale(diagram: PhaseDiagram) -> alt.Scale:
    return alt.Scale(scheme="viridis", domain=[_bottom(diagram), _top(diagram)], nice=True)


def _barrier_colour(diagram: PhaseDiagram, orient: Literal["top", "bottom"]) -> alt.Color:
    verdict = diagram.verdict
    legend = alt.Legend(
        orient=orient,
        format=tick_style(percent=verdict.quantity == "error"),
        gradientLength=130,
        tickCount=3,
        labelOverlap="greedy",
        labelSeparation=6,
    )
    return alt.Color("shown_barrier:Q", title=barrier_title(verdict), scale=_barrier_scale(diagram), legend=legend)


def _top(diagram: PhaseDiagram) -> float:
    """The end of the colour scale: the highest mean barrier, but never below the threshold."""
    judged = diagram.cells.loc[diagram.cells["judged"], "mean_barrier"]
    return max(diagram.verdict.threshold, judged.max() if len(judged) else 0.0)


def _bottom(diagram: PhaseDiagram) -> float:
    judged = diagram.cells.loc[diagram.cells["judged"], "mean_barrier"]
    return min(0.0, judged.min() if len(judged) else 0.0)


def _in_tile(value: float, verdict: VerdictSpec) -> str:
    if not np.isfinite(value):
        return ""
    if verdict.quantity == "error":
        return f"{100 * value:.0f}%" if value >= 0.0995 else f"{100 * value:.1f}%"
    return f"{value:.2g}"


def _lines(diagram: PhaseDiagram, table: pd.DataFrame, picked: str | None, width: float) -> Any:
    """Mean barriers along the one axis that varies, a line per panel; or over the panels where none does."""
    y = barrier_axis(alt.Y, table, diagram.verdict)
    map_width = width - AXIS_WIDTH
    if diagram.x is None and (len(diagram.panels) > FEW_COLUMNS or max(map(len, diagram.panels)) > LONG_NAME):
        return _rows(diagram, table, picked, map_width)
    if diagram.x is None:
        x = alt.X("panel:N", title=None, sort=list(diagram.panels), axis=alt.Axis(labelAngle=0, labelLimit=150))
        points = Points(x=x, y=y, colour=verdict_colour(), guide=diagram.verdict.threshold)
        layers = [*interval_layers(table, points, diagram, picked), letters_at_the_top(table, x, diagram)]
        return alt.layer(*layers).properties(width=min(map_width, 180 * len(diagram.panels)), height=LINES_HEIGHT)
    x = alt.X("x:Q", scale=tile_scale(diagram.x), axis=tick_axis(diagram.x))
    groups = [diagram.panels[at : at + len(PANEL_COLOURS)] for at in range(0, len(diagram.panels), len(PANEL_COLOURS))]
    charts = [
        _line_chart(diagram, set_apart(table, diagram.x, panels, map_width), panels, (x, y), picked).properties(
            width=map_width, height=LINES_HEIGHT
        )
        for panels in groups
    ]
    colours: Any = "independent" if len(charts) > 1 else "shared"
    return alt.vconcat(*charts, spacing=24).resolve_scale(y="shared", color=colours, shape="shared")


def set_apart(table: pd.DataFrame, axis: Axis, panels: Sequence[str], width: float) -> pd.DataFrame:
    """The rows of some panels, ``x`` a little beside their place: barriers of 0 would lie on top of each other.

    Args:
        table: as :func:`phase_table` gives it.
        axis: of its cells.
        panels: from left to right.
        width: of the chart, in pixels.
    """
    places = axis.position(axis.edges)
    step = min(ASIDE * np.ptp(places) / width, MOST_ASIDE * np.diff(places).min() / len(panels))
    own = table[table["panel"].isin(panels)]
    at = own["panel"].map({panel: at - (len(panels) - 1) / 2 for at, panel in enumerate(panels)}).to_numpy()
    return own.assign(x=axis.drawn(axis.value(axis.position(own[axis.column]) + step * at)))


def _rows(diagram: PhaseDiagram, table: pd.DataFrame, picked: str | None, width: float) -> Any:
    """Mean barriers from left to right, a row per panel: names have room there."""
    y = row_axis(diagram)
    points = Points(
        x=barrier_axis(alt.X, table, diagram.verdict),
        y=y,
        colour=verdict_colour(),
        channel="x",
        guide=diagram.verdict.threshold,
    )
    letters = alt.Chart(table).transform_filter("!datum.judged").mark_text(fontSize=12, fontWeight=600, color=FAINT)
    layers = [
        *interval_layers(table, points, diagram, picked),
        letters.encode(y=y, x=alt.value(8), text="letter:N", tooltip=tooltips(diagram)),
    ]
    longest = 6.2 * max(map(len, diagram.panels))
    return alt.layer(*layers).properties(
        width=max(200, width - min(NAME_WIDTH, longest)), height=ROW_HEIGHT * len(diagram.panels)
    )


def row_axis(diagram: PhaseDiagram) -> alt.Y:
    """A row per panel, with its name."""
    axis = alt.Axis(labelLimit=NAME_WIDTH, labelFontSize=11, title=None)
    return alt.Y("panel:N", sort=list(diagram.panels), axis=axis)


def _line_chart(
    diagram: PhaseDiagram,
    table: pd.DataFrame,
    panels: Sequence[str],
    place: tuple[alt.X, alt.Y],
    picked: str | None,
) -> Any:
    x, y = place
    colour = _panel_colour(panels) if len(diagram.panels) > 1 else None
    points = Points(x=x, y=y, colour=colour or verdict_colour(), guide=diagram.verdict.threshold)
    ink: dict[str, Any] = {"color": colour} if colour is not None else {}
    return alt.layer(
        alt.Chart(table).mark_line(strokeWidth=1.8, opacity=0.8, color=FAINT).encode(x=x, y=y, detail="panel:N", **ink),
        *interval_layers(table, points, diagram, picked),
        *(
            letters_at_the_top(table[table["panel"] == panel], x, diagram, at).encode(**ink)
            for at, panel in enumerate(panels)
            if not table.loc[table["panel"] == panel, "judged"].all()
        ),
    )


def _panel_colour(panels: Sequence[str]) -> alt.Color:
    lines = {panel: wrapped(panel, 640) for panel in panels}
    legend = alt.Legend(
        orient="top",
        columns=1 if max(map(len, panels)) > 24 else 4,
        labelLimit=660,
        labelExpr=f"({lines})[datum.label]",
    )
    scale = alt.Scale(domain=list(panels), range=list(PANEL_COLOURS[: len(panels)]))
    return alt.Color("panel:N", title=None, scale=scale, legend=legend)


def letters_at_the_top(table: pd.DataFrame, x: alt.X, diagram: PhaseDiagram, line: int = 0) -> alt.Chart:
    """The letters of the verdicts that rest on no mean barrier, in a line at the top."""
    base = alt.Chart(table).transform_filter("!datum.judged")
    letters: alt.Chart = base.mark_text(fontSize=12, fontWeight=600, color=FAINT).encode(
        x=x, y=alt.value(8 + 14 * line), text="letter:N", tooltip=tooltips(diagram)
    )
    return letters
