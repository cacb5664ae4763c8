import math

import numpy as np
import pytest
import torch
from torch import nn

from lmc_tune.data.examples import Examples
from lmc_tune.measurement import evaluate as module
from lmc_tune.measurement.evaluate import evaluate, logits_of, losses_of, score_of
from tests import oracles
from tests.cases import blobs, network, state


def test_sums_agree_with_the_loop_over_examples_in_float64():
    model, examples = network(0), blobs(61)
    weights = {name: tensor.double().numpy() for name, tensor in state(model).items()}
    logits = oracles.mlp_logits(weights, examples.inputs.numpy())
    score = evaluate(model, examples)
    assert score.loss_sum == pytest.approx(math.fsum(oracles.cross_entropy(logits, examples.labels.tolist())), rel=1e-6)
    assert score.correct == int(np.sum(logits.argmax(1) == examples.labels.numpy()))
    assert score.n == 61


def test_loss_accuracy_and_error_are_divided_once():
    score = score_of(torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 100.0]]), torch.tensor([0, 1, 1]))
    assert score.loss == pytest.approx(2 * math.log(2) / 3)
    assert (score.correct, score.n) == (2, 3)
    assert score.accuracy == 2 / 3
    assert score.error == 1 / 3


def test_ties_between_logits_go_to_the_smaller_label():
    labels = torch.tensor([0, 1, 2])
    assert score_of(torch.zeros(3, 3), labels).correct == 1
    assert score_of(torch.tensor([[0.0, 1.0, 1.0]] * 3), labels).correct == 1


@pytest.mark.parametrize("chunk", [1, 7, 60, 61, 10_000])
def test_sums_do_not_depend_on_the_chunk(monkeypatch, chunk):
    model, examples = network(0), blobs(61)
    whole = evaluate(model, examples)
    monkeypatch.setattr(module, "CHUNK", chunk)
    score = evaluate(model, examples)
    assert score.loss_sum == pytest.approx(whole.loss_sum, rel=1e-6)
    assert (score.correct, score.n) == (whole.correct, whole.n)


def test_small_losses_are_not_lost_beside_a_large_one():
    # Neighbours of 10⁸ are 8 apart in float32; a thousand times ln 2 must come through exactly.
    logits = torch.zeros(1001, 2)
    logits[0, 1] = 1e8
    score = score_of(logits, torch.zeros(1001, dtype=torch.int64))
    assert score.loss_sum == pytest.approx(1e8 + 1000 * math.log(2), abs=1e-3)


@pytest.mark.parametrize("classes", [1, 2, 10, 15, 16, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_are_the_oracles_and_the_same_bit_for_bit_whoever_stands_beside_them(classes, dtype):
    generator = torch.Generator().manual_seed(classes)
    logits = 20 * torch.randn(3, 203, classes, generator=generator, dtype=dtype)
    labels = torch.randint(classes, (3, 203), generator=generator)
    found = losses_of(logits, labels)
    exact = [
        oracles.cross_entropy(each.double().numpy(), truth.tolist()) for each, truth in zip(logits, labels, strict=True)
    ]
    assert found.double().numpy() == pytest.approx(
        np.array(exact), rel=1e-5 if dtype == torch.float32 else 1e-12, abs=1e-5
    )
    for part in (slice(0, 1), slice(5, 42), slice(190, 203)):
        assert torch.equal(losses_of(logits[:, part], labels[:, part]), found[:, part])
        assert torch.equal(losses_of(logits[1, part], labels[1, part]), found[1, part])


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_network_that_overflowed_has_no_finite_loss(value):
    logits = torch.zeros(3, 10)
    logits[1, 4] = value
    found = losses_of(logits, torch.full((3,), 4))
    assert not found[1].isfinite()
    assert found[[0, 2]].tolist() == pytest.approx(2 * [math.log(10)])


def test_evaluation_mode_is_used_and_nothing_is_differentiated():
    model = nn.Sequential(network(0, norm=True), nn.Dropout(0.5)).train()
    before = state(model)
    logits = logits_of(model, blobs(20))
    assert torch.equal(logits, logits_of(model, blobs(20)))
    assert not logits.requires_grad
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(model).items())


def test_huge_logits_give_an_infinite_or_finite_loss_but_never_a_wrong_count():
    examples = Examples(inputs=torch.tensor([[1.0], [-1.0]]), labels=torch.tensor([1, 0]))
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1e30], [1e30]]))
    score = evaluate(model, examples)
    assert (score.correct, score.loss_sum) == (2, 0.0)
