"""The run folder's tables, read and written so that no crash loses or doubles a pair. No torch.

While a sweep runs, every cohort writes one *shard* of its own (rows with their curves nested inside);
:meth:`Store.compact` folds shards into the tables. Readers see both.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lmc_tune.errors import UserError
from lmc_tune.experiment import CONDITIONS, VerdictSpec
from lmc_tune.experiment.wording import nearest
from lmc_tune.storage import BucketPath, Place, StorageError, files, place_at, replacing, steadily, write_text, written
from lmc_tune.tables import version_4
from lmc_tune.tables.barriers import nested, view_of
from lmc_tune.tables.columns import (
    NESTED,
    RESULTS_SCHEMA,
    SHARD_SCHEMA,
    TABLES,
    TIME_FIELDS,
    VIEW,
    NestedName,
    Row,
    TableName,
)
from lmc_tune.tables.planned import MARKS, marked, planned_space, questions, why_no_run
from lmc_tune.tables.rows import GATED, PairResult, Status, gate

if TYPE_CHECKING:  # imported by the first .to_pandas(); workers, which only write, do without it
    import pandas as pd

RESULTS_FILE = "results.parquet"
# Of members that are kept, by their keys.
MEMBERS = "members"

_SCHEMAS = {name: table.schema for name, table in TABLES.items()}
# What rows say of themselves: in nested ones, the key is that of the pair.
_NAMES = {name: set(schema.names) - ({"key"} if name in NESTED else set()) for name, schema in _SCHEMAS.items()}
# Of the results, those that no other table says.
_OWN = [name for name in RESULTS_SCHEMA.names if name not in VIEW]
# Columns that every table has had from the first: one that lacks them is damaged. It may lack those that came later.
_NEEDED = {
    *("key", "cell", "status", "reason", *TIME_FIELDS, "device", "spec", "paths", "curves"),
    *("condition", "split", "lambda", "loss_sum", "correct", "n"),
    *("member", "step", "epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"),
    *("layer", "position", "cosine"),
}
# Shards are Arrow files: to write and read some rows of so many columns as Parquet takes ten times as long.
_SHARD = ".arrow"
# Folders have had them from the first; every other table came later, and a folder may be without it.
_FIRST: set[TableName] = {"results", "paths", "curves"}


class DamagedTableError(UserError):
    """A table of a run folder cannot be read; the message names the file and how to fix it."""


class Store:
    """The tables of one run folder, on a disk or in a bucket.

    Writers publish whole files, so a reader never sees half a file and a crash leaves the old one. Each shard has one
    writer; only the sweep's driver compacts. Of several results of a pair the newest counts, but no failure replaces
    a result.
    """

    def __init__(self, folder: str | os.PathLike[str] | BucketPath) -> None:
        self.folder = place_at(folder)
        self.shards = self.folder / "shards"
        self.checkpoints = self.folder / "checkpoints"

    def check(self) -> None:
        """Refuse tables that are damaged or missing, before anything is done with them.

        Raises:
            DamagedTableError: naming the file and how to fix it.
        """
        paths = {name: self.folder / f"{name}.parquet" for name in _SCHEMAS}
        for name, path in paths.items():
            if path.exists():
                _read_table(path, _SCHEMAS[name], [])
            elif paths["results"].exists() and name in _FIRST:
                raise DamagedTableError(f"{path} is missing. {_mend(path)}")
        for path in self.shard_stamps():
            _read_table(path, SHARD_SCHEMA, [])

    def write_shard(self, name: str, results: Sequence[PairResult]) -> None:
        """Publish all results so far of one writer, replacing its earlier shard.

        Args:
            name: of the shard, no other writer's; it begins with the cohort's, by which :meth:`recall` finds it.
            results: at least one.
        """
        self.shards.mkdir(parents=True, exist_ok=True)
        for result in results:
            _check(result)
        rows = [{**result.columns, **{name: result.tables.get(name, []) for name in NESTED}} for result in results]
        table = pa.Table.from_pylist(rows, schema=SHARD_SCHEMA)
        _publish(table.drop_columns(_empty(table)), self._shard(name))

    def mark_running(self, name: str, keys: Iterable[str]) -> None:
        """Record which pairs the writer of the shard ``name`` is working on, for ``lmc-tune status``."""
        self.shards.mkdir(parents=True, exist_ok=True)
        write_text(self.shards / f"{name}.running", "\n".join(keys))

    def unmark_running(self, name: str) -> None:
        (self.shards / f"{name}.running").unlink(missing_ok=True)

    def clear_running(self) -> None:
        """Remove what killed workers left behind, except checkpoints of unfinished pairs."""
        halves = [half for folder in (self.shards, self.checkpoints) for half in files(folder, start=".", end=".part")]
        for left in (*files(self.shards, end=".running"), *halves):
            left.unlink(missing_ok=True)
        if isinstance(self.checkpoints, Path):
            with suppress(OSError):  # there is none, or it is not empty
                self.checkpoints.rmdir()

    def running(self) -> set[str]:
        """Keys of the pairs that were last reported as being trained or measured."""
        keys: set[str] = set()
        for mark in files(self.shards, end=".running"):
            with suppress(FileNotFoundError):  # its cohort has just ended
                keys |= set(mark.read_text().split())
        return keys

    def checkpointed(self) -> set[str]:
        """Names of the members and trunks that have a checkpoint."""
        return {path.stem for path in files(self.checkpoints, end=".safetensors")}

    def clear_checkpoints(self) -> None:
        """Remove the checkpoints, once no training is left that could resume from them."""
        for left in files(self.checkpoints, end=".safetensors"):
            left.unlink(missing_ok=True)
        self.clear_running()

    def members(self) -> set[str]:
        """Keys of the members whose weights are kept."""
        kept = {path.stem for path in files(self.folder / MEMBERS, end=".safetensors")}
        return {name for name in kept if "@" not in name}  # which stages of trunks and snapshots have

    def results(self, columns: Sequence[str] | None = None) -> "pd.DataFrame":
        """One row per finished pair, compacted or not, in the order of their keys.

        Args:
            columns: read ``key`` and these alone; all of them by default.
        """
        wanted = RESULTS_SCHEMA.names if columns is None else list(dict.fromkeys(["key", *columns]))
        return _frame(self._merged("results", self._fresh(wanted), wanted))

    def table(self, name: TableName) -> "pd.DataFrame":
        """All rows of a table, compacted or not, sorted as :data:`~lmc_tune.tables.columns.TABLES` says."""
        return _frame(self._merged(name, self._fresh()))

    def parts(self, name: NestedName) -> Iterator[pa.Table]:
        """The rows of a table other than the results part by part, about a million at once, to save memory.

        A part holds whole pairs, sorted by key, and within a pair as the table is. Rows of pairs without a result are
        among them.
        """
        fresh = self._fresh(["key", name])
        path = self.folder / f"{name}.parquet"
        if path.exists():
            replaced, today = fresh["key"].combine_chunks(), self._renamed()
            groups = (_with_keys(group, today) if today else group for group in _row_groups(path))
            parts = _whole_pairs(_without(group, replaced) for group in groups)
            yield from (_sorted(name, part) for part in parts) if today else parts
        elif name == "barriers":  # of an earlier version: small
            yield _without(self._read(name), fresh["key"].combine_chunks())
        if len(fresh):
            yield _sorted(name, _unnested(name, fresh))

    def recall(self, name: str, keys: Iterable[str]) -> dict[str, PairResult]:
        """Results of the pairs ``keys`` of the cohort ``name`` by key, without reading other cohorts' shards."""
        wanted = list(keys)
        tables = {table: self._read(table, rows=wanted) for table in _SCHEMAS}
        fresh = self._fresh(cohort=name)
        results = (*_assemble(tables), *_assemble({table: _unnested(table, fresh) for table in _SCHEMAS}))
        return {result.key: result for result in results}

    def read_shard(self, name: str) -> list[PairResult]:
        """Results of one writer that are not compacted yet."""
        shard = _read_table(self._shard(name), SHARD_SCHEMA)
        return _assemble({table: _unnested(table, shard) for table in _SCHEMAS})

    def shard_stamps(self, cohort: str = "") -> Mapping[Place, tuple[int, int]]:
        """When each shard was last published, in nanoseconds, and its size in bytes, by its path; oldest first.

        Args:
            cohort: of this one alone.
        """
        found = files(self.shards, start=cohort, end=_SHARD)
        return dict(sorted(found.items(), key=lambda item: (item[1][0], item[0].name)))

    def pairs(self, keys: Iterable[str]) -> list[PairResult]:
        """The named finished pairs with their rows of all tables; unknown keys are ignored."""
        wanted = pa.array(list(keys), pa.string())
        fresh = self._fresh()
        return _assemble({name: _only(self._merged(name, fresh), wanted) for name in _SCHEMAS})

    def statuses(self) -> dict[str, Status]:
        """Status by key of every finished pair, whatever it was asked."""
        return {key: status for key, (status, _) in self.answers().items()}

    def answers(self) -> dict[str, tuple[Status, str]]:
        """By key of every finished pair its status, and the question that it answers; of a failed one that is empty."""
        columns = ["key", "status", "question"]
        fresh = self._fresh(columns)  # first: what is compacted meanwhile is in the table then
        tables = (self._read("results", columns), fresh)
        return {row["key"]: (row["status"], row["question"] or "") for table in tables for row in table.to_pylist()}

    def compact(self, verdict: VerdictSpec, check: Callable[[], None] = lambda: None) -> bool:
        """Fold all shards into the tables and apply the verdict's gate; True if that changed the tables.

        Curves are published before the rows that refer to them, and shards go last: a crash at any point leaves
        every pair readable, and the next compaction finishes the work.

        Args:
            verdict: with the gate.
            check: called before each step that replaces or removes something; what it raises ends the compaction.
        """
        shards = self.shard_stamps()
        fresh = self._fresh()
        results = self._merged("results", fresh)
        gated = _gated(results, verdict.min_train_accuracy)
        old = self._renamed()
        if not shards and not old and (self.folder / RESULTS_FILE).exists() and _same_gate(gated, results):
            return False  # nothing new: the files stay as they are
        for name in NESTED:
            table, path = self._merged(name, fresh), self.folder / f"{name}.parquet"
            if len(table) or name in _FIRST or path.exists():  # what nobody asked for has no file
                _publish(table, path, check)
        _publish(gated, self.folder / RESULTS_FILE, check)
        check()
        for path, stamp in self.shard_stamps().items():
            if shards.get(path) == stamp:  # not published again meanwhile
                path.unlink(missing_ok=True)
        return True

    def _fresh(self, columns: list[str] | None = None, cohort: str = "") -> pa.Table:
        """The rows of all shards, or what some columns need, other tables nested; of each pair the one that counts."""
        wanted = SHARD_SCHEMA.names if columns is None else _stored(columns)
        read = list(dict.fromkeys([*wanted, "status"]))
        none = SHARD_SCHEMA.empty_table().select(read)
        while True:
            try:
                tables = [_read_table(path, SHARD_SCHEMA, read) for path in self.shard_stamps(cohort)]
                break
            except FileNotFoundError:  # compacted since it was listed
                continue
        shards = pa.concat_tables([none, *tables])
        failed = pc.equal(shards["status"], "failed")
        if pc.any(failed).as_py():  # a worker that was taken for dead, or a clock that was moved back, may be the newer
            results, failures = shards.filter(pc.invert(failed)), shards.filter(failed)
            known = self._read("results", ["key", "status"])
            finished = known.filter(pc.not_equal(known["status"], "failed"))["key"].combine_chunks()
            shards = pa.concat_tables([_without(failures, finished), results])
        return _newest(shards).select(wanted)

    def _merged(self, name: TableName, fresh: pa.Table, columns: list[str] | None = None) -> pa.Table:
        """One table, or some columns of it, with the rows of ``fresh``, which replace its own, sorted by key."""
        table = self._read(name, columns)
        if len(fresh):
            new = _unnested(name, fresh, columns)
            table = _sorted(name, pa.concat_tables([_without(table, fresh["key"].combine_chunks()), new]))
        if name == "results":
            return table
        known = pa.concat_tables([self._read("results", ["key"]), fresh.select(["key"])])
        return _only(table, known["key"].combine_chunks())

    def _read(self, name: TableName, columns: list[str] | None = None, rows: list[str] | None = None) -> pa.Table:
        path = self.folder / f"{name}.parquet"
        if name == "barriers" and not path.exists():
            results = self._read("results", ["key", *VIEW], rows)
            table = pa.table({"key": results["key"], name: nested(results)})
            return _sorted(name, _unnested(name, table, columns))
        if path.exists():
            if name == "results" or not (today := self._renamed()):
                return _read_table(path, _SCHEMAS[name], columns, rows)
            table = _with_keys(_read_table(path, _SCHEMAS[name], columns), today)
            return _sorted(name, table if rows is None else _only(table, pa.array(rows, pa.string())))
        empty = _SCHEMAS[name].empty_table()
        return empty if columns is None else empty.select(columns)

    def _renamed(self) -> dict[str, str]:
        """Today's keys of the pairs in a table of results that an earlier version wrote, by theirs; mostly empty."""
        path = self.folder / RESULTS_FILE
        if not path.exists():
            return {}
        with _readable(path), path.open("rb") as file:
            if not version_4.wrote(pq.read_schema(file).names):
                return {}
            table = pq.read_table(file, columns=["key", "spec"])
        return version_4.renamed(table["key"], table["spec"])

    def _shard(self, name: str) -> Place:
        return self.shards / f"{name}{_SHARD}"


