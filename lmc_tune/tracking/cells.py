"""The content of a cell's MLflow run. Pure; nothing here uses MLflow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmc_tune.tables.columns import SPEC_FIELDS
from lmc_tune.tables.rows import cell_name, shift_label
from lmc_tune.tracking.content import CELL_TAG, KIND_TAG, NOTE_TAG, SOURCE_TAGS, axis_metrics, spec_params

VERDICT_TAG = "verdict"
PENDING = "pending"

_FIELDS = [name for name in SPEC_FIELDS if name != "replicate"]
_NO_VERDICT = (
    "No verdict: the sweep has not ended, or the space that it ran last does not plan the runs below this one, or asks "
    "them something else."
)


@dataclass(frozen=True, kw_only=True)
class CellContent:
    """The run of one cell, in MLflow's terms."""

    cell: str
    name: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]


def pending_cell(row: Mapping[Any, Any]) -> CellContent:
    """A cell without a verdict, from the row of one of its pairs: yet to be judged, or not among what is judged."""
    tags = {VERDICT_TAG: PENDING, "complete": "false", "panel": "", NOTE_TAG: _NO_VERDICT}
    return cell_content(row, tags, {})


def cell_content(row: Mapping[Any, Any], tags: dict[str, str], metrics: dict[str, float]) -> CellContent:
    """A cell by the columns of its spec, with what is known of it."""
    identity = {KIND_TAG: "cell", CELL_TAG: row["cell"], "shift_label": shift_label(dict(row))}
    return CellContent(
        cell=row["cell"],
        name=cell_name(row),
        params=spec_params(row, _FIELDS),
        tags={**identity, **SOURCE_TAGS, **tags},
        metrics={**axis_metrics(row), **metrics},
    )
