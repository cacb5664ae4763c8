"""Ensembles side by side: means, paired differences, curves, and the sections of the report."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lmc_tune.analysis.families import differences, family_table, growth, pair_curves
from lmc_tune.analysis.phase import PhaseDiagram, map_regions
from lmc_tune.analysis.report import render
from lmc_tune.analysis.report.charts.family_chart import branching_chart, members_chart, worth_chart
from lmc_tune.analysis.report.sections.families import said
from lmc_tune.experiment.reading import read_space
from lmc_tune.experiment.space import SPACE_FILE, SearchSpace
from lmc_tune.experiment.yaml_lines import dump
from lmc_tune.tables.store import Store, load_results
from lmc_tune.work.bench import Workbench
from lmc_tune.work.cohort import run_cohort
from tests.cases import cohort

STUDY = {
    "name": "basins",
    "dataset": {"name": "digits", "train": 400, "test": 100, "validation": 60},
    "model": {"name": "mlp", "hidden": [8]},
    "train": {"lr": 0.03, "batch_size": 20, "momentum": 0.9, "epochs": 5},
    "recipe": {"members": 3},
    "axes": {
        "recipe": ["deep", {"family": "constrained", "t": 2}, {"family": "constrained", "t": 4}, "permuted"],
    },
    "replicates": 3,
    "measure": {"lambdas": 5, "refinements": 0, "ensemble": {"draws": 10}},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SearchSpace]:
    folder = tmp_path_factory.mktemp("basins")
    space = read_space(STUDY)
    (folder / SPACE_FILE).write_text(dump(space.plain()))
    run_cohort(cohort(*space.pairs()), Workbench(store=Store(folder), data_root=folder, measure=space.measure))
    return folder, space


@pytest.fixture(scope="module")
def diagram(run) -> PhaseDiagram:
    folder, space = run
    return map_regions(load_results(folder), space=space)


def of_family(diagram: PhaseDiagram, family: str, t: float | None = None) -> pd.DataFrame:
    pairs = diagram.pairs
    rows = pairs[
        (pairs["family"] == family) & (pairs["common_epochs"].isna() if t is None else pairs["common_epochs"] == t)
    ]
    return rows.set_index("replicate").sort_index()


def test_a_cell_has_the_means_of_its_ensembles_and_students_intervals(diagram):
    table = family_table(diagram).set_index("name")
    assert list(table.index) == ["constrained t=2", "constrained t=4", "deep", "permuted"]
    for name, own in (("deep", of_family(diagram, "deep")), ("constrained t=4", of_family(diagram, "constrained", 4))):
        for column in ("ensemble_accuracy", "connectivity", "training_steps"):
            values = own[column].to_numpy(dtype=float)
            assert table.loc[name, column] == pytest.approx(values.mean())
            if values.std():
                low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
                assert table.loc[name, f"{column}_low"] == pytest.approx(low)
                assert table.loc[name, f"{column}_high"] == pytest.approx(high)


def test_differences_from_independent_members_are_paired(diagram):
    found = differences(diagram).set_index(["cell", "what"])
    deep = of_family(diagram, "deep")
    for family, t in (("constrained", 2), ("constrained", 4), ("permuted", None)):
        own = of_family(diagram, family, t)
        for what in ("ensemble", "average"):
            row = found.loc[own["cell"].iloc[0], what]
            apart = 100 * (own[f"{what}_accuracy"] - deep["ensemble_accuracy"])
            assert row["n"] == 3
            assert row["difference"] == pytest.approx(apart.mean())
            interval = stats.ttest_rel(
                100 * own[f"{what}_accuracy"], 100 * deep["ensemble_accuracy"]
            ).confidence_interval()
            if apart.std():
                assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    cell = deep["cell"].iloc[0]
    assert (cell, "ensemble") not in found.index, "nobody differs from itself"
    assert (cell, "average") in found.index


def test_permuted_members_predict_as_independent_ones_do(diagram):
    found = differences(diagram)
    cell = of_family(diagram, "permuted")["cell"].iloc[0]
    (row,) = found[(found["cell"] == cell) & (found["what"] == "ensemble")].to_dict("records")
    assert row["difference"] == 0


def test_curves_are_means_over_ensembles_and_pairs(run, diagram):
    store = Store(run[0])
    growing = growth(diagram, store.parts("ensembles")).set_index(["cell", "members"])
    deep = of_family(diagram, "deep")
    table = store.table("ensembles")
    own = table[table["key"].isin(deep["key"])]
    for members in (1, 2, 3):
        expected = own.loc[own["members"] == members, "accuracy"].mean()
        assert growing.loc[(deep["cell"].iloc[0], members), "accuracy"] == pytest.approx(expected)
    curves = pair_curves(diagram, store.parts("averages")).set_index(["cell", "lambda"])
    rows = store.table("averages")
    rows = rows[(rows["what"] == "pair") & (rows["split"] == "test") & rows["key"].isin(deep["key"])]
    q = 100 * (rows["correct"] / rows["n"] - rows["expected_accuracy"])
    for at in (0.0, 0.25, 0.5, 0.75, 1.0):
        values = q[rows["lambda"] == at]
        assert len(values) == 9
        found = curves.loc[(deep["cell"].iloc[0], at)]
        assert found.tolist() == pytest.approx([values.mean(), values.min(), values.max()])
    assert curves.xs(0.0, level="lambda")["q"].tolist() == pytest.approx([0] * 4, abs=1e-12)


def test_the_answer_names_what_is_in_one_basin(diagram):
    words = " ".join(said(family_table(diagram), differences(diagram)))
    assert words.startswith(
        "Beside an ensemble of independent members, in points of test accuracy: constrained t=2, for "
    )
    assert "as the average of its weights, which costs one network" in words
    assert "permuted" not in words
    alone = family_table(diagram)
    assert said(alone[alone["family"] != "deep"], differences(diagram)) == []


def test_charts_hold_all_families_and_finite_numbers_only(run, diagram):
    table = family_table(diagram)
    for chart in (
        worth_chart(table),
        branching_chart(table.dropna(subset="common_epochs").assign(line="constrained")),
        members_chart(
            table[["cell", "name", "family"]].merge(growth(diagram, Store(run[0]).parts("ensembles")), on="cell"),
            table[["cell", "name", "family"]].merge(pair_curves(diagram, Store(run[0]).parts("averages")), on="cell"),
        ),
    ):
        spec = chart.to_dict()
        for rows in spec["datasets"].values():
            for row in rows:
                assert all(
                    value is None or not isinstance(value, float) or math.isfinite(value) for value in row.values()
                )


def test_the_report_sets_families_side_by_side(run, tmp_path):
    (page,) = render(run[0], tmp_path / "report.html")
    text = page.read_text(encoding="utf-8")
    for heading in ("In one basin or in several?", "More members, and between them", "When members part"):
        assert heading in text
    assert "ensembles of 3: constrained t=2, constrained t=4, deep and permuted" in text
    assert "No curves" not in text
    assert "Average or ensemble?" not in text, "it is of pairs"


def test_cells_of_other_settings_are_not_compared(diagram):
    pairs = diagram.pairs.assign(lr=np.where(diagram.pairs["family"] == "deep", 0.1, diagram.pairs["lr"]))
    found = differences(replace(diagram, pairs=pairs))
    assert set(found["cell"]) == set(of_family(diagram, "deep")["cell"])
