"""Barriers as rows, and as the columns of the results that repeat them."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmc_tune.experiment import CONDITIONS, VerdictSpec
from lmc_tune.tables.barriers import nested, view, view_of
from lmc_tune.tables.columns import BARRIERS, RESULTS_SCHEMA, SHARD_SCHEMA, VIEW, Row
from lmc_tune.tables.rows import PairResult
from lmc_tune.tables.store import DamagedTableError, Store
from tests.tables.test_store import keys, result

FIELDS = [field for field in BARRIERS.schema if field.name not in ("key", "condition")]
VALUES = {"double": st.floats(allow_nan=False), "bool": st.booleans()}


def rows_of_a_pair() -> st.SearchStrategy[list[Row]]:
    """Rows of some conditions, each with at least one value."""
    values = st.fixed_dictionaries({field.name: st.none() | VALUES[str(field.type)] for field in FIELDS})
    measured = values.filter(lambda row: any(value is not None for value in row.values()))
    conditions = st.lists(st.sampled_from(list(CONDITIONS)), unique=True).map(
        lambda some: sorted(some, key=list(CONDITIONS).index)
    )
    return conditions.flatmap(
        lambda some: st.tuples(*[measured.map(lambda row, c=condition: {"condition": c, **row}) for condition in some])
    ).map(list)


@given(st.lists(rows_of_a_pair(), min_size=1, max_size=4))
def test_rows_and_columns_say_the_same(pairs: list[list[Row]]) -> None:
    lists = pa.chunked_array([pa.array(pairs, SHARD_SCHEMA.field("barriers").type)])
    columns = view_of(lists, VIEW)
    table = pa.table(columns)
    assert table.schema.equals(pa.schema([RESULTS_SCHEMA.field(name) for name in VIEW]))
    for row, barriers in zip(table.to_pylist(), pairs, strict=True):
        assert {name: value for name, value in row.items() if value is not None} == {
            name: value for name, value in view(barriers).items() if value is not None
        }
    assert nested(table).to_pylist() == pairs


def test_columns_that_a_table_lacks_are_null() -> None:
    (barriers,) = nested(pa.table({"key": ["x"], "recalibrated_barrier_lambda": [0.5]})).to_pylist()
    assert len(barriers) == 1
    assert barriers == [
        {**dict.fromkeys(BARRIERS.schema.names[1:]), "condition": "recalibrated", "barrier_lambda": 0.5}
    ]
    assert nested(pa.table({"key": ["x", "y"]})).to_pylist() == [[], []]


def test_a_damaged_table_is_not_missed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_shard("c", [result(0), result(1)])
    store.compact(VerdictSpec())
    before, path = store.table("barriers"), tmp_path / "barriers.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(
        DamagedTableError, match=r"barriers.parquet cannot be read \(.*\)\. Move it away: the columns of"
    ):
        store.check()
    path.unlink()
    store.check()
    pd.testing.assert_frame_equal(store.table("barriers"), before)


def test_a_condition_is_a_value(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_shard("c", [result(0), result(1)])
    for _ in range(2):
        table = store.table("barriers")
        assert list(zip(table["key"], table["condition"], strict=True)) == [
            (key, condition) for key in sorted(keys(0, 1)) for condition in sorted(CONDITIONS)
        ]
        naive = table[table["condition"] == "naive"].set_index("key")["test_error_barrier_chord"]
        assert naive.tolist() == store.results()["test_error_barrier_chord"].tolist() == [0.25, 0.25]
        store.compact(VerdictSpec())


def test_a_barrier_among_the_columns_would_be_lost_and_is_not_written(tmp_path: Path) -> None:
    columns = {**result(0).columns, "repaired_under_resolved": True}
    with pytest.raises(ValueError, match="repaired_under_resolved repeats a row of the table of barriers; give"):
        Store(tmp_path).write_shard("c", [PairResult(columns=columns)])
    assert not list(tmp_path.rglob("*.arrow"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"columns": {"disagreemnt": 0.5}}, "rows of results have no column 'disagreemnt'; declare it in"),
        ({"tables": {"moved": []}}, "there is no table 'moved' of rows; declare it in"),
        ({"tables": {"paths": [{"lamda": 0.5}]}}, "rows of paths have no column 'lamda'; declare it in"),
        ({"tables": {"paths": [{"key": "another"}]}}, "rows of paths have no column 'key'; declare it in"),
        ({"tables": {"results": []}}, "there is no table 'results' of rows; declare it in"),
        ({"tables": {"barriers": [{"barrier_lambda": 0.5}]}}, "None is no condition; declare it in"),
        ({"tables": {"barriers": 2 * [{"condition": "naive"}]}}, "a condition has two rows of barriers: naive, naive"),
        ({"tables": {"barriers": [{"condition": "naiv"}]}}, "'naiv' is no condition; declare it in"),
    ],
)
def test_what_no_table_has_is_not_dropped_in_silence(tmp_path: Path, changes: dict[str, Row], said: str) -> None:
    one = result(0)
    wrong = replace(one, **{name: {**getattr(one, name), **change} for name, change in changes.items()})
    with pytest.raises(ValueError, match=said):
        Store(tmp_path).write_shard("c", [wrong])
    assert not list(tmp_path.rglob("*.arrow"))
