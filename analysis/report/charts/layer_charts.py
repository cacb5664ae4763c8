"""Barriers of some layers alone, of the cell that is shown: one by one, as they add up, along the path, by epoch.

Every chart holds the rows of all cells, and shows those of one: the parameter ``shown``, which the page moves.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from lmc_tune.analysis.layers import END
from lmc_tune.analysis.report.charts.layer_axis import layers_in_words
from lmc_tune.analysis.report.charts.phase_chart import SUBTITLE, titled_chart
from lmc_tune.analysis.report.charts.style import (
    FAINT,
    INK,
    VERDICT_COLOURS,
    barrier_format,
    barrier_title,
    finish,
    fitted,
    tick_style,
    wrapped,
)
from lmc_tune.analysis.wording import height, interval, layer_words, quantity
from lmc_tune.core.barrier import Array
from lmc_tune.experiment import VerdictSpec

# What one of these adds to: sets that stand in rows.
IN_ROWS = {"single": "Each layer alone", "window": "Layers in a window", "group": "Groups of layers"}
SAYS = {
    "breaks": (VERDICT_COLOURS["disconnected"], "diamond"),
    "holds": (VERDICT_COLOURS["connected"], "circle"),
    "undecided": ("#b98d00", "triangle-up"),
}
# By family and base: name, colour, shape. Dark and light tell the bases apart, shapes the sides.
LINES = {
    ("shallow", "a"): ("first layers, in A", "#00568a", "circle"),
    ("shallow", "b"): ("first layers, in B", "#56b4e9", "circle"),
    ("deep", "a"): ("last layers, in A", "#a34700", "diamond"),
    ("deep", "b"): ("last layers, in B", "#f0a25c", "diamond"),
}
WHOLE, SHARE, LIMIT = "all layers", "an equal share", "threshold"
_DASHES = {WHOLE: [1, 0], SHARE: [2, 3], LIMIT: [6, 4]}
# Of the name of a cell: a narrow page has room for it.
PLACE_WIDTH = 230
# How far a line stands from the one before, in layers.
ASIDE = 0.05
ROW, WIDTH, HEIGHT, MAP_ROW, MAP_WIDTH = 32, 400, 260, 26, 236
_SHOWN = "datum.cell === shown"


def set_table(intervals: pd.DataFrame, verdict: VerdictSpec) -> pd.DataFrame:
    """One row per cell and set that stands in rows: the barrier with its interval, and those from A and B.

    In the order of the network. Columns ``cell``, ``family``, ``set`` (in words, with the places of its layers), ``n``,
    ``barrier``, ``low``, ``high`` (missing where there is no interval), ``a``, ``b``, ``says`` and ``words``.

    Args:
        intervals: as :func:`~lmc_tune.analysis.layers.layer_intervals` gives them.
        verdict: whose barriers these are.
    """
    own = intervals[intervals["family"].isin(IN_ROWS.keys())]
    keys = ["cell", "family", "moved"]
    of_base = own.set_index([*keys, "base"])["mean"].unstack()  # noqa: PD010 - pivot_table would take means
    table = own[own["base"] == "both"].set_index(keys).join(of_base[["a", "b"]]).reset_index()
    table["set"] = _named(table)
    table["words"] = _words(table, verdict)
    table = table.rename(columns={"mean": "barrier"}).replace([np.inf, -np.inf], np.nan)
    table = table.sort_values("position", kind="stable")
    return table[["cell", "family", "set", "n", "barrier", "low", "high", "a", "b", "says", "words"]]


def line_table(intervals: pd.DataFrame, verdict: VerdictSpec) -> pd.DataFrame:
    """One row per cell, line of :data:`LINES` and number of ``layers`` moved: ``barrier``, ``low``, ``high``.

    ``words``: the barrier with its interval; ``moved``: the layer that came last.

    Args:
        intervals: as for :func:`set_table`.
        verdict: whose barriers these are.
    """
    own = intervals[intervals["family"].isin({family for family, _ in LINES}) & (intervals["base"] != "both")]
    lines = [LINES[name][0] for name in zip(own["family"], own["base"], strict=True)]
    table = own.assign(line=lines, words=_words(own, verdict), moved=_named(own)).rename(columns={"mean": "barrier"})
    aside = {name: ASIDE * at for at, (name, _, _) in enumerate(LINES.values())}
    table = table.assign(x=table["layers"] + table["line"].map(aside).astype(np.float64))  # or bars cover each other
    table = table.replace([np.inf, -np.inf], np.nan).sort_values(["cell", "line", "layers"]).reset_index(drop=True)
    return table[["cell", "line", "moved", "layers", "n", "barrier", "low", "high", "words", "x"]]


def control_table(intervals: pd.DataFrame, verdict: VerdictSpec) -> pd.DataFrame:
    """One row per cell and control: ``value``; the barrier of all layers has ``low`` and ``high`` and their number.

    All layers together, measured as the sets are; their barrier by the number of layers; and the threshold.

    Args:
        intervals: as for :func:`set_table`.
        verdict: whose barriers these are.
    """
    whole = intervals[(intervals["family"] == "full") & (intervals["base"] == "both")]
    whole = whole.replace([np.inf, -np.inf], np.nan).rename(columns={"mean": "value"})
    columns = ["cell", "value", "low", "high", "layers", "control"]
    parts = [
        whole.assign(control=WHOLE),
        whole.assign(control=SHARE, value=whole["value"] / whole["layers"], low=np.nan, high=np.nan),
        whole.assign(control=LIMIT, value=verdict.threshold, low=np.nan, high=np.nan),
    ]
    return pd.concat(parts, ignore_index=True)[columns]


def barrier_charts(  # noqa: PLR0913, PLR0917 - three tables, and what they are of
    sets: pd.DataFrame,
    lines: pd.DataFrame,
    controls: pd.DataFrame,
    places: Mapping[str, str],
    verdict: VerdictSpec,
    cell: str,
    *,
    follows: bool,
) -> Any:
    """Barriers of layers one by one, with their intervals, and as they add up from both sides.

    Args:
        sets, lines, controls: as :func:`set_table`, :func:`line_table` and :func:`control_table` give them.
        places: of the cells, in words.
        verdict: whose barriers these are.
        cell: that is shown first.
        follows: whether the page can show others.
    """
    without_share = controls[controls["control"] != SHARE]
    charts = [
        _rows(own, controls if family == "single" else without_share, verdict, IN_ROWS[family])
        for family in IN_ROWS
        if len(own := sets[sets["family"] == family])
    ]
    if len(lines):
        charts.insert(min(1, len(charts)), _sums(lines, controls, verdict))
    rows = [alt.hconcat(*charts[at : at + 2], spacing=30) for at in range(0, len(charts), 2)]
    apart = [row.resolve_scale(color="independent", shape="independent") for row in rows]
    return _of_cell(apart, places, cell, follows=follows).resolve_scale(color="independent", shape="independent")


def _of_cell(charts: Sequence[Any], places: Mapping[str, str], cell: str, *, follows: bool) -> Any:
    """Charts below the name of their cell."""
    lines = [wrapped(place, PLACE_WIDTH) for place in places.values()]
    named = pd.DataFrame({"cell": list(places), "place": ["\n".join(line) for line in lines]})
    style: dict[str, Any] = {"align": "left", "baseline": "top", "fontSize": 12.5, "fontWeight": 600, "color": INK}
    name = alt.Chart(named).transform_filter(_SHOWN).mark_text(lineBreak="\n", **style)
    most = max(map(len, lines))
    head = name.encode(text="place:N", x=alt.value(0), y=alt.value(0)).properties(height=16 * most, width=WIDTH)
    chart: Any = alt.vconcat(head, *charts, spacing=14)
    if follows:
        return finish(chart, cell)
    chart.params = [alt.param(name="shown", value=cell).param]
    return finish(chart)


def _rows(table: pd.DataFrame, controls: pd.DataFrame, verdict: VerdictSpec, title: str) -> Any:
    """A row per set."""
    x = _barrier(alt.X, table, controls, verdict)
    y = _in_rows(table, tickBand="extent", grid=True)
    inks, shapes = (alt.Scale(domain=list(SAYS), range=list(styles)) for styles in zip(*SAYS.values(), strict=True))
    legend = alt.Legend(orient="top", symbolOpacity=1)
    colour = alt.Color("says:N", title=None, scale=inks, legend=legend)
    shape = alt.Shape("says:N", title=None, scale=shapes, legend=legend)
    base = alt.Chart(table).transform_filter(_SHOWN)
    said = [alt.Tooltip("set:N", title="moved"), alt.Tooltip("words:N", title="barrier"), alt.Tooltip("n:Q")]
    said += [alt.Tooltip(f"{name}:Q", title=f"in {name.upper()}", format=barrier_format(verdict)) for name in "ab"]
    layers = [
        *_controls(controls, "x"),
        *_bars(table, {"x": alt.X("low:Q"), "x2": "high:Q", "y": y, "color": colour}),
        base.mark_point(filled=True, size=60, opacity=1).encode(x=x, y=y, color=colour, shape=shape, tooltip=said),
        *(
            base.mark_text(fontSize=8.5, fontWeight=600, dy=side * 9, color=FAINT).encode(
                x=alt.X(f"{name}:Q"), y=y, text=alt.value(name.upper())
            )
            for name, side in (("a", -1), ("b", 1))
        ),
    ]
    most = int(table.groupby("cell").size().max())
    return alt.layer(*layers).properties(width=WIDTH, height=ROW * most, title=[title])


def _sums(lines: pd.DataFrame, controls: pd.DataFrame, verdict: VerdictSpec) -> Any:
    """Barrier against the number of layers moved."""
    last = int(lines["layers"].max())
    x = alt.X(
        "x:Q",
        title="layers moved",
        scale=alt.Scale(domain=[0, last + 4 * ASIDE], nice=False),
        axis=alt.Axis(format="d", values=list(range(last + 1)), labelOverlap="greedy", labelSeparation=4, grid=False),
    )
    y = _barrier(alt.Y, lines, controls, verdict)
    names, inks, shapes = (list(styles) for styles in zip(*LINES.values(), strict=True))
    legend = alt.Legend(orient="top", columns=2, symbolOpacity=1)
    colour = alt.Color("line:N", title=None, scale=alt.Scale(domain=names, range=inks), legend=legend)
    shape = alt.Shape("line:N", title=None, scale=alt.Scale(domain=names, range=shapes), legend=legend)
    base = alt.Chart(lines).transform_filter(_SHOWN).encode(x=x, y=y)
    said = [
        alt.Tooltip("line:N"),
        alt.Tooltip("layers:Q", title="layers moved"),
        alt.Tooltip("moved:N", title="up to"),
        alt.Tooltip("words:N", title="barrier"),
        alt.Tooltip("n:Q"),
    ]
    whole = controls[controls["control"] == WHOLE]
    share = pd.concat([whole.assign(layers=0, value=0.0), whole], ignore_index=True).assign(control=SHARE)
    equal = alt.Chart(share[["cell", "layers", "value", "control"]]).transform_filter(_SHOWN)
    layers = [
        *_controls(controls[controls["control"] != SHARE], "y"),
        equal.mark_line(color=INK, strokeWidth=1.2).encode(
            x=alt.X("layers:Q", title="layers moved"), y=alt.Y("value:Q"), strokeDash=_dash()
        ),
        *_bars(lines, {"x": x, "y": alt.Y("low:Q"), "y2": "high:Q", "color": colour}),
        base.mark_line(strokeWidth=1.8).encode(color=colour),
        base.mark_point(filled=True, size=46, opacity=1).encode(color=colour, shape=shape, tooltip=said),
    ]
    return alt.layer(*layers).properties(
        width=WIDTH, height=HEIGHT, title=["First layers together, and last layers together"]
    )


def _controls(controls: pd.DataFrame, channel: str) -> list[alt.Chart]:
    """Lines across, with the interval of the barrier of all layers."""
    base = alt.Chart(controls).transform_filter(_SHOWN)
    known = base.transform_filter("isValid(datum.low)")
    return [
        known.mark_rect(opacity=0.1, color=INK).encode(**{channel: "low:Q", f"{channel}2": "high:Q"}),
        base.mark_rule(color=INK, strokeWidth=1.2).encode(**{channel: "value:Q", "strokeDash": _dash()}),
    ]


def _dash() -> alt.StrokeDash:
    scale = alt.Scale(domain=list(_DASHES), range=list(_DASHES.values()))
    legend = alt.Legend(orient="top", symbolType="stroke", symbolSize=300, symbolStrokeColor=INK)
    return alt.StrokeDash("control:N", title=None, scale=scale, legend=legend)


def _bars(table: pd.DataFrame, place: Mapping[str, Any]) -> list[alt.Chart]:
    has_interval = table[["low", "high"]].notna().all(axis="columns")
    if not has_interval.any():
        return []
    known = table if has_interval.all() else table[has_interval]
    return [alt.Chart(known).transform_filter(_SHOWN).mark_rule(strokeWidth=1.5, opacity=0.6).encode(**place)]


def _barrier(channel: Any, table: pd.DataFrame, controls: pd.DataFrame, verdict: VerdictSpec) -> Any:
    """The axis of barriers, the same for all cells."""
    beside: Array = controls[["value", "low", "high"]].to_numpy(dtype=np.float64).ravel()
    values = table[[name for name in ("barrier", "low", "high", "a", "b") if name in table]]
    number_format = tick_style(percent=verdict.quantity == "error")
    known = [0.0, *beside[np.isfinite(beside)]]
    return fitted(channel, values, known, title=barrier_title(verdict), number_format=number_format)


def _in_rows(table: pd.DataFrame, **style: Any) -> alt.Y:
    """A row per set, in the order of the table."""
    order = table["set"].drop_duplicates().tolist()
    return alt.Y("set:N", title=None, sort=order, axis=alt.Axis(labelLimit=170, **style))


def _named(sets: pd.DataFrame) -> list[str]:
    """Sets in words: with the places of their layers, unless they are groups, which have names of their own."""
    columns = sets[["family", "moved", "position", "layers"]]
    return [_set_words(*one) for one in columns.itertuples(index=False, name=None)]


def _set_words(family: str, moved: str, position: int, layers: int) -> str:
    if family == "group":
        return moved
    if family == "window":
        return f"#{position + 1}–{position + layers} {moved}"
    return layer_words(position + 1, moved)


def _words(table: pd.DataFrame, verdict: VerdictSpec) -> list[str]:
    bounds = zip(table["mean"], table["low"], table["high"], strict=True)
    return [f"{height(mean, verdict)} ({interval(low, high, verdict)})" for mean, low, high in bounds]


def rise_table(rises: pd.DataFrame, places: pd.DataFrame) -> pd.DataFrame:
    """Rises as a heat map shows them: ``set`` as in :func:`set_table`, ``at``: λ.

    Args:
        rises: as :func:`~lmc_tune.analysis.layers.layer_rises` gives them.
        places: ``cell``, ``moved`` and ``position`` of the layers.
    """
    table = rises.merge(places, on=["cell", "moved"]).sort_values("position", kind="stable")
    table["set"] = layers_in_words(table["position"] + 1, table["moved"])
    return table.rename(columns={"lambda": "at"})[["cell", "base", "set", "at", "mean", "n"]]


def epoch_table(epochs: pd.DataFrame) -> pd.DataFrame:
    """Barriers by epoch as a heat map shows them: ``at``: the epoch, or ``end``.

    Args:
        epochs: as :func:`~lmc_tune.analysis.layers.layers_by_epoch` gives them.
    """
    table = epochs.sort_values("position", kind="stable")
    table["at"] = ["end" if epoch == END else f"{epoch:g}" for epoch in table["epoch"]]
    table["set"] = layers_in_words(table["position"] + 1, table["moved"])
    return table[["cell", "set", "at", "mean", "n", "epoch"]]


def heat_maps(  # noqa: PLR0913 - two tables, and what they are of
    rises: pd.DataFrame,
    epochs: pd.DataFrame,
    places: Mapping[str, str],
    verdict: VerdictSpec,
    cell: str,
    *,
    follows: bool,
) -> Any:
    """Layer × λ from both bases, and layer × epoch, in one colour scale.

    Args:
        rises, epochs: as :func:`rise_table` and :func:`epoch_table` give them; one may be empty.
        places, verdict, cell, follows: as for :func:`barrier_charts`.
    """
    values = pd.concat([rises["mean"], epochs["mean"]])
    domain = [min(0.0, float(values.min())), max(verdict.threshold, float(values.max()))]
    at = alt.X("at:O", title="λ, from the member to the other's layer", axis=alt.Axis(labelAngle=0, format=".3~g"))
    charts = [
        titled_chart(_heat(own, domain, verdict, at), [f"{one}, one layer on its way to {other}'s"], **SUBTITLE)
        for one, other in ("AB", "BA")
        if len(own := rises[rises["base"] == one.lower()])
    ]
    if len(epochs):
        order = epochs.sort_values("epoch")["at"].unique().tolist()
        x = alt.X("at:O", title="epoch", sort=order, axis=alt.Axis(labelAngle=0))
        heat = _heat(epochs, domain, verdict, x)
        charts.append(titled_chart(heat, ["Barrier during training, mean of A and B"], **SUBTITLE))
    row = alt.hconcat(*charts, spacing=30).resolve_scale(color="shared")
    return _of_cell([row], places, cell, follows=follows)


def _heat(table: pd.DataFrame, domain: list[float], verdict: VerdictSpec, x: alt.X) -> Any:
    """A row per layer."""
    legend = alt.Legend(
        orient="top",
        format=tick_style(percent=verdict.quantity == "error"),
        gradientLength=130,
        tickCount=3,
        labelOverlap="greedy",
        labelSeparation=6,
    )
    scale = alt.Scale(scheme="viridis", domain=domain)
    colour = alt.Color("mean:Q", title=f"mean rise of {quantity(verdict)}", scale=scale, legend=legend)
    said = [alt.Tooltip("set:N", title="layer"), alt.Tooltip("at:N", title="at")]
    said += [alt.Tooltip("mean:Q", title="rise", format=barrier_format(verdict)), alt.Tooltip("n:Q")]
    y = _in_rows(table)
    chart = alt.Chart(table).transform_filter(_SHOWN).mark_rect().encode(x=x, y=y, color=colour, tooltip=said)
    most = int(table.groupby("cell")["set"].nunique().max())
    return chart.properties(width=MAP_WIDTH, height=MAP_ROW * most)
