"""Scanning a path is evaluating the interpolated network position by position, at a lower price."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from lmc_tune.core.interpolation import lerp_state
from lmc_tune.data.datasets import Examples, Part
from lmc_tune.measurement import evaluate as scoring
from lmc_tune.measurement.evaluate import evaluate
from lmc_tune.measurement.scan import scan
from tests.cases import blobs, network, state

LAMBDAS = [0.0, 0.1, 0.5, 0.75, 1.0]
DATA = blobs(61, dtype=torch.float64)


def trained_statistics(model: nn.Sequential) -> nn.Sequential:
    """Other batch statistics than the fresh ones."""
    model.train()(DATA.inputs[:20])
    return model


def convolution(seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))


NETWORKS: dict[str, Callable[[int], nn.Sequential]] = {
    "mlp": lambda seed: network(seed).double(),
    "mlp with batch norm": lambda seed: trained_statistics(network(seed, norm=True).double()),
    "linear": lambda seed: nn.Sequential(*network(seed).double()[:2]),
    "convolution": lambda seed: convolution(seed).double(),
}


@pytest.mark.parametrize("chunk", [7, 4096])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_scan_agrees_with_the_network_at_every_position(kind, chunk, monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    a, b, model = (NETWORKS[kind](seed) for seed in (1, 2, 3))
    for lambda_, score in zip(LAMBDAS, scan(model, state(a), state(b), LAMBDAS, DATA), strict=True):
        model.load_state_dict(lerp_state(state(a), state(b), lambda_))
        expected = evaluate(model, DATA)
        assert score.loss_sum == pytest.approx(expected.loss_sum, rel=1e-12)
        assert (score.correct, score.n) == (expected.correct, expected.n)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_ends_are_the_members_bit_for_bit(kind):
    data = Examples(inputs=DATA.inputs.float(), labels=DATA.labels)
    a, b, model = (NETWORKS[kind](seed).float() for seed in (1, 2, 3))
    assert scan(model, state(a), state(b), [0.0, 1.0], data) == [evaluate(a, data), evaluate(b, data)]


@pytest.mark.parametrize("chunk", [7, 512])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_part_scores_as_a_copy_of_it_bit_for_bit(kind, chunk, monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    at = np.array([60, 3, *range(7, 58)])
    part, copy = Part(whole=DATA, indices=at), DATA.take(at)
    a, b, model = (NETWORKS[kind](seed) for seed in (1, 2, 3))
    assert scan(model, state(a), state(b), LAMBDAS, part) == scan(model, state(a), state(b), LAMBDAS, copy)
    assert evaluate(a, part) == evaluate(a, copy)


def test_a_first_linear_layer_is_applied_twice_however_many_positions_there_are():
    calls = []
    a, b, model = (network(seed).double() for seed in (1, 2, 3))
    model[1].register_forward_hook(lambda *_: calls.append("first"))
    model[3].register_forward_hook(lambda *_: calls.append("last"))
    scan(model, state(a), state(b), LAMBDAS, DATA)
    assert (calls.count("first"), calls.count("last")) == (2, len(LAMBDAS))
