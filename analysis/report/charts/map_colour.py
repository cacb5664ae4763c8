"""A column that colours the second map of the phase diagram in the place of the mean barrier."""

from typing import Literal

import altair as alt
import numpy as np
import pandas as pd

from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.analysis.report.charts.style import tick_style
from lmc_tune.analysis.wording import number, percent
from lmc_tune.core.barrier import Array
from lmc_tune.errors import UserError
from lmc_tune.experiment.wording import nearest
from lmc_tune.tables.cells import OK_MEANS, PAIR_MEANS
from lmc_tune.tables.columns import RESULTS

# Of which a cell has a mean.
COLOURS = (*OK_MEANS, *PAIR_MEANS)
# Beyond this part of the largest distance from 0, tiles are so dark that their text is light.
DARK = 0.6


def check_colour(diagram: PhaseDiagram, column: str) -> None:
    """Raise UserError unless the maps of a diagram can be coloured by a column."""
    if column not in COLOURS:
        hint = nearest(column, COLOURS) or "; docs/columns.md has the columns with a mean"
        raise UserError(f"--colour {column}: cells have no mean of that name{hint}")
    if diagram.y is None:
        raise UserError(f"--colour {column} is for maps, and fewer than two axes of this run vary")
    if not np.isfinite(_values(diagram, column)).any():
        raise UserError(
            f"--colour {column}: no judged cell of this run has it; run the sweep again with a new question"
        )


def coloured(table: pd.DataFrame, diagram: PhaseDiagram, column: str) -> pd.DataFrame:
    """A table of what is drawn, with the column; ``colour_text``, in the tile; and ``colour_text_light``.

    Missing, with the verdict's letter in the tile, where the cell is not judged.

    Args:
        table: as :func:`~lmc_tune.analysis.report.charts.phase_chart.phase_table` gives it.
        diagram: that it is made of.
        column: one of :data:`COLOURS`.
    """
    means = diagram.cells.set_index("cell")[column].reindex(table["cell"]).to_numpy(dtype=np.float64, na_value=np.nan)
    shown = pd.Series(means, index=table.index).where(table["judged"]).replace([np.inf, -np.inf], np.nan)
    in_words = percent if _is_fraction(column) else number
    text = shown.map(in_words).where(table["judged"], table["letter"])
    low, high = _domain(diagram, column)
    light = shown.abs() > DARK * high if low < 0 else shown < low + (1 - DARK / 2) * (high - low)
    return table.assign(**{column: shown, "colour_text": text, "colour_text_light": light})


def map_colour(diagram: PhaseDiagram, column: str, orient: Literal["top", "bottom"]) -> alt.Color:
    """Its scale: where it has both signs, two colours that meet at 0; the legend stands at the top or bottom."""
    low, high = _domain(diagram, column)
    scale = alt.Scale(scheme="purpleorange" if low < 0 else "viridis", domain=[low, high], nice=low >= 0)
    legend = alt.Legend(
        orient=orient,
        format=tick_style(percent=_is_fraction(column)),
        gradientLength=130,
        tickCount=3,
        labelOverlap="greedy",
        labelSeparation=6,
    )
    return alt.Color(f"{column}:Q", title=None, scale=scale, legend=legend)  # the map's title says what it is


def map_title(column: str) -> str:
    """What the second map shows, with its unit; fractions are shown in percent."""
    said = RESULTS[column].title if _is_fraction(column) else RESULTS[column].heading
    return f"{said[0].upper()}{said[1:]}"


def _is_fraction(column: str) -> bool:
    return RESULTS[column].unit.startswith("fraction")


def _values(diagram: PhaseDiagram, column: str) -> Array:
    """Of the judged cells."""
    judged = diagram.cells.loc[diagram.cells["judged"], column]
    values: Array = judged.to_numpy(dtype=np.float64, na_value=np.nan)
    return values


def _domain(diagram: PhaseDiagram, column: str) -> tuple[float, float]:
    """From the lowest to the highest; as far below 0 as above it, if there are values of both signs."""
    values = _values(diagram, column)
    known = values[np.isfinite(values)]
    low, high = float(known.min()), float(known.max())
    if low < 0:
        most = max(-low, high)
        return -most, most
    return low, high
