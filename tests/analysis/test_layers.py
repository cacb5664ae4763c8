"""The first layer to break: against loops over pairs, and laws."""

from collections.abc import Iterable
from dataclasses import replace
from random import Random

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from lmc_tune.analysis.layers import (
    END,
    first_by_axis,
    first_layers,
    layer_heights,
    layer_intervals,
    layer_rises,
    layers_by_epoch,
    said_of_layers,
)
from lmc_tune.analysis.phase import PhaseDiagram, map_regions
from lmc_tune.core.barrier import Definition
from lmc_tune.experiment import GroupSpec, VerdictSpec
from lmc_tune.tables.columns import TABLES, NestedName
from lmc_tune.tables.rows import PairResult
from tests.analysis.cases import COVARIATE, LABEL, N_TEST, diverged_pair, grid, ok_pair, pair_spec, results_of
from tests.analysis.layered import OTHER, Rises, layered_pair

SPECS = grid(lrs=(0.01, 0.1, 1.0), batch_sizes=(16, 64), shifts=(COVARIATE, LABEL), replicates=4)


def make(spec: GroupSpec) -> PairResult:
    """The larger the step, the nearer to the input is the first layer that breaks; under label shift none does."""
    jitter = spec.replicate % 2
    if spec.shift == LABEL:
        return layered_pair(spec, dict.fromkeys(("conv", "body", "head"), (jitter, 0)))
    if spec.train.lr == 0.01:
        return layered_pair(spec, {"conv": (0, 1), "body": (jitter, 0), "head": (1, 60 + jitter)})
    if spec.train.lr == 0.1:
        return layered_pair(spec, {"conv": (0, 0), "body": (80, jitter), "head": (70, 0)})
    return layered_pair(spec, {"conv": (3 + 10 * jitter, 0), "body": (90 + jitter, 90), "head": (0, 0)})


def seen(pairs: Iterable[PairResult], verdict: VerdictSpec | None = None) -> PhaseDiagram:
    return map_regions(results_of(list(pairs)), verdict=verdict)


def parts_of(pairs: Iterable[PairResult], name: NestedName = "layer_barriers") -> list[pa.Table]:
    rows = [{"key": pair.key, **row} for pair in pairs for row in pair.tables[name]]
    return [pa.Table.from_pylist(rows, schema=TABLES[name].schema)]


def firsts(pairs: list[PairResult], family: str = "single", verdict: VerdictSpec | None = None) -> pd.DataFrame:
    diagram = seen(pairs, verdict)
    heights = layer_heights(diagram, parts_of(pairs))
    assert heights is not None
    return first_layers(layer_intervals(diagram, heights), family).set_index("cell")


@pytest.fixture(scope="module")
def pairs() -> list[PairResult]:
    return [make(spec) for spec in SPECS]


def test_the_first_layer_to_break_is_the_nearest_to_the_input_whose_whole_interval_is_above(
    pairs: list[PairResult],
) -> None:
    found, cells = firsts(pairs), seen(pairs).cells.set_index("cell")
    expected = {0.01: ("head", 3, 0), 0.1: ("body", 2, 0), 1.0: ("body", 2, 1)}
    for cell, row in found.iterrows():
        assert row["places"] == 3
        assert row["n"] == 4
        if cells.loc[cell, "shift"] == "label":
            assert (row["outcome"], row["open_before"]) == ("none", 0)
            assert np.isnan(row["position"])
        else:
            assert row["outcome"] == "breaks"
            assert (row["moved"], row["position"], row["open_before"]) == expected[cells.loc[cell, "lr"]]
            assert row["low"] > 0.02
    assert set(found["outcome"]) == {"none", "breaks"}
    assert len(found) == 12


def test_the_shortest_run_of_first_layers_counts_what_they_do_together() -> None:
    small = [layered_pair(pair_spec(replicate=n), {"conv": (5, 5), "body": (5, 5), "head": (5, 5)}) for n in range(4)]
    assert firsts(small).iloc[0]["outcome"] == "none"
    found = firsts(small, "shallow").iloc[0]
    assert (found["outcome"], found["moved"], found["position"]) == ("breaks", "body", 2)
    assert found["mean"] == pytest.approx(10 / N_TEST)


def test_a_layers_barrier_is_the_mean_of_both_bases_pair_by_pair() -> None:
    alternating: list[Rises] = [{"conv": (40, 0)}, {"conv": (0, 40)}, {"conv": (40, 0)}, {"conv": (0, 40)}]
    own = [layered_pair(pair_spec(replicate=n), rises) for n, rises in enumerate(alternating)]
    diagram = seen(own)
    heights = layer_heights(diagram, parts_of(own))
    table = layer_intervals(diagram, heights)
    means = table[table["family"] == "single"].set_index("base")["mean"] * N_TEST
    assert means.to_dict() == pytest.approx({"a": 20, "b": 20, "both": 20})
    whole = table[table["family"] == "full"].set_index("base")["mean"] * N_TEST
    assert whole.to_dict() == pytest.approx(dict.fromkeys(("a", "b", "both"), 108))  # a hump of 0.3


