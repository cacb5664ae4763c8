"""``python -m lmc_tune.tables.columns_page`` writes docs/columns.md from the lists of columns."""

from collections.abc import Iterable
from pathlib import Path

from lmc_tune.storage import write_text
from lmc_tune.tables.columns import AXIS_SCALES, TABLES, VIEW, Column

PAGE = Path(__file__).parents[2] / "docs" / "columns.md"
_NAIVE = [column for column, (condition, _) in VIEW.items() if condition == "naive"]
_HEAD = f"""# Columns

Written by `python -m lmc_tune.tables.columns_page` from `lmc_tune/tables/columns.py`. Formulas and sources:
[definitions](definitions.md).

- *Axis*: the scale of a column that can be an axis of a phase diagram. Where several vary, those with the lowest
  numbers become the axes.
- *Mean*: a cell has the mean of the column over all its finished pairs (`pairs`) or over the ok ones (`ok`).
- *Better*: which values are better.

The {len(_NAIVE)} columns of `results.parquet` from `{_NAIVE[0]}` to `{_NAIVE[-1]}` repeat the row of
`barriers.parquet` for the naive path. For each other condition the same columns follow, with its name in front:
{", ".join(f"`{column}`" for column, (_, name) in VIEW.items() if name == _NAIVE[-1] and column != name)}.

`lmc_tune.load_results` adds two columns that are in no file: `planned`, whether the folder's `space.yaml` plans the
pair, and `stale`, whether it does, but the pair answers an earlier `measure`.
"""
_HEADS = ["column", "type", "unit", "title", "axis", "mean", "better"]


def columns_page() -> str:
    """The page, in Markdown."""
    repeated = VIEW.keys() - _NAIVE
    parts = [_HEAD]
    for table in TABLES.values():
        rows = [_row(column) for column in table.columns if column.name not in repeated]
        parts += [f"\n## {table.name}.parquet\n\n", f"Sorted by {', '.join(table.sorted_by)}.\n\n"]
        parts += map(_line, [_HEADS, ["---"] * len(_HEADS), *rows])
    return "".join(parts)


def _row(column: Column) -> list[str]:
    axis = f"{column.scale}, {1 + list(AXIS_SCALES).index(column.name)}" if column.scale else ""
    says = [column.unit, column.title, axis, column.mean, column.better]
    return [f"`{column.name}`", str(column.type), *(text or "" for text in says)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    write_text(PAGE, columns_page())
