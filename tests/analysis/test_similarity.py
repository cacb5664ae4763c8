"""Similarity against barrier, average against ensemble, and layers: against loops over pairs."""

from random import Random

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from analysis import layers
from analysis.cells import OK_MEANS
from analysis.ensembles import COLUMNS, ensemble_chart, ensemble_section, ensemble_table, ensemble_words, gain_table
from analysis.layers import MOST_PANELS, collect_layers, layer_section
from analysis.page import cell_places
from analysis.phase import map_regions
from analysis.similarity import MEASURES, known_measures, similarity_chart, similarity_section, similarity_table
from tests.analysis.cases import grid, ok_pair, realistic_pair
from tests.analysis.measured import Measured
from tests.analysis.test_cells import results_of


def test_similarities_are_means_over_the_ok_pairs_of_judged_cells(measured: Measured) -> None:
    table = similarity_table(measured.diagram)
    assert len(table) == 16
    for row in table.to_dict("records"):
        for name in MEASURES:
            values = measured.ok(row["cell"])[name].to_list()
            assert row[name] == pytest.approx(sum(values) / len(values), abs=1e-12)


def test_every_mean_of_a_cell_is_over_its_ok_pairs(measured: Measured) -> None:
    for row in measured.diagram.cells.to_dict("records"):
        for name in set(OK_MEANS) - {"accuracy_difference"}:
            values = measured.ok(row["cell"])[name].to_list()
            assert row[name] == pytest.approx(sum(values) / len(values), abs=1e-12)


def test_only_known_measures_are_drawn() -> None:
    diagram = map_regions(results_of([ok_pair(spec, 0.1) for spec in grid(replicates=2)]))
    table = similarity_table(diagram)
    assert known_measures(table) == ["disagreement"]
    section = similarity_section(diagram, table["cell"][0])
    assert section is not None
    assert len(similarity_chart(diagram, table).to_dict()["concat"]) == 1
    diagram.cells["disagreement"] = np.nan
    assert similarity_section(diagram, "") is None


def test_average_and_ensemble_in_one_row(measured: Measured) -> None:
    table = ensemble_table(measured.diagram)
    assert len(table) == 16
    for row in table.to_dict("records"):
        pairs = measured.ok(row["cell"])
        members = [*pairs["test_accuracy_a"], *pairs["test_accuracy_b"]]
        assert row["member_accuracy"] == pytest.approx(sum(members) / len(members), abs=1e-12)
        for name in COLUMNS:
            assert row[name] == pytest.approx(sum(pairs[name]) / len(pairs), abs=1e-12)
    gains = gain_table(table)
    assert len(gains) == 2 * len(table)
    for row in gains.to_dict("records"):
        assert row["gain"] == pytest.approx(100 * row[f"{row['combined']}_gain_accuracy"])


def test_the_words_follow_the_pages_order_and_say_the_numbers(measured: Measured) -> None:
    places = cell_places(measured.diagram)
    table = ensemble_table(measured.diagram)
    words = ensemble_words(table, places)
    assert words.index.tolist() == [cell for cell in places.index if cell in set(table["cell"])]
    row, said = table.iloc[3], words.loc[table["cell"][3]]
    assert said["mean member"] == f"{100 * row['member_accuracy']:.1f}%"
    assert said["ensemble's gain"] == f"{100 * row['ensemble_gain_accuracy']:+.1f}"
    assert said["average's NLL"] == f"{row['average_nll']:.3g}"
    assert said["panel"] == row["panel"]


def test_without_both_there_is_no_section() -> None:
    diagram = map_regions(results_of([realistic_pair(spec) for spec in grid(replicates=2)]))
    assert ensemble_section(diagram, cell_places(diagram), "") is None


def test_layers_are_means_over_the_ok_pairs_by_panel_and_verdict(measured: Measured) -> None:
    table = collect_layers(measured.diagram, measured.store.parts("layers"))
    layers, cells = measured.store.layers(), measured.diagram.cells
    checked = 0
    for (panel, verdict), own in cells[cells["judged"]].groupby(["panel", "verdict"]):
        keys = [key for cell in own["cell"] for key in measured.ok(cell)["key"]]
        for position, name in enumerate(("input", "scale", "output"), 1):
            rows = layers[layers["key"].isin(keys) & (layers["layer"] == name)]
            (found,) = table[
                (table["panel"] == panel) & (table["verdict"] == verdict) & (table["position"] == position)
            ].to_dict("records")
            assert (found["layer"], found["n"]) == (name, len(keys))
            assert found["distance"] == pytest.approx(sum(rows["distance"]) / len(keys), abs=1e-12)
            expected = np.nan if name == "scale" else sum(rows["cka"]) / len(keys)
            assert found["cka"] == pytest.approx(expected, abs=1e-12, nan_ok=True)
            checked += 1
    assert checked == len(table) > 24


def test_how_the_layers_are_cut_and_ordered_changes_nothing(measured: Measured) -> None:
    whole = pa.concat_tables(measured.store.parts("layers"))
    shuffled = whole.take(pa.array(np.random.default_rng(2).permutation(len(whole))))
    parts = [shuffled.slice(0, 1), shuffled.slice(1, 40), shuffled.slice(41)]
    once, cut_up = (collect_layers(measured.diagram, each) for each in ([whole], parts))
    pd.testing.assert_frame_equal(once, cut_up, rtol=0, atol=1e-12)


def test_a_run_folder_without_layers_has_no_section(measured: Measured) -> None:
    table = collect_layers(measured.diagram, [])
    assert layer_section(measured.diagram, table) is None


def test_the_first_panels_of_layers_are_drawn_and_the_rest_is_told(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = collect_layers(measured.diagram, measured.store.parts("layers"))
    section = layer_section(measured.diagram, table)
    assert section is not None
    assert section.note == ""
    assert len(section.chart.to_dict()["concat"]) == len(measured.diagram.panels) == 8 <= MOST_PANELS
    monkeypatch.setattr(layers, "MOST_PANELS", 2)
    section = layer_section(measured.diagram, table)
    assert section is not None
    assert section.note == "Drawn: the first 2 of 8 panels; the others are in layers.parquet."
    assert len(section.chart.to_dict()["concat"]) == 2


def test_the_order_of_rows_changes_nothing(measured: Measured) -> None:
    order = list(range(len(measured.results)))
    Random(11).shuffle(order)
    other = measured.in_order(order)
    pd.testing.assert_frame_equal(measured.diagram.cells, other.diagram.cells, check_exact=True)
    for name, intervals in measured.intervals.items():
        pd.testing.assert_frame_equal(intervals, other.intervals[name], check_exact=True)
    layers = [collect_layers(each.diagram, each.store.parts("layers")) for each in (measured, other)]
    pd.testing.assert_frame_equal(*layers, check_exact=True)


def test_the_charts_show_every_judged_cell(measured: Measured) -> None:
    table = ensemble_table(measured.diagram)
    for spec in (
        ensemble_chart(measured.diagram, gain_table(table), table["cell"][0]).to_dict(),
        similarity_chart(measured.diagram, similarity_table(measured.diagram), table["cell"][0]).to_dict(),
    ):
        drawn = {row["cell"] for rows in spec["datasets"].values() for row in rows if "cell" in row}
        assert drawn == set(table["cell"])
