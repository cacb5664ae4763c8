"""Packed tables hold what the rows hold."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmc_tune.analysis.report.columnar import pack, rows
from tests.analysis.cases import unpacked

NUMBERS = st.floats() | st.sampled_from([0.0, 0.1, 1 / 3, math.inf, math.nan])


@given(st.lists(st.tuples(NUMBERS, st.sampled_from("abc"), st.booleans(), st.integers(-(2**40), 2**40))))
def test_a_packed_table_unpacks_to_the_same_rows(values: list[tuple[float, str, bool, int]]) -> None:
    table = pd.DataFrame(values, columns=["number", "word", "flag", "count"])
    table = table.astype({"number": float, "word": "str", "flag": bool, "count": np.int64})
    through = unpacked(json.loads(json.dumps(pack(table), allow_nan=False)))
    assert through == rows(table)
    for row, (number, word, flag, count) in zip(through, values, strict=True):
        assert (row["word"], row["flag"], row["count"]) == (word, flag, count)
        if math.isfinite(number):
            assert row["number"] == pytest.approx(number, rel=1e-7)
        else:
            assert row["number"] is None


def test_a_repeated_value_stands_once() -> None:
    table = pd.DataFrame({"panel": ["a long title"] * 50 + [None] * 50, "cell": [f"{at}" for at in range(100)]})
    packed = pack(table)
    assert json.dumps(packed).count("a long title") == 1
    assert [row["panel"] for row in unpacked(packed)] == ["a long title"] * 50 + [None] * 50
    assert packed["cell"] == table["cell"].tolist()
