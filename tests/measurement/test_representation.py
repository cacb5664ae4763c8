import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lmc_tune.core.similarity import cka
from lmc_tune.data.examples import Examples, Joined, Part
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.representation import (
    _first_inputs,
    _outputs,
    compare_grams,
    layer_grams,
    weight_similarity,
)
from lmc_tune.models.state import distance
from tests import oracles
from tests.cases import NETWORKS, blobs, network, state, windows
from tests.measurement.cases import IMAGES, examples_of, image_network


def layer_similarity(model, state_a, state_b, examples, limit=256):
    grams = (layer_grams(Network(model), member, examples, names_of(model), limit) for member in (state_a, state_b))
    return compare_grams(*grams)


def names_of(model):
    return tuple(Network(model).layers)


def layer_outputs(model, examples, names, limit):
    found = _outputs(copy.deepcopy(model), _first_inputs(examples, limit), names, torch.clone)
    return {name: torch.cat(outputs, dim=1) for name, outputs in found.items()}


FIRST = Examples(inputs=IMAGES.inputs[:20], labels=IMAGES.labels[:20])


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_parameter_belongs_to_the_layer_that_holds_it(kind):
    model = image_network(kind, 1)
    layers = Network(model).layers
    assert [name for names in layers.values() for name in names] == [name for name, _ in model.named_parameters()]
    for layer, names in layers.items():
        own = [name for name, _ in model.get_submodule(layer).named_parameters(recurse=False)]
        assert [name.rpartition(".")[2] for name in names] == own
    assert tuple(Network(model).layers) == tuple(layers)


def test_layers_by_hand():
    assert Network(network(0, norm=True)).layers == {
        "1": ("1.weight", "1.bias"),
        "2": ("2.weight", "2.bias"),
        "4": ("4.weight", "4.bias"),
    }
    # A transformer's class token and positions are held beside its blocks; attention is two layers.
    assert tuple(Network(image_network("vit", 0)).layers)[:6] == (
        "",
        "conv_proj",
        "encoder",
        "encoder.layers.encoder_layer_0.ln_1",
        "encoder.layers.encoder_layer_0.self_attention",
        "encoder.layers.encoder_layer_0.self_attention.out_proj",
    )


def test_outputs_are_those_of_the_same_layers_applied_by_hand():
    model, examples = network(1, norm=True).double(), blobs(dtype=torch.float64)
    weights = {name: tensor.numpy() for name, tensor in state(model).items()}
    model.train()
    found = layer_outputs(model, examples, ["4", "1"], 30)
    hidden = examples.inputs[:30].numpy().reshape(30, -1) @ weights["1.weight"].T + weights["1.bias"]
    logits = np.maximum(hidden / math.sqrt(1 + 1e-5), 0) @ weights["4.weight"].T + weights["4.bias"]
    assert list(found) == ["4", "1"]
    assert found["1"].numpy() == pytest.approx(hidden, abs=1e-12)
    assert found["4"].numpy() == pytest.approx(logits, abs=1e-12)


@torch.no_grad()
def test_later_layers_that_work_in_place_do_not_reach_back():
    vgg, resnet = image_network("vgg batch", 1), image_network("resnet batch", 1)
    found = layer_outputs(vgg, IMAGES, ["1"], 20)["1"]
    assert vgg[2].inplace
    assert torch.equal(found, vgg.eval()[:2](FIRST.inputs).flatten(1))
    found = layer_outputs(resnet, IMAGES, ["stage1.0.bn2"], 20)["stage1.0.bn2"]
    block, before = (
        resnet.eval().stage1[0],
        resnet[:3](FIRST.inputs),
    )  # a block adds its inputs to its last norm's outputs
    expected = block.bn2(block.conv2(block.bn1(block.conv1(before)).relu()))
    assert torch.equal(found, expected.flatten(1))


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_model_is_left_as_it_is(kind):
    model, other = image_network(kind, 1), image_network(kind, 2)
    examples = examples_of(kind)
    before, outputs = state(model), model.eval()(examples.inputs)
    model.train()
    layer_outputs(model, examples, names_of(model)[:1], 20)
    layer_similarity(model, state(other), before, examples, 20)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model.eval()(examples.inputs), outputs)


