"""Two run folders side by side: one page, a picture, or a table of the cells that both have."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from lmc_tune.analysis.comparison import Comparison, answer, compare, drift
from lmc_tune.analysis.phase import PhaseDiagram, map_regions
from lmc_tune.analysis.report import content as page
from lmc_tune.analysis.report.cell_table import MOST_ROWS, known, numeric, places
from lmc_tune.analysis.report.charts.comparison_chart import (
    PAGE_WIDTH,
    comparison_chart,
    difference_words,
    legend_words,
)
from lmc_tune.analysis.report.columnar import pack
from lmc_tune.analysis.report.files import choose_files, write
from lmc_tune.analysis.report.html import html_page
from lmc_tune.analysis.report.picture import picture
from lmc_tune.analysis.report.render import check_axes, check_pictures, read_sweep
from lmc_tune.analysis.report.spec import packed_spec
from lmc_tune.analysis.report.standalone import MANY_TILES
from lmc_tune.analysis.report.studied import spec_value, studied
from lmc_tune.analysis.report.view import View
from lmc_tune.analysis.wording import UNKNOWN, confidence, height, interval, quantity
from lmc_tune.core.counted import counted
from lmc_tune.errors import UserError
from lmc_tune.experiment import VerdictSpec
from lmc_tune.storage import BucketPath, Place, place_at
from lmc_tune.tables.cells import judged_columns
from lmc_tune.tables.store import load_results

Folder = str | os.PathLike[str] | BucketPath


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One of the two. diagram: judged by the verdict of both."""

    folder: Place
    sweep: page.Sweep
    diagram: PhaseDiagram


def render_comparison(
    first: Folder,
    second: Folder,
    out: str | os.PathLike[str] | None = None,
    formats: Sequence[str] | None = None,
    *,
    view: View | None = None,
) -> tuple[list[Place], Comparison]:
    """Write what became of the verdicts from one run to another, from their tables alone.

    Both are judged as the first folder says.

    Args:
        first, second: run folders, or their addresses.
        out: a file, or a folder; ``report-SECOND.html`` in the first folder by default.
        formats: any of html, png, svg, pdf, csv; by default what the suffix of ``out`` says, else html.
        view: how cells are judged, arranged and drawn otherwise than the first folder says.

    Returns:
        The files written, in the order of the formats, and what they say.

    Raises:
        FileNotFoundError: if a folder holds no results.
        UserError: if no cell is finished in both, and as :func:`~lmc_tune.analysis.report.render.render` says.
    """
    view = view or View()
    folders = place_at(first), place_at(second)
    if view.chart != "phase":
        raise UserError(f"--chart {view.chart} is for the report of one folder; leave it out, or one of the two")
    if view.colour is not None:
        raise UserError(f"--colour {view.colour} is for the report of one folder; leave it out, or one of the two")
    files = choose_files(folders[0], f"report-{folders[1].absolute().name}", out, formats)
    check_pictures(view, files)
    runs = _read(folders, view)
    names = _names(runs)
    try:
        comparison = compare(runs[0].diagram, runs[1].diagram, *view.axes, names=names)
    except ValueError as error:  # of the axes
        raise UserError(str(error)) from error
    check_axes(view, comparison.first)
    for name, path in files.items():
        write(path, _content(name, comparison, runs, view))
    return list(files.values()), comparison


def _read(folders: tuple[Place, Place], view: View) -> tuple[_Side, _Side]:
    first, second = (read_sweep(folder) for folder in folders)
    verdict = view.judging(first.space.verdict if first.space else VerdictSpec())
    runs = tuple(
        _Side(folder=folder, sweep=sweep, diagram=_diagram(folder, sweep, verdict))
        for folder, sweep in zip(folders, (first, second), strict=True)
    )
    return runs[0], runs[1]


def _diagram(folder: Place, sweep: page.Sweep, verdict: VerdictSpec) -> PhaseDiagram:
    diagram = map_regions(load_results(folder, judged_columns(verdict)), verdict=verdict, space=sweep.space)
    if diagram.pairs[verdict.column].isna().all():
        raise UserError(
            f"no pair of {folder} was measured under condition {verdict.condition}, by which both are judged; choose "
            f"another with --condition"
        )
    return diagram


def _names(runs: tuple[_Side, _Side]) -> tuple[str, str]:
    """What tells the runs apart: the names of their folders, else the folders."""
    for names in ([run.folder.absolute().name for run in runs], [str(run.folder) for run in runs]):
        if names[0] != names[1]:
            return names[0], names[1]
    raise UserError(f"{runs[0].folder} cannot be compared with itself; name two run folders")


