"""The columns of the tables, each declared once. No torch, no files.

A run folder holds these tables: ``results.parquet`` has one row per pair, ``barriers.parquet`` the barriers of its path
under every condition, ``paths.parquet`` the measured paths, ``curves.parquet`` the learning curves, ``layers.parquet``
the similarity of the members layer by layer, ``layer_barriers.parquet`` and ``layer_paths.parquet`` the barriers and
paths of networks of which some layers alone are moved, ``directions.parquet`` where steps in other directions than the
path's lead, ``sharpness.parquet`` the curvature at its ends and its midpoint, ``planes.parquet`` a grid around the
members, ``rounds.parquet`` the rounds of federations, ``ensembles.parquet``, ``ensemble_members.parquet`` and
``averages.parquet`` what ensembles, their members and averages of their weights come to. Schemas, the means of a cell,
the axes of a phase diagram, titles and docs/columns.md follow from these lists.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import pyarrow as pa

from lmc_tune.core.barrier import DEFINITIONS
from lmc_tune.experiment import CONDITIONS, Condition, TrainChanges, barrier_column, condition_column

# Tables of which a pair has rows, nested in its row of a shard.
NestedName = Literal[
    "barriers",
    "paths",
    "curves",
    "layers",
    "layer_barriers",
    "layer_paths",
    "directions",
    "sharpness",
    "planes",
    "rounds",
    "ensembles",
    "ensemble_members",
    "averages",
]
TableName = Literal["results"] | NestedName
Row = dict[str, Any]
Scale = Literal["log", "linear"]

TEXT, INT, FLOAT, BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    unit: of its values; empty for none. title: for people; by default the name in words.
    scale: how its values are usually spaced along an axis of a phase diagram; None if it cannot be an axis.
    mean: over which pairs of a cell it is averaged: all finished ones, or the ok ones; None if it is not averaged.
    better: which values are better; None if neither.
    """

    name: str
    type: pa.DataType = FLOAT
    unit: str = ""
    title: str = ""
    scale: Scale | None = None
    mean: Literal["pairs", "ok"] | None = None
    better: Literal["higher", "lower"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", self.title or self.name.replace("_", " "))

    @property
    def heading(self) -> str:
        """The title with the unit, as over an axis of a chart."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of a run folder: its columns in order, and the columns that its rows are sorted by."""

    name: TableName
    sorted_by: tuple[str, ...]
    columns: tuple[Column, ...]

    def __getitem__(self, name: str) -> Column:
        return self._by_name[name]

    @cached_property
    def schema(self) -> pa.Schema:
        return pa.schema([(column.name, column.type) for column in self.columns])

    @cached_property
    def _by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}


def names(columns: Iterable[Column]) -> tuple[str, ...]:
    """The names of some columns, in order."""
    return tuple(column.name for column in columns)


# Of any network; null where a network has no such field.
MODEL = (
    Column(name="hidden", type=TEXT),
    Column(name="activation", type=TEXT),
    Column(name="depth", type=INT),
    Column(name="width"),
    Column(name="shortcut", type=TEXT),
    Column(name="patch", type=INT),
    Column(name="heads", type=INT),
    Column(name="dim", type=INT),
    Column(name="mlp_dim", type=INT),
    Column(name="norm", type=TEXT),
    Column(name="init", type=TEXT),
    Column(name="dropout"),
    Column(name="factory", type=TEXT),
    Column(name="arguments", type=TEXT),
)

_SETTING = (
    Column(name="dataset", type=TEXT),
    Column(name="train_examples", type=INT, title="training examples", scale="log"),
    Column(name="test_examples", type=INT),
    Column(name="validation_examples", type=INT, title="held-out examples", scale="linear"),
    Column(name="normalise", type=BOOL),
    Column(name="model", type=TEXT),
    *MODEL,
    Column(name="optimizer", type=TEXT),
    Column(name="lr", title="learning rate", scale="log"),
    Column(name="batch_size", type=INT, scale="log"),
    Column(name="momentum", scale="linear"),
    Column(name="nesterov", type=BOOL),
    Column(name="weight_decay", scale="log"),
    Column(name="epochs", type=INT, scale="log"),
    Column(name="step_budget", type=INT, title="steps", scale="log"),
    Column(name="schedule", type=TEXT),
    Column(name="warmup", title="warm-up (fraction of steps)", scale="linear"),
    Column(name="crop", type=INT, unit="pixels"),
    Column(name="flip", type=BOOL),
    Column(name="jitter"),
    Column(name="precision", type=TEXT),
    Column(name="noise", type=TEXT),
    Column(name="shift", type=TEXT),
    Column(name="severity", title="shift severity", scale="linear"),
    Column(name="skew", type=TEXT),
    Column(name="domain", type=TEXT),
    Column(name="spawn_epoch", type=INT, scale="linear"),
    Column(name="target_loss", unit="nats"),
)