def load_results(folder: str | os.PathLike[str] | BucketPath, columns: Sequence[str] | None = None) -> "pd.DataFrame":
    """One row per finished pair of a run folder; columns as in :data:`RESULTS_SCHEMA`, and two that mark pairs.

    ``planned``: whether the pair is in the folder's ``space.yaml``. ``stale``: whether it is, but answers an earlier
    ``measure`` than that asks; the next sweep measures it again. Report, verdicts, ``status`` and ``space`` count the
    others alone: ``results.query("planned and not stale")``. Without a ``space.yaml`` all pairs are planned.

    Args:
        folder: a run folder, finished or not: its path, or its address in a bucket.
        columns: read ``key`` and these alone; all of them by default.

    Raises:
        FileNotFoundError: if the folder holds no results.
        ValueError: if a column is unknown.
        UserError: if a table, or the ``space.yaml`` that the marks come from, is damaged.

    Example:
        A folder with one pair, as a sweep writes it:

        >>> from tempfile import TemporaryDirectory
        >>> from lmc_tune.experiment.reading import read_space
        >>> from lmc_tune.tables.rows import failed_result
        >>> pair = read_space("quickstart", ["axes.lr=[0.1]"]).pairs()[0]
        >>> with TemporaryDirectory() as folder:
        ...     Store(folder).write_shard("example", [failed_result(pair, "out of memory")])
        ...     results = load_results(folder, ["lr", "status", "reason"])
        >>> results[["lr", "status", "reason"]].to_dict("records")
        [{'lr': 0.1, 'status': 'failed', 'reason': 'out of memory'}]
    """
    store = Store(folder)
    if not (store.folder / RESULTS_FILE).exists() and not store.shards.exists():
        raise FileNotFoundError(f"no results in {store.folder}{why_no_run(store.folder)}")
    wanted = [*RESULTS_SCHEMA.names, *MARKS] if columns is None else list(dict.fromkeys(["key", *columns]))
    if unknown := [name for name in wanted if name not in (*RESULTS_SCHEMA.names, *MARKS)]:
        near = nearest(unknown[0], [*RESULTS_SCHEMA.names, *MARKS])
        raise ValueError(f"results have no column {unknown[0]!r}{near or '; docs/columns.md lists them'}")
    if not set(MARKS) & set(wanted):
        return store.results(wanted)
    needed = [name for name in (*wanted, "cell", "replicate", "status", "question") if name not in MARKS]
    space = planned_space(store.folder)
    results = store.results(needed)
    if space is None:
        return results.assign(planned=True, stale=False)[wanted]
    return marked(results, questions(space), space.replicates)[wanted]


