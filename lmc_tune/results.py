"""What is known of a finished pair, and the columns it is kept in. No torch, no files.

A run folder holds four tables: ``results.parquet`` has one row per pair, ``paths.parquet`` the measured curves,
``curves.parquet`` the learning curves, ``layers.parquet`` the similarity of the members layer by layer.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import pyarrow as pa

from lmc_tune.core.barrier import DEFINITIONS
from lmc_tune.specs import MODELS, Condition, ModelSpec, PairSpec, ShiftSpec, condition_column

Status = Literal["ok", "undertrained", "diverged", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)

Row = dict[str, Any]

# Of any model; null where a model has no such field.
MODEL_FIELDS: dict[str, pa.DataType] = {
    "hidden": pa.string(),
    "activation": pa.string(),
    "depth": pa.int64(),
    "width": pa.float64(),
    "shortcut": pa.string(),
    "patch": pa.int64(),
    "heads": pa.int64(),
    "dim": pa.int64(),
    "mlp_dim": pa.int64(),
    "norm": pa.string(),
    "init": pa.string(),
    "dropout": pa.float64(),
    "factory": pa.string(),
    "arguments": pa.string(),
}

# What a row repeats of its PairSpec, flat. Two pairs of one cell agree in all of them but ``replicate``.
SPEC_FIELDS: dict[str, pa.DataType] = {
    "dataset": pa.string(),
    "train_examples": pa.int64(),
    "test_examples": pa.int64(),
    "validation_examples": pa.int64(),
    "normalise": pa.bool_(),
    "model": pa.string(),
    **MODEL_FIELDS,
    "optimizer": pa.string(),
    "lr": pa.float64(),
    "batch_size": pa.int64(),
    "momentum": pa.float64(),
    "nesterov": pa.bool_(),
    "weight_decay": pa.float64(),
    "epochs": pa.int64(),
    "step_budget": pa.int64(),
    "schedule": pa.string(),
    "warmup": pa.float64(),
    "crop": pa.int64(),
    "flip": pa.bool_(),
    "jitter": pa.float64(),
    "precision": pa.string(),
    "noise": pa.string(),
    "shift": pa.string(),
    "severity": pa.float64(),
    "skew": pa.string(),
    "domain": pa.string(),
    "spawn_epoch": pa.int64(),
    "target_loss": pa.float64(),
    "replicate": pa.int64(),
    "seed": pa.int64(),
}

BARRIER_COLUMNS = [
    f"{split}_{quantity}_barrier_{definition}{suffix}"
    for split in ("train", "test")
    for quantity in ("error", "loss")
    for definition in DEFINITIONS
    for suffix in ("", "_lambda")
]

# Of a path under one condition, besides its barriers.
PATH_FIELDS: dict[str, pa.DataType] = {
    "accuracy_difference": pa.float64(),
    "barrier_lambda": pa.float64(),
    "under_resolved": pa.bool_(),
}

# How alike two networks predict. With ``average_``: the weight average and a member, mean over the members.
ALIKE_FIELDS = (
    "disagreement",
    "error_overlap",
    "error_overlap_ratio",
    "same_error",
    "kappa",
    "jensen_shannon",
    "true_class_variance",
)

# What the members' ensemble and their weight average are worth; gains are over the mean member.
COMBINED_FIELDS = tuple(
    f"{combined}_{gain}{quality}"
    for combined in ("ensemble", "average")
    for gain in ("", "gain_")
    for quality in ("accuracy", "nll", "brier", "ece")
)

# Losses in nats; accuracies, errors and overlaps as fractions; accuracy_difference in percentage points.
MEASURED_FIELDS: dict[str, pa.DataType] = {
    "noise_scale": pa.float64(),
    "steps": pa.int64(),
    "n_train": pa.int64(),
    **{
        f"{split}_{quantity}_{member}": pa.float64()
        for split in ("train", "test")
        for quantity in ("loss", "accuracy")
        for member in ("a", "b")
    },
    **{
        condition_column(condition, column): kind
        for condition in get_args(Condition)
        for column, kind in (dict.fromkeys(BARRIER_COLUMNS, pa.float64()) | PATH_FIELDS).items()
    },
    "distance": pa.float64(),
    "distance_a": pa.float64(),
    "distance_b": pa.float64(),
    **{f"test_{quality}_{member}": pa.float64() for quality in ("brier", "ece") for member in ("a", "b")},
    **dict.fromkeys(ALIKE_FIELDS, pa.float64()),
    "weight_cosine": pa.float64(),
    "cka": pa.float64(),
    **dict.fromkeys(COMBINED_FIELDS, pa.float64()),
    **{f"average_{name}": pa.float64() for name in ALIKE_FIELDS},
    "average_cka": pa.float64(),
    # Null for data with one label per example.
    **{
        f"{of}_average_precision{member}": pa.float64()
        for of, member in (("test", "_a"), ("test", "_b"), ("ensemble", ""), ("average", ""))
    },
    "target_reached": pa.bool_(),
    "label_shift": pa.float64(),
    "covariate_shift": pa.float64(),
}
TIME_FIELDS: dict[str, pa.DataType] = {"seconds_train": pa.float64(), "seconds_measure": pa.float64()}

RESULTS_SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "cell": pa.string(),
        "status": pa.string(),
        "reason": pa.string(),
        **SPEC_FIELDS,
        **MEASURED_FIELDS,
        **TIME_FIELDS,
        "device": pa.string(),
        "engine": pa.string(),
        "spec": pa.string(),
    }
)
_PATH_FIELDS = {
    "condition": pa.string(),
    "split": pa.string(),
    "lambda": pa.float64(),
    "loss_sum": pa.float64(),
    "correct": pa.int64(),
    "n": pa.int64(),
}
_CURVE_FIELDS = {
    "member": pa.string(),
    "step": pa.int64(),
    "epoch": pa.float64(),
    "lr": pa.float64(),
    "train_loss": pa.float64(),
    "train_accuracy": pa.float64(),
    "test_loss": pa.float64(),
    "test_accuracy": pa.float64(),
}
# Of one layer: distances of its weights, cosine of the members' ways from the start, and how alike its outputs are:
# of the two members, and of the weight average and a member (the mean of both).
_LAYER_FIELDS = {
    "layer": pa.string(),
    "position": pa.int64(),
    "distance": pa.float64(),
    "distance_a": pa.float64(),
    "distance_b": pa.float64(),
    "cosine": pa.float64(),
    "cka": pa.float64(),
    "average_cka": pa.float64(),
}
LAYERS_SCHEMA = pa.schema({"key": pa.string(), **_LAYER_FIELDS})
PATHS_SCHEMA = pa.schema({"key": pa.string(), **_PATH_FIELDS})
CURVES_SCHEMA = pa.schema({"key": pa.string(), **_CURVE_FIELDS})
SHARD_SCHEMA = pa.schema(
    [
        *RESULTS_SCHEMA,
        pa.field("paths", pa.list_(pa.struct(_PATH_FIELDS))),
        pa.field("curves", pa.list_(pa.struct(_CURVE_FIELDS))),
        pa.field("layers", pa.list_(pa.struct(_LAYER_FIELDS))),
    ]
)


@dataclass(frozen=True, kw_only=True)
class PairResult:
    """Everything kept of one finished pair.

    row: the columns of :data:`RESULTS_SCHEMA`; a column that does not apply (barriers of a diverged pair) is absent.
    paths: one entry per condition × split × λ, columns of :data:`PATHS_SCHEMA` without the key.
    curves: one entry per member × epoch, columns of :data:`CURVES_SCHEMA` without the key.
    layers: one entry per layer, in the network's order, columns of :data:`LAYERS_SCHEMA` without the key.
    """

    row: Row
    paths: list[Row] = field(default_factory=list)
    curves: list[Row] = field(default_factory=list)
    layers: list[Row] = field(default_factory=list)

    @property
    def key(self) -> str:
        return str(self.row["key"])

    @property
    def status(self) -> Status:
        status: Status = self.row["status"]
        return status


def spec_columns(spec: PairSpec) -> Row:
    """The columns of a row that repeat its spec."""
    return {"key": spec.key, "cell": spec.cell, "spec": spec.content(), **spec_fields(spec)}


def spec_fields(spec: PairSpec) -> Row:
    """Those of :data:`SPEC_FIELDS`."""
    model, train, shift = spec.model, spec.train, spec.shift
    return {
        "dataset": spec.dataset.name,
        "train_examples": spec.dataset.train,
        "test_examples": spec.dataset.test,
        "validation_examples": spec.dataset.validation,
        "normalise": spec.dataset.normalise,
        "model": model.name,
        **_model_columns(model),
        "optimizer": train.optimizer,
        "lr": train.lr,
        "batch_size": train.batch_size,
        "momentum": train.momentum,
        "nesterov": train.nesterov,
        "weight_decay": train.weight_decay,
        "epochs": train.epochs,
        "step_budget": train.steps,
        "schedule": train.schedule,
        "warmup": train.warmup,
        "crop": train.crop,
        "flip": train.flip,
        "jitter": train.jitter,
        "precision": train.precision,
        "noise": train.noise,
        "shift": shift.kind,
        "severity": shift.severity,
        "skew": shift.skew or "",
        "domain": shift.domain or "",
        "spawn_epoch": train.spawn_epoch,
        "target_loss": train.target_loss,
        "replicate": spec.replicate,
        "seed": spec.seed,
    }


def _model_columns(model: ModelSpec) -> Row:
    fields = model.model_dump()
    if "hidden" in fields:
        fields["hidden"] = "-".join(map(str, fields["hidden"]))
    if "arguments" in fields:
        fields["arguments"] = json.dumps(fields["arguments"], sort_keys=True)
    return {name: fields.get(name) for name in MODEL_FIELDS}


def model_label(row: Mapping[Any, Any]) -> str:
    """The model of a row in a few words, e.g. ``mlp 64 batch norm``."""
    label: str = model_of(row).label
    return label


def model_of(row: Mapping[Any, Any]) -> Any:
    """The spec of the network that the columns of a row describe; a field that its table lacks has its default."""
    given: dict[str, Any] = {
        name: int(row[name]) if kind == pa.int64() else row[name]  # beside missing ones, pandas has floats
        for name, kind in MODEL_FIELDS.items()
        if not _missing(row.get(name))
    }
    if "hidden" in given:
        given["hidden"] = [int(width) for width in given["hidden"].split("-")]
    if "arguments" in given:
        given["arguments"] = json.loads(given["arguments"])
    return MODELS[row["model"]].model_validate(given)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def shift_label(row: Row) -> str:
    """The shift of a row in a few words, e.g. ``label 80/20``."""
    domain = row.get("domain") or None
    return ShiftSpec(kind=row["shift"], severity=row["severity"], skew=row["skew"] or None, domain=domain).label


def pair_name(row: Row) -> str:
    """A pair in a few words, e.g. ``lr=0.03 B=32 label 80/20 #2 mlp 64``; norm and noise where they are special."""
    parts = [f"lr={row['lr']:g}", f"B={row['batch_size']}", shift_label(row), f"#{row['replicate']}"]
    if row["noise"] != "fixed":
        parts.append(f"{row['noise']} noise")
    return " ".join([*parts, model_label(row)])


def failed_result(spec: PairSpec, reason: str) -> PairResult:
    """The result of a pair that crashed; ``reason`` is its traceback."""
    return PairResult(row={**spec_columns(spec), "status": "failed", "reason": reason})


# What the gate looks at and changes.
GATED = ["status", "reason", "train_accuracy_a", "train_accuracy_b", "target_reached"]


def gate(row: Row, min_train_accuracy: float) -> Row:
    """Decide between ``ok`` and ``undertrained``; other statuses stay.

    The gate belongs to the verdict, not to the experiment: it is applied again whenever tables are compacted.
    """
    if row["status"] not in ("ok", "undertrained"):
        return row
    if row.get("target_reached") is False:
        return {**row, "status": "undertrained", "reason": "a member did not get to the target loss in its budget"}
    low = {m: row[f"train_accuracy_{m}"] for m in ("a", "b") if row[f"train_accuracy_{m}"] < min_train_accuracy}
    if not low:
        return {**row, "status": "ok", "reason": ""}
    named = " and ".join(f"member {m.upper()} reached {accuracy:.1%}" for m, accuracy in low.items())
    return {
        **row,
        "status": "undertrained",
        "reason": f"train accuracy below the gate of {min_train_accuracy:.1%}: {named}",
    }
