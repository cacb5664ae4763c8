"""Saved views of the MLflow UI: which columns and charts it opens with, as tags of the experiment.

The UI keeps a named view in a tag ``mlflow.sharedViewState.ID`` and lists it in its menu "Views"; a UI that does not
know them ignores the tags. The UI names a chart after its metrics, whatever title it is given: each chart has a section
to itself, whose title says what it shows.
"""

import json
from collections.abc import Sequence
from typing import Any

from lmc_tune.experiment import VerdictSpec
from lmc_tune.tables.columns import RECIPE_FIELDS, RESULTS
from lmc_tune.tracking.content import JUDGED, LOG_LR

CELLS_VIEW, PAIRS_VIEW = "lmc-tune-cells", "lmc-tune-pairs"
_CREATED = 1_767_225_600_000  # 2026-01-01; fixed, so that every sweep writes the same tag

# What to search for, and what it finds. A learning rate of a logarithmic range is seldom a round number.
HINTS = {
    "tags.kind = 'cell'": "the cells",
    "tags.verdict = 'connected'": "the cells with one verdict: connected, disconnected, undecided, undertrained, "
    "diverged; pending as long as there is none",
    "tags.kind = 'cell' and metrics.low > 0.02": "the cells whose whole interval lies above 0.02",
    "tags.complete = 'false'": "the cells of which planned pairs are missing",
    "tags.kind = 'pair' and tags.status = 'ok'": "the ok pairs",
    "metrics.lr > 0.1": "cells and pairs trained with a higher learning rate",
    "metrics.lr > 0.02 and metrics.lr < 0.05": "cells and pairs trained with a learning rate near 0.03",
    "metrics.batch_size <= 32": "cells and pairs trained with small batches",
    "metrics.barrier > 0.02": "the pairs with a higher barrier, of the kind that is judged",
}


def experiment_tags(verdict: VerdictSpec, varied: Sequence[str] = ("lr", "batch_size")) -> dict[str, str]:
    """Description, kind and saved views of a sweep's experiment.

    Args:
        verdict: how cells are judged.
        varied: the numeric columns that vary, those of the phase map's axes first; at least one.
    """
    return {
        "mlflow.experimentKind": "custom_model_development",  # the UI then opens the table of runs
        "mlflow.note.content": _note(),
        f"mlflow.sharedViewState.{CELLS_VIEW}": _cells_view(varied),
        f"mlflow.sharedViewState.{PAIRS_VIEW}": _pairs_view(varied, verdict.of),
    }


def view_address(server: str, experiment_id: str) -> str:
    """Where the UI at ``server`` shows the experiment's cells."""
    query = f"workflowType=machine_learning&viewStateShareKey={CELLS_VIEW}"
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?{query}"


def _cells_view(varied: Sequence[str]) -> str:
    charts = [
        (f"Mean barrier by {RESULTS[varied[0]].title}", _scatter(varied[0], "mean_barrier")),
        ("Settings and mean barrier", _parallel(varied, "mean_barrier")),
    ]
    columns = [
        *("tags.`verdict`", "metrics.`mean_barrier`", "metrics.`low`", "metrics.`high`", "metrics.`n_ok`"),
        *("metrics.`n_pairs`", *(f"metrics.`{axis}`" for axis in varied), "tags.`panel`", "tags.`complete`"),
    ]
    return _view("Cells and their verdicts", "tags.kind = 'cell'", "metrics.`mean_barrier`", columns, charts)


def _pairs_view(varied: Sequence[str], of: str) -> str:
    curve = of.replace("_", " ").capitalize()
    charts = [
        (f"Barrier by {RESULTS[varied[0]].title}", _scatter(varied[0], JUDGED)),
        (f"{curve}, step: λ in %", _line(f"path/{of}")),
        ("Settings and barrier", _parallel(varied, JUDGED)),
    ]
    columns = [
        *("tags.`status`", f"metrics.`{JUDGED}`", *(f"metrics.`{axis}`" for axis in varied)),
        *(f"params.`{name}`" for name in RECIPE_FIELDS),  # the UI shows those that some run has
        *("tags.`shift_label`", "params.`replicate`"),
    ]
    # The UI loads 100 runs at once: so ordered, these are the first replicates of all cells.
    return _view("Pairs and their barriers", "tags.kind = 'pair'", "params.`replicate`", columns, charts)


def _view(
    name: str, search: str, order: str, columns: Sequence[str], charts: Sequence[tuple[str, dict[str, Any]]]
) -> str:
    state = {
        "searchFilter": search,
        # Any order but by time shows a flat list, not one folded under the parents.
        "orderByKey": order,
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {"tags.`verdict`": 125, "metrics.`mean_barrier`": 125},  # else cut off
        "runsHiddenMode": "SHOW_ALL",
        "isAccordionReordered": True,  # else sections are sorted by name
        "compareRunSections": [_section(title) for title, _ in charts],
        "compareRunCharts": [_chart(title, settings) for title, settings in charts],
    }
    view = {"name": name, "createdAt": _CREATED, "updatedAt": _CREATED, "state": json.dumps(state)}
    return json.dumps(view)


def _section(title: str) -> dict[str, Any]:
    return {
        "uuid": f"lmc-tune section {title}",
        "name": title,
        "display": True,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
        "columns": 1,
        "cardHeight": 420,
    }


def _chart(title: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "uuid": f"lmc-tune {title}",
        "metricSectionId": f"lmc-tune section {title}",
        "runsCountToCompare": 100,
        "deleted": False,
        "isGenerated": False,
        **settings,
    }


def _scatter(axis: str, barrier: str) -> dict[str, Any]:
    return {
        "type": "SCATTER",
        "xaxis": {"key": _drawn(axis), "type": "METRIC"},
        "yaxis": {"key": barrier, "type": "METRIC"},
    }


def _line(metric: str) -> dict[str, Any]:
    return {
        "type": "LINE",
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "lineSmoothness": 0,
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "ignoreOutliers": False,
        "displayPoints": False,
    }


def _parallel(varied: Sequence[str], barrier: str) -> dict[str, Any]:
    return {
        "type": "PARALLEL",
        "selectedParams": [],  # those that are text are cut off at the edge
        "selectedMetrics": [*map(_drawn, varied), barrier],
        "showAllRuns": True,
    }


def _drawn(axis: str) -> str:
    """The metric that shows an axis in a chart, where no axis is logarithmic."""
    return LOG_LR if axis == "lr" else axis


def _note() -> str:
    """Markdown; the UI shows the first line until it is unfolded."""
    levels = (
        "One run per sweep, below it one per cell, below that one per pair of networks, federation or ensemble. The "
        "sweep's "
        'own run has the answer as its description and the report as an artifact. The menu "Views" holds views of the '
        "cells and of the pairs."
    )
    charts = (
        'Charts show what is loaded: 100 runs, then more with "Load more" below the table. Numeric settings are '
        "metrics as well as parameters. In `path/…` the step is λ in percent (0 is member A, 100 member B). A pair's "
        "`interpolation.html` shows error and loss along the path under every condition, its `learning.html` the "
        "learning curves. Where they were measured, `layers.html` has the barriers of layers, `directions.html` steps "
        "away from the path and its sharpness, `planes.html` the plane through the members. A federation has "
        "`rounds.html`, and `round/…` with the round as the step; an ensemble `ensemble.html`, `ensemble/…` with the "
        "number of members as the step, and `member/…` with the member's number. Everything that was measured is in "
        "the run folder's tables."
    )
    hints = [f"- `{query}`: {finds}" for query, finds in HINTS.items()]
    return "\n".join([levels, "", "Filters:", "", *hints, "", charts])
