"""Sharpness: curvature at the members and at the midpoint, and the rise along filter-normalised directions."""

from collections.abc import Iterable

import pandas as pd
import pyarrow as pa

from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.analysis.report.charts.rise_chart import filter_chart
from lmc_tune.analysis.report.section import Context, Section
from lmc_tune.analysis.report.sections.directions import known_rises
from lmc_tune.analysis.rises import PLACES, judged_pairs
from lmc_tune.analysis.wording import number

ORDER = 74


def make(context: Context) -> Section | None:
    """None if no sharpness of a judged cell was measured."""
    diagram = context.diagram
    table = sharpness_table(diagram, context.parts("sharpness"))
    if table.empty:
        return None
    split, rises = known_rises(context)
    quantity = diagram.verdict.quantity
    chart = filter_chart(filter_table(rises), f"rise of {split} {quantity}", percent=quantity == "error")
    return Section(
        id="sharpness",
        title="Sharpness",
        lead="Table: the largest eigenvalue of the Hessian of the training loss, over the counted pairs of the cells "
        "of one verdict. Charts: the rise in random directions whose every filter is as long as the network's own (Li "
        "et al. 2018), over the point where they begin; a radius of 0.1 is a tenth of every filter's length. Bands "
        "reach from the lowest to the highest draw; all are means over pairs.",
        label="Rise along filter-normalised directions from A, from the midpoint and from B",
        chart=chart,
        table=in_words(table),
    )


def sharpness_table(diagram: PhaseDiagram, parts: Iterable[pa.Table]) -> pd.DataFrame:
    """One row per panel, verdict and position: ``mean``, ``low`` and ``high`` of the eigenvalue over ``n`` ok pairs of
    judged cells; a pair whose eigenvalue did not converge is left out.
    """
    pairs = judged_pairs(diagram)
    found = []
    for part in parts:
        rows = part.select(["key", "lambda", "eigenvalue"]).to_pandas().dropna()
        found.append(rows.join(pairs[["panel", "verdict"]], on="key", how="inner"))
    keys = ["panel", "verdict", "lambda"]
    if not found:
        return pd.DataFrame(columns=[*keys, "mean", "low", "high", "n"])
    values = pd.concat(found).groupby(keys)["eigenvalue"]
    table: pd.DataFrame = values.agg(mean="mean", low="min", high="max", n="size").reset_index()
    return table


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """The table as the page shows it."""
    return pd.DataFrame(
        {
            **({"panel": table["panel"]} if len(table["panel"].unique()) > 1 else {}),
            "cells": table["verdict"],
            "where": table["lambda"].map(PLACES),
            "mean largest eigenvalue": table["mean"].map(number),
            "lowest": table["low"].map(number),
            "highest": table["high"].map(number),
            "pairs": table["n"],
        }
    )


def filter_table(rises: pd.DataFrame) -> pd.DataFrame:
    """Rises along filter-normalised directions: ``alpha``, ``chart``, ``name``."""
    rows = rises[rises["kind"] == "filter"]
    several = len(rises["panel"].unique()) > 1
    titles = rows["verdict"] + ((" · " + rows["panel"]) if several else "")
    return rows.assign(chart=titles, name=rows["lambda"].map(PLACES)).sort_values(["panel", "verdict", "alpha"])
