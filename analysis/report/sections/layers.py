"""Similarity by layer: how alike A's and B's outputs are, and how far apart their weights, from the input on."""

from collections.abc import Iterable
from typing import Any

import altair as alt
import pandas as pd
import pyarrow as pa

from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.analysis.report.charts.layer_axis import layer_axis, layers_in_words
from lmc_tune.analysis.report.charts.style import finish, verdict_colour, verdict_shape, wrapped
from lmc_tune.analysis.report.section import Context, Section
from lmc_tune.analysis.wording import LAYER_PLACES
from lmc_tune.tables.columns import LAYERS

ORDER = 70
# A page with more of these small charts becomes a wall.
MOST_PANELS = 12
WIDTH = 214
MEASURES = ["cka", "distance"]


def collect_layers(diagram: PhaseDiagram, parts: Iterable[pa.Table]) -> pd.DataFrame:
    """One row per panel × verdict × layer: ``cka`` and ``distance``, means over the ok pairs of the judged cells.

    Besides ``panel``, ``verdict``, ``layer``, ``position`` (from 1, the input's side) and ``n``, the number of pairs. A
    layer that has no outputs of its own has no CKA; nor has a pair whose outputs never vary, which is passed over.

    Args:
        diagram: whose cells.
        parts: rows of the layers, as :meth:`lmc_tune.tables.store.Store.parts` gives them.
    """
    judged = diagram.cells.loc[diagram.cells["judged"], ["cell", "panel", "verdict"]]
    groups = judged.groupby(["panel", "verdict"], sort=True).ngroup()
    group_of = pd.Series(groups.to_numpy(), index=judged["cell"])
    ok = diagram.pairs.loc[diagram.pairs["status"] == "ok", ["key", "cell"]]
    of_pair = pd.Series(ok["cell"].map(group_of).to_numpy(), index=ok["key"])
    found = []
    for part in parts:
        rows = part.select(["key", "layer", "position", "cka", "distance"]).to_pandas()
        rows["group"] = of_pair.reindex(rows["key"]).to_numpy()
        by_layer = rows.dropna(subset="group").groupby(["group", "position", "layer"])[MEASURES]
        found.append(by_layer.sum().join(by_layer.count().add_suffix("_n")).reset_index())
    if not found or not sum(map(len, found)):
        return pd.DataFrame(columns=["panel", "verdict", "layer", "position", "n", *MEASURES])
    table: pd.DataFrame = pd.concat(found).groupby(["group", "position", "layer"]).sum().reset_index()
    named = judged.assign(group=groups).drop_duplicates("group").set_index("group")[["panel", "verdict"]]
    table = table.join(named, on="group")
    for name in MEASURES:
        table[name] = table[name] / table[f"{name}_n"].where(table[f"{name}_n"] > 0)
    table["n"], table["position"] = table["distance_n"].astype(int), table["position"] + 1
    return table[["panel", "verdict", "layer", "position", "n", *MEASURES]]


def make(context: Context) -> Section | None:
    """None if no layer of a judged cell was measured."""
    diagram = context.diagram
    table = collect_layers(diagram, context.parts("layers"))
    if table.empty:
        return None
    panels = [panel for panel in diagram.panels if (table["panel"] == panel).any()]
    return Section(
        id="layers",
        title="Similarity by layer",
        lead="From the input's side to the output's: how alike the outputs of A and B are (debiased CKA, 1 is the same "
        "up to rotation and scale), and how far apart their weights are. A line is the mean over all counted pairs of "
        "the panel's cells of one verdict. Layers without outputs of their own have no CKA. "
        f"{LAYER_PLACES}",
        label="CKA and distance of every layer by depth, for the cells of each verdict",
        chart=layer_chart(table, panels[:MOST_PANELS], titled=len(diagram.panels) > 1),
        note=f"Drawn: the first {MOST_PANELS} of {len(panels)} panels; the others are in layers.parquet."
        if len(panels) > MOST_PANELS
        else "",
    )


def layer_chart(table: pd.DataFrame, panels: list[str], *, titled: bool) -> Any:
    """CKA above distance by position, a line per verdict; one column per panel."""
    charts = [_panel(table[table["panel"] == panel], panel if titled else "") for panel in panels]
    chart: Any = alt.concat(*charts, columns=4, spacing=24).resolve_scale(color="shared", shape="shared")
    return finish(chart)


def _panel(rows: pd.DataFrame, title: str) -> Any:
    rows = rows.assign(layer=layers_in_words(rows["position"], rows["layer"]))
    heights = {"cka": alt.Scale(domain=[min(0.0, rows["cka"].min()), 1]), "distance": alt.Scale(zero=True)}
    charts = []
    for name in MEASURES:
        known = rows[rows[name].notna()]
        if len(known):
            x = layer_axis("position", rows, WIDTH, named=name == MEASURES[-1])
            y = alt.Y(f"{name}:Q", title=LAYERS[name].heading, scale=heights[name], axis=alt.Axis(tickCount=4))
            tooltip = [
                "layer:N",
                "verdict:N",
                alt.Tooltip("n:Q", title="pairs"),
                alt.Tooltip(f"{name}:Q", format=".3~g"),
            ]
            base = alt.Chart(known).encode(x=x, y=y, color=verdict_colour())
            line = base.mark_line(strokeWidth=1.6)
            points = base.mark_point(filled=True, size=46, opacity=1).encode(shape=verdict_shape(), tooltip=tooltip)
            charts.append(alt.layer(line, points).properties(width=WIDTH, height=110))
    column: Any = alt.vconcat(*charts, spacing=10)
    return column.properties(title=alt.Title(wrapped(title, WIDTH), offset=2)) if title else column
