"""Ensembles in MLflow: what a run says of their members and sizes, and its page."""

import pytest

from lmc_tune.experiment import EnsembleMeasureSpec, MeasureSpec, VerdictSpec
from lmc_tune.tables.rows import PairResult, failed_result
from lmc_tune.tables.store import Store
from lmc_tune.tables.sweep_record import SweepRecord
from lmc_tune.tracking.chart import ensemble_page, learning_page
from lmc_tune.tracking.content import pair_means, run_content
from lmc_tune.tracking.mirror import open_mirror
from lmc_tune.work.bench import Workbench
from lmc_tune.work.cohort import run_pair
from tests.cases import ensemble_spec

ASKED = MeasureSpec(lambdas=5, refinements=1, ensemble=EnsembleMeasureSpec(draws=5))


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> PairResult:
    folder = tmp_path_factory.mktemp("deep")
    return run_pair(ensemble_spec("deep"), Workbench(store=Store(folder), data_root=folder, measure=ASKED))


def test_a_run_has_the_sizes_and_the_members_as_series(deep):
    content = run_content(deep, VerdictSpec())
    assert content.name == "lr=0.03 batch=20 3 deep none #0 varied noise mlp 8"
    series = {(name, step): value for name, value, step in content.metrics}
    for row in deep.tables["ensembles"]:
        assert series["ensemble/accuracy", row["members"]] == row["accuracy"]
        assert series["ensemble/nll", row["members"]] == row["nll"]
    for row in deep.tables["ensemble_members"]:
        assert series["member/accuracy", row["number"]] == row["accuracy"]
    for name in ("member_accuracy", "ensemble_accuracy", "average_accuracy", "connectivity", "training_steps"):
        assert series[name, 0] == deep.row[name]
    assert series["barrier", 0] == deep.row["test_error_barrier_chord"]


def test_the_page_has_the_paths_between_members(deep):
    rows = [row for row in deep.tables["averages"] if row["what"] == "pair" and row["split"] == "test"]
    means = pair_means(rows)
    assert means["mean"][0][0] == 0.0
    assert means["mean"][0][1] == means["mean"][-1][1] == 0.0, "at the members themselves"
    for (at, mean), (_, low), (_, high) in zip(means["mean"], means["lowest"], means["highest"], strict=True):
        own = [100 * (r["correct"] / r["n"] - r["expected_accuracy"]) for r in rows if r["lambda"] == at]
        assert len(own) == 3
        assert (mean, low, high) == (pytest.approx(sum(own) / 3), min(own), max(own))
    page = ensemble_page(deep, "x")
    assert "Accuracy by number of members" in page
    assert "Accuracy gained between two members" in page
    failed = failed_result(ensemble_spec("deep"), "no memory")
    assert "Nothing was measured of this ensemble" in ensemble_page(failed, "x")
    assert page != learning_page(deep, "x")
    assert "Accuracy during training" in learning_page(deep, "x")


def test_an_ensembles_run_has_its_page(tmp_path, deep):
    Store(tmp_path).write_shard("one", [deep])
    record = SweepRecord(id="s", name="basins", created="2026-12-01T00:00:00+00:00", workers=1, planned_pairs=1)
    mirror = open_mirror(tmp_path, record)
    mirror.send(deep)
    assert sorted(path.name for path in tmp_path.rglob("*.html")) == ["ensemble.html", "learning.html"]
