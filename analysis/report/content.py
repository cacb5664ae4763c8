"""What the report's page says: every table and sentence as plain values, for the template to set."""

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lmc_tune.analysis.answer import answer, remarks, tally
from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.analysis.report.cell_table import MOST_ROWS, accuracies, cell_table, numeric, on_other_split
from lmc_tune.analysis.report.charts.curves import Curves
from lmc_tune.analysis.report.columnar import pack
from lmc_tune.analysis.report.section import Section, is_detailed
from lmc_tune.analysis.report.studied import counts, judgement, settings, studied
from lmc_tune.analysis.report.view import differences
from lmc_tune.analysis.wording import (
    LETTERS,
    UNKNOWN,
    confidence,
    gate,
    height,
    interval,
    left_out,
    listed,
    number,
    percent,
    quantity,
    threshold,
)
from lmc_tune.core.barrier import Definition
from lmc_tune.core.counted import counted
from lmc_tune.core.statistics import VERDICTS, Verdict
from lmc_tune.experiment import ALIGNED, VerdictSpec
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.tables.cells import compare_definitions, exclusions

# A longer table of cells is folded away until it is asked for.
LONG_TABLE = 60
FEW_PANELS = 6
ALL_CELLS = "All cells, in full precision: lmc-tune report with --formats csv."
LIBRARIES = ("lmc-tune", "altair", "numpy", "pandas", "scipy", "vl-convert-python")

# What the path is compared with, after "how far the error rises above".
BASELINES: dict[Definition, str] = {
    "chord": "the straight line between its values at A and B",
    "endpoint_mean": "the mean of its values at A and B",
    "midpoint": "the mean of its values at A and B, read at λ = ½",
    "local_minima": "the mean of the lowest points on the two sides of its bump",
    "max_endpoint": "the worse of its values at A and B",
}

# Of the average of a federation's clients, at the clients and at their average.
_OF_CLIENTS: dict[Definition, str] = {
    "chord": "the clients' weighted mean, and 0 if it does not",
    "endpoint_mean": "the clients' weighted mean, at the average or at the worst client",
    "midpoint": "the clients' weighted mean, below 0 if the average is better",
    "max_endpoint": "the worst client's, and 0 if it does not",
}

PICKING = (
    "Point at a {0} to see its curves and numbers; click it to keep them, and once more to let it go. Arrow keys move "
    "from {0} to {0}, and Escape frees the one that is kept."
)

