"""Directions: are steps towards the other member unlike other steps of the same length?"""

from typing import Any

import altair as alt
import pandas as pd

from lmc_tune.analysis.report.charts.rise_chart import MOST_CHARTS, direction_chart, noise_chart
from lmc_tune.analysis.report.charts.style import finish
from lmc_tune.analysis.report.section import Context, Section
from lmc_tune.analysis.rises import LAYER_KINDS, NOISE_KINDS, collect_rises
from lmc_tune.analysis.wording import LAYER_PLACES
from lmc_tune.core.counted import counted

ORDER = 72


def make(context: Context) -> Section | None:
    """None if no step of a judged cell was measured."""
    verdict = context.diagram.verdict
    split, table = known_rises(context)
    layers, noise = layer_table(table), noise_table(table)
    if layers.empty and noise.empty:
        return None
    judged, percent = f"{split} {verdict.quantity}", verdict.quantity == "error"
    blocks = [
        direction_chart(layers, f"rise of {judged}", percent=percent),
        noise_chart(noise, f"rise of {judged}", percent=percent),
    ]
    chart: Any = alt.vconcat(*(block for block in blocks if block is not None), spacing=30)
    chart = chart.resolve_scale(color="independent", shape="independent")
    charts = layers["chart"].nunique(), noise["chart"].nunique()
    return Section(
        id="directions",
        title="Is the direction special?",
        lead=f"How far the {judged} rises after a step. By layer: one layer alone moves from either member, α times "
        "the layer's own distance ‖A − B‖, towards the other member or in random directions of exactly that length; "
        f"the rise is over that member. {LAYER_PLACES} By norm: all weights move from points λ of the path; the rise "
        "is over that point. Lines are means over all counted pairs of the cells of one verdict, bands reach from the "
        "lowest to the highest draw.",
        label="Rise of the judged quantity after steps towards the other member and in other directions",
        chart=finish(chart),
        note=f"Drawn: the first {MOST_CHARTS} of {counted(max(charts), 'chart')}; the others are in directions.parquet."
        if max(charts) > MOST_CHARTS
        else "",
    )


def known_rises(context: Context) -> tuple[str, pd.DataFrame]:
    """The rises (:func:`~lmc_tune.analysis.rises.collect_rises`) on the judged split, else on the other one."""
    verdict = context.diagram.verdict
    for split in (verdict.split, verdict.other_split):
        table = collect_rises(context.diagram, context.parts("directions"), split, verdict.quantity)
        if len(table):
            return split, table
    return verdict.split, table


def layer_table(rises: pd.DataFrame) -> pd.DataFrame:
    """Steps of single layers, mean over both members: ``layer``, ``place`` (from 1), ``chart``, ``name``."""
    rows = rises[rises["kind"].isin(LAYER_KINDS)]
    keys = ["panel", "verdict", "alpha", "kind", "layer", "position"]
    mean = rows.groupby(keys, as_index=False).agg({"rise": "mean", "low": "mean", "high": "mean", "n": "max"})
    return _named(mean, LAYER_KINDS, "α", mean["alpha"], rises).assign(place=mean["position"] + 1)


def noise_table(rises: pd.DataFrame) -> pd.DataFrame:
    """Noise on all weights: ``alpha``, ``chart``, ``name``."""
    rows = rises[rises["kind"].isin(NOISE_KINDS)].reset_index(drop=True)
    return _named(rows, NOISE_KINDS, "λ", rows["lambda"], rises).sort_values(["panel", "verdict", "lambda", "alpha"])


def _named(
    rows: pd.DataFrame, kinds: dict[str, str], what: str, values: pd.Series, rises: pd.DataFrame
) -> pd.DataFrame:
    """Rows with the title of their chart and the name of their line."""
    several = len(rises["panel"].unique()) > 1
    titles = [
        f"{verdict} · {what} = {value:g}" + (f" · {panel}" if several else "")
        for verdict, value, panel in zip(rows["verdict"], values, rows["panel"], strict=True)
    ]
    return rows.assign(chart=titles, name=rows["kind"].map(kinds))