def _publish(table: pa.Table, path: Place, check: Callable[[], None] = lambda: None) -> None:
    with replacing(path, check) as file:
        if path.suffix == _SHARD:
            with pa.ipc.new_file(file, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as shard:
                shard.write_table(table)
        else:
            pq.write_table(table, file, compression="zstd")


def _check(result: PairResult) -> None:
    """Refuse what no table has: it would not be written."""
    if repeated := [name for name in result.columns if name in VIEW]:
        raise ValueError(f"{repeated[0]} repeats a row of the table of barriers; give that row")
    _check_names("results", [result.columns])
    for name, rows in result.tables.items():
        if name not in NESTED:
            raise ValueError(f"there is no table {name!r} of rows; declare it in lmc_tune/tables/columns.py")
        _check_names(name, rows)
    conditions = [row.get("condition") for row in result.tables.get("barriers", ())]
    if unknown := [condition for condition in conditions if condition not in CONDITIONS]:
        raise ValueError(f"{unknown[0]!r} is no condition; declare it in lmc_tune/experiment/measuring.py")
    if len(set(conditions)) < len(conditions):
        raise ValueError(f"a condition has two rows of barriers: {', '.join(map(str, conditions))}")


def _check_names(name: TableName, rows: Iterable[Row]) -> None:
    known = _NAMES[name]
    if unknown := next((column for row in rows for column in row.keys() - known), None):
        raise ValueError(f"rows of {name} have no column {unknown!r}; declare it in lmc_tune/tables/columns.py")


def _empty(table: pa.Table) -> list[str]:
    """The columns that need not be written: they would be read as null."""
    return [name for name in table.column_names if name not in _NEEDED and table[name].null_count == len(table)]


def _read_table(
    path: Place, schema: pa.Schema, columns: list[str] | None = None, rows: list[str] | None = None
) -> pa.Table:
    """A table, or some columns of it, or the rows of some keys; columns that came later are null."""
    wanted = schema.names if columns is None else columns

    def read() -> tuple[pa.Table, bool]:
        # Opened once: a shard may be replaced by a newer one at any moment.
        with path.open("rb") as file:
            shard = _as_today(pa.ipc.open_file(file.read()).read_all()) if path.suffix == _SHARD else None
            there = pq.read_schema(file).names if shard is None else shard.column_names
            if not columns and (unknown := [name for name in there if name not in schema.names]):
                raise DamagedTableError(
                    f"{path} was written by a newer lmc-tune, as its column {unknown[0]!r} tells; update"
                )
            earlier = "spec" in schema.names and version_4.wrote(there)
            read_columns = list(dict.fromkeys([*wanted, "key", "spec"])) if earlier else wanted
            known = [name for name in read_columns if name in there or name in _NEEDED]
            filters = None if rows is None or earlier else [("key", "in", rows)]
            table = pq.read_table(file, columns=known, filters=filters) if shard is None else shard.select(known)
            missing = {name: pa.nulls(len(table), schema.field(name).type) for name in set(read_columns) - set(known)}
            whole = {name: missing[name] if name in missing else table[name] for name in read_columns}
            return pa.table(whole, pa.schema([schema.field(name) for name in read_columns])), earlier

    with _readable(path):
        table, earlier = steadily(path, read)
    if earlier:
        table = version_4.translated(table).sort_by("key")
        table = (table if rows is None else _only(table, pa.array(rows, pa.string()))).select(wanted)
    return table


def _row_groups(path: Place) -> Iterator[pa.Table]:
    """A table part by part, as it was written."""
    with _readable(path):
        before, file = written(path), pq.ParquetFile(path if isinstance(path, Path) else path.open())
    with file:
        for at in range(file.num_row_groups):
            with _readable(path):
                group = file.read_row_group(at)
            if isinstance(path, BucketPath) and written(path) != before:
                raise StorageError(f"{path} was replaced while it was read; run the same command again")
            yield group


@contextmanager
def _readable(path: Place) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError, KeyError) as error:
        raise DamagedTableError(
            f"{path} cannot be read ({str(error).splitlines()[0].rstrip('.')}). {_mend(path)}"
        ) from error


