"""Layers are named by their modules and ordered as data flow, whatever the order in which they are registered."""

import pytest
import torch
from torch import nn

from lmc_tune.measurement.layerwise.layers import layers_of
from tests.cases import NETWORKS
from tests.measurement.cases import IMAGES, Backwards, Tied, examples_of, image_network


def test_layers_come_in_the_order_of_use_and_unused_ones_last():
    layers = layers_of(Backwards(), torch.zeros(2, 4))
    assert [layer.name for layer in layers] == ["first", "", "last", "idle"]
    assert layers[1].parameters == ("shift",)


def test_statistics_of_a_norm_without_parameters_go_with_the_layer_before_it():
    first = layers_of(Backwards(), torch.zeros(2, 4))[0]
    assert first.parameters == ("first.weight", "first.bias")
    assert set(first.entries) > {"middle.running_mean", "middle.running_var"}


def test_tied_weights_are_one_layer_with_all_their_names():
    embed, inner = layers_of(Tied(), torch.zeros(2, 4))
    assert (embed.name, inner.name) == ("embed", "inner")
    assert set(embed.entries) == {"embed.weight", "head.weight", "head.bias"}
    assert sorted(embed.parameters) == ["head.bias", "head.weight"]  # as torch lists it


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_entry_of_a_network_belongs_to_one_layer(kind):
    model = image_network(kind, 1)
    layers = layers_of(model, examples_of(kind).inputs[:2])
    entries = [name for layer in layers for name in layer.entries]
    assert sorted(entries) == sorted(model.state_dict())
    assert sorted(name for layer in layers for name in layer.parameters) == sorted(dict(model.named_parameters()))
    assert all(name.rpartition(".")[0] == layer.name for layer in layers for name in layer.entries)


def test_the_class_token_of_a_transformer_comes_behind_the_patches():
    names = [layer.name for layer in layers_of(image_network("vit", 1), IMAGES.inputs[:2])]
    assert names[:3] == ["conv_proj", "", "encoder"]
    assert names[-1] == "heads.head"


def test_a_language_model_begins_with_its_tokens_and_ends_with_its_head():
    names = [layer.name for layer in layers_of(image_network("gpt", 1), examples_of("gpt").inputs[:2])]
    block = ["norm1", *(f"attention.{one}" for one in ("query", "key", "value", "out")), "norm2"]
    block += ["perceptron.wide", "perceptron.narrow"]
    assert names == [
        "tokens",
        "positions",
        *(f"block{number}.{one}" for number in (1, 2) for one in block),
        "norm",
        "head",
    ]


def test_a_pass_to_find_them_changes_nothing():
    model = image_network("resnet batch", 1).train()
    before = {name: entry.clone() for name, entry in model.state_dict().items()}
    layers_of(model, IMAGES.inputs[:2])
    assert model.training
    assert all(torch.equal(before[name], entry) for name, entry in model.state_dict().items())


def test_a_parametrised_weight_belongs_to_the_module_that_uses_it():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.Linear(3, 2))
    layers = layers_of(model, torch.zeros(2, 4))
    assert [layer.name for layer in layers] == ["0", "1"]
    assert len(layers[0].parameters) == 3
    alone = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    assert [layer.name for layer in layers_of(alone, torch.zeros(2, 4))] == [""]
