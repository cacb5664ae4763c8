"""Joint training before the members part, and training to a loss."""

import pytest
import torch

from lmc_tune.training.checkpoint import Checkpoint
from lmc_tune.training.engines import Engines
from lmc_tune.work import members
from lmc_tune.work.cohort import run_pair
from lmc_tune.work.members import MemberShelf
from lmc_tune.work.prepare import prepare, task_of
from tests.cases import pair_spec


def test_members_that_part_late_stay_closer(bench):
    """After no, half of, and all but one of the epochs together; joint training has a curve of its own."""
    rows = {
        epoch: run_pair(pair_spec(train={"epochs": 8, "lr": 0.1, "spawn_epoch": epoch}), bench(f"spawn{epoch}"))
        for epoch in (0, 4, 7)
    }
    distances = [result.row["distance"] for result in rows.values()]
    assert distances[0] > distances[1] > distances[2] > 0
    for epoch, result in rows.items():
        epochs = {m: [p["epoch"] for p in result.tables["curves"] if p["member"] == m] for m in ("joint", "a", "b")}
        assert len(epochs["joint"]) == epoch
        assert len(epochs["a"]) == len(epochs["b"]) == 8 - epoch
        steps = {m: [p["step"] for p in result.tables["curves"] if p["member"] == m] for m in ("joint", "a", "b")}
        n = result.row["n_train"]
        assert steps["joint"] == [2 * n // 20 * done for done in range(1, epoch + 1)]
        assert steps["a"] == steps["b"] == [2 * n // 20 * epoch + n // 20 * done for done in range(1, 9 - epoch)]
        assert (result.row["spawn_epoch"], result.row["steps"]) == (epoch, steps["a"][-1])


@pytest.mark.parametrize("hidden", [(8,), (16,)], ids=["loop", "stacked"])
def test_joint_training_is_that_of_one_network_on_both_parts(bench, hidden):
    """Without a shift and under fixed noise members never part, whatever they share."""
    spec = pair_spec(train={"epochs": 4, "spawn_epoch": 2}, model={"hidden": hidden}, shift={"kind": "none"})
    row = run_pair(spec, bench("none")).row
    assert row["distance"] == 0
    assert row["train_loss_a"] == row["train_loss_b"]


def test_a_domain_shift_joins_what_both_domains_show(bench, tmp_path):
    spec = pair_spec(train={"epochs": 4, "spawn_epoch": 2}, shift={"kind": "domain", "domain": "contrast"})
    setup, branch = prepare(spec, bench()), spec.members["a"].branch
    task = task_of(setup, branch.trunk, Checkpoint(path=tmp_path / "none", seconds=60), epochs=branch.epoch)
    assert len(task.whole) == len(setup.data.a) + len(setup.data.b)
    assert torch.equal(task.whole.labels, setup.data.train.labels)
    assert run_pair(spec, bench("run")).status in {"ok", "undertrained"}


def test_augmentation_and_momentum_go_on_after_the_members_part(bench, monkeypatch):
    spec = pair_spec(train={"epochs": 4, "spawn_epoch": 2, "momentum": 0.9, "schedule": "cosine"})
    began = {}
    real = members.train

    def noted(tasks, engine):
        began.update({task.noise_seed: task.resume for task in tasks})
        return real(tasks, engine)

    monkeypatch.setattr(members, "train", noted)
    shelf = MemberShelf(bench(), [spec], Engines())
    (trained,) = shelf.train([prepare(spec, bench())])
    assert trained.trunk.epochs == 2
    assert set(trained.trunk.moments) == {"momentum_buffer"}
    for member in spec.members.values():
        begun = began[member.noise_seed]
        assert begun.epochs == 2
        assert begun.moments is trained.trunk.moments
        assert begun.state is trained.trunk.state
    rates = [point.lr for point in (*trained.trunk.curve, *trained.members["a"].curve)]
    assert rates == sorted(rates, reverse=True)
    assert len(rates) == 4


@pytest.mark.parametrize("hidden", [(8,), (16,)], ids=["loop", "stacked"])
def test_training_stops_at_the_target_loss_and_what_does_not_get_there_is_undertrained(bench, hidden):
    given = {"epochs": 30, "lr": 0.1}
    free = run_pair(pair_spec(train=given, model={"hidden": hidden}), bench("free"))
    losses = {m: [p["train_loss"] for p in free.tables["curves"] if p["member"] == m] for m in ("a", "b")}
    target = 1.05 * max(losses["a"][9], losses["b"][9])
    result = run_pair(pair_spec(train={**given, "target_loss": target}, model={"hidden": hidden}), bench("target"))
    for member, seen in losses.items():
        first = next(at for at, loss in enumerate(seen) if loss <= target)
        assert [p["train_loss"] for p in result.tables["curves"] if p["member"] == member] == seen[: first + 1]
    assert result.row["target_reached"] is True
    assert result.row["steps"] < free.row["steps"]
    short = run_pair(
        pair_spec(train={"epochs": 2, "lr": 0.1, "target_loss": target}, model={"hidden": hidden}),
        bench("short", min_train_accuracy=0.0),
    )
    assert (short.status, short.row["target_reached"]) == ("undertrained", False)
    assert "target loss" in short.row["reason"]


def test_joint_training_that_diverges_is_told_as_such_whatever_the_budget(bench):
    """The members have no curve of their own then."""
    for target in (None, 0.1):
        spec = pair_spec(train={"epochs": 4, "spawn_epoch": 2, "lr": 1e30, "target_loss": target})
        row = run_pair(spec, bench(f"target {target}")).row
        assert row["status"] == "diverged"
        assert row["target_reached"] is (None if target is None else False)