def _mend(path: Place) -> str:
    """What to do about a table that is damaged or missing: results without their curves are worth nothing."""
    if path.stem == "barriers":
        return f"Move it away: the columns of {RESULTS_FILE} repeat what it says."
    if path.parent.name == "shards" or path.name == RESULTS_FILE:
        move = "move it away"
    else:
        move = f"move it and {RESULTS_FILE} away" if path.exists() else f"move {RESULTS_FILE} away too"
    return f"Restore it from a copy, or {move} and run the same sweep again: only the pairs in it are run again."


def _gated(results: pa.Table, min_train_accuracy: float) -> pa.Table:
    """The results with their status and reason decided by this gate."""
    judged = results.select(GATED).to_pylist()
    rows = [gate(row, min_train_accuracy) for row in judged]
    for name in ("status", "reason"):
        column = pa.array([row[name] for row in rows], pa.string())
        results = results.set_column(results.schema.get_field_index(name), results.schema.field(name), column)
    return results


def _same_gate(one: pa.Table, other: pa.Table) -> bool:
    return bool(one.select(["status", "reason"]).equals(other.select(["status", "reason"])))


def _newest(shards: pa.Table) -> pa.Table:
    last = {key: at for at, key in enumerate(shards["key"].to_pylist())}
    return shards.take(pa.array(last.values(), pa.int64()))


