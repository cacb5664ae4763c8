"""What is done to the networks on a path before they are scored."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from lmc_tune.data.examples import Examples
from lmc_tune.experiment import MlpSpec
from lmc_tune.measurement import conditions
from lmc_tune.measurement.conditions import prepare, recalibrated
from lmc_tune.measurement.lines import Segment
from lmc_tune.measurement.network import Network
from lmc_tune.models.registry import build_model
from lmc_tune.models.state import lerp_state
from tests import oracles
from tests.cases import state
from tests.measurement.cases import IMAGES, image_network

LAMBDAS = [0.0, 0.3, 0.5, 1.0]
BATCHES = IMAGES.inputs.split(12)  # the last of two
SHARES = [len(batch) / len(IMAGES) for batch in BATCHES]


@pytest.fixture(params=["alone", "stacked"])
def way(request, monkeypatch) -> str:
    """In batches of 12, as on a CPU and as on a GPU."""
    monkeypatch.setattr(conditions.scoring, "CHUNK", 12)
    monkeypatch.setattr(conditions, "evaluates_faster_stacked", lambda *_: request.param == "stacked")
    return request.param


def ends(kind: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return state(image_network(kind, 1)), state(image_network(kind, 2))


def prepared(condition, kind: str, lambdas=LAMBDAS, examples=IMAGES) -> list[dict[str, Tensor]]:
    return prepare(condition, Network(image_network(kind, 3)), Segment(*ends(kind)), examples, lambdas).states


@pytest.mark.parametrize("kind", ["mlp batch", "vgg batch", "resnet batch", "resnet-18 batch"])
def test_recalibrated_statistics_are_those_that_torch_estimates_position_by_position(kind, way):
    whole = Examples(inputs=IMAGES.inputs[:48], labels=IMAGES.labels[:48])  # torch weights all batches alike
    for lambda_, found in zip(LAMBDAS, prepared("recalibrated", kind, examples=whole), strict=True):
        reference = image_network(kind, 4)
        reference.load_state_dict(lerp_state(*ends(kind), lambda_))
        update_bn(whole.inputs.split(12), reference)
        for name, tensor in reference.state_dict().items():
            assert float((found[name] - tensor).abs().max()) < 1e-10, name
            assert found[name].dtype == tensor.dtype


@pytest.mark.parametrize("kind", ["mlp batch", "vgg batch"])
def test_an_incomplete_last_batch_counts_by_its_size(kind, way):
    """Of the first norm, whose inputs no other norm has changed: torch's own estimate of each batch, by its weight."""
    examples = Examples(inputs=IMAGES.inputs[:50], labels=IMAGES.labels[:50])
    batches = examples.inputs.split(12)
    (found,) = prepared("recalibrated", kind, [0.3], examples)
    each = []
    for batch in batches:
        reference = image_network(kind, 4)
        reference.load_state_dict(lerp_state(*ends(kind), 0.3))
        update_bn([batch], reference)
        each.append(state(reference))
    first = next(name for name in found if name.endswith("running_mean")).removesuffix("mean")
    for entry in (f"{first}mean", f"{first}var"):
        expected = sum(len(batch) / 50 * one[entry] for batch, one in zip(batches, each, strict=True))
        assert torch.allclose(found[entry], expected, atol=1e-10)
        assert not torch.allclose(found[entry], sum(one[entry] for one in each[:4]) / 4, atol=1e-6)


@pytest.mark.parametrize("n", [13, 25, 49])
def test_no_batch_is_of_a_single_example_whose_variance_is_not_defined(n, way):
    (found,) = prepared(
        "recalibrated", "mlp batch", [0.5], Examples(inputs=IMAGES.inputs[:n], labels=IMAGES.labels[:n])
    )
    sizes = [len(batch) for batch in IMAGES.inputs[:n].split(11)]
    assert min(sizes) > 1
    assert sum(sizes) == n
    assert found["norm1.num_batches_tracked"] == len(sizes)
    assert torch.isfinite(found["norm1.running_var"]).all()


@pytest.mark.parametrize("condition", ["recalibrated", "repaired"])
@pytest.mark.parametrize("kind", ["mlp batch", "vgg batch", "resnet batch"])
def test_a_position_alone_is_prepared_as_the_first_of_many_bit_for_bit(kind, condition, way):
    """Else a path would be taken for random where stacks of different sizes are computed differently."""
    model, members = image_network(kind, 3).float(), [{n: t.float() for n, t in end.items()} for end in ends(kind)]
    images = Examples(inputs=IMAGES.inputs.float(), labels=IMAGES.labels)
    many, alone = (
        prepare(condition, Network(model), Segment(*members), images, lambdas).states[0] for lambdas in (LAMBDAS, [0.0])
    )
    assert all(torch.equal(many[name], tensor) for name, tensor in alone.items())


