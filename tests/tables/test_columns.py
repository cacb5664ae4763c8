"""The lists of columns, and what is derived from them."""

import pytest

from lmc_tune.tables.columns import AXIS_SCALES, RESULTS, TABLES, Column, TableName


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_each_column_once_and_those_that_it_is_sorted_by(name: TableName) -> None:
    table = TABLES[name]
    names = [column.name for column in table.columns]
    assert len(set(names)) == len(names)
    assert set(table.sorted_by) <= set(names)
    assert table.schema.names == names
    assert all(table.schema.field(column.name).type == column.type for column in table.columns)


def test_a_title_is_the_name_in_words_unless_it_is_given() -> None:
    assert Column(name="test_error").heading == "test error"
    assert Column(name="test_loss", title="loss", unit="nats").heading == "loss (nats)"


def test_axes_are_the_columns_with_a_scale_the_likeliest_first() -> None:
    assert {column.name: column.scale for column in RESULTS.columns if column.scale} == AXIS_SCALES
    assert list(AXIS_SCALES)[:4] == ["lr", "batch_size", "severity", "epochs"]
    # A column that is new comes after those that were axes before, whose diagrams stay as they are.
    assert list(AXIS_SCALES)[10:12] == ["validation_examples", "b_lr"]
