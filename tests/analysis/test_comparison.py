"""Two runs side by side: which cells are in both, what became of their verdicts, and how far barriers differ."""

from collections.abc import Iterable
from random import Random

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lmc_tune.analysis.comparison import answer, compare, drift
from lmc_tune.analysis.phase import PhaseDiagram, map_regions
from lmc_tune.errors import UserError
from lmc_tune.experiment import GroupSpec, VerdictSpec
from lmc_tune.tables.rows import PairResult
from tests.analysis.cases import (
    COVARIATE,
    LABEL,
    N_TEST,
    diverged_pair,
    grid,
    ok_pair,
    realistic_pair,
    results_of,
    space_of,
)

VERDICT = VerdictSpec(of="test_error", threshold=0.02)


def trained(spec: GroupSpec, **changes: float) -> GroupSpec:
    """The same pair, trained otherwise."""
    content = spec.model_dump()
    return GroupSpec.model_validate({**content, "train": {**content["train"], **changes}})


def plain(spec: GroupSpec) -> GroupSpec:
    """The same pair, trained without momentum."""
    return trained(spec, momentum=0.0)


def diagram_of(pairs: Iterable[PairResult]) -> PhaseDiagram:
    return map_regions(results_of(list(pairs)), verdict=VERDICT)


def drawn(spec: GroupSpec, what: str, mean: float) -> PairResult:
    """An ok pair whose barrier varies from replicate to replicate."""
    return ok_pair(spec, mean * np.random.default_rng(spec.seed_for(what)).uniform(0.7, 1.3))


def test_a_run_and_itself_differ_in_nothing() -> None:
    diagram = diagram_of(map(realistic_pair, grid()))
    comparison = compare(diagram, diagram)
    cells = comparison.cells
    assert len(cells) == len(diagram.cells)
    assert not cells["changed"].any()
    assert comparison.settings == ()
    assert comparison.alone == (0, 0)
    known = cells["n_both"] > 0
    assert (cells.loc[known, "difference"] == 0).all()
    np.testing.assert_allclose(cells.loc[cells["n_both"] >= 3, "difference_high"], 1 / N_TEST)  # one example
    assert answer(comparison) == "No verdict changed in the 36 cells that both runs have."
    pd.testing.assert_frame_equal(comparison.first.cells, diagram.cells, check_like=True)


def test_differences_are_those_of_the_same_replicates() -> None:
    specs = grid(lrs=(0.01, 0.1), batch_sizes=(16, 64), shifts=(COVARIATE,), replicates=6)
    ours = [drawn(spec, "first", 0.05) for spec in specs]
    theirs = [drawn(plain(spec), "second", 0.09) for spec in specs[:-1]] + [diverged_pair(plain(specs[-1]))]
    comparison = compare(diagram_of(ours), diagram_of(theirs))
    assert comparison.settings == (("momentum", 0.9, 0.0),)
    assert comparison.cells["n_both"].tolist() == [6, 6, 6, 5]
    for row in comparison.cells.to_dict("records"):
        pairs = [
            (one.row[VERDICT.column], other.row.get(VERDICT.column))
            for one, other, spec in zip(ours, theirs, specs, strict=True)
            if (spec.train.lr, spec.train.batch_size) == (row["lr"], row["batch_size"]) and other.status == "ok"
        ]
        before, after = np.array(pairs, dtype=float).T
        oracle = stats.ttest_rel(after, before).confidence_interval(0.95)
        assert row["difference"] == pytest.approx((after - before).mean())
        assert (row["difference_low"], row["difference_high"]) == pytest.approx((oracle.low, oracle.high))


def test_verdicts_that_changed_are_counted() -> None:
    specs = grid(lrs=(0.01, 0.1, 0.3), batch_sizes=(64,), shifts=(COVARIATE, LABEL), replicates=5)

    def after(spec: GroupSpec) -> PairResult:
        if spec.train.lr == 0.3:
            return diverged_pair(plain(spec))
        return drawn(plain(spec), "after", 0.1 if spec.train.lr == 0.1 else 0.004)

    comparison = compare(
        diagram_of(drawn(spec, "before", 0.004) for spec in specs), diagram_of(map(after, specs)), names=("one", "two")
    )
    assert answer(comparison) == (
        "Of 6 cells that both runs have, 4 have another verdict in two: 2 from connected to disconnected and 2 from "
        "connected to diverged."
    )
    assert drift(comparison) == (
        "In two the barrier is higher in 2 and lower in 0 of 4 cells, by 95% intervals of the difference; if the runs "
        "did not differ, chance alone would give about 0.2 such cells."
    )