def test_every_stack_of_a_recalibration_is_equally_large(monkeypatch):
    sizes = []

    class Noted(conditions.Stack):
        def __init__(self, model, states):
            sizes.append(len(states))
            super().__init__(model, states)

    monkeypatch.setattr(conditions, "Stack", Noted)
    monkeypatch.setattr(conditions, "evaluates_faster_stacked", lambda *_: True)
    for lambdas in ([0.0], LAMBDAS, [0.1] * 7):
        assert len(prepared("recalibrated", "mlp batch", lambdas)) == len(lambdas)
    assert sizes == [5, 5, 5, 5]


def test_they_are_the_averages_of_every_batch_s_mean_and_unbiased_variance(way):
    a, b = ends("mlp batch")
    for lambda_, found in zip(LAMBDAS, prepared("recalibrated", "mlp batch"), strict=True):
        weight = oracles.lerp(a, b, lambda_)["linear1.weight"]
        outputs = [batch.numpy().reshape(len(batch), -1) @ weight.T for batch in BATCHES]
        means = np.average([batch.mean(axis=0) for batch in outputs], axis=0, weights=SHARES)
        variances = np.average([batch.var(axis=0, ddof=1) for batch in outputs], axis=0, weights=SHARES)
        assert found["norm1.running_mean"].numpy() == pytest.approx(means, abs=1e-10)
        assert found["norm1.running_var"].numpy() == pytest.approx(variances, abs=1e-10)
        assert found["norm1.num_batches_tracked"] == len(BATCHES)
        assert (found["norm2.running_mean"] - lerp_state(a, b, lambda_)["norm2.running_mean"]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["mlp batch", "vgg batch"])
def test_nothing_of_the_members_statistics_is_left(kind, way):
    a, b = ends(kind)
    states = [lerp_state(a, b, lambda_) for lambda_ in LAMBDAS]
    expected = recalibrated(Network(image_network(kind, 3)), states, IMAGES)
    for entries in states:
        for name, tensor in entries.items():
            if "running" in name:
                tensor.fill_(float("nan"))
    for one, other in zip(recalibrated(Network(image_network(kind, 3)), states, IMAGES), expected, strict=True):
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_the_network_keeps_its_momentum_and_nothing_is_dropped(way):
    """Statistics are those of evaluation: as if there were no dropout."""
    dropping, plain = (
        build_model(MlpSpec(hidden=(6, 7), norm="batch", dropout=p), (3, 32, 32), 4, seed=0).double() for p in (0.5, 0)
    )
    (found,), (expected,) = (recalibrated(Network(model), [state(plain)], IMAGES) for model in (dropping, plain))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert {norm.momentum for norm in dropping.modules() if isinstance(norm, nn.BatchNorm1d)} == {0.1}


def test_examples_that_fill_no_batch_are_one():
    few = Examples(inputs=IMAGES.inputs[:9], labels=IMAGES.labels[:9])
    (found,) = prepared("recalibrated", "mlp batch", [0.5], few)
    assert found["norm1.num_batches_tracked"] == 1


@pytest.mark.parametrize("condition", ["endpoint", "recalibrated"])
def test_a_network_without_batch_norm_is_interpolated(condition):
    assert not Network(image_network("vgg group", 3)).norms
    for lambda_, found in zip(LAMBDAS, prepared(condition, "vgg group"), strict=True):
        assert all(torch.equal(found[name], tensor) for name, tensor in lerp_state(*ends("vgg group"), lambda_).items())


def test_at_the_endpoint_condition_statistics_are_as_and_all_else_is_interpolated():
    a, b = ends("resnet batch")
    for lambda_, found in zip(LAMBDAS, prepared("endpoint", "resnet batch"), strict=True):
        expected = lerp_state(a, b, lambda_)
        for name, tensor in found.items():
            of_norm = "running" in name or "num_batches" in name
            assert torch.equal(tensor, (a if of_norm else expected)[name]), name


