"""How cells are arranged in panels and on axes, and where the boundary of a known field lies."""

from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmc_tune.analysis.phase import PhaseDiagram, map_regions
from lmc_tune.analysis.report.charts.phase_chart import phase_chart, phase_table
from lmc_tune.analysis.report.charts.style import tick_axis
from lmc_tune.analysis.wording import verdict_words
from lmc_tune.core.statistics import VERDICTS
from lmc_tune.errors import UserError
from lmc_tune.experiment import GroupSpec, MlpSpec, ResnetSpec, ShiftSpec, VerdictSpec
from lmc_tune.experiment.reading import parse_space
from lmc_tune.tables.rows import PairResult
from tests.analysis.cases import (
    COVARIATE,
    LABEL,
    diverged_pair,
    grid,
    ok_pair,
    pair_spec,
    realistic_pair,
    results_of,
    space_of,
)

ALL_PAIRS = results_of([realistic_pair(spec) for spec in grid()])


def flat(spec: GroupSpec) -> PairResult:
    return ok_pair(spec, 0.01)


def test_two_axes_and_a_panel_per_shift() -> None:
    diagram = map_regions(ALL_PAIRS)
    assert diagram.x is not None
    assert diagram.y is not None
    assert (diagram.x.column, diagram.x.scale, len(diagram.x.ticks)) == ("lr", "log", 6)
    assert (diagram.y.column, diagram.y.scale, len(diagram.y.ticks)) == ("batch_size", "log", 3)
    assert diagram.panels == ("covariate", "label 80/20")
    assert diagram.cells.groupby("panel").size().tolist() == [18, 18]
    assert set(diagram.boundary["panel"]) == set(diagram.panels)


def test_the_boundary_stands_between_the_tiles_where_the_mean_crosses() -> None:
    pairs = [
        ok_pair(spec, 0.01 if spec.train.lr < 0.05 else 0.03)
        for spec in grid(lrs=(0.01, 0.03, 0.1, 0.3), shifts=(COVARIATE,), replicates=2)
    ]
    boundary = map_regions(results_of(pairs)).boundary
    np.testing.assert_allclose(boundary[["x", "x2"]].astype(float), np.sqrt(0.03 * 0.1), rtol=1e-9)
    np.testing.assert_allclose(boundary[["y", "y2"]].astype(float), [[8, 32], [32, 128], [128, 512]])


def decaying(decay: float, hump: float = 0.01, lr: float = 0.1) -> PairResult:
    spec = pair_spec(lr=lr)
    return ok_pair(spec.model_copy(update={"train": spec.train.model_copy(update={"weight_decay": decay})}), hump)


@given(st.lists(st.sampled_from([0.0, 1e-5, 1e-4, 1.1e-4, 5e-4, 0.01, 0.02, 0.5]), min_size=2, unique=True))
def test_whatever_the_values_of_an_axis_every_tile_can_be_seen(decays: list[float]) -> None:
    diagram = map_regions(results_of([decaying(decay, lr=lr) for decay in decays for lr in (0.01, 0.1)]))
    table, axis = phase_table(diagram), diagram.y
    assert axis is not None
    heights = table["y_high"] - table["y_low"]
    if axis.scale == "log":
        heights = np.log(table["y_high"] / table["y_low"])
    assert heights.min() >= 0.3 * heights.unique().mean()
    assert sorted(table["weight_decay"].unique()) == sorted(decays)
    np.testing.assert_allclose(axis.value(axis.position(axis.edges)), axis.edges, atol=1e-12)


def test_the_boundary_of_an_axis_with_equal_steps_is_between_its_values() -> None:
    humps = {0.0: 0.01, 1e-4: 0.01, 0.01: 0.03}
    pairs = [decaying(decay, hump, lr) for decay, hump in humps.items() for lr in (0.01, 0.1)]
    diagram = map_regions(results_of(pairs))
    assert diagram.y is not None
    assert (diagram.y.scale, diagram.y.ticks) == ("steps", (0.0, 1e-4, 0.01))
    rows = diagram.boundary[["y", "y2"]].astype(float)
    np.testing.assert_allclose(diagram.y.position(rows), 1.5, rtol=1e-6)
    np.testing.assert_allclose(rows, (1e-4 + 0.01) / 2, rtol=1e-6)


