"""The columns of the tables. No torch, no files.

A run folder holds four tables: ``results.parquet`` has one row per pair, ``paths.parquet`` the measured curves,
``curves.parquet`` the learning curves, ``layers.parquet`` the similarity of the members layer by layer.
"""

from typing import get_args

import pyarrow as pa

from lmc_tune.core.barrier import DEFINITIONS
from lmc_tune.experiment import Condition, condition_column

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


# What a row repeats of its GroupSpec, flat. Two pairs of one cell agree in all of them but ``replicate``.
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
    # What B's training has otherwise; null where it has what A's has.
    "b_optimizer": pa.string(),
    "b_lr": pa.float64(),
    "b_batch_size": pa.int64(),
    "b_momentum": pa.float64(),
    "b_nesterov": pa.bool_(),
    "b_weight_decay": pa.float64(),
    "b_epochs": pa.int64(),
    "b_steps": pa.int64(),
    "b_target_loss": pa.float64(),
    "b_schedule": pa.string(),
    "b_warmup": pa.float64(),
    "b_crop": pa.int64(),
    "b_flip": pa.bool_(),
    "b_jitter": pa.float64(),
    # Null where no weights are disturbed.
    "perturb_step": pa.int64(),
    "perturb_scale": pa.float64(),
    "perturb_weights": pa.string(),
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
        "question": pa.string(),
        "member_a": pa.string(),
        "member_b": pa.string(),
        "status": pa.string(),
        "reason": pa.string(),
        **SPEC_FIELDS,
        **MEASURED_FIELDS,
        **TIME_FIELDS,
        "device": pa.string(),
        "engine": pa.string(),
        # Why, where `auto` would take another on this device; else empty.
        "engine_reason": pa.string(),
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