# The column of each key of a space's section `b`; null where the space gives B no value of its own.
B_COLUMNS = {key: f"b_{'step_budget' if key == 'steps' else key}" for key in TrainChanges.model_fields}
_OF_A = {f"b_{column.name}": column for column in _SETTING}
_OF_B = tuple(replace(_OF_A[name], name=name, title=f"{_OF_A[name].title} of B") for name in B_COLUMNS.values())

# Of a federation; null where members are a pair.
_FEDERATION = (
    Column(name="clients", type=INT, scale="log"),
    Column(name="round_budget", type=INT, title="rounds", scale="log"),
    Column(name="local_epochs", type=INT, title="local epochs", scale="log"),
    Column(name="client_split", type=TEXT, title="split"),
    Column(name="concentration", title="concentration of the split", scale="log"),
    Column(name="client_classes", type=INT, title="classes of a client", scale="linear"),
    Column(name="averaged_layers", type=TEXT, title="averaged layers"),
    Column(name="client_norm", type=TEXT, title="BatchNorm at an average"),
    Column(name="client_moments", type=TEXT, title="moments"),
)

# Of an ensemble; null where members are a pair. Settings that its family has not are null.
_ENSEMBLE = (
    Column(name="family", type=TEXT),
    Column(name="member_count", type=INT, title="members of the ensemble", scale="linear"),
    Column(name="common_epochs", type=INT, title="epochs in common t", scale="linear"),
    Column(name="beta", title="weight β of the labels", scale="linear"),
    Column(name="tau", title="temperature τ of the teacher", scale="log"),
    Column(name="lowest_lr", title="lowest learning rate", scale="log"),
)

# Of the recipe.
_RECIPE = (
    *_OF_B,
    # Null where no weights are perturbed.
    Column(name="perturb_step", type=INT, title="step of the disturbance", scale="linear"),
    Column(name="perturb_scale", title="scale of the disturbance", scale="linear"),
    Column(name="perturb_weights", type=TEXT, title="disturbed weights"),
    *_FEDERATION,
    *_ENSEMBLE,
)

# Of text; null of images.
OF_TEXT = (
    Column(name="path", type=TEXT, title="file of the text"),
    Column(name="second", type=TEXT, title="second text"),
    Column(name="tokens", type=TEXT),
    Column(name="context", type=INT, unit="tokens", scale="log"),
    Column(name="held_out", title="held-out fraction of the text"),
)

# The fields of a row's GroupSpec, flat. Two pairs of one cell differ in ``replicate`` alone.
SPEC = (
    *_SETTING,
    *_RECIPE,
    *OF_TEXT,
    Column(name="replicate", type=INT),
    Column(name="seed", type=INT),
)

_LIKELIEST = (
    "lr",
    "batch_size",
    "severity",
    "epochs",
    "step_budget",
    "train_examples",
    "weight_decay",
    "momentum",
    "warmup",
    "spawn_epoch",
)
_SCALES: dict[str, Scale] = {column.name: column.scale for column in SPEC if column.scale}
# What can be an axis of a phase diagram, the likeliest first, and its scale.
AXIS_SCALES = {name: _SCALES[name] for name in dict.fromkeys([*_LIKELIEST, *_SCALES])}

# A position on the path.
LAMBDA = "λ"

_HEIGHTS = tuple(
    column
    for split in ("train", "test")
    for quantity, unit in (("error", "fraction"), ("loss", "nats"))
    for definition in DEFINITIONS
    for height in [barrier_column(f"{split}_{quantity}", definition)]
    for column in (Column(name=height, unit=unit, better="lower"), Column(name=f"{height}_lambda", unit=LAMBDA))
)