def test_the_order_of_results_never_changes_the_diagram() -> None:
    pairs = [realistic_pair(spec) for spec in grid()]
    first = map_regions(results_of(pairs))
    Random(3).shuffle(pairs)
    second = map_regions(results_of(pairs))
    pd.testing.assert_frame_equal(first.cells, second.cells)
    pd.testing.assert_frame_equal(first.boundary, second.boundary)
    assert (first.panels, first.x, first.y, first.facets) == (second.panels, second.x, second.y, second.facets)


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 179))
def test_whatever_part_of_a_space_has_run_it_is_drawn_over_the_whole(random: Random, n: int) -> None:
    space = space_of()
    whole = map_regions(ALL_PAIRS, space=space)
    part = ALL_PAIRS.sample(n, random_state=random.randrange(2**32))
    diagram = map_regions(part, space=space)
    assert (diagram.x, diagram.y, diagram.panels) == (whole.x, whole.y, whole.panels)
    assert len(diagram.pairs) == n
    assert set(diagram.cells["cell"]) == set(part["cell"])
    assert sorted([*diagram.cells["cell"], *diagram.not_run["cell"]]) == whole.cells["cell"].tolist()
    placed = pd.concat([diagram.cells, diagram.not_run]).set_index("cell").sort_index()
    columns = ["lr", "batch_size", "panel"]
    pd.testing.assert_frame_equal(placed[columns], whole.cells.set_index("cell")[columns], check_dtype=False)
    of_the_map = ["panel", "beside_diverged"]
    pd.testing.assert_frame_equal(
        diagram.cells.drop(columns=of_the_map), map_regions(part).cells.drop(columns=of_the_map), check_exact=True
    )


def test_a_cell_that_has_not_run_has_no_verdict() -> None:
    some = ALL_PAIRS[ALL_PAIRS["lr"] != 0.03]
    table = phase_table(map_regions(some, space=space_of()))
    not_run = table["lr"] == 0.03
    assert set(table.loc[not_run, "verdict"]) == {"not run"}
    assert set(table.loc[~not_run, "verdict"]) <= set(VERDICTS)
    assert table.loc[not_run, ["shown_barrier", "shown_low", "shown_high"]].isna().all(axis=None)
    assert not table.loc[not_run, "judged"].any()
    tiles = table.groupby(["panel", "batch_size"])[["x_low", "x_high"]].agg(["min", "max"])
    assert len(tiles.drop_duplicates()) == 1


def test_pairs_that_are_not_planned_are_left_out() -> None:
    space = space_of(lrs=(0.01, 0.1), replicates=3)
    planned = ALL_PAIRS[ALL_PAIRS["lr"].isin((0.01, 0.1)) & (ALL_PAIRS["replicate"] < 3)]
    diagram, alone = map_regions(ALL_PAIRS, space=space), map_regions(planned, space=space)
    pd.testing.assert_frame_equal(diagram.cells, alone.cells)
    pd.testing.assert_frame_equal(diagram.pairs, alone.pairs)
    assert (diagram.other_pairs, alone.other_pairs) == (180 - 36, 0)
    with pytest.raises(UserError, match="none of the 180 finished pairs belongs to the space 'quickstart'"):
        map_regions(ALL_PAIRS, space=space_of(lrs=(0.5,)))


def test_the_spaces_verdict_is_the_default() -> None:
    verdict = VerdictSpec(threshold=0.3, barrier="midpoint")
    diagram = map_regions(ALL_PAIRS, space=space_of(verdict=verdict))
    assert diagram.verdict == verdict
    pd.testing.assert_frame_equal(diagram.cells, map_regions(ALL_PAIRS, verdict=verdict).cells)


@pytest.mark.parametrize("lrs", [(0.1,), (0.01, 0.1, 1.0)])
def test_strips_show_what_has_not_run(lrs: tuple[float, ...]) -> None:
    space = space_of(lrs=lrs, batch_sizes=(64,), replicates=2)
    results = results_of([realistic_pair(spec) for spec in grid((0.1,), (64,), (COVARIATE,), replicates=2)])
    diagram = map_regions(results, space=space)
    chart = phase_chart(diagram, phase_table(diagram)).to_dict()
    rows = [row for rows in chart["datasets"].values() for row in rows if row.get("verdict") == "not run"]
    assert {row["cell"] for row in rows} == set(diagram.not_run["cell"])
    assert len(diagram.not_run) == 2 * len(lrs) - 1


def test_a_sweep_over_one_axis_has_no_second() -> None:
    diagram = map_regions(results_of([flat(spec) for spec in grid(lrs=(0.1,))]))
    assert diagram.x is not None
    assert (diagram.x.column, diagram.y) == ("batch_size", None)
    assert diagram.boundary.empty


