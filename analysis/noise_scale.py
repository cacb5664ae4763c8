"""Mean barrier against the SGD noise scale g = ε (N/B − 1): do the cells fall on one curve?"""

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from analysis.charts import PANEL_WIDTH, barrier_height, finish, interval_layers
from analysis.phase import PhaseDiagram
from analysis.phase_chart import phase_table
from analysis.words import axis_title, number

MANY_COLOURS = 8
DRAWN = ("cell", "panel", "verdict", "mean", "shown_barrier", "shown_low", "shown_high")


def noise_table(diagram: PhaseDiagram) -> pd.DataFrame:
    """The judged cells with a noise scale above 0, in its order: what is drawn of ``phase_table``; ``g``, ``colour``.

    ``colour`` is the batch size where it varies, else the value of the first axis. A full batch has g = 0, which a
    logarithmic axis cannot show.
    """
    table = phase_table(diagram)
    table["g"] = diagram.cells["noise_scale"]
    column = colour_column(diagram)
    table["colour"] = diagram.cells[column].astype(float) if column else 0.0
    drawn = [*DRAWN, *(axis.column for axis in diagram.axes), "g", "colour"]
    return table.loc[table["judged"] & (table["g"] > 0), drawn].sort_values(["g", "cell"]).reset_index(drop=True)


def colour_column(diagram: PhaseDiagram) -> str | None:
    """What tells the points apart beside their place: the batch size if it varies, else the first axis."""
    if len(diagram.cells["batch_size"].unique()) > 1:
        return "batch_size"
    return diagram.x.column if diagram.x is not None else None


def noise_chart(diagram: PhaseDiagram, table: pd.DataFrame, picked: str | None = None) -> Any:
    """One panel per panel of the phase diagram, all on the same axes; the dashed line is the threshold."""
    x = alt.X(
        "g:Q",
        title="noise scale g (log scale)",
        scale=alt.Scale(type="log", domain=[table["g"].min(), table["g"].max()], nice=False, padding=12),
        axis=alt.Axis(format="~g", tickCount=5, labelOverlap="greedy", grid=False),
    )
    place = x, barrier_height(table, diagram.verdict)
    colour = _colour(diagram, table)
    panels = [
        alt.layer(*interval_layers(table[table["panel"] == panel], place, diagram, colour, picked)).properties(
            width=PANEL_WIDTH, height=210, title=panel if len(diagram.panels) > 1 else ""
        )
        for panel in diagram.panels
        if (table["panel"] == panel).any()
    ]
    chart: Any = alt.concat(*panels, columns=3, spacing=28).resolve_scale(
        x="shared", y="shared", color="shared", shape="shared"
    )
    return finish(chart, picked)


def _colour(diagram: PhaseDiagram, table: pd.DataFrame) -> alt.Color | None:
    column = colour_column(diagram)
    if column is None:
        return None
    values = np.unique(table["colour"])
    # The end of viridis that reads on white.
    scheme = alt.SchemeParams(name="viridis", extent=[0.05, 0.8])
    if len(values) > MANY_COLOURS:
        named = values[np.linspace(0, len(values) - 1, MANY_COLOURS).round().astype(int)].tolist()
        legend = alt.Legend(orient="top", values=named, format=".3~g")
        scale = alt.Scale(type="log" if values[0] > 0 else "linear", scheme=scheme)
        return alt.Color("colour:Q", title=axis_title(column), scale=scale, legend=legend)
    names = {f"{value:g}": number(value) for value in values}
    return alt.Color(
        "colour:O",
        title=axis_title(column),
        scale=alt.Scale(domain=values.tolist(), scheme=scheme),
        legend=alt.Legend(orient="top", labelExpr=f"({names})[datum.label] || datum.label", columns=8),
    )
