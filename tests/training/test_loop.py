import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from lmc_tune.data.examples import Examples
from lmc_tune.experiment import TrainSpec
from lmc_tune.training.loop import train_member
from lmc_tune.training.order import epoch_batches
from lmc_tune.training.progress import Progress
from lmc_tune.training.schedule import learning_rate
from tests import oracles
from tests.cases import blobs, network, state, task
from tests.training import cases

PART, TEST = blobs(61, dtype=torch.float64), blobs(30, seed=1, dtype=torch.float64)
RULES = cases.RULES | {
    "weight decay": {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    "adam, L2": {"optimizer": "adam", "weight_decay": 0.1},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
}


def train(model: nn.Module, part: Examples, test: Examples, spec: TrainSpec, noise_seed: int) -> Progress:
    return train_member(task(model, part, test, spec, noise_seed))


def train_spec(**changes) -> TrainSpec:
    return TrainSpec(**({"lr": 0.02, "batch_size": 8, "epochs": 3} | changes))


def slow_training(model: nn.Module, spec: TrainSpec, seed: int, n_steps: int) -> list[tuple[list[float], int]]:
    """Example by example, with textbook updates; per epoch the losses of its batches and the hits."""
    rule = oracles.Updates(
        spec.optimizer, momentum=spec.momentum, nesterov=spec.nesterov, weight_decay=spec.weight_decay
    )
    parameters = list(model.parameters())
    epochs, step, epoch = [], 0, 0
    while step < n_steps:
        losses, hits = [], 0
        for batch in epoch_batches(len(PART), spec.batch_size, seed, epoch).tolist():
            if step == n_steps:
                break
            total = torch.zeros((), dtype=torch.float64)
            for i in batch:
                logits = model(PART.inputs[i : i + 1])[0]
                total = total - logits.log_softmax(0)[PART.labels[i]]
                hits += int(logits.argmax() == PART.labels[i])
            loss = total / len(batch)
            gradients = torch.autograd.grad(loss, parameters)
            rule.step(parameters, gradients, learning_rate(spec, step, n_steps))
            losses.append(loss.item())
            step += 1
        epochs.append((losses, hits))
        epoch += 1
    return epochs


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("rule", RULES)
def test_training_is_the_textbooks_loop(rule, schedule):
    spec = train_spec(**RULES[rule], schedule=schedule, warmup=0.2)
    fast, slow = network(3).double(), network(3).double()
    trained = train(fast, PART, TEST, spec, noise_seed=11)
    epochs = slow_training(slow, spec, 11, n_steps=21)
    for name, tensor in state(slow).items():
        assert torch.allclose(trained.state[name], tensor, rtol=0, atol=1e-10)
    assert [point.train_loss for point in trained.curve] == pytest.approx([sum(ls) / len(ls) for ls, _ in epochs])
    assert [point.train_accuracy for point in trained.curve] == pytest.approx([hits / 56 for _, hits in epochs])
    assert trained.diverged == ""


def with_three_labels(examples: Examples, seed: int) -> Examples:
    labels = torch.randint(2, (len(examples), 3), generator=torch.Generator().manual_seed(seed))
    return Examples(inputs=examples.inputs, labels=labels)


@pytest.mark.parametrize("rule", ["momentum", "adam"])
def test_several_labels_per_example_are_learned_by_binary_cross_entropy(rule):
    part, test, spec = with_three_labels(PART, 0), with_three_labels(TEST, 1), train_spec(**RULES[rule])
    fast, slow = network(3).double(), network(3).double()
    trained = train(fast, part, test, spec, noise_seed=11)
    updates = oracles.Updates(spec.optimizer, momentum=spec.momentum)
    for point, epoch in zip(trained.curve, range(3), strict=True):
        losses, hits = [], 0
        for batch in epoch_batches(61, 8, 11, epoch):
            logits, labels = slow(part.inputs[batch]), part.labels[batch]
            loss = functional.binary_cross_entropy_with_logits(logits, labels.double())
            updates.step(list(slow.parameters()), torch.autograd.grad(loss, list(slow.parameters())), spec.lr)
            losses.append(loss.item())
            hits += int(((logits > 0) == labels).sum())
        assert point.train_loss == pytest.approx(sum(losses) / 7)
        assert point.train_accuracy == pytest.approx(hits / (7 * 8 * 3))
        with torch.no_grad():
            logits = slow(test.inputs)
        tested = functional.binary_cross_entropy_with_logits(logits, test.labels.double())
        assert point.test_loss == pytest.approx(tested.item())
        assert point.test_accuracy == pytest.approx(((logits > 0) == test.labels).double().mean().item())
    for name, tensor in state(slow).items():
        assert torch.allclose(trained.state[name], tensor, rtol=0, atol=1e-10)


def test_the_curve_counts_steps_epochs_and_rates_and_ends_with_the_members_test_scores():
    model = network(3).double()
    trained = train(model, PART, TEST, train_spec(schedule="step"), noise_seed=0)
    assert [point.step for point in trained.curve] == [7, 14, 21]
    assert [point.epoch for point in trained.curve] == [1.0, 2.0, 3.0]
    assert [point.lr for point in trained.curve] == pytest.approx([0.02, 0.002, 0.0002])
    with torch.no_grad():
        logits = model(TEST.inputs)
    last = trained.curve[-1]
    losses = oracles.cross_entropy(logits.numpy(), TEST.labels.tolist())
    assert last.test_loss == pytest.approx(math.fsum(losses) / 30)
    assert last.test_accuracy == (logits.argmax(1) == TEST.labels).sum().item() / 30


@pytest.mark.parametrize(
    ("steps", "ends", "epochs"),
    [(1, [1], [1 / 7]), (7, [7], [1.0]), (10, [7, 10], [1.0, 10 / 7]), (15, [7, 14, 15], [1.0, 2.0, 15 / 7])],
)
def test_a_budget_of_steps_may_end_within_an_epoch(steps, ends, epochs):
    spec = train_spec(epochs=None, steps=steps, schedule="cosine")
    fast, slow = network(3).double(), network(3).double()
    trained = train(fast, PART, TEST, spec, noise_seed=4)
    expected = slow_training(slow, spec, 4, n_steps=steps)
    assert [point.step for point in trained.curve] == ends
    assert [point.epoch for point in trained.curve] == pytest.approx(epochs)
    assert [point.train_loss for point in trained.curve] == pytest.approx([sum(ls) / len(ls) for ls, _ in expected])
    for name, tensor in state(slow).items():
        assert torch.allclose(trained.state[name], tensor, rtol=0, atol=1e-10)


def test_a_batch_of_the_whole_part_is_one_step_an_epoch():
    trained = train(network(3).double(), PART, TEST, train_spec(batch_size=61, epochs=4), noise_seed=0)
    assert [point.step for point in trained.curve] == [1, 2, 3, 4]


def test_steps_by_hand():
    assert train_spec(batch_size=8, epochs=3).steps_for(61) == 21
    assert train_spec(batch_size=8, epochs=None, steps=5).steps_for(61) == 5
    assert train_spec(batch_size=61, epochs=4).steps_for(61) == 4


def test_a_batch_larger_than_the_part_is_refused():
    spec = train_spec(batch_size=62)
    with pytest.raises(ValueError, match="batch_size 62 is above the 61 examples that a member sees; lower it or"):
        train(network(3), PART, TEST, spec, noise_seed=0)


@pytest.mark.parametrize("rule", RULES)
def test_float32_training_repeats_bit_for_bit(rule):
    part, test = blobs(61), blobs(30, seed=1)
    spec = train_spec(**RULES[rule])
    one = train(network(3), part, test, spec, noise_seed=1)
    two = train(network(3), part, test, spec, noise_seed=1)
    assert all(torch.equal(one.state[name], two.state[name]) for name in one.state)
    assert one.curve == two.curve


def test_global_random_state_neither_matters_nor_changes():
    part, test = blobs(61), blobs(30, seed=1)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = train(network(3), part, test, train_spec(), noise_seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    two = train(network(3), part, test, train_spec(), noise_seed=1)
    assert all(torch.equal(one.state[name], two.state[name]) for name in one.state)


def test_the_noise_seed_decides_the_order():
    one, two = (train(network(3).double(), PART, TEST, train_spec(), noise_seed=s) for s in (1, 2))
    assert not torch.equal(one.state["1.weight"], two.state["1.weight"])


def test_the_members_weights_are_a_copy_of_the_models():
    model = network(3)
    trained = train(model, blobs(61), blobs(30), train_spec(), noise_seed=1)
    kept = trained.state["1.weight"].clone()
    with torch.no_grad():
        model[1].weight.zero_()
    assert torch.equal(trained.state["1.weight"], kept)


@pytest.mark.parametrize("lr", [1e20, 1e38])
def test_training_stops_at_the_first_epoch_with_a_non_finite_loss_and_says_so(lr):
    trained = train(network(3), blobs(61), blobs(30), train_spec(lr=lr, epochs=9), noise_seed=1)
    assert len(trained.curve) < 9
    assert not math.isfinite(trained.curve[-1].train_loss)
    assert all(math.isfinite(point.train_loss) for point in trained.curve[:-1])
    assert trained.diverged == f"the training loss became {trained.curve[-1].train_loss} in epoch {len(trained.curve)}"


def test_every_epoch_trains_in_training_mode_whatever_came_before():
    model = network(3, norm=True).eval()
    trained = train(model, blobs(61), blobs(30), train_spec(epochs=3), noise_seed=1)
    assert trained.state["2.num_batches_tracked"] == 21


def test_batch_statistics_are_learned_in_training_and_used_in_evaluation():
    part, test = blobs(61), blobs(30, seed=1)
    model = network(3, norm=True)
    trained = train(model, part, test, train_spec(lr=1e-30, batch_size=61, epochs=1), noise_seed=1)
    with torch.no_grad():
        hidden = functional.linear(part.inputs.flatten(1), trained.state["1.weight"], trained.state["1.bias"])
    assert trained.state["2.num_batches_tracked"] == 1
    assert torch.allclose(trained.state["2.running_mean"], 0.1 * hidden.mean(0), atol=1e-6)
    assert torch.allclose(trained.state["2.running_var"], 0.9 + 0.1 * hidden.var(0), atol=1e-5)
    assert not model.training
