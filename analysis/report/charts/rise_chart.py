"""Rises of loss or error after steps: a small chart each, with the spread of the draws."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from lmc_tune.analysis.report.charts.layer_axis import layer_axis, layers_in_words
from lmc_tune.analysis.report.charts.phase_chart import PANEL_COLOURS
from lmc_tune.analysis.report.charts.style import FAINT, finish, tick_style, wrapped
from lmc_tune.analysis.rises import LAYER_KINDS, NOISE_KINDS, PLACES
from lmc_tune.core.counted import counted

WIDTH, HEIGHT = 196, 130
# A page with more of these small charts becomes a wall.
MOST_CHARTS = 16
_SHAPES = ("circle", "diamond", "triangle-up", "square", "triangle-down")


def direction_chart(table: pd.DataFrame, title: str, *, percent: bool) -> Any:
    """Rise by layer; None without rows."""
    if table.empty:
        return None
    table = table.assign(layer=layers_in_words(table["place"], table["layer"]))
    x = layer_axis("place", table, WIDTH)
    return _rise_charts(table, x, list(LAYER_KINDS.values()), title, percent=percent)


def noise_chart(table: pd.DataFrame, title: str, *, percent: bool) -> Any:
    """Rise by the norm of the noise; None without rows."""
    if table.empty:
        return None
    x = _length_axis(table, "norm (distances ‖A − B‖)")
    names = [name for kind, name in NOISE_KINDS.items() if (table["kind"] == kind).any()]
    return _rise_charts(table, x, names, title, percent=percent)


def filter_chart(table: pd.DataFrame, title: str, *, percent: bool) -> Any:
    """Rise by radius; None without rows."""
    if table.empty:
        return None
    x = _length_axis(table, "radius (lengths of every filter)")
    return finish(_rise_charts(table, x, list(PLACES.values()), title, percent=percent))


def _length_axis(table: pd.DataFrame, title: str) -> alt.X:
    """How long steps are, from none at all."""
    scale = alt.Scale(domain=[0, float(table["alpha"].max())], nice=False)
    return alt.X("alpha:Q", title=title, scale=scale, axis=alt.Axis(tickCount=4, grid=False))


def _rise_charts(table: pd.DataFrame, x: alt.X, names: Sequence[str], title: str, *, percent: bool) -> Any:
    """The first ``chart``s of a table, all on one vertical axis: a line per ``name``, and the band of its draws.

    Args:
        table: ``chart``, ``name``, ``layer``, ``position``, ``alpha``, what is along ``x``, ``rise`` with ``low`` and
            ``high``; and ``n`` pairs, if they are counted.
        x: the horizontal axis. names: of the lines, in order. title: of the vertical axis.
        percent: whether rises are errors.
    """
    table = table[table["chart"].isin(table["chart"].drop_duplicates()[:MOST_CHARTS])]
    known = np.append(table[["rise", "low", "high"]].to_numpy().ravel(), 0.0)
    y = alt.Y(
        "rise:Q",
        title=title,
        scale=alt.Scale(domain=[float(known.min()), float(known.max())], nice=True),
        axis=alt.Axis(format=tick_style(percent=percent), tickCount=4),
    )
    colour = alt.Color(
        "name:N",
        title=None,
        scale=alt.Scale(domain=list(names), range=list(PANEL_COLOURS[: len(names)])),
        legend=alt.Legend(orient="top", labelLimit=360, symbolOpacity=1),
    )
    shape = alt.Shape("name:N", title=None, scale=alt.Scale(domain=list(names), range=list(_SHAPES[: len(names)])))
    tooltip = [
        alt.Tooltip("name:N", title="direction"),
        *([alt.Tooltip("layer:N")] if (table["position"] >= 0).any() else []),
        alt.Tooltip("alpha:Q", title="length of the step", format="~g"),
        alt.Tooltip("rise:Q", title="mean rise", format=".3~%" if percent else ".3~g"),
        alt.Tooltip("low:Q", title="lowest draw", format=".3~%" if percent else ".3~g"),
        alt.Tooltip("high:Q", title="highest draw", format=".3~%" if percent else ".3~g"),
        *([alt.Tooltip("n:Q", title="pairs")] if "n" in table else []),
    ]
    charts = []
    for name, rows in table.groupby("chart", sort=False):
        base = alt.Chart(rows).encode(x=x, y=y, color=colour)
        zero = alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(strokeDash=[3, 4], color=FAINT, opacity=0.6)
        layers = [
            zero.encode(y=alt.Y("zero:Q")),
            alt.Chart(rows).mark_area(opacity=0.18).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour),
            base.mark_line(strokeWidth=1.6),
            base.mark_point(filled=True, size=40, opacity=1).encode(shape=shape, tooltip=tooltip),
        ]
        heading = [*wrapped(str(name), WIDTH), *([counted(int(rows["n"].max()), "pair")] if "n" in rows else [])]
        charts.append(
            alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, title=alt.Title(heading, fontSize=12, offset=2))
        )
    joined: Any = alt.concat(*charts, columns=4, spacing=22)
    return joined.resolve_scale(color="shared", shape="shared")
