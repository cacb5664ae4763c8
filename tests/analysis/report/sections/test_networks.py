"""Barrier and Δ by network against loops over pairs."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lmc_tune.analysis.phase import map_regions
from lmc_tune.analysis.report.sections.networks import make, network_chart, network_names, network_table
from lmc_tune.experiment import FactorySpec, MlpSpec, NetworkSpec, ResnetSpec, VerdictSpec, VggSpec, VitSpec
from lmc_tune.tables.cells import summarise
from lmc_tune.tables.rows import model_of, spec_columns
from tests.analysis.cases import NETWORKS, grid, measured_pair, ok_pair, pair_spec, results_of
from tests.analysis.measured import Measured, context_of
from tests.cases import NETWORKS as TINY

ALL_KINDS = [
    MlpSpec(hidden=(32, 16), norm="layer", dropout=0.25),
    VggSpec(depth=13, width=0.5, norm="batch"),
    ResnetSpec(depth=20, shortcut="3x3"),
    VitSpec(depth=2, heads=2, dim=16, mlp_dim=8),
    FactorySpec(factory="mine:make", arguments={"width": 3}),
]


def test_means_and_intervals_are_those_of_the_judged_cells_ok_pairs(measured: Measured) -> None:
    table = network_table(measured.diagram, measured.intervals, measured.space)
    judged = measured.diagram.cells[measured.diagram.cells["judged"]]
    assert sorted(table["cell"]) == sorted(judged["cell"])
    assert len(table) == 16
    for row in table.to_dict("records"):
        pairs = measured.ok(row["cell"])
        assert len(pairs) == 3
        batch_norm = pairs["norm"].iloc[0] == "batch"
        differences = pairs["recalibrated_accuracy_difference" if batch_norm else "accuracy_difference"].to_list()
        assert row["difference"] == pytest.approx(sum(differences) / 3, abs=1e-12)
        expected = stats.t.interval(0.95, 2, loc=np.mean(differences), scale=stats.sem(differences))
        np.testing.assert_allclose([row["difference_low"], row["difference_high"]], expected, atol=1e-12)
        barriers = pairs["recalibrated_test_error_barrier_chord" if batch_norm else "test_error_barrier_chord"]
        assert row["shown_barrier"] == pytest.approx(sum(barriers) / 3, abs=1e-12)


def test_networks_stand_in_the_spaces_order_and_are_named(measured: Measured) -> None:
    table = network_table(measured.diagram, measured.intervals, measured.space)
    assert table["network"].drop_duplicates().tolist() == [network.label for network in NETWORKS]
    assert set(table["setting"]) == {"covariate", "label 80/20"}
    alone = network_table(measured.diagram, measured.intervals, None)
    assert sorted(alone["cell"]) == sorted(table["cell"])
    assert alone["network"].drop_duplicates().tolist()[0] == "mlp 64-64-64"  # as the diagram orders its panels


def test_one_network_has_no_such_section() -> None:
    results = results_of([ok_pair(spec, 0.1) for spec in grid(replicates=2)])
    diagram = map_regions(results)
    assert make(context_of(diagram)) is None


def test_networks_that_share_their_label_are_told_apart() -> None:
    networks = [MlpSpec(dropout=0.0), MlpSpec(dropout=0.5), MlpSpec(hidden=(8,))]
    pairs = [ok_pair(pair_spec(model=network), 0.1) for network in networks]
    names = network_names(summarise(results_of(pairs), VerdictSpec()))
    assert sorted(names) == ["mlp 64 · dropout 0", "mlp 64 · dropout 0.5", "mlp 8"]


@pytest.mark.parametrize("network", [*ALL_KINDS, *TINY.values()], ids=lambda network: network.label)
def test_a_rows_columns_give_back_its_network(network: NetworkSpec) -> None:
    rows = [spec_columns(pair_spec(model=each)) for each in (network, *ALL_KINDS)]  # type: ignore[arg-type]
    assert model_of(rows[0]) == network
    assert model_of(pd.DataFrame(rows).to_dict("records")[0]) == network
    before_dropout = {name: value for name, value in rows[0].items() if name != "dropout"}
    assert model_of(before_dropout).name == network.name


def test_the_chart_has_a_block_per_shift_a_guide_and_every_cell(measured: Measured) -> None:
    table = network_table(measured.diagram, measured.intervals, measured.space)
    spec = network_chart(measured.diagram, table, table["cell"][0]).to_dict()
    assert [block["title"]["text"] for block in spec["vconcat"]] == ["covariate", "label 80/20"]
    guides = [row["guide"] for rows in spec["datasets"].values() for row in rows if "guide" in row]
    assert set(guides) == {measured.diagram.verdict.threshold, -5.0}
    drawn = {row["cell"] for rows in spec["datasets"].values() for row in rows if "cell" in row}
    assert drawn == set(table["cell"])


def test_a_cell_that_is_not_judged_is_not_shown() -> None:
    pairs = [measured_pair(pair_spec(model=model, replicate=k)) for model in NETWORKS[:2] for k in range(2)]
    results = results_of(pairs)
    results.loc[results["norm"] == "none", "status"] = "diverged"
    diagram = map_regions(results)
    known = pd.DataFrame({"mean": [-1.0, -1.0], "low": [-2.0, -np.inf], "high": [0.0, np.inf]})
    table = network_table(diagram, {"accuracy_difference": known}, None)
    assert table["network"].tolist() == ["mlp 512 batch norm"]
