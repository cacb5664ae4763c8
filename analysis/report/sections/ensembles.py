"""Average or ensemble? What the two members are worth together, as one network and as two."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.analysis.report.cell_table import cell_places
from lmc_tune.analysis.report.charts.points import judged_cells
from lmc_tune.analysis.report.charts.style import FAINT, INK, PANEL_WIDTH, barrier_axis, finish, outline, tooltips
from lmc_tune.analysis.report.content import ALL_CELLS, ends_early
from lmc_tune.analysis.report.section import Context, Section
from lmc_tune.analysis.wording import nats, percent, percentage_points, perplexity

ORDER = 60
COMBINED = {"average": "#2f7d9f", "ensemble": "#b5651d"}
SHAPES = {"average": "circle", "ensemble": "square"}
COLUMNS = [
    f"{combined}_{gain}{quality}" for combined in COMBINED for gain in ("", "gain_") for quality in ("accuracy", "nll")
]


def make(context: Context) -> Section | None:
    """None if neither is known of a judged cell, or there are too many cells."""
    diagram = context.diagram
    if diagram.group == "ensemble" or not context.detailed or (table := ensemble_table(diagram)).empty:
        return None
    places = cell_places(diagram)
    of_losses = "NLL: mean test loss in nats."
    if table["of_text"].any():
        of_losses = "NLL: mean test loss in nats per token; perplexity: e to the NLL."
    return Section(
        id="ensembles",
        title="Average or ensemble?",
        lead="Average: the network at λ = ½, recalibrated where its path was; it costs one network. Ensemble: the mean "
        "of the members' predicted probabilities; it costs two. Gain: how much better than the mean of the members, in "
        f"percentage points of test accuracy. {of_losses} Means over the counted pairs.",
        label="Gain in accuracy of weight average and ensemble over the mean member, against the mean barrier",
        chart=ensemble_chart(diagram, gain_table(table), context.picked),
        table=ensemble_words(table, places),
        of_cells=True,
        note=ends_early(len(places), len(diagram.cells), "cells", ALL_CELLS),
    )


def ensemble_table(diagram: PhaseDiagram) -> pd.DataFrame:
    """The judged cells of which average and ensemble are known, as ``judged_cells``, and more.

    ``member_accuracy``, the mean of A's and B's; accuracies (fractions), NLL (nats) and gains of both, as the results
    name them; means over the ok pairs. ``of_text``: whether losses are of tokens.
    """
    cells = diagram.cells
    members = (cells["test_accuracy_a"] + cells["test_accuracy_b"]) / 2
    table = (
        judged_cells(diagram)
        .join(cells[COLUMNS])
        .join(cells["context"].notna().rename("of_text"))
        .join(members.rename("member_accuracy"))
    )
    return table.dropna(subset=["average_accuracy", "ensemble_accuracy"]).reset_index(drop=True)


def gain_table(table: pd.DataFrame) -> pd.DataFrame:
    """Two rows per cell: ``combined`` (average, ensemble), its ``gain`` over the mean member in percentage points."""
    return pd.concat(
        [table.assign(combined=name, gain=100 * table[f"{name}_gain_accuracy"]) for name in COMBINED], ignore_index=True
    )


def ensemble_words(table: pd.DataFrame, places: pd.DataFrame) -> pd.DataFrame:
    """The cells in words, in the order of the places (:func:`cell_places`), indexed by their ids.

    Of text, perplexities take the place of losses: with both, a table of two axes is wider than the page.
    """
    rows = table.set_index("cell").to_dict("index")
    of_text = bool(table["of_text"].any())
    words = {
        cell: {
            **where,
            "mean barrier": rows[cell]["mean"],
            "mean member": percent(rows[cell]["member_accuracy"]),
            **{name: percent(rows[cell][f"{name}_accuracy"]) for name in COMBINED},
            **{f"{name}'s gain": percentage_points(100 * rows[cell][f"{name}_gain_accuracy"]) for name in COMBINED},
            **(perplexities(rows[cell]) if of_text else losses(rows[cell])),
            **{f"{name}'s gain in NLL": nats(rows[cell][f"{name}_gain_nll"]) for name in COMBINED},
        }
        for cell, where in zip(places.index, places.to_dict("records"), strict=True)
        if cell in rows
    }
    return pd.DataFrame(list(words.values()), index=pd.Index(list(words), name="cell"))


def losses(row: Mapping[Any, Any]) -> dict[str, str]:
    """Mean test losses of the average and the ensemble of a cell, in nats."""
    return {f"{name}'s NLL": nats(row[f"{name}_nll"]) for name in COMBINED}


def perplexities(row: Mapping[Any, Any]) -> dict[str, str]:
    """Those of the mean member, the average and the ensemble of a cell."""
    members = row["average_nll"] + row["average_gain_nll"]  # the gain is the members' less its own
    known = {"mean member": members, **{name: row[f"{name}_nll"] for name in COMBINED}}
    return {f"{name}'s perplexity": perplexity(nll) for name, nll in known.items()}


def ensemble_chart(diagram: PhaseDiagram, table: pd.DataFrame, picked: str | None = None) -> Any:
    """Both gains of every cell against its mean barrier; the dashed line is the mean member."""
    x = barrier_axis(alt.X, table, diagram.verdict)
    y = alt.Y("gain:Q", title="gain over the mean member (pp)", axis=alt.Axis(tickCount=6))
    colour, shape = (
        channel(
            "combined:N",
            title=None,
            scale=alt.Scale(domain=list(kinds), range=list(kinds.values())),
            legend=alt.Legend(orient="top"),
        )
        for channel, kinds in ((alt.Color, COMBINED), (alt.Shape, SHAPES))
    )
    base = alt.Chart(table)
    chart: Any = alt.layer(
        alt.Chart(pd.DataFrame({"guide": [0.0]})).mark_rule(strokeDash=[5, 4], color=FAINT).encode(y="guide:Q"),
        base.mark_point(filled=True, size=60, opacity=0.85).encode(
            x=x, y=y, color=colour, shape=shape, tooltip=[*tooltips(diagram), alt.Tooltip("gain:Q", format="+.2f")]
        ),
        *outline(base.mark_point(size=190, strokeWidth=2, color=INK).encode(x=x, y=y), picked),
    ).properties(width=2 * PANEL_WIDTH, height=240)
    return finish(chart, picked)
