"""How cells are arranged in panels and on axes, and where the boundary of a known field lies."""

import random

import numpy as np
import pandas as pd
import pytest

from analysis.phase import map_regions
from lmc_tune.core.errors import UserError
from lmc_tune.results import PairResult
from lmc_tune.specs import ModelSpec, PairSpec, ShiftSpec
from tests.analysis.cases import COVARIATE, LABEL, grid, ok_pair, pair_spec, realistic_pair
from tests.analysis.test_cells import results_of


def flat(spec: PairSpec) -> PairResult:
    return ok_pair(spec, 0.01)


def test_two_axes_and_a_panel_per_shift() -> None:
    diagram = map_regions(results_of([realistic_pair(spec) for spec in grid()]))
    assert diagram.x is not None
    assert diagram.y is not None
    assert (diagram.x.column, diagram.x.scale, len(diagram.x.ticks)) == ("lr", "log", 6)
    assert (diagram.y.column, diagram.y.scale, len(diagram.y.ticks)) == ("batch_size", "log", 3)
    assert diagram.panels == ("covariate", "label 80/20")
    assert diagram.cells.groupby("panel").size().tolist() == [18, 18]
    assert set(diagram.boundary["panel"]) == set(diagram.panels)


def test_the_boundary_of_a_barrier_linear_in_log_lr_is_where_it_crosses() -> None:
    crossing = 0.05
    pairs = [
        ok_pair(spec, 0.02 + 0.01 * float(np.log10(spec.train.lr / crossing)))
        for spec in grid(lrs=(0.01, 0.03, 0.1, 0.3), shifts=(COVARIATE,), replicates=2)
    ]
    boundary = map_regions(results_of(pairs)).boundary
    np.testing.assert_allclose(boundary["x"].astype(float), crossing, rtol=1e-6)
    assert boundary["y"].min() == pytest.approx(8)
    assert boundary["y"].max() == pytest.approx(512)


def test_the_order_of_results_never_changes_the_diagram() -> None:
    pairs = [realistic_pair(spec) for spec in grid()]
    first = map_regions(results_of(pairs))
    random.Random(3).shuffle(pairs)
    second = map_regions(results_of(pairs))
    pd.testing.assert_frame_equal(first.cells, second.cells)
    pd.testing.assert_frame_equal(first.boundary, second.boundary)
    assert (first.panels, first.x, first.y, first.facets) == (second.panels, second.x, second.y, second.facets)


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


def test_other_settings_that_vary_get_panels_of_their_own() -> None:
    models = [ModelSpec(hidden=(width,), norm=norm) for width in (128, 64) for norm in ("none", "batch")]
    pairs = [
        flat(pair_spec(lr=lr, batch_size=size, model=model)) for model in models for lr in (0.1, 1) for size in (8, 16)
    ]
    assert map_regions(results_of(pairs)).panels == (
        "hidden 64 · norm none",
        "hidden 64 · norm batch",
        "hidden 128 · norm none",
        "hidden 128 · norm batch",
    )


def test_cells_that_no_column_tells_apart_are_not_drawn_over_each_other() -> None:
    coarse = pair_spec()
    fine = coarse.model_copy(update={"measure": coarse.measure.model_copy(update={"lambdas": 51})})
    diagram = map_regions(results_of([flat(coarse), flat(fine)]))
    assert diagram.panels == ("all cells", "setup 2")


def test_impossible_axes_are_refused() -> None:
    results = results_of([flat(pair_spec())])
    with pytest.raises(ValueError, match="did you mean 'batch_size'"):
        map_regions(results, y="batchsize")
    with pytest.raises(ValueError, match="two different axes"):
        map_regions(results, x="lr", y="lr")
    with pytest.raises(UserError, match="no pair has finished"):
        map_regions(results.iloc[:0])
