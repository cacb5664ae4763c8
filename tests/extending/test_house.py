"""Extensions that the package itself has to know: a copy of it with one toy of each, and a sweep with all of them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.extending.house import HERE, TOYS, Toy, entry_of, extend

SPACE = """
name: toys
dataset: {name: digits, train: 200, test: 100}
model: {name: mlp, hidden: [8], norm: batch}
train: {momentum: 0.9, epochs: 4, batch_size: 20, schedule: step}
axes:
  floor: [0, 1]
  lr: [0.1, 0.3]
replicates: 4
measure: {lambdas: 5, refinements: 0, conditions: [naive, of_b]}
verdict: {condition: of_b, min_train_accuracy: 0.2}
"""
REPORT = """
import sys
from lmc_tune.analysis.report import render, sections
import sections as own
from lmc_tune.tables.store import Store
from lmc_tune.tables.columns import TABLES

folder = sys.argv[1]
render(folder, "report.html", formats=["html", "csv"], sections=(sections, own))
for name in TABLES:
    Store(folder).table(name).to_pickle(f"{name}.pickle")
"""


@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.entry)
def test_the_readme_names_the_few_files_that_an_extension_touches(toy: Toy) -> None:
    assert len(toy.changes) + len(toy.added) <= toy.most_files
    entry = entry_of(toy)
    for name in (*toy.changes, *(str(Path(name).parent) for name in toy.added)):
        assert name in entry, f"{toy.entry}: {name}"


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the extended package and the tables and report of its sweep."""
    folder = tmp_path_factory.mktemp("extended")
    extend(folder)
    (folder / "space.yaml").write_text(SPACE)
    for arguments in (
        (
            "-m",
            "lmc_tune",
            "sweep",
            "space.yaml",
            "--out",
            "run",
            "--search",
            "chance",
            "--workers",
            "1",
            "--no-report",
        ),
        ("-c", REPORT, "run"),
    ):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{HERE}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return folder


def table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_pickle(folder / f"{name}.pickle")  # noqa: S301 - our own


@pytest.mark.slow
def test_the_search_ends_after_half_of_the_pairs(swept: Path) -> None:
    assert table(swept, "results")["status"].tolist() == ["ok"] * 8


@pytest.mark.slow
def test_the_column_is_in_the_results_and_averaged_over_cells(swept: Path) -> None:
    assert set(table(swept, "results")["batches"]) == {100 // 20}
    assert set(pd.read_csv(swept / "report.csv")["batches"]) == {100 // 20}


@pytest.mark.slow
def test_the_axis_is_varied_changes_training_and_is_drawn(swept: Path) -> None:
    curves = table(swept, "curves").merge(
        table(swept, "results")[["key", "floor", "lr"]], on="key", suffixes=("", "_peak")
    )
    last = curves[(curves["epoch"] == 4) & curves["member"].isin(["a", "b"])]
    assert set(last["floor"]) == {0, 1}
    np.testing.assert_allclose(last["lr"], last["lr_peak"] * np.where(last["floor"] == 1, 1, 0.01))
    assert "lowest rate" in (swept / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_condition_is_measured_judged_and_told(swept: Path) -> None:
    paths, barriers, results = (table(swept, name) for name in ("paths", "barriers", "results"))
    points = paths.pivot_table(index=["key", "split", "lambda"], columns="condition", values="loss_sum")
    naive, of_b = points["naive"], points["of_b"]
    position = points.index.get_level_values("lambda")
    np.testing.assert_allclose(of_b[position == 1], naive[position == 1], rtol=1e-6)
    assert (of_b[position == 0] != naive[position == 0]).all()
    rows = barriers[barriers["condition"] == "of_b"].set_index("key")
    assert (results.set_index("key")["of_b_test_error_barrier_chord"] == rows["test_error_barrier_chord"]).all()
    cells = pd.read_csv(swept / "report.csv").set_index("cell")
    of_cells = results.groupby("cell")["of_b_test_error_barrier_chord"].mean()
    np.testing.assert_allclose(cells["mean_barrier"], of_cells[cells.index])
    assert "those of B" in (swept / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_measurement_has_a_table_of_its_own(swept: Path) -> None:
    moved = table(swept, "moved")
    assert set(moved["key"]) == set(table(swept, "results")["key"])
    assert moved.groupby("key")["layer"].nunique().eq(3).all()  # two linear layers and a norm
    assert np.isfinite(moved["barrier"]).all()


@pytest.mark.slow
def test_the_section_stands_in_the_page(swept: Path) -> None:
    assert 'id="steps-section"' in (swept / "report.html").read_text(encoding="utf-8")
