"""The phase diagram: every cell's verdict over two axes of the space, one panel per setting of all the others."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lmc_tune.analysis.boundary import COLUMNS, find_boundary, tile_edges
from lmc_tune.analysis.wording import axis_title, setting, shift_words, split_words
from lmc_tune.core.barrier import Array
from lmc_tune.core.statistics import VERDICTS
from lmc_tune.errors import UserError
from lmc_tune.experiment import VerdictSpec
from lmc_tune.experiment.recipes import GroupKind
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.experiment.wording import nearest
from lmc_tune.tables.cells import CELL_FIELDS, judge_cells, planned_cells, regate
from lmc_tune.tables.columns import AXIS_SCALES, B_COLUMNS, MODEL_FIELDS, Scale
from lmc_tune.tables.planned import marked
from lmc_tune.tables.rows import ENSEMBLE_SETTINGS, ensemble_label

# Of the mean of an axis: where a tile would be narrower, as between 0, 0.0001 and 0.01, all are drawn alike.
LEAST_TILE = 0.3
SHIFT_FIELDS = ["shift", "severity", "skew", "domain"]
SPLIT_FIELDS = ["client_split", "concentration", "client_classes"]
FAMILY_FIELDS = ["family", *ENSEMBLE_SETTINGS]
SHIFT_ORDER = ["none", "covariate", "label", "domain"]

# What the axes are where nothing else is asked for.
USUAL_AXES = ("lr", "batch_size")

# A page with more of them no longer opens smoothly.
MOST_PANELS = 40
MOST_TILES = 50_000


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a phase diagram: a column of the results, its title, the values it has (increasing), and its scale.

    The values are the planned ones, run or not, where the plan is known.
    """

    column: str
    title: str
    ticks: tuple[float, ...]
    scale: Scale | Literal["steps"]

    def position(self, values: ArrayLike) -> Array:
        """Where values are along the axis, in its own scale; with equal steps, the values it has are at 0, 1, 2, …"""
        given = np.asarray(values, dtype=np.float64)
        if self.scale == "steps":
            ticks, places = self._steps()
            return np.interp(given, ticks, places)
        return np.log10(given) if self.scale == "log" else given

    def value(self, positions: ArrayLike) -> Array:
        """The inverse of :meth:`position`."""
        given = np.asarray(positions, dtype=np.float64)
        if self.scale == "steps":
            ticks, places = self._steps()
            return np.interp(given, places, ticks)
        return np.power(10.0, given) if self.scale == "log" else given

    def drawn(self, values: ArrayLike) -> Array:
        """What a chart is given for values: themselves, or their positions where Vega has no such scale."""
        return self.position(values) if self.scale == "steps" else np.asarray(values, dtype=np.float64)

    def _steps(self) -> tuple[Array, Array]:
        """Values and their positions, with one more step at both ends."""
        first, second, *_ = self.ticks
        *_, last_but_one, last = self.ticks
        values = np.array([2 * first - second, *self.ticks, 2 * last - last_but_one])
        return values, np.arange(-1.0, len(self.ticks) + 1)

    @property
    def edges(self) -> Array:
        """Borders of the tiles, one more than there are values."""
        return self.value(tile_edges(self.position(self.ticks)))


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """Where the cells of a space stand.

    axes: at most two. facets: the columns that tell the panels apart. panels: their titles in drawing order.
    panel_of: the panel's title by the cell's id. of_a: the columns that say something of A alone.
    """

    axes: tuple[Axis, ...]
    facets: tuple[str, ...]
    panels: tuple[str, ...]
    panel_of: Mapping[str, str]
    of_a: frozenset[str]


