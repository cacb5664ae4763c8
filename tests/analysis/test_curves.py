"""Curves of cells against a slow loop over pairs."""

from pathlib import Path

import numpy as np

from analysis.cells import regate
from analysis.curves import collect_curves
from lmc_tune.specs import VerdictSpec
from lmc_tune.store import Store
from tests.analysis.cases import grid, realistic_pair, undertrained_pair, write_run

VERDICT = VerdictSpec()


def test_bands_are_mean_and_range_of_the_ok_pairs(tmp_path: Path) -> None:
    store = Store(write_run(tmp_path, grid(lrs=(0.03, 0.3, 1.0), replicates=4)))
    results, paths = store.results(), store.paths()
    curves = collect_curves(regate(results, VERDICT), paths.sample(frac=1, random_state=0), VERDICT)
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


def test_pairs_that_are_not_ok_have_no_curve(tmp_path: Path) -> None:
    store = Store(write_run(tmp_path, grid(lrs=(0.03,), replicates=2), make=undertrained_pair))
    assert len(store.paths())
    curves = collect_curves(regate(store.results(), VERDICT), store.paths(), VERDICT)
    assert curves.of(store.results()["cell"][0]) == {}


def test_every_ok_cell_has_all_four_curves(tmp_path: Path) -> None:
    store = Store(write_run(tmp_path, grid(replicates=2), make=realistic_pair))
    curves = collect_curves(regate(store.results(), VERDICT), store.paths(), VERDICT)
    ok = store.results().query("status == 'ok'")["cell"].unique()
    assert {tuple(curves.of(cell)) for cell in ok} == {("test_error", "test_loss", "train_error", "train_loss")}