# REPAIR


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("mlp", ["linear1", "linear2"]),
        ("mlp batch", []),
        ("vgg batch", []),
        ("resnet batch", []),
        ("resnet layer", 9),  # a convolution before the blocks, two in each of three, and two shortcuts
        ("vgg", 8),
    ],
)
def test_layers_are_repaired_that_no_batch_norm_follows_but_for_the_last(kind, names):
    network = prepare("repaired", Network(image_network(kind, 3)), Segment(*ends(kind)), IMAGES, [0.5]).network.module
    found = [name.removesuffix(".repair") for name, _ in network.named_modules() if name.endswith(".repair")]
    assert (found if isinstance(names, list) else len(found)) == names


def test_a_repaired_perceptron_is_the_one_worked_out_by_hand():
    """One hidden layer: its outputs, standardised, then with the members' interpolated moments."""
    model = build_model(MlpSpec(hidden=(6,)), (3, 32, 32), 4, seed=0).double()
    a, b = (state(build_model(MlpSpec(hidden=(6,)), (3, 32, 32), 4, seed=seed).double()) for seed in (1, 2))
    inputs, eps = IMAGES.inputs.flatten(1), 1e-5
    found = prepare("repaired", Network(model), Segment(a, b), IMAGES, LAMBDAS)
    hidden = {
        name: inputs @ entries["linear1.weight"].T + entries["linear1.bias"] for name, entries in (("a", a), ("b", b))
    }
    for lambda_, entries in zip(LAMBDAS, found.states, strict=True):
        middle = lerp_state(a, b, lambda_)
        outputs = inputs @ middle["linear1.weight"].T + middle["linear1.bias"]
        mean, deviation = (
            torch.lerp(*[moment(outputs_of) for outputs_of in hidden.values()], lambda_)
            for moment in (lambda x: x.mean(0), lambda x: (x.var(0) + eps).sqrt())
        )
        repaired = (outputs - outputs.mean(0)) / (outputs.var(0) + eps).sqrt() * deviation + mean
        expected = repaired.relu() @ middle["head.weight"].T + middle["head.bias"]
        found.network.loaded(entries)
        assert torch.allclose(found.network.module.eval()(IMAGES.inputs), expected, atol=1e-10)


def test_moments_to_repair_by_weight_an_incomplete_batch_by_its_size(monkeypatch):
    monkeypatch.setattr(conditions.scoring, "CHUNK", 12)
    model = build_model(MlpSpec(hidden=(6,)), (3, 32, 32), 4, seed=0).double()
    a = state(build_model(MlpSpec(hidden=(6,)), (3, 32, 32), 4, seed=1).double())
    found = prepare("repaired", Network(model), Segment(a, a), IMAGES, [0.5]).states[0]
    outputs = IMAGES.inputs.flatten(1) @ a["linear1.weight"].T + a["linear1.bias"]
    batches = [batch.numpy() for batch in outputs.split(12)]
    variance = np.average([batch.var(axis=0, ddof=1) for batch in batches], axis=0, weights=SHARES)
    assert found["linear1.repair.bias"].numpy() == pytest.approx(outputs.numpy().mean(axis=0), abs=1e-10)
    assert found["linear1.repair.weight"].numpy() == pytest.approx(np.sqrt(variance + 1e-5), abs=1e-10)


@pytest.mark.parametrize("kind", ["mlp", "vgg", "resnet layer", "vit"])
def test_repaired_members_are_themselves(kind):
    """But for the variance of one batch, which training mode divides by n and the running statistics by n − 1."""
    members = ends(kind)
    found = prepare("repaired", Network(image_network(kind, 3)), Segment(*members), IMAGES, [0.0, 1.0])
    for member, entries in zip(members, found.states, strict=True):
        model = image_network(kind, 3)
        model.load_state_dict(member)
        found.network.loaded(entries)
        expected, given = model.eval()(IMAGES.inputs), found.network.module.eval()(IMAGES.inputs)
        assert (given - expected).abs().max() < 0.1 * expected.std()


@torch.no_grad()
def test_repairing_brings_back_the_variance_that_interpolating_lost():
    model = image_network("vgg", 3)
    a, b = ends("vgg")
    spread = {}
    for condition in ("naive", "repaired"):
        found = prepare(condition, Network(model), Segment(a, b), IMAGES, [0.5])
        found.network.loaded(found.states[0])
        spread[condition] = float(found.network.module.eval()(IMAGES.inputs).var(0).mean())
    ends_ = []
    for member in (a, b):
        model.load_state_dict(member)
        ends_.append(float(model.eval()(IMAGES.inputs).var(0).mean()))
    assert spread["naive"] < 0.5 * min(ends_)
    assert spread["repaired"] > 2 * spread["naive"]
