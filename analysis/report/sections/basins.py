"""Basins: how far the test loss of the members' average lies below that of both (Hepburn et al. 2025, Fig. 3).

The figure reads a path where it is lowest. The lowest of many positions lies below the ends even of a path that is flat
but for noise, so the depth is read at λ = ½ here, which no loss has chosen.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.analysis.report.charts.phase_chart import ROW_HEIGHT, row_axis
from lmc_tune.analysis.report.charts.points import judged_cells, panels_of_points, point_colour, shown
from lmc_tune.analysis.report.charts.style import (
    PANEL_WIDTH,
    Points,
    finish,
    fitted,
    interval_layers,
    tick_axis,
    tile_scale,
    verdict_colour,
)
from lmc_tune.analysis.report.section import Context, Section
from lmc_tune.analysis.report.sections.noise_scale import noise_axis
from lmc_tune.analysis.wording import confidence
from lmc_tune.core.counted import counted
from lmc_tune.experiment import Condition
from lmc_tune.tables.barriers import judged_rows

ORDER = 40
TITLE = "basin depth of test loss at λ = ½ (nats)"


def basin_depths(parts: Iterable[pa.Table], condition: Condition) -> pd.Series:
    """By key, how far a path's test loss at λ = ½ lies below that of the better end, in nats.

    Positive: the members' average is better than both, a *basin*. Not finite where one of the three losses is not
    known.

    Args:
        parts: rows of the paths of whole pairs, as :meth:`lmc_tune.tables.store.Store.parts` gives them.
        condition: of the path; where that would repeat the naive one, naive rows stand for it.
    """
    found = []
    for part in parts:
        rows = part.filter(pc.and_(judged_rows(part, condition), pc.equal(part["split"], "test")))
        if not len(rows):
            continue
        key = rows["key"].combine_chunks().dictionary_encode()
        start = np.flatnonzero(np.diff(key.indices.to_numpy(), prepend=-1))
        at, loss = rows["lambda"].to_numpy(), rows["loss_sum"].to_numpy() / rows["n"].to_numpy()
        middle = np.fmax.reduceat(np.where(at == 0.5, loss, np.nan), start)
        better_end = np.minimum.reduceat(np.where((at > 0) & (at < 1), np.inf, loss), start)
        found.append(pd.Series(better_end - middle, index=key.dictionary.to_pandas()))
    return pd.concat(found) if found else pd.Series(dtype=np.float64)


def numbers(context: Context) -> dict[str, pd.Series]:
    """The ``basin_depth`` of every pair, on the paths that are judged."""
    depths = basin_depths(context.parts("paths"), context.diagram.verdict.condition)
    return {"basin_depth": context.diagram.pairs["key"].map(depths)}


def make(context: Context) -> Section | None:
    """None if no depth of a judged cell is known, or there are too many cells."""
    if not context.detailed:
        return None
    diagram = context.diagram
    table = basin_table(diagram, context.added["basin_depth"], context.intervals)
    if table.empty:
        return None
    drawn = table[table["g"] > 0] if _scales_differ(table) else table
    n, n_pairs, deep = int(table["n_basins"].sum()), int(table["n_ok"].sum()), int((table["depth_low"] > 0).sum())
    return Section(
        id="basins",
        title="Basins",
        lead=f"In {n} of {counted(n_pairs, 'counted pair')} the average of the members (λ = ½) has a lower test loss "
        f"than both; in {deep} of {counted(len(table), 'cell')} the whole interval of the mean lies above 0. Depth: "
        "how far the average's test loss lies below that of the better member. "
        f"Bars: {confidence(diagram.verdict)} intervals."
        + (" Cells with a noise scale g of 0 are not drawn." if len(drawn) < len(table) else ""),
        label="Depth of the basin of every judged cell",
        chart=basin_chart(diagram, drawn, context.picked),
    )


def _scales_differ(table: pd.DataFrame) -> bool:
    """Whether a logarithmic axis of noise scales can tell cells apart."""
    return len(table.loc[table["g"] > 0, "g"].unique()) > 1


def basin_table(diagram: PhaseDiagram, depths: pd.Series, intervals: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The judged cells whose depth is known, as ``judged_cells``, and more.

    ``depth`` in nats, the mean over the ok pairs, with ``depth_low`` and ``depth_high``; ``n_basins`` of the ``n_ok``
    pairs have one above 0; ``g``, the noise scale.

    Args:
        diagram: whose cells.
        depths: of its pairs.
        intervals: of ``basin_depth``, as :func:`lmc_tune.tables.cells.mean_intervals` gives them.
    """
    cells, pairs = diagram.cells, diagram.pairs
    basins = pairs.loc[(pairs["status"] == "ok") & (depths > 0), "cell"].value_counts()
    n_basins = cells["cell"].map(basins).fillna(0).astype(int)
    known = pd.DataFrame({"g": cells["noise_scale"], "n_ok": cells["n_ok"], "n_basins": n_basins})
    table = judged_cells(diagram).join(known).join(shown(intervals["basin_depth"], "depth"))
    return table[table["depth"].notna()].reset_index(drop=True)


def basin_chart(diagram: PhaseDiagram, table: pd.DataFrame, picked: str | None = None) -> Any:
    """Depth against noise scale, one panel per panel of the phase diagram; the dashed line is 0.

    Where cells do not differ in their noise scales: against the first axis; without one, a row per cell.
    """
    spread: dict[str, Any] = {"low": "depth_low", "high": "depth_high", "guide": 0.0}

    def depth(channel: Any) -> Any:
        depths = table[["depth", "depth_low", "depth_high"]]
        return fitted(channel, depths, (0.0,), title=TITLE, number_format="~g")

    if _scales_differ(table):
        x = noise_axis(diagram, table)
    elif diagram.x is not None:
        x = alt.X("place:Q", scale=tile_scale(diagram.x), axis=tick_axis(diagram.x))
        table = table.assign(place=diagram.x.drawn(table[diagram.x.column]))
    else:
        points = Points(x=depth(alt.X), y=row_axis(diagram), colour=verdict_colour(), channel="x", **spread)
        rows: Any = alt.layer(*interval_layers(table, points, diagram, picked))
        return finish(rows.properties(width=2 * PANEL_WIDTH, height=ROW_HEIGHT * len(table)), picked)
    points = Points(x=x, y=depth(alt.Y), colour=point_colour(diagram, table), **spread)
    return panels_of_points(diagram, table, points, picked)
