"""Mean barrier against the SGD noise scale g = ε (N/B − 1): do the cells fall on one curve?"""

from typing import Any

import altair as alt
import pandas as pd

from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.analysis.report.charts.points import judged_cells, panels_of_points, point_colour
from lmc_tune.analysis.report.charts.style import Points, barrier_axis
from lmc_tune.analysis.report.section import Context, Section
from lmc_tune.analysis.wording import confidence

ORDER = 30


def make(context: Context) -> Section | None:
    """None unless judged cells differ in their noise scales, other than by one of 0."""
    diagram = context.diagram
    table = noise_table(diagram)
    if len(table["g"].unique()) < 2:
        return None
    terms = "learning rate ε, batch size B and N training examples per member"
    if "noise_scale" in diagram.of_a:
        terms = "A's learning rate ε, its batch size B and its N training examples"
    return Section(
        id="noise",
        title="Barrier against noise scale",
        lead=f"g = ε (N / B − 1), with {terms} (Smith & Le 2018; momentum is not in it). If g decided alone, all "
        "points would fall on one curve. Bars: "
        f"{confidence(diagram.verdict)} intervals; dashed: threshold. Undertrained and diverged cells are not shown.",
        label="Mean barrier of every judged cell against its noise scale",
        chart=noise_chart(diagram, table, context.picked),
    )


def noise_table(diagram: PhaseDiagram) -> pd.DataFrame:
    """The judged cells with a noise scale ``g`` above 0, in its order, as ``judged_cells``.

    A full batch has g = 0, which a logarithmic axis cannot show.
    """
    table = judged_cells(diagram).join(diagram.cells["noise_scale"].rename("g"))
    return table[table["g"] > 0].sort_values(["g", "cell"]).reset_index(drop=True)


def noise_chart(diagram: PhaseDiagram, table: pd.DataFrame, picked: str | None = None) -> Any:
    """One panel per panel of the phase diagram, all on the same axes; the dashed line is the threshold."""
    points = Points(
        x=noise_axis(diagram, table),
        y=barrier_axis(alt.Y, table, diagram.verdict),
        colour=point_colour(diagram, table),
        guide=diagram.verdict.threshold,
    )
    return panels_of_points(diagram, table, points, picked)


def noise_axis(diagram: PhaseDiagram, table: pd.DataFrame) -> alt.X:
    """g along a logarithmic axis that fits the table."""
    return alt.X(
        "g:Q",
        title=f"{diagram.title('noise_scale')} (log scale)",
        scale=alt.Scale(type="log", domain=[table["g"].min(), table["g"].max()], nice=False, padding=12),
        axis=alt.Axis(format="~g", tickCount=5, labelOverlap="greedy", grid=False),
    )
