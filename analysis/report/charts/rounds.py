"""Federations round by round: the clients before and after every average, their spread, and what the average gains."""

from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pyarrow as pa

from lmc_tune.analysis.report.charts.style import FAINT, finish, wrapped

WIDTH, HEIGHT = 214, 120
# Room for the labels of an axis, so that charts above each other begin at one place.
_EXTENT = 34
# What is drawn of a round, in words.
CLIENTS, AFTER, POOLED = "clients, trained", "clients, averaged", "average of all layers"
WHAT = {"trained": CLIENTS, "averaged": AFTER, "pooled": POOLED}
_COLOURS = {CLIENTS: "#b5651d", AFTER: "#1f6f92", POOLED: FAINT}
_DASHES = {CLIENTS: [1, 0], AFTER: [1, 0], POOLED: [4, 3]}


def collect_rounds(pairs: pd.DataFrame, parts: Iterable[pa.Table]) -> pd.DataFrame:
    """One row per cell × round × what × split: means over the ok federations of the cell.

    ``accuracy`` and ``loss``, means over the clients, weighted by their numbers of examples; ``lowest`` and
    ``highest``, the accuracy of the client that has the least and the most; ``n``, the number of federations. A pooled
    row has one network: ``lowest`` and ``highest`` are its accuracy.

    Args:
        pairs: as :func:`lmc_tune.tables.cells.regate` gives them.
        parts: rows of the rounds, as :meth:`lmc_tune.tables.store.Store.parts` gives them.
    """
    ok = pairs.loc[pairs["status"] == "ok"].set_index("key")["cell"]
    found = [_by_federation(part.to_pandas()) for part in parts if len(part)]
    if not found:
        return pd.DataFrame(columns=["cell", "round", "what", "split", *_NUMBERS, "n"])
    table = pd.concat(found)
    table["cell"] = table["key"].map(ok)
    groups = table.dropna(subset="cell").groupby(["cell", "round", "what", "split"])
    return groups[_NUMBERS].mean().join(groups.size().rename("n")).reset_index()


_NUMBERS = ["accuracy", "loss", "lowest", "highest"]


def _by_federation(rows: pd.DataFrame) -> pd.DataFrame:
    """The numbers of every federation by round, what and split."""
    own = rows[(rows["split"] == "own") & (rows["what"] == "trained")]
    sizes = own.drop_duplicates(["key", "client"]).set_index(["key", "client"])["n"]
    weight = sizes.reindex(pd.MultiIndex.from_frame(rows[["key", "client"]])).fillna(1).to_numpy()
    accuracy = rows["correct"] / rows["n"]
    rows = rows.assign(
        accuracy=accuracy, weight=weight, of_accuracy=weight * accuracy, of_loss=weight * rows["loss_sum"] / rows["n"]
    )
    groups = rows.groupby(["key", "round", "what", "split"])
    sums = groups[["weight", "of_accuracy", "of_loss"]].sum()
    found = groups["accuracy"].agg(lowest="min", highest="max")
    found["accuracy"] = sums["of_accuracy"] / sums["weight"]
    found["loss"] = sums["of_loss"] / sums["weight"]
    return found.reset_index()


def excess_loss(table: pd.DataFrame) -> pd.DataFrame:
    """``excess``, by ``cell`` and ``round``: test loss of the average of all layers less the clients' mean, nats."""
    tested = table[table["split"] == "test"].pivot_table(index=["cell", "round"], columns="what", values="loss")
    if not {"pooled", "trained"} <= set(tested.columns):
        return pd.DataFrame(columns=["cell", "round", "excess"])
    return (tested["pooled"] - tested["trained"]).dropna().rename("excess").reset_index()


def rounds_chart(table: pd.DataFrame, titles: Sequence[tuple[str, str]]) -> Any:
    """A column per cell: accuracy on the test set and on the clients' own examples, and the excess loss of the average.

    Args:
        table: as :func:`collect_rounds` gives it.
        titles: ids of the cells that are drawn, with their titles.
    """
    excess = excess_loss(table)
    columns = [
        _column(table[table["cell"] == cell], excess[excess["cell"] == cell], title, titled=at % 4 == 0)
        for at, (cell, title) in enumerate(titles)
    ]
    chart: Any = alt.concat(*columns, columns=4, spacing=24).resolve_scale(color="shared", strokeDash="shared")
    return finish(chart)


def _column(rows: pd.DataFrame, excess: pd.DataFrame, title: str, *, titled: bool) -> Any:
    last = int(rows["round"].max())
    ticks = np.unique(np.linspace(1, last, min(last, 6)).round().astype(int)).tolist()
    rows = rows.assign(who=rows["what"].map(WHAT))

    def x(name: str | None) -> alt.X:
        scale = alt.Scale(domain=[1, last] if last > 1 else [0.5, 1.5], nice=False)
        return alt.X("round:Q", title=name, scale=scale, axis=alt.Axis(values=ticks, format="d", grid=False))

    charts = []
    for split, name in (("test", "test accuracy"), ("own", "own accuracy")):
        charts.append(_accuracy(rows[rows["split"] == split], x(None), name if titled else None))
    y = alt.Y("excess:Q", title="excess (nats)" if titled else None, axis=alt.Axis(tickCount=4, minExtent=_EXTENT))
    zero = alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(color=FAINT, strokeDash=[5, 4]).encode(y="zero:Q")
    tooltip = [alt.Tooltip("round:Q"), alt.Tooltip("excess:Q", title="excess loss", format=".3~g")]
    line = alt.Chart(excess).mark_line(color=FAINT, strokeWidth=1.8, point=alt.OverlayMarkDef(color=FAINT, size=24))
    charts.append(alt.layer(zero, line.encode(x=x("round"), y=y, tooltip=tooltip)).properties(width=WIDTH, height=80))
    return alt.vconcat(*charts, spacing=10).properties(title=alt.Title(wrapped(title, WIDTH), offset=4))


def _accuracy(rows: pd.DataFrame, x: alt.X, title: str | None) -> Any:
    """Means as lines; the band reaches from the client with the lowest accuracy to the one with the highest."""
    scale = alt.Scale(domain=[0, 1], nice=False)
    y = alt.Y("accuracy:Q", title=title, scale=scale, axis=alt.Axis(format="%", tickCount=5, minExtent=_EXTENT))
    legend = alt.Legend(orient="top", symbolType="stroke", symbolStrokeWidth=2.5, symbolOpacity=1, columns=3)
    colour = alt.Color(
        "who:N",
        title=None,
        scale=alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values())),
        legend=legend,
    )
    dashes = alt.Scale(domain=list(_DASHES), range=list(_DASHES.values()))
    dash = alt.StrokeDash("who:N", title=None, scale=dashes, legend=legend)
    tooltip = [
        alt.Tooltip("who:N", title="what"),
        alt.Tooltip("round:Q"),
        alt.Tooltip("accuracy:Q", title="mean", format=".1%"),
        alt.Tooltip("lowest:Q", title="lowest client", format=".1%"),
        alt.Tooltip("highest:Q", title="highest client", format=".1%"),
    ]
    of_clients = rows[rows["what"] != "pooled"]
    band = alt.Chart(of_clients).mark_area(opacity=0.16).encode(x=x, y="lowest:Q", y2="highest:Q", color=colour)
    base = alt.Chart(rows).encode(x=x, y=y, color=colour)
    line = base.mark_line(strokeWidth=1.8).encode(strokeDash=dash)
    points = base.mark_point(filled=True, size=24, opacity=1).encode(tooltip=tooltip)
    return alt.layer(band, line, points).properties(width=WIDTH, height=HEIGHT)
