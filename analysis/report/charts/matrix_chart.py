"""Barriers between several networks as a map: a tile for every pair."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from lmc_tune.analysis.report.charts.style import ON_DARK, ON_LIGHT, finish, tick_style

# Of the whole map, at most and at least per network, in pixels.
_MOST, _LEAST, _LARGEST = 620, 15, 64
# Tiles that are narrower hold no letter.
_LETTER = 18


def matrix_chart(table: pd.DataFrame, names: Sequence[str], most: float, *, percent: bool) -> Any:
    """Tiles coloured by the barrier, with the letter of the verdict.

    Args:
        table: a row for every pair in both orders: ``first``, ``second``, ``barrier``, ``letter``, ``words``.
        names: of the networks, in order.
        most: the barrier at the end of the colour scale, the same for maps that are compared.
        percent: whether barriers are errors.
    """
    step = min(_LARGEST, max(_LEAST, _MOST / len(names)))
    order = list(names)
    base = alt.Chart(table).encode(
        x=alt.X("second:N", sort=order, title=None, axis=alt.Axis(labelAngle=-45, labelLimit=160)),
        y=alt.Y("first:N", sort=order, title=None, axis=alt.Axis(labelLimit=160)),
    )
    tiles = base.mark_rect(stroke="#ffffff", strokeWidth=1).encode(
        color=alt.Color(
            "barrier:Q",
            title="barrier of the error" if percent else "barrier of the loss",
            scale=alt.Scale(scheme="viridis", domain=[0, most], reverse=True, clamp=True),
            legend=alt.Legend(orient="top", format=tick_style(percent=percent), gradientLength=160),
        ),
        tooltip=[alt.Tooltip("first:N"), alt.Tooltip("second:N"), alt.Tooltip("words:N", title="barrier")],
    )
    layers = [tiles]
    if step >= _LETTER:
        layers.append(
            base.mark_text(fontSize=11, fontWeight=600).encode(
                text="letter:N",
                color=alt.condition(f"datum.barrier > {0.45 * most}", alt.value(ON_DARK), alt.value(ON_LIGHT)),
            )
        )
    return finish(alt.layer(*layers).properties(width=step * len(names), height=step * len(names)))
