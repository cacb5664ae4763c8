"""The phase diagram as a chart: verdicts and mean barriers side by side, with the boundary between the regions."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from lmc_tune.analysis.phase import Axis, PhaseDiagram
from lmc_tune.analysis.report.charts.style import (
    DARK_VERDICTS,
    FAINT,
    INK,
    PANEL_WIDTH,
    PAPER,
    VERDICT_COLOURS,
    Points,
    barrier_axis,
    barrier_format,
    barrier_title,
    finish,
    interval_layers,
    outline,
    tick_axis,
    tile_scale,
    tooltips,
    verdict_colour,
)
from lmc_tune.analysis.wording import LETTERS, UNKNOWN, height, is_error
from lmc_tune.core.statistics import VERDICTS
from lmc_tune.experiment import VerdictSpec

NOT_JUDGED = "#e9ebed"
NOT_RUN = "not run"
BLANK = "#ccd2d6"
# What fits into a tile of so many pixels.
LEAST_WIDTHS = {"letter": 14, "barrier_text": 34}
SUBTITLE: dict[str, Any] = {"fontSize": 11.5, "fontWeight": "normal", "color": FAINT}


def phase_table(diagram: PhaseDiagram) -> pd.DataFrame:
    """One row per cell as it is drawn: its tile's borders, its verdict and letter, its mean barrier in words.

    ``shown_barrier``, ``shown_low`` and ``shown_high`` are missing where the cell's verdict does not rest on them.
    Planned cells that have not been run come last, with ``not run`` in the place of a verdict.
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
    table["letter"] = cells["verdict"].map(LETTERS).fillna(UNKNOWN)
    table["barrier_text"] = [_in_tile(value, verdict) for value in shown["mean_barrier"]]
    table.loc[~cells["judged"], "barrier_text"] = table["letter"]
    table["letter_light"] = cells["verdict"].isin(DARK_VERDICTS)
    table["barrier_text_light"] = table["shown_barrier"] < 0.65 * _top(diagram)
    table["mean"] = [height(mean, verdict) for mean in cells["mean_barrier"]]
    return table


def left_out(row: Mapping[Any, Any]) -> str:
    """The pairs of a cell that its mean leaves out, by status, e.g. ``2 diverged, 1 failed``."""
    parts = [
        f"{row[f'n_{status}']} {status}" for status in ("undertrained", "diverged", "failed") if row[f"n_{status}"]
    ]
    if row["n_without_barrier"]:
        parts.append(f"{row['n_without_barrier']} without a finite barrier")
    return ", ".join(parts) or "none"


def phase_chart(diagram: PhaseDiagram, table: pd.DataFrame, picked: str | None = None) -> Any:
    """One row per panel: verdicts on the left, mean barriers on the right, the boundary over both.

    A sweep over one axis, or none, is drawn as mean barriers with their intervals along it.

    Args:
        table: as :func:`phase_table` gives it.
        picked: outlines this cell and adds the parameter ``picked``, which moves the outline.
    """
    if diagram.x is None or diagram.y is None:
        chart: Any = _strips(diagram, table, picked)
    else:
        rows = [_panel_row(diagram, table, panel, picked) for panel in diagram.panels]
        chart = alt.vconcat(*rows, spacing=24).resolve_scale(fill="shared", color="shared")
    return finish(chart, picked)


def _panel_row(diagram: PhaseDiagram, table: pd.DataFrame, panel: str, picked: str | None) -> Any:
    planned = table[table["panel"] == panel].drop(columns=["shown_low", "shown_high"])
    tiles = planned if diagram.not_run.empty else planned[planned["verdict"] != NOT_RUN]
    everywhere, base = (alt.Chart(data).encode(**_frame(diagram)) for data in (planned, tiles))
    tile: dict[str, Any] = {"stroke": PAPER, "strokeWidth": 1 if min(_tile_size(diagram)) > 8 else 0}
    verdicts = [
        *_blanks(diagram, everywhere),
        base.mark_rect(**tile).encode(fill=_verdict_fill()),
        *_boundary(diagram, panel),
        *_texts(diagram, tiles, "letter", alt.Stroke("verdict:N", scale=_verdict_scale(), legend=None)),
    ]
    halo = alt.Stroke("shown_barrier:Q", scale=_barrier_scale(diagram), legend=None)
    barriers = [
        *_blanks(diagram, everywhere),
        base.transform_filter("!datum.judged").mark_rect(fill=NOT_JUDGED, **tile),
        base.transform_filter("datum.judged").mark_rect(**tile).encode(color=_barrier_colour(diagram)),
        *_boundary(diagram, panel),
        *_texts(diagram, tiles, "barrier_text", halo),
    ]
    maps = (
        alt.layer(*layers, *_touch(everywhere, diagram, picked)).properties(
            width=PANEL_WIDTH, height=_panel_height(diagram), title=alt.Title(title, **SUBTITLE)
        )
        for title, layers in (("Verdict", verdicts), ("Mean barrier", barriers))
    )
    row = alt.hconcat(*maps, spacing=16).resolve_scale(fill="shared", color="shared", stroke="independent")
    return _titled(row, diagram, panel)


