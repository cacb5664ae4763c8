"""Files of a run folder, and the user's own, cut short."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lmc_tune.tables.store import Store
from lmc_tune.training.checkpoint import Checkpoint
from lmc_tune.training.progress import Progress
from tests.faults.cases import PAIRS, Sweep, assert_whole, contents
from tests.sweeps.cases import lmc_tune

pytestmark = [pytest.mark.slow, pytest.mark.faults]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    """A sweep cut short twice: some pairs are in the tables, others in shards."""
    sweep = Sweep(home=tmp_path_factory.mktemp("half") / "disturbed").prepare()
    assert sweep.again("--max-pairs", "4")["trained"] == 4
    driver = sweep.start("--workers", "1")
    sweep.wait_for(lambda: sweep.finished() >= 7, driver)
    driver.kill()
    driver.wait()
    assert list((sweep.run / "shards").glob("*.arrow"))
    yield sweep
    sweep.end()


@pytest.fixture
def cut(half: Sweep, sweep: Sweep) -> Sweep:
    """A copy of it."""
    shutil.copytree(half.run, sweep.run)
    return sweep


# A process that has imported torch (for the factory) and read a table with Arrow may abort as it ends, if that is soon:
# a thread of theirs is still starting. The message has been told by then.
REFUSED = (2, -signal.SIGABRT)


def shorten(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: 2 * len(content) // 3])


@pytest.mark.parametrize("name", ["results.parquet", "paths.parquet", "shard"])
def test_a_table_cut_short_is_refused_and_the_advice_makes_the_sweep_whole(
    cut: Sweep, reference: Sweep, name: str
) -> None:
    damaged = next((cut.run / "shards").glob("*.arrow")) if name == "shard" else cut.run / name
    shorten(damaged)
    before = contents(cut.run)
    done = lmc_tune(*cut.arguments(), **cut.environment)
    assert done.returncode in REFUSED
    assert f"{damaged} cannot be read" in done.stderr
    assert contents(cut.run) == before, "nothing is written"
    damaged.unlink()
    if "move it and results.parquet away" in done.stderr:
        (cut.run / "results.parquet").unlink()
    cut.again()
    assert_whole(cut, reference)


def test_a_space_cut_short_in_the_folder_is_written_anew(cut: Sweep, reference: Sweep) -> None:
    shorten(cut.run / "space.yaml")
    cut.again()
    assert_whole(cut, reference)
    assert (cut.run / "space.yaml").read_bytes() == (reference.run / "space.yaml").read_bytes()


def test_a_record_cut_short_is_refused_and_the_advice_makes_the_sweep_whole(cut: Sweep, reference: Sweep) -> None:
    record = cut.run / "sweep.json"
    shorten(record)
    before = contents(cut.run)
    done = lmc_tune(*cut.arguments(), **cut.environment)
    assert done.returncode in REFUSED
    assert f"{record} is damaged" in done.stderr
    assert "restore it from a copy, or delete it and run the sweep again" in done.stderr
    assert contents(cut.run) == before, "nothing is written"
    record.unlink()
    cut.again("--tracking-uri", f"sqlite:///{cut.home}/mlflow.db")  # the folder's own store knows the old id
    assert_whole(cut, reference, mirror=False)


def test_checkpoints_cut_short_cost_their_trainings_and_nothing_else(cut: Sweep, reference: Sweep) -> None:
    done = set(Store(cut.run).statuses())
    (left, *_) = sorted(set(Store(reference.run).statuses()) - done)
    file = cut.run / "checkpoints" / f"{left}-a.safetensors"
    state = {"layers.1.weight": torch.zeros(8, 64)}
    Checkpoint(path=file, seconds=0).offer(lambda: Progress(epochs=3, state=state, moments={}, curve=[]))
    shorten(file)
    assert cut.again()["trained"] == PAIRS - len(done)
    assert_whole(cut, reference)


def test_a_space_of_the_users_own_cut_short_is_refused_and_nothing_is_written(cut: Sweep) -> None:
    cut.space.write_text(cut.space.read_text()[:-20])  # measure: {lambdas: 5,
    before = contents(cut.run)
    done = lmc_tune(*cut.arguments(), **cut.environment)
    assert done.returncode == 2
    assert done.stderr.startswith("space.yaml:10: not valid YAML")
    assert contents(cut.run) == before
