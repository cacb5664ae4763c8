"""Which units may change places: of every network the function stays, and every axis is accounted for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lmc_tune.measurement.alignment.groups import Group, Place
from lmc_tune.measurement.alignment.links import RESIDUAL
from lmc_tune.measurement.alignment.specification import (
    Specification,
    check_complete,
    composed,
    inverse,
    random_permutations,
)
from lmc_tune.measurement.alignment.trace import specification_of
from lmc_tune.models.registry import build_model
from lmc_tune.vision import import_torchvision
from tests.cases import NETWORKS, WINDOW, shape_of

TORCHVISION = {
    "resnet18": {},
    "vgg11_bn": {"num_classes": 10},
    "mobilenet_v2": {"width_mult": 0.25},
    "densenet121": {},
    "VisionTransformer": {
        "image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 64,
    },
}  # fmt: skip


def shaken(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """With statistics, scales and offsets that differ from unit to unit."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(getattr(module, "running_var", None), Tensor):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    with torch.no_grad():
        for entry in model.parameters():
            if entry.dim() == 1 or not entry.any():
                entry.copy_(entry + 0.3 * torch.randn(entry.shape, generator=generator))
    return model.eval().to(dtype)


def network(name: str) -> nn.Module:
    if name in NETWORKS:
        return build_model(NETWORKS[name], shape_of(NETWORKS[name]), 4, 0)
    torch.manual_seed(0)
    made: nn.Module = getattr(import_torchvision().models, name)(**TORCHVISION[name])
    return made


def specified(model: nn.Module, dtype: torch.dtype = torch.float64) -> tuple[Specification, Tensor]:
    generator = torch.Generator().manual_seed(1)
    if isinstance(next(model.children()), nn.Embedding):
        inputs = torch.randint(4, (2, *WINDOW), generator=generator)
    else:
        inputs = torch.randn(2, 3, 32, 32, generator=generator).to(dtype)
    return specification_of(model, inputs), inputs


@pytest.mark.parametrize("name", [*NETWORKS, *TORCHVISION])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_any_permutation_leaves_the_function_as_it_is(name, dtype, rounding):
    model = shaken(network(name), dtype)
    specification, images = specified(model, dtype)
    state = {entry: tensor.clone() for entry, tensor in model.state_dict().items()}
    check_complete(specification, state, [entry for entry, _ in model.named_parameters()])
    before = model(images).detach()
    permutations = random_permutations(specification, 3)
    moved = specification.permuted(state, permutations)
    model.load_state_dict(moved)
    after = model(images).detach()
    assert float((after - before).abs().max()) <= rounding * float(before.abs().max())
    changed = sum(not torch.equal(state[entry], moved[entry]) for entry in state)
    assert changed >= len(specification.free)
    back = specification.permuted(moved, inverse(permutations))
    assert all(torch.equal(back[entry], state[entry]) for entry in state)


FREE = {"mlp": 2, "mlp layer": 1, "vgg": 8, "resnet batch": 6, "vit": 4, "gpt": 4, "resnet18": 12, "vgg11_bn": 10}


@pytest.mark.parametrize("name", FREE)
def test_so_many_groups_are_free(name):
    specification, _ = specified(network(name).double())
    assert len(specification.free) == FREE[name]


@pytest.mark.parametrize(("name", "heads", "width"), [("vit", 2, 4), ("gpt", 2, 4), ("VisionTransformer", 4, 8)])
def test_of_transformers_heads_and_hidden_units_are_free_and_the_residual_stream_on_request(name, heads, width):
    model = shaken(network(name), torch.float64)
    fixed, images = specified(model)
    assert [group.widths for group in fixed.free.values() if group.heads == heads] == [(width, width)] * 2
    assert fixed.frozen[0] == RESIDUAL  # of most axes
    free = specification_of(model, images, residual="free")
    entry = "tokens.weight" if name == "gpt" else "class_token"
    (stream,) = (group for group in free.free.values() if any(place.entry == entry for place in group.places))
    assert len(free.free) == len(fixed.free) + 1
    assert stream.widths == (heads * width,)
    state = model.state_dict()
    moved = free.permuted(state, random_permutations(free, 3))
    assert not torch.equal(moved[entry], state[entry])
    before = model(images).detach()
    model.load_state_dict(moved)
    assert float((model(images).detach() - before).abs().max()) <= 1e-10 * float(before.abs().max())


def test_permutations_follow_one_another_as_they_are_composed():
    model = network("resnet batch").double()
    specification, _ = specified(model)
    first, then = (random_permutations(specification, seed) for seed in (1, 2))
    state = model.state_dict()
    twice = specification.permuted(specification.permuted(state, first), then)
    once = specification.permuted(state, composed(first, then))
    assert all(torch.equal(twice[entry], once[entry]) for entry in state)


class Toy(nn.Module):
    """Two hidden layers and something between them."""

    def __init__(self, between, width: int = 6) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(width, 3)
        self.between = between

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(self.between(torch.relu(self.first(inputs))))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(torch.relu(self.again(torch.relu(self.again(self.first(inputs))))))


