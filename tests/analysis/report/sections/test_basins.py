"""Basin depths against loops, and by hand."""

from dataclasses import replace
from itertools import pairwise
from random import Random

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy import stats

from lmc_tune.analysis.phase import map_regions
from lmc_tune.analysis.report.sections import noise_scale
from lmc_tune.analysis.report.sections.basins import basin_chart, basin_depths, basin_table, make
from lmc_tune.tables.columns import PATHS
from tests.analysis.cases import COVARIATE, LABEL, measured_pair, pair_spec, results_of
from tests.analysis.measured import Measured, context_of


def path(key: str, losses: list[float], condition: str = "naive", split: str = "test") -> list[dict]:
    lambdas = np.linspace(0, 1, len(losses))
    return [
        {"key": key, "condition": condition, "split": split, "lambda": at, "loss_sum": 4 * loss, "correct": 1, "n": 4}
        for at, loss in zip(lambdas, losses, strict=True)
    ]


def depths(*paths: list[dict], condition: str = "naive") -> dict[str, float]:
    rows = [row for path in paths for row in path]
    return basin_depths([pa.Table.from_pylist(rows, PATHS.schema)], condition).to_dict()


def test_depths_by_hand() -> None:
    found = depths(
        path("basin", [0.5, 0.1, 0.2, 0.3, 0.4]),  # read in the middle, not where it is lowest
        path("flat", [0.5, 0.5, 0.5]),
        path("hump", [0.5, 0.9, 0.4]),
        path("slope", [0.9, 0.7, 0.4]),  # lower than one end, not than the other
        path("spike", [0.5, np.inf, 0.6]),
    )
    assert found.pop("spike") == -np.inf
    assert found == pytest.approx({"basin": 0.2, "flat": 0.0, "hump": -0.5, "slope": -0.3})
    lost = depths(
        path("no number", [0.5, np.nan, 0.6]),
        path("lost end", [np.nan, 0.1, 0.6]),
        path("no middle", [0.5, 0.1, 0.1, 0.6]),
    )
    assert np.isnan(list(lost.values())).all()


def test_the_verdicts_condition_counts_and_the_test_split_alone() -> None:
    paths = (
        path("p", [0.5, 0.4, 0.5]),
        path("p", [0.5, 0.1, 0.5], split="train"),
        path("p", [0.5, 0.3, 0.5], condition="recalibrated"),
        path("q", [0.5, 0.45, 0.5]),
    )
    assert depths(*paths) == pytest.approx({"p": 0.1, "q": 0.05})
    assert depths(*paths, condition="recalibrated") == pytest.approx({"p": 0.2, "q": 0.05})


def test_nothing_measured_no_depth() -> None:
    assert basin_depths([], "naive").empty
    assert basin_depths([PATHS.schema.empty_table()], "naive").empty


def test_the_table_is_the_mean_over_ok_pairs_with_its_interval(measured: Measured) -> None:
    paths = measured.store.table("paths")
    table = basin_table(measured.diagram, measured.context.added["basin_depth"], measured.intervals)
    assert len(table) == int(measured.diagram.cells["judged"].sum()) == 16
    for row in table.to_dict("records"):
        expected = []
        for pair in measured.ok(row["cell"]).to_dict("records"):
            condition = "recalibrated" if pair["norm"] == "batch" else "naive"
            own = paths[
                (paths["key"] == pair["key"]) & (paths["split"] == "test") & (paths["condition"] == condition)
            ].sort_values("lambda")
            loss = (own["loss_sum"] / own["n"]).to_list()
            (middle,) = own.loc[own["lambda"] == 0.5, "loss_sum"] / own.loc[own["lambda"] == 0.5, "n"]
            expected.append(min(loss[0], loss[-1]) - middle)
        low, high = stats.t.interval(0.95, len(expected) - 1, loc=np.mean(expected), scale=stats.sem(expected))
        np.testing.assert_allclose(
            [row["depth"], row["depth_low"], row["depth_high"]], [np.mean(expected), low, high], atol=1e-12
        )
        assert (row["n_basins"], row["n_ok"]) == (sum(depth > 0 for depth in expected), len(expected))
    assert 0 < table["n_basins"].sum() < table["n_ok"].sum()


def test_how_the_paths_are_cut_and_ordered_changes_nothing(measured: Measured) -> None:
    whole = pa.concat_tables(measured.store.parts("paths"))
    keys = whole["key"].unique().to_pylist()
    Random(1).shuffle(keys)
    borders = [0, 3, 3, 20, len(keys)]
    parts = [
        whole.filter(pc.is_in(whole["key"], value_set=pa.array(keys[start:end], pa.string())))
        for start, end in pairwise(borders)
    ]
    once, cut_up = (basin_depths(each, "recalibrated") for each in ([whole], parts))
    pd.testing.assert_series_equal(once.sort_index(), cut_up.sort_index(), check_exact=True, check_index_type=False)


def test_the_section_counts_basins_and_draws_every_cell(measured: Measured) -> None:
    table = basin_table(measured.diagram, measured.context.added["basin_depth"], measured.intervals)
    section = make(measured.context)
    assert section is not None
    n, of = table["n_basins"].sum(), table["n_ok"].sum()
    assert section.lead.startswith(f"In {n} of {of} counted pairs the average")
    spec = basin_chart(measured.diagram, table).to_dict()
    assert {row["cell"] for rows in spec["datasets"].values() for row in rows if "cell" in row} == set(table["cell"])


@pytest.mark.parametrize(
    ("varied", "along"),
    [
        ({"lr": (0.01, 0.1)}, "g"),
        ({"shift": (LABEL, LABEL.model_copy(update={"severity": 0.2}))}, "place"),
        ({"shift": (COVARIATE, LABEL)}, None),
    ],
)
def test_cells_of_one_noise_scale_stand_along_the_axis_or_in_rows(varied, along) -> None:
    """Against the noise scale, they would all lie at one place; there is no section of it either."""
    ((field, values),) = varied.items()
    specs = [pair_spec(**{field: value}, replicate=replicate) for value in values for replicate in range(3)]
    diagram = map_regions(results_of([measured_pair(spec) for spec in specs]))
    rows = [path(key, [0.5, 0.3, 0.4]) for key in diagram.pairs["key"]]
    table = pa.Table.from_pylist([row for own in rows for row in own], PATHS.schema)
    context = context_of(diagram, parts=lambda name: [table] if name == "paths" else [])
    section = make(context)
    assert section is not None
    spec = section.chart.to_dict()
    (points,) = [layer for layer in views(spec) if layer.get("mark", {}).get("filled")]
    assert points["encoding"]["x"]["field"] == (along or "depth")
    assert points["encoding"]["y"]["field"] == ("depth" if along else "panel")
    drawn = [row for rows in spec["datasets"].values() for row in rows if "depth" in row]
    assert sorted(row["depth"] for row in drawn) == pytest.approx([0.1, 0.1])
    assert (noise_scale.make(context) is None) == (along != "g")


def views(spec: dict) -> list[dict]:
    """All charts in a spec that have no parts."""
    parts = [part for name in ("concat", "hconcat", "vconcat", "layer") for part in spec.get(name, [])]
    return [view for part in parts for view in views(part)] or [spec]


def test_pairs_without_paths_have_no_section(measured: Measured) -> None:
    assert make(replace(measured.context, parts=lambda _: [])) is None
