"""The content of a pair's MLflow run: its name, parameters, tags and metrics. Pure; nothing here uses MLflow."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from lmc_tune.experiment import (
    CONDITIONS,
    SAME_WITHOUT_BATCH_NORM,
    Condition,
    VerdictSpec,
    barrier_column,
    condition_column,
)
from lmc_tune.tables.columns import AXIS_SCALES, INT, RESULTS, SPEC_FIELDS, TIME_FIELDS, NestedName, Row
from lmc_tune.tables.rows import PairResult, pair_name, shift_label

# Raise it when the same result would be shown by other metrics: pairs that are already there are then sent again.
CONTENT_VERSION = 2

SWEEP_TAG = "lmc_tune.sweep"
KEY_TAG = "lmc_tune.key"
DIGEST_TAG = "lmc_tune.metrics_digest"
KIND_TAG = "kind"
CELL_TAG = "cell"  # of a cell's own run and of those of its pairs
NOTE_TAG = "mlflow.note.content"  # shown as the run's description
SOURCE_TAGS = {"mlflow.source.name": "lmc-tune", "mlflow.source.type": "LOCAL"}

LAMBDA_STEPS = 100
# The learning rate as a metric for charts: MLflow's scatter charts and parallel coordinates have no logarithmic axes.
LOG_LR = "log10_lr"
_MAX_NOTE = 4900  # older servers refuse tags of more than 5000 characters

# The judged barrier of a pair, whichever that is.
JUDGED = "barrier"
# Each metric costs a pair about a tenth of a millisecond: what is looked at or searched; the tables have everything.
_SHOWN = [
    "noise_scale",
    *(f"{split}_{name}_{member}" for split in ("train", "test") for name in ("loss", "accuracy") for member in "ab"),
    *(
        condition_column(condition, barrier_column(f"{split}_{quantity}", "chord"))
        for condition in CONDITIONS
        for split in ("train", "test")
        for quantity in ("error", "loss")
    ),
    "accuracy_difference",
    "merge_gain",
    "retention",
    "barrier_lambda",
    "distance",
    "disagreement",
    "cka",
    "ensemble_accuracy",
    "average_accuracy",
    "clients_test_accuracy",
    "clients_own_accuracy",
    "averaged_test_accuracy",
    "averaged_own_accuracy",
    "pooled_test_accuracy",
    "member_accuracy",
    "member_nll",
    "connectivity",
    "lowest_connectivity",
    "scaled_nll",
    "scaled_ece",
    "greedy_accuracy",
    "training_steps",
    "stored_bytes",
]

# Of a curve along the path, so far apart are the points that are sent.
PATH_STEPS = 5

# The name, the value and the step.
Metric = tuple[str, float, int]


@dataclass(frozen=True, kw_only=True)
class RunContent:
    """One run, in MLflow's terms. ``finished``: the run is shown as FINISHED, else as FAILED."""

    key: str
    name: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[Metric]
    seconds: float
    finished: bool


def run_content(result: PairResult, verdict: VerdictSpec) -> RunContent:
    """Everything in a pair's run except its artifacts.

    Parameters repeat the spec, so that they can never change under one key. Metrics are the numeric settings, what is
    looked at of the results, and what the verdict judges: ``barrier``, and the curve along the path, e.g.
    ``path/test_error`` with step = 100 λ; ``path/sharpness`` where it was measured. Values that are missing, NaN or
    infinite are not sent: MLflow stores infinity as 1.8e308, which ruins every chart.
    """
    row, condition = result.row, _judged_condition(result.row, verdict)
    judged = {JUDGED: row.get(condition_column(condition, verdict.column))}
    path = [point for point in result.tables.get("paths", ()) if point["condition"] == condition]
    measured = [
        *_at_step_0(numbers({**row, **judged}, [JUDGED, *_SHOWN])),
        *path_metrics(path, verdict.of),
        *sharpness_metrics(result.tables.get("sharpness", ())),
        *round_metrics(result.tables.get("rounds", ())),
        *ensemble_metrics(result),
    ]
    return RunContent(
        key=result.key,
        name=pair_name(result.row),
        params=spec_params(result.row, SPEC_FIELDS),
        tags={**_tags(result), DIGEST_TAG: _digest(measured)},
        metrics=[*_at_step_0(axis_metrics(result.row)), *measured],
        seconds=sum(numbers(result.row, TIME_FIELDS).values()),
        finished=result.status != "failed",
    )