def _content(name: str, comparison: Comparison, runs: tuple[_Side, _Side], view: View) -> bytes:
    """The content of the file of a format."""
    if name == "csv":
        return known(comparison.cells).to_csv(index=False).encode()
    drawn = _drawn(comparison)
    if name == "html":
        data = {
            "charts": {"comparison": packed_spec(comparison_chart(drawn))},
            "exports": {"comparison": pack(known(comparison.cells))},
            "renderer": "canvas" if 3 * len(drawn.first.cells) > MANY_TILES else "svg",
        }
        return html_page("comparison.html.j2", data, view, _words(comparison, runs)).encode()
    return picture(
        lambda width: comparison_chart(drawn, width or PAGE_WIDTH),
        name,
        title=[" and ".join(comparison.names), answer(comparison), *_undrawn(comparison)],
        theme=view.theme or "light",
        width=view.width,
    )


def _drawn(comparison: Comparison) -> Comparison:
    """What a page can draw of it."""
    panels = comparison.first.drawn().panels
    first, second = (
        replace(run, panels=panels, cells=run.cells[run.cells["panel"].isin(panels)])
        for run in (comparison.first, comparison.second)
    )
    return replace(comparison, first=first, second=second)


def _undrawn(comparison: Comparison) -> list[str]:
    n, drawn = len(comparison.first.panels), len(comparison.first.drawn().panels)
    return [f"Drawn: the first {drawn} of {n} panels."] if drawn < n else []


def _words(comparison: Comparison, runs: tuple[_Side, _Side]) -> dict[str, Any]:
    """Everything the template sets in type, by the name it uses."""
    verdict, names = comparison.first.verdict, comparison.names
    cells = common_cells(comparison)
    return {
        "names": names,
        "answer": answer(comparison),
        "drift": drift(comparison),
        "studied": [(name, studied(run.diagram)) for name, run in zip(names, runs, strict=True)],
        "cautions": [*_cautions(comparison, runs), *_undrawn(comparison)],
        "settings": _settings(comparison, runs),
        "reading": legend_words(comparison),
        "quantity": quantity(verdict),
        "confidence": confidence(verdict),
        "cells": cells,
        "cells_end": page.ends_early(
            len(cells), len(comparison.cells), "cells", "All cells: lmc-tune report with --formats csv."
        ),
        "numeric": numeric,
        "long_table": page.LONG_TABLE,
    }


def _settings(comparison: Comparison, runs: tuple[_Side, _Side]) -> list[tuple[str, str, str]]:
    """What is fixed in both runs and differs: the spec, what was measured, the code of factories, versions."""
    rows = [
        (comparison.first.title(name), spec_value(name, one), spec_value(name, other))
        for name, one, other in comparison.settings
    ]
    one, other = (_beside_the_spec(run.sweep) for run in runs)
    names = dict.fromkeys([*one, *other])
    found = [(name, str(one.get(name, UNKNOWN)), str(other.get(name, UNKNOWN))) for name in names]
    return rows + [(name, a, b) for name, a, b in found if a != b]


def _beside_the_spec(sweep: page.Sweep) -> dict[str, Any]:
    found: dict[str, Any] = {f"version of {name}": version for name, version in sweep.versions.items()}
    if sweep.space is not None:
        found["replicates"] = sweep.space.replicates
        found |= {f"measure.{name}": value for name, value in sweep.space.measure.model_dump(mode="json").items()}
        model = sweep.space.fixed.get("model")
        if isinstance(model, dict) and "code" in model:
            found["code of the factory"] = model["code"]
    return found


def _cautions(comparison: Comparison, runs: tuple[_Side, _Side]) -> list[str]:
    """What a reader must know of either run, and which cells are in one alone."""
    found = []
    for name, run, n in zip(comparison.names, runs, comparison.alone, strict=True):
        if n:
            found.append(f"In {name} alone: {counted(n, 'cell')}.")
        found += [f"{name}: {caution}" for caution in page.cautions(run.diagram, run.sweep)]
    return found


def common_cells(comparison: Comparison) -> pd.DataFrame:
    """The first cells in words, those whose verdict changed before the others; columns as headed."""
    verdict, first = comparison.first.verdict, comparison.first
    cells = comparison.cells.sort_values("changed", ascending=False, kind="stable").head(MOST_ROWS)
    table = places(first, cells)
    for run, name in zip(("first", "second"), comparison.names, strict=True):
        table[f"verdict in {name}"] = cells[f"{run}_verdict"]
        rows = cells[[f"{run}_mean_barrier", f"{run}_low", f"{run}_high"]].itertuples(index=False)
        table[f"barrier in {name}"] = [
            f"{height(mean, verdict)} ({interval(low, high, verdict)})" for mean, low, high in rows
        ]
    rows = cells[["difference", "difference_low", "difference_high"]].itertuples(index=False)
    table["difference"] = [difference_words(row, verdict) for row in rows]
    table["n"] = cells["n_both"].astype(str)
    return pd.DataFrame({name: list(column) for name, column in table.items()})
