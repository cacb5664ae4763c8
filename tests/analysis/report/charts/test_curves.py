"""Curves of cells against a slow loop over pairs."""

from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmc_tune.analysis.report.charts.curves import collect_curves
from lmc_tune.experiment import VerdictSpec
from lmc_tune.tables.cells import regate
from lmc_tune.tables.store import Store
from tests.analysis.cases import grid, realistic_pair, undertrained_pair, write_run

VERDICT = VerdictSpec()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(write_run(tmp_path_factory.mktemp("run"), grid(lrs=(0.03, 0.3), batch_sizes=(64,), replicates=6)))


def test_bands_are_mean_and_range_of_the_ok_pairs(tmp_path: Path) -> None:
    store = Store(write_run(tmp_path, grid(lrs=(0.03, 0.3, 1.0), replicates=4)))
    results, paths = store.results(), store.table("paths")
    curves = collect_curves(regate(results, VERDICT), store.parts("paths"), VERDICT)
    checked = 0
    for cell, pairs in results[results["status"] == "ok"].groupby("cell"):
        each = []
        for key in pairs["key"]:
            path = paths[(paths["key"] == key) & (paths["split"] == "test")]
            each.append(np.interp(curves.lambdas, path["lambda"], 1 - path["correct"] / path["n"]))
        expected = [np.mean(each, axis=0), np.min(each, axis=0), np.max(each, axis=0)]
        np.testing.assert_allclose(curves.bands["test_error"][cell], expected, atol=1e-12)
        checked += 1
    assert checked == len(curves.bands["test_error"]) > 10


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(0, 24 * 50), max_size=6), random=st.randoms(use_true_random=False))
def test_how_the_paths_are_cut_into_parts_and_ordered_changes_nothing(
    run: Store, cuts: list[int], random: Random
) -> None:
    pairs = regate(run.results(), VERDICT)
    whole = pa.concat_tables(run.parts("paths"))
    keys = whole["key"].unique().to_pylist()
    random.shuffle(keys)
    borders = sorted({0, *(cut % len(keys) for cut in cuts), len(keys)})
    parts = [
        whole.filter(pc.is_in(whole["key"], value_set=pa.array(keys[start:end], pa.string())))
        for start, end in pairwise(borders)
    ]
    random.shuffle(parts)
    once, cut_up = (collect_curves(pairs, each, VERDICT) for each in ([whole], parts))
    assert list(once.bands) == list(cut_up.bands)
    for quantity, cells in once.bands.items():
        assert list(cells) == list(cut_up.bands[quantity])
        for cell, band in cells.items():
            np.testing.assert_allclose(cut_up.bands[quantity][cell], band, rtol=0, atol=1e-12)


def test_pairs_that_are_not_ok_have_no_curve(tmp_path: Path) -> None:
    store = Store(write_run(tmp_path, grid(lrs=(0.03,), replicates=2), make=undertrained_pair))
    assert len(store.table("paths"))
    curves = collect_curves(regate(store.results(), VERDICT), store.parts("paths"), VERDICT)
    assert curves.of(store.results()["cell"][0]) == {}


def test_every_ok_cell_has_all_four_curves(tmp_path: Path) -> None:
    store = Store(write_run(tmp_path, grid(replicates=2), make=realistic_pair))
    curves = collect_curves(regate(store.results(), VERDICT), store.parts("paths"), VERDICT)
    ok = store.results().query("status == 'ok'")["cell"].unique()
    assert {tuple(curves.of(cell)) for cell in ok} == {("test_error", "test_loss", "train_error", "train_loss")}
