"""The report of a run folder: one self-contained page that works offline, and the phase diagram as a picture."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from lmc_tune.analysis.phase import PhaseDiagram, map_regions, why_no_axis
from lmc_tune.analysis.report import content as page
from lmc_tune.analysis.report import sections as own_sections
from lmc_tune.analysis.report.asked import why_no_chart
from lmc_tune.analysis.report.cell_table import full_table
from lmc_tune.analysis.report.charts.curves import MANY_CELLS, Curves, collect_curves, curve_chart
from lmc_tune.analysis.report.charts.layout import MAPS_WIDTH
from lmc_tune.analysis.report.charts.learning import collect_learning, learning_chart
from lmc_tune.analysis.report.charts.map_colour import check_colour
from lmc_tune.analysis.report.charts.phase_chart import phase_chart, phase_table
from lmc_tune.analysis.report.files import PICTURES, choose_files, write
from lmc_tune.analysis.report.html import html_page
from lmc_tune.analysis.report.picture import picture
from lmc_tune.analysis.report.section import Context, Section, find_sections
from lmc_tune.analysis.report.spec import packed_spec
from lmc_tune.analysis.report.standalone import MANY_TILES, standalone_charts
from lmc_tune.analysis.report.view import View
from lmc_tune.core.barrier import Array
from lmc_tune.errors import UserError
from lmc_tune.experiment import VerdictSpec
from lmc_tune.experiment.space import SPACE_FILE
from lmc_tune.storage import BucketPath, Place, place_at
from lmc_tune.tables.cells import judged_columns
from lmc_tune.tables.planned import space_in
from lmc_tune.tables.store import Store, load_results
from lmc_tune.tables.sweep_record import REPORT_FILE, SWEEP_FILE, SweepRecord


def render(
    folder: str | os.PathLike[str] | BucketPath,
    out: str | os.PathLike[str] | None = None,
    formats: Sequence[str] | None = None,
    *,
    sections: Sequence[ModuleType] = (own_sections,),
    view: View | None = None,
) -> list[Place]:
    """Write the report of a run folder from its tables alone.

    ``space.yaml`` says what was planned and how it is judged, ``sweep.json`` adds the name and versions; without them
    every finished pair is judged by the default verdict.

    Args:
        folder: a run folder, finished or not: its path, or its address in a bucket.
        out: a file, or a folder for ``report.html``, one that exists or whose name ends in a slash; the run folder by
            default. A file's suffix may be left out, and several formats stand beside each other.
        formats: ``html``; ``png``, ``svg`` or ``pdf`` for one chart; ``csv`` for all cells, as
            :func:`~lmc_tune.analysis.report.cell_table.full_table` has them. By default what the suffix of ``out``
            says, else ``html``.
        sections: the packages that the page's sections are found in, as
            :func:`~lmc_tune.analysis.report.section.find_sections` says.
        view: how cells are judged, arranged and drawn otherwise than the folder says, which stays as it is. Where cells
            are judged or arranged otherwise, files that ``out`` does not name are ``report-view``.

    Returns:
        The files written, in the order of the formats.

    Raises:
        FileNotFoundError: if the folder holds no results.
        UserError: if no planned pair has finished, the format is unknown or contradicts the file's name, what the
            folder says of its sweep is damaged, the view asks for what there is not, or a file cannot be written.

    Example:
        A folder with pairs whose barrier grows with the learning rate, as a sweep would have written them:

        >>> from tempfile import TemporaryDirectory
        >>> from lmc_tune.experiment.reading import read_space
        >>> from lmc_tune.tables.columns import BARRIER_COLUMNS
        >>> from lmc_tune.tables.rows import PairResult, spec_columns
        >>> from lmc_tune.tables.store import Store
        >>> space = read_space("quickstart", ["axes.batch_size=[32]", "axes.lr=[0.01, 0.1, 1.0]"])
        >>> learned = {"status": "ok", "train_accuracy_a": 1.0, "train_accuracy_b": 1.0}
        >>> def result(pair):
        ...     barriers = {"condition": "naive", **dict.fromkeys(BARRIER_COLUMNS, pair.train.lr / 10)}
        ...     return PairResult(columns={**spec_columns(pair), **learned}, tables={"barriers": [barriers]})
        >>> with TemporaryDirectory() as folder:
        ...     Store(folder).write_shard("example", [result(pair) for pair in space.pairs()])
        ...     for file in render(folder, formats=["html", "csv"]):
        ...         print(file.name, file.exists())
        report.html True
        report.csv True
    """
    folder, view = place_at(folder), view or View()
    stem = Path(REPORT_FILE).stem
    files = choose_files(folder, f"{stem}-view" if view.is_other else stem, out, formats)
    sweep = read_sweep(folder)
    verdict = view.judging(sweep.space.verdict if sweep.space else VerdictSpec())
    try:  # the results are kept by no name: their memory is needed again
        diagram = map_regions(
            load_results(folder, judged_columns(verdict)), *view.axes, verdict=verdict, space=sweep.space
        )
    except ValueError as error:  # of the axes
        raise UserError(str(error)) from error
    check_pictures(view, files)
    if view.chart != "phase" and not set(files) & set(PICTURES):
        raise UserError(f"--chart {view.chart} is for pictures; add --formats png, svg or pdf, or end -o in one")
    if view.condition is not None and diagram.pairs[diagram.verdict.column].isna().all():
        raise UserError(f"no pair of this run was measured under --condition {view.condition}")
    check_axes(view, diagram)
    if view.colour is not None:
        check_colour(diagram.drawn(), view.colour)
    report = _Report(folder=folder, diagram=diagram, sweep=sweep, modules=find_sections(*sections), view=view)
    for name, path in files.items():
        write(path, report.content(name))
    return list(files.values())


def read_sweep(folder: Place) -> page.Sweep:
    """What the folder says of itself beside its tables."""
    record = SweepRecord.read(folder) if (folder / SWEEP_FILE).exists() else None
    file = folder / SPACE_FILE
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    space = space_in(file, text) if file.exists() else None
    return page.Sweep(
        name=(record.name if record else "") or (space.name if space else folder.absolute().name),
        id=record.id if record else "",
        created=_moment(record.created) if record else "",
        planned_pairs=record.planned_pairs if record else None,
        versions=dict(record.versions) if record else {},
        ended=record is not None and space is not None and record.has_ended(space),
        space=space,
        space_yaml=text,
    )


def _moment(created: str) -> str:
    """A time of the record with its zone, e.g. ``2026-11-20 08:00 UTC``; whatever else it says as it is."""
    try:
        return f"{datetime.fromisoformat(created).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return created


def check_pictures(view: View, formats: Collection[str]) -> None:
    """Refuse a width where nothing has one."""
    if view.width is not None and not set(formats) & set(PICTURES):
        raise UserError(f"--width {view.width} is for pictures; add --formats png, svg or pdf, or end -o in one")


def check_axes(view: View, diagram: PhaseDiagram) -> None:
    """Refuse axes along which nothing varies."""
    used = [axis.column for axis in diagram.axes]
    for option, column in (("--x", view.x), ("--y", view.y)):
        if column is not None and column not in used:
            raise UserError(why_no_axis(diagram, column, option))


@dataclass(frozen=True, kw_only=True)
class _Report:
    """What the files of one report are made from; ``modules``: those of its sections."""

    folder: Place
    diagram: PhaseDiagram
    sweep: page.Sweep
    modules: Sequence[ModuleType]
    view: View

    def content(self, name: str) -> bytes:
        """The content of the file of a format."""
        if name == "html":
            return self.page().encode()
        return full_table(self.diagram).to_csv(index=False).encode() if name == "csv" else self.picture(name)

    def page(self) -> str:
        store, diagram, drawn = Store(self.folder), self.diagram, self.drawn
        curves = collect_curves(diagram.pairs, store.parts("paths"), diagram.verdict)
        learning = _learning(store, drawn)
        sections, words = self.sections, page.content(diagram, self.sweep)
        data = {
            "charts": {"phase": packed_spec(self._phase(None, self.picked))}
            | _specs(drawn, curves, learning, sections, self.picked),
            "cells": page.cell_details(drawn, curves, learning),
            "lambdas": curves.lambdas.round(4).tolist(),
            "judged": diagram.verdict.of,
            "picked": self.picked,
            "renderer": "canvas" if len(drawn.cells) + len(drawn.not_run) > MANY_TILES else "svg",
        }
        if not any(curves.bands.values()) and (diagram.pairs["status"] == "ok").any() and diagram.group == "pair":
            words["cautions"].append("No curves: paths.parquet is not in the folder, or has no path of these pairs.")
        words |= {
            "folder": self.folder.absolute().name,
            "contents": page.contents(sections, with_panels=len(words["panels"]) > 0),
            "n_positions": len(curves.lambdas),
            "thinned": curves.thinned,
            "sections": sections,
        }
        return html_page("report.html.j2", data, self.view, words)

    def picture(self, name: str) -> bytes:
        """The chart that is asked for alone, with what a reader without the page must know above it."""
        theme, width = self.view.theme or "light", self.view.width
        if self.view.chart == "phase":
            caption = [self.sweep.name, *page.caption(self.diagram)]
            return picture(self._phase, name, title=caption, theme=theme, width=width)
        charts = standalone_charts(self.diagram, self.sweep.space, Store(self.folder), self.modules)
        if self.view.chart not in charts:
            why = why_no_chart(self.view.chart, self.sweep.space)
            said = f"there is no chart {self.view.chart!r} of this run{f': {why}' if why else ''}"
            raise UserError(f"{said}; choose from {', '.join(charts)}")
        title, chart = charts[self.view.chart]
        return picture(lambda _: chart, name, title=[f"{self.sweep.name}: {title}"], theme=theme, width=width)

    def _phase(self, width: float | None, picked: str | None = None) -> Any:
        table, colour = phase_table(self.drawn, self.view.colour), self.view.colour
        return phase_chart(self.drawn, table, picked, width or MAPS_WIDTH, colour)

    @cached_property
    def drawn(self) -> PhaseDiagram:
        """What a page can draw of the diagram."""
        return self.diagram.drawn()

    @cached_property
    def picked(self) -> str:
        """The cell that is picked at first."""
        return page.most_telling(self.drawn)

    @cached_property
    def sections(self) -> list[Section]:
        """Those that there is something to show in."""
        context = Context.of(self.diagram, self.sweep.space, Store(self.folder), self.modules, self.picked)
        return [section for module in self.modules if (section := module.make(context)) is not None]


def _learning(store: Store, diagram: PhaseDiagram) -> dict[str, Array]:
    """Learning curves of the cells, unless they are so many that their interpolation curves are thinned as well."""
    if len(diagram.cells) > MANY_CELLS:
        return {}
    return collect_learning(diagram.pairs[diagram.pairs["cell"].isin(diagram.cells["cell"])], store.parts("curves"))


def _specs(
    diagram: PhaseDiagram, curves: Curves, learning: dict[str, Array], sections: list[Section], picked: str
) -> dict[str, Any]:
    """Vega-Lite specs of all charts but the first, by the id of the element they are drawn in, their data packed."""
    charts = {}
    if curves.of(picked):
        charts["curves"] = curve_chart(diagram.verdict, curves.bands)
    if picked in learning:
        charts["learning"] = learning_chart()
    charts |= {section.id: section.chart for section in sections if section.chart is not None}
    return {name: packed_spec(chart) for name, chart in charts.items()}
