"""A network made ready for inference is the same function."""

import pytest
import torch
from torch import nn

from lmc_tune.models.inference import for_inference
from tests.cases import state
from tests.measurement.cases import IMAGES, NETWORKS, image_network

CONVOLUTIONAL = [kind for kind in NETWORKS if not kind.startswith("mlp")]


def difference(one: nn.Module, other: nn.Module) -> float:
    with torch.no_grad():
        return float((one(IMAGES.inputs) - other(IMAGES.inputs)).abs().max())


@pytest.mark.parametrize("kind", CONVOLUTIONAL)
def test_outputs_are_those_of_the_plain_network(kind):
    model = image_network(kind, 1).eval()
    assert difference(for_inference(model), model) < 1e-10


@pytest.mark.parametrize("kind", ["vgg batch", "resnet batch", "resnet-18 batch"])
def test_every_batch_norm_of_these_networks_goes_into_a_convolution(kind):
    model = image_network(kind, 1)
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in for_inference(model).modules())


def test_the_network_itself_is_left_as_it_was():
    model = image_network("resnet batch", 1)
    before = state(model)
    for_inference(model)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.is_contiguous() for parameter in model.parameters())


class Tapped(nn.Module):
    """Reads the convolution's outputs beside the norm: folding would change what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    def forward(self, inputs):
        convolved = self.layers[0](inputs)
        return (convolved + self.layers[1](convolved)).mean((2, 3))


def test_a_network_of_ones_own_layers_keeps_its_norms():
    model = Tapped().double()
    model.train()(IMAGES.inputs)
    assert difference(for_inference(model), model.eval()) < 1e-10


def test_a_norm_without_running_statistics_stays():
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double().eval()
    assert difference(for_inference(model), model) < 1e-10


def test_a_norm_before_its_convolution_stays():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)).double()
    model.train()(IMAGES.inputs)
    assert difference(for_inference(model), model.eval()) < 1e-10
