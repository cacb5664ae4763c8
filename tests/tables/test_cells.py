"""Verdicts that can be checked by hand, and the laws of the table of cells."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lmc_tune.core.statistics import VERDICTS, fit_spread, mean_interval, verdict_of_interval
from lmc_tune.experiment import (
    CONDITIONS,
    SAME_WITHOUT_BATCH_NORM,
    Condition,
    MlpSpec,
    VerdictSpec,
    condition_column,
)
from lmc_tune.tables.cells import (
    CELL_FIELDS,
    compare_definitions,
    exclusions,
    judged_columns,
    planned_cells,
    regate,
    summarise,
)
from lmc_tune.tables.rows import STATUSES
from lmc_tune.tables.store import Store
from tests.analysis.cases import (
    diverged_pair,
    failed_pair,
    grid,
    ok_pair,
    pair_spec,
    realistic_pair,
    results_of,
    space_of,
    undertrained_pair,
    write_run,
)

VERDICT = VerdictSpec()
MAKERS = {
    "low": lambda spec: ok_pair(spec, 0.002 + 0.0001 * spec.replicate),
    "high": lambda spec: ok_pair(spec, 0.2 + 0.01 * spec.replicate),
    "undertrained": undertrained_pair,
    "diverged": diverged_pair,
    "failed": failed_pair,
}


def one_cell(*kinds: str) -> pd.DataFrame:
    return results_of([MAKERS[kind](pair_spec(replicate=at)) for at, kind in enumerate(kinds)])


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["low"] * 5, "connected"),
        (["high"] * 5, "disconnected"),
        (["low"] * 3 + ["high"] * 2, "undecided"),
        (["low"], "undecided"),
        (["low"] * 2, "undecided"),
        (["high"] * 3, "disconnected"),
        (["low"] * 3 + ["diverged"] * 2, "connected"),
        (["low"] * 2 + ["diverged"], "undecided"),
        (["low"] * 2 + ["diverged"] * 2, "diverged"),
        (["low"] * 2 + ["undertrained"] * 2, "undertrained"),
        (["low", "undertrained", "diverged"], "diverged"),
        (["low"] + ["undertrained"] * 2 + ["diverged"], "undertrained"),
        (["failed"] * 3, "undecided"),
        (["low", "low", "failed", "failed", "diverged"], "undecided"),
        (["failed", "diverged"], "diverged"),
    ],
)
def test_verdict_by_hand(kinds: list[str], expected: str) -> None:
    cells = summarise(one_cell(*kinds), VERDICT)
    assert cells["verdict"].tolist() == [expected]


@pytest.mark.parametrize("n", [1, 2])
def test_one_pair_or_two_have_a_mean_but_no_interval(n: int) -> None:
    cell = summarise(one_cell(*["low"] * n), VERDICT).iloc[0]
    assert cell["mean_barrier"] == pytest.approx(0.002, rel=0.05)
    assert (cell["low"], cell["high"], cell["verdict"]) == (-np.inf, np.inf, "undecided")
    assert cell["judged"]


def test_an_interval_is_never_narrower_than_one_test_example_and_never_below_zero() -> None:
    results = one_cell(*["low"] * 5)
    results[[VERDICT.column, VERDICT.on("train").column]] = 0.0185
    cell = summarise(results, VERDICT).iloc[0]
    assert (cell["low"], cell["high"]) == pytest.approx((0.0185 - 1 / 360, 0.0185 + 1 / 360))
    assert cell["verdict"] == "undecided"
    of_a_member = results["n_train"].iloc[0]
    assert (cell["train_low"], cell["train_high"]) == pytest.approx(
        (0.0185 - 1 / of_a_member, 0.0185 + 1 / of_a_member)
    )
    results["test_examples"] = 36
    assert summarise(results, VERDICT)[["low", "high"]].iloc[0].tolist() == pytest.approx([0.0, 0.0185 + 1 / 36])
    losses = summarise(results.assign(test_loss_barrier_chord=0.5), VERDICT.model_copy(update={"of": "test_loss"}))
    assert losses[["low", "high"]].iloc[0].tolist() == [0.5, 0.5]


def test_a_midpoint_may_lie_below_its_ends() -> None:
    results = one_cell(*["low"] * 3).assign(test_error_barrier_midpoint=[-0.02, -0.03, -0.025])
    cell = summarise(results, VERDICT.model_copy(update={"barrier": "midpoint"})).iloc[0]
    assert cell["low"] < cell["mean_barrier"] == pytest.approx(-0.025)


def _cells_of(*barriers: list[float]) -> pd.DataFrame:
    """Results with a cell for each list."""
    template = results_of([ok_pair(pair_spec(), 0.1)])
    sizes = [len(some) for some in barriers]
    results = pd.concat([template] * sum(sizes), ignore_index=True)
    results["cell"] = np.repeat([f"c{at:02d}" for at in range(len(barriers))], sizes)
    results["key"] = [f"k{at:03d}" for at in range(len(results))]
    results["replicate"] = np.concatenate([np.arange(size) for size in sizes])
    results[VERDICT.column] = np.concatenate(barriers)
    return results


def test_cells_with_equal_barriers_say_nothing_of_the_spread_of_others() -> None:
    rng = np.random.default_rng(0)
    ordinary = [list(rng.uniform(0.5, 1.5, 3) * mean) for mean in np.geomspace(0.005, 0.2, 12)]
    alone = summarise(_cells_of(*ordinary), VERDICT)[["low", "high", "verdict"]]
    with_ties = summarise(_cells_of(*ordinary, [9 / 360] * 3, [0.3 / 3] * 3), VERDICT)[["low", "high", "verdict"]]
    assert np.var([0.1] * 3, ddof=1) > 0, "rounding of the mean"
    pd.testing.assert_frame_equal(with_ties[:12], alone)
    ties = summarise(_cells_of(*[[k / 1000] * 100 for k in range(8)]), VERDICT)
    assert ties["estimator"].unique().tolist() == ["mean, Student's interval"]


def test_a_spread_of_less_than_an_example_is_taken_for_that_of_rounding() -> None:
    rng = np.random.default_rng(0)
    ordinary = [list(rng.uniform(0.5, 1.5, 3) * mean) for mean in np.geomspace(0.005, 0.2, 12)]
    near = [[0.025, 0.025, 0.025 + 1e-9], [0.025, 0.025, 0.025 + 1e-4]]
    once, again = (summarise(_cells_of(*ordinary, one), VERDICT)["high"] for one in near)
    np.testing.assert_allclose(once[:12], again[:12], rtol=1e-3)


def test_the_estimator_is_named_as_it_was_used() -> None:
    few = summarise(_cells_of([0.004, 0.012, 0.02]), VERDICT)
    assert few["estimator"].tolist() == ["mean, Student's interval"]
    low, high = stats.t.interval(0.95, 2, loc=0.012, scale=stats.sem([0.004, 0.012, 0.02]))
    assert few[["low", "high"]].iloc[0].tolist() == pytest.approx([max(low, 0), high])
    many = summarise(_cells_of(*[[mean, 1.2 * mean, 1.4 * mean] for mean in np.geomspace(0.01, 0.3, 6)]), VERDICT)
    assert many["estimator"].unique().tolist() == ["mean, score interval with a moderated variance"]


def test_an_error_barrier_is_never_above_one_and_midpoints_have_students_interval() -> None:
    rng = np.random.default_rng(0)
    wild = [list(np.minimum(1, rng.exponential(mean, 3))) for mean in (0.01, 0.05, 0.2, 0.4, 0.6, 0.7)]
    assert summarise(_cells_of(*wild), VERDICT)["high"].max() <= 1
    verdict = VERDICT.model_copy(update={"barrier": "midpoint"})
    results = _cells_of(*wild)
    midpoints = summarise(results.assign(test_error_barrier_midpoint=results[VERDICT.column] - 0.1), verdict)
    assert midpoints["estimator"].unique().tolist() == ["mean, Student's interval"]


def test_both_splits_are_judged_whichever_the_verdict_is_of() -> None:
    high, low = (pd.Series(values) for values in ([0.2, 0.21, 0.22, 0.2, 0.21], [0.001, 0.002, 0.001, 0.002, 0.001]))
    results = one_cell(*["low"] * 5)
    results[VERDICT.column], results[VERDICT.on("train").column] = low, high
    of_test = summarise(results, VERDICT).iloc[0]
    of_train = summarise(results, VERDICT.on("train")).iloc[0]
    for cell in (of_test, of_train):
        assert (cell["on_test"], cell["on_train"], cell["split_apart"]) == ("connected", "disconnected", True)
        assert (cell["test_barrier"], cell["train_barrier"]) == pytest.approx((low.mean(), high.mean()))
    assert (of_test["verdict"], of_train["verdict"]) == ("connected", "disconnected")
    assert (
        of_train[["mean_barrier", "low", "high"]].tolist()
        == of_test[["train_barrier", "train_low", "train_high"]].tolist()
    )


def test_a_split_that_was_not_measured_and_a_cell_that_is_excluded_have_no_verdict_on_it() -> None:
    unmeasured = one_cell(*["low"] * 5).assign(train_error_barrier_chord=np.nan)
    cell = summarise(unmeasured, VERDICT).iloc[0]
    assert (cell["verdict"], cell["on_test"], cell["on_train"]) == ("connected", "connected", None)
    assert not cell["split_apart"]
    excluded = summarise(one_cell("low", "diverged", "diverged"), VERDICT).iloc[0]
    assert (excluded["verdict"], excluded["on_test"], excluded["on_train"]) == ("diverged", None, None)


def test_a_pair_without_a_finite_barrier_leaves_the_cell_undecided() -> None:
    results = one_cell("low", "low", "low", "low")
    results.loc[2, VERDICT.column] = np.nan
    cell = summarise(results, VERDICT).iloc[0]
    assert (cell["verdict"], cell["n_ok"], cell["n_without_barrier"], cell["judged"]) == ("undecided", 4, 1, False)
    assert np.isnan(cell["mean_barrier"])
    left_out = exclusions(regate(results, VERDICT), VERDICT)
    assert left_out[["status", "count"]].to_numpy().tolist() == [["ok", 1]]


def test_the_mean_is_over_ok_pairs_alone() -> None:
    results = one_cell("high", "high", "high", "undertrained", "diverged")
    cell = summarise(results, VERDICT).iloc[0]
    assert cell["mean_barrier"] == pytest.approx(results[VERDICT.column][:3].mean())
    assert cell["test_accuracy_a"] == pytest.approx(results["test_accuracy_a"][:3].mean())


def test_the_gate_is_the_verdicts_not_the_tables() -> None:
    results = one_cell("low", "low", "undertrained", "undertrained", "undertrained")
    assert summarise(results, VERDICT)["verdict"].tolist() == ["undertrained"]
    lenient = summarise(results, VerdictSpec(min_train_accuracy=0.1))
    assert lenient[["verdict", "n_ok"]].to_numpy().tolist() == [["connected", 5]]
    strict = VerdictSpec(min_train_accuracy=0.999)
    left_out = exclusions(regate(results, strict), strict)
    assert left_out["count"].tolist() == [5]
    assert left_out["reason"][0].startswith("train accuracy below the gate of 99.9%")
    low = regate(one_cell("undertrained", "undertrained"), strict)
    assert low["reason"].str.startswith("train accuracy below the gate of 99.9%").all(), "not the gate of the table"


def test_every_finished_pair_is_counted_exactly_once() -> None:
    specs = grid()
    results = results_of([realistic_pair(spec) for spec in specs])
    cells = summarise(results, VERDICT)
    assert cells["n_pairs"].sum() == len(specs)
    assert (cells[[f"n_{status}" for status in STATUSES]].sum(axis="columns") == cells["n_pairs"]).all()
    left_out = exclusions(regate(results, VERDICT), VERDICT)
    assert left_out["count"].sum() == len(specs) - cells["n_ok"].sum()
    assert set(VERDICTS) - {"undecided"} <= set(cells["verdict"])


def test_under_resolved_pairs_are_counted() -> None:
    results = one_cell("high", "high", "high", "diverged")
    results.loc[1, "under_resolved"] = True
    assert summarise(results, VERDICT)["n_under_resolved"].tolist() == [1]


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_results_changes_nothing(random: object) -> None:
    results = results_of([realistic_pair(spec) for spec in grid(lrs=(0.003, 0.03, 0.3), replicates=3)])
    order = list(range(len(results)))
    random.shuffle(order)
    shuffled = results.iloc[order]
    pd.testing.assert_frame_equal(regate(results, VERDICT), regate(shuffled, VERDICT), check_exact=True)
    pd.testing.assert_frame_equal(summarise(results, VERDICT), summarise(shuffled, VERDICT), check_exact=True)


def test_the_plan_of_a_finished_sweep_is_its_cells(tmp_path: Path) -> None:
    store = Store(write_run(tmp_path, grid(replicates=1)))
    cells = summarise(store.results(), VERDICT)
    pd.testing.assert_frame_equal(planned_cells(space_of()).drop(columns="question"), cells[["cell", *CELL_FIELDS]])


def test_all_cells_at_once_agree_with_one_after_the_other() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 9, size=600)
    template = results_of([ok_pair(pair_spec(), 0.1)])
    results = pd.concat([template] * int(sizes.sum()), ignore_index=True)
    results["cell"] = np.repeat([f"{at:04d}" for at in range(600)], sizes)
    results["key"] = [f"{at:05d}" for at in range(len(results))]
    results["replicate"] = np.concatenate([np.arange(size) for size in sizes])
    results[VERDICT.column] = rng.normal(0.03, 0.02, len(results))
    cells = summarise(results, VERDICT).set_index("cell")
    groups = results.groupby("cell")[VERDICT.column]
    spread = fit_spread(groups.mean(), groups.var(), groups.size())
    assert spread is not None
    for name, barriers in groups:
        low, high = mean_interval(barriers.mean(), barriers.var(), len(barriers), VERDICT.confidence, spread=spread)
        one = 1 / 360
        expected = max(0, min(low, barriers.mean() - one)), max(high, barriers.mean() + one)
        cell = cells.loc[name]
        if len(barriers) < 3:
            assert (cell["low"], cell["high"], cell["verdict"]) == (-np.inf, np.inf, "undecided")
        else:
            assert (cell["mean_barrier"], cell["low"], cell["high"]) == pytest.approx((barriers.mean(), *expected))
            assert cell["verdict"] == verdict_of_interval(*expected, VERDICT.threshold)


def test_definitions_are_counted_as_if_each_were_the_verdict() -> None:
    specs = grid(replicates=4)
    results = results_of([realistic_pair(spec) for spec in specs])
    results["test_error_barrier_endpoint_mean"] *= np.linspace(0.3, 1.7, len(results))
    for row in compare_definitions(regate(results, VERDICT), VERDICT).to_dict("records"):
        other = VERDICT.model_copy(update={"barrier": row.pop("definition")})
        counts = summarise(results, other)["verdict"].value_counts()
        assert row == {name: counts.get(name, 0) for name in VERDICTS}


def test_a_missing_column_is_named() -> None:
    results = one_cell("low").drop(columns=VERDICT.column)
    with pytest.raises(ValueError, match="test_error_barrier_chord"):
        summarise(results, VERDICT)


def test_a_condition_is_judged_where_batch_norm_makes_one():
    """Networks without BatchNorm have but the naive barrier, and one of the user's own has whatever was measured."""
    results = one_cell("low", "low", "low")
    results["norm"], results["model"] = ["none", "batch", None], ["mlp", "mlp", "factory"]
    results["cell"] = ["c0", "c1", "c2"]
    own = {
        VERDICT.column: [0.1, 0.2, 0.3],
        "accuracy_difference": [-1.0, -2.0, -3.0],
        "under_resolved": [True, True, True],
    }
    other = {
        VERDICT.column: [np.nan, 0.02, 0.03],
        "accuracy_difference": [np.nan, -0.2, -0.3],
        "under_resolved": [None, False, False],
    }
    results = results.assign(**own, **{f"recalibrated_{name}": values for name, values in other.items()})
    judged = summarise(results, VERDICT.model_copy(update={"condition": "recalibrated"}))
    assert judged["mean_barrier"].tolist() == [0.1, 0.02, 0.03]
    assert judged["accuracy_difference"].tolist() == [-1.0, -0.2, -0.3]
    assert judged["n_under_resolved"].tolist() == [1, 0, 0]
    naive = summarise(results, VERDICT.model_copy(update={"condition": "naive"}))
    assert naive["mean_barrier"].tolist() == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_each_condition_judges_its_own_columns_and_needs_no_others(norm: str, condition: Condition) -> None:
    """Of a network without BatchNorm, what it changes nothing of stands for it."""
    model = MlpSpec(norm=norm)
    measured = [one for one in CONDITIONS if norm == "batch" or one not in SAME_WITHOUT_BATCH_NORM]
    heights = {one: 0.1 + 0.1 * at for at, one in enumerate(measured)}
    pairs = [ok_pair(pair_spec(replicate=k, model=model), 0.5) for k in range(3)]
    for pair in pairs:
        for one, height in heights.items():
            pair.row[condition_column(one, "test_error_barrier_chord")] = height
            pair.row[condition_column(one, "merge_gain")] = -100 * height
    results, verdict = results_of(pairs), VerdictSpec(condition=condition)
    expected = heights[condition if condition in measured else SAME_WITHOUT_BATCH_NORM[condition]]
    for table in (results, results[judged_columns(verdict)]):
        (cell,) = summarise(table, verdict).to_dict("records")
        assert cell["mean_barrier"] == pytest.approx(expected)
        assert cell["merge_gain"] == pytest.approx(-100 * expected)
