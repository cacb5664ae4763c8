"""Planes through the members and their start, as maps with contours."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.analysis.report.charts.plane_chart import LINES, plane_chart
from lmc_tune.analysis.report.content import place
from lmc_tune.analysis.report.section import Context, Section
from lmc_tune.analysis.rises import judged_pairs, values_of

ORDER = 76
# One of the lowest barrier, one of the highest, and those between.
MOST_PLANES = 6


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