def test_a_severity_can_be_an_axis_within_one_kind_of_shift() -> None:
    shifts = [ShiftSpec(kind="label", severity=severity) for severity in (0.2, 0.6, 1.0)]
    diagram = map_regions(results_of([flat(spec) for spec in grid(batch_sizes=(64,), shifts=shifts)]))
    assert diagram.y is not None
    assert (diagram.y.column, diagram.y.scale, diagram.panels) == ("severity", "linear", ("all cells",))


def test_severities_that_go_with_their_kind_are_no_axis() -> None:
    shifts = (ShiftSpec(kind="none"), COVARIATE, LABEL)
    diagram = map_regions(results_of([flat(spec) for spec in grid(lrs=(0.1,), batch_sizes=(64,), shifts=shifts)]))
    assert (diagram.x, diagram.y) == (None, None)
    assert diagram.panels == ("no shift", "covariate", "label 80/20")


def mapped(text: str) -> PhaseDiagram:
    """The diagram of a finished sweep of a space: its barriers rise with the place of the cell."""
    space = parse_space(f"name: two members\ndataset: digits\nshift: {{kind: none}}\nreplicates: 2\n{text}")
    pairs = [ok_pair(pair, 0.01 * at) for at, cell in enumerate(space.cells()) for pair in map(cell.pair, range(2))]
    return map_regions(results_of(pairs), space=space)


def test_what_b_has_otherwise_is_an_axis() -> None:
    diagram = mapped("train: {batch_size: 64, epochs: 20}\naxes: {lr: [0.01, 0.1], b.lr: [0.02, 0.2, 1.0]}")
    assert [(axis.column, axis.scale) for axis in diagram.axes] == [("lr", "log"), ("b_lr", "log")]
    assert [tick_axis(axis).title for axis in diagram.axes] == [
        "learning rate of A (log scale)",
        "learning rate of B (log scale)",
    ]
    assert (diagram.title("noise_scale"), diagram.title("batch_size")) == ("noise scale g of A", "batch size")
    assert diagram.panels == ("all cells",)
    assert set(zip(diagram.cells["lr"], diagram.cells["b_lr"], strict=True)) == {
        (a, b) for a in (0.01, 0.1) for b in (0.02, 0.2, 1.0)
    }
    assert not diagram.boundary.empty


def test_what_b_has_otherwise_in_some_cells_alone_is_no_axis() -> None:
    diagram = mapped("train: {lr: 0.1, batch_size: 64, epochs: 20}\naxes: {b: [{}, {lr: 0.2}, {lr: 1.0}]}")
    assert diagram.axes == []
    assert diagram.panels == ("learning rate of B 0.2", "learning rate of B 1", "learning rate of B as A")


def test_a_budget_of_b_takes_the_place_of_a_s_whichever_that_is() -> None:
    steps = mapped("train: {lr: 0.1, batch_size: 64, epochs: 20}\naxes: {b.steps: [10, 20]}")
    assert steps.of_a == {"epochs", "step_budget"}
    train = "train: {lr: 0.1, batch_size: 64, steps: 100}"
    panels = mapped(f"{train}\naxes: {{b: [{{}}, {{epochs: 5}}, {{steps: 50}}]}}").panels
    assert set(panels) == {"epochs of B 5", "steps of B 50", "epochs of B as A · steps of B as A"}


def test_titles_say_whose_a_setting_is_where_b_has_its_own() -> None:
    train, b = "train: {batch_size: 64, epochs: 20}", "b: {batch_size: 32, momentum: 0.5}"
    both = mapped(f"{train}\naxes: {{lr: [0.01, 0.1]}}")
    assert (both.of_a, both.title("noise_scale")) == (frozenset(), "noise scale g")
    fixed = mapped(f"{train}\n{b}\naxes: {{lr: [0.01, 0.1]}}")
    assert fixed.of_a == {"batch_size", "momentum", "noise_scale"}
    assert [axis.title for axis in fixed.axes] == ["learning rate"]
    faceted = mapped(
        "train: {epochs: 20}\nb: {momentum: 0.5}\naxes: {lr: [0.01, 0.1], batch_size: [32, 64], momentum: [0.0, 0.9]}"
    )
    assert faceted.panels == ("momentum of A 0", "momentum of A 0.9")
    assert faceted.title("noise_scale") == "noise scale g"


def test_what_is_not_disturbed_is_not_called_unknown() -> None:
    diagram = mapped(
        "train: {lr: 0.1, batch_size: 64, epochs: 20}\naxes: {perturb: [{}, {step: 5, scale: 0.1, weights: one}]}"
    )
    assert diagram.panels == (
        "step of the disturbance 5 · scale of the disturbance 0.1 · disturbed weights one",
        "step of the disturbance none · scale of the disturbance none · disturbed weights none",
    )