# Of a path under one condition, besides its barriers.
_OF_PATH = (
    Column(name="accuracy_difference", unit="percentage points", mean="ok", better="higher"),
    Column(name="barrier_lambda", unit=LAMBDA, title="position of the chord barrier of the test error"),
    Column(name="under_resolved", type=BOOL),
    Column(name="merge_gain", title="merge gain q(½)", unit="percentage points", mean="ok", better="higher"),
    Column(
        name="retention",
        title="retention of test accuracy at λ = ½",
        unit="fraction",
        mean="ok",
        better="higher",
    ),
)

# How much of B an alignment could move, and did.
_OF_ALIGNMENT = (
    Column(name="permutable_units", type=INT, title="units of B that may be permuted"),
    Column(name="permuted_units", type=INT, title="units of B that alignment moved", mean="ok"),
    Column(name="frozen_units", type=TEXT, title="why others may not be permuted"),
)

# The columns of the results that repeat rows of barriers: of which condition, and what.
VIEW: dict[str, tuple[Condition, str]] = {
    condition_column(condition, column.name): (condition, column.name)
    for condition in CONDITIONS
    for column in (*_HEIGHTS, *_OF_PATH)
}


def _under(condition: Condition, column: Column) -> Column:
    """The column of one condition. The naive one alone is averaged: a cell has the judged condition in its place."""
    if condition == "naive":
        return column
    name = condition_column(condition, column.name)
    return replace(column, name=name, title=f"{column.title}, {condition}", mean=None)


_LOSS = Column(name="loss", unit="nats", better="lower")
_ACCURACY = Column(name="accuracy", unit="fraction", mean="ok", better="higher")
_NLL = Column(name="nll", title="NLL", unit="nats", better="lower")
_BRIER = Column(name="brier", title="Brier score", better="lower")
_ECE = Column(name="ece", title="ECE", unit="fraction", better="lower")
# Null for data with one label per example.
_PRECISION = Column(name="average_precision", unit="fraction", mean="ok", better="higher")


def _of_members(split: str, *columns: Column) -> tuple[Column, ...]:
    return tuple(
        replace(column, name=f"{split}_{column.name}_{member}", title=f"{split} {column.title} of {member.upper()}")
        for column in columns
        for member in ("a", "b")
    )


# How alike two networks are: the members, or the weight average and a member, mean over the members.
_ALIKE = (
    Column(name="disagreement", unit="fraction of test examples", mean="ok"),
    Column(name="error_overlap", unit="fraction of test examples", mean="ok"),
    Column(name="error_overlap_ratio", title="error overlap (1 = independent errors)", mean="ok"),
    Column(name="same_error", unit="fraction of examples that either gets wrong", mean="ok"),
    Column(name="kappa", title="Cohen's κ", mean="ok"),
    Column(name="jensen_shannon", title="Jensen–Shannon divergence", unit="nats", mean="ok"),
    Column(name="true_class_variance", mean="ok"),
)
_CKA = Column(name="cka", title="CKA (mean over layers)", mean="ok")


def _of_average(*columns: Column) -> tuple[Column, ...]:
    return tuple(
        replace(column, name=f"average_{column.name}", title=f"{column.title}, average and member", mean=None)
        for column in columns
    )


# What the members' ensemble and their weight average are worth; gains are over the mean member.
COMBINED = tuple(
    replace(
        quality,
        name=f"{combined}_{gain}{quality.name}",
        title=f"{combined}'s {'gain in ' if gain else ''}{quality.title}",
        mean="ok",
        better="higher" if gain else quality.better,
    )
    for combined in ("ensemble", "average")
    for gain in ("", "gain_")
    for quality in (_ACCURACY, _NLL, _BRIER, _ECE)
)

# Of a federation, at the end of its last round; ``own`` are the examples that a client trained on. Means over clients
# are weighted by their numbers of examples.
OF_CLIENTS = (
    replace(_ACCURACY, name="clients_test_accuracy", title="test accuracy of clients before the average"),
    replace(_ACCURACY, name="clients_own_accuracy", title="accuracy of clients on their own examples, before it"),
    replace(_ACCURACY, name="lowest_own_accuracy", title="the lowest of these", mean=None),
    replace(_ACCURACY, name="averaged_test_accuracy", title="test accuracy of clients after the average"),
    replace(_ACCURACY, name="averaged_own_accuracy", title="accuracy of clients on their own examples, after it"),
    replace(_ACCURACY, name="pooled_test_accuracy", title="test accuracy of the average of all layers"),
)

