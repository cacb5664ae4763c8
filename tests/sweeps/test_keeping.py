"""The size of what is kept, against the files themselves."""

import pytest

from lmc_tune.experiment.reading import parse_space
from lmc_tune.sweeps.keeping import keeping
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
