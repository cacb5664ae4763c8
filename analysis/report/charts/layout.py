"""Where the maps of a phase diagram stand: which panels form rows and columns, and how large their maps are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pandas as pd

from lmc_tune.analysis.phase import SHIFT_FIELDS, Axis, PhaseDiagram, facet_title
from lmc_tune.tables.cells import CELL_FIELDS
from lmc_tune.tables.columns import MODEL_FIELDS

# The column of the page that the maps stand in, at 1280 px and beside the cell that is shown.
MAPS_WIDTH = 752
# What the title of a vertical axis takes; what stands between two maps; a character of a label.
AXIS_TITLE_WIDTH, GAP, LABEL_WIDTH = 24, 16, 6.3
# With more columns of tiles, or over fewer pixels, verdicts stand above barriers.
MANY_COLUMNS, NARROW = 9, 520
# Of the maps that stand above each other over few pixels: their height in parts of their width.
HIGHEST = 0.5
# A tile that a number fits into, and the least that a letter fits into.
NUMBER_WIDTH, LETTER_WIDTH = 34, 14

# Each a title and its panels with their titles, from left to right; empty titles say nothing.
Rows = tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The maps of a phase diagram on the page.

    rows: from top to bottom.
    grid: verdicts of all rows stand above the barriers of all rows; otherwise each row is one panel with both.
    beside: the two maps of a row stand side by side.
    map_width, map_height: of each map in pixels, without its axes.
    """

    rows: Rows
    grid: bool
    beside: bool
    map_width: int
    map_height: int


def lay_out(diagram: PhaseDiagram, x: Axis, y: Axis, width: float = MAPS_WIDTH) -> Layout:
    """The layout of a diagram with two axes over so many pixels."""
    n_columns, height, labels = len(x.ticks), map_height(len(y.ticks)), labels_width(y)
    for least in (NUMBER_WIDTH, LETTER_WIDTH):  # the most columns of maps that numbers fit into, else letters
        for rows in _grids(diagram):
            maps = len(rows[0][1])
            map_width = int((width - AXIS_TITLE_WIDTH - (maps - 1) * GAP) / maps - labels)
            if map_width >= least * n_columns:
                return Layout(rows=rows, grid=True, beside=False, map_width=map_width, map_height=height)
    named = len(diagram.panels) > 1
    beside = n_columns <= MANY_COLUMNS and width > NARROW
    maps = 2 if beside else 1
    map_width = int((width - (maps - 1) * GAP) / maps - AXIS_TITLE_WIDTH - labels)
    return Layout(
        rows=tuple((panel if named else "", ((panel, ""),)) for panel in diagram.panels),
        grid=False,
        beside=beside,
        map_width=map_width,
        map_height=min(height, max(int(HIGHEST * map_width), 16 * len(y.ticks))) if width <= NARROW else height,
    )


def labels_width(y: Axis) -> float:
    """What the labels of a vertical axis take, in pixels."""
    return 14 + LABEL_WIDTH * max(len(f"{value:.3g}") for value in y.ticks)


def map_height(n_rows: int) -> int:
    """Pixels that let few rows fill a map and keep many apart."""
    return int(max(np.clip(56 * n_rows, 200, 480), min(16 * n_rows, 800)))


def _grids(diagram: PhaseDiagram) -> list[Rows]:
    """Both ways to set two factors as rows and columns, the one with more columns first; none if there are not two."""
    grids = [facet_grid(diagram), facet_grid(diagram, turned=True)]
    return sorted(filter(None, grids), key=lambda rows: -len(rows[0][1]))


def facet_grid(diagram: PhaseDiagram, *, turned: bool = False) -> Rows:
    """The panels as rows and columns where exactly two factors tell them apart, all combined; otherwise empty.

    Args:
        diagram: whose panels.
        turned: the second factor, in the order of the panels, makes the rows and not the columns.
    """
    planned = pd.concat([diagram.cells, diagram.not_run]).drop_duplicates("panel").set_index("panel")
    facets = planned.loc[list(diagram.panels), CELL_FIELDS]
    factors = independent(facets, diagram.facets)
    if len(factors) != 2:
        return ()
    rows, columns = reversed(factors) if turned else factors
    axes = [axis.column for axis in diagram.axes]
    of_row, of_column = (
        [facet_title(row, names, axes, diagram.of_a) for row in facets.to_dict("records")] for names in (rows, columns)
    )
    places = dict(zip(zip(of_row, of_column, strict=True), diagram.panels, strict=True))
    row_titles, column_titles = dict.fromkeys(of_row), dict.fromkeys(of_column)
    if len(places) != len(diagram.panels) or len(places) != len(row_titles) * len(column_titles):
        return ()
    return tuple((row, tuple((places[row, column], column) for column in column_titles)) for row in row_titles)


def independent(facets: pd.DataFrame, names: Sequence[str]) -> list[list[str]]:
    """The columns in groups that vary independently: those that tell the same rows apart are one factor.

    So are the fields of a network, unless all of their values are combined.
    """
    network = [name for name in names if name in ("model", *MODEL_FIELDS)]
    parts = _factors(facets, [[name] for name in network])
    if _settings(facets, network) < math.prod(_settings(facets, part) for part in parts):
        parts = [network]
    shift = [name for name in names if name in SHIFT_FIELDS]
    others = [[name] for name in names if name not in {*network, *shift}]
    return _factors(facets, [*([shift] if shift else []), *parts, *others])


def _factors(facets: pd.DataFrame, groups: list[list[str]]) -> list[list[str]]:
    start: list[list[str]] = []
    return reduce(lambda factors, group: _with(facets, factors, group), groups, start)


def _with(facets: pd.DataFrame, factors: list[list[str]], group: list[str]) -> list[list[str]]:
    for at, factor in enumerate(factors):
        if _settings(facets, factor + group) <= max(_settings(facets, factor), _settings(facets, group)):
            return [*factors[:at], factor + group, *factors[at + 1 :]]
    return [*factors, group]


def _settings(facets: pd.DataFrame, names: list[str]) -> int:
    return len(facets[names].drop_duplicates()) if names else 1