# Of an ensemble; connectivity and the averages are read under the condition whose statistics are least stale. Numbers
# that a temperature has scaled are null without held-out examples.
OF_ENSEMBLES = (
    replace(_ACCURACY, name="member_accuracy", title="mean member's test accuracy"),
    replace(_NLL, name="member_nll", title="mean member's NLL", mean="ok"),
    replace(_ACCURACY, name="lowest_train_accuracy", title="lowest train accuracy of a member", mean=None),
    Column(name="connectivity", title="connectivity q̄", unit="percentage points", mean="ok", better="higher"),
    Column(name="lowest_connectivity", title="lowest q of a draw", unit="percentage points", mean="ok"),
    Column(name="loss_connectivity", title="connectivity of the loss", unit="nats", mean="ok", better="higher"),
    Column(name="measured_pairs", type=INT, title="pairs of members whose paths were measured"),
    Column(name="temperature", title="temperature that calibrates the ensemble", mean="ok"),
    replace(_NLL, name="scaled_nll", title="ensemble's NLL after temperature scaling", mean="ok"),
    replace(_ECE, name="scaled_ece", title="ensemble's ECE after temperature scaling", mean="ok"),
    replace(_ACCURACY, name="greedy_accuracy", title="test accuracy of the greedy soup"),
    Column(name="greedy_members", type=INT, title="members of the greedy soup", mean="ok"),
    Column(name="training_steps", type=INT, title="steps of all that was trained for it", mean="pairs"),
    Column(name="stored_bytes", type=INT, title="size of all members", unit="bytes", mean="pairs"),
)

MEASURED = (
    Column(name="noise_scale", title="noise scale g", mean="pairs"),
    Column(name="steps", type=INT, title="steps planned, or up to the target loss", mean="pairs"),
    Column(name="n_train", type=INT, title="training examples of a member", mean="pairs"),
    *(column for split in ("train", "test") for column in _of_members(split, _LOSS, _ACCURACY)),
    *(_under(condition, column) for condition in CONDITIONS for column in (*_HEIGHTS, *_OF_PATH)),
    # Null where no alignment was asked for.
    *_OF_ALIGNMENT,
    Column(name="distance", mean="ok"),
    Column(name="distance_a", title="distance of A from the start", mean="ok"),
    Column(name="distance_b", title="distance of B from the start", mean="ok"),
    *_of_members("test", _BRIER, _ECE),
    *_ALIKE,
    Column(name="weight_cosine", title="cosine of the members' ways from the start", mean="ok"),
    _CKA,
    *COMBINED,
    *_of_average(*_ALIKE, _CKA),
    *_of_members("test", _PRECISION),
    *(
        replace(_PRECISION, name=f"{combined}_{_PRECISION.name}", title=f"{combined}'s {_PRECISION.title}")
        for combined in ("ensemble", "average")
    ),
    *OF_CLIENTS,
    *OF_ENSEMBLES,
    Column(name="target_reached", type=BOOL),
    Column(name="label_shift", mean="pairs"),
    Column(name="covariate_shift", mean="pairs"),
)

TIMES = (
    Column(name="seconds_train", title="time of training", unit="seconds"),
    Column(name="seconds_measure", title="time of measuring", unit="seconds"),
)

_KEY = Column(name="key", type=TEXT, title="hash of what decides the pair")

RESULTS = Table(
    name="results",
    sorted_by=("key",),
    columns=(
        _KEY,
        Column(name="cell", type=TEXT, title="key of the cell's replicate 0"),
        Column(name="question", type=TEXT, title="hash of what was measured"),
        Column(name="member_a", type=TEXT, title="key of A"),
        Column(name="member_b", type=TEXT, title="key of B"),
        Column(name="status", type=TEXT),
        Column(name="reason", type=TEXT, title="reason of the status"),
        *SPEC,
        *MEASURED,
        *TIMES,
        Column(name="device", type=TEXT),
        Column(name="engine", type=TEXT),
        # Empty where `auto` would take the same on this device.
        Column(name="engine_reason", type=TEXT, title="why this engine"),
        Column(name="spec", type=TEXT, title="all that decides the pair, JSON"),
    ),
)