def test_which_member_is_called_a_changes_nothing(pairs: list[PairResult]) -> None:
    def swapped(pair: PairResult) -> PairResult:
        rows = [
            row if row["family"] == "full" else {**row, "base": OTHER[row["base"]]}
            for row in pair.tables["layer_barriers"]
        ]
        return replace(pair, tables={**pair.tables, "layer_barriers": rows})

    pd.testing.assert_frame_equal(firsts(pairs), firsts([swapped(pair) for pair in pairs]))


def test_a_layer_that_has_the_whole_networks_barriers_has_the_verdicts_interval() -> None:
    rng = np.random.default_rng(3)
    verdict = VerdictSpec(threshold=0.1, barrier="midpoint")
    own = []
    for spec in SPECS:
        hump = float(rng.uniform(0.5, 1.5)) * spec.train.lr
        pair = layered_pair(spec, {"conv": (0, 0)}, hump=hump)
        column = "test_error_barrier_midpoint"
        barriers = [{**row, column: pair.row[column]} for row in pair.tables["layer_barriers"]]
        own.append(replace(pair, tables={**pair.tables, "layer_barriers": barriers}))
    diagram = seen(own, verdict)
    heights = layer_heights(diagram, parts_of(own))
    table = layer_intervals(diagram, heights)
    table = table[(table["family"] == "single") & (table["base"] == "both")].set_index("cell")
    cells = diagram.cells.set_index("cell").loc[table.index]
    for layer, cell in (("mean", "mean_barrier"), ("low", "low"), ("high", "high")):
        np.testing.assert_array_equal(table[layer], cells[cell])
    says = {"connected": "holds", "disconnected": "breaks", "undecided": "undecided"}
    assert table["says"].tolist() == [says[verdict] for verdict in cells["verdict"]]
    assert set(table["says"]) == set(says.values())


@pytest.mark.parametrize("barrier", ["chord", "midpoint"])
@pytest.mark.parametrize("n_lambdas", [1, 5])
def test_the_midpoint_counts_whatever_the_verdicts_definition_and_the_grid(barrier: Definition, n_lambdas: int) -> None:
    rises: Rises = {"conv": (-30, -30), "head": (30, 20)}
    own = [layered_pair(pair_spec(replicate=n), rises, n_lambdas=n_lambdas) for n in range(4)]
    diagram = seen(own, VerdictSpec(barrier=barrier))
    table = layer_intervals(diagram, layer_heights(diagram, parts_of(own)))
    table = table[(table["base"] == "a") & (table["family"] == "single")].set_index("moved")
    assert table["mean"].to_dict() == pytest.approx({"conv": -30 / N_TEST, "head": 30 / N_TEST})
    assert (table["low"] <= table["mean"]).all()
    assert (table["mean"] <= table["high"]).all()


def test_only_ok_pairs_of_judged_cells_count_and_a_barrier_that_is_not_finite_leaves_the_layer_undecided() -> None:
    rises: Rises = {"conv": (60, 60), "head": (0, 0)}
    own = [layered_pair(pair_spec(replicate=n), rises) for n in range(4)]
    lost = [diverged_pair(pair_spec(lr=1.0, replicate=n)) for n in range(3)]
    fresh = [replace(pair, tables=own[0].tables) for pair in lost]
    assert list(firsts([*own, *fresh]).index) == [own[0].row["cell"]]
    broken = own[1].tables["layer_barriers"]
    unknown = {"test_error_barrier_midpoint": np.nan}
    rows = [{**row, **unknown} if (row["moved"], row["base"]) == ("conv", "a") else row for row in broken]
    found = firsts([own[0], replace(own[1], tables={**own[1].tables, "layer_barriers": rows}), *own[2:]])
    assert found["outcome"].tolist() == ["undecided"]


def test_too_few_pairs_decide_nothing() -> None:
    own = [layered_pair(pair_spec(replicate=n), {"conv": (60, 60)}) for n in range(2)]
    assert firsts(own)["outcome"].tolist() == ["undecided"]


def test_nothing_was_measured_or_not_under_the_judged_condition(pairs: list[PairResult]) -> None:
    plain = [ok_pair(spec, 0.1) for spec in SPECS]
    assert layer_heights(seen(plain), parts_of(plain)) is None
    assert layer_heights(seen(plain), []) is None
    aligned = [{**row, "condition": "aligned"} for row in pairs[0].tables["layer_barriers"]]
    heights = layer_heights(seen(pairs), parts_of([replace(pairs[0], tables={"layer_barriers": aligned})]))
    assert heights is not None
    assert heights.conditions == ("aligned",)
    assert heights.rows.empty
    assert layer_intervals(seen(pairs), heights).empty


