"""Layers are compared in the order in which data flow through them, under the names that layer barriers have."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lmc_tune.data.examples import Examples
from lmc_tune.experiment import MeasureSpec
from lmc_tune.measurement.layerwise.layers import layers_of
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.similarity import Similarity
from tests.cases import NETWORKS, blobs, state
from tests.measurement.cases import Backwards, Tied, examples_of, image_network

VECTORS = Examples(inputs=blobs().inputs.flatten(1), labels=blobs().labels % 2)


def weight_normed() -> nn.Module:
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3)), nn.Linear(3, 2))


def members(build, examples: Examples) -> Members:
    """A and B, each as ``build`` makes one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start, a, b = (build() for _ in range(3))
    data = dict.fromkeys(("train", "test"), examples)
    return Members(network=Network(start), states={"a": state(a), "b": state(b)}, data=data, start=state(start))


def layer_rows(found: Members) -> list[dict]:
    rows = Similarity().measure(found, MeasureSpec(conditions=["naive"])).tables["layers"]
    assert [row["position"] for row in rows] == list(range(len(rows)))
    return rows


@pytest.mark.parametrize(
    ("build", "names"),
    [(Backwards, ["first", "", "last", "idle"]), (Tied, ["embed", "inner"]), (weight_normed, ["0", "1"])],
)
def test_layers_are_named_and_ordered_as_data_flow(build, names):
    assert [row["layer"] for row in layer_rows(members(build, VECTORS))] == names


@pytest.mark.parametrize("kind", NETWORKS)
def test_layers_are_those_of_the_layer_barriers(kind):
    seeds = iter(range(3))
    found, examples = members(lambda: image_network(kind, next(seeds)), examples_of(kind)), examples_of(kind)
    layers = layers_of(image_network(kind, 0), examples.inputs[:2])
    assert [row["layer"] for row in layer_rows(found)] == [layer.name for layer in layers]


def test_every_row_is_of_its_own_layer():
    found = members(Backwards, VECTORS)
    a, b = (found.states[name] for name in ("a", "b"))
    rows = {row["layer"]: row for row in layer_rows(found)}
    for layer in ("first", "last", "idle"):
        apart = torch.cat([(a[f"{layer}.{name}"] - b[f"{layer}.{name}"]).flatten() for name in ("weight", "bias")])
        assert rows[layer]["distance"] == pytest.approx(float(apart.double().norm()))
    assert rows["first"]["cka"] > 0.1
    assert math.isnan(rows["idle"]["cka"])


def test_a_parametrised_layer_has_the_outputs_of_its_module():
    assert math.isfinite(layer_rows(members(weight_normed, VECTORS))[0]["cka"])


def test_parameters_that_layers_share_count_once():
    found = members(Tied, VECTORS)
    columns = Similarity().measure(found, MeasureSpec(conditions=["naive"])).columns
    rows = layer_rows(found)
    a, b = (
        torch.cat([member[name].flatten() for name in found.network.parameters]) for member in found.states.values()
    )
    assert sum(row["distance"] ** 2 for row in rows) == pytest.approx(float((a - b).double().square().sum()))
    assert columns["cka"] == pytest.approx(sum(row["cka"] for row in rows) / 2)
