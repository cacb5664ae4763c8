"""What came of a sweep, as its runs in MLflow say it: cells with their verdicts, counts and the answer in words."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lmc_tune.analysis import wording
from lmc_tune.analysis.answer import answer, remarks
from lmc_tune.analysis.phase import PhaseDiagram, map_regions
from lmc_tune.core.counted import counted
from lmc_tune.core.statistics import VERDICTS
from lmc_tune.errors import UserError
from lmc_tune.experiment import VerdictSpec
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.storage import Place
from lmc_tune.tables.cells import judged_columns
from lmc_tune.tables.columns import AXIS_SCALES
from lmc_tune.tables.rows import STATUSES, Status
from lmc_tune.tables.store import Store
from lmc_tune.tracking.cells import VERDICT_TAG, CellContent, cell_content, pending_cell
from lmc_tune.tracking.content import NOTE_TAG, note, numbers

_METRICS = [
    *("mean_barrier", "low", "high", "n_pairs", *(f"n_{status}" for status in STATUSES)),
    *(f"{split}_{name}" for split in ("test", "train") for name in ("barrier", "low", "high")),
    *("noise_scale", "accuracy_difference"),
]
_SPLIT_TAGS = ("on_test", "on_train", "split_apart", "beside_diverged")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run folder says of its sweep.

    statuses: of every finished pair, by its key. cells: every cell with a finished pair. note: the answer in words.
    counts: pairs by status and cells by verdict. varied: the numeric columns that vary, the phase map's axes first.
    verdict: how cells are judged.
    """

    statuses: Mapping[str, Status]
    cells: Sequence[CellContent]
    note: str
    counts: Mapping[str, int]
    varied: Sequence[str]
    verdict: VerdictSpec


def read_outcome(folder: Place, space: SearchSpace | None) -> Outcome:
    """Judge the cells of a run folder from its tables.

    Args:
        folder: a run folder.
        space: what was planned; without it every finished pair is judged, by the default verdict.

    Raises:
        DamagedTableError: if a table cannot be read.
    """
    store = Store(folder)
    verdict = space.verdict if space else VerdictSpec()
    statuses, results = store.statuses(), store.results(judged_columns(verdict))
    diagram: PhaseDiagram | None = None
    try:
        diagram = map_regions(results, verdict=verdict, space=space)
        words = _summary(diagram)
    except UserError as error:  # no pair has finished, or none that the space plans
        words = note(f"{error}.")
    rows = [] if diagram is None else diagram.cells.to_dict("records")
    replicates = space.replicates if space else None
    group = diagram.group if diagram else "pair"
    judged = [judged_cell(row, verdict, replicates, group) for row in rows]
    others = results[~results["cell"].isin([content.cell for content in judged])].drop_duplicates("cell")
    return Outcome(
        statuses=statuses,
        cells=[*judged, *(pending_cell(row) for row in others.to_dict("records"))],
        note=words,
        counts=_counts(list(statuses.values()), [str(row["verdict"]) for row in rows], diagram),
        varied=_varied(diagram),
        verdict=verdict,
    )


def judged_cell(
    row: Mapping[Any, Any], verdict: VerdictSpec, replicates: int | None, group: str = "pair"
) -> CellContent:
    """A cell with its verdict.

    Args:
        row: of ``PhaseDiagram.cells``.
        verdict: what it was judged by.
        replicates: pairs that the space plans for a cell; None if that is not known.
        group: what these are called.
    """
    planned = row["n_pairs"] if replicates is None else replicates
    complete, finished = row["n_pairs"] >= planned, counted(row["n_pairs"], f"finished {group}")
    words = (
        f"**{wording.verdict_words(row)}**: {row['n_ok']} of {finished} ok; their mean "
        f"barrier is {wording.height(row['mean_barrier'], verdict)} ({wording.confidence(verdict)} interval: "
        f"{wording.interval(row['low'], row['high'], verdict)}), the threshold is "
        f"{wording.threshold(verdict)}."
    )
    if not complete:
        words += f" {row['n_pairs']} of {planned} planned {group}s have finished: the verdict may change."
    tags = {
        VERDICT_TAG: str(row["verdict"]),
        "complete": str(complete).lower(),
        "panel": str(row["panel"]),
        NOTE_TAG: words,
        # A tag that is no longer true has to be replaced.
        **{name: "none" if pd.isna(row[name]) else str(row[name]).lower() for name in _SPLIT_TAGS},
    }
    return cell_content(row, tags, numbers(row, _METRICS))


def _summary(diagram: PhaseDiagram) -> str:
    """The answer, what was judged, and how many cells and pairs that rests on; Markdown."""
    verdict = diagram.verdict
    counts = diagram.cells["verdict"].value_counts()
    judged = (
        f"Judged: the mean {verdict.barrier.replace('_', ' ')} barrier of the {wording.quantity(verdict)} against "
        f"{wording.threshold(verdict)}, with a {wording.confidence(verdict)} interval."
    )
    lines = [
        " ".join([f"**{answer(diagram)}**", *remarks(diagram)]),
        "",
        judged,
        "",
        "| verdict | cells |",
        "|---|---|",
        *(f"| {name} | {counts[name]} |" for name in VERDICTS if name in counts),
        *([f"| not run | {len(diagram.not_run)} |"] if len(diagram.not_run) else []),
        "",
        f"The runs below this one are cells; a cell's {diagram.group}s are below it. The report is an artifact.",
    ]
    return "\n".join(lines)


def _varied(diagram: PhaseDiagram | None) -> list[str]:
    """Without those that some cells do not have: MLflow's parallel coordinates would leave these cells out."""
    if diagram is None:
        return ["lr"]
    facets = [name for name in diagram.facets if name in AXIS_SCALES and diagram.cells[name].notna().all()]
    return [axis.column for axis in diagram.axes] + facets or ["lr"]


def _counts(pairs: Sequence[str], verdicts: Iterable[str], diagram: PhaseDiagram | None) -> dict[str, int]:
    judged = list(verdicts)
    return {
        "pairs": len(pairs),
        **{f"pairs_{name}": pairs.count(name) for name in STATUSES},
        "cells": len(judged),
        **{f"cells_{name}": judged.count(name) for name in VERDICTS},
        "cells_not_run": 0 if diagram is None else len(diagram.not_run),
    }