BARRIERS = Table(
    name="barriers",
    sorted_by=("key", "condition"),
    columns=(_KEY, Column(name="condition", type=TEXT), *(replace(c, mean=None) for c in (*_HEIGHTS, *_OF_PATH))),
)

# Of a network on a split.
_SCORE = (
    Column(name="loss_sum", title="loss, summed over the examples", unit="nats"),
    Column(name="correct", type=INT, title="correct predictions"),
    Column(name="n", type=INT, title="predictions"),
)

PATHS = Table(
    name="paths",
    sorted_by=("key", "condition", "split", "lambda"),
    columns=(
        _KEY,
        Column(name="condition", type=TEXT),
        Column(name="split", type=TEXT),
        Column(name="lambda", title="position on the path"),
        *_SCORE,
    ),
)

CURVES = Table(
    name="curves",
    sorted_by=("key", "member", "step"),
    columns=(
        _KEY,
        Column(name="member", type=TEXT),
        Column(name="step", type=INT),
        Column(name="epoch"),
        Column(name="lr", title="learning rate"),
        *(
            replace(column, name=f"{split}_{column.name}", title=f"{split} {column.title}", mean=None)
            for split in ("train", "test")
            for column in (_LOSS, _ACCURACY)
        ),
    ),
)

LAYERS = Table(
    name="layers",
    sorted_by=("key", "position"),
    columns=(
        _KEY,
        Column(name="layer", type=TEXT),
        Column(name="position", type=INT, title="place, from 0 at the input"),
        Column(name="distance", title="distance ‖A − B‖"),
        Column(name="distance_a", title="distance of A from the start"),
        Column(name="distance_b", title="distance of B from the start"),
        Column(name="cosine", title="cosine of the members' ways from the start"),
        Column(name="cka", title="CKA"),
        Column(name="average_cka", title="CKA, average and member"),
    ),
)

ROUNDS = Table(
    name="rounds",
    sorted_by=("key", "round", "client", "what", "split"),
    columns=(
        _KEY,
        Column(name="round", type=INT),
        Column(name="client", type=INT, title="number of the client, from 1; 0 for all of them"),
        Column(name="what", type=TEXT, title="trained or averaged, of a client; pooled, of all"),
        Column(name="split", type=TEXT, title="test, or own: the client's training examples"),
        *_SCORE,
    ),
)

ENSEMBLES = Table(
    name="ensembles",
    sorted_by=("key", "members"),
    columns=(
        _KEY,
        Column(name="members", type=INT, title="members of a subset"),
        Column(name="subsets", type=INT, title="subsets looked at"),
        Column(name="exact", type=BOOL, title="whether these are all"),
        replace(_ACCURACY, mean=None, title="accuracy of their ensembles, mean over subsets"),
        Column(name="accuracy_error", unit="fraction", title="standard error that sampling subsets leaves"),
        replace(_NLL, title="NLL of their ensembles, mean over subsets"),
    ),
)

ENSEMBLE_MEMBERS = Table(
    name="ensemble_members",
    sorted_by=("key", "number"),
    columns=(
        _KEY,
        Column(name="number", type=INT, title="number of the member, from 1"),
        Column(name="member", type=TEXT, title="key of the member"),
        Column(name="train_loss", unit="nats"),
        Column(name="train_accuracy", unit="fraction"),
        *(replace(column, mean=None) for column in (_ACCURACY, _NLL, _BRIER, _ECE)),
        Column(name="temperature", title="temperature that calibrates it"),
        replace(_NLL, name="scaled_nll", title="NLL after temperature scaling"),
        replace(_ECE, name="scaled_ece", title="ECE after temperature scaling"),
        Column(name="distance", title="distance from its initial weights"),
    ),
)

AVERAGES = Table(
    name="averages",
    sorted_by=("key", "condition", "what", "number", "lambda", "split"),
    columns=(
        _KEY,
        Column(name="condition", type=TEXT),
        Column(name="what", type=TEXT, title="draw: weights of all members; pair: the path between two; soup"),
        Column(name="number", type=INT, title="of the draw, or of the pair, from 0"),
        Column(name="members", type=TEXT, title="numbers of the members"),
        Column(name="lambda", title="position on the path of a pair"),
        Column(name="split", type=TEXT),
        *_SCORE,
        Column(name="expected_accuracy", unit="fraction", title="members' accuracies, averaged by the same weights"),
        Column(name="expected_loss", unit="nats", title="members' losses, averaged by the same weights"),
    ),
)

