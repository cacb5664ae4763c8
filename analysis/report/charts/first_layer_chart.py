"""The first layer to break over the axes of the phase diagram, in colours ordered by place in the network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from lmc_tune.analysis.layers import Family
from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.analysis.report.charts.comparison_chart import PAGE_WIDTH
from lmc_tune.analysis.report.charts.layout import GAP, lay_out
from lmc_tune.analysis.report.charts.phase_chart import (
    SUBTITLE,
    Maps,
    letters_at_the_top,
    map_axes,
    maps_chart,
    phase_table,
    tables_of,
)
from lmc_tune.analysis.report.charts.style import (
    NOT_JUDGED,
    PANEL_WIDTH,
    PAPER,
    VERDICT_COLOURS,
    finish,
    tick_axis,
    tile_scale,
    tooltips,
    wrapped,
)
from lmc_tune.analysis.wording import LETTERS, height, interval, layer_words
from lmc_tune.core.statistics import Verdict
from lmc_tune.experiment import VerdictSpec

TITLES: dict[Family, str] = {"single": "First layer that breaks alone", "shallow": "Fewest first layers that break"}
NONE, UNDECIDED = "none breaks", f"{LETTERS['undecided']}  undecided"
# Of cells that are not judged, by their verdicts.
EXCLUDED: dict[Verdict, str] = {name: f"{LETTERS[name]}  {name}" for name in ("undertrained", "diverged")}
# As in a tile, and under the pointer.
_SHORT = {"none": "none", "undecided": LETTERS["undecided"]}
_LONG = {"none": NONE, "undecided": "undecided"}
# Of cells in which no layer breaks: no step of the scale has it.
_NONE_COLOUR = "#e3e8ea"
# Viridis at equal steps.
_VIRIDIS = ("#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725")
# Beyond this part of the scale its colours are so light that text on them is dark.
_LIGHT_FROM = 0.6
# More of them become a wall.
MOST_PANELS = 12


def first_layer_table(diagram: PhaseDiagram, firsts: Mapping[Family, pd.DataFrame]) -> pd.DataFrame:
    """What is drawn of every cell (:func:`~lmc_tune.analysis.report.charts.phase_chart.phase_table`), and its layers.

    By family: ``single_layer``, the layer with its place in front, or that none breaks, it is undecided, or the verdict
    of a cell that is not judged; missing where it is not known; ``single_text``, in the tile; ``single_words``, with
    barrier and interval.

    Args:
        diagram: what is drawn.
        firsts: by family, as :func:`~lmc_tune.analysis.layers.first_layers` gives them.
    """
    table = phase_table(diagram)
    scale = scale_of(firsts)
    for family, first in firsts.items():
        own = first.set_index("cell").reindex(table["cell"]).to_dict("records")
        verdicts = zip(own, table["verdict"], strict=True)
        table[f"{family}_layer"] = [_label(row, verdict, scale) for row, verdict in verdicts]
        table[f"{family}_text"] = [_text(row, family, letter) for row, letter in zip(own, table["letter"], strict=True)]
        dark = [row["outcome"] == "breaks" and scale.dark(row["position"]) for row in own]
        table[f"{family}_text_light"] = np.array(dark) | (table["verdict"] == "diverged")
        table[f"{family}_words"] = [_words(row, scale, diagram.verdict) for row in own]
    return table


@dataclass(frozen=True, kw_only=True)
class LayerScale:
    """Colours by place in the network: ``names`` of the places that are shown, from 1; ``places``, of the deepest."""

    names: Mapping[int, str]
    places: int

    @property
    def labels(self) -> list[str]:
        return [self.label(position) for position in self.names]

    def label(self, position: float) -> str:
        return layer_words(int(position), self.names[int(position)])

    def dark(self, position: float) -> bool:
        return self._part(position) < _LIGHT_FROM

    def colour(self, field: str, legend: alt.Legend | None) -> alt.Color:
        """Of a column of labels."""
        domain = [*self.labels, NONE, UNDECIDED, *EXCLUDED.values()]
        inks = [
            *(_viridis(self._part(position)) for position in self.names),
            _NONE_COLOUR,
            *(VERDICT_COLOURS[name] for name in ("undecided", *EXCLUDED)),
        ]
        return alt.Color(f"{field}:N", title=None, scale=alt.Scale(domain=domain, range=inks), legend=legend)

    def _part(self, position: float) -> float:
        return (position - 1) / max(self.places - 1, 1)


def scale_of(firsts: Mapping[Family, pd.DataFrame]) -> LayerScale:
    """That of all families: layers of several networks that share a place have one colour."""
    table = pd.concat(firsts.values())
    broken = table.dropna(subset="position")
    places = sorted({int(position) for position in broken["position"]})
    names = {at: " or ".join(dict.fromkeys(broken.loc[broken["position"] == at, "moved"])) for at in places}
    return LayerScale(names=names, places=int(table["places"].max()))


def first_layer_chart(diagram: PhaseDiagram, firsts: Mapping[Family, pd.DataFrame], picked: str | None = None) -> Any:
    """Maps of the first layer to break, one per family and panel; over one axis, a row of tiles per layer.

    None where no axis varies.

    Args:
        diagram: what is drawn.
        firsts: as for :func:`first_layer_table`.
        picked: outlines this cell.
    """
    if diagram.x is None:
        return None
    table, scale = first_layer_table(diagram, firsts), scale_of(firsts)
    if diagram.y is None:
        return finish(_strips(diagram, table, list(firsts), scale), picked)
    draw = _FirstLayers(
        diagram=diagram,
        tables=tables_of(diagram, table),
        picked=picked,
        layout=lay_out(diagram, *map_axes(diagram), PAGE_WIDTH),
        width=PAGE_WIDTH,
        families=tuple(firsts),
        scale=scale,
    )
    return maps_chart(draw)


@dataclass(frozen=True, kw_only=True)
class _FirstLayers(Maps):
    """A map per family."""

    families: tuple[Family, ...]
    scale: LayerScale

    @property
    def titles(self) -> dict[str, str]:
        return {f"{family}_text": TITLES[family] for family in self.families}

    def fills(self, kind: str, base: alt.Chart, tile: Mapping[str, Any]) -> list[alt.Chart]:
        """The tiles in colour."""
        field = kind.replace("_text", "_layer")
        legend = alt.Legend(orient="top", columns=4, symbolType="square", symbolStrokeWidth=0, symbolSize=170)
        known = f"isValid(datum.{field})"
        return [
            base.transform_filter(f"!{known}").mark_rect(fill=NOT_JUDGED, **tile),
            base.transform_filter(known).mark_rect(**tile).encode(color=self.scale.colour(field, legend)),
        ]

    def said(self) -> list[alt.Tooltip]:
        return [*tooltips(self.diagram), *_said(self.families)]


def _strips(diagram: PhaseDiagram, table: pd.DataFrame, families: Sequence[Family], scale: LayerScale) -> Any:
    """Over the one axis, a row per layer; one chart per panel and family."""
    rows = []
    for panel in diagram.panels[:MOST_PANELS]:
        own = table[table["panel"] == panel]
        charts = [_strip(diagram, own, family, scale) for family in families]
        row: Any = alt.hconcat(*charts, spacing=GAP)
        title = alt.Title(wrapped(panel, PANEL_WIDTH), offset=2)
        rows.append(row.properties(title=title) if len(diagram.panels) > 1 else row)
    return alt.vconcat(*rows, spacing=24)


def _strip(diagram: PhaseDiagram, table: pd.DataFrame, family: Family, scale: LayerScale) -> Any:
    if diagram.x is None:
        raise ValueError("a strip needs an axis")
    field = f"{family}_layer"
    there = [label for label in EXCLUDED.values() if (table[field] == label).any()]
    labels = [*scale.labels, NONE, UNDECIDED, *there]
    y = alt.Y(f"{field}:N", title=None, scale=alt.Scale(domain=labels), axis=alt.Axis(labelLimit=180))
    x = alt.X("x_low:Q", scale=tile_scale(diagram.x), axis=tick_axis(diagram.x))
    known = table[table[field].notna()]
    tiles = alt.Chart(known if len(known) else table.head(0)).mark_rect(stroke=PAPER)
    said = [*tooltips(diagram), *_said([family])]
    chart = alt.layer(
        tiles.encode(x=x, x2="x_high:Q", y=y, color=scale.colour(field, None), tooltip=said),
        letters_at_the_top(table[table[field].isna()], alt.X("x:Q", scale=tile_scale(diagram.x)), diagram),
    )
    return chart.properties(width=PANEL_WIDTH, height=26 * len(labels), title=alt.Title(TITLES[family], **SUBTITLE))


def _said(families: Sequence[Family]) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{family}_words:N", title=TITLES[family].lower()) for family in families]


def _label(row: Mapping[Any, Any], verdict: Verdict, scale: LayerScale) -> str | None:
    if row["outcome"] == "breaks":
        return scale.label(row["position"])
    return {"none": NONE, "undecided": UNDECIDED}.get(row["outcome"], EXCLUDED.get(verdict))


def _text(row: Mapping[Any, Any], family: Family, letter: str) -> str:
    """As short as it can be: the place, or the places of the first layers; else the verdict's letter."""
    if row["outcome"] != "breaks":
        return _SHORT.get(row["outcome"], letter)
    last = int(row["position"])
    return f"#1–{last}" if family == "shallow" and last > 1 else f"#{last}"


def _words(row: Mapping[Any, Any], scale: LayerScale, verdict: VerdictSpec) -> str:
    if row["outcome"] != "breaks":
        return _LONG.get(row["outcome"], "not known")
    which = f"{scale.label(row['position'])} of {int(row['places'])} layers"
    bounds = interval(row["low"], row["high"], verdict)
    return f"{which}: {height(row['mean'], verdict)} ({bounds}), n = {int(row['n'])}"


def _viridis(part: float) -> str:
    """A colour between the steps of viridis, from 0 to 1."""
    steps = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in _VIRIDIS])
    places = np.linspace(0, 1, len(steps))
    channels = [round(float(np.interp(part, places, steps[:, channel]))) for channel in range(3)]
    return "#" + "".join(f"{channel:02x}" for channel in channels)