def _blanks(diagram: PhaseDiagram, everywhere: alt.Chart) -> list[alt.Chart]:
    """Dashed outlines where nothing has been run, set in a little so that neighbours stay apart."""
    if diagram.not_run.empty or min(_tile_size(diagram)) <= 8:
        return []
    base = everywhere.transform_filter(f"datum.verdict === '{NOT_RUN}'")
    inset: dict[str, Any] = {"xOffset": 2, "x2Offset": -2, "yOffset": -2, "y2Offset": 2}
    return [base.mark_rect(fill=None, stroke=BLANK, strokeDash=[3, 3], **inset)]


def _titled(chart: Any, diagram: PhaseDiagram, panel: str) -> Any:
    """With the panel's title, unless it is the only one."""
    return chart if len(diagram.panels) == 1 else chart.properties(title=alt.Title(panel, offset=2))


def _frame(diagram: PhaseDiagram) -> dict[str, Any]:
    x, y = _axes(diagram)
    return {
        "x": alt.X("x_low:Q", scale=tile_scale(x), axis=tick_axis(x)),
        "x2": "x_high:Q",
        "y": alt.Y("y_low:Q", scale=tile_scale(y), axis=tick_axis(y)),
        "y2": "y_high:Q",
    }


def _centre(diagram: PhaseDiagram) -> dict[str, Any]:
    x, y = _axes(diagram)
    return {"x": alt.X("x:Q", scale=tile_scale(x)), "y": alt.Y("y:Q", scale=tile_scale(y))}


def _axes(diagram: PhaseDiagram) -> tuple[Axis, Axis]:
    if diagram.x is None or diagram.y is None:
        raise ValueError("a map needs two axes")
    return diagram.x, diagram.y


def _texts(diagram: PhaseDiagram, tiles: pd.DataFrame, text: str, halo: alt.Stroke) -> list[alt.Chart]:
    """Light on dark tiles and dark on light ones, with a halo in the tile's colour that keeps the boundary off.

    Nothing where the tiles are too small for it.
    """
    width, height_ = _tile_size(diagram)
    if width < LEAST_WIDTHS[text] or height_ < 13:
        return []
    base = alt.Chart(tiles).encode(text=f"{text}:N", **_centre(diagram))
    style: dict[str, Any] = {"fontSize": 11.5, "fontWeight": 600}
    return [
        base.transform_filter("datum.judged").mark_text(strokeWidth=9, strokeJoin="round", **style).encode(stroke=halo),
        base.transform_filter(f"datum.{text}_light").mark_text(color=PAPER, **style),
        base.transform_filter(f"!datum.{text}_light").mark_text(color=INK, **style),
    ]


def _boundary(diagram: PhaseDiagram, panel: str) -> list[alt.Chart]:
    """Dark on a light halo, so that it stands out from any tile."""
    line = diagram.boundary[diagram.boundary["panel"] == panel]
    if line.empty:
        return []
    x, y = _axes(diagram)
    line = line.assign(x=x.drawn(line["x"]), y=y.drawn(line["y"]))
    base = alt.Chart(line).encode(order="order:Q", detail="line:N", **_centre(diagram))
    return [
        base.mark_line(color=PAPER, strokeWidth=4, opacity=0.85, strokeCap="butt"),
        base.mark_line(color=INK, strokeWidth=2, strokeCap="butt"),
    ]


