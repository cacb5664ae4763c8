"""Networks against published sizes and against torchvision's own."""

import math
import re

import pytest
import torch
from torch import nn

from lmc_tune.errors import UserError
from lmc_tune.experiment import FactorySpec, GptSpec, MlpSpec, ResnetSpec, VggSpec, VitSpec
from lmc_tune.models.registry import build_model
from lmc_tune.vision import import_torchvision
from tests.cases import IMAGE_NETWORKS, NETWORKS, shape_of

CIFAR = (3, 32, 32)


def n_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def images(*shape: int) -> torch.Tensor:
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("spec", "n_classes", "expected"),
    [
        # Lion et al. 2024: ResNet-20 of widths 64, 128, 256 with LayerNorm, CIFAR-10 and -100
        (ResnetSpec(depth=20, width=4, norm="layer", shortcut="3x3"), 10, 4_655_434),
        (ResnetSpec(depth=20, width=4, norm="layer", shortcut="3x3"), 100, 4_678_564),
        # Adilova et al. 2024: norm-free ResNet-18 with a 3x3 stem
        (ResnetSpec(depth=18, norm="none"), 10, 11_164_362),
        # He et al. 2016 (0.27, 0.46, 0.85 million), whose shortcuts have no weights; here two have 1x1 and a norm
        (ResnetSpec(depth=20), 10, 269_722 + 2560 + 192),
        (ResnetSpec(depth=32), 10, 464_154 + 2560 + 192),
        (ResnetSpec(depth=56), 10, 853_018 + 2560 + 192),
    ],
)
def test_networks_have_the_published_numbers_of_parameters(spec, n_classes, expected):
    assert n_parameters(build_model(spec, CIFAR, n_classes, seed=0)) == expected


@pytest.mark.parametrize(("depth", "layers"), [(11, 8), (13, 10), (16, 13)])
def test_a_vgg_has_its_convolutions_and_one_linear_layer(depth, layers):
    model = build_model(VggSpec(depth=depth, width=1 / 8), CIFAR, 10, seed=0)
    assert sum(isinstance(layer, nn.Conv2d) for layer in model.modules()) == layers
    assert [layer.in_features for layer in model.modules() if isinstance(layer, nn.Linear)] == [64]


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_resnet_18_computes_what_torchvisions_does(norm):
    torchvision = import_torchvision().models
    reference = torchvision.resnet18(
        num_classes=7, norm_layer=nn.BatchNorm2d if norm == "batch" else lambda _: nn.Identity()
    )
    reference.conv1, reference.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    model = build_model(ResnetSpec(depth=18, norm=norm), CIFAR, 7, seed=0)
    own, others = model.state_dict(), reference.state_dict()
    assert [tensor.shape for tensor in own.values()] == [tensor.shape for tensor in others.values()]
    reference.load_state_dict(dict(zip(others, own.values(), strict=True)))
    with torch.no_grad():
        assert torch.equal(model.eval()(images(*CIFAR)), reference.eval()(images(*CIFAR)))


def test_a_vit_computes_what_torchvisions_does_with_a_head_of_its_own():
    spec = VitSpec(patch=8, depth=2, heads=2, dim=12, mlp_dim=20)
    reference = import_torchvision().models.VisionTransformer(32, 8, 2, 2, 12, 20, num_classes=7)
    model = build_model(spec, CIFAR, 7, seed=0)
    reference.load_state_dict(model.state_dict())
    with torch.no_grad():
        logits = model.eval()(images(*CIFAR))
        assert torch.equal(logits, reference.eval()(images(*CIFAR)))
    assert logits.std() > 0, "torchvision's head starts at 0"


@pytest.mark.parametrize("network", IMAGE_NETWORKS)
@pytest.mark.parametrize("channels", [1, 3, 12])
def test_networks_take_images_of_any_number_of_channels(network, channels):
    model = build_model(NETWORKS[network], (channels, 32, 32), 5, seed=0)
    assert model(images(channels, 32, 32)).shape == (3, 5)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_seed_decides_every_weight_and_global_random_state_none(network):
    spec = NETWORKS[network]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    shape = shape_of(spec)
    one = build_model(spec, shape, 5, seed=4).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    two, other = (build_model(spec, shape, 5, seed=seed).state_dict() for seed in (4, 5))
    assert all(torch.equal(one[name], two[name]) for name in one)
    drawn = [
        name for name in one if not torch.equal(one[name], torch.full_like(one[name], one[name].flatten()[0].item()))
    ]
    assert drawn
    assert not any(torch.equal(one[name], other[name]) for name in drawn)


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group"])
@pytest.mark.parametrize(
    "spec", [VggSpec(width=1 / 8), ResnetSpec(depth=8), ResnetSpec(depth=18, width=1 / 4)], ids=lambda s: s.label
)
def test_a_norm_takes_the_place_of_every_other(spec, norm):
    layers = list(build_model(spec.model_copy(update={"norm": norm}), CIFAR, 5, seed=0).modules())
    batch = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    group = [layer for layer in layers if isinstance(layer, nn.GroupNorm)]
    assert bool(batch) == (norm == "batch")
    assert bool(group) == (norm in ("layer", "group"))
    for layer in group:
        assert layer.num_groups == 1 if norm == "layer" else layer.num_channels // layer.num_groups >= 2