@pytest.mark.parametrize("kind", NETWORKS)
def test_similarity_is_the_cka_of_the_layers_outputs(kind):
    model, a, b = image_network(kind, 3), image_network(kind, 1), image_network(kind, 2)
    examples = examples_of(kind)
    found = layer_similarity(model, state(a), state(b), examples, 20)
    assert tuple(found) == names_of(model)
    without = {name for name, value in found.items() if math.isnan(value)}
    assert all(name.endswith("self_attention.out_proj") for name in without)
    assert bool(without) == kind.startswith("vit")
    names = found.keys() - without
    x, y = (layer_outputs(member, examples, names, 20) for member in (a, b))
    for name in names:
        assert found[name] == pytest.approx(cka(x[name].numpy(), y[name].numpy()), abs=1e-9), name


def test_of_text_every_token_is_an_example_and_some_are_compared():
    a, b, many = image_network("gpt", 1), image_network("gpt", 2), windows(100)
    found = layer_similarity(a, state(a), state(b), many)
    chosen = np.linspace(0, 599, 256).round().astype(int)
    x, y = (member.tokens(many.inputs).detach().numpy().reshape(600, 8)[chosen] for member in (a, b))
    assert found["tokens"] == pytest.approx(cka(x, y), abs=1e-9)


def test_similarity_of_a_small_network_by_its_definition():
    model, examples = network(0).double(), blobs(8, dtype=torch.float64)
    a, b = state(network(1).double()), state(network(2).double())
    x, y = (oracles.mlp_logits({k: v.numpy() for k, v in s.items()}, examples.inputs.numpy()) for s in (a, b))
    assert layer_similarity(model, a, b, examples)["3"] == pytest.approx(oracles.debiased_cka(x, y), abs=1e-9)


def test_a_member_is_like_itself_and_like_its_own_permutation():
    model = network(0).double()
    a, examples = state(network(1).double()), blobs(dtype=torch.float64)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = {"1.weight": a["1.weight"][order], "1.bias": a["1.bias"][order]}
    permuted |= {"3.weight": a["3.weight"][:, order], "3.bias": a["3.bias"]}
    for other in (a, permuted):
        assert list(layer_similarity(model, a, other, examples).values()) == pytest.approx([1.0, 1.0], abs=1e-12)


def test_only_the_first_examples_count_and_a_part_has_its_own():
    model, examples = network(0), blobs(60)
    a, b = state(network(1)), state(network(2))
    whole = layer_similarity(model, a, b, examples, 20)
    assert whole == layer_similarity(model, a, b, examples.take(np.arange(20)))
    part = Part(whole=examples, indices=np.arange(59, 19, -1))
    assert layer_similarity(model, a, b, part, 20) == layer_similarity(
        model, a, b, examples.take(np.arange(59, 39, -1))
    )
    assert layer_similarity(model, a, b, part, 20) != whole


def test_of_two_domains_as_many_examples_of_each_count():
    model, examples, others = network(0), blobs(60), blobs(40, seed=5)
    a, b = state(network(1)), state(network(2))
    joined = Joined(sets=(examples, others))
    mixed = Examples(
        inputs=torch.cat([examples.inputs[:10], others.inputs[:10]]),
        labels=torch.cat([examples.labels[:10], others.labels[:10]]),
    )
    assert layer_similarity(model, a, b, joined, 20) == layer_similarity(model, a, b, mixed, 20)