@dataclass(frozen=True, kw_only=True, repr=False)
class PhaseDiagram:
    """Cells with their verdicts, arranged. A notebook shows it as the report draws it.

    pairs: the pairs that were judged, as :func:`lmc_tune.tables.cells.regate` gives them.
    cells: as :func:`lmc_tune.tables.cells.judge_cells` gives them; ``panel``, the panel's title; ``beside_diverged``:
        the cell is judged, and one next to it along an axis of the map diverged, or some of its own pairs did. There,
        small causes change barriers a lot.
    not_run: the planned cells of which no pair has finished: ``cell``, the spec's columns and ``panel``.
    other_pairs: how many finished pairs are not planned, and were left out.
    old_answers: how many planned pairs answer an earlier question than the space asks. They were left out, unless
        ``outdated``: no pair answers the present one, so the answers to earlier ones are all there is.
    x, y: the axes. One numeric axis varies: ``y`` is None. None varies: both are None, and every panel is one cell.
    facets: the columns that tell the panels apart.
    panels: the panels' titles in drawing order.
    of_a: the columns that say something of A alone, since B is trained otherwise in some cell.
    boundary: borders of tiles across which the mean barrier passes the threshold: ``panel``, and from ``x``, ``y`` to
        ``x2``, ``y2``.
    """

    pairs: pd.DataFrame
    cells: pd.DataFrame
    not_run: pd.DataFrame
    other_pairs: int
    old_answers: int
    outdated: bool
    x: Axis | None
    y: Axis | None
    facets: tuple[str, ...]
    panels: tuple[str, ...]
    of_a: frozenset[str]
    verdict: VerdictSpec
    boundary: pd.DataFrame

    @property
    def axes(self) -> list[Axis]:
        """The axes there are."""
        return [axis for axis in (self.x, self.y) if axis is not None]

    @cached_property
    def group(self) -> GroupKind:
        """What its groups are called."""
        telling: dict[str, GroupKind] = {"clients": "federation", "family": "ensemble"}
        known = [kind for column, kind in telling.items() if column in self.cells and self.cells[column].notna().any()]
        return known[0] if known else "pair"

    @property
    def federated(self) -> bool:
        """Whether its groups are federations of clients."""
        return self.group == "federation"

    def title(self, column: str) -> str:
        """What a column holds, and whether of A alone."""
        return axis_title(column, self.of_a)

    @property
    def planned(self) -> pd.DataFrame:
        """All cells, run or not: ``cell``, ``panel`` and the spec's columns."""
        columns = ["cell", "panel", *CELL_FIELDS]
        return pd.concat([self.cells[columns], self.not_run[columns]], ignore_index=True)

    def in_order(self, cells: pd.DataFrame) -> pd.DataFrame:
        """A table of cells in the order of the panels and axes.

        Args:
            cells: with ``cell``, ``panel`` and the columns of the axes.
        """
        order = cells["panel"].map({panel: at for at, panel in enumerate(self.panels)})
        columns = [axis.column for axis in reversed(self.axes)]
        return cells.assign(order=order).sort_values(["order", *columns, "cell"]).drop(columns="order")

    def chart(self) -> Any:
        """The diagram as the report draws it, in Altair."""
        # Altair takes seconds to import, and the charts are made of diagrams.
        from lmc_tune.analysis.report.charts.phase_chart import phase_chart, phase_table  # noqa: PLC0415

        drawn = self.drawn()
        return phase_chart(drawn, phase_table(drawn))

    def __repr__(self) -> str:
        counts = self.cells["verdict"].value_counts()
        verdicts = ", ".join(f"{counts[name]} {name}" for name in VERDICTS if name in counts)
        axes = " × ".join(axis.column for axis in self.axes) or "no axis"
        return (
            f"PhaseDiagram({axes}; panels: {'; '.join(self.panels)}; cells: {verdicts}; not run: {len(self.not_run)})"
        )

    def _repr_html_(self) -> str:
        from lmc_tune.analysis.report.standalone import image  # noqa: PLC0415 - as above

        return image(self)

    def arranged(self, where: Arrangement) -> "PhaseDiagram":
        """The same cells in another arrangement; those without a panel there are left out."""
        cells, not_run = (table[table["cell"].isin(where.panel_of.keys())] for table in (self.cells, self.not_run))
        return replace(self, **_placed(cells, not_run, where, self.verdict.threshold))

    def drawn(self) -> "PhaseDiagram":
        """What a page can draw: all, or the first panels if they are too many, those with a verdict before others."""
        fitting = MOST_TILES * len(self.panels) // (len(self.cells) + len(self.not_run))
        most = max(2, min(MOST_PANELS, fitting))
        if len(self.panels) <= most:
            return self
        run = set(self.cells["panel"])
        chosen = sorted(self.panels, key=lambda panel: panel not in run)[:most]
        panels = tuple(panel for panel in self.panels if panel in chosen)
        cells, not_run, boundary = (
            table[table["panel"].isin(panels)].reset_index(drop=True)
            for table in (self.cells, self.not_run, self.boundary)
        )
        return replace(self, panels=panels, cells=cells, not_run=not_run, boundary=boundary)


