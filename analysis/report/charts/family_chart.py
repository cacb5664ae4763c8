"""Ensembles side by side: what they are worth and cost, how connected they are, and how they grow."""

from collections.abc import Callable, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from lmc_tune.analysis.report.charts.style import FAINT, Channel, finish

WIDTH, HEIGHT = 470, 260
# As many as there are families; those of one kind have one hue.
COLOURS = {
    "deep": "#00568a",
    "permuted": "#56b4e9",
    "multi_pcd": "#8fb9d4",
    "distilled_deep": "#5b6067",
    "constrained": "#d55e00",
    "distilled": "#b5651d",
    "swe": "#009e73",
    "snapshot": "#7a5c00",
    "mc_dropout": "#cc79a7",
}
SHAPES = {"ensemble": "circle", "average": "square", "mean member": "triangle-up"}


def worth_chart(table: pd.DataFrame) -> Any:
    """Accuracy against cost, and connectivity beside accuracy.

    Args:
        table: as :func:`lmc_tune.analysis.families.family_table` gives it.
    """
    return finish(alt.hconcat(_cost(table), _connectivity(table), spacing=40))


def _family(table: pd.DataFrame) -> alt.Color:
    known = [family for family in COLOURS if family in set(table["family"])]
    names = {family: family.replace("_", " ") for family in known}
    return alt.Color(
        "family:N",
        title=None,
        scale=alt.Scale(domain=known, range=[COLOURS[family] for family in known]),
        legend=alt.Legend(orient="top", columns=5, labelExpr=f"({names})[datum.label] || datum.label"),
    )


def _along(
    channel: type[Channel], values: pd.DataFrame, title: str, number_format: str, beside: Sequence[float] = ()
) -> Callable[[str], Channel]:
    """An axis that holds all values of a table, and those beside them: gives the channel of each of its columns."""
    known = np.append(values.to_numpy(dtype=np.float64).ravel(), beside)
    known = known[np.isfinite(known)]
    scale = alt.Scale(domain=[known.min(), known.max()], nice=True, zero=False)
    axis = alt.Axis(format=number_format, tickCount=6)
    return lambda column: channel(f"{column}:Q", title=title, scale=scale, axis=axis)


def _cost(table: pd.DataFrame) -> Any:
    """What each family's members, ensemble and average come to, against the steps that were trained."""
    long = pd.concat(
        [
            table[["cell", "name", "family", "training_steps"]].assign(
                what=what,
                value=table[f"{name}_accuracy"],
                low=table[f"{name}_accuracy_low"],
                high=table[f"{name}_accuracy_high"],
            )
            for what, name in (("ensemble", "ensemble"), ("average", "average"), ("mean member", "member"))
        ],
        ignore_index=True,
    ).dropna(subset="value")
    steps = alt.Scale(type="log", nice=False, padding=24)
    x = alt.X("training_steps:Q", title="training steps (log scale)", scale=steps)
    y = _along(alt.Y, long[["value", "low", "high"]], "test accuracy", "~%")
    shape = alt.Shape(
        "what:N",
        title=None,
        scale=alt.Scale(domain=list(SHAPES), range=list(SHAPES.values())),
        legend=alt.Legend(orient="top", columns=3),
    )
    said = [
        alt.Tooltip("name:N", title="family"),
        alt.Tooltip("what:N"),
        alt.Tooltip("value:Q", title="accuracy", format=".2%"),
        alt.Tooltip("training_steps:Q", title="steps"),
    ]
    base = alt.Chart(long).encode(x=x, color=_family(table))
    bars = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.4, opacity=0.6)
    points = base.mark_point(filled=True, size=64, opacity=1).encode(y=y("value"), shape=shape, tooltip=said)
    return alt.layer(bars.encode(y=y("low"), y2="high:Q"), points).properties(
        width=WIDTH, height=HEIGHT, title="Accuracy against cost"
    )


def _connectivity(table: pd.DataFrame) -> Any:
    """q̄ against the ensemble's accuracy; dashed: q̄ = 0, and the accuracy of independent members."""
    known = table.dropna(subset="connectivity")
    of_q = known[["connectivity", "connectivity_low", "connectivity_high"]]
    of_accuracy = known[["ensemble_accuracy", "ensemble_accuracy_low", "ensemble_accuracy_high"]]
    x = _along(alt.X, of_q, "connectivity q̄ (percentage points)", "~g", [0.0])
    y = _along(alt.Y, of_accuracy, "ensemble's test accuracy", "~%")
    dashed: dict[str, Any] = {"strokeDash": [5, 4], "color": FAINT}
    guides = [alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(**dashed).encode(x=x("zero"))]
    if len(deep := known.loc[known["family"] == "deep", "ensemble_accuracy"]) == 1:
        guides.append(alt.Chart(pd.DataFrame({"deep": deep.to_list()})).mark_rule(**dashed).encode(y=y("deep")))
    said = [
        alt.Tooltip("name:N", title="family"),
        alt.Tooltip("connectivity:Q", title="q̄", format=".2f"),
        alt.Tooltip("ensemble_accuracy:Q", title="ensemble", format=".2%"),
    ]
    base = alt.Chart(known).encode(color=_family(table))
    bars = base.mark_rule(strokeWidth=1.4, opacity=0.6)
    across = bars.transform_filter("isValid(datum.connectivity_low)").encode(
        x=x("connectivity_low"), x2="connectivity_high:Q", y=y("ensemble_accuracy")
    )
    along = bars.transform_filter("isValid(datum.ensemble_accuracy_low)").encode(
        x=x("connectivity"), y=y("ensemble_accuracy_low"), y2="ensemble_accuracy_high:Q"
    )
    points = base.mark_point(filled=True, size=64, opacity=1).encode(
        x=x("connectivity"), y=y("ensemble_accuracy"), tooltip=said
    )
    return alt.layer(*guides, across, along, points).properties(
        width=WIDTH - 60, height=HEIGHT, title="Connected, or accurate?"
    )