class Twice(nn.Module):
    """One layer that runs twice, with a recurrent one that gives out several things."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(4, 4)
        self.recurrent = nn.GRU(4, 3, batch_first=True)

    def forward(self, inputs):
        hidden = self.twice(self.twice(inputs.flatten(1)))
        return self.recurrent(hidden.unsqueeze(1))[0].flatten(1)


def test_a_layer_that_runs_twice_has_the_features_of_both_runs():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        a, b = Twice().double(), Twice().double()
    examples = blobs(12, dtype=torch.float64)
    outputs = [layer_outputs(model, examples, ["twice", "recurrent"], 12) for model in (a, b)]
    with torch.no_grad():
        once = a.twice(examples.inputs.flatten(1))
        assert torch.equal(outputs[0]["twice"], torch.cat([once, a.twice(once)], dim=1))
        assert torch.equal(outputs[0]["recurrent"], a(examples.inputs))
    found = layer_similarity(a, state(a), state(b), examples)
    for name, value in found.items():
        assert value == pytest.approx(cka(outputs[0][name].numpy(), outputs[1][name].numpy()), abs=1e-9)


def test_a_dead_layer_has_no_similarity():
    model, examples = network(0), blobs()
    a, b = state(network(1)), state(network(2))
    a["1.bias"] = a["1.bias"] - 1000  # nothing passes the rectifier
    found = layer_similarity(model, a, b, examples)
    assert math.isfinite(found["1"])
    assert math.isnan(found["3"])
    b["1.weight"] = b["1.weight"] * math.nan
    assert math.isnan(layer_similarity(model, a, b, examples)["1"])


def test_a_layer_that_is_read_past_has_no_similarity():
    """Attention reads its output projection without running it; a parametrised weight is no tensor of examples."""
    vit, projection = image_network("vit", 0), "encoder.layers.encoder_layer_0.self_attention.out_proj"
    assert layer_grams(Network(vit), state(vit), FIRST, [projection]) == {projection: None}
    normed = nn.Sequential(nn.Flatten(), parametrizations.weight_norm(nn.Linear(4, 3)))
    weight = "1.parametrizations.weight"
    assert layer_grams(Network(normed), state(normed), blobs(), [weight]) == {weight: None}
    assert math.isnan(compare_grams({"1": None}, {"1": np.eye(4)})["1"])


def test_too_few_examples_are_refused():
    model = network(0)
    for examples, limit, n in ((blobs(), 0, 60), (blobs(0), 5, 0)):
        with pytest.raises(ValueError, match=f"at least one example, got limit {limit} and {n} examples"):
            layer_grams(Network(model), state(model), examples, names_of(model), limit)
    with pytest.raises(ValueError, match="debiased CKA needs at least 4 examples, got 3"):
        layer_similarity(model, state(network(1)), state(network(2)), blobs(), 3)


def test_weights_by_hand():
    start = {"w": torch.tensor([1.0, 1.0]), "b": torch.tensor([0.0]), "buffer": torch.tensor([5.0])}
    a = {"w": torch.tensor([4.0, 5.0]), "b": torch.tensor([0.0]), "buffer": torch.tensor([9.0])}
    b = {"w": torch.tensor([1.0, 3.0]), "b": torch.tensor([2.0]), "buffer": torch.tensor([0.0])}
    found = weight_similarity(a, b, start, ("w", "b"))
    assert found.distance == pytest.approx(math.sqrt(9 + 4 + 4))
    assert (found.distance_a, found.distance_b) == (5.0, pytest.approx(math.sqrt(8)))
    assert found.cosine == pytest.approx((3 * 0 + 4 * 2 + 0) / (5 * math.sqrt(8)))
    assert weight_similarity(a, b, start, ("w",)).cosine == pytest.approx(4 / 5)
    assert math.isnan(weight_similarity(a, b, start, ("b",)).cosine)  # A stayed


def test_total_and_layers_follow_the_law_of_cosines():
    model = network(0)
    a, b, start = state(network(1)), state(network(2)), state(model)
    layers = Network(model).layers
    names = tuple(name for layer in layers.values() for name in layer)
    total = weight_similarity(a, b, start, names)
    by_layer = [weight_similarity(a, b, start, layer) for layer in layers.values()]
    assert total.distance == distance(a, b, names)
    assert total.distance**2 == pytest.approx(sum(part.distance**2 for part in by_layer))
    for found in (total, *by_layer):
        opposite = found.distance_a**2 + found.distance_b**2 - 2 * found.distance_a * found.distance_b * found.cosine
        assert found.distance**2 == pytest.approx(opposite)


@pytest.mark.parametrize(("factor", "cosine"), [(1.0, 1.0), (3.0, 1.0), (-0.5, -1.0)])
def test_members_that_went_the_same_way_have_a_cosine_of_one(factor, cosine):
    generator = torch.Generator().manual_seed(0)
    start, step = torch.randn(2, 1000, generator=generator, dtype=torch.float64)
    found = weight_similarity({"w": start + step}, {"w": start + factor * step}, {"w": start}, ("w",))
    assert found.cosine == pytest.approx(cosine, abs=1e-12)
    assert -1 <= found.cosine <= 1


def test_a_diverged_member_has_no_cosine():
    start, moved = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
    assert math.isnan(weight_similarity({"w": torch.tensor([math.nan, 1.0])}, moved, start, ("w",)).cosine)


def test_cosines_are_summed_in_float64():
    a, b = {"w": torch.tensor([3e-25, 4e-25])}, {"w": torch.tensor([4e-25, 3e-25])}
    assert weight_similarity(a, b, {"w": torch.zeros(2)}, ("w",)).cosine == pytest.approx(24 / 25, rel=1e-6)
