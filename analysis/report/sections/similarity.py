"""Similarity against barrier: do pairs that are connected also err alike?"""

from typing import Any

import altair as alt
import pandas as pd

from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.analysis.report.charts.points import judged_cells
from lmc_tune.analysis.report.charts.style import Points, barrier_axis, finish, fitted, interval_layers, verdict_colour
from lmc_tune.analysis.report.section import Context, Section
from lmc_tune.analysis.wording import confidence
from lmc_tune.tables.columns import RESULTS

ORDER = 50
# Columns and the formats of their axes, which have no precision so that Vega takes one that tells the ticks apart.
MEASURES = {"disagreement": "~%", "error_overlap_ratio": "~f", "jensen_shannon": "~g", "cka": "~f"}
WIDTH = 216


def make(context: Context) -> Section | None:
    """None if none of the measures is known of a judged cell, or there are too many cells."""
    diagram = context.diagram
    if not context.detailed or not known_measures(table := similarity_table(diagram)):
        return None
    return Section(
        id="similarity",
        title="Similarity against barrier",
        lead="Each point is a judged cell, means over its counted pairs on the test set. Disagreement: how often A and "
        "B predict different classes. Error overlap: how often both are wrong, over what independent errors would "
        "give. CKA: how alike the outputs of their layers are, debiased; 1 is the same up to rotation and scale. Bars: "
        f"{confidence(diagram.verdict)} intervals of the mean barrier; dashed: threshold.",
        label="Mean barrier of every judged cell against measures of similarity",
        chart=similarity_chart(diagram, table, context.picked),
    )


def similarity_table(diagram: PhaseDiagram) -> pd.DataFrame:
    """The judged cells, as ``judged_cells``, and their means of :data:`MEASURES`."""
    return judged_cells(diagram).join(diagram.cells[list(MEASURES)]).reset_index(drop=True)


def known_measures(table: pd.DataFrame) -> list[str]:
    """Those that are known of any of its cells."""
    return [name for name in MEASURES if table[name].notna().any()]


def similarity_chart(diagram: PhaseDiagram, table: pd.DataFrame, picked: str | None = None) -> Any:
    """One panel per known measure, all cells in each, coloured by their verdicts."""
    panels = []
    for at, name in enumerate(known_measures(table)):
        y = barrier_axis(alt.Y, table, diagram.verdict, titled=at == 0)
        x = fitted(alt.X, table[[name]], (), title=RESULTS[name].heading, number_format=MEASURES[name])
        points = Points(x=x, y=y, colour=verdict_colour(), guide=diagram.verdict.threshold)
        layers = interval_layers(table[table[name].notna()], points, diagram, picked)
        panels.append(alt.layer(*layers).properties(width=WIDTH, height=210))
    chart: Any = alt.concat(*panels, columns=4, spacing=16).resolve_scale(color="shared", shape="shared")
    return finish(chart, picked)
