"""The content of a pair's MLflow run: its name, parameters, tags and metrics. Pure; nothing here uses MLflow."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from lmc_tune.tables.columns import LAMBDA, MEASURED, SPEC_FIELDS, TIME_FIELDS, TIMES, Row
from lmc_tune.tables.rows import PairResult, pair_name, shift_label

# Raise it when the same result would be shown by other metrics: pairs that are already there are then sent again.
CONTENT_VERSION = 1

SWEEP_TAG = "lmc_tune.sweep"
KEY_TAG = "lmc_tune.key"
DIGEST_TAG = "lmc_tune.metrics_digest"
KIND_TAG = "kind"

LAMBDA_STEPS = 10_000
MAX_CURVE_POINTS = 50
_MAX_NOTE = 4900  # older servers refuse tags of more than 5000 characters

# Positions of all barriers but one are left to the table.
_SHOWN = [column.name for column in (*MEASURED, *TIMES) if column.unit != LAMBDA or column.name == "barrier_lambda"]

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


def run_content(result: PairResult) -> RunContent:
    """Everything in a pair's run except its chart.

    Parameters repeat the spec, so that they can never change under one key. Metrics are the numeric columns of the
    results table by their own names (without the positions of the other barriers: those are in the table), then the
    path as ``path/test_error``… with step = 10 000 λ, then the learning curves as ``curve/train_loss_a``… with
    step = training step, thinned to at most 50 points a member. Values that are missing, NaN or infinite are not sent:
    MLflow stores infinity as 1.8e308, which ruins every chart.
    """
    metrics = [
        *_scalars(result.row),
        *path_metrics(result.tables.get("paths", ())),
        *_curves(result.tables.get("curves", [])),
    ]
    return RunContent(
        key=result.key,
        name=pair_name(result.row),
        params={name: f"{result.row[name]}" for name in SPEC_FIELDS if _says_something(result.row.get(name))},
        tags={**_tags(result), DIGEST_TAG: _digest(metrics)},
        metrics=metrics,
        seconds=sum(float(value) for name in TIME_FIELDS if is_finite(value := result.row.get(name))),
        finished=result.status != "failed",
    )


def path_metrics(points: Iterable[Row]) -> Iterator[Metric]:
    """Error and loss along the path, by λ, as ``path/…`` for the naive path, otherwise as ``path CONDITION/…``."""
    for point in sorted(points, key=lambda point: (point["condition"], point["split"], point["lambda"])):
        group = "path" if point["condition"] == "naive" else f"path {point['condition']}"
        step = round(LAMBDA_STEPS * point["lambda"])
        if point["n"]:
            yield f"{group}/{point['split']}_error", float(1 - point["correct"] / point["n"]), step
            if is_finite(point["loss_sum"]):
                yield f"{group}/{point['split']}_loss", float(point["loss_sum"] / point["n"]), step


def one_line(text: str, limit: int = 250) -> str:
    """The first line of a text, cut at ``limit`` characters."""
    first = text.strip().split("\n", 1)[0]
    return first if len(first) <= limit else f"{first[: limit - 1]}…"


def is_finite(value: object) -> TypeGuard[float]:
    """True for a number, NumPy's included; False for None, booleans, NaN and infinities."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and bool(np.isfinite(value))


def _scalars(row: Row) -> Iterator[Metric]:
    for name in _SHOWN:
        if is_finite(value := row.get(name)):
            yield name, float(value), 0


def _curves(points: list[Row]) -> Iterator[Metric]:
    for member in sorted({point["member"] for point in points}):
        own = sorted((point for point in points if point["member"] == member), key=lambda point: point["step"])
        for point in _thinned(own):
            for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
                if is_finite(value := point.get(name)):
                    yield f"curve/{name}_{member}", float(value), int(point["step"])


def _thinned(points: list[Row]) -> list[Row]:
    """At most :data:`MAX_CURVE_POINTS`, evenly spaced, the first and the last among them."""
    excess = len(points) - 1
    if excess < MAX_CURVE_POINTS:
        return points
    return [points[round(at * excess / (MAX_CURVE_POINTS - 1))] for at in range(MAX_CURVE_POINTS)]


def _tags(result: PairResult) -> dict[str, str]:
    row = result.row
    reason = row.get("reason") or ""
    return {
        KEY_TAG: result.key,
        KIND_TAG: "pair",
        "status": result.status,
        "reason": one_line(reason),
        "cell": row["cell"],
        "shift_label": shift_label(row),
        "under_resolved": str(bool(row.get("under_resolved"))).lower(),
        "device": row.get("device") or "",
        "engine": row.get("engine") or "",
        "mlflow.note.content": _note(reason),
        "mlflow.source.name": "lmc-tune",
        "mlflow.source.type": "LOCAL",
    }


def _note(reason: str) -> str:
    """The reason as the run's description; a traceback keeps its lines."""
    cut = reason if len(reason) <= _MAX_NOTE else f"{reason[:_MAX_NOTE]}…"
    return f"```\n{cut}\n```" if "\n" in cut else cut


def _says_something(value: object) -> bool:
    return value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))


def _digest(metrics: list[Metric]) -> str:
    """16 hexadecimal digits; empty if nothing was measured."""
    if not metrics:
        return ""
    text = json.dumps([CONTENT_VERSION, metrics], separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
