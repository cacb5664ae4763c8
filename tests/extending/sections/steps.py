"""A section as somebody else would add it: this file, in a folder of theirs."""

import pandas as pd

from lmc_tune.analysis.report.section import Context, Section

ORDER = 35


def numbers(context: Context) -> dict[str, pd.Series]:
    return {"thousand_steps": context.diagram.pairs["steps"] / 1000}


def make(context: Context) -> Section | None:
    table = context.intervals["thousand_steps"].assign(cell=context.diagram.cells["cell"]).set_index("cell")
    if table["mean"].isna().all():
        return None
    return Section(
        id="steps", title="Steps", lead="Thousands of steps.", table=table[["mean"]].map("{:.3f}".format), of_cells=True
    )
