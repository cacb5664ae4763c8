"""Two runs side by side: the cells that both have, what became of their verdicts, and how far the barriers differ."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from lmc_tune.analysis.answer import plain_value
from lmc_tune.analysis.phase import Arrangement, PhaseDiagram, arrange
from lmc_tune.analysis.wording import listed
from lmc_tune.core.counted import counted
from lmc_tune.errors import UserError
from lmc_tune.tables.cells import BARRIER_DIFFERENCE, CELL_FIELDS, mean_intervals

# Of each run.
OUTCOME = ("verdict", "mean_barrier", "low", "high", "n_ok")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs whose cells are judged alike and stand on the same axes.

    names: of the first and the second run.
    first, second: their phase diagrams, of the panels that have a finished cell in both.
    keys: the columns that tell cells apart in either run; the cells of both are those alike in all of them.
    cells: one row per cell that both have run, in the order of panels and axes: ``cell`` and ``second_cell``, their
        ids; ``panel``, the columns of the axes; of each run ``first_verdict``, ``first_mean_barrier``, ``first_low``,
        ``first_high``, ``first_n_ok``, ``second_verdict``, …; ``changed``, whether the verdict did; ``difference``, the
        mean over pairs that are ok in both of the second run's barrier less the first's, with ``difference_low`` and
        ``difference_high``; ``n_both``, their number. Where a cell is not judged in both, there is no difference.
    settings: what is fixed in both runs and differs: column, value in the first, value in the second.
    alone: how many cells only the first run has, and only the second.
    """

    names: tuple[str, str]
    first: PhaseDiagram
    second: PhaseDiagram
    keys: tuple[str, ...]
    cells: pd.DataFrame
    settings: tuple[tuple[str, Any, Any], ...]
    alone: tuple[int, int]


def compare(
    first: PhaseDiagram,
    second: PhaseDiagram,
    x: str = "lr",
    y: str = "batch_size",
    *,
    names: tuple[str, str] = ("the first run", "the second run"),
) -> Comparison:
    """Set two runs side by side.

    A cell is in both if it has the same value in every column that varies within either of them. Columns that are fixed
    within both may differ: they are what is compared. Replicate k of a cell starts from the same weights in both runs
    if their seeds agree, so differences are taken pair by pair.

    Args:
        first, second: judged by the same verdict.
        x, y: the columns of the axes, as in :func:`~lmc_tune.analysis.phase.map_regions`.
        names: of the runs, for messages.

    Raises:
        UserError: if no cell is finished in both, or cells of a run differ in no column.
        ValueError: if the verdicts differ, or an axis is unknown.
    """
    if first.verdict != second.verdict:
        raise ValueError("the two runs are judged by different verdicts")
    planned = [diagram.planned for diagram in (first, second)]
    keys = [name for name in CELL_FIELDS if any(len(cells[name].unique()) > 1 for cells in planned)]
    ids = [_by_key(cells, keys, name) for cells, name in zip(planned, names, strict=True)]
    where = _arrangement(planned, ids, keys, (x, y))
    run = [set(diagram.cells["cell"]) for diagram in (first, second)]
    both = [key for key in ids[0] if key in ids[1] and ids[0][key] in run[0] and ids[1][key] in run[1]]
    if not both:
        raise UserError(f"no cell is finished in both runs: {_why_none(planned, ids, keys, names)}")
    panels = {where.panel_of[ids[0][key]] for key in both}
    where = replace(
        where,
        panels=tuple(panel for panel in where.panels if panel in panels),
        panel_of={cell: panel for cell, panel in where.panel_of.items() if panel in panels},
    )
    first, second = first.arranged(where), second.arranged(where)
    found = {ids[0][key]: ids[1][key] for key in both}
    n_first, n_second = (len(cells) for cells in run)
    return Comparison(
        names=names,
        first=first,
        second=second,
        keys=tuple(keys),
        cells=_cells(first, second, found),
        settings=tuple(_settings(planned, keys)),
        alone=(n_first - len(both), n_second - len(both)),
    )


def answer(comparison: Comparison) -> str:
    """What became of the verdicts, in one sentence."""
    cells, name = comparison.cells, comparison.names[1]
    changed = cells[cells["changed"]]
    both = f"{counted(len(cells), 'cell')} that both runs have"
    if changed.empty:
        return f"No verdict changed in the {both}."
    kinds = Counter(zip(changed["first_verdict"], changed["second_verdict"], strict=True)).most_common()
    said = [f"{n} from {before} to {after}" for (before, after), n in kinds]
    have = "has" if len(changed) == 1 else "have"
    return f"Of {both}, {len(changed)} {have} another verdict in {name}: {listed(said)}."


def drift(comparison: Comparison) -> str:
    """In how many cells the interval of the difference leaves out 0, and in how many it would by chance."""
    cells, confidence = comparison.cells, comparison.first.verdict.confidence
    known = cells[cells["difference_low"] > -float("inf")]
    if known.empty:
        return "No cell has three pairs that are ok in both runs, so no difference has an interval."
    higher, lower = int((known["difference_low"] > 0).sum()), int((known["difference_high"] < 0).sum())
    chance = (1 - confidence) * len(known)
    return (
        f"In {comparison.names[1]} the barrier is higher in {higher} and lower in {lower} of "
        f"{counted(len(known), 'cell')}, by {100 * confidence:g}% intervals of the difference; if the runs did not "
        f"differ, chance alone would give about {chance:.2g} such cells."
    )