def _unnested(name: TableName, shards: pa.Table, columns: list[str] | None = None) -> pa.Table:
    """The rows of shards as one table holds them, or some columns of the results."""
    if name == "results":
        wanted = RESULTS_SCHEMA.names if columns is None else columns
        repeated = [column for column in wanted if column in VIEW]
        view = view_of(shards["barriers"], repeated) if repeated else {}
        return pa.table({column: view[column] if column in view else shards[column] for column in wanted})
    lists = shards[name].combine_chunks()
    keys = shards["key"].combine_chunks().take(lists.value_parent_indices())
    return pa.Table.from_arrays([keys, *lists.flatten().flatten()], schema=_SCHEMAS[name])


def _stored(columns: Iterable[str]) -> list[str]:
    """The columns of shards that columns of the results, or of a shard, are read off."""
    return list(dict.fromkeys("barriers" if column in VIEW else column for column in columns))


def _as_today(shard: pa.Table) -> pa.Table:
    """The same shard; one of an earlier version as it would be written today: barriers were columns once, and rows lack
    the columns that came later.
    """
    if repeated := [name for name in shard.column_names if name in VIEW]:
        rows = nested(shard)
        shard = shard.drop_columns(repeated).append_column("barriers", rows)
    for name in set(NESTED) & set(shard.column_names):
        at = shard.column_names.index(name)
        shard = shard.set_column(at, name, _widened(shard[name], list(SHARD_SCHEMA.field(name).type.value_type)))
    return shard


