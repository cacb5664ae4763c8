"""Conditions of the path side by side: what statistics, REPAIR and alignment do to the barrier of the same pairs."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.analysis.report.charts.points import judged_cells, point_colour
from lmc_tune.analysis.report.charts.style import (
    FAINT,
    INK,
    PANEL_WIDTH,
    barrier_axis,
    finish,
    outline,
    tooltips,
    wrapped,
)
from lmc_tune.analysis.report.section import Context, Section
from lmc_tune.analysis.wording import confidence, height, listed, quantity
from lmc_tune.core.counted import counted
from lmc_tune.core.statistics import VERDICTS, Verdict, verdict_of_interval
from lmc_tune.experiment import CONDITIONS, SAME_WITHOUT_BATCH_NORM, Condition, VerdictSpec
from lmc_tune.tables.cells import CONDITION_BARRIERS

ORDER = 20
# What the name of a condition takes along an axis, in pixels.
NAME_WIDTH = 86
# What one disconnected cell, or several, become when B is aligned.
_BECOME: dict[Verdict, tuple[str, str]] = {
    "connected": ("is connected", "are connected"),
    "disconnected": ("stays disconnected", "stay disconnected"),
    "undecided": ("is undecided", "are undecided"),
}


def numbers(context: Context) -> dict[str, pd.Series]:
    """The barriers under every condition that was measured, if there are several."""
    measured = measured_conditions(context.diagram)
    return {name: context.diagram.pairs[name] for name in measured} if len(measured) > 1 else {}


def make(context: Context) -> Section | None:
    """None if no judged cell was measured under more than one condition, there are too many cells, or no paths."""
    diagram = context.diagram
    if diagram.federated or not context.detailed or len(measured_conditions(diagram)) < 2:
        return None
    table = condition_table(diagram, context.intervals)
    if table.empty:
        return None
    marked = judged_condition(diagram.verdict, table)
    counts = condition_counts(table, diagram.verdict)
    return Section(
        id="conditions",
        title="Conditions of the path",
        lead="The same pairs, their interpolated networks prepared in several ways. Where a barrier falls from naive "
        "to recalibrated, BatchNorm's stale statistics made it, not the weights. A line is a cell; bars: "
        f"{confidence(diagram.verdict)} intervals; dashed: threshold. This page judges {marked}. Judged cells "
        f"that were measured under one condition alone are not shown.{said_of_alignment(diagram, table)}",
        label=f"Mean barrier of {quantity(diagram.verdict)} of every judged cell under each condition",
        chart=condition_chart(diagram, table, context.picked),
        table=counts,
        marked=counts["condition"].tolist().index(marked) if marked in set(counts["condition"]) else None,
    )


def measured_conditions(diagram: PhaseDiagram) -> list[str]:
    """Those of :data:`lmc_tune.tables.cells.CONDITION_BARRIERS` that are known of any of its pairs."""
    return [name for name in CONDITION_BARRIERS if diagram.pairs[name].notna().any()]


def condition_table(diagram: PhaseDiagram, intervals: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per judged cell and condition, of the cells that were measured under more than one.

    Columns as ``judged_cells``, but ``shown_barrier``, ``shown_low``, ``shown_high`` and ``mean``
    are of the row's ``condition``; ``by_condition``, the verdict of its interval alone.

    Args:
        intervals: of :func:`measured_conditions`, as :func:`lmc_tune.tables.cells.mean_intervals` gives them.
    """
    judged, verdict = judged_cells(diagram), diagram.verdict
    parts = []
    for name in measured_conditions(diagram):
        found = intervals[name].loc[judged.index]
        bounds = zip(found["low"], found["high"], strict=True)
        parts.append(
            judged.assign(
                **{f"shown_{bound}": found[bound].replace([np.inf, -np.inf], np.nan) for bound in ("low", "high")},
                shown_barrier=found["mean"],
                mean=[height(mean, verdict) for mean in found["mean"]],
                condition=CONDITION_BARRIERS[name],
                by_condition=[verdict_of_interval(low, high, verdict.threshold) for low, high in bounds],
            )
        )
    table = pd.concat(parts)
    table = table[table["shown_barrier"].notna()]
    several = table.groupby("cell")["condition"].transform("size") > 1
    return table[several].reset_index(drop=True)


def judged_condition(verdict: VerdictSpec, table: pd.DataFrame) -> Condition:
    """Whose barriers the page judges: the verdict's, or the same where no network of the table has BatchNorm."""
    asked = verdict.condition
    return asked if asked in set(table["condition"]) else SAME_WITHOUT_BATCH_NORM.get(asked, asked)


def disconnected_then_aligned(table: pd.DataFrame) -> dict[Verdict, int]:
    """Of the cells that are disconnected as they are, how many are which once B is aligned; empty if none was aligned.

    With fresh statistics both times, where they were measured: recalibrated and ``aligned + recalibrated``.

    Args:
        table: as :func:`condition_table` gives it.
    """
    wanted: list[Condition] = ["naive", "recalibrated", "aligned", "aligned + recalibrated"]
    said = (
        table.pivot_table("by_condition", "cell", "condition", aggfunc="first").reindex(columns=wanted).astype(object)
    )
    plain, aligned = said["recalibrated"].fillna(said["naive"]), said["aligned + recalibrated"].fillna(said["aligned"])
    if aligned.isna().all():
        return {}
    counts = aligned[plain == "disconnected"].value_counts()
    return {name: int(counts.get(name, 0)) for name in VERDICTS[:3]}