Row = Mapping[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a run folder says of itself beside its tables; anything may be missing.

    ended: the search wants no more pairs, so that cells which have not been run were left out.
    """

    name: str
    id: str = ""
    created: str = ""
    planned_pairs: int | None = None
    versions: dict[str, str]
    ended: bool = False
    space: SearchSpace | None = None
    space_yaml: str = ""


def content(diagram: PhaseDiagram, sweep: Sweep) -> dict[str, Any]:
    """Everything the template sets in type, by the name it uses."""
    verdict = diagram.verdict
    panels, cells, excluded = panel_table(diagram), cell_table(diagram), exclusion_table(diagram)
    all_reasons = f"{ALL_CELLS} The reason of every {diagram.group}: results.parquet."
    return {
        "sweep": sweep,
        "diagram": diagram,
        "finished": finished(diagram, sweep),
        "answer": answer(diagram),
        "studied": studied(diagram),
        "findings": findings(diagram),
        "cautions": [*remarks(diagram), *cautions(diagram, sweep), *undrawn(diagram), *undetailed(diagram)],
        "reading_diagram": reading_diagram(diagram),
        "picking_words": PICKING.format("tile" if diagram.y is not None else "point") if len(diagram.cells) > 1 else "",
        "quantity": quantity(verdict),
        "limit": threshold(verdict),
        "confidence": confidence(verdict),
        "baseline": baselines(diagram)[verdict.barrier],
        "verdicts": verdict_key(diagram),
        "definitions": definition_table(diagram),
        "panels": panels,
        "panels_end": ends_early(len(panels), len(diagram.panels) if len(panels) else 0, "panels", ALL_CELLS),
        "cells": cells,
        "cells_end": ends_early(
            len(cells), len(diagram.cells), "cells", f"{ALL_CELLS} A column's head sorts these alone."
        ),
        "numeric": numeric,
        "long_table": LONG_TABLE,
        "accounting": accounting(diagram),
        "exclusions": excluded.head(MOST_ROWS),
        "exclusions_end": ends_early(min(MOST_ROWS, len(excluded)), len(excluded), "entries", all_reasons),
        "settings": settings(diagram),
        "judgement": judgement(diagram),
        "versions": versions(sweep),
    }


def contents(sections: Sequence[Section], *, with_panels: bool) -> list[tuple[str, str]]:
    """The page's sections in order: ids and titles."""
    return [
        ("diagram", "Phase diagram"),
        ("reading", "How to read it"),
        *((f"{section.id}-section", section.title) for section in sections),
        *([("panels", "Panels")] if with_panels else []),
        ("definitions", "Other barrier definitions"),
        ("cells", "All cells"),
        ("exclusions", "What was left out"),
        ("settings", "Settings"),
    ]


def baselines(diagram: PhaseDiagram) -> Mapping[Definition, str]:
    """What is compared with what, by the definitions that the diagram's groups have."""
    return _OF_CLIENTS if diagram.federated else BASELINES


def reading_diagram(diagram: PhaseDiagram) -> str:
    """What a mark and a line of the diagram stand for."""
    limit = threshold(diagram.verdict)
    cell = "is a cell: pairs of networks trained from one initialisation, each member on its own part of the data"
    if diagram.federated:
        cell = "is a cell: federations of clients, each trained on its own part of the data and averaged in rounds"
    if diagram.group == "ensemble":
        cell = "is a cell: ensembles, whose barrier is the largest of all their pairs of members"
    if diagram.verdict.condition in ALIGNED:
        cell += "; B's units are permuted towards A's before they are compared"
    if diagram.y is not None:
        marks = _marks(diagram)
        line = f" The line separates the tiles whose mean barrier is below {limit} from those where it is not."
        return f"Each tile {cell}.{line if len(diagram.boundary) else ''}{marks}"
    bars = f"bars are {confidence(diagram.verdict)} intervals of the mean barrier, the dashed line is {limit}"
    if diagram.x is None:
        return f"Each point {cell}; {bars}."
    lines = "a line joins the cells"
    if len(diagram.panels) > 1:
        lines = "a line joins the cells of one setting, cells of one value stand side by side"
    return f"Each point {cell}; {lines}, {bars}. Letters at the top: cells whose verdict rests on no barrier."


def _marks(diagram: PhaseDiagram) -> str:
    """What the marks in tiles stand for, if there are any."""
    cells, verdict = diagram.cells, diagram.verdict
    apart = set(cells.loc[cells["split_apart"], "verdict"])
    opposite: dict[Verdict, Verdict] = {"connected": "disconnected", "disconnected": "connected"}
    said = [
        f"{LETTERS[name]}/{LETTERS[other]}: {name} on {verdict.split}, {other} on {verdict.other_split}"
        for name, other in opposite.items()
        if name in apart
    ]
    said += ["*: next to divergence"] if cells["beside_diverged"].any() else []
    return f" {'; '.join(said)}." if said else ""


def verdict_key(diagram: PhaseDiagram) -> list[Row]:
    """The five verdicts: letter, number of cells and the rule in plain words."""
    verdict = diagram.verdict
    limit, group, member = threshold(verdict), diagram.group, "client" if diagram.federated else "member"
    flat = "one average of such clients" if diagram.federated else "a flat path between such members"
    rules: dict[Verdict, str] = {
        "connected": f"the whole interval of the mean barrier lies below {limit}",
        "disconnected": f"the whole interval lies above {limit}",
        "undecided": f"the interval straddles {limit}, or there is none: fewer than three {group}s are ok, one of "
        f"them has no finite barrier, or most {group}s failed",
        "undertrained": f"at least half of the finished {group}s are left out, most often because a {member} stayed "
        f"below {gate(verdict)} train accuracy: {flat} means nothing",
        "diverged": f"at least half of the finished {group}s are left out, most often because the loss of a {member} "
        "blew up",
    }
    counts = diagram.cells["verdict"].value_counts()
    return [
        {
            "name": name,
            "letter": LETTERS[name],
            "count": int(counts.get(name, 0)),
            "rule": rules[name],
        }
        for name in VERDICTS
    ]


def cautions(diagram: PhaseDiagram, sweep: Sweep) -> list[str]:
    """What a reader must know before trusting the page: what is not run, not finished, left out or not known."""
    space, group = sweep.space, diagram.group
    if space is None:
        asked = differences(diagram.verdict, VerdictSpec(), "the default verdict")
        return [f"space.yaml is not in the folder: all finished {group}s are judged, by the default verdict.", *asked]
    found = differences(diagram.verdict, space.verdict, "space.yaml")
    if n := len(diagram.not_run):
        mark = "a dash" if diagram.y is None else "an empty tile"
        cells = f"{counted(n, 'planned cell')}, each {mark} in the diagram."
        complete = f"Left out: {cells} The search has ended and did not need them: the sweep is complete."
        found.append(complete if sweep.ended else f"Not run: {cells} The sweep is not finished.")
    if n := int((diagram.cells["n_pairs"] < space.replicates).sum()):
        found.append(
            f"Not finished: {counted(n, 'cell')} with fewer than {counted(space.replicates, group)}. Verdicts may "
            "change."
        )
    if (n := diagram.old_answers) and not diagram.outdated:
        found.append(
            f"Left out: {counted(n, f'finished {group}')} measured with an earlier `measure`; run the sweep to measure "
            "them again."
        )
    if n := diagram.other_pairs:
        found.append(f"Left out: {counted(n, f'finished {group}')} in this folder that space.yaml does not plan.")
    return found


def undrawn(diagram: PhaseDiagram) -> list[str]:
    """That there are more panels than are drawn, and where their cells are; nothing if all are."""
    n, drawn = len(diagram.panels), len(diagram.drawn().panels)
    return [f"Drawn: the first {drawn} of {n} panels. {ALL_CELLS}"] if drawn < n else []


def undetailed(diagram: PhaseDiagram) -> list[str]:
    """What is left out because there are too many cells, and where it is; nothing if nothing is."""
    if is_detailed(diagram.drawn()):
        return []
    sections = "networks, conditions, basins, similarity, ensembles and learning curves"
    return [f"Too many cells for the sections on {sections}. {ALL_CELLS} Learning curves: curves.parquet."]


def findings(diagram: PhaseDiagram) -> list[tuple[str, str]]:
    """What to know next: the tally of every panel if there are a few, and the noise scales of the regions."""
    cells, not_run = diagram.cells, diagram.not_run
    found = []
    if 1 < len(diagram.panels) <= FEW_PANELS:
        for panel in diagram.panels:
            n = int((not_run["panel"] == panel).sum())
            counts = tally(cells[cells["panel"] == panel]) + ([f"{n} not run"] if n else [])
            found.append((panel, listed(counts)))
    ranges = [
        f"{name} cells {_range(g)}"
        for name in ("connected", "disconnected")
        if len(g := cells.loc[cells["verdict"] == name, "noise_scale"].dropna())
    ]
    if ranges:
        found.append((diagram.title("noise_scale"), listed(ranges)))
    return found


def _range(values: pd.Series) -> str:
    low, high = number(values.min()), number(values.max())
    return f"at {low}" if low == high else f"from {low} to {high}"


def finished(diagram: PhaseDiagram, sweep: Sweep) -> str:
    """E.g. ``178 of 180 pairs finished``; after a search that left some out, how many."""
    n, group = int(diagram.cells["n_pairs"].sum()), diagram.group
    planned = sweep.planned_pairs
    if sweep.space is not None:
        planned = (len(diagram.cells) + len(diagram.not_run)) * sweep.space.replicates
    if planned is None:
        return f"{counted(n, group)} finished"
    if sweep.ended and n < planned:
        return f"{counted(n, group)} finished, {planned - n} left out by the search"
    return f"{n} of {counted(planned, group)} finished"


def place(diagram: PhaseDiagram, row: Row) -> str:
    """Where a cell stands, e.g. ``learning rate 0.1 · batch size 64 · label 80/20``."""
    return " · ".join(_whereabouts(diagram, row))


def _whereabouts(diagram: PhaseDiagram, row: Row) -> list[str]:
    axes = diagram.axes
    parts = [f"{axis.title} {number(row[axis.column])}" for axis in axes]
    return [*parts, *([row["panel"]] if len(diagram.panels) > 1 or not axes else [])]


def panel_table(diagram: PhaseDiagram) -> pd.DataFrame:
    """How many cells of each panel have which verdict, in order; of a few panels the findings tell."""
    if len(diagram.panels) <= FEW_PANELS:
        return pd.DataFrame()
    cells, not_run = diagram.cells, diagram.not_run
    counts = pd.crosstab(cells["panel"], cells["verdict"]).reindex(index=diagram.panels, columns=VERDICTS, fill_value=0)
    if len(not_run):
        counts["not run"] = not_run["panel"].value_counts().reindex(diagram.panels, fill_value=0)
    return counts.head(MOST_ROWS)


def exclusion_table(diagram: PhaseDiagram) -> pd.DataFrame:
    """What was left out: cell in words, status, count and the first reason; in order, indexed by the cell's id."""
    cells = diagram.in_order(diagram.cells)
    table = cells.merge(exclusions(diagram.pairs, diagram.verdict), on="cell")
    table["place"] = [place(diagram, row) for row in table.to_dict("records")]
    return table.set_index("cell")[["place", "status", "count", "reason"]]


def ends_early(shown: int, n: int, what: str, where: str) -> str:
    """That a list shows its first entries only, and where the others are; empty if it is whole."""
    return f"The first {shown} of {n} {what}, in the order of the panels. {where}" if n > shown else ""


def accounting(diagram: PhaseDiagram) -> list[tuple[str, int]]:
    """Every finished pair once: how many by status."""
    names = ("ok", "undertrained", "diverged", "failed")
    return [(name, int(diagram.cells[f"n_{name}"].sum())) for name in names]


def definition_table(diagram: PhaseDiagram) -> list[Row]:
    """Each barrier definition: what it measures from, and cells by verdict; ``judged`` marks the one the page uses."""
    table, known = compare_definitions(diagram.pairs, diagram.verdict), baselines(diagram)
    return [
        {**row, "baseline": known[row["definition"]], "judged": row["definition"] == diagram.verdict.barrier}
        for row in table.to_dict("records")
        if row["definition"] in known
    ]


def caption(diagram: PhaseDiagram) -> list[str]:
    """What a picture of the diagram alone must say: outcome, criterion and number of pairs."""
    verdict = diagram.verdict
    outcome = [answer(diagram), *undrawn(diagram)]
    criterion = f"Line: mean {verdict.barrier} barrier of {quantity(verdict)} = {threshold(verdict)}"
    n = diagram.cells.loc[diagram.cells["judged"], "n_ok"]
    if n.empty:
        return [*outcome, criterion]
    per_cell = f"{counts(n, diagram.group)} per judged cell"
    return [*outcome, f"{criterion}; {confidence(verdict)} intervals, {per_cell}"]


def versions(sweep: Sweep) -> list[tuple[str, str, str]]:
    """Package, version that trained, version that made this page."""
    here = {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
    names = sorted({*sweep.versions, *here})
    return [(name, sweep.versions.get(name, UNKNOWN), here.get(name, UNKNOWN)) for name in names]


def cell_details(diagram: PhaseDiagram, curves: Curves, learning: Mapping[str, NDArray[np.float64]]) -> Row:
    """What the page shows of a cell under the pointer: verdict, note and numbers, its place, and curves by quantity.

    ``table`` and the parts of the ``places`` are packed; ``curves`` holds every cell's bands, null where it has none;
    ``learning`` every cell's epochs and lines, as ``LINES`` names them.
    """
    reasons = exclusions(diagram.pairs, diagram.verdict).groupby("cell")["reason"].first().to_dict()
    cells = diagram.cells["cell"]
    rows = diagram.cells.to_dict("records")
    table = pd.DataFrame([_detail(diagram, row) for row in rows])
    table.insert(1, "reason", [reasons.get(cell, "") for cell in cells])
    return {
        "table": pack(table),
        "places": pack(pd.DataFrame([_whereabouts(diagram, row) for row in rows])),
        "curves": {name: [_compact(bands.get(cell)) for cell in cells] for name, bands in curves.bands.items()},
        "learning": {cell: _compact(learning[cell]) for cell in cells if cell in learning},
    }


def _detail(diagram: PhaseDiagram, row: Row) -> Row:
    verdict = diagram.verdict
    return {
        "cell": row["cell"],
        "verdict": row["verdict"],
        "mean barrier": height(row["mean_barrier"], verdict),
        f"{confidence(verdict)} interval": interval(row["low"], row["high"], verdict),
        f"on {verdict.other_split}": on_other_split(diagram, row),
        "counted": f"{row['n_ok']} of {counted(row['n_pairs'], diagram.group)}",
        "left out": left_out(row),
        diagram.title("noise_scale"): number(row["noise_scale"]),
        **accuracies(diagram, row),
        "merge gain, retention": f"{number(row['merge_gain'])} pp, {percent(row['retention'])}",
    }


def _compact(band: NDArray[np.float64] | None) -> list[list[float | None]] | None:
    """Four decimals; None where a curve is not finite, which JSON cannot say."""
    if band is None:
        return None
    return [[value if math.isfinite(value) else None for value in line] for line in band.round(4).tolist()]


def most_telling(diagram: PhaseDiagram) -> str:
    """The cell that is picked at first: the highest judged mean barrier, else the one with the most counted pairs."""
    cells = diagram.cells
    known = cells[cells["judged"]]
    best = known["mean_barrier"].argmax() if len(known) else cells["n_ok"].argmax()
    return str((known if len(known) else cells)["cell"].iloc[best])
