"""Tables inside a page: column by column, so that no name and no repeated value is written for every row."""

import math
from typing import Any

import numpy as np
import pandas as pd

# Of a number that is only drawn, or shown in three.
DIGITS = 8


def pack(table: pd.DataFrame) -> dict[str, Any]:
    """The table for ``data.js`` to unpack: by column its values, or its distinct ones and which stands in each row.

    Numbers keep eight significant digits; what is missing or not finite becomes None, which JSON can say.
    """
    return {str(name): _column(table[name]) for name in table.columns}


def rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The same table row by row, as Vega reads it."""
    columns = {name: plain(table[name]) for name in table.columns}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def plain(column: pd.Series) -> list[Any]:
    """The values as JSON can say them."""
    if pd.api.types.is_float_dtype(column):
        return [_number(value) for value in column.to_numpy(dtype=np.float64).tolist()]
    return [None if pd.isna(value) else value for value in column.tolist()]


def _column(column: pd.Series) -> list[Any] | dict[str, list[Any]]:
    at, distinct = pd.factorize(column, use_na_sentinel=False)
    if 2 * len(distinct) > len(column):
        return plain(column)
    return {"values": plain(pd.Series(distinct)), "at": at.tolist()}


def _number(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
