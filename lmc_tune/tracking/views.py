"""Saved views of the MLflow UI: which columns and charts it opens with, as tags of the experiment.

The UI keeps a named view in a tag ``mlflow.sharedViewState.ID`` and lists it in its menu "Views"; a UI that does not
know them ignores the tags.
"""

import json
from typing import Any

from lmc_tune.tables.columns import RECIPE_FIELDS

PAIRS_VIEW = "lmc-tune-pairs"
_CREATED = 1_767_225_600_000  # 2026-01-01; fixed, so that every sweep writes the same tag

_COLUMNS = [
    "params.`lr`",
    "params.`batch_size`",
    *(f"params.`{name}`" for name in RECIPE_FIELDS),  # the UI shows those that some run has
    "tags.`shift_label`",
    "tags.`status`",
    "metrics.`test_error_barrier_chord`",
    "metrics.`test_loss_barrier_chord`",
]
_SECTION = "lmc-tune"


def experiment_tags() -> dict[str, str]:
    """Description, kind and saved views of a sweep's experiment."""
    return {
        "mlflow.experimentKind": "custom_model_development",  # the UI then opens the table of runs
        "mlflow.note.content": _NOTE,
        f"mlflow.sharedViewState.{PAIRS_VIEW}": json.dumps(
            {"name": "Pairs and their barriers", "createdAt": _CREATED, "updatedAt": _CREATED, "state": _state()}
        ),
    }


def view_address(server: str, experiment_id: str) -> str:
    """Where the UI at ``server`` shows the experiment's pairs."""
    query = f"workflowType=machine_learning&viewStateShareKey={PAIRS_VIEW}"
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?{query}"


def _state() -> str:
    return json.dumps(
        {
            "searchFilter": "tags.kind = 'pair'",
            # Any order but by time shows the pairs as a flat list, not folded under their parent.
            "orderByKey": "metrics.`test_error_barrier_chord`",
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "selectedColumns": _COLUMNS,
            "compareRunSections": [_section(_SECTION, "Barriers")],
            "compareRunCharts": _charts(),
        }
    )


def _charts() -> list[dict[str, Any]]:
    barrier = {"key": "test_error_barrier_chord", "type": "METRIC"}
    return [
        _chart("SCATTER", "Barrier by learning rate", xaxis={"key": "lr", "type": "PARAM"}, yaxis=barrier),
        _chart("LINE", "Test error along the path (step = 10 000 λ)", **_line("path/test_error")),
        _chart("LINE", "Test loss along the path (step = 10 000 λ)", **_line("path/test_loss")),
        _chart(
            "PARALLEL",
            "Where barriers are high",
            selectedParams=["lr", "batch_size", "shift", "severity"],
            selectedMetrics=["test_error_barrier_chord"],
            showAllRuns=True,
        ),
    ]


def _chart(kind: str, title: str, **settings: Any) -> dict[str, Any]:
    return {
        "uuid": f"lmc-tune {title}",
        "type": kind,
        "metricSectionId": _SECTION,
        "runsCountToCompare": 10,
        "deleted": False,
        "isGenerated": False,
        **settings,
    }


def _line(metric: str) -> dict[str, Any]:
    return {
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "lineSmoothness": 0,
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "ignoreOutliers": False,
    }


def _section(identity: str, name: str) -> dict[str, Any]:
    return {
        "uuid": identity,
        "name": name,
        "display": True,
        "isReordered": False,
        "deleted": False,
        "isGenerated": False,
    }


_NOTE = """One parent run per sweep, one nested run per pair of networks. The menu "Views" holds a view of the pairs.

- Columns worth showing: `lr`, `batch_size`, `shift_label`, `status`, `test_error_barrier_chord`.
- Filters: `tags.kind = 'pair'`, `tags.status = 'ok'`, `params.lr = '0.03'`, `metrics.test_error_barrier_chord > 0.02`.
- Charts: group runs by the tag `cell` to average over replicates. In `path/…` the step is 10 000 λ (0 is member A,
  10 000 member B); in `curve/…` it is the training step.
- `interpolation.html` among a pair's artifacts shows error and loss along the path.
"""
