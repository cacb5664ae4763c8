"""Ensembles through planning, pricing and whole sweeps."""

import os
import signal

import psutil
import pytest

from lmc_tune.experiment.reading import parse_space
from lmc_tune.sweeps.cost import estimate_cost, measuring_of, trainings
from lmc_tune.sweeps.keeping import keeping
from lmc_tune.sweeps.plan import Slots, pack
from lmc_tune.tables.store import Store
from lmc_tune.work import cohort as pipeline
from lmc_tune.work.bench import Workbench
from lmc_tune.work.ensemble import trained_steps
from tests.cases import cohort
from tests.sweeps.cases import descendants, finished, lmc_tune, lmc_tune_json, start, wait_for, write_space

SPACE = """
name: tiny
dataset: {train: 200, test: 100, validation: 40}
model: {hidden: [8], dropout: 0.1}
train: {momentum: 0.9, batch_size: 10, epochs: 6}
recipe: {members: 3, t: 2}
axes:
  recipe: [deep, constrained, swe, permuted, multi_pcd, distilled, distilled_deep, snapshot, mc_dropout]
  lr: [0.01, 0.03]
replicates: 2
measure: {lambdas: 3, refinements: 0, ensemble: {draws: 5}}
"""
# Of one replicate at one rate: deep 3 (of 6 epochs), a trunk and 3 branches, 3 students of those and 3 of deep ones.
PER_EPOCH = 20


def test_the_price_of_an_ensemble_is_what_it_takes():
    """What is trained for it is counted by a loop in tests/work/test_ensemble.py."""
    for cell in parse_space(SPACE).cells():
        assert sum(work.steps for work in trainings([cell.first]).values()) == trained_steps(cell.first)


def test_a_cohort_prices_members_that_families_share_once():
    families = "deep, permuted, multi_pcd, constrained, distilled"
    space = parse_space(SPACE, sets=[f"axes.recipe=[{families}]", "axes.lr=[0.01]"])
    groups = [cell.first for cell in space.cells()]
    (packed,) = pack(groups, Slots(number=2))
    assert set(packed.groups) == set(groups), "they share members, so they are one family of pairs"
    steps = sum(work.steps for work in trainings(groups).values())
    assert steps == PER_EPOCH * (3 * 6 + 2 + 3 * 4 + 3 * 4)
    cost = estimate_cost(space, lambda _: None)
    assert (cost.cells, cost.pairs, cost.members) == (5, 10, 2 * (3 + 3 + 3))
    assert cost.steps == 2 * steps


def test_more_members_take_more_measuring():
    specs = [parse_space(SPACE, sets=[f"recipe.members={n}"]).cells()[0].first for n in (2, 3)]
    few, many = (measuring_of(spec, parse_space(SPACE).measure.of(spec.model)) for spec in specs)
    assert few.scored_on_path < many.scored_on_path
    assert few.scored_apart < many.scored_apart


def test_members_and_teachers_are_kept():
    space = parse_space(SPACE, sets=["axes.recipe=[distilled]"])
    kept = keeping(space, space.pairs(), ())
    assert (kept.keep, kept.members) == (True, 4 * 6)


def test_a_cohort_gives_what_each_ensemble_gives_alone(tmp_path):
    space = parse_space(SPACE, sets=["axes.lr=[0.01]"])
    groups = [cell.first for cell in space.cells() if cell.first.recipe.family in {"deep", "permuted", "distilled"}]

    def bench(name: str) -> Workbench:
        return Workbench(store=Store(tmp_path / name), data_root=tmp_path, measure=space.measure)

    together = pipeline.run_cohort(cohort(*groups), bench("together"))
    for group, found in zip(groups, together, strict=True):
        alone = pipeline.run_pair(group, bench("alone"))
        for name in ("ensemble_nll", "connectivity", "member_accuracy", "training_steps"):
            assert found.row[name] == alone.row[name], (group.recipe.label, name)


def test_the_command_puts_families_side_by_side(tmp_path):
    lines = [line for line in SPACE.splitlines() if "recipe" not in line]
    file = write_space(tmp_path, "\n".join(lines).replace(", ensemble: {draws: 5}", ""))
    asked = ("--families", "deep,constrained", "--members", "2", "--no-report")
    done = lmc_tune_json("ensemble", file, *asked, "--out", tmp_path / "run")
    assert sum(done["counts"].values()) == 8
    assert "failed" not in done["counts"]
    table = Store(tmp_path / "run").results(["family", "member_count", "common_epochs", "connectivity"])
    assert table.groupby("family").size().to_dict() == {"constrained": 4, "deep": 4}
    assert set(table["member_count"]) == {2}
    assert set(table["common_epochs"].dropna()) == {1}, "a tenth of six epochs, one at least"
    refused = lmc_tune("ensemble", file, "--families", "dep", "--out", tmp_path / "other")
    assert refused.returncode == 2
    assert "there is no family 'dep'; did you mean deep?" in refused.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_sweep_of_ensembles_that_is_killed_goes_on_and_gives_the_same_rows(tmp_path):
    file, folder = write_space(tmp_path, SPACE), tmp_path / "run"
    driver = start("sweep", file, "--out", folder, "--workers", "1")
    wait_for(lambda: finished(folder) >= 3, driver)
    workers = descendants(driver)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    assert not psutil.wait_procs(workers, timeout=60)[1]
    assert finished(folder) < 36
    assert lmc_tune("sweep", file, "--out", folder, "--no-report").returncode == 0
    assert lmc_tune("sweep", file, "--out", tmp_path / "whole", "--no-report").returncode == 0
    columns = ["family", "lr", "replicate", "ensemble_nll", "connectivity", "member_accuracy", "status"]
    again, whole = (Store(place).results(columns) for place in (folder, tmp_path / "whole"))
    assert len(again) == 36
    assert again.equals(whole)