def map_regions(
    results: pd.DataFrame,
    x: str = "lr",
    y: str = "batch_size",
    *,
    verdict: VerdictSpec | None = None,
    space: SearchSpace | None = None,
) -> PhaseDiagram:
    """Judge every cell and arrange the cells in panels over two axes.

    Panels are one per combination of all other columns of the spec that vary. Where ``x`` or ``y`` does not vary,
    the varying numeric column that suits best takes its place.

    Args:
        results: one row per finished pair (:func:`lmc_tune.load_results`), in any order.
        x, y: two numeric columns of the spec.
        verdict: which barrier is judged, against what, how surely; by default the space's, else ``VerdictSpec()``.
        space: what was planned. Only its pairs are judged, and all of its cells are arranged, run or not; without it,
            the cells that have a finished pair.

    Raises:
        UserError: if there are no pairs, or none of the space.
        ValueError: if a column is unknown, or x and y are the same.

    Example:
        Pairs whose barrier grows with the learning rate, as a sweep would have written them:

        >>> from tempfile import TemporaryDirectory
        >>> from lmc_tune.experiment.reading import read_space
        >>> from lmc_tune.tables.rows import PairResult, spec_columns
        >>> from lmc_tune.tables.store import Store, load_results
        >>> space = read_space("quickstart", ["axes.batch_size=[32]", "axes.lr=[0.01, 0.1, 1.0]"])
        >>> learned = {"status": "ok", "train_accuracy_a": 1.0, "train_accuracy_b": 1.0}
        >>> def result(pair):
        ...     barriers = {"condition": "naive", "test_error_barrier_chord": pair.train.lr / 10}
        ...     return PairResult(columns={**spec_columns(pair), **learned}, tables={"barriers": [barriers]})
        >>> with TemporaryDirectory() as folder:
        ...     Store(folder).write_shard("example", [result(pair) for pair in space.pairs()])
        ...     diagram = map_regions(load_results(folder), space=space)
        >>> diagram.cells.groupby("lr")["verdict"].unique().explode().to_dict()
        {0.01: 'connected', 0.1: 'connected', 1.0: 'disconnected'}
    """
    if results.empty:
        raise UserError("no pair has finished yet: there is nothing to map")
    verdict = verdict or (space.verdict if space else VerdictSpec())
    if space is None:
        ours, stale, outdated = results, 0, False
        pairs = regate(results, verdict)
        cells = planned = judge_cells(pairs, verdict)
    else:
        planned = planned_cells(space)
        ours = _planned_pairs(results, planned, space)
        stale = int(ours["stale"].sum())
        outdated = stale > 0 and not (~ours["stale"] & (ours["status"] != "failed")).any()
        pairs = regate(ours if outdated else ours[~ours["stale"]], verdict)
        cells = judge_cells(pairs, verdict)
    not_run = planned.loc[~planned["cell"].isin(cells["cell"]), ["cell", *CELL_FIELDS]]
    return PhaseDiagram(
        pairs=pairs,
        other_pairs=len(results) - len(ours),
        old_answers=stale,
        outdated=outdated,
        verdict=verdict,
        **_placed(cells, not_run, arrange(planned, x, y), verdict.threshold),
    )


def usual_axes(x: str | None, y: str | None) -> tuple[str, str]:
    """The columns of both axes: of one that is asked for, the other is the usual one that is left."""
    first, second = USUAL_AXES
    x = x or (second if y == first else first)
    return x, y or (first if x == second else second)


def arrange(cells: pd.DataFrame, x: str = "lr", y: str = "batch_size") -> Arrangement:
    """Where cells stand: over two axes, a panel per combination of everything else that varies.

    Args:
        cells: their ids, ``cell``, and the spec's columns.
        x, y: as in :func:`map_regions`.

    Raises:
        ValueError: if a column is unknown, or x and y are the same.
    """
    _check_axes(x, y)
    of_a = _of_a(cells)
    axes = [_axis(cells, column, of_a) for column in _choose_axes(cells, x, y)]
    facets = _varying(cells, without=[axis.column for axis in axes])
    panel_of, panels = _panels(cells, facets, axes, of_a)
    return Arrangement(axes=tuple(axes), facets=tuple(facets), panels=tuple(panels), panel_of=panel_of, of_a=of_a)


def _placed(cells: pd.DataFrame, not_run: pd.DataFrame, where: Arrangement, threshold: float) -> dict[str, Any]:
    """The fields of a diagram that depend on its arrangement."""
    cells, not_run = (
        table.assign(panel=table["cell"].map(where.panel_of)).reset_index(drop=True) for table in (cells, not_run)
    )
    x, y = (*where.axes, None, None)[:2]
    return {
        "cells": cells.assign(beside_diverged=_beside_diverged(cells, where.axes)),
        "not_run": not_run,
        "x": x,
        "y": y,
        "facets": where.facets,
        "panels": where.panels,
        "of_a": where.of_a,
        "boundary": _boundaries(cells, where.panels, where.axes, threshold),
    }


