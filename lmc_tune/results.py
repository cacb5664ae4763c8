"""What is known of finished pairs: row types, the tables' schemas, reading and atomic writing. No torch.

A run folder holds three tables. ``results.parquet`` has one row per pair, ``paths.parquet`` the measured curves,
``curves.parquet`` the learning curves. While a sweep runs, every cohort writes one *shard* of its own (rows with
their curves nested inside); :meth:`Store.compact` folds shards into the tables. Readers see both.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lmc_tune.core.barrier import DEFINITIONS
from lmc_tune.specs import PairSpec, VerdictSpec

if TYPE_CHECKING:  # imported by the first .to_pandas(); workers, which only write, do without it
    import pandas as pd

Status = Literal["ok", "undertrained", "diverged", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)

Row = dict[str, Any]

# What a row repeats of its PairSpec, flat. Two pairs of one cell agree in all of them but ``replicate``.
SPEC_FIELDS: dict[str, pa.DataType] = {
    "dataset": pa.string(),
    "train_examples": pa.int64(),
    "test_examples": pa.int64(),
    "validation_examples": pa.int64(),
    "normalise": pa.bool_(),
    "model": pa.string(),
    "hidden": pa.string(),
    "activation": pa.string(),
    "norm": pa.string(),
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
    "noise": pa.string(),
    "shift": pa.string(),
    "severity": pa.float64(),
    "skew": pa.string(),
    "spawn_epoch": pa.int64(),
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
    **{column: pa.float64() for column in BARRIER_COLUMNS},
    "accuracy_difference": pa.float64(),
    "barrier_lambda": pa.float64(),
    "under_resolved": pa.bool_(),
    "distance": pa.float64(),
    "distance_a": pa.float64(),
    "distance_b": pa.float64(),
    "disagreement": pa.float64(),
    "error_overlap": pa.float64(),
    "error_overlap_ratio": pa.float64(),
    "same_error": pa.float64(),
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
PATHS_SCHEMA = pa.schema({"key": pa.string(), **_PATH_FIELDS})
CURVES_SCHEMA = pa.schema({"key": pa.string(), **_CURVE_FIELDS})
SHARD_SCHEMA = pa.schema(
    [
        *RESULTS_SCHEMA,
        pa.field("paths", pa.list_(pa.struct(_PATH_FIELDS))),
        pa.field("curves", pa.list_(pa.struct(_CURVE_FIELDS))),
    ]
)


TableName = Literal["results", "paths", "curves"]
_SCHEMAS: dict[TableName, pa.Schema] = {"results": RESULTS_SCHEMA, "paths": PATHS_SCHEMA, "curves": CURVES_SCHEMA}
_SORTED_BY: dict[TableName, tuple[str, ...]] = {
    "results": ("key",),
    "paths": ("key", "condition", "split", "lambda"),
    "curves": ("key", "member", "step"),
}


class DamagedTableError(Exception):
    """A table of a run folder cannot be read; the message names the file and the mend."""


@dataclass(frozen=True, kw_only=True)
class PairResult:
    """Everything kept of one finished pair.

    row: the columns of :data:`RESULTS_SCHEMA`; a column that does not apply (barriers of a diverged pair) is absent.
    paths: one entry per condition × split × λ, columns of :data:`PATHS_SCHEMA` without the key.
    curves: one entry per member × epoch, columns of :data:`CURVES_SCHEMA` without the key.
    """

    row: Row
    paths: list[Row] = field(default_factory=list)
    curves: list[Row] = field(default_factory=list)

    @property
    def key(self) -> str:
        return str(self.row["key"])

    @property
    def status(self) -> Status:
        status: Status = self.row["status"]
        return status


def spec_columns(spec: PairSpec) -> Row:
    """The columns of a row that repeat its spec."""
    model, train, shift = spec.model, spec.train, spec.shift
    return {
        "key": spec.key,
        "cell": spec.model_copy(update={"replicate": 0}).key,
        "spec": spec.model_dump_json(),
        "dataset": spec.dataset.name,
        "train_examples": spec.dataset.train,
        "test_examples": spec.dataset.test,
        "validation_examples": spec.dataset.validation,
        "normalise": spec.dataset.normalise,
        "model": model.name,
        "hidden": "-".join(map(str, model.hidden)),
        "activation": model.activation,
        "norm": model.norm,
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
        "noise": train.noise,
        "shift": shift.kind,
        "severity": shift.severity,
        "skew": shift.skew or "",
        "spawn_epoch": 0,
        "replicate": spec.replicate,
        "seed": spec.seed,
    }


def failed_result(spec: PairSpec, reason: str) -> PairResult:
    """The result of a pair that crashed; ``reason`` is its traceback."""
    return PairResult(row={**spec_columns(spec), "status": "failed", "reason": reason})


def gate(row: Row, min_train_accuracy: float) -> Row:
    """Decide between ``ok`` and ``undertrained``; other statuses stay.

    The gate belongs to the verdict, not to the experiment: it is applied again whenever tables are compacted.
    """
    if row["status"] not in ("ok", "undertrained"):
        return row
    low = {m: row[f"train_accuracy_{m}"] for m in ("a", "b") if row[f"train_accuracy_{m}"] < min_train_accuracy}
    if not low:
        return {**row, "status": "ok", "reason": ""}
    named = " and ".join(f"member {m.upper()} reached {accuracy:.1%}" for m, accuracy in low.items())
    return {
        **row,
        "status": "undertrained",
        "reason": f"train accuracy below the gate of {min_train_accuracy:.1%}: {named}",
    }


class Store:
    """The tables of one run folder.

    Writers publish whole files by renaming, so a reader never sees half a file and a crash leaves the old one. Each
    cohort has one writer at a time; only the sweep's driver compacts.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.shards = self.folder / "shards"

    def write_shard(self, name: str, results: Sequence[PairResult]) -> None:
        """Publish all results so far of the cohort ``name``, replacing its earlier shard."""
        self.shards.mkdir(parents=True, exist_ok=True)
        rows = [{**result.row, "paths": result.paths, "curves": result.curves} for result in results]
        _publish(pa.Table.from_pylist(rows, schema=SHARD_SCHEMA), self.shards / f"{name}.parquet")

    def mark_running(self, name: str, key: str) -> None:
        """Say which pair the cohort ``name`` is at; read by ``lmc-tune status``."""
        self.shards.mkdir(parents=True, exist_ok=True)
        (self.shards / f"{name}.running").write_text(key)

    def unmark_running(self, name: str) -> None:
        (self.shards / f"{name}.running").unlink(missing_ok=True)

    def clear_running(self) -> None:
        """Forget marks that a killed sweep left behind."""
        for mark in self.shards.glob("*.running"):
            mark.unlink(missing_ok=True)

    def running(self) -> set[str]:
        """Keys of the pairs that were last reported as being trained or measured."""
        return {text for mark in self.shards.glob("*.running") if (text := mark.read_text())}

    def results(self) -> "pd.DataFrame":
        """One row per finished pair, compacted or not, in the order of their keys."""
        return _frame(self._merged("results", self._fresh()))

    def paths(self) -> "pd.DataFrame":
        """One row per pair × condition × split × λ."""
        return _frame(self._merged("paths", self._fresh()))

    def curves(self) -> "pd.DataFrame":
        """One row per pair × member × epoch."""
        return _frame(self._merged("curves", self._fresh()))

    def recall(self, name: str, keys: Iterable[str]) -> dict[str, PairResult]:
        """Results of the pairs ``keys`` of the cohort ``name`` by key, without reading other cohorts' shards."""
        wanted = list(keys)
        tables = (self._read(table, rows=wanted) for table in _SCHEMAS)
        found = {result.key: result for result in _assemble(*tables)}
        if (self.shards / f"{name}.parquet").exists():
            found |= {result.key: result for result in self.read_shard(name)}
        return found

    def read_shard(self, name: str) -> list[PairResult]:
        """Results of one cohort that are not compacted yet."""
        return _assemble(*_unnest(_read_table(self.shards / f"{name}.parquet")).values())

    def shard_stamps(self) -> dict[Path, int]:
        """When each shard was last published, in nanoseconds, by its path; oldest first."""
        return {path: path.stat().st_mtime_ns for path in self._shard_paths()}

    def pairs(self, keys: Iterable[str]) -> list[PairResult]:
        """The named finished pairs with all their curves; keys that are not there are passed over."""
        wanted = pa.array(list(keys), pa.string())
        fresh = self._fresh()
        tables = (self._merged(name, fresh) for name in _SCHEMAS)
        return _assemble(*(table.filter(pc.is_in(table["key"], value_set=wanted)) for table in tables))

    def statuses(self) -> dict[str, Status]:
        """Status by key of every finished pair."""
        tables = [self._read("results", ["key", "status"])]
        tables += [_read_table(path, ["key", "status"]) for path in self._shard_paths()]
        return {row["key"]: row["status"] for table in tables for row in table.to_pylist()}

    def compact(self, verdict: VerdictSpec) -> None:
        """Fold all shards into the tables and apply the verdict's gate.

        Curves are published before the rows that refer to them, and shards go last: a crash at any point leaves
        every pair readable, and the next compaction finishes the work.
        """
        shard_paths = self._shard_paths()
        fresh = self._fresh()
        results, paths, curves = (self._merged(name, fresh) for name in _SCHEMAS)
        rows = [gate(row, verdict.min_train_accuracy) for row in results.to_pylist()]
        _publish(curves, self.folder / "curves.parquet")
        _publish(paths, self.folder / "paths.parquet")
        _publish(pa.Table.from_pylist(rows, schema=RESULTS_SCHEMA), self.folder / "results.parquet")
        for path in shard_paths:
            path.unlink(missing_ok=True)

    def _fresh(self) -> pa.Table:
        """The rows of all shards, curves nested; of a pair that is in several, the newest."""
        shards = [_read_table(path) for path in self._shard_paths()]
        return _newest(pa.concat_tables([SHARD_SCHEMA.empty_table(), *shards]))

    def _merged(self, name: TableName, fresh: pa.Table) -> pa.Table:
        """One table with the rows of ``fresh``, which replace its own, sorted by key."""
        table = self._read(name)
        if len(fresh):
            order = [(column, "ascending") for column in _SORTED_BY[name]]
            table = pa.concat_tables([_without(table, fresh["key"]), _unnest(fresh)[name]]).sort_by(order)
        if name == "results":
            return table
        known = pa.concat_tables([self._read("results", ["key"]), fresh.select(["key"])])
        return _only(table, known["key"])

    def _read(self, name: TableName, columns: list[str] | None = None, rows: list[str] | None = None) -> pa.Table:
        path = self.folder / f"{name}.parquet"
        if path.exists():
            return _read_table(path, columns, rows)
        empty = _SCHEMAS[name].empty_table()
        return empty if columns is None else empty.select(columns)

    def _shard_paths(self) -> list[Path]:
        """Oldest first, so that later rows of the same pair win."""
        return sorted(self.shards.glob("*.parquet"), key=lambda path: (path.stat().st_mtime_ns, path.name))