def spec_params(row: Mapping[Any, Any], fields: Iterable[str]) -> dict[str, str]:
    """The fields of a spec that say something, as text; the same text for a pair and for a row of pandas."""
    given = {name: row[name] for name in fields if _says_something(row.get(name))}
    return {name: f"{int(value) if RESULTS[name].type == INT else value}" for name, value in given.items()}


def axis_metrics(row: Mapping[Any, Any]) -> dict[str, float]:
    """Every numeric setting as a number, so that it can be searched and drawn: ``metrics.lr > 0.1``."""
    found = numbers(row, AXIS_SCALES)
    return {**found, LOG_LR: math.log10(found["lr"])}


def numbers(row: Mapping[Any, Any], columns: Iterable[str]) -> dict[str, float]:
    """The finite ones among some columns."""
    return {name: float(value) for name in columns if is_finite(value := row.get(name))}


def path_metrics(points: Iterable[Row], of: str) -> Iterator[Metric]:
    """One curve along the path, e.g. ``path/test_error``, with step = 100 λ.

    Where it is highest, and the points next to every :data:`PATH_STEPS` steps; the tables have all points.

    Args:
        points: rows of ``paths`` under one condition.
        of: the curve.
    """
    split, quantity = of.split("_")
    values = {
        LAMBDA_STEPS * float(point["lambda"]): float(value)
        for point in points
        if point["split"] == split and point["n"] and is_finite(value := value_of(point, quantity))
    }
    if not values:
        return
    places = range(0, LAMBDA_STEPS + 1, PATH_STEPS)
    top = max(values, key=lambda at: (values[at], -at))
    shown = {round(at): values[at] for at in (*(_nearest(values, place) for place in places), top)}
    for step, value in sorted(shown.items()):
        yield f"path/{of}", value, step


def sharpness_metrics(rows: Iterable[Row]) -> Iterator[Metric]:
    """The Hessian's largest eigenvalue along the path, ``path/sharpness``, with step = 100 λ."""
    for row in rows:
        if is_finite(row["eigenvalue"]):
            yield "path/sharpness", float(row["eigenvalue"]), round(LAMBDA_STEPS * row["lambda"])


def round_metrics(rows: Iterable[Row]) -> Iterator[Metric]:
    """Of a federation, e.g. ``round/averaged_test_accuracy``, with step = the round."""
    for (what, split), by_round in sorted(round_means(rows).items()):
        for step, accuracy in sorted(by_round.items()):
            yield f"round/{what}_{split}_accuracy", accuracy, step


def ensemble_metrics(result: PairResult) -> Iterator[Metric]:
    """Of an ensemble: ``ensemble/accuracy`` and ``ensemble/nll`` with step = the number of members, ``member/…`` with
    step = the member's number. A run for every member would be as many runs as networks, and each costs as much as a
    pair's.
    """
    series: tuple[tuple[NestedName, str, str], ...] = (
        ("ensembles", "ensemble", "members"),
        ("ensemble_members", "member", "number"),
    )
    for table, name, step in series:
        for row in result.tables.get(table, ()):
            for quality in ("accuracy", "nll"):
                if is_finite(row.get(quality)):
                    yield f"{name}/{quality}", float(row[quality]), int(row[step])


