"""Conditions side by side, against loops over pairs and verdicts by hand."""

import numpy as np
import pandas as pd
import pytest

from lmc_tune.analysis.phase import map_regions
from lmc_tune.analysis.report.sections.conditions import (
    condition_chart,
    condition_counts,
    condition_table,
    disconnected_then_aligned,
    judged_condition,
    make,
    said_of_alignment,
)
from lmc_tune.core.statistics import fit_spread, mean_interval, verdict_of_interval
from lmc_tune.experiment import MlpSpec, VerdictSpec
from lmc_tune.tables.cells import CONDITION_BARRIERS, mean_intervals
from lmc_tune.tables.rows import PairResult
from tests.analysis.cases import NETWORKS, measured_pair, ok_pair, pair_spec, results_of
from tests.analysis.measured import Measured, context_of

COLUMNS = {"naive": "test_error_barrier_chord", "recalibrated": "recalibrated_test_error_barrier_chord"}


def test_each_condition_has_the_mean_of_its_own_column_over_the_ok_pairs(measured: Measured) -> None:
    table = condition_table(measured.diagram, measured.intervals)
    cells = measured.diagram.cells
    assert set(table["cell"]) == set(cells.loc[cells["norm"] == "batch", "cell"])
    assert table.groupby("cell")["condition"].agg(list).map(tuple).unique().tolist() == [("naive", "recalibrated")]
    for row in table.to_dict("records"):
        barriers = measured.ok(row["cell"])[COLUMNS[row["condition"]]].to_list()
        if row["condition"] == measured.diagram.verdict.condition:  # as the map and the table of cells say
            low, high = cells.set_index("cell").loc[row["cell"], ["low", "high"]]
        else:
            low, high = _bounds(measured, COLUMNS[row["condition"]]).loc[row["cell"]]
        np.testing.assert_allclose(
            [row["shown_barrier"], row["shown_low"], row["shown_high"]], [np.mean(barriers), low, high], atol=1e-12
        )
        assert row["by_condition"] == verdict_of_interval(low, high, 0.02)


def _bounds(measured: Measured, column: str) -> pd.DataFrame:
    """Cell by cell, from the ok pairs: a score interval, at least one test example wide on both sides, from 0 up."""
    of_cells = pd.concat(measured.ok(cell) for cell in measured.diagram.cells["cell"]).groupby("cell")[column]
    mean, variance, size = of_cells.mean(), of_cells.var(), of_cells.size()
    spread = fit_spread(mean, variance, size)
    assert spread is not None
    one_example = 1 / 360
    bounds = {}
    for cell in mean.index:
        low, high = mean_interval(mean[cell], variance[cell], size[cell], spread=spread)
        bounds[cell] = max(0, min(low, mean[cell] - one_example)), max(high, mean[cell] + one_example)
    return pd.DataFrame.from_dict(bounds, orient="index")


def test_the_cells_have_the_same_means_for_the_table_of_cells(measured: Measured) -> None:
    for row in measured.diagram.cells.to_dict("records"):
        pairs = measured.ok(row["cell"])
        assert row["naive_barrier"] == pytest.approx(pairs[COLUMNS["naive"]].mean(), abs=1e-12)
        if row["norm"] == "batch":
            assert row["recalibrated_barrier"] == pytest.approx(row["mean_barrier"], abs=1e-12)
            assert row["naive_barrier"] > row["recalibrated_barrier"] + 0.3
        else:
            assert np.isnan(row["recalibrated_barrier"])
        assert np.isnan(row["repaired_barrier"])


def test_the_counts_are_those_of_the_cells_by_condition(measured: Measured) -> None:
    table = condition_table(measured.diagram, measured.intervals)
    counts = condition_counts(table, measured.diagram.verdict).set_index("condition")
    assert counts.index.tolist() == ["naive", "recalibrated"]
    for condition, row in counts.iterrows():
        tally = {"connected": 0, "disconnected": 0, "undecided": 0}
        for name in table.loc[table["condition"] == condition, "by_condition"]:
            tally[name] += 1
        assert {name: int(row[name]) for name in tally} == tally
    assert counts.loc["naive", "disconnected"] == "8"
    assert counts.loc["recalibrated", "disconnected"] != "8"


def test_the_judged_condition_is_marked_and_falls_back_where_there_is_no_batch_norm(measured: Measured) -> None:
    section = make(measured.context)
    assert section is not None
    assert section.table["condition"][section.marked] == "recalibrated"
    assert "This page judges recalibrated" in section.lead
    none_of_it = pd.DataFrame({"condition": ["naive", "repaired"]})
    assert judged_condition(VerdictSpec(), none_of_it) == "naive"
    assert judged_condition(VerdictSpec(condition="repaired"), none_of_it) == "repaired"


def test_one_condition_alone_is_no_comparison() -> None:
    diagram = map_regions(results_of([ok_pair(pair_spec(replicate=k), 0.1) for k in range(3)]))
    assert make(context_of(diagram)) is None


def test_repaired_stands_beside_naive_without_batch_norm() -> None:
    pairs = [ok_pair(pair_spec(replicate=k), 0.2) for k in range(3)]
    for k, pair in enumerate(pairs):
        pair.row["repaired_test_error_barrier_chord"] = 0.01 * k
    diagram = map_regions(results_of(pairs))
    intervals = mean_intervals(diagram.pairs, CONDITION_BARRIERS, diagram.cells, diagram.verdict)
    table = condition_table(diagram, intervals)
    assert table["condition"].tolist() == ["naive", "repaired"]
    assert table["shown_barrier"].tolist() == pytest.approx([diagram.cells["mean_barrier"][0], 0.01])
    spec = condition_chart(diagram, table, diagram.cells["cell"][0]).to_dict()
    assert "datum.label === 'naive'" in str(spec)