def load_results(folder: str | os.PathLike[str]) -> "pd.DataFrame":
    """One row per finished pair of a run folder; columns as in :data:`RESULTS_SCHEMA`.

    Raises:
        FileNotFoundError: if the folder holds no results.
        DamagedTableError: if a table cannot be read.
    """
    store = Store(folder)
    if not (store.folder / "results.parquet").exists() and not store.shards.is_dir():
        raise FileNotFoundError(f"no results in {store.folder}; run: lmc-tune sweep SPACE --out {store.folder}")
    return store.results()


def write_json(path: Path, content: object) -> None:
    """Write a small JSON file atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read a small JSON file; ValueError if it is not JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: a reader sees the old text or the new one."""
    part = _part(path)
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _publish(table: pa.Table, path: Path) -> None:
    part = _part(path)
    try:
        pq.write_table(table, part, compression="zstd")
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _read_table(path: Path, columns: list[str] | None = None, rows: list[str] | None = None) -> pa.Table:
    """A table, or some columns of it, or the rows of some keys."""
    filters = None if rows is None else [("key", "in", rows)]
    try:
        return pq.read_table(path, columns=columns, filters=filters, partitioning=None)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError, KeyError) as error:
        raise DamagedTableError(
            f"{path} cannot be read ({str(error).splitlines()[0]}). Restore it from a copy, or move it away and run "
            f"the same sweep again: only the pairs that it held are trained anew."
        ) from error


