"""The charts of the report as Altair objects, for notebooks and papers: complete without the page around them."""

import base64
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import vl_convert

from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.analysis.report import sections as own_sections
from lmc_tune.analysis.report.charts.curves import Curves, collect_curves, curve_chart
from lmc_tune.analysis.report.charts.learning import LINES, collect_learning, learning_chart
from lmc_tune.analysis.report.columnar import rows
from lmc_tune.analysis.report.content import most_telling, place
from lmc_tune.analysis.report.section import Context, find_sections
from lmc_tune.core.barrier import Array
from lmc_tune.experiment import VerdictSpec
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.tables.store import Store

# No cell's id: the outline of the picked cell, which the page moves, is not drawn.
_NONE_PICKED = ""
# More tiles are drawn faster, and are smaller in a file, as pixels than as shapes.
MANY_TILES = 1500


def standalone_charts(
    diagram: PhaseDiagram, space: SearchSpace | None, store: Store, modules: Sequence[ModuleType] | None = None
) -> dict[str, tuple[str, Any]]:
    """Every chart that the report draws with its title, by name.

    ``phase`` is the phase diagram; ``curves`` and ``learning`` are the interpolation and learning curves of the cell
    that the page shows first, :func:`~lmc_tune.analysis.report.content.most_telling`; the others are named after the
    page's sections.

    Args:
        diagram: with the pairs' columns that the sections need
            (:func:`~lmc_tune.tables.cells.judged_columns`).
        space: what was planned, if known.
        store: of the run folder.
        modules: those of the page's sections.
    """
    drawn = diagram.drawn()
    charts = {"phase": ("Phase diagram", diagram.chart())}
    cell = most_telling(drawn)
    where = place(drawn, drawn.cells[drawn.cells["cell"] == cell].iloc[0].to_dict())
    own = diagram.pairs[diagram.pairs["cell"] == cell]
    curves = collect_curves(own, store.parts("paths"), diagram.verdict)
    if curves.of(cell):
        chart = curve_chart(diagram.verdict, curves.bands)
        rows_ = curve_rows(curves, cell, diagram.verdict)
        charts["curves"] = (f"Interpolation curves at {where}", _with_rows(chart, "curves", rows_))
    learning = collect_learning(own, store.parts("curves"))
    if cell in learning:
        rows_ = learning_rows(learning[cell])
        charts["learning"] = (f"Learning curves at {where}", _with_rows(learning_chart(legend=True), "learning", rows_))
    modules = find_sections(own_sections) if modules is None else modules
    context = Context.of(diagram, space, store, modules, _NONE_PICKED)
    sections = (module.make(context) for module in modules)
    return charts | {one.id: (one.title, one.chart) for one in sections if one is not None and one.chart is not None}


def image(diagram: PhaseDiagram) -> str:
    """The phase diagram as an HTML image, drawn here: it shows without a network, and in files made of a notebook."""
    with alt.data_transformers.enable("default", max_rows=None):
        spec = diagram.chart().to_dict()
    if len(diagram.cells) + len(diagram.not_run) > MANY_TILES:
        kind, data = "png", vl_convert.vegalite_to_png(spec, scale=2)
    else:
        kind, data = "svg+xml", vl_convert.vegalite_to_svg(spec).encode()
    # An image, since two drawings inside one page would share the names of their parts.
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return f"<div style='overflow:auto;max-height:640px'><img alt='phase diagram' src='{source}'></div>"


def curve_rows(curves: Curves, cell: str, verdict: VerdictSpec) -> pd.DataFrame:
    """One row per quantity and λ of a cell, as :func:`~lmc_tune.analysis.report.charts.curves.curve_chart` draws it."""
    tables = []
    for name, (mean, low, high) in curves.of(cell).items():
        split, quantity = name.split("_")
        chord = mean[0] + curves.lambdas * (mean[-1] - mean[0]) if name == verdict.of else np.nan
        columns = {"lambda": curves.lambdas, "mean": mean, "low": low, "high": high, "chord": chord}
        tables.append(pd.DataFrame(columns).assign(split=split, quantity=quantity))
    return pd.concat(tables, ignore_index=True)


def learning_rows(curve: Array) -> pd.DataFrame:
    """One row per line and epoch, as :func:`~lmc_tune.analysis.report.charts.learning.learning_chart` draws it."""
    epochs, *lines = curve
    tables = []
    for name, values in zip(LINES, lines, strict=True):
        split, quantity = name.split("_")
        tables.append(pd.DataFrame({"epoch": epochs, "value": values}).assign(split=split, quantity=quantity))
    return pd.concat(tables, ignore_index=True)


def _with_rows(chart: Any, name: str, table: pd.DataFrame) -> Any:
    chart.datasets = {name: rows(table)}
    return chart
