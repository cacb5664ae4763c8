"""Layer by layer: by how much a network rises above its members where some of its layers lie half-way."""

from typing import Any

import altair as alt
import pandas as pd

from lmc_tune.analysis.report.charts.phase_chart import PANEL_COLOURS
from lmc_tune.analysis.report.charts.style import FAINT, finish, tick_style

PANEL_WIDTH, PANEL_HEIGHT = 1020, 170
# More names than that would overlap.
_MOST_NAMES = 40


def profile_chart(table: pd.DataFrame, threshold: float, *, percent: bool) -> Any:
    """A panel for every family of layers, one above the other, with the layers from the input to the output.

    Args:
        table: a row per family and layer, in the order of the data: ``panel``, ``layer``, ``value``, its mean over both
            bases, ``low`` and ``high``, the bounds of its interval, and ``a`` and ``b``, by base.
        threshold: drawn as a line.
        percent: whether values are errors.
    """
    panels = [_panel(rows, str(name), threshold, percent=percent) for name, rows in table.groupby("panel", sort=False)]
    return finish(alt.vconcat(*panels, spacing=24))


def _panel(table: pd.DataFrame, title: str, threshold: float, *, percent: bool) -> Any:
    layers = list(dict.fromkeys(table["layer"]))
    every = -(-len(layers) // _MOST_NAMES)
    x = alt.X(
        "layer:N",
        sort=layers,
        title=None,
        axis=alt.Axis(labelAngle=-40, labelLimit=120, values=layers[::every], grid=False),
    )
    form = ".2~%" if percent else ".3~g"
    y = alt.Y(
        "value:Q", title="above the members' mean", axis=alt.Axis(format=tick_style(percent=percent), tickCount=5)
    )
    base = alt.Chart(table).encode(x=x)
    said = [
        alt.Tooltip("layer:N"),
        alt.Tooltip("value:Q", title="rise", format=form),
        alt.Tooltip("low:Q", format=form),
        alt.Tooltip("high:Q", format=form),
        *(alt.Tooltip(f"{base}:Q", title=f"in {base.upper()}", format=form) for base in "ab"),
    ]
    limit = alt.Chart(pd.DataFrame({"threshold": [threshold]})).mark_rule(strokeDash=[3, 4], color=FAINT)
    return alt.layer(
        limit.encode(y=alt.Y("threshold:Q")),
        base.mark_rule(strokeWidth=1.4, opacity=0.6, color=PANEL_COLOURS[0]).encode(y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_point(filled=True, size=40, color=PANEL_COLOURS[0]).encode(y=y, tooltip=said),
        *(
            base.mark_text(fontSize=8.5, fontWeight=600, dx=side * 9, color=FAINT).encode(
                y=alt.Y(f"{name}:Q"), text=alt.value(name.upper())
            )
            for name, side in (("a", -1), ("b", 1))
        ),
    ).properties(width=PANEL_WIDTH, height=PANEL_HEIGHT, title=title)