def test_the_rise_at_the_midpoint_is_the_barrier_and_the_highest_that_of_the_mean_of_the_ends() -> None:
    rises: Rises = {"conv": (12, 3), "head": (-9, 25)}
    pair = layered_pair(pair_spec(), rises, epochs=(0, None))
    diagram = seen([pair, *(ok_pair(pair_spec(replicate=n), 0.2) for n in range(1, 3))])
    table = layer_rises(diagram, parts_of([pair], "layer_paths"))
    assert len(table) == 2 * 2 * 5
    barriers = {
        (row["base"], row["moved"]): row
        for row in pair.tables["layer_barriers"]
        if row["family"] == "single" and row["epoch"] is None
    }
    for where, own in table.groupby(["base", "moved"]):
        half_way = own.loc[own["lambda"] == 0.5, "mean"].item()
        assert half_way == pytest.approx(barriers[where]["test_error_barrier_midpoint"], abs=1e-12)
        highest = barriers[where]["test_error_barrier_endpoint_mean"]
        assert own["mean"].max() == pytest.approx(highest, abs=1e-12)
        assert set(own["n"]) == {1}


def test_half_way_alone_there_are_no_rises_and_without_snapshots_no_epochs() -> None:
    half = [layered_pair(pair_spec(replicate=n), {"conv": (5, 5)}, n_lambdas=1) for n in range(3)]
    assert layer_rises(seen(half), parts_of(half, "layer_paths")).empty
    assert layer_rises(seen(half), []).empty
    heights = layer_heights(seen(half), parts_of(half))
    assert heights is not None
    assert layers_by_epoch(heights).empty


def test_epochs_are_means_of_both_bases_and_the_end_comes_last() -> None:
    own = [
        layered_pair(pair_spec(replicate=n), {"conv": (10 * n, 0), "head": (0, 20)}, epochs=(None, 0, 2))
        for n in range(3)
    ]
    heights = layer_heights(seen(own), parts_of(own))
    assert heights is not None
    table = layers_by_epoch(heights)
    assert table["epoch"].unique().tolist() == [0, 2, END]
    for moved, mean in (("conv", 5), ("head", 10)):
        found = table.loc[table["moved"] == moved, "mean"] * N_TEST
        assert found.tolist() == pytest.approx([mean / 2, mean / 2, mean])
    intervals = layer_intervals(seen(own), heights)
    assert len(intervals) == 3 * 2 * 3 + 3
    end = intervals[(intervals["family"] == "single") & (intervals["base"] == "both")].set_index("moved")
    assert (end["mean"] * N_TEST).to_dict() == pytest.approx({"conv": 5, "head": 10})
    assert set(end["n"]) == {3}


def test_how_the_first_layer_moves_along_every_setting_that_varies(pairs: list[PairResult]) -> None:
    diagram = seen(pairs)
    table = first_by_axis(diagram, firsts(pairs).reset_index())
    rows = table.set_index(["column", "value"])
    assert list(rows.index) == [
        ("lr", "0.01"),
        ("lr", "0.1"),
        ("lr", "1"),
        ("batch_size", "16"),
        ("batch_size", "64"),
        ("shift", "covariate"),
        ("shift", "label 80/20"),
    ]
    assert (rows["n"] == rows["n_breaks"] + rows["n_none"] + rows["n_undecided"]).all()
    assert rows["n"].tolist() == [4, 4, 4, 6, 6, 6, 6]
    assert rows.loc[("lr", "0.01"), "layers"] == {"#3 head": 2}
    batch = rows.loc[("batch_size", "16")]
    assert batch["layers"] == {"#2 body": 2, "#3 head": 1}
    assert (batch["mean_position"], batch["least_position"], batch["most_position"]) == (pytest.approx(7 / 3), 2, 3)
    assert rows.loc[("shift", "label 80/20"), ["n_breaks", "n_none"]].tolist() == [0, 6]


def test_the_answer_in_a_sentence(pairs: list[PairResult]) -> None:
    assert said_of_layers(seen(pairs), firsts(pairs).reset_index()) == (
        "In 6 of 12 disconnected cells no single layer carries a barrier; in 6 the first to break is #2 body (4) and "
        "#3 head (2)."
    )
    few = [layered_pair(pair_spec(replicate=n), {"conv": (60, 60)}) for n in range(4)]
    assert said_of_layers(seen(few), firsts(few).reset_index()) == (
        "In the one disconnected cell the first to break is #1 conv."
    )
    flat = [layered_pair(pair_spec(replicate=n), {"conv": (60, 60)}, hump=0.0) for n in range(4)]
    assert said_of_layers(seen(flat), firsts(flat).reset_index()) == (
        "In 1 connected cell a single layer breaks, though all layers together do not."
    )
    quiet = [layered_pair(pair_spec(replicate=n), {"conv": (0, 0)}, hump=0.0) for n in range(4)]
    assert said_of_layers(seen(quiet), firsts(quiet).reset_index()) == ""


def test_the_order_of_rows_and_how_they_are_cut_change_nothing(pairs: list[PairResult]) -> None:
    shuffled = [*pairs]
    Random(5).shuffle(shuffled)
    (whole,) = parts_of(shuffled)
    mixed = whole.take(pa.array(np.random.default_rng(6).permutation(len(whole))))
    diagram = seen(shuffled)
    heights = layer_heights(diagram, [mixed.slice(0, 3), mixed.slice(3)])
    assert heights is not None
    again = first_layers(layer_intervals(diagram, heights)).set_index("cell")
    pd.testing.assert_frame_equal(firsts(pairs), again, check_exact=True)
