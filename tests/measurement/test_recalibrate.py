import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from lmc_tune.core.interpolation import lerp_state
from lmc_tune.measurement.recalibrate import recalibrated, recalibrated_stack
from tests import oracles
from tests.cases import state
from tests.measurement.cases import IMAGES, image_network

LAMBDAS = [0.0, 0.3, 0.5, 1.0]
BATCHES = IMAGES.inputs[:48].split(12)


def on_stack(model, a, b, lambdas, batches):
    return recalibrated_stack(model, [lerp_state(a, b, lambda_) for lambda_ in lambdas], batches)


WAYS = {"alone": recalibrated, "stack": on_stack}


def ends(kind: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    return state(image_network(kind, 1)), state(image_network(kind, 2))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["mlp batch", "vgg batch", "resnet batch", "resnet-18 batch"])
def test_statistics_are_those_that_torch_estimates_position_by_position(kind, way):
    a, b = ends(kind)
    model = image_network(kind, 3)
    for lambda_, found in zip(LAMBDAS, WAYS[way](model, a, b, LAMBDAS, BATCHES), strict=True):
        reference = image_network(kind, 4)
        reference.load_state_dict(lerp_state(a, b, lambda_))
        update_bn(BATCHES, reference)
        for name, tensor in reference.state_dict().items():
            assert float((found[name] - tensor).abs().max()) < 1e-10, name
            assert found[name].dtype == tensor.dtype


@pytest.mark.parametrize("way", WAYS)
def test_they_are_the_averages_of_every_batch_s_mean_and_unbiased_variance(way):
    a, b = ends("mlp batch")
    for lambda_, found in zip(LAMBDAS, WAYS[way](image_network("mlp batch", 3), a, b, LAMBDAS, BATCHES), strict=True):
        weight = oracles.lerp(a, b, lambda_)["linear1.weight"]
        outputs = [batch.numpy().reshape(len(batch), -1) @ weight.T for batch in BATCHES]
        means = np.mean([batch.mean(axis=0) for batch in outputs], axis=0)
        variances = np.mean([batch.var(axis=0, ddof=1) for batch in outputs], axis=0)
        assert found["norm1.running_mean"].numpy() == pytest.approx(means, abs=1e-10)
        assert found["norm1.running_var"].numpy() == pytest.approx(variances, abs=1e-10)
        assert found["norm1.num_batches_tracked"] == len(BATCHES)
        assert (found["norm2.running_mean"] - lerp_state(a, b, lambda_)["norm2.running_mean"]).abs().max() > 1e-3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["mlp batch", "vgg batch"])
def test_nothing_of_the_members_statistics_is_left(kind, way):
    a, b = ends(kind)
    expected = WAYS[way](image_network(kind, 3), a, b, LAMBDAS, BATCHES)
    for name, tensor in b.items():
        if "running" in name:
            tensor.fill_(float("nan"))
    for one, other in zip(WAYS[way](image_network(kind, 3), a, b, LAMBDAS, BATCHES), expected, strict=True):
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("way", WAYS)
def test_the_network_keeps_its_momentum(way):
    a, b = ends("vgg batch")
    model = image_network("vgg batch", 3)
    WAYS[way](model, a, b, LAMBDAS, BATCHES)
    assert {norm.momentum for norm in model.modules() if isinstance(norm, nn.BatchNorm2d)} == {0.1}


def test_a_network_without_batch_norm_is_interpolated():
    a, b = ends("vgg group")
    for lambda_, found in zip(LAMBDAS, recalibrated(image_network("vgg group", 3), a, b, LAMBDAS, []), strict=True):
        assert all(torch.equal(found[name], tensor) for name, tensor in lerp_state(a, b, lambda_).items())