def test_nothing_that_batch_norm_would_cancel_is_trained():
    for spec in (MlpSpec(norm="batch"), VggSpec(width=1 / 8, norm="batch"), ResnetSpec(depth=8)):
        model = build_model(spec, CIFAR, 5, seed=0)
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        assert [layer.bias is None for layer in layers] == [True] * (len(layers) - 1) + [False]


def test_initial_weights_by_name():
    def first(init: str) -> nn.Linear:
        layer = build_model(MlpSpec(hidden=(400,), init=init), (1, 20, 40), 5, seed=0).get_submodule("linear1")
        assert isinstance(layer, nn.Linear)
        assert bool(layer.bias.any()) == (init == "torch")
        return layer

    assert first("torch").weight.abs().max() <= 1 / math.sqrt(800)
    assert first("kaiming").weight.std().item() == pytest.approx(math.sqrt(2 / 800), rel=0.01)
    assert first("xavier").weight.abs().max().item() == pytest.approx(math.sqrt(6 / 1200), rel=0.01)
    weight = first("orthogonal").weight.detach()
    assert torch.allclose(weight @ weight.T, torch.eye(400), atol=1e-5)


def test_inputs_that_a_network_cannot_take_are_refused():
    with pytest.raises(UserError, match="vgg halves its input five times and needs images of 32x32, not 28x28"):
        build_model(VggSpec(), (1, 28, 28), 10, seed=0)
    with pytest.raises(UserError, match="vit needs square images that patches of 5 divide, not 32x32"):
        build_model(VitSpec(patch=5), CIFAR, 10, seed=0)
    for name in IMAGE_NETWORKS:
        with pytest.raises(UserError, match="needs images, not windows of 6 tokens"):
            build_model(NETWORKS[name], (6,), 10, seed=0)
    with pytest.raises(UserError, match="gpt needs text, not 32x32"):
        build_model(GptSpec(), CIFAR, 10, seed=0)


def make(width: int = 3) -> nn.Module:
    """A factory as a user would write it."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, width))


def test_a_users_own_factory_is_called_with_its_arguments_and_seeded():
    spec = FactorySpec(factory=f"{__name__}:make", arguments={"width": 5})
    one, two = (build_model(spec, CIFAR, 5, seed=1) for _ in range(2))
    assert one(images(*CIFAR)).shape == (3, 5)
    assert torch.equal(one[1].weight, two[1].weight)


def broken(width: int = 3) -> nn.Module:
    raise ValueError(f"no network of width {width}\nand more")


RAISED = broken.__code__.co_firstlineno + 1


@pytest.mark.parametrize(
    ("factory", "arguments", "message"),
    [
        ("nowhere.at_all:make", {}, "cannot be imported: ModuleNotFoundError: No module named 'nowhere'; install "),
        (f"{__name__}:missing", {}, f"is not there; name a function of {__file__} that returns a torch.nn.Module"),
        (f"{__name__}:CIFAR", {}, f"is of type tuple; name a function of {__file__} that returns a torch.nn.Module"),
        (
            f"{__name__}:make",
            {"widht": 5},
            "failed with TypeError: make() got an unexpected keyword argument 'widht'; fix it, or model.arguments",
        ),
        (f"{__name__}:broken", {}, f"failed with ValueError: no network of width 3 ({__file__}:{RAISED}); fix it"),
        ("builtins:dict", {}, "gave dict, not a torch.nn.Module; let it return the network"),
    ],
)
def test_a_factory_that_gives_no_network_is_refused(factory, arguments, message):
    with pytest.raises(UserError, match=rf"^model\.factory: {factory} {re.escape(message)}"):
        build_model(FactorySpec(factory=factory, arguments=arguments), CIFAR, 5, seed=0)
