"""The size of what is kept, against the files themselves."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from lmc_tune.errors import UserError
from lmc_tune.experiment.reading import parse_space
from lmc_tune.sweeps.keeping import check_room, keeping
from lmc_tune.tables.store import Store
from lmc_tune.work.bench import Workbench
from lmc_tune.work.cohort import run_cohort
from tests.cases import MEASURE, cohort

SPACE = """
name: kept
dataset: {name: digits, train: 200, test: 100}
model: {name: mlp, hidden: [128]}
shift: covariate
train: {epochs: 3, optimizer: %s}
axes: {lr: [0.01], batch_size: [20], spawn_epoch: [%s]}
replicates: 1
"""


@pytest.mark.parametrize("optimizer", ["sgd, momentum: 0.9", "adam"])
@pytest.mark.parametrize("spawn", ["0", "1", "0, 1, 2"])
def test_it_is_that_of_the_members_and_of_the_stages_of_their_trunks(tmp_path, optimizer, spawn):
    space = parse_space(SPACE % (optimizer, spawn))
    told = keeping(space, space.pairs(), ())
    store, folder = Store(tmp_path), tmp_path / "members"
    run_cohort(cohort(*space.pairs()), Workbench(store=store, data_root=tmp_path, measure=MEASURE, members=folder))
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert told.members == len(store.members())
    assert told.bytes == pytest.approx(size, rel=0.05)


def test_more_members_than_the_disk_holds_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    space = parse_space(SPACE % ("sgd", "0"), sets=["members=keep"])
    kept = keeping(space, space.pairs(), ())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=kept.bytes - 1))
    with pytest.raises(UserError, match=r"take about .* MB, and .*run has .* MB left; say --set members=drop"):
        check_room(kept, tmp_path / "run")
    check_room(replace(kept, keep=False), tmp_path / "run")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=kept.bytes))
    check_room(kept, tmp_path / "run")
    assert not (tmp_path / "run").exists()