def test_how_far_weights_are_disturbed_is_an_axis() -> None:
    diagram = mapped(
        "train: {batch_size: 64, epochs: 20}\nperturb: {step: 10}\naxes: {lr: [0.01, 0.1], perturb.scale: [0.0, 0.1]}"
    )
    assert [(axis.column, axis.scale) for axis in diagram.axes] == [("lr", "log"), ("perturb_scale", "linear")]
    assert diagram.panels == ("all cells",)


def test_other_settings_that_vary_get_panels_of_their_own() -> None:
    models = [MlpSpec(hidden=(width,), norm=norm) for width in (128, 64) for norm in ("none", "batch")]
    pairs = [
        flat(pair_spec(lr=lr, batch_size=size, model=model)) for model in models for lr in (0.1, 1) for size in (8, 16)
    ]
    assert map_regions(results_of(pairs)).panels == (
        "hidden 64 · no norm",
        "hidden 64 · batch norm",
        "hidden 128 · no norm",
        "hidden 128 · batch norm",
    )


def test_networks_of_several_kinds_are_told_by_what_their_own_kind_varies() -> None:
    models = [MlpSpec(hidden=(64,)), MlpSpec(hidden=(64,), norm="batch"), ResnetSpec(depth=8)]
    pairs = [flat(pair_spec(lr=lr, model=model)) for model in models for lr in (0.1, 1)]
    assert map_regions(results_of(pairs)).panels == (
        "model mlp · no norm",
        "model mlp · batch norm",
        "model resnet",
    )


def test_cells_that_no_column_tells_apart_are_not_drawn_over_each_other() -> None:
    one, other = flat(pair_spec()), flat(pair_spec())
    other.row.update(key="another", cell="another")
    diagram = map_regions(results_of([one, other]))
    assert diagram.panels == ("all cells", "setup 2")


def test_impossible_axes_are_refused() -> None:
    results = results_of([flat(pair_spec())])
    for wrong, near in (("batchsize", "batch_size"), ("lrr", "lr"), ("learning_rate", "lr")):
        with pytest.raises(
            ValueError, match=rf"^'{wrong}' is not a numeric column of the spec; did you mean {near}\?$"
        ):
            map_regions(results, x="severity", y=wrong)
    with pytest.raises(
        ValueError, match=r"^'hidden' is not a numeric column of the spec; choose from lr, batch_size, "
    ):
        map_regions(results, y="hidden")
    with pytest.raises(ValueError, match="two different axes"):
        map_regions(results, x="lr", y="lr")
    with pytest.raises(UserError, match="no pair has finished"):
        map_regions(results.iloc[:0])


def test_judged_cells_next_to_a_diverged_one_along_an_axis_are_marked() -> None:
    def pair(lr: float, batch_size: int, shift: ShiftSpec, replicate: int) -> PairResult:
        spec = pair_spec(lr=lr, batch_size=batch_size, shift=shift, replicate=replicate)
        diverges = (lr, batch_size, shift) in {(1.0, 16, COVARIATE), (1.0, 64, COVARIATE)}
        return diverged_pair(spec) if diverges else ok_pair(spec, 0.2)

    pairs = [
        pair(lr, batch_size, shift, replicate)
        for lr in (0.1, 0.3, 1.0)
        for batch_size in (16, 64, 256)
        for shift in (COVARIATE, LABEL)
        for replicate in range(3)
    ]
    cells = map_regions(results_of(pairs)).cells
    marked = cells[cells["beside_diverged"]]
    assert sorted(zip(marked["lr"], marked["batch_size"], marked["shift"], strict=True)) == [
        (0.3, 16, "covariate"),
        (0.3, 64, "covariate"),
        (1.0, 256, "covariate"),
    ]
    one_axis = map_regions(
        results_of([p for p in pairs if p.row["batch_size"] == 16 and p.row["shift"] == "covariate"])
    )
    assert one_axis.cells.loc[one_axis.cells["beside_diverged"], "lr"].tolist() == [0.3]


def test_the_words_of_a_verdict_name_both_splits_where_they_say_the_opposite() -> None:
    apart = {"verdict": "connected", "on_test": "connected", "on_train": "disconnected", "split_apart": True}
    assert verdict_words(apart) == "connected on test, disconnected on train"
    assert verdict_words({**apart, "split_apart": False}) == "connected"
