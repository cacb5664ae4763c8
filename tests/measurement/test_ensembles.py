"""Predictions and averages of several networks."""

import numpy as np
import pytest
import torch
from torch import nn

from lmc_tune.data.examples import Examples
from lmc_tune.experiment import MlpSpec, VggSpec, VitSpec
from lmc_tune.measurement.ensembles.averages import Averages
from lmc_tune.measurement.ensembles.predictions import diversity, predict, with_dropout
from lmc_tune.measurement.network import Network
from lmc_tune.models.registry import build_model
from lmc_tune.models.state import state_of

IMAGES = Examples(
    inputs=torch.randn(70, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
    labels=torch.randint(10, (70,), generator=torch.Generator().manual_seed(1)),
)
DROPPING = {
    "vgg": VggSpec(width=1 / 16, dropout=0.3),
    "vit": VitSpec(patch=16, depth=2, heads=2, dim=8, mlp_dim=12, dropout=0.3),
    "mlp": MlpSpec(hidden=(600, 600), dropout=0.3),
}


@pytest.mark.parametrize("name", DROPPING)
def test_a_seed_decides_what_is_dropped_and_then_nothing_is(name):
    model = build_model(DROPPING[name], (3, 32, 32), 10, seed=0)
    whole = predict([model], IMAGES).logits[0]
    one, other, again = predict(with_dropout(model, [1, 2, 1]), IMAGES).logits
    assert np.array_equal(one, again)
    assert not np.allclose(one, other)
    assert not np.allclose(one, whole)
    assert np.array_equal(predict([model], IMAGES).logits[0], whole), "it drops nothing any more"


def test_passes_with_dropout_are_the_network_in_the_mean():
    """Of a linear network: dropout scales what it keeps, so that its mean is the network without."""
    linear = MlpSpec(hidden=(64,), dropout=0.3)
    model = build_model(linear, (3, 32, 32), 10, seed=0)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.forward = lambda x: x
    few = IMAGES.take(np.arange(5))
    passes = np.mean(predict(with_dropout(model, range(3000)), few).logits, axis=0)
    assert passes == pytest.approx(predict([model], few).logits[0], abs=0.05)


def test_diversity_is_the_mean_over_pairs_whatever_their_order():
    models = [build_model(MlpSpec(hidden=(8,)), (3, 32, 32), 10, seed=seed) for seed in range(3)]
    forwards, backwards = (diversity(predict(order, IMAGES)) for order in (models, models[::-1]))
    assert forwards == pytest.approx(backwards)
    same = diversity(predict([models[0]] * 3, IMAGES))
    for name in ("disagreement", "jensen_shannon", "true_class_variance"):
        assert same[name] == pytest.approx(0, abs=1e-30)
    assert same["kappa"] == 1


def averages(n: int) -> Averages:
    models = [build_model(MlpSpec(hidden=(8,)), (3, 32, 32), 10, seed=seed) for seed in range(n)]
    return Averages(
        network=Network(models[0]), states=[state_of(model) for model in models], data={"test": IMAGES}, statistics=None
    )


def test_weights_of_one_member_are_that_member():
    group = averages(3)
    found = group.scores(np.eye(3).tolist(), "naive")
    for state, one in zip(group.states, found, strict=True):
        logits = predict([group.network.loaded(state)], IMAGES)
        assert one.accuracy == logits.qualities[0].accuracy
        assert one.loss == pytest.approx(logits.qualities[0].nll, rel=1e-5)


def test_pairs_are_all_or_so_many_different_ones():
    few, many = averages(3), averages(8)
    assert few.chosen(10) == [(0, 1), (0, 2), (1, 2)]
    chosen = many.chosen(10)
    assert len(set(chosen)) == 10
    assert all(a < b for a, b in chosen)
    assert many.chosen(10) == chosen, "the same for all families"
    assert len(many.chosen(100)) == 28