def _planned_pairs(results: pd.DataFrame, planned: pd.DataFrame, space: SearchSpace) -> pd.DataFrame:
    """The pairs of the space, ``stale`` where they answer an earlier question than it asks."""
    asked = dict(zip(planned["cell"], planned["question"], strict=True))
    known = results if "question" in results else results.assign(question=results["cell"].map(asked))
    found = marked(known, asked, space.replicates)
    pairs = found[found["planned"]]
    if pairs.empty:
        raise UserError(
            f"none of the {len(results)} finished {space.group}s belongs to the space {space.name!r}: they were run "
            f"with another space or another version of lmc-tune. To map them nevertheless, leave the space out (move "
            f"space.yaml out of the run folder)"
        )
    return pairs


def _check_axes(x: str, y: str) -> None:
    for name in (x, y):
        if name not in AXIS_SCALES:
            near = "" if name in CELL_FIELDS else nearest(name, AXIS_SCALES)
            known = near or f"; choose from {', '.join(AXIS_SCALES)}"
            raise ValueError(f"{name!r} is not a numeric column of the spec{known}")
    if x == y:
        raise ValueError(f"x and y are both {x!r}; a phase diagram needs two different axes")


def _choose_axes(cells: pd.DataFrame, x: str, y: str) -> list[str]:
    wanted = dict.fromkeys([x, y, *AXIS_SCALES])
    return [column for column in wanted if _spreads(cells, column)][:2]


def why_no_axis(diagram: PhaseDiagram, column: str, name: str) -> str:
    """Why cells are not arranged along a column, and along which they can be.

    Args:
        diagram: of the cells.
        column: of the spec.
        name: what the column was given as, e.g. ``--x``.
    """
    cells = diagram.planned
    same = "it is the same in all cells"
    if column == "severity" and _varies(cells[column]):
        same = "it varies from one kind of shift to another, not within one"
    return f"{name} {column}: {same}; choose from {', '.join(possible_axes(cells)) or 'nothing: no number varies'}"


def possible_axes(cells: pd.DataFrame) -> list[str]:
    """The columns along which cells can be arranged."""
    return [column for column in AXIS_SCALES if _spreads(cells, column)]


def _spreads(cells: pd.DataFrame, column: str) -> bool:
    """Whether the column varies; a severity must vary within one kind of shift, not from kind to kind."""
    if column == "severity":
        return bool((cells.groupby(["shift", "skew", "domain"])["severity"].nunique() > 1).any())  # noqa: PD101
    return _varies(cells[column]) and bool(cells[column].notna().all())


def _of_a(cells: pd.DataFrame) -> frozenset[str]:
    """The settings of which B has its own in some cell, and what is computed from them."""
    found = {own.removeprefix("b_") for own in B_COLUMNS.values() if cells[own].notna().any()}
    budgets = {"epochs", "step_budget"}  # one takes the place of the other
    found |= budgets if found & budgets else set()
    return frozenset(found | ({"noise_scale"} if found & {"lr", "batch_size"} else set()))


def _axis(cells: pd.DataFrame, column: str, of_a: frozenset[str]) -> Axis:
    values = np.unique(cells[column].to_numpy(dtype=np.float64))
    scale = AXIS_SCALES[column] if values[0] > 0 else "linear"
    axis = Axis(column=column, title=axis_title(column, of_a), ticks=tuple(values.tolist()), scale=scale)
    tiles = np.diff(tile_edges(axis.position(axis.ticks)))
    return replace(axis, scale="steps") if tiles.min() < LEAST_TILE * tiles.mean() else axis


def _varying(cells: pd.DataFrame, without: list[str]) -> list[str]:
    return [name for name in CELL_FIELDS if name not in without and _varies(cells[name])]


def _varies(column: pd.Series) -> bool:
    return len(column.unique()) > 1