def pair_means(rows: Iterable[Row]) -> dict[str, list[tuple[float, float]]]:
    """Along the paths between members, accuracy less what theirs would average to, percentage points.

    ``mean``, ``lowest`` and ``highest`` over the pairs, at the positions that all of them have.
    """
    by_lambda: dict[float, list[float]] = {}
    for row in rows:
        by_lambda.setdefault(row["lambda"], []).append(100 * (row["correct"] / row["n"] - row["expected_accuracy"]))
    most = max(map(len, by_lambda.values()), default=0)
    known = sorted((at, values) for at, values in by_lambda.items() if len(values) == most)
    return {
        "mean": [(at, math.fsum(values) / most) for at, values in known],
        "lowest": [(at, min(values)) for at, values in known],
        "highest": [(at, max(values)) for at, values in known],
    }


def round_means(rows: Iterable[Row]) -> dict[tuple[str, str], dict[int, float]]:
    """Accuracy by what was scored and the split, and by the round: means over clients, weighted by their examples."""
    rows = list(rows)
    sizes = {row["client"]: row["n"] for row in rows if (row["what"], row["split"]) == ("trained", "own")}
    sums: dict[tuple[str, str, int], tuple[float, float]] = {}
    for row in rows:
        at, weight = (row["what"], row["split"], row["round"]), sizes.get(row["client"], 1)
        total, of_all = sums.get(at, (0.0, 0.0))
        sums[at] = total + weight * row["correct"] / row["n"], of_all + weight
    found: dict[tuple[str, str], dict[int, float]] = {}
    for (what, split, number), (total, of_all) in sums.items():
        found.setdefault((what, split), {})[number] = total / of_all
    return found


def _nearest(positions: Iterable[float], place: float) -> float:
    return min(positions, key=lambda at: (abs(at - place), at))


def one_line(text: str, limit: int = 250) -> str:
    """The first line of a text, cut at ``limit`` characters."""
    first = text.strip().split("\n", 1)[0]
    return first if len(first) <= limit else f"{first[: limit - 1]}…"


def is_finite(value: object) -> TypeGuard[float]:
    """True for a number, NumPy's included; False for None, booleans, NaN and infinities."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and bool(np.isfinite(value))


def _at_step_0(values: Mapping[str, float]) -> Iterator[Metric]:
    for name, value in values.items():
        yield name, value, 0


def _judged_condition(row: Row, verdict: VerdictSpec) -> Condition:
    """The verdict's condition, or the one that is the same since the network has no BatchNorm."""
    asked = verdict.condition
    without = row["model"] != "factory" and row["norm"] != "batch"
    return SAME_WITHOUT_BATCH_NORM.get(asked, asked) if without else asked


def value_of(point: Row, quantity: str) -> float | None:
    """Mean loss (nats), None if it is not finite, or error (a fraction) of what was scored."""
    if quantity == "error":
        return float(1 - point["correct"] / point["n"])
    return point["loss_sum"] / point["n"] if is_finite(point["loss_sum"]) else None


def _tags(result: PairResult) -> dict[str, str]:
    row = result.row
    reason = row.get("reason") or ""
    return {
        KEY_TAG: result.key,
        KIND_TAG: "pair",
        "status": result.status,
        "reason": one_line(reason),
        CELL_TAG: row["cell"],
        "shift_label": shift_label(row),
        "under_resolved": str(bool(row.get("under_resolved"))).lower(),
        "device": row.get("device") or "",
        "engine": row.get("engine") or "",
        NOTE_TAG: note(reason),
        **SOURCE_TAGS,
    }


def note(reason: str) -> str:
    """The reason as a run's description; a traceback keeps its lines."""
    cut = reason if len(reason) <= _MAX_NOTE else f"{reason[:_MAX_NOTE]}…"
    return f"```\n{cut}\n```" if "\n" in cut else cut


def _says_something(value: object) -> bool:
    return value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))


def _digest(measured: list[Metric]) -> str:
    """16 hexadecimal digits; empty if nothing was measured."""
    if not measured:
        return ""
    text = json.dumps([CONTENT_VERSION, measured], separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
