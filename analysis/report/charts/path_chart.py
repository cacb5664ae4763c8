"""The path between two networks: error and loss under every condition, with the band of what is judged."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from lmc_tune.analysis.report.charts.phase_chart import PANEL_COLOURS
from lmc_tune.analysis.report.charts.style import FAINT, finish, tick_style

# Two beside each other are as wide as the page.
PANEL_WIDTH, PANEL_HEIGHT = 490, 230


def path_chart(table: pd.DataFrame) -> Any:
    """A panel for every split and quantity, a line for every condition.

    Args:
        table: a row per panel, condition and position: ``panel``, ``condition``, ``lambda``, ``value``, and where the
            curve is judged ``low`` and ``high``, the bounds of its band. ``percent``: whether the panel shows errors.
    """
    conditions = list(dict.fromkeys(table["condition"]))
    panels = [_panel(rows, str(name), conditions) for name, rows in table.groupby("panel", sort=False)]
    rows = [alt.hconcat(*panels[at : at + 2], spacing=40) for at in range(0, len(panels), 2)]
    return finish(alt.vconcat(*rows, spacing=28))


def _panel(table: pd.DataFrame, title: str, conditions: Sequence[str]) -> Any:
    percent = bool(table["percent"].iloc[0])
    known = table[["value", "low", "high"]].to_numpy()
    low, high = 0.0, float(pd.Series(known.ravel()).max())
    x = alt.X(
        "lambda:Q", title="λ, from A to B", axis=alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2~f", grid=False)
    )
    y = alt.Y(
        "value:Q",
        title=title,
        scale=alt.Scale(domain=[min(low, float(pd.Series(known.ravel()).min())), high], nice=True),
        axis=alt.Axis(format=tick_style(percent=percent), tickCount=5),
    )
    colour = alt.Color(
        "condition:N",
        title=None,
        scale=alt.Scale(domain=list(conditions), range=list(PANEL_COLOURS[: len(conditions)])),
        legend=alt.Legend(orient="top", labelLimit=300, columns=2, symbolOpacity=1, symbolType="stroke"),
    )
    base = alt.Chart(table).encode(x=x, y=y)
    said = [
        alt.Tooltip("condition:N"),
        alt.Tooltip("lambda:Q", title="λ"),
        alt.Tooltip("value:Q", title=title, format=".2%" if percent else ".4~g"),
    ]
    banded = table[table["low"].notna()]
    layers = [
        *(
            [alt.Chart(banded).mark_area(opacity=0.14).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour)]
            if len(banded)
            else []
        ),
        base.mark_line(strokeWidth=1.8).encode(color=colour),
        base.mark_point(filled=True, size=34).encode(color=colour, tooltip=said),
    ]
    middle = alt.Chart(pd.DataFrame({"half": [0.5]})).mark_rule(strokeDash=[3, 4], color=FAINT, opacity=0.5)
    return alt.layer(middle.encode(x=alt.X("half:Q")), *layers).properties(width=PANEL_WIDTH, height=PANEL_HEIGHT)