def plain_comparison(comparison: Comparison) -> dict[str, Any]:
    """The answer, and every cell of both in the order of panels and axes, as plain values for JSON.

    Columns as in :class:`Comparison`; None for what is not known.
    """
    return {
        "answer": answer(comparison),
        "drift": drift(comparison),
        "cells": [
            {name: plain_value(value) for name, value in row.items()} for row in comparison.cells.to_dict("records")
        ],
    }


_Key = tuple[Any, ...]


def _by_key(cells: pd.DataFrame, keys: Sequence[str], name: str) -> dict[_Key, str]:
    """The ids of cells by their values in the columns that tell them apart."""
    values = cells[list(keys)].astype(object).where(cells[list(keys)].notna(), None)
    found = dict(zip(map(tuple, values.to_numpy()), cells["cell"], strict=True))
    if len(found) < len(cells):
        raise UserError(f"cells of {name} differ in no column, so there is no telling which of them is in both runs")
    return found


def _arrangement(
    planned: Sequence[pd.DataFrame], ids: Sequence[dict[_Key, str]], keys: Sequence[str], axes: tuple[str, str]
) -> Arrangement:
    """That of all cells of both; what differs only from run to run separates none of them."""
    fixed = {name: planned[0][name].iloc[0] for name in CELL_FIELDS if name not in keys}
    alike = {cell: ids[0][key] for key, cell in ids[1].items() if key in ids[0]}
    more = planned[1][~planned[1]["cell"].isin(alike.keys())].assign(**fixed)
    where = arrange(pd.concat([planned[0], more], ignore_index=True) if len(more) else planned[0], *axes)
    panel_of = {**where.panel_of, **{cell: where.panel_of[like] for cell, like in alike.items()}}
    return replace(where, panel_of=panel_of)


def _cells(first: PhaseDiagram, second: PhaseDiagram, found: dict[str, str]) -> pd.DataFrame:
    ours = first.cells[first.cells["cell"].isin(found.keys())]
    one, another = (set(run.cells.loc[run.cells["judged"], "cell"]) for run in (first, second))
    both = {cell: other for cell, other in found.items() if cell in one and other in another}
    pairs = _pairs_of_both(first, second, both)
    difference = mean_intervals(pairs, [BARRIER_DIFFERENCE], ours, first.verdict)[BARRIER_DIFFERENCE]
    places = ["panel", *(axis.column for axis in first.axes)]
    cells = ours[["cell", *places]].join(ours[[*OUTCOME]].add_prefix("first_"))
    cells = cells.assign(
        second_cell=ours["cell"].map(found),
        difference=difference["mean"],
        difference_low=difference["low"],
        difference_high=difference["high"],
        n_both=ours["cell"].map(pairs["cell"].value_counts()).fillna(0).astype(int),
    )
    theirs = second.cells[["cell", *OUTCOME]].add_prefix("second_")
    cells = cells.merge(theirs, on="second_cell", validate="one_to_one")
    cells["changed"] = cells["first_verdict"] != cells["second_verdict"]
    return first.in_order(cells).reset_index(drop=True)


def _pairs_of_both(first: PhaseDiagram, second: PhaseDiagram, found: dict[str, str]) -> pd.DataFrame:
    """The first run's pairs that are ok in both, with the difference of their barriers."""
    column = first.verdict.column
    ok = [diagram.pairs[diagram.pairs["status"] == "ok"] for diagram in (first, second)]
    theirs = ok[1][["cell", "replicate", column]].rename(columns={"cell": "second_cell", column: "other"})
    ours = ok[0][ok[0]["cell"].isin(found.keys())]
    other_ids = (
        ours["cell"].map(found).astype(theirs["second_cell"].dtype)
    )  # of no pair it would be a column of numbers
    pairs = ours.assign(second_cell=other_ids).merge(theirs, on=["second_cell", "replicate"])
    return pairs.assign(**{BARRIER_DIFFERENCE: pairs["other"] - pairs[column]})


def _settings(planned: Sequence[pd.DataFrame], keys: Sequence[str]) -> list[tuple[str, Any, Any]]:
    fixed = [(name, *(cells[name].iloc[0] for cells in planned)) for name in CELL_FIELDS if name not in keys]
    return [(name, a, b) for name, a, b in fixed if not (a == b or (pd.isna(a) and pd.isna(b)))]


def _why_none(
    planned: Sequence[pd.DataFrame], ids: Sequence[dict[_Key, str]], keys: Sequence[str], names: tuple[str, str]
) -> str:
    """The first column of which the two runs have no value in common; else that the common cells are not finished."""
    if set(ids[0]) & set(ids[1]):
        return "the cells that both plan have not been run yet"
    for name in keys:
        values = [cells[name].drop_duplicates().sort_values() for cells in planned]
        if not set(map(str, values[0])) & set(map(str, values[1])):
            a, b = (", ".join(map(str, value)) for value in values)
            return f"{name} is {a} in {names[0]}, and {b} in {names[1]}"
    return f"they have no combination of {', '.join(keys)} in common"
