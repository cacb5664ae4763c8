"""Members layer by layer: against loops over pairs."""

from dataclasses import replace
from random import Random

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from lmc_tune.analysis.report.sections import layers
from lmc_tune.analysis.report.sections.layers import MOST_PANELS, collect_layers, make
from tests.analysis.measured import Measured


def test_layers_are_means_over_the_ok_pairs_by_panel_and_verdict(measured: Measured) -> None:
    table = collect_layers(measured.diagram, measured.store.parts("layers"))
    of_pairs, cells = measured.store.table("layers"), measured.diagram.cells
    checked = 0
    for (panel, verdict), own in cells[cells["judged"]].groupby(["panel", "verdict"]):
        keys = [key for cell in own["cell"] for key in measured.ok(cell)["key"]]
        for position, name in enumerate(("input", "scale", "output"), 1):
            rows = of_pairs[of_pairs["key"].isin(keys) & (of_pairs["layer"] == name)]
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
    assert make(replace(measured.context, parts=lambda _: [])) is None


def test_the_first_panels_of_layers_are_drawn_and_the_rest_is_told(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = make(measured.context)
    assert section is not None
    assert section.note == ""
    assert len(section.chart.to_dict()["concat"]) == len(measured.diagram.panels) == 8 <= MOST_PANELS
    monkeypatch.setattr(layers, "MOST_PANELS", 2)
    section = make(measured.context)
    assert section is not None
    assert section.note == "Drawn: the first 2 of 8 panels; the others are in layers.parquet."
    assert len(section.chart.to_dict()["concat"]) == 2


def test_the_order_of_rows_changes_nothing(measured: Measured) -> None:
    order = list(range(len(measured.results)))
    Random(11).shuffle(order)
    tables = [collect_layers(each.diagram, each.store.parts("layers")) for each in (measured, measured.in_order(order))]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