def test_a_cell_that_is_not_judged_in_both_has_no_difference() -> None:
    """Though some of its pairs are ok in both, and the cells have the same ids."""
    specs = grid(lrs=(0.1,), batch_sizes=(64,), shifts=(COVARIATE,), replicates=6)
    calm = diagram_of(drawn(spec, "calm", 0.05) for spec in specs)
    wild = diagram_of(drawn(spec, "wild", 0.05) if spec.replicate < 3 else diverged_pair(spec) for spec in specs)
    for first, second in ((calm, wild), (wild, calm)):
        (row,) = compare(first, second).cells.to_dict("records")
        assert {row["first_verdict"], row["second_verdict"]} >= {"diverged"}
        assert np.isnan(row["difference"])
        assert row["n_both"] == 0


def test_both_stand_on_all_values_of_either() -> None:
    wide = diagram_of(map(realistic_pair, grid(lrs=(0.01, 0.1, 0.3), batch_sizes=(16, 64))))
    narrow = diagram_of(realistic_pair(plain(spec)) for spec in grid(lrs=(0.1, 1.0), batch_sizes=(64,)))
    comparison = compare(wide, narrow)
    for run in (comparison.first, comparison.second):
        assert run.x is not None
        assert run.y is not None
        assert run.x.ticks == (0.01, 0.1, 0.3, 1.0)
        assert run.y.ticks == (16, 64)
        assert run.panels == ("covariate", "label 80/20")
    assert comparison.cells[["lr", "batch_size"]].drop_duplicates().to_numpy().tolist() == [[0.1, 64]]
    assert comparison.alone == (10, 2)


def test_a_panel_of_one_run_alone_is_left_out() -> None:
    both = diagram_of(map(realistic_pair, grid()))
    one = diagram_of(map(realistic_pair, grid(shifts=(LABEL,))))
    comparison = compare(both, one)
    assert comparison.first.panels == comparison.second.panels == ("label 80/20",)
    assert set(comparison.first.cells["panel"]) == {"label 80/20"}
    assert set(comparison.first.boundary["panel"]) <= {"label 80/20"}
    assert comparison.alone == (18, 0)
    assert len(comparison.cells) == 18


def test_one_cell_each_is_compared_whatever_differs() -> None:
    specs = grid(lrs=(0.1,), batch_sizes=(64,), shifts=(COVARIATE,))
    others = [trained(spec, momentum=0.0, lr=0.3) for spec in specs]
    comparison = compare(
        diagram_of(drawn(spec, "first", 0.05) for spec in specs),
        diagram_of(drawn(spec, "second", 0.05) for spec in others),
    )
    assert comparison.settings == (("lr", 0.1, 0.3), ("momentum", 0.9, 0.0))
    assert len(comparison.cells) == 1


def test_nothing_depends_on_the_order_of_the_rows() -> None:
    ours, theirs = ([realistic_pair(make(spec)) for spec in grid()] for make in (lambda spec: spec, plain))
    expected = compare(diagram_of(ours), diagram_of(theirs)).cells
    for pairs in (ours, theirs):
        Random(0).shuffle(pairs)
    pd.testing.assert_frame_equal(compare(diagram_of(ours), diagram_of(theirs)).cells, expected, check_exact=True)


def test_runs_without_a_common_cell_are_refused_with_the_column_that_parts_them() -> None:
    ours = diagram_of(map(realistic_pair, grid(lrs=(0.01, 0.1))))
    theirs = diagram_of(map(realistic_pair, grid(lrs=(0.03, 0.3))))
    with pytest.raises(
        UserError, match=r"no cell is finished in both runs: lr is 0.01, 0.1 in one, and 0.03, 0.3 in t"
    ):
        compare(ours, theirs, names=("one", "two"))
    space = space_of(lrs=(0.01, 0.1))
    unfinished = [
        map_regions(results_of(list(map(realistic_pair, grid(lrs=(lr,))))), verdict=VERDICT, space=space)
        for lr in (0.01, 0.1)
    ]
    with pytest.raises(UserError, match="the cells that both plan have not been run yet"):
        compare(*unfinished)
    other = map_regions(results_of(list(map(realistic_pair, grid()))), verdict=VerdictSpec(threshold=0.1))
    with pytest.raises(ValueError, match="different verdicts"):
        compare(ours, other)
