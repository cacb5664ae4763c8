"""When members part: accuracy, diversity and connectivity against the epochs that they have in common."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from lmc_tune.analysis.families import family_table
from lmc_tune.analysis.report.charts.family_chart import branching_chart
from lmc_tune.analysis.report.section import Context, Section

ORDER = 4.2


def make(context: Context) -> Section | None:
    """None unless members part at several epochs."""
    diagram = context.diagram
    if diagram.group != "ensemble":
        return None
    table = family_table(diagram).dropna(subset="common_epochs")
    if table["common_epochs"].nunique() < 2:
        return None
    return Section(
        id="branching",
        title="When members part",
        lead="Members have their first t epochs in common. β is the weight of the labels: at β = 1 members learn from "
        "labels alone, below it from an independent network as well.",
        label="Accuracy, NLL, diversity and connectivity of ensembles against the epochs in common",
        chart=branching_chart(table.assign(line=[_line(row) for row in table.to_dict("records")])),
    )


def _line(row: Mapping[Any, Any]) -> str:
    beta = row["beta"]
    words = str(row["family"]).replace("_", " ")
    return words if pd.isna(beta) else f"{words} β={beta:g}"
