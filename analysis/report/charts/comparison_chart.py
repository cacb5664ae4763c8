"""Two runs as a chart: their verdicts side by side on the same axes, and the difference of their barriers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from lmc_tune.analysis.comparison import Comparison
from lmc_tune.analysis.phase import Axis
from lmc_tune.analysis.report.charts.layout import AXIS_TITLE_WIDTH, GAP, LETTER_WIDTH, Layout, labels_width, map_height
from lmc_tune.analysis.report.charts.phase_chart import (
    AXIS_WIDTH,
    LINES_HEIGHT,
    NOT_RUN,
    PANEL_COLOURS,
    SUBTITLE,
    Maps,
    letters_at_the_top,
    map_axes,
    phase_table,
    tables_of,
    titled_chart,
)
from lmc_tune.analysis.report.charts.style import (
    NOT_JUDGED,
    ON_LIGHT,
    PANEL_WIDTH,
    VERDICT_COLOURS,
    Points,
    barrier_axis,
    finish,
    interval_layers,
    tick_axis,
    tile_scale,
    tooltips,
    wrapped,
)
from lmc_tune.analysis.wording import confidence, nats, percentage_points
from lmc_tune.core.barrier import Array
from lmc_tune.experiment import VerdictSpec

# The whole width of the page at 1280 px.
PAGE_WIDTH = 1168
# The colour of no difference, between those of lower and of higher.
SAME = "#f4f2ec"
# The least that the scale's ends may be from 0, in percentage points.
LEAST_SCALE = 0.1
LINES_WIDTH = 2 * PANEL_WIDTH
# How far points of both runs stand from their place, in parts of the axis.
ASIDE = 0.004


def comparison_chart(comparison: Comparison, width: float = PAGE_WIDTH) -> Any:
    """Per panel the verdicts of both runs and the difference of their barriers; over one axis, both as lines.

    Args:
        comparison: what is drawn.
        width: of the whole chart, in pixels.
    """
    if comparison.first.y is None:
        return finish(_lines(comparison, width))
    x, y = map_axes(comparison.first)
    labels = labels_width(y) + AXIS_TITLE_WIDTH
    third = int((width - 2 * GAP) / 3 - labels)
    beside = third >= LETTER_WIDTH * len(x.ticks)
    layout = Layout(
        rows=(),
        grid=False,
        beside=beside,
        map_width=third if beside else int(min(width - labels, 640)),
        map_height=map_height(len(y.ticks)),
    )
    runs = [
        Maps(diagram=run, tables=tables_of(run, phase_table(run)), picked=None, layout=layout, width=width)
        for run in (comparison.first, comparison.second)
    ]
    plain = replace(comparison.first, boundary=comparison.first.boundary.head(0))
    tables = tables_of(plain, difference_table(comparison))
    difference = _Differences(diagram=plain, tables=tables, picked=None, layout=layout, width=width)
    titles = (*comparison.names, f"Barrier of {comparison.names[1]} less that of {comparison.names[0]}")
    rows = []
    for panel in comparison.first.panels:
        maps = [run.map("letter", panel, first=at == 0 or not beside) for at, run in enumerate(runs)]
        maps.append(difference.map("difference_text", panel, first=not beside))
        named = [
            titled_chart(chart, wrapped(title, layout.map_width), **SUBTITLE)
            for chart, title in zip(maps, titles, strict=True)
        ]
        row: Any = alt.hconcat(*named, spacing=GAP) if beside else alt.vconcat(*named, spacing=GAP)
        several = len(comparison.first.panels) > 1
        rows.append(row.properties(title=alt.Title(wrapped(panel, width), offset=2)) if several else row)
    chart = alt.vconcat(*rows, spacing=24).resolve_scale(fill="shared", color="shared")
    chart.params = [alt.param(name="map_width", value=layout.map_width).param]
    return finish(chart)


def difference_table(comparison: Comparison) -> pd.DataFrame:
    """The cells of the first run as they are drawn, and what the second adds to them.

    Columns as :func:`~lmc_tune.analysis.report.charts.phase_chart.phase_table`, but ``verdict`` says both where they
    differ; cells that are not in both count as not run. ``difference``: percentage points or nats; ``difference_text``,
    in the tile; ``difference_words``, with its interval; ``changed``, whether the verdict did.
    """
    verdict, cells = comparison.first.verdict, comparison.cells
    table = phase_table(comparison.first).merge(cells[["cell", "changed"]], on="cell", how="left")
    both = table["changed"].notna()
    own = cells.set_index("cell").reindex(table["cell"]).reset_index()
    bounds = own[["difference", "difference_low", "difference_high"]]
    known = bounds["difference"].replace([np.inf, -np.inf], np.nan)
    table["difference"] = known * (100 if verdict.quantity == "error" else 1)
    sure = np.isfinite(own["difference_low"].to_numpy(dtype=np.float64, na_value=np.nan))
    table["difference_text"] = [_in_tile(value, verdict) if has else "" for value, has in zip(known, sure, strict=True)]
    table["difference_text_light"] = table["difference"] < -0.6 * _most(table, verdict)
    table["difference_words"] = [
        f"{difference_words(row, verdict)}, n = {n:g}" if n > 0 else "not known"
        for row, n in zip(bounds.itertuples(index=False), own["n_both"], strict=True)
    ]
    words = [_both(before, after) for before, after in zip(own["first_verdict"], own["second_verdict"], strict=True)]
    return table.assign(verdict=np.where(both, words, NOT_RUN), changed=table["changed"].eq(other=True))


def difference_words(values: Sequence[float], verdict: VerdictSpec) -> str:
    """A difference of barriers and its bounds, e.g. ``+3.1 pp (+1.0 to +5.2)``.

    Args:
        values: fractions or nats.
        verdict: that they are judged by.
    """
    difference, low, high = values
    if not np.isfinite(difference):
        return "not known"
    unit = "pp" if verdict.quantity == "error" else "nats"
    said = f"{_signed(difference, verdict)} {unit}"
    return f"{said} ({_signed(low, verdict)} to {_signed(high, verdict)})" if np.isfinite([low, high]).all() else said


def _signed(value: float, verdict: VerdictSpec) -> str:
    return percentage_points(100 * value) if verdict.quantity == "error" else ("+" if value > 0 else "") + nats(value)


def _in_tile(value: float, verdict: VerdictSpec) -> str:
    """As short as it can be: tiles of three maps side by side are narrow."""
    if verdict.quantity == "error" and abs(value) >= 0.0995:
        return f"{100 * value:+.0f}".replace("-", "−")
    return _signed(value, verdict)


def _most(table: pd.DataFrame, verdict: VerdictSpec) -> float:
    """The end of the colour scale."""
    least = LEAST_SCALE if verdict.quantity == "error" else LEAST_SCALE / 100
    return max(float(table["difference"].abs().max()), least) if table["difference"].notna().any() else least


def _both(before: Any, after: Any) -> str:
    return f"{before}, then {after}" if before != after else f"{before} in both"


@dataclass(frozen=True, kw_only=True)
class _Differences(Maps):
    """The maps of differences; outlined where the verdict changed."""

    def fills(
        self,
        kind: str,  # noqa: ARG002 - all of its maps are of one kind
        base: alt.Chart,
        tile: Mapping[str, Any],
    ) -> list[alt.Chart]:
        """The tiles in colour, and outlines where the verdict changed."""
        table = pd.concat(planned for planned, _, _ in self.tables.values())
        most = _most(table, self.diagram.verdict)
        colours = [VERDICT_COLOURS["connected"], SAME, VERDICT_COLOURS["disconnected"]]
        unit = "percentage points" if self.diagram.verdict.quantity == "error" else "nats"
        colour = alt.Color(
            "difference:Q",
            title=f"difference ({unit})",
            scale=alt.Scale(domain=[-most, 0, most], range=colours, interpolate="lab"),
            legend=alt.Legend(orient="top", gradientLength=130, tickCount=3, labelOverlap="greedy", labelSeparation=6),
        )
        known = "isValid(datum.difference)"
        return [
            base.transform_filter(f"!{known}").mark_rect(fill=NOT_JUDGED, **tile),
            base.transform_filter(known).mark_rect(**tile).encode(color=colour),
            base.transform_filter("datum.changed").mark_rect(fill=None, stroke=ON_LIGHT, strokeWidth=2.5),
        ]

    def touch(self, base: alt.Chart) -> list[alt.Chart]:
        places = tooltips(self.diagram)[: len(self.diagram.axes)]
        said = [alt.Tooltip("verdict:N"), alt.Tooltip("difference_words:N", title="difference")]
        return [base.mark_rect(opacity=0).encode(tooltip=[*places, *said])]


def _lines(comparison: Comparison, width: float) -> Any:
    """Mean barriers of both runs with their intervals along the one axis that varies, a chart per panel."""
    first = comparison.first
    tables = [
        phase_table(run).assign(run=name)
        for run, name in zip((comparison.first, comparison.second), comparison.names, strict=True)
    ]
    if first.x is not None:  # so that intervals do not cover each other
        for table, by in zip(tables, (-ASIDE, ASIDE), strict=True):
            table["x"] = _moved(first.x, table["x"], by)
    table = pd.concat(tables, ignore_index=True)
    table = table[table["verdict"] != NOT_RUN]
    colour = alt.Color(
        "run:N",
        title=None,
        scale=alt.Scale(domain=list(comparison.names), range=list(PANEL_COLOURS[:2])),
        legend=alt.Legend(orient="top", labelLimit=400, columns=1 if max(map(len, comparison.names)) > 30 else 2),
    )
    panels = first.panels if first.x is not None else ("",)
    charts = [
        _panel(comparison, table[table["panel"] == panel] if panel else table, colour).properties(
            width=int(min(width - AXIS_WIDTH, LINES_WIDTH)),
            height=LINES_HEIGHT,
            title=wrapped(panel, LINES_WIDTH) if len(panels) > 1 else "",
        )
        for panel in panels
    ]
    return alt.vconcat(*charts, spacing=24).resolve_scale(y="shared", color="shared", shape="shared")


def _moved(axis: Axis, drawn: pd.Series, by: float) -> Array:
    """Values as they are drawn, moved along the axis by a part of its length."""
    edges, values = axis.drawn(axis.edges), drawn.to_numpy(dtype=np.float64)
    moved: Array = (
        values * (edges[-1] / edges[0]) ** by if axis.scale == "log" else values + by * (edges[-1] - edges[0])
    )
    return moved


def _panel(comparison: Comparison, table: pd.DataFrame, colour: alt.Color) -> Any:
    first, names = comparison.first, comparison.names
    y, chart, offset, lines = barrier_axis(alt.Y, table, first.verdict), alt.Chart(table), None, []
    if first.x is not None:
        x = alt.X("x:Q", scale=tile_scale(first.x), axis=tick_axis(first.x))
        lines = [chart.mark_line(strokeWidth=1.8, opacity=0.8).encode(x=x, y=y, detail="run:N", color=colour)]
    else:
        x = alt.X("panel:N", title=None, sort=list(first.panels), axis=alt.Axis(labelAngle=0, labelLimit=150))
        offset = alt.XOffset("run:N", sort=list(names), scale=alt.Scale(padding=0.9))
    points = Points(x=x, y=y, colour=colour, offset=offset, guide=first.verdict.threshold)
    letters = [
        letters_at_the_top(rows, x, first, at).encode(color=colour)
        for at, (_, rows) in enumerate(table.groupby("run", sort=False))
        if not rows["judged"].all()
    ]
    return alt.layer(*lines, *interval_layers(table, points, first, None), *letters)


def legend_words(comparison: Comparison) -> str:
    """What a reader of the chart has to know."""
    if comparison.first.y is None:
        return f"Bars are {confidence(comparison.first.verdict)} intervals of the mean barrier; dashed: threshold."
    return (
        f"Right: how much higher the mean barrier is in {comparison.names[1]}, over the pairs that are ok in both, "
        "where at least three are; outlined: another verdict. The line separates tiles whose mean barrier is below the "
        "threshold from the others. *: next to divergence; C/D: connected on the split that is judged, disconnected on "
        "the other."
    )
