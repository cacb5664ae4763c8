"""Layers moved alone: their barriers one by one, and as they add up from the input and from the output."""

from lmc_tune.analysis.report.charts.layer_charts import barrier_charts, control_table, line_table, set_table
from lmc_tune.analysis.report.content import most_telling, place
from lmc_tune.analysis.report.section import Context, Section
from lmc_tune.analysis.wording import confidence, quantity

ORDER = 64
# So many rows make about 1 MB of a page.
MOST_ROWS = 50_000


def make(context: Context) -> Section | None:
    """None if no layers were moved alone under the judged condition."""
    heights, verdict = context.layer_heights, context.diagram.verdict
    if heights is None or heights.rows.empty:
        return None
    cell, intervals = shown_first(context), context.layer_intervals
    follows = len(intervals) <= MOST_ROWS
    if not follows:
        intervals = intervals[intervals["cell"] == cell]
    return Section(
        id="layer_barriers",
        title="Layers moved alone",
        lead=f"The cell that is shown. A mark is the mean barrier of {quantity(verdict)} of a network of which only "
        "these layers are half-way to the other member's, against the mean of the two whole members; "
        f"bars: {confidence(verdict)} intervals. In rows: the mean of both members, and, small, A and B by "
        "themselves. “All layers” is the average of the members, grey its interval; “an equal share” is what "
        "each of s layers would have if all had the same, 1/s of it, and adds up along the dotted line.",
        label="Barriers of single layers and of the first and last layers of the cell that is shown",
        chart=barrier_charts(
            set_table(intervals, verdict),
            line_table(intervals, verdict),
            control_table(intervals, verdict),
            places_of(context),
            verdict,
            cell,
            follows=follows,
        ),
        note="" if follows else ONE_CELL.format(place=places_of(context)[cell], table="layer_barriers.parquet"),
    )


ONE_CELL = "Too many cells to draw each: this is {place}. The others are in {table}."


def shown_first(context: Context) -> str:
    """The cell that a chart of one cell shows until another is pointed at; that of the page, if it has layers."""
    own = set(context.layer_intervals["cell"])
    wanted = context.picked or most_telling(context.diagram)
    return wanted if wanted in own else min(own)


def places_of(context: Context) -> dict[str, str]:
    """Of the cells that have layers, in words."""
    diagram, own = context.diagram, set(context.layer_intervals["cell"])
    return {row["cell"]: place(diagram, row) for row in diagram.cells.to_dict("records") if row["cell"] in own}
