"""The report of a run folder: one self-contained page that works offline, and the phase diagram as a picture."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import altair as alt
import pandas as pd
import vl_convert
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis import page
from analysis.curves import Curves, collect_curves, curve_chart
from analysis.noise_scale import noise_chart, noise_table
from analysis.phase import PhaseDiagram, map_regions
from analysis.phase_chart import phase_chart, phase_table
from lmc_tune.core.errors import UserError
from lmc_tune.record import REPORT_FILE, SPACE_FILE, SWEEP_FILE, SweepRecord
from lmc_tune.specs import VerdictSpec
from lmc_tune.store import Store, load_results, replacing, write_text

Format = Literal["html", "png", "svg", "pdf"]
FORMATS: tuple[Format, ...] = get_args(Format)

TEMPLATE = Path(__file__).parent / "template"
# Beyond this many tiles a browser draws pixels faster than shapes.
MANY_TILES = 1500


def render(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    formats: Sequence[str] = ("html",),
) -> list[Path]:
    """Write the report of a run folder from its tables alone.

    ``sweep.json`` and ``space.yaml`` add the name, the number of planned pairs, the verdict's settings and versions
    where they are there.

    Args:
        folder: a run folder, finished or not.
        out: the page's file; ``report.html`` in the folder by default. Other formats stand beside it.
        formats: ``html``, and ``png``, ``svg`` or ``pdf`` for the phase diagram alone.

    Returns:
        The files written, in the order of the formats.

    Raises:
        FileNotFoundError: if the folder holds no results.
        UserError: if no pair has finished, a format is unknown, or what the folder says of its sweep is damaged.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise UserError(f"unknown format {unknown[0]!r}; choose from {', '.join(FORMATS)}")
    folder = Path(folder)
    results = load_results(folder)
    sweep, verdict = read_sweep(folder)
    diagram = map_regions(results, verdict=verdict)
    target = Path(out) if out is not None else folder / REPORT_FILE
    if target.suffix.removeprefix(".") in FORMATS:
        target = target.with_suffix("")
    target.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for name in formats:
        path = target.with_name(f"{target.name}.{name}")
        if name == "html":
            write_text(path, _page(folder, results, diagram, sweep))
        else:
            with replacing(path) as part:
                part.write_bytes(_picture(diagram, sweep, name))
        written.append(path)
    return written


def read_sweep(folder: Path) -> tuple[page.Sweep, VerdictSpec]:
    """What the folder says of itself beside its tables, and how its cells are to be judged."""
    record = SweepRecord.read(folder) if (folder / SWEEP_FILE).exists() else None
    file = folder / SPACE_FILE
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    try:
        space = yaml.safe_load(text) or {}
        verdict = VerdictSpec(**space.get("verdict", {}))
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder / SPACE_FILE} is damaged ({str(error).splitlines()[0]}); restore it from a copy, or delete it: "
            f"the report then judges by the default verdict"
        ) from error
    named = page.Sweep(
        name=(record.name if record else "") or str(space.get("name") or folder.resolve().name),
        id=record.id if record else "",
        created=record.created[:16].replace("T", " ") if record else "",
        planned_pairs=record.planned_pairs if record else None,
        versions=dict(record.versions) if record else {},
        space=text,
    )
    return named, verdict


def _page(folder: Path, results: pd.DataFrame, diagram: PhaseDiagram, sweep: page.Sweep) -> str:
    curves = collect_curves(results, Store(folder).paths(), diagram.verdict)
    picked = page.most_telling(diagram)
    charts = _specs(diagram, curves, picked)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals["asset"] = lambda name: Markup((TEMPLATE / name).read_text(encoding="utf-8"))  # noqa: S704 - our own
    data = {
        "charts": charts,
        "cells": page.cell_details(diagram, results, curves),
        "lambdas": curves.lambdas.round(4).tolist(),
        "judged": diagram.verdict.of,
        "picked": picked,
        "renderer": "canvas" if len(diagram.cells) > MANY_TILES else "svg",
    }
    return environment.get_template("report.html.j2").render(
        **page.words(diagram, results, sweep),
        points=len(curves.lambdas),
        has_noise="noise" in charts,
        vega=_script(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")),
        data=_embedded(data),
    )


def _specs(diagram: PhaseDiagram, curves: Curves, picked: str) -> dict[str, Any]:
    """Vega-Lite specs by the id of the element they are drawn in."""
    charts = {"phase": phase_chart(diagram, phase_table(diagram), picked)}
    if curves.of(picked):
        charts["curves"] = curve_chart(diagram.verdict)
    noise = noise_table(diagram)
    if len(noise):
        charts["noise"] = noise_chart(diagram, noise, picked)
    return {name: _spec(chart) for name, chart in charts.items()}


def _spec(chart: Any) -> dict[str, Any]:
    with alt.data_transformers.enable("default", max_rows=None):
        spec: dict[str, Any] = chart.to_dict()
    return spec


def _picture(diagram: PhaseDiagram, sweep: page.Sweep, name: str) -> bytes:
    """The phase diagram alone, with what a reader without the page must know above it."""
    chart = phase_chart(diagram, phase_table(diagram))
    chart.title = alt.Title(sweep.name, subtitle=page.caption(diagram), fontSize=17, offset=12)
    spec = _spec(chart)
    if name == "svg":
        return vl_convert.vegalite_to_svg(spec).encode()
    return vl_convert.vegalite_to_pdf(spec) if name == "pdf" else vl_convert.vegalite_to_png(spec, scale=2)


def _embedded(content: object) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028"))  # noqa: S704 - escaped here


def _script(text: str) -> Markup:
    return Markup(text.replace("</script", "<\\/script"))  # noqa: S704 - a library's own code
