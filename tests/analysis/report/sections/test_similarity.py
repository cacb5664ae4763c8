"""Similarity against barrier: against loops over pairs."""

from random import Random

import numpy as np
import pandas as pd
import pytest

from lmc_tune.analysis.phase import map_regions
from lmc_tune.analysis.report.sections.similarity import (
    MEASURES,
    known_measures,
    make,
    similarity_chart,
    similarity_table,
)
from lmc_tune.tables.cells import OK_MEANS
from lmc_tune.tables.columns import PATH_FIELDS
from tests.analysis.cases import grid, ok_pair, results_of
from tests.analysis.measured import Measured, context_of


def test_similarities_are_means_over_the_ok_pairs_of_judged_cells(measured: Measured) -> None:
    table = similarity_table(measured.diagram)
    assert len(table) == 16
    for row in table.to_dict("records"):
        for name in MEASURES:
            values = measured.ok(row["cell"])[name].to_list()
            assert row[name] == pytest.approx(sum(values) / len(values), abs=1e-12)


def test_every_mean_of_a_cell_is_over_its_ok_pairs(measured: Measured) -> None:
    for row in measured.diagram.cells.to_dict("records"):
        for name in set(OK_MEANS) - set(PATH_FIELDS):
            values = measured.ok(row["cell"])[name].to_list()
            assert row[name] == pytest.approx(sum(values) / len(values), abs=1e-12)


def test_only_known_measures_are_drawn() -> None:
    diagram = map_regions(results_of([ok_pair(spec, 0.1) for spec in grid(replicates=2)]))
    table = similarity_table(diagram)
    assert known_measures(table) == ["disagreement"]
    section = make(context_of(diagram))
    assert section is not None
    assert len(similarity_chart(diagram, table).to_dict()["concat"]) == 1
    diagram.cells["disagreement"] = np.nan
    assert make(context_of(diagram)) is None


def test_the_order_of_rows_changes_nothing(measured: Measured) -> None:
    order = list(range(len(measured.results)))
    Random(11).shuffle(order)
    other = measured.in_order(order)
    pd.testing.assert_frame_equal(measured.diagram.cells, other.diagram.cells, check_exact=True)
    for name, intervals in measured.intervals.items():
        pd.testing.assert_frame_equal(intervals, other.intervals[name], check_exact=True)


def test_the_chart_shows_every_judged_cell(measured: Measured) -> None:
    table = similarity_table(measured.diagram)
    spec = similarity_chart(measured.diagram, table, table["cell"][0]).to_dict()
    assert {row["cell"] for rows in spec["datasets"].values() for row in rows if "cell" in row} == set(table["cell"])
