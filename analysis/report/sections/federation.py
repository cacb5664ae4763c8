"""Federations: accuracy of clients round by round, before and after they are averaged."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.analysis.report.cell_table import MOST_ROWS, places
from lmc_tune.analysis.report.charts.rounds import collect_rounds, excess_loss, rounds_chart
from lmc_tune.analysis.report.section import Context, Section
from lmc_tune.analysis.wording import UNKNOWN, nats, number, percent

ORDER = 5
# A page with more of these columns becomes a wall.
MOST_CELLS = 12


def make(context: Context) -> Section | None:
    """None if no round of an ok federation was measured."""
    diagram = context.diagram
    table = collect_rounds(diagram.pairs, context.parts("rounds"))
    if table.empty:
        return None
    cells = diagram.in_order(diagram.cells)
    cells = cells[cells["cell"].isin(table["cell"])]
    drawn = cells.head(MOST_CELLS)
    titles = list(zip(drawn["cell"], cell_titles(diagram, drawn), strict=True))
    return Section(
        id="rounds",
        title="Rounds",
        lead="A column per cell, means over its counted federations. Above: accuracy on the common test set, and of "
        "each client on the examples that it trained on, which are no held-out ones: a client may have too few to hold "
        "any out. Lines are means over the clients, weighted by their numbers of examples, before and after they are "
        "averaged; bands reach from the lowest client to the highest. Dashed: the average of all layers of all "
        "clients, whether it is used or not. Below: its test loss less the clients' mean before the average; above 0, "
        "a barrier separates the average from its members.",
        label="Accuracy of clients by round, before and after the average, for every cell",
        chart=rounds_chart(table, titles),
        table=round_table(diagram, table, cells),
        of_cells=True,
        note=f"Drawn: the first {MOST_CELLS} of {len(cells)} cells; the others are in rounds.parquet."
        if len(cells) > MOST_CELLS
        else "",
    )


def cell_titles(diagram: PhaseDiagram, cells: pd.DataFrame) -> list[str]:
    """Where cells are, in a few words."""
    titles = []
    for row in cells.to_dict("records"):
        parts = [f"{axis.title} {number(row[axis.column])}" for axis in diagram.axes]
        panel = [row["panel"]] if len(diagram.panels) > 1 or not parts else []
        titles.append(" · ".join([*panel, *parts]))
    return titles


def round_table(diagram: PhaseDiagram, table: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """The last round of every cell in words; indexed by the cell's id, columns as headed."""
    cells = cells.head(MOST_ROWS)
    last = table[table["round"] == table.groupby("cell")["round"].transform("max")]
    known = {(row["cell"], row["what"], row["split"]): row for row in last.to_dict("records")}
    pooled = {cell: row["accuracy"] for (cell, what, _), row in known.items() if what == "pooled"}
    excess = excess_loss(last).set_index("cell")["excess"]

    def spread(what: str, split: str) -> list[str]:
        return [_spread(known.get((cell, what, split))) for cell in cells["cell"]]

    columns = {
        **places(diagram, cells),
        "rounds": [str(n) for n in last.groupby("cell")["round"].max().reindex(cells["cell"])],
        "clients on test, trained": spread("trained", "test"),
        "averaged": spread("averaged", "test"),
        "on own, trained": spread("trained", "own"),
        "on own, averaged": spread("averaged", "own"),
        "average of all layers": [percent(pooled.get(cell)) for cell in cells["cell"]],
        "excess loss (nats)": [nats(value) for value in excess.reindex(cells["cell"])],
    }
    return pd.DataFrame({name: list(values) for name, values in columns.items()}, index=pd.Index(cells["cell"]))


def _spread(row: Mapping[Any, Any] | None) -> str:
    """E.g. ``91.2% (88.0 to 93.1%)``: the mean over clients, the lowest and the highest."""
    if row is None:
        return UNKNOWN
    low, high = percent(row["lowest"]).removesuffix("%"), percent(row["highest"])
    return f"{percent(row['accuracy'])} ({low} to {high})"
