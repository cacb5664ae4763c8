"""What was found around checkpoints, on the page."""

from typing import Any

import numpy as np
import pandas as pd

from lmc_tune.analysis.report.charts.plane_chart import LINES, plane_chart
from lmc_tune.analysis.report.charts.rise_chart import direction_chart, filter_chart, noise_chart
from lmc_tune.analysis.report.charts.style import finish
from lmc_tune.analysis.rises import LAYER_KINDS, NOISE_KINDS, PLACES
from lmc_tune.averaging.judging import Judging
from lmc_tune.averaging.section import Section
from lmc_tune.averaging.surroundings import DirectionFindings, PlaneFindings
from lmc_tune.averaging.surroundings_text import Part, direction_parts, of_layers, place_name, plane_rows, steps_table

_LABELS = {
    "layerwise": "Rises after steps of single layers, towards the other member and at random",
    "whole": "Rises after steps of all weights, along the path and at random",
    "sharpness": "Rises along filter-normalised directions, from A, the midpoint and B",
}


def direction_sections(found: DirectionFindings, judging: Judging, what: str) -> list[tuple[Section, Any]]:
    """A section for every table, with its chart; None where no rise is finite."""
    sections = []
    for part in direction_parts(found, judging, what):
        chart = _drawn(part, rises_table(found, judging, part), f"rise of the {what}", judging)
        section = Section(
            id=part.name,
            title=part.title,
            lead=part.lead,
            chart="" if chart is None else f"{part.name}-rises",
            label=_LABELS[part.name],
            table=pd.DataFrame(part.rows),
        )
        sections.append((section, chart))
    return sections


def _drawn(part: Part, table: pd.DataFrame, title: str, judging: Judging) -> Any:
    percent = judging.quantity == "error"
    if table.empty:
        return None
    if part.name == "sharpness":
        return filter_chart(table, title, percent=percent)
    return finish((direction_chart if part.name == "layerwise" else noise_chart)(table, title, percent=percent))


def rises_table(found: DirectionFindings, judging: Judging, part: Part) -> pd.DataFrame:
    """A part's steps, as :func:`~lmc_tune.analysis.report.charts.rise_chart.rise_charts` takes them, where finite."""
    every = of_layers(found, judging) if part.name == "layerwise" else steps_table(found, judging)
    steps = every.replace([np.inf, -np.inf], np.nan).dropna(subset=["rise", "low", "high"])
    if part.name == "layerwise":
        charts = [f"α = {alpha:g}" for alpha in steps["alpha"]]
        return steps.assign(chart=charts, name=steps["kind"].map(LAYER_KINDS), place=steps["position"] + 1)
    steps = steps.sort_values(["lambda", "alpha"])
    if part.name == "whole":
        steps = steps[steps["kind"].isin(NOISE_KINDS)]
        charts = [f"from {place_name(lambda_)}" for lambda_ in steps["lambda"]]
        return steps.assign(chart=charts, name=steps["kind"].map(NOISE_KINDS))
    steps = steps[steps["kind"] == "filter"]
    return steps.assign(chart="noise on every filter", name=steps["lambda"].map(PLACES))


def plane_section(found: PlaneFindings, judging: Judging, what: str) -> tuple[Section, Any]:
    """A map with contours, and what the three points are worth."""
    section = Section(
        id="planes",
        title=f"The plane through {', '.join(found.through)}",
        lead=f"{found.condition.label}: the {what} on test examples. Distances are those of the weights, along both "
        f"axes. {LINES}",
        chart="plane",
        label=f"A map of the {what} on the plane through three weight vectors",
        table=pd.DataFrame(plane_rows(found, judging, what)),
    )
    points = [
        {"key": "", "point": one.point, "x": one.x, "y": one.y, "value": one.means["test", judging.quantity]}
        for one in found.points
    ]
    titles = pd.DataFrame({"title": [", ".join(found.through)]}, index=[""])
    return section, plane_chart(pd.DataFrame(points), titles, percent=judging.quantity == "error", loss=what)
