"""Federations through planning, pricing and whole sweeps."""

import os
import re
import signal

import psutil
import pytest

from lmc_tune.errors import UserError
from lmc_tune.experiment.reading import parse_space
from lmc_tune.measurement import conditions
from lmc_tune.measurement import evaluate as scoring
from lmc_tune.sweeps.cost import measuring_of, trainings
from lmc_tune.sweeps.federations import check_federations
from lmc_tune.sweeps.keeping import keeping
from lmc_tune.sweeps.plan import planned_steps
from lmc_tune.tables.store import Store
from lmc_tune.training.task import Task
from lmc_tune.work import cohort as pipeline
from lmc_tune.work.bench import Workbench
from tests.sweeps.cases import descendants, finished, lmc_tune, lmc_tune_json, start, wait_for, write_space

SPACE = """
name: tiny
dataset: {train: 200, test: 100}
model: {hidden: [8], norm: batch}
train: {momentum: 0.9, batch_size: 10}
federated: {clients: 4, rounds: 6, local_epochs: 2, split: {dirichlet: 0.5}}
axes:
  federated.average: [all, none]
  federated.norm: [averaged, local, recalibrated]
  lr: [0.01, 0.1]
replicates: 2
"""
GROUPS = 24


def group(*changes: tuple[str, str]):
    text = SPACE
    for old, new in changes:
        text = text.replace(old, new)
    space = parse_space(text)
    return space, space.cells()[0].first


@pytest.mark.parametrize("average", ["all", "none", "[linear1, norm1]"])
@pytest.mark.parametrize("norm", ["averaged", "local", "recalibrated"])
def test_a_federation_takes_the_steps_and_passes_the_examples_that_were_planned(tmp_path, monkeypatch, average, norm):
    space, spec = group(("[all, none]", f"[{average}]"), ("[averaged, local, recalibrated]", f"[{norm}]"))
    steps, scored, estimated = [], [], []

    def spy(owner: object, name: str, seen: list[int], at: int) -> None:
        real = getattr(owner, name)

        def noting(*given):
            seen.append(len(given[at]))
            return real(*given)

        monkeypatch.setattr(owner, name, noting)

    spy(Task, "examples", steps, 1)
    spy(scoring, "losses_of", scored, 0)
    spy(conditions, "_estimate", estimated, 1)
    asked = space.measure.of(spec.model)
    result = pipeline.run_pair(spec, Workbench(store=Store(tmp_path), data_root=tmp_path, measure=asked))
    assert result.status != "failed"
    planned, work = trainings([spec]).values(), measuring_of(spec, asked)
    assert len(steps) == sum(each.steps for each in planned) == 4 * planned_steps(spec) == 4 * 12 * 5
    assert sum(scored) == sum(each.scored for each in planned) + work.scored_apart
    assert sum(estimated) == work.estimated


def test_the_weights_of_clients_are_not_kept():
    space, _ = group()
    kept = keeping(space, space.pairs(), ())
    assert (kept.keep, kept.members) == (False, 4 * GROUPS)


def test_a_layer_that_no_network_has_is_refused_before_anything_is_written(tmp_path):
    file = write_space(tmp_path, SPACE.replace("[all, none]", "[all, [linear1, conv*]]"))
    done = lmc_tune("sweep", file, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert (
        "federated.average: in mlp 8 batch norm, 'conv*' fits no layer; the layers are linear1, norm1, head"
        in done.stderr
    )
    assert not (tmp_path / "run").exists()


def test_a_network_of_ones_own_without_batch_norm_has_no_norms_to_treat(tmp_path):
    (tmp_path / "nets.py").write_text(
        "from torch import nn\ndef plain(input_shape, n_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes))\n"
    )
    space, _ = group(("{hidden: [8], norm: batch}", "{factory: 'nets:plain'}"))
    with pytest.raises(UserError, match=r"federated\.norm is for BatchNorm, and nets:plain has none; leave it out"):
        check_federations(space.pairs(), [str(tmp_path)])


@pytest.mark.slow
def test_a_sweep_of_federations_that_is_killed_goes_on_and_finishes_each_once(tmp_path):
    file, folder = write_space(tmp_path, SPACE.replace("rounds: 6", "rounds: 12")), tmp_path / "run"
    driver = start("sweep", file, "--out", folder, "--workers", "1")
    wait_for(lambda: finished(folder) >= 3, driver)
    workers = descendants(driver)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    assert not psutil.wait_procs(workers, timeout=60)[1]
    before = finished(folder)
    assert before < GROUPS
    outcome = lmc_tune_json("sweep", file, "--out", folder, "--workers", "2")
    assert (outcome["counts"], outcome["complete"]) == ({"ok": GROUPS}, True)
    assert outcome["trained"] == GROUPS - before
    assert lmc_tune_json("sweep", file, "--out", folder)["trained"] == 0
    rounds = Store(folder).table("rounds")
    assert rounds.groupby("key").size().unique().tolist() == [12 * (4 * 2 * 2 + 1)]
    assert not rounds.duplicated(["key", "round", "client", "what", "split"]).any()
    assert 'id="rounds"' in (folder / "report.html").read_text()
    walk, status = lmc_tune("sweep", file, "--out", folder), lmc_tune("status", folder)
    assert f"{GROUPS} federations, {GROUPS} of them finished already" in walk.stderr
    assert not re.search(r"\bpairs?\b", walk.stderr + status.stdout)


def test_the_price_of_federations_is_told_before_anything_is_trained(tmp_path):
    cost = lmc_tune_json("space", write_space(tmp_path, SPACE))
    assert (cost["cells"], cost["pairs"], cost["members"], cost["steps"]) == (12, GROUPS, 4 * GROUPS, 4 * GROUPS * 60)
    assert cost["seconds_train"] > 0


def test_a_space_of_federations_says_so(tmp_path):
    axes = "axes:\n  federated.split: [iid, {dirichlet: 0.5}]"
    text = SPACE.replace(", split: {dirichlet: 0.5}", "").replace("axes:", axes).replace("none", "[linear1, norm1]")
    shown = lmc_tune("space", write_space(tmp_path, text)).stdout.splitlines()
    assert "federated.split  iid, dirichlet 0.5" in shown
    assert "federated.average  all, [linear1, norm1]" in shown
    assert f" federations  {2 * GROUPS}" in shown
    assert not [line for line in shown if "pair" in line]
