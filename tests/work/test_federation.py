"""Federations as a unit of work: rows that agree with each other and with slow oracles, failures, resuming."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from lmc_tune.data.clients import client_parts
from lmc_tune.experiment import DatasetSpec, Federated, GroupSpec, MlpSpec, ShiftSpec, TrainSpec
from lmc_tune.models.registry import build_model
from lmc_tune.tables.columns import TIME_FIELDS
from lmc_tune.training.order import epoch_batches
from lmc_tune.training.task import Task
from lmc_tune.work.cohort import run_cohort, run_pair
from tests.cases import cohort


def group(*, train: dict[str, Any] | None = None, model: dict[str, Any] | None = None, **federated: Any) -> GroupSpec:
    recipe = Federated(**{"clients": 4, "rounds": 3, "split": {"dirichlet": 0.3}} | federated)
    given = {"lr": 0.1, "batch_size": 10, "epochs": recipe.epochs} | (train or {})
    return GroupSpec(
        dataset=DatasetSpec(train=400, test=100),
        model=MlpSpec(**{"hidden": (8,)} | (model or {})),
        train=TrainSpec(**given),
        shift=ShiftSpec(kind="none"),
        recipe=recipe,
        replicate=0,
    )


def timeless(result) -> tuple[Any, ...]:
    """Everything but the seconds."""
    return {k: v for k, v in result.row.items() if k not in TIME_FIELDS}, result.tables


def scored(result, **wanted) -> dict[str, Any]:
    (row,) = [row for row in result.tables["rounds"] if wanted.items() <= row.items()]
    return row


def test_the_average_of_a_round_is_that_of_a_loop_written_by_hand(bench, digits):
    """Oracle: plain PyTorch and stochastic gradient descent written out; two rounds of two epochs."""
    spec = group(clients=3, rounds=2, local_epochs=2, split={"classes": 5})
    result = run_pair(spec, bench())
    from lmc_tune.data.datasets import load_dataset

    data = load_dataset(spec.dataset, bench().data_root)
    parts = client_parts(data.train.labels.numpy(), spec.recipe, spec.seed_for("split"))
    model = build_model(spec.model, tuple(data.train.inputs.shape[1:]), 10, spec.seed_for("init"))
    common = [p.detach().clone() for p in model.parameters()]
    for round_ in range(2):
        ends = []
        for part, member in zip(parts, spec.members.values(), strict=True):
            theta = [p.clone().requires_grad_() for p in common]
            for epoch in (2 * round_, 2 * round_ + 1):
                for batch in epoch_batches(len(part), 10, member.noise_seed, epoch):
                    at = part[batch.numpy()]
                    hidden = functional.linear(data.train.inputs[at].flatten(1), theta[0], theta[1]).relu()
                    loss = functional.cross_entropy(functional.linear(hidden, *theta[2:]), data.train.labels[at])
                    grads = torch.autograd.grad(loss, theta)
                    theta = [(p - 0.1 * g).detach().requires_grad_() for p, g in zip(theta, grads, strict=True)]
            ends.append([p.detach() for p in theta])
        sizes = [len(part) for part in parts]
        common = [sum(n * end[i] for n, end in zip(sizes, ends, strict=True)) / sum(sizes) for i in range(4)]
        hidden = functional.linear(data.test.inputs.flatten(1), *common[:2]).relu()
        logits = functional.linear(hidden, *common[2:])
        row = scored(result, round=round_ + 1, what="pooled")
        expected = functional.cross_entropy(logits, data.test.labels, reduction="sum")
        assert row["loss_sum"] == pytest.approx(float(expected), rel=1e-4)
        assert row["correct"] == int((logits.argmax(1) == data.test.labels).sum())


@pytest.mark.parametrize("federated", [{}, {"average": ["linear1"]}, {"average": "none"}])
def test_every_round_scores_every_client_before_and_after_on_both_splits(bench, federated):
    spec = group(**federated)
    result = run_pair(spec, bench())
    rows = result.tables["rounds"]
    assert len(rows) == 3 * (4 * 2 * 2 + 1)
    assert {row["n"] for row in rows if row["split"] == "test"} == {100}
    own = [scored(result, round=1, client=c, what="trained", split="own")["n"] for c in (1, 2, 3, 4)]
    assert sum(own) == 400
    if federated == {"average": "none"}:
        for row in rows:
            if row["what"] == "averaged":
                other = scored(result, **{k: row[k] for k in ("round", "client", "split")}, what="trained")
                assert other["correct"] == row["correct"]
    if not federated:
        tested = {row["correct"] for row in rows if row["what"] in {"averaged", "pooled"} and row["split"] == "test"}
        assert len(tested) <= 3


def test_the_barrier_is_that_of_the_average_over_the_weighted_mean_of_the_clients(bench):
    spec = group(split={"classes": 3}, clients=5)
    result = run_pair(spec, bench())
    own = [scored(result, round=3, client=c, what="trained", split="own") for c in range(1, 6)]
    tested = [scored(result, round=3, client=c, what="trained", split="test") for c in range(1, 6)]
    weights = [row["n"] / 400 for row in own]
    assert len(set(weights)) > 1
    average = scored(result, round=3, what="pooled")
    mean = sum(w * row["correct"] / 100 for w, row in zip(weights, tested, strict=True))
    row = result.row
    assert row["test_error_barrier_midpoint"] == pytest.approx(mean - average["correct"] / 100)
    assert row["test_error_barrier_chord"] == max(0.0, row["test_error_barrier_midpoint"])
    assert row["merge_gain"] == pytest.approx(100 * (average["correct"] / 100 - mean))
    assert row["clients_test_accuracy"] == pytest.approx(mean)
    loss = sum(w * row["loss_sum"] / 100 for w, row in zip(weights, tested, strict=True))
    assert row["test_loss_barrier_midpoint"] == pytest.approx(average["loss_sum"] / 100 - loss)
    after = [scored(result, round=3, client=c, what="averaged", split="own") for c in range(1, 6)]
    on_train = sum(row["loss_sum"] for row in after) / 400 - sum(row["loss_sum"] for row in own) / 400
    assert row["train_loss_barrier_midpoint"] == pytest.approx(on_train, rel=1e-4)
    assert row["lowest_own_accuracy"] == min(row["correct"] / row["n"] for row in own)


def test_learning_curves_are_those_of_the_clients(bench):
    result = run_pair(group(local_epochs=2), bench())
    assert {row["member"] for row in result.tables["curves"]} == {f"client {n}" for n in (1, 2, 3, 4)}
    assert [row["epoch"] for row in result.tables["curves"] if row["member"] == "client 2"] == [1, 2, 3, 4, 5, 6]


def test_clients_that_have_not_learned_leave_their_federation_undertrained(bench):
    result = run_pair(group(train={"lr": 1e-6}), bench())
    assert result.status == "undertrained"
    assert "a client reached" in result.row["reason"]


def test_a_client_that_diverges_is_named_and_nothing_is_averaged(bench):
    result = run_pair(group(train={"lr": 1e30}), bench())
    assert result.status == "diverged"
    assert "client 1: the training loss became" in result.row["reason"]
    assert {row["what"] for row in result.tables["rounds"]} == {"trained"}
    assert not result.tables.get("barriers")


def test_a_client_without_a_full_batch_is_named(bench):
    (result,) = run_cohort(cohort(group(clients=20, train={"batch_size": 32})), bench())
    assert result.status == "failed"
    assert "has 20 examples and no full batch of 32; lower batch_size or clients" in result.row["reason"]


def test_noise_is_common_or_each_clients_own():
    fixed, varied = ([m.noise_seed for m in group(train={"noise": n}).members.values()] for n in ("fixed", "varied"))
    assert len(set(fixed)) == 1
    assert len(set(varied)) == 4
    assert varied[0] == fixed[0]


@pytest.mark.parametrize("federated", [{"moments": "kept"}, {"moments": "restarted", "average": ["linear1"]}])
def test_a_federation_that_is_cut_short_goes_on_where_it_was(bench, monkeypatch, federated):
    spec = group(train={"momentum": 0.9, "engine": "loop"}, model={"norm": "batch"}, norm="local", **federated)
    expected = run_cohort(cohort(spec), bench("whole"))
    tidy, epochs, real = bench("cut", checkpoint_seconds=0), [], Task.feed

    def feed(task, epoch, n_steps):
        epochs.append(epoch)
        if len(epochs) == 11:
            raise KeyboardInterrupt
        return real(task, epoch, n_steps)

    monkeypatch.setattr(Task, "feed", feed)
    with pytest.raises(KeyboardInterrupt):
        run_cohort(cohort(spec), tidy)
    assert [path.stem for path in tidy.store.checkpoints.iterdir()] == [spec.key]
    results = run_cohort(cohort(spec), tidy)
    assert timeless(results[0]) == timeless(expected[0])
    assert epochs[11:] == [2, 2, 2, 2]  # the third round alone: two of its four clients had been trained in vain
    assert not list(tidy.store.checkpoints.iterdir())
    run_cohort(cohort(spec), tidy)
    assert len(epochs) == 15  # a finished federation is not trained again


def test_a_checkpoint_that_cannot_be_read_is_begun_again(bench):
    spec, tidy = group(), bench()
    tidy.store.checkpoints.mkdir(parents=True)
    (tidy.store.checkpoints / f"{spec.key}.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    (result,) = run_cohort(cohort(spec), tidy)
    assert result.status == "ok"


def test_the_shift_between_clients_is_measured(bench):
    shifts = [
        run_pair(group(rounds=1, split=split), bench()).row["label_shift"] for split in ("iid", {"dirichlet": 0.01})
    ]
    assert shifts[0] < 0.2
    assert shifts[1] > 0.5
    assert not math.isnan(shifts[0])


def test_every_norm_policy_is_measured_under_both_conditions(bench):
    rows = {
        norm: run_pair(group(model={"norm": "batch"}, norm=norm), bench(norm)) for norm in ("averaged", "recalibrated")
    }
    for result in rows.values():
        assert {row["condition"] for row in result.tables["barriers"]} == {"naive", "recalibrated"}
    (last,) = [row for row in rows["recalibrated"].tables["barriers"] if row["condition"] == "recalibrated"]
    pooled = scored(rows["recalibrated"], round=3, what="pooled")["correct"] / 100
    clients = rows["recalibrated"].row["clients_test_accuracy"]
    assert last["test_error_barrier_midpoint"] == pytest.approx(clients - pooled)
    assert np.isfinite(last["train_loss_barrier_chord"])
