"""Barrier and accuracy difference Δ by network: both against depth, width and norm (Hepburn et al. 2025, Fig. 4)."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from lmc_tune.analysis.phase import PhaseDiagram, facet_title
from lmc_tune.analysis.report.charts.points import judged_cells, point_colour, shown
from lmc_tune.analysis.report.charts.style import PANEL_WIDTH, Points, barrier_axis, finish, fitted, interval_layers
from lmc_tune.analysis.report.section import Context, Section
from lmc_tune.analysis.wording import SMALL_DIFFERENCE, confidence, number
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.tables.columns import MODEL_FIELDS, RESULTS
from lmc_tune.tables.rows import model_label

ORDER = 10
NETWORK_FIELDS = ("model", *MODEL_FIELDS)


def numbers(context: Context) -> dict[str, pd.Series]:
    """The accuracy difference Δ, if networks vary."""
    pairs = context.diagram.pairs
    return {"accuracy_difference": pairs["accuracy_difference"]} if networks_vary(context.diagram) else {}


def make(context: Context) -> Section | None:
    """None if all cells have one network, none is judged, or there are too many cells."""
    diagram = context.diagram
    if not context.detailed or not networks_vary(diagram):
        return None
    table = network_table(diagram, context.intervals, context.space)
    if table.empty:
        return None
    return Section(
        id="networks",
        title="Barrier and accuracy by network",
        lead="Each point is a judged cell. Left: its mean barrier, the dashed line the threshold. Right: Δ, the "
        "accuracy at the top of the test error's barrier (without one at λ = ½) minus the mean of the members' "
        f"accuracies, in percentage points; the dashed line stands at {number(SMALL_DIFFERENCE)}. Bars: "
        f"{confidence(diagram.verdict)} intervals over replicates.",
        label="Mean barrier and accuracy difference of every judged cell, by network",
        chart=network_chart(diagram, table, context.picked),
    )


def networks_vary(diagram: PhaseDiagram) -> bool:
    """Whether its panels are told apart by their networks."""
    return bool(set(NETWORK_FIELDS) & set(diagram.facets))


def network_table(
    diagram: PhaseDiagram, intervals: Mapping[str, pd.DataFrame], space: SearchSpace | None
) -> pd.DataFrame:
    """The judged cells in the order of their networks, as ``judged_cells``, and more.

    ``network`` in words; ``rank``, its place in the space, or without one in the diagram; ``setting``, what else tells
    the cell from those of other panels; ``difference`` with ``difference_low`` and ``difference_high``, the mean Δ in
    percentage points and its interval.

    Args:
        intervals: of ``accuracy_difference``, as :func:`lmc_tune.tables.cells.mean_intervals` gives them.
    """
    cells = diagram.cells
    others = [name for name in diagram.facets if name not in NETWORK_FIELDS]
    axes = [axis.column for axis in diagram.axes]
    settings = [facet_title(row, others, axes, diagram.of_a) for row in cells.to_dict("records")]
    known = pd.DataFrame({"network": network_names(cells), "rank": _ranks(diagram, space), "setting": settings})
    table = judged_cells(diagram).join(known).join(shown(intervals["accuracy_difference"], "difference"))
    table["rank"] = table.groupby("network")["rank"].transform("min")
    return table.sort_values(["rank", "network", "cell"]).reset_index(drop=True)


def network_names(cells: pd.DataFrame) -> pd.Series:
    """The network of every cell in a few words, as :func:`~lmc_tune.tables.rows.model_label`; and, where several
    networks share them, what tells these apart.
    """
    networks = cells.groupby(list(NETWORK_FIELDS), dropna=False, sort=False).ngroup()
    rows = cells[~networks.duplicated()].set_index(networks[~networks.duplicated()])
    labels = pd.Series([model_label(row) for row in rows.to_dict("records")], index=rows.index)
    names = {}
    for label, alike in rows.groupby(labels):
        telling: list[str] = [name for name in NETWORK_FIELDS if len(alike[name].unique()) > 1]
        for network, row in zip(alike.index, alike.to_dict("records"), strict=True):
            names[network] = " · ".join(filter(None, (str(label), facet_title(row, telling, ()))))
    return networks.map(names)


def _ranks(diagram: PhaseDiagram, space: SearchSpace | None) -> pd.Series:
    if space is None:
        return diagram.cells["panel"].map({panel: at for at, panel in enumerate(diagram.panels)})
    return diagram.cells["cell"].map({cell.key: at for at, cell in enumerate(space.cells())})


def network_chart(diagram: PhaseDiagram, table: pd.DataFrame, picked: str | None = None) -> Any:
    """A row per network, mean barriers on the left, Δ on the right; a block of rows per ``setting``."""
    setting_of = dict(zip(table["panel"], table["setting"], strict=True))
    settings = dict.fromkeys(setting_of[panel] for panel in diagram.panels if panel in setting_of)
    blocks = [_block(diagram, table, setting, picked) for setting in settings]
    chart: Any = alt.vconcat(*blocks, spacing=24).resolve_scale(color="shared", shape="shared")
    return finish(chart, picked)


def _block(diagram: PhaseDiagram, table: pd.DataFrame, setting: str, picked: str | None) -> Any:
    rows = table[table["setting"] == setting]
    networks = rows["network"].drop_duplicates().tolist()
    values = len(rows["colour"].unique())
    differences = table[["difference", "difference_low", "difference_high"]]
    sides: tuple[tuple[alt.X, alt.Axis, dict[str, Any]], ...] = (
        (barrier_axis(alt.X, table, diagram.verdict), alt.Axis(labelLimit=420), {"guide": diagram.verdict.threshold}),
        (
            fitted(alt.X, differences, (0.0, SMALL_DIFFERENCE), title=f"Δ, {RESULTS['accuracy_difference'].heading}"),
            alt.Axis(labels=False, ticks=False),
            {"guide": SMALL_DIFFERENCE, "low": "difference_low", "high": "difference_high"},
        ),
    )
    charts = []
    for x, axis, spread in sides:
        points = Points(
            x=x,
            y=alt.Y("network:N", title=None, sort=networks, axis=axis),
            colour=point_colour(diagram, table),
            offset=alt.YOffset("colour:O") if values > 1 else None,
            channel="x",
            **spread,
        )
        layers = alt.layer(*interval_layers(rows, points, diagram, picked))
        charts.append(layers.properties(width=PANEL_WIDTH, height=len(networks) * max(34, 13 * values)))
    block: Any = alt.hconcat(*charts, spacing=18)
    return block.properties(title=alt.Title(setting, offset=2)) if setting else block