def _newest(shards: pa.Table) -> pa.Table:
    last = {key: at for at, key in enumerate(shards["key"].to_pylist())}
    return shards.take(pa.array(last.values(), pa.int64()))


def _unnest(shards: pa.Table) -> dict[TableName, pa.Table]:
    tables: dict[TableName, pa.Table] = {"results": shards.select(RESULTS_SCHEMA.names)}
    for name in ("paths", "curves"):
        column = shards[name].combine_chunks()
        keys = shards["key"].combine_chunks().take(column.value_parent_indices())
        tables[name] = pa.Table.from_arrays([keys, *column.flatten().flatten()], schema=_SCHEMAS[name])
    return tables


def _assemble(results: pa.Table, paths: pa.Table, curves: pa.Table) -> list[PairResult]:
    points: dict[str, tuple[list[Row], list[Row]]] = {key: ([], []) for key in results["key"].to_pylist()}
    for which, table in enumerate((paths, curves)):
        for point in table.to_pylist():
            points[point.pop("key")][which].append(point)
    return [
        PairResult(row=row, paths=points[row["key"]][0], curves=points[row["key"]][1]) for row in results.to_pylist()
    ]


def _without(table: pa.Table, keys: pa.ChunkedArray) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table["key"], value_set=keys.combine_chunks())))


def _only(table: pa.Table, keys: pa.ChunkedArray) -> pa.Table:
    return table.filter(pc.is_in(table["key"], value_set=keys.combine_chunks()))


def _frame(table: pa.Table) -> "pd.DataFrame":
    frame: pd.DataFrame = table.to_pandas()
    return frame
