"""In one basin or in several: what ensembles of every family are worth, and what they cost (Lion et al. 2024)."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from lmc_tune.analysis.families import REFERENCE, differences, family_table
from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.analysis.report.cell_table import MOST_ROWS, places
from lmc_tune.analysis.report.charts.family_chart import worth_chart
from lmc_tune.analysis.report.content import ALL_CELLS, ends_early
from lmc_tune.analysis.report.section import Context, Section
from lmc_tune.analysis.wording import UNKNOWN, confidence, nats, number, percent, percentage_points

ORDER = 4
# Of which is told how far they are from independent members; those of others are in the table.
IN_ONE_BASIN = ("constrained", "distilled", "swe")


def make(context: Context) -> Section | None:
    """None if there is no ok ensemble."""
    diagram = context.diagram
    if diagram.group != "ensemble" or (table := family_table(diagram)).empty:
        return None
    apart = differences(diagram)
    shown = table.head(MOST_ROWS)
    return Section(
        id="families",
        title="In one basin or in several?",
        lead=" ".join([*said(table, apart), _explained(diagram)]),
        label="Accuracy of every family against its training steps, and against its connectivity",
        chart=worth_chart(table),
        table=worth_table(diagram, shown, apart),
        of_cells=True,
        note=ends_early(len(shown), len(table), "cells", ALL_CELLS),
    )


def _explained(diagram: PhaseDiagram) -> str:
    return (
        "Ensemble: the members' predictions averaged; it costs as many networks as members. Average: the mean of their "
        "weights; it costs one network. Steps: of all that was trained for the ensemble, teachers included; what "
        "members have in common is counted once. q̄: accuracy of weighted averages less the members' by the same "
        "weights, in the mean over draws; below 0, barriers separate the members. Bars and ±: "
        f"{confidence(diagram.verdict)} intervals of means over the counted ensembles."
    )


def said(table: pd.DataFrame, apart: pd.DataFrame) -> list[str]:
    """How far connected families are from independent members, and what they cost, in words; nothing if cells differ
    in more than their families.
    """
    if table["name"].duplicated().any() or not (table["family"] == REFERENCE).any():
        return []
    steps = table.set_index("family")["training_steps"]
    known = {(row["cell"], row["what"]): row for row in apart.to_dict("records")}
    sentences = []
    for row in table[table["family"].isin(IN_ONE_BASIN)].to_dict("records"):
        ensemble, average = (known.get((row["cell"], what)) for what in ("ensemble", "average"))
        if ensemble and average:
            cost = row["training_steps"] / steps[REFERENCE]
            sentences.append(
                f"{row['name']}, for {cost:.2g} times the training steps, is {_apart(ensemble)} as an ensemble, and "
                f"{_apart(average)} as the average of its weights, which costs one network"
            )
    if not sentences:
        return []
    return [f"Beside an ensemble of independent members, in points of test accuracy: {'; '.join(sentences)}."]


def _apart(row: Mapping[Any, Any]) -> str:
    """E.g. ``0.4 ± 0.3 below``."""
    half = (row["high"] - row["low"]) / 2
    spread = f" ± {half:.1f}" if half < float("inf") else " (no interval)"
    return f"{abs(row['difference']):.1f}{spread} {'below' if row['difference'] < 0 else 'above'}"


def worth_table(diagram: PhaseDiagram, table: pd.DataFrame, apart: pd.DataFrame) -> pd.DataFrame:
    """The cells in words, in the order and layout of the source's tables; indexed by the cell's id."""
    known = {(row["cell"], row["what"]): row for row in apart.to_dict("records")}
    rows = table.to_dict("records")

    def difference(what: str) -> list[str]:
        return [_difference(known.get((row["cell"], what))) for row in rows]

    columns = {
        **{name: list(values) for name, values in places(diagram, table).items()},
        "members": [number(row["member_count"]) for row in rows],
        "mean member": [percent(row["member_accuracy"]) for row in rows],
        "ensemble": [percent(row["ensemble_accuracy"]) for row in rows],
        **({"− deep (pp)": difference("ensemble")} if known else {}),
        "average": [percent(row["average_accuracy"]) for row in rows],
        **({"average − deep (pp)": difference("average")} if known else {}),
        "q̄ (pp)": [percentage_points(row["connectivity"]) for row in rows],
        "NLL": [nats(row["ensemble_nll"]) for row in rows],
        "ECE": [percent(row["ensemble_ece"]) for row in rows],
        "ECE, scaled": [percent(row["scaled_ece"]) for row in rows],
        "diversity": [nats(row["jensen_shannon"]) for row in rows],
        "steps": [number(row["training_steps"]) for row in rows],
        "size (MB)": [f"{row['stored_bytes'] / 1e6:.3g}" for row in rows],
    }
    return pd.DataFrame(columns, index=pd.Index(table["cell"]))


def _difference(row: Mapping[Any, Any] | None) -> str:
    if row is None:
        return UNKNOWN
    half = (row["high"] - row["low"]) / 2
    spread = f" ± {half:.2f}" if half < float("inf") else ""
    return f"{percentage_points(row['difference'])}{spread}"
