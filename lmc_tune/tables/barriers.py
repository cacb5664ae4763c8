"""Barriers are kept one row per pair and condition; columns of the results repeat them, as a view. No torch, no files.

Measuring gives the rows, shards and ``barriers.parquet`` keep them, and the results' columns follow: under their own
names for the naive path, with the condition in front for the others.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmc_tune.experiment import CONDITIONS, SAME_WITHOUT_BATCH_NORM, Condition
from lmc_tune.tables.columns import BARRIERS, VIEW, Row

_SCHEMA = pa.struct([BARRIERS.schema.field(name) for name in BARRIERS.schema.names if name != "key"])


def view(barriers: Iterable[Row]) -> Row:
    """The columns of a pair's results that repeat its rows of barriers."""
    by_condition = {row["condition"]: row for row in barriers}
    return {
        column: by_condition[condition][name]
        for column, (condition, name) in VIEW.items()
        if name in by_condition.get(condition, ())
    }


def view_of(nested: pa.ChunkedArray, columns: Iterable[str]) -> dict[str, pa.Array]:
    """Columns of the view of many pairs, each with its list of rows of barriers; null where there is none."""
    lists = nested.combine_chunks()
    rows, pairs = lists.flatten(), lists.value_parent_indices().to_numpy()
    conditions, at = rows.field("condition").to_numpy(zero_copy_only=False), {}
    for condition in CONDITIONS:
        own = np.flatnonzero(conditions == condition)
        places = np.full(len(lists), -1)
        places[pairs[own]] = own
        at[condition] = pa.array(places, mask=places < 0)
    wanted = {column: VIEW[column] for column in columns}
    return {column: rows.field(name).take(at[condition]) for column, (condition, name) in wanted.items()}


def nested(results: pa.Table) -> pa.Array:
    """The rows of barriers of each row of results, read off the view: those of folders that have it alone.

    Args:
        results: with some columns of the view; those that it lacks are null.
    """
    n, known = len(results), set(results.column_names)
    parts, measured = [], []
    for condition in CONDITIONS:
        columns = {name: column for column, (of, name) in VIEW.items() if of == condition and column in known}
        values = {name: results[column].combine_chunks() for name, column in columns.items()}
        values["condition"] = pa.repeat(condition, n)
        whole = [values.get(field.name, pa.nulls(n, field.type)) for field in _SCHEMA]
        parts.append(pa.StructArray.from_arrays(whole, fields=list(_SCHEMA)))
        there = [pc.is_valid(values[name]).to_numpy(zero_copy_only=False) for name in columns]
        measured.append(np.any(there, axis=0) if there else np.zeros(n, dtype=bool))
    known_rows = np.column_stack(measured)
    pair, number = np.nonzero(known_rows)
    offsets = np.concatenate([[0], np.cumsum(known_rows.sum(axis=1))])
    values = pa.concat_arrays(parts).take(pa.array(number * n + pair))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def judged_rows(part: pa.Table, condition: Condition) -> pa.ChunkedArray:
    """Which rows of a table are of a condition; where that would repeat another, rows of the other stand for it."""
    own = pc.equal(part["condition"], condition)
    if (same := SAME_WITHOUT_BATCH_NORM.get(condition)) is None:
        return own
    measured = pc.is_in(part["key"], value_set=part["key"].filter(own).combine_chunks())
    return pc.or_(own, pc.and_(pc.equal(part["condition"], same), pc.invert(measured)))