class Convolved(nn.Module):
    """A convolution over hidden units, as if they had an order."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.over, self.last = nn.Linear(4, 6), nn.Conv1d(1, 1, 3, padding=1), nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.over(self.first(inputs)[:, None]).flatten(1))


class Reading(nn.Module):
    """It reads a layer's weight, or only its type, next to using the layer."""

    def __init__(self, read) -> None:
        super().__init__()
        self.first, self.last, self.read = nn.Linear(4, 6), nn.Linear(6, 3), read

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(self.read(inputs, self.first.weight))))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.relu(self.first(inputs))
        return self.last(hidden + self.inner(hidden))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.only(inputs) if inputs.sum() > 0 else -self.only(inputs)


class Between(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(inputs)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Toy(Between(lambda x: torch.cat([x, x], 1)), 12), "cat concatenates units with others"),
        (Toy(Between(lambda x: x[:, :3]), 3), "getitem picks some of the units"),
        (Toy(Between(lambda x: x.view(-1, 2, 3).transpose(1, 2).flatten(1))), "mixes units"),
        (Toy(Between(lambda x: (x.view(-1, 2, 3).mean(-1, keepdim=True) * torch.ones(3)).flatten(1))), "mixes units"),
        (Toy(Between(lambda x: torch.cumsum(x, 1))), "cumsum lets no permutation pass"),
        (Toy(nn.GroupNorm(2, 6)), "between normalises 2 groups of channels"),
        (Toy(nn.AvgPool1d(2), 3), "between pools over units"),
        (Toy(nn.PReLU(6)), "between is of the unknown kind PReLU"),
        (Toy(nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))), "between.weight is made of other weights"),
        (Twice(), "again.weight is used twice"),
        (Convolved(), "over runs along units"),
        (Reading(lambda inputs, weight: inputs * weight.norm()), "norm lets no permutation pass"),
        (Residual(), "inner.weight reads and makes the same units"),
    ],
)
def test_what_lets_no_permutation_pass_is_named(model, reason):
    specification = specification_of(model, torch.randn(5, 4))
    check_complete(specification, model.state_dict(), [name for name, _ in model.named_parameters()])
    assert any(reason in said for said in specification.frozen), specification.frozen
    frozen = next(at for at, group in enumerate(specification.groups) if group.frozen)
    with pytest.raises(ValueError, match="cannot be permuted"):
        specification.permuted(model.state_dict(), {frozen: np.arange(specification.groups[frozen].size)})


def test_looking_at_the_type_of_a_weight_freezes_nothing():
    specification = specification_of(Reading(lambda inputs, weight: inputs.to(weight.dtype)), torch.randn(5, 4))
    assert [group.widths for group in specification.free.values()] == [(6,)]


def test_a_network_that_cannot_be_traced_has_no_group_and_says_why():
    specification = specification_of(Branching(), torch.randn(5, 4))
    assert specification.free == {}
    assert all(reason.startswith("the network cannot be traced: ") for reason in specification.fixed.values())
    assert set(specification.fixed) == {("only.weight", 0), ("only.weight", 1), ("only.bias", 0)}


def test_what_is_no_permutation_is_refused():
    model = network("mlp").double()
    specification, _ = specified(model)
    number, group = next(iter(specification.free.items()))
    for wrong in (np.zeros(group.size, dtype=np.int64), np.arange(group.size + 1)):
        with pytest.raises(ValueError, match=f"has {group.size} units; give a permutation of them"):
            specification.permuted(model.state_dict(), {number: wrong})


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_space_knows_without_torch_which_networks_have_units_that_can_be_permuted(kind: str) -> None:
    specification, _ = specified(network(kind).float(), torch.float32)
    assert NETWORKS[kind].may_be_aligned == (specification.units > 0)
    assert specification.units == sum(group.size for group in specification.groups if not group.frozen)
    if not specification.units:
        assert "normalises" in specification.hindrances[0]


def test_the_parts_of_an_axis_have_to_be_all_of_it():
    weight = {"weight": torch.zeros(6)}
    places = [Place(entry="weight", dim=0, start=start) for start in (0, 3)]

    def check(*own: Place, **fixed) -> None:
        groups = tuple(Group(widths=(3,), places=(place,)) for place in own)
        check_complete(Specification(groups=groups, **fixed), weight, ["weight"])

    check(*places)
    for wrong in (places[:1], places[1:], [*places, places[0]], [places[0], replace(places[1], start=2)]):
        with pytest.raises(AssertionError, match="axis 0 of weight has 6 indices; these are in groups"):
            check(*wrong)
    with pytest.raises(AssertionError, match="axis 0 of weight is neither in a group nor fixed"):
        check()
    with pytest.raises(AssertionError, match="axis 0 of weight is also fixed"):
        check(*places, fixed={("weight", 0): "it is"})