# Some layers of one member, moved towards the other's.
_MOVED = (
    _KEY,
    Column(name="condition", type=TEXT),
    # Null at the end of training.
    Column(name="epoch", type=INT),
    Column(name="base", type=TEXT, title="member whose other layers stay"),
    Column(name="family", type=TEXT),
    Column(name="moved", type=TEXT, title="layers that are moved"),
)

LAYER_BARRIERS = Table(
    name="layer_barriers",
    sorted_by=("key", "condition", "epoch", "base", "family", "position"),
    columns=(
        *_MOVED,
        Column(name="position", type=INT, title="place in its family, from 0 at the input"),
        Column(name="layers", type=INT, title="number of layers moved"),
        Column(name="share", unit="fraction of the layers"),
        Column(name="distance", title="distance ‖A − B‖ over the layers moved"),
        *_HEIGHTS,
    ),
)

LAYER_PATHS = Table(
    name="layer_paths",
    sorted_by=("key", "condition", "epoch", "base", "family", "moved", "split", "lambda"),
    columns=(*_MOVED, *(column for column in PATHS.columns if column.name not in {"key", "condition"})),
)

DIRECTIONS = Table(
    name="directions",
    sorted_by=("key", "kind", "position", "lambda", "draw", "alpha", "split"),
    columns=(
        _KEY,
        Column(name="condition", type=TEXT),
        Column(name="kind", type=TEXT, title="kind of direction"),
        Column(name="lambda", unit=LAMBDA, title="where the step begins"),
        Column(name="layer", type=TEXT, title="layer that moves; null for all"),
        Column(name="position", type=INT, title="place of the layer, from 0 at the input"),
        Column(name="draw", type=INT),
        Column(name="alpha", title="length of the step, in lengths of the direction"),
        Column(name="norm", title="length of the step"),
        Column(name="split", type=TEXT),
        *_SCORE,
    ),
)

SHARPNESS = Table(
    name="sharpness",
    sorted_by=("key", "lambda"),
    columns=(
        _KEY,
        Column(name="condition", type=TEXT),
        Column(name="lambda", title="position on the path"),
        Column(name="eigenvalue", title="largest eigenvalue of the Hessian of the training loss"),
        Column(name="residual", title="residual of the eigenpair, relative to the eigenvalue"),
        Column(name="products", type=INT, title="Hessian-vector products"),
        Column(name="examples", type=INT),
    ),
)

PLANES = Table(
    name="planes",
    sorted_by=("key", "split", "point", "y", "x"),
    columns=(
        _KEY,
        Column(name="condition", type=TEXT),
        Column(name="split", type=TEXT),
        Column(name="point", type=TEXT, title="one of the three that span the plane, or grid"),
        Column(name="x", title="distance along the way from the first point to the second"),
        Column(name="y", title="distance across it, towards the third"),
        *_SCORE,
    ),
)

TABLES: dict[TableName, Table] = {
    table.name: table
    for table in (
        *(RESULTS, BARRIERS, PATHS, CURVES, LAYERS, LAYER_BARRIERS, LAYER_PATHS),
        *(DIRECTIONS, SHARPNESS, PLANES, ROUNDS),
        *(ENSEMBLES, ENSEMBLE_MEMBERS, AVERAGES),
    )
}

MODEL_FIELDS, RECIPE_FIELDS, SPEC_FIELDS, TIME_FIELDS = names(MODEL), names(_RECIPE), names(SPEC), names(TIMES)
BARRIER_COLUMNS, PATH_FIELDS = names(_HEIGHTS), names(_OF_PATH)

RESULTS_SCHEMA = RESULTS.schema
NESTED: tuple[NestedName, ...] = get_args(NestedName)
# A pair in one row: what the results say of it and no other table does, and its rows of the others nested in it.
SHARD_SCHEMA = pa.schema(
    [
        *(field for field in RESULTS_SCHEMA if field.name not in VIEW),
        *(pa.field(name, pa.list_(pa.struct(list(TABLES[name].schema)[1:]))) for name in NESTED),
    ]
)
