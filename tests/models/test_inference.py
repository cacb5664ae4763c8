"""A network made ready for inference is the same function."""

import copy

import pytest
import torch
from torch import nn

from lmc_tune.measurement.lines import Segment
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.scan import scan
from lmc_tune.models.inference import OneDnnConv2d, OneDnnLinear, for_inference
from lmc_tune.models.plain import is_plain
from lmc_tune.models.state import lerp_state
from tests.cases import NETWORKS, state
from tests.measurement.cases import IMAGES, examples_of, image_network

NOT_PERCEPTRONS = [kind for kind in NETWORKS if not kind.startswith("mlp")]


def difference(one: nn.Module, other: nn.Module, inputs: torch.Tensor = IMAGES.inputs) -> float:
    with torch.no_grad():
        return float((one(inputs) - other(inputs)).abs().max())


@pytest.mark.parametrize("kind", NOT_PERCEPTRONS)
def test_outputs_are_those_of_the_plain_network(kind):
    model = image_network(kind, 1).eval()
    assert difference(for_inference(model), model, examples_of(kind).inputs) < 1e-10


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 256, 256), (7, 784, 100), (512, 700, 96), (33, 1700, 51), (4, 6, 300, 300)])
def test_linear_layers_are_multiplied_by_onednn_to_single_precision(shape, bias):
    *batch, width_in, width_out = shape
    layer = nn.Linear(width_in, width_out, bias=bias)
    inputs = torch.randn(*batch, width_in)
    fast = for_inference(nn.Sequential(layer))
    assert [type(module) for module in fast] == [OneDnnLinear]
    with torch.no_grad():
        found, expected = fast(inputs), copy.deepcopy(layer).double()(inputs.double())
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 1e-6 * width_in
    assert type(layer) is nn.Linear


@torch.no_grad()
def test_a_linear_layer_whose_weights_change_is_laid_out_anew():
    fast = for_inference(nn.Sequential(nn.Linear(300, 300)))
    inputs, other = torch.randn(5, 300), nn.Linear(300, 300)
    fast(inputs)
    fast[0].weight.mul_(2)
    expected = nn.functional.linear(inputs, fast[0].weight, fast[0].bias)
    assert (fast(inputs) - expected).abs().max() < 1e-4
    for assign in (False, True):
        other.weight.normal_()
        fast[0].load_state_dict(other.state_dict(), assign=assign)
        assert (fast(inputs) - other(inputs)).abs().max() < 1e-3


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 1, 1), (2, (0, 1), 1), (1, 2, 2)])
def test_convolutions_are_those_of_torch_to_single_precision(stride, padding, dilation, groups):
    layer = nn.Conv2d(4, 6, 3, stride=stride, padding=padding, dilation=dilation, groups=groups)
    inputs = torch.randn(5, 4, 9, 8)
    fast = for_inference(nn.Sequential(layer))
    assert [type(module) for module in fast] == [OneDnnConv2d]
    with torch.no_grad():
        expected = copy.deepcopy(layer).double()(inputs.double())
        for given in (
            inputs,
            inputs.contiguous(memory_format=torch.channels_last),
            inputs,
        ):  # the first lays weights out
            assert (fast(given) - expected).abs().max() < 1e-5
    assert type(layer) is nn.Conv2d


@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_of_the_smallest_images_are_those_of_torch(bias):
    """They are done as linear layers; of images of another size by the same layer they are not."""
    layer = nn.Conv2d(5, 7, 3, padding=1, bias=bias)
    fast = for_inference(nn.Sequential(layer))
    with torch.no_grad():
        for n, size in ((6, 2), (1, 2), (3, 4), (40, 2)):
            inputs = torch.randn(n, 5, size, size)
            expected = copy.deepcopy(layer).double()(inputs.double())
            assert (fast(inputs) - expected).abs().max() < 1e-5


def test_what_is_not_finite_stays_so():
    """oneDNN's own ReLU would make 0 of NaN."""
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 300), nn.ReLU(), nn.Linear(300, 9)]
    for at in (0, 3, 5):
        network = copy.deepcopy(nn.Sequential(*layers))
        with torch.no_grad():
            network[at].weight.fill_(torch.nan)
            assert for_inference(network)(torch.randn(5, 3, 2, 2)).isnan().all()


@pytest.mark.parametrize("kind", NOT_PERCEPTRONS)
def test_in_single_precision_outputs_are_those_of_double(kind):
    model = image_network(kind, 1).eval()
    fast, inputs = for_inference(copy.deepcopy(model).float()), examples_of(kind).inputs
    with torch.no_grad():
        found, expected = fast(inputs.float() if inputs.is_floating_point() else inputs), model(inputs)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_what_onednn_does_not_multiply_stays_with_torch(monkeypatch):
    """Small layers, double precision, other paddings; all of it where torch was built without oneDNN."""
    layers = nn.Linear(300, 300), nn.Conv2d(1, 1, 1)
    of_torch = [nn.Linear, nn.Conv2d]
    assert [type(module) for module in for_inference(nn.Sequential(nn.Linear(63, 65)))] == [nn.Linear]
    assert [type(module) for module in for_inference(nn.Sequential(*layers).double())] == of_torch
    for padding in ({"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}):
        assert [type(module) for module in for_inference(nn.Sequential(nn.Conv2d(1, 1, 3, **padding)))] == [nn.Conv2d]
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert [type(module) for module in for_inference(nn.Sequential(*layers).float())] == of_torch


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


class Tempered(nn.Sequential):
    def forward(self, inputs):
        return super().forward(inputs) / 3


def shared_activation() -> nn.Sequential:
    relu = nn.ReLU()
    convolved = [nn.Conv2d(3, 6, 3), relu, nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3), relu, nn.BatchNorm2d(6)]
    return nn.Sequential(*convolved, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))


def frozen() -> nn.Sequential:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    model[1].weight.requires_grad_(False)
    return model


def hooked() -> nn.Sequential:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    model[1].register_forward_hook(lambda *_: None)
    return model


UNUSUAL = {
    "an activation used twice": shared_activation,
    "a subclass": lambda: Tempered(nn.Flatten(), nn.Linear(3 * 32 * 32, 6), nn.ReLU(), nn.Linear(6, 4)),
    "a frozen layer": frozen,
    "a hook": hooked,
    "a layer of ones own": lambda: nn.Sequential(Tapped(), nn.Linear(4, 4)),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_networks_are_not_plain_and_score_as_they_are(kind):
    members = []
    for seed in range(2):
        torch.manual_seed(seed)
        model = UNUSUAL[kind]().double()
        model.train()(IMAGES.inputs)
        members.append(state(model))
    assert not is_plain(model)
    lambdas = [0.0, 0.4, 1.0]
    found = scan(Network(model), Segment(*members), lambdas, IMAGES)
    for lambda_, score in zip(lambdas, found, strict=True):
        model.load_state_dict(lerp_state(*members, lambda_))
        with torch.no_grad():
            expected = nn.functional.cross_entropy(model.eval()(IMAGES.inputs), IMAGES.labels)
        assert score.loss == pytest.approx(float(expected), abs=1e-10)


@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_of_the_registry_are_plain(kind):
    assert is_plain(image_network(kind, 1))