def members_chart(growing: pd.DataFrame, curves: pd.DataFrame) -> Any:
    """Accuracy by the number of members, and the paths between two of them.

    Args:
        growing: ``name``, ``family``, ``members``, ``accuracy``.
        curves: ``name``, ``family``, ``lambda``, ``q``, ``lowest`` and ``highest``; may be empty.
    """
    ticks = sorted(growing["members"].unique().tolist())
    base = alt.Chart(growing).encode(
        x=alt.X("members:Q", axis=alt.Axis(values=ticks, format="d", grid=False), scale=alt.Scale(nice=False)),
        y=_along(alt.Y, growing[["accuracy"]], "ensemble's test accuracy", "~%")("accuracy"),
        color=_family(growing),
        detail="name:N",
        tooltip=[alt.Tooltip("name:N", title="family"), "members:Q", alt.Tooltip("accuracy:Q", format=".2%")],
    )
    charts = [
        alt.layer(base.mark_line(strokeWidth=1.8), base.mark_point(filled=True, size=30, opacity=1)).properties(
            width=WIDTH - 60, height=HEIGHT, title="More members"
        )
    ]
    if len(curves):
        along = alt.Chart(curves).encode(
            x=alt.X("lambda:Q", title="λ, from one member to another", axis=alt.Axis(grid=False, tickCount=5)),
            color=_family(growing),
            detail="name:N",
        )
        y = alt.Y("q:Q", title="q on the path (percentage points)", axis=alt.Axis(tickCount=6))
        said = [
            alt.Tooltip("name:N", title="family"),
            alt.Tooltip("lambda:Q", title="λ"),
            alt.Tooltip("q:Q", format=".2f"),
        ]
        band = along.mark_area(opacity=0.14).encode(y=alt.Y("lowest:Q"), y2="highest:Q")
        line = along.mark_line(strokeWidth=1.8).encode(y=y, tooltip=said)
        charts.append(alt.layer(band, line).properties(width=WIDTH, height=HEIGHT, title="Between two members"))
    return finish(alt.hconcat(*charts, spacing=40))


def branching_chart(table: pd.DataFrame) -> Any:
    """Accuracy, NLL, diversity and connectivity against the epochs in common, a line for every weight of the labels.

    Args:
        table: as :func:`lmc_tune.analysis.families.family_table` gives it, with ``line``, what its colour tells.
    """
    quantities = {
        "ensemble_accuracy": ("ensemble's test accuracy", "~%"),
        "ensemble_nll": ("ensemble's NLL (nats)", "~g"),
        "jensen_shannon": ("Jensen–Shannon divergence (nats)", "~g"),
        "connectivity": ("connectivity q̄ (pp)", "~g"),
    }
    ticks = sorted(table["common_epochs"].unique().tolist())
    panels = []
    for column, (title, number_format) in quantities.items():
        x = alt.X("common_epochs:Q", title="epochs in common, t", axis=alt.Axis(values=ticks, format="d", grid=False))
        y = _along(alt.Y, table[[column, f"{column}_low", f"{column}_high"]], title, number_format)
        colour = alt.Color("line:N", title=None, legend=alt.Legend(orient="top"))
        said = [alt.Tooltip("line:N", title="family"), alt.Tooltip("common_epochs:Q", title="t")]
        base = alt.Chart(table).encode(x=x, color=colour)
        bars = base.transform_filter(f"isValid(datum.{column}_low)").mark_rule(opacity=0.6)
        line = base.mark_line(strokeWidth=1.8, point=True).encode(
            y=y(column), tooltip=[*said, alt.Tooltip(f"{column}:Q", title=title)]
        )
        drawn = alt.layer(bars.encode(y=y(f"{column}_low"), y2=f"{column}_high:Q"), line)
        panels.append(drawn.properties(width=WIDTH - 60, height=190))
    return finish(alt.concat(*panels, columns=2, spacing=36))