def _touch(base: alt.Chart, diagram: PhaseDiagram, picked: str | None) -> list[alt.Chart]:
    """The picked cell's outline, and over everything a clear layer that takes the pointer."""
    clear = base.mark_rect(opacity=0).encode(tooltip=tooltips(diagram))
    return [*outline(base.mark_rect(fill=None, stroke=INK, strokeWidth=2.5), picked), clear]


def _verdict_scale() -> alt.Scale:
    return alt.Scale(domain=list(VERDICTS), range=[VERDICT_COLOURS[name] for name in VERDICTS])


def _verdict_fill() -> alt.Fill:
    names = {name: f"{letter}  {name}" for name, letter in LETTERS.items()}
    legend = alt.Legend(
        orient="top", symbolType="square", symbolStrokeWidth=0, symbolSize=170, labelExpr=f"({names})[datum.label]"
    )
    return alt.Fill("verdict:N", title=None, scale=_verdict_scale(), legend=legend)


def _barrier_scale(diagram: PhaseDiagram) -> alt.Scale:
    return alt.Scale(scheme="viridis", domain=[_bottom(diagram), _top(diagram)])


def _barrier_colour(diagram: PhaseDiagram) -> alt.Color:
    verdict = diagram.verdict
    legend = alt.Legend(orient="top", format=barrier_format(verdict), gradientLength=150, tickCount=3)
    return alt.Color("shown_barrier:Q", title=barrier_title(verdict), scale=_barrier_scale(diagram), legend=legend)


def _top(diagram: PhaseDiagram) -> float:
    """The end of the colour scale: the highest mean barrier, but never below the threshold."""
    judged = diagram.cells.loc[diagram.cells["judged"], "mean_barrier"]
    return max(diagram.verdict.threshold, judged.max() if len(judged) else 0.0)


def _bottom(diagram: PhaseDiagram) -> float:
    judged = diagram.cells.loc[diagram.cells["judged"], "mean_barrier"]
    return min(0.0, judged.min() if len(judged) else 0.0)


def _panel_height(diagram: PhaseDiagram) -> int:
    return int(np.clip(56 * len(_axes(diagram)[1].ticks), 130, 320))


def _tile_size(diagram: PhaseDiagram) -> tuple[float, float]:
    """Mean width and height of a tile in pixels."""
    x, y = _axes(diagram)
    return PANEL_WIDTH / len(x.ticks), _panel_height(diagram) / len(y.ticks)


def _in_tile(value: float, verdict: VerdictSpec) -> str:
    if not np.isfinite(value):
        return ""
    if is_error(verdict):
        return f"{100 * value:.0f}%" if value >= 0.0995 else f"{100 * value:.1f}%"
    return f"{value:.2g}"


def _strips(diagram: PhaseDiagram, table: pd.DataFrame, picked: str | None) -> Any:
    """Mean barriers along the one axis that varies, or over the panels where none does."""
    y = barrier_axis(alt.Y, table, diagram.verdict)
    if diagram.x is None:
        x = alt.X("panel:N", title=None, sort=list(diagram.panels), axis=alt.Axis(labelAngle=0, labelLimit=150))
        return _strip(diagram, table, (x, y), picked).properties(width=max(PANEL_WIDTH, 130 * len(diagram.panels)))
    x = alt.X("x:Q", scale=tile_scale(diagram.x), axis=tick_axis(diagram.x))
    strips = [
        _titled(_strip(diagram, table[table["panel"] == panel], (x, y), picked), diagram, panel).properties(
            width=2 * PANEL_WIDTH
        )
        for panel in diagram.panels
    ]
    return alt.vconcat(*strips, spacing=24).resolve_scale(y="shared", color="shared", shape="shared")


def _strip(diagram: PhaseDiagram, table: pd.DataFrame, place: tuple[alt.X, alt.Y], picked: str | None) -> Any:
    x, y = place
    points = Points(x=x, y=y, colour=verdict_colour(), guide=diagram.verdict.threshold)
    letters = (
        alt.Chart(table)
        .transform_filter("!datum.judged")
        .mark_text(fontSize=12, fontWeight=600, color=FAINT)
        .encode(x=x, y=alt.value(8), text="letter:N", tooltip=tooltips(diagram))
    )
    return alt.layer(*interval_layers(table, points, diagram, picked), letters).properties(height=200)
