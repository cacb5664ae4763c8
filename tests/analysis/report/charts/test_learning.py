"""Learning curves of cells against a slow loop over members."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from lmc_tune.analysis.report.charts import learning
from lmc_tune.analysis.report.charts.learning import collect_learning, learning_chart
from lmc_tune.experiment import VerdictSpec
from lmc_tune.tables.cells import regate
from lmc_tune.tables.columns import CURVES
from tests.analysis.cases import ok_pair, pair_spec, results_of
from tests.analysis.measured import Measured

VERDICT = VerdictSpec()


def point(key: str, member: str, epoch: float, train_loss: float, test_loss: float = 1.0) -> dict:
    accuracies = {"train_accuracy": 0.75, "test_accuracy": 0.5}
    return {
        "key": key,
        "member": member,
        "step": int(10 * epoch),
        "epoch": epoch,
        "train_loss": train_loss,
        "test_loss": test_loss,
        **accuracies,
    }


def table(*points: dict) -> pa.Table:
    return pa.Table.from_pylist(list(points), CURVES.schema)


def test_means_are_over_both_members_of_the_ok_pairs(measured: Measured) -> None:
    curves = measured.store.table("curves")
    found = collect_learning(measured.diagram.pairs, measured.store.parts("curves"))
    assert set(found) == set(measured.results.loc[measured.results["status"] == "ok", "cell"])
    for cell, lines in found.items():
        own = curves[curves["key"].isin(measured.ok(cell)["key"])]
        assert lines[0].tolist() == [1.0, 2.0, 3.0]
        for at, epoch in enumerate(lines[0]):
            rows = own[own["epoch"] == epoch]
            assert len(rows) == 6
            expected = [
                sum(rows["train_loss"]) / 6,
                sum(rows["test_loss"]) / 6,
                sum(1 - rows["train_accuracy"]) / 6,
                sum(1 - rows["test_accuracy"]) / 6,
            ]
            np.testing.assert_allclose(lines[1:, at], expected, atol=1e-12)


def test_members_that_stop_early_and_a_joint_beginning() -> None:
    pair = ok_pair(pair_spec(), 0.1)
    pairs = regate(results_of([pair]), VERDICT)
    rows = table(
        point(pair.key, "joint", 1.0, 2.0),
        point(pair.key, "a", 2.0, 1.0),
        point(pair.key, "b", 2.0, 0.5),
        point(pair.key, "b", 2.5, 0.25),
    )
    (lines,) = collect_learning(pairs, [rows]).values()
    np.testing.assert_allclose(lines[:2], [[1.0, 2.0, 2.5], [2.0, 0.75, 0.25]])
    np.testing.assert_allclose(lines[3:], [[0.25] * 3, [0.5] * 3])


@pytest.mark.parametrize("lost", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_leaves_a_gap_and_nothing_else(lost: float) -> None:
    pair = ok_pair(pair_spec(), 0.1)
    rows = table(
        *(point(pair.key, member, epoch, 0.5, lost if epoch == 2 else 1.0) for member in "ab" for epoch in (1, 2, 3))
    )
    (lines,) = collect_learning(regate(results_of([pair]), VERDICT), [rows]).values()
    assert np.isfinite(lines).tolist() == [[True] * 3, [True] * 3, [True, False, True], [True] * 3, [True] * 3]


def test_a_diverged_members_losses_are_not_in_it() -> None:
    good, bad = (ok_pair(pair_spec(replicate=k), 0.1) for k in range(2))
    bad.row["status"] = "diverged"
    rows = table(point(good.key, "a", 1.0, 0.5), point(bad.key, "a", 1.0, np.inf), point("unknown", "a", 1.0, 9.0))
    (lines,) = collect_learning(regate(results_of([good, bad]), VERDICT), [rows]).values()
    np.testing.assert_allclose(lines[1], [0.5])


def test_how_the_curves_are_cut_and_ordered_changes_nothing(measured: Measured) -> None:
    whole = pa.concat_tables(measured.store.parts("curves"))
    order = np.random.default_rng(0).permutation(len(whole))
    shuffled = whole.take(pa.array(order))
    parts = [shuffled.slice(start, end - start) for start, end in pairwise([0, 1, 50, 51, 200, len(whole)])]
    once, cut_up = (collect_learning(measured.diagram.pairs, each) for each in ([whole], parts))
    assert list(once) == list(cut_up)
    for cell, lines in once.items():
        np.testing.assert_allclose(cut_up[cell], lines, rtol=0, atol=1e-12)


def test_long_curves_keep_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "MOST_EPOCHS", 5)
    pair = ok_pair(pair_spec(), 0.1)
    rows = table(*(point(pair.key, "a", float(epoch), 1 / epoch) for epoch in range(1, 102)))
    (lines,) = collect_learning(regate(results_of([pair]), VERDICT), [rows]).values()
    assert lines[0].tolist() == [1, 26, 51, 76, 101]
    np.testing.assert_allclose(lines[1], 1 / lines[0])


def test_without_curves_there_are_none(measured: Measured) -> None:
    assert collect_learning(measured.diagram.pairs, []) == {}


def test_the_chart_draws_error_and_loss_of_the_pages_data() -> None:
    spec = learning_chart().to_dict()
    assert [each["transform"][0]["filter"] for each in spec["vconcat"]] == [
        "datum.quantity === 'error'",
        "datum.quantity === 'loss'",
    ]