def said_of_alignment(diagram: PhaseDiagram, table: pd.DataFrame) -> str:
    """How much of the disconnected region is only a permutation, after a space; empty if no cell was aligned."""
    counts = disconnected_then_aligned(table)
    if not counts:
        return ""
    n, fixed = sum(counts.values()), _said_of_fixed(diagram, table)
    if n == 0:
        return f" No cell is disconnected before B's units are permuted.{fixed}"
    outcome = listed(
        [f"{k or 'none'} {_BECOME[name][k > 1]}" for name, k in counts.items() if k or name == "connected"]
    )
    only = " Where that connects a cell, its barrier is only a permutation." if counts["connected"] else ""
    return (
        f" With B as it is, {counted(n, 'cell')} {'is' if n == 1 else 'are'} disconnected; of these, {outcome} once "
        f"B's units are permuted towards A's.{only}{fixed}"
    )


def _said_of_fixed(diagram: PhaseDiagram, table: pd.DataFrame) -> str:
    """In which cells nothing could be permuted, and why, after a space."""
    pairs = diagram.pairs[diagram.pairs["cell"].isin(table["cell"])]
    fixed = pairs[pairs["permutable_units"] == 0]
    if fixed.empty:
        return ""
    reason, cells = fixed["frozen_units"].iloc[0] or "it has none", counted(fixed["cell"].nunique(), "cell")
    return f" In {cells} no hidden unit can be permuted ({reason}): aligned repeats the path as it is."


def condition_counts(table: pd.DataFrame, verdict: VerdictSpec) -> pd.DataFrame:
    """In words, one row per condition that was measured: its cells, their mean barrier, and how many have which verdict
    if their interval under it alone decided.
    """
    rows = []
    for condition, meaning in CONDITIONS.items():
        own = table[table["condition"] == condition]
        if len(own):
            counts = {str(name): str((own["by_condition"] == name).sum()) for name in VERDICTS[:3]}
            row = {
                "condition": condition,
                "BatchNorm's statistics": meaning,
                "cells": str(len(own)),
            }
            rows.append({**row, "mean barrier": height(own["shown_barrier"].mean(), verdict), **counts})
    return pd.DataFrame(rows)


def condition_chart(diagram: PhaseDiagram, table: pd.DataFrame, picked: str | None = None) -> Any:
    """Mean barriers by condition, a line per cell; one panel per panel of the phase diagram."""
    panels = [_panel(diagram, table, panel, picked) for panel in diagram.panels if (table["panel"] == panel).any()]
    columns = max(1, 3 * PANEL_WIDTH // _width(table))
    chart: Any = alt.concat(*panels, columns=columns, spacing=28)
    return finish(chart.resolve_scale(x="independent", y="shared", color="shared"), picked)


def _width(table: pd.DataFrame) -> int:
    """Of a panel: the names of all conditions have room."""
    return max(PANEL_WIDTH, NAME_WIDTH * table["condition"].nunique())


def _panel(diagram: PhaseDiagram, table: pd.DataFrame, panel: str, picked: str | None) -> Any:
    rows = table[table["panel"] == panel]
    colour = point_colour(diagram, table)
    marked = judged_condition(diagram.verdict, rows)
    names = [condition for condition in CONDITIONS if condition in set(rows["condition"])]
    x = alt.X(
        "condition:N",
        title=None,
        sort=names,
        scale=alt.Scale(domain=names, padding=0.5),
        axis=alt.Axis(
            labelAngle=0,
            labelExpr=f"split(replace(datum.label, '+ ', '+|') + (datum.label === '{marked}' ? ' ●' : ''), '|')",
        ),
    )
    ink: dict[str, Any] = {"color": colour} if colour is not None else {}
    base = alt.Chart(rows)
    bars = rows[rows["shown_low"].notna()]
    threshold = alt.Chart(pd.DataFrame({"guide": [diagram.verdict.threshold]}))
    layers = [
        threshold.mark_rule(strokeDash=[5, 4], color=FAINT).encode(y="guide:Q"),
        base.mark_line(strokeWidth=1.4, opacity=0.6).encode(
            x=x, y=barrier_axis(alt.Y, table, diagram.verdict), detail="cell:N", **ink
        ),
        *(
            [
                alt.Chart(bars)
                .mark_rule(strokeWidth=1.4, opacity=0.5)
                .encode(x=x, y="shown_low:Q", y2="shown_high:Q", **ink)
            ]
            if len(bars)
            else []
        ),
        base.mark_point(filled=True, size=46, opacity=1).encode(
            x=x, y="shown_barrier:Q", tooltip=[alt.Tooltip("condition:N"), *tooltips(diagram)], **ink
        ),
        *outline(base.mark_point(size=140, strokeWidth=2, color=INK).encode(x=x, y="shown_barrier:Q"), picked),
    ]
    width = _width(table)
    title = wrapped(panel, width) if len(diagram.panels) > 1 else ""
    return alt.layer(*layers).properties(width=width, height=210, title=title)
