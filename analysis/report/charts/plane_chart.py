"""Planes through three weight vectors, as maps with contours."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from lmc_tune.analysis.boundary import tile_edges
from lmc_tune.analysis.contours import COLUMNS, contour_heights, contour_lines
from lmc_tune.analysis.report.charts.style import ON_DARK, ON_LIGHT, finish, tick_style, wrapped
from lmc_tune.core.barrier import Array

LEVELS = 8
LINES = (
    f"Lines are {LEVELS} heights, closest in the valleys: above the lowest value, each is as many times as high as the "
    "one before."
)
# Of several maps, and of one alone.
WIDTH, ALONE = 300, 520
LEAST_HEIGHT, MOST_HEIGHT = 140, 380
NAMES = {"a": "A", "b": "B"}


def plane_chart(table: pd.DataFrame, chosen: pd.DataFrame, *, percent: bool, loss: str) -> Any:
    """A map per pair, on one colour scale.

    Args:
        table: points of all pairs: ``key``, ``point``, ``x``, ``y``, ``value``.
        chosen: the ``title`` of every map, by key.
        percent: whether values are errors. loss: what they are called otherwise.
    """
    finite = table.loc[np.isfinite(table["value"]), "value"]
    logarithmic = not percent and finite.min() > 0
    low, high = float(finite.min()), float(finite.max())
    heights = contour_heights(finite, LEVELS)
    scale = alt.Scale(type="log" if logarithmic else "linear", scheme="viridis", domain=[low, high], clamp=True)
    legend = alt.Legend(orient="top", format=tick_style(percent=percent))
    title = "error" if percent else loss
    ink = {
        "color": alt.Color("value:Q", title=title, scale=scale, legend=legend),
        "tooltip": [alt.Tooltip("value:Q", title=title, format=".2%" if percent else ".3~g")],
    }
    width = ALONE if len(chosen) == 1 else WIDTH
    maps = [_map(table[table["key"] == key], heading, ink, heights, width) for key, heading in chosen["title"].items()]
    chart: Any = alt.concat(*maps, columns=3, spacing=26).resolve_scale(color="shared")
    return finish(chart)


def _map(rows: pd.DataFrame, heading: str, ink: Mapping[str, Any], heights: Array, width: int) -> Any:
    """Tiles, contours, and the three points with their names."""
    grid = rows[rows["point"] == "grid"].sort_values(["y", "x"])
    xs, ys = np.unique(grid["x"]), np.unique(grid["y"])
    right, top = tile_edges(xs), tile_edges(ys)
    field = grid["value"].to_numpy().reshape(len(ys), len(xs))
    x_scale, y_scale = (alt.Scale(domain=edges[[0, -1]].tolist(), nice=False, zero=False) for edges in (right, top))
    axis = alt.Axis(title="distance", tickCount=4, grid=False)
    x, y = alt.X("x:Q", scale=x_scale, axis=axis), alt.Y("y:Q", scale=y_scale, axis=axis)
    left, bottom = alt.X("left:Q", scale=x_scale, axis=axis), alt.Y("bottom:Q", scale=y_scale, axis=axis)
    lines = pd.concat([contour_lines(xs, ys, field, height) for height in heights] or [pd.DataFrame(columns=COLUMNS)])
    points = rows.loc[rows["point"] != "grid", ["point", "x", "y", "value"]].replace({"point": NAMES})
    named = alt.Chart(points).encode(x=x, y=y)
    text: dict[str, Any] = {"dy": -12, "fontSize": 12, "fontWeight": 700}
    layers = [
        alt.Chart(_tiles(field, right, top))
        .mark_rect(stroke=alt.expr("scale('color', datum.value)"), strokeWidth=0.7)  # no seam shows between tiles
        .encode(x=left, x2="right:Q", y=bottom, y2="top:Q", **ink),
        alt.Chart(lines).mark_rule(color=ON_DARK, strokeWidth=0.8, opacity=0.75).encode(x=x, y=y, x2="x2:Q", y2="y2:Q"),
        named.mark_point(filled=True, size=70, color=ON_DARK, stroke=ON_LIGHT, strokeWidth=1.2, opacity=1).encode(
            tooltip=["point:N", *ink["tooltip"]]
        ),
        named.mark_text(**text, stroke=ON_LIGHT, strokeWidth=3, color=ON_LIGHT).encode(text="point:N"),
        named.mark_text(**text, color=ON_DARK).encode(text="point:N"),
    ]
    height = float(np.clip(width * np.ptp(top) / np.ptp(right), LEAST_HEIGHT, MOST_HEIGHT))
    drawn: Any = alt.layer(*layers)
    return drawn.properties(width=width, height=height, title=alt.Title(wrapped(heading, width), fontSize=12, offset=4))


def _tiles(field: Array, right: Array, top: Array) -> pd.DataFrame:
    """The tile of every value of a grid (ny, nx) that is finite, from its edges."""
    ny, nx = field.shape
    tiles = pd.DataFrame(
        {
            "value": np.where(np.isfinite(field), field, np.nan).ravel(),
            "left": np.tile(right[:-1], ny),
            "right": np.tile(right[1:], ny),
            "bottom": top[:-1].repeat(nx),
            "top": top[1:].repeat(nx),
        }
    )
    return tiles.dropna()
