"""Planes through the members and their start, as maps with contours."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lmc_tune.analysis.boundary import tile_edges
from lmc_tune.analysis.contours import COLUMNS, contour_heights, contour_lines
from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.analysis.report.charts.style import ON_DARK, ON_LIGHT, finish, tick_style, wrapped
from lmc_tune.analysis.report.content import place
from lmc_tune.analysis.report.section import Context, Section
from lmc_tune.analysis.rises import judged_pairs, values_of
from lmc_tune.core.barrier import Array

ORDER = 76
# One of the lowest barrier, one of the highest, and those between.
MOST_PLANES, LEVELS = 6, 8
LINES = (
    f"Lines are {LEVELS} heights, closest in the valleys: above the lowest value, each is as many times as high as the "
    "one before."
)
# Of several maps, and of one alone.
WIDTH, ALONE = 300, 520
LEAST_HEIGHT, MOST_HEIGHT = 140, 380
NAMES = {"a": "A", "b": "B"}


def make(context: Context) -> Section | None:
    """None if no plane of a judged cell was measured."""
    diagram = context.diagram
    chosen = chosen_pairs(diagram, context.parts("planes"))
    if chosen.empty:
        return None
    verdict = diagram.verdict
    split, table = plane_table(context.parts("planes"), chosen, (verdict.split, verdict.other_split), verdict.quantity)
    return Section(
        id="planes",
        title="Planes through the members",
        lead=f"The {split} {verdict.quantity} on the plane through three weight vectors, which are marked. Distances "
        "are those of the weights, along both axes. One pair each of cells whose mean barriers run from the lowest to "
        f"the highest, all with the same lines. {LINES}",
        label="Maps of loss or error on planes through three weight vectors",
        chart=plane_chart(table, chosen, percent=verdict.quantity == "error", loss="loss (nats)"),
    )


def chosen_pairs(diagram: PhaseDiagram, parts: Iterable[pa.Table]) -> pd.DataFrame:
    """The first replicate of cells spread over the range of mean barriers: ``title`` by ``key``, the lowest first."""
    there = {key for part in parts for key in pc.unique(part["key"]).to_pylist()}
    pairs = judged_pairs(diagram)
    pairs = pairs[pairs.index.isin(there)]
    replicates = diagram.pairs.set_index("key")["replicate"]
    first = pairs.assign(replicate=replicates.reindex(pairs.index)).sort_values("replicate").drop_duplicates("cell")
    cells = diagram.cells[diagram.cells["cell"].isin(first["cell"])].sort_values("mean_barrier", kind="stable")
    at = np.linspace(0, len(cells) - 1, min(MOST_PLANES, len(cells))).round().astype(int)
    by_cell = first.reset_index().set_index("cell")
    rows = cells.iloc[at].to_dict("records")
    return pd.DataFrame(
        {"title": [f"{row['verdict']} · {place(diagram, row)}" for row in rows]},
        index=pd.Index([by_cell.loc[row["cell"], "key"] for row in rows], name="key", dtype=object),
    )


def plane_table(
    parts: Iterable[pa.Table], chosen: pd.DataFrame, splits: Sequence[str], quantity: str
) -> tuple[str, pd.DataFrame]:
    """The first of the splits that was measured, and the points of the chosen pairs on it, with their ``value``."""
    keys = pa.array(chosen.index, pa.string())
    rows = pd.concat([part.filter(pc.is_in(part["key"], value_set=keys)).to_pandas() for part in parts])
    split = next(split for split in splits if (rows["split"] == split).any())
    rows = rows[rows["split"] == split]
    value = values_of(rows, quantity)
    return split, rows.assign(value=value)


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