def _widened(lists: pa.ChunkedArray, fields: Sequence[pa.Field]) -> pa.ChunkedArray | pa.Array:
    """Nested rows with these columns, null where they lack them; rows with others stay as they are."""
    known = {field.name for field in lists.type.value_type}
    if not known < {field.name for field in fields}:
        return lists
    whole = lists.combine_chunks()
    rows = whole.flatten()
    columns = [rows.field(field.name) if field.name in known else pa.nulls(len(rows), field.type) for field in fields]
    ends = pc.cumulative_sum(pc.list_value_length(whole))
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(columns, fields=list(fields)))


def _sorted(name: TableName, table: pa.Table) -> pa.Table:
    return table.sort_by([(column, "ascending") for column in TABLES[name].sorted_by])


def _whole_pairs(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows, sorted by key, cut between pairs."""
    held = None
    for part in parts:
        table = part if held is None else pa.concat_tables([held, part])
        cut = pc.index(table["key"], table["key"][-1]).as_py() if len(table) else 0
        yield table.slice(0, cut)
        held = table.slice(cut)
    if held is not None:
        yield held


def _assemble(tables: Mapping[TableName, pa.Table]) -> list[PairResult]:
    """The pairs of the results with their rows of the other tables."""
    results = tables["results"].select(_OWN).to_pylist()
    rows: dict[str, dict[NestedName, list[Row]]] = {row["key"]: {name: [] for name in NESTED} for row in results}
    for name in NESTED:
        for row in tables[name].to_pylist():
            if (key := row.pop("key")) in rows:  # a table that was moved away leaves the others' rows behind
                rows[key][name].append(row)
    return [PairResult(columns=columns, tables=rows[columns["key"]]) for columns in results]


def _with_keys(table: pa.Table, today: Mapping[str, str]) -> pa.Table:
    keys = [today.get(key, key) for key in table["key"].to_pylist()]
    return table.set_column(0, table.schema.field("key"), pa.array(keys, pa.string()))


def _only(table: pa.Table, keys: pa.Array) -> pa.Table:
    return table.filter(pc.is_in(table["key"], value_set=keys))


def _without(table: pa.Table, keys: pa.Array) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table["key"], value_set=keys)))


def _frame(table: pa.Table) -> "pd.DataFrame":
    frame: pd.DataFrame = table.to_pandas()
    return frame