def test_a_pair_without_a_finite_barrier_hides_its_cells_mean() -> None:
    spec = pair_spec(model=NETWORKS[1])
    pairs = [measured_pair(spec.model_copy(update={"replicate": k})) for k in range(3)]
    pairs[1].row["test_error_barrier_chord"] = np.nan
    diagram = map_regions(results_of(pairs))
    intervals = mean_intervals(diagram.pairs, CONDITION_BARRIERS, diagram.cells, diagram.verdict)
    assert condition_table(diagram, intervals).empty  # recalibrated alone is left
    assert np.isnan(diagram.cells["naive_barrier"][0])


def test_of_all_four_each_is_its_own_column() -> None:
    spec = pair_spec(model=NETWORKS[1])
    pairs = [measured_pair(spec.model_copy(update={"replicate": k}), hump=0.1) for k in range(2)]
    for pair in pairs:
        pair.row["endpoint_test_error_barrier_chord"], pair.row["repaired_test_error_barrier_chord"] = 0.7, 0.3
    diagram = map_regions(results_of(pairs))
    intervals = mean_intervals(diagram.pairs, CONDITION_BARRIERS, diagram.cells, diagram.verdict)
    table = condition_table(diagram, intervals).set_index("condition")["shown_barrier"]
    assert table.index.tolist() == ["naive", "endpoint", "recalibrated", "repaired"]
    assert table[["endpoint", "repaired"]].tolist() == pytest.approx([0.7, 0.3])
    assert table["recalibrated"] == pytest.approx(0.1, rel=0.05)
    assert table["naive"] == pytest.approx(0.5, rel=0.05)


# Of a cell, the barriers of its pairs as they are and once B is aligned: what becomes of it.
OUTCOMES = {
    "only a permutation": (0.3, 0.0),
    "only a permutation too": (0.4, 0.001),
    "still disconnected": (0.3, 0.2),
    "undecided": (0.3, 0.02),
    "connected before": (0.0, 0.0),
}


def aligned_cells(prefix: str, model: MlpSpec) -> list[PairResult]:
    """Five cells of three pairs; ``prefix``: of the condition with fresh statistics, if it has a column of its own."""
    pairs = []
    for at, (before, after) in enumerate(OUTCOMES.values()):
        for k in range(3):
            pair = ok_pair(pair_spec(lr=0.01 * (at + 1), replicate=k, model=model), before + 0.001 * k)
            column, row = "test_error_barrier_chord", pair.row
            row[f"aligned_{prefix}{column}"] = after + 0.001 * k
            if prefix:  # stale statistics alone part the members, aligned or not
                row[f"{prefix}{column}"], row[column], row[f"aligned_{column}"] = row[column], 0.5, 0.5
            row |= {"permutable_units": 64, "permuted_units": 60, "frozen_units": ""}
            pairs.append(pair)
    return pairs


@pytest.mark.parametrize(
    ("prefix", "model", "verdict"),
    [
        ("", MlpSpec(), VerdictSpec()),
        ("", MlpSpec(), VerdictSpec(condition="aligned")),
        ("recalibrated_", MlpSpec(norm="batch"), VerdictSpec()),
        ("recalibrated_", MlpSpec(norm="batch"), VerdictSpec(condition="aligned + recalibrated")),
    ],
)
def test_how_much_of_the_disconnected_region_is_only_a_permutation(
    prefix: str, model: MlpSpec, verdict: VerdictSpec
) -> None:
    diagram = map_regions(results_of(aligned_cells(prefix, model)), verdict=verdict)
    context = context_of(diagram)
    table = condition_table(diagram, context.intervals)
    assert disconnected_then_aligned(table) == {"connected": 2, "disconnected": 1, "undecided": 1}
    section = make(context)
    assert section is not None
    said = (
        " With B as it is, 4 cells are disconnected; of these, 2 are connected, 1 stays disconnected and 1 is "
        "undecided once B's units are permuted towards A's. Where that connects a cell, its barrier is only a "
    )
    assert f"{said}permutation." in section.lead
    assert "no hidden unit" not in section.lead
    counts = section.table.set_index("condition")
    assert counts.loc[f"aligned{' + recalibrated' * bool(prefix)}", "connected"] == "3"
    assert section.table["condition"][section.marked] == verdict.condition.replace(
        "recalibrated", "recalibrated" if prefix else "naive"
    )
    assert diagram.cells.set_index("lr").loc[0.01, "verdict"] == (
        "connected" if "aligned" in verdict.condition else "disconnected"
    )


def test_cells_whose_units_cannot_move_are_named_with_the_reason() -> None:
    pairs = aligned_cells("", MlpSpec())
    for pair in pairs[6:9]:  # of the cell that stays disconnected
        pair.row.update(permutable_units=0, permuted_units=0, frozen_units="norm normalises 2 groups of channels")
    section = make(context_of(map_regions(results_of(pairs))))
    assert section is not None
    assert "In 1 cell no hidden unit can be permuted (norm normalises 2 groups of channels)" in section.lead


def test_nothing_is_said_of_alignment_where_none_was_measured(measured: Measured) -> None:
    table = condition_table(measured.diagram, measured.intervals)
    assert disconnected_then_aligned(table) == {}
    assert said_of_alignment(measured.diagram, table) == ""
    several = aligned_cells("", MlpSpec())[-3:]
    diagram = map_regions(results_of(several))
    table = condition_table(diagram, context_of(diagram).intervals)
    assert said_of_alignment(diagram, table) == " No cell is disconnected before B's units are permuted."