def _panels(
    cells: pd.DataFrame, facets: list[str], axes: list[Axis], of_a: frozenset[str]
) -> tuple[dict[str, str], list[str]]:
    """The panel of every cell by its id, and the panels in order.

    Cells that no column tells apart (their pairs were measured differently) go to panels of their own, numbered.
    """
    columns = [axis.column for axis in axes]
    setups = cells.assign(space=0).groupby(["space", *facets, *columns], dropna=False).cumcount()
    # Of a network, only what tells it from others of its kind.
    telling = {kind: _varying(rows, without=[]) for kind, rows in cells.groupby("model")}
    keys, titles = [], {}
    for row, setup in zip(cells.to_dict("records"), setups, strict=True):
        key = (*(_sortable(row[name]) for name in facets), (1, int(setup)))
        keys.append(key)
        if key not in titles:
            named = [name for name in facets if name not in MODEL_FIELDS or name in telling[row["model"]]]
            parts = [facet_title(row, named, columns, of_a), f"setup {setup + 1}" if setup else ""]
            titles[key] = " · ".join(part for part in parts if part) or "all cells"
    panel_of = dict(zip(cells["cell"], (titles[key] for key in keys), strict=True))
    return panel_of, [titles[key] for key in sorted(titles)]


def _sortable(value: Any) -> tuple[int, Any]:
    """No shift (or norm) first, then by size or name; what is not set comes last. Widths ``64-32`` sort as numbers."""
    if isinstance(value, str):
        widths = value.split("-")
        if all(width.isdecimal() for width in widths):
            return (1, tuple(int(width) for width in widths))
        return (0, SHIFT_ORDER.index(value)) if value in SHIFT_ORDER else (1, value)
    return (2, 0.0) if pd.isna(value) else (1, value)


# Where B has one of its own, it takes the place of A's budget, whichever that is.
_BUDGETS_OF_B = ("b_epochs", "b_step_budget")


def _has_other_budget(row: Mapping[Any, Any], name: str) -> bool:
    return any(other != name and not pd.isna(row[other]) for other in _BUDGETS_OF_B)


def facet_title(row: Mapping[Any, Any], facets: Sequence[str], axes: Sequence[str], of_a: Collection[str] = ()) -> str:
    """What tells a cell from those of other panels, e.g. ``label 80/20 · batch norm``; empty without facets.

    Args:
        row: the columns of the cell's spec.
        facets, axes: the columns that tell the panels apart, and those of the axes.
        of_a: the columns that say something of A alone.
    """
    parts = []
    if set(facets) & set(SHIFT_FIELDS):
        parts.append(shift_words(row, severity_is_axis="severity" in axes))
    if set(facets) & set(SPLIT_FIELDS):
        parts.append(split_words(row, concentration_is_axis="concentration" in axes))
    if set(facets) & set(FAMILY_FIELDS):
        parts.append(ensemble_label(row, without=["member_count", *axes]))
    parts += [
        setting(name, row[name], of_a)
        for name in facets
        if name not in {*SHIFT_FIELDS, *SPLIT_FIELDS, *FAMILY_FIELDS}
        and not (name in _BUDGETS_OF_B and _has_other_budget(row, name))
    ]
    return " · ".join(parts)


def _beside_diverged(cells: pd.DataFrame, axes: Sequence[Axis]) -> list[bool]:
    places = [
        (panel, *(axis.ticks.index(value) for axis, value in zip(axes, values, strict=True)))
        for panel, *values in cells[["panel", *(axis.column for axis in axes)]].itertuples(index=False)
    ]
    diverged = {place for place, verdict in zip(places, cells["verdict"], strict=True) if verdict == "diverged"}

    def neighbours(place: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        for axis in range(1, len(place)):
            for step in (-1, 1):
                yield (*place[:axis], place[axis] + step, *place[axis + 1 :])

    return [
        judged and (lost > 0 or any(neighbour in diverged for neighbour in neighbours(place)))
        for place, judged, lost in zip(places, cells["judged"].tolist(), cells["n_diverged"].tolist(), strict=True)
    ]


def _boundaries(cells: pd.DataFrame, panels: Sequence[str], axes: Sequence[Axis], threshold: float) -> pd.DataFrame:
    parts = [pd.DataFrame(columns=[*COLUMNS, "panel"])]
    if len(axes) == 2:
        x, y = axes
        for panel in panels:
            known = cells[(cells["panel"] == panel) & cells["judged"]]
            means = np.full((len(y.ticks), len(x.ticks)), np.nan)
            at = np.searchsorted(y.ticks, known[y.column]), np.searchsorted(x.ticks, known[x.column])
            means[at] = known["mean_barrier"]
            found = find_boundary(x.position(x.ticks), y.position(y.ticks), means, threshold)
            values = {
                name: axis.value(found[name]) for axis, names in ((x, ("x", "x2")), (y, ("y", "y2"))) for name in names
            }
            parts.append(found.assign(**values, panel=panel))
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
