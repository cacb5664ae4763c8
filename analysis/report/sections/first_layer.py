"""The first layer to break: which layers carry a barrier alone, over the axes of the phase diagram."""

from collections.abc import Mapping

import pandas as pd

from lmc_tune.analysis.layers import Family, LayerHeights, first_by_axis, first_layers, first_words, said_of_layers
from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.analysis.report.charts.first_layer_chart import TITLES, first_layer_chart
from lmc_tune.analysis.report.section import Context, Section
from lmc_tune.analysis.wording import LAYER_PLACES, confidence, listed, number, quantity, threshold
from lmc_tune.core.counted import counted
from lmc_tune.experiment import VerdictSpec

ORDER = 62


def make(context: Context) -> Section | None:
    """None if no layers were moved alone."""
    heights, diagram = context.layer_heights, context.diagram
    if heights is None:
        return None
    intervals = context.layer_intervals
    firsts = {family: first for family in TITLES if len(first := first_layers(intervals, family))}
    if not firsts:
        return _not_judged(heights, diagram.verdict)
    single = firsts.get("single")
    said = "" if single is None else said_of_layers(diagram, single)
    return Section(
        id="first_layer",
        title="First layer to break",
        lead=" ".join([*([said] if said else []), _how_to_read(diagram)]),
        label="The first layer to break of every judged cell",
        chart=first_layer_chart(diagram, firsts, context.picked),
        table=axis_table(diagram, firsts),
        note=_note(firsts),
    )


def _not_judged(heights: LayerHeights, verdict: VerdictSpec) -> Section:
    asked = listed(list(heights.conditions))
    return Section(
        id="first_layer",
        title="First layer to break",
        lead=f"Layers were moved alone under {asked}, and not under {verdict.condition}, which this page judges. "
        f"`lmc-tune report DIR --condition {heights.conditions[0]!r}` shows them.",
    )


def _how_to_read(diagram: PhaseDiagram) -> str:
    verdict = diagram.verdict
    return (
        f"A layer breaks if the whole {confidence(verdict)} interval of its barrier of {quantity(verdict)}, half-way "
        f"to the other member, lies above {threshold(verdict)}. Of every pair the mean of two barriers counts: A with "
        "this layer alone half-way to B's, and B with it half-way to A's, both against the mean of the whole members. "
        f"The first layer to break is the one nearest to the input. {LAYER_PLACES} #1–3 are the first three together."
    )


def _note(firsts: Mapping[Family, pd.DataFrame]) -> str:
    """In how many cells a layer nearer to the input may be the first."""
    n = int((firsts["single"]["open_before"] > 0).sum()) if "single" in firsts else 0
    straddles = "the interval of a layer nearer to the input straddles the threshold: it may break before."
    return f"In {counted(n, 'cell')} {straddles}" if n else ""


def axis_table(diagram: PhaseDiagram, firsts: Mapping[Family, pd.DataFrame]) -> pd.DataFrame:
    """In words, how the first layer moves along everything that varies."""
    moved = {family: first_by_axis(diagram, first) for family, first in firsts.items()}
    places = next(iter(moved.values()))
    columns = {
        "": [_title(diagram, column) for column in places["column"]],
        "value": places["value"],
        "cells": places["n"].astype(str),
    }
    if "single" in moved:
        single = moved["single"]
        columns |= {
            "a layer breaks in": single["n_breaks"].astype(str),
            "none in": single["n_none"].astype(str),
            "undecided in": single["n_undecided"].astype(str),
            "place of the first, mean (range)": _places(single),
            "which (cells)": [first_words(names) for names in single["layers"]],
        }
    if "shallow" in moved:
        together = moved["shallow"]
        columns |= {
            "first layers break in": together["n_breaks"].astype(str),
            "fewest, mean (range)": _places(together),
        }
    return pd.DataFrame(columns)


def _title(diagram: PhaseDiagram, column: str) -> str:
    return column if column in {"shift", "panel", ""} else diagram.title(column)


def _places(table: pd.DataFrame) -> list[str]:
    return [
        f"{number(mean)} ({number(low)} to {number(high)})" if low < high else number(mean)
        for mean, low, high in table[["mean_position", "least_position", "most_position"]].itertuples(index=False)
    ]
