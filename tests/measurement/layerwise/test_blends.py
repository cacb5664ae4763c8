"""Blends computed as a tree are the networks that a loop would load one after the other."""

import copy
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from lmc_tune.data.examples import Examples
from lmc_tune.experiment import LayersSpec
from lmc_tune.measurement.conditions import recalibrated
from lmc_tune.measurement.evaluate import evaluate
from lmc_tune.measurement.layerwise import blends
from lmc_tune.measurement.layerwise.blends import Blender, blended, distinct_runs
from lmc_tune.measurement.layerwise.layers import layers_of
from lmc_tune.measurement.layerwise.sets import layer_sets
from lmc_tune.measurement.lines import MeasurementError
from lmc_tune.measurement.network import Network
from tests.cases import NETWORKS, state
from tests.measurement.cases import IMAGES, examples_of, image_network

BASES = ("a", "b")


def blender_of(kind: str) -> Blender:
    a, b = (image_network(kind, seed) for seed in (1, 2))
    return Blender(Network(image_network(kind, 3)), (state(a), state(b)), layers_of(a, examples_of(kind).inputs[:2]))


def all_blends(n: int, lambdas: tuple[float, ...] = (0.5,)) -> list[tuple[float, ...]]:
    """Both members, and every set of every family from both bases."""
    unnamed = [blends.Layer(name=str(at), parameters=(), entries=()) for at in range(n)]
    sets = layer_sets(unnamed, LayersSpec(window=2))
    return [(0.0,) * n, (1.0,) * n, *(s.blend(base, at, n) for s in sets for base in BASES for at in lambdas)]


def some_of(found: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Two dozen, of every family."""
    return found[:: -(-len(found) // 24)]


def losses_one_by_one(model: nn.Module, states: list[dict[str, Tensor]], examples: Examples) -> list[float]:
    """The naive loop: a copy, its weights, a whole pass."""
    found = []
    for entries in states:
        network = copy.deepcopy(model)
        network.load_state_dict(entries)
        with torch.no_grad():
            logits = network.eval()(examples.inputs)
        labels = examples.labels.flatten()
        found.append(float(functional.cross_entropy(logits.flatten(0, -2), labels, reduction="sum")))
    return found


@pytest.mark.parametrize("condition", ["naive", "endpoint", "recalibrated"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_blends_equal_the_naive_loop(kind, condition):
    blender = blender_of(kind)
    asked = some_of(all_blends(len(blender.layers), (0.3,)))
    examples = examples_of(kind)
    found = blender.score(asked, {"test": examples}, condition, examples)
    assert not blender.obstacle
    states = [blended(*blender.ends, blender.layers, blend) for blend in asked]
    if condition == "endpoint":
        a = blender.ends[0]
        states = [one | {name: a[name] for name in a if "running" in name} for one in states]
    if condition == "recalibrated":
        states = recalibrated(blender.network, states, examples)
    expected = losses_one_by_one(blender.network.module, states, examples)
    assert [found[blend]["test"].loss_sum for blend in asked] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["mlp", "resnet", "resnet batch", "vit"])
def test_in_single_precision_they_equal_it_as_well(kind):
    found = blender_of(kind)
    ends = tuple({name: entry.float() for name, entry in end.items()} for end in found.ends)
    examples = Examples(inputs=IMAGES.inputs.float(), labels=IMAGES.labels)
    blender = Blender(Network(found.network.module.float()), ends, found.layers)
    asked = some_of(all_blends(len(blender.layers)))
    scores = blender.score(asked, {"test": examples})
    states = [blended(*ends, blender.layers, blend) for blend in asked]
    expected = losses_one_by_one(blender.network.module, states, examples)
    assert [scores[blend]["test"].loss_sum for blend in asked] == pytest.approx(expected, rel=1e-6)


def test_large_layers_multiplied_by_onednn_give_the_same():
    """As wide as oneDNN takes them, with and without a ReLU behind them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = [nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.Linear(64, 8)) for _ in range(2)]
        examples = Examples(inputs=torch.randn(700, 64), labels=torch.randint(8, (700,)))
    ends = state(models[0]), state(models[1])
    blender = Blender(Network(copy.deepcopy(models[0])), ends, layers_of(models[0], examples.inputs[:2]))
    asked = list(product((0.0, 0.5, 1.0), repeat=3))
    scores = blender.score(asked, {"test": examples})
    assert not blender.obstacle
    expected = losses_one_by_one(models[0], [blended(*ends, blender.layers, blend) for blend in asked], examples)
    assert [scores[blend]["test"].loss_sum for blend in asked] == pytest.approx(expected, rel=1e-6)


class _Products(TorchDispatchMode):
    """Counts matrix products, of which a perceptron has one per layer."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.addmm.default
        return func(*args, **(kwargs or {}))


def test_a_whole_sweep_takes_half_a_pass_for_every_set():
    n = 12
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(n))).double()
        examples = Examples(inputs=torch.randn(6, 4).double(), labels=torch.randint(4, (6,)))
    ends = state(model), {name: entry + 0.1 for name, entry in state(model).items()}
    blender = Blender(Network(model), ends, layers_of(model, examples.inputs[:2]))
    sets = layer_sets(blender.layers, LayersSpec())
    asked = [(0.0,) * n, (1.0,) * n, *(s.blend(base, 0.5, n) for s in sets for base in BASES)]
    blender.score(asked[:1], {"test": examples})  # records
    with _Products() as counted:
        blender.score(asked, {"test": examples})
    assert counted.count == distinct_runs(asked)
    families = 3 * 2  # single, shallow, deep; from A and from B
    assert counted.count / n <= families * n / 2 + 3
    assert len(asked) - 1 > 2 * counted.count / n  # a loop would take a pass for each


def test_outputs_that_are_kept_fit_the_memory(monkeypatch):
    blender = blender_of("resnet")
    whole = blender.score(all_blends(len(blender.layers)), {"test": IMAGES})
    monkeypatch.setattr(blends, "_ACTIVATION_BYTES", 2**21)
    small = blender_of("resnet")
    chunks = small.score(all_blends(len(small.layers)), {"test": IMAGES})
    per_example = 16 * 8 * 32 * 32  # bytes of the stem's outputs alone, at a quarter of its width
    assert small._chunk * per_example / 4 <= 2**21
    assert small._chunk < blender._chunk
    for blend, scores in whole.items():
        assert chunks[blend]["test"].loss_sum == pytest.approx(scores["test"].loss_sum, rel=1e-12)
        assert chunks[blend]["test"].correct == scores["test"].correct


def test_interpolated_weights_that_are_not_kept_are_made_again(monkeypatch):
    asked = all_blends(len(blender_of("mlp").layers))
    kept = blender_of("mlp").score(asked, {"test": IMAGES})
    monkeypatch.setattr(blends, "_WEIGHT_BYTES", 0)
    assert blender_of("mlp").score(asked, {"test": IMAGES}) == kept


class Sequence(nn.Module):
    """Tokens are normed by a BatchNorm of its own kind, called by a keyword."""

    class Norm(nn.BatchNorm1d):
        def forward(self, tokens: Tensor) -> Tensor:
            return super().forward(tokens.transpose(1, 2)).transpose(1, 2)

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embed, self.norm, self.head = nn.Linear(4, 5), self.Norm(5), nn.Linear(25, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = torch.stack([self.embed(inputs * at) for at in range(1, 6)], dim=1)
        return self.head(self.norm(tokens=tokens).flatten(1).relu())


class Called(Sequence):
    """The same statistics, without calling the norm."""

    def forward(self, inputs: Tensor) -> Tensor:
        n = self.norm
        hidden = functional.batch_norm(self.embed(inputs), n.running_mean, n.running_var, n.weight, n.bias, n.training)
        return self.head(hidden.repeat(1, 5).relu())


class Twice(Sequence):
    """One norm runs twice."""

    def forward(self, inputs: Tensor) -> Tensor:
        norm = nn.BatchNorm1d.forward
        return self.head(norm(self.norm, norm(self.norm, self.embed(inputs)).relu()).repeat(1, 5))


class Counting(Sequence):
    """Counts its passes, in evaluation too."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        self.passes += 1
        return super().forward(inputs)


class OfItsBatch(Sequence):
    """A norm without running statistics: outputs depend on the batch."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.norm = self.Norm(5, track_running_stats=False)


class Remembering(Sequence):
    """Keeps something that it made in its first pass."""

    scale: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        if self.scale is None:
            self.scale = torch.full((4,), 2.0).to(inputs)
        return super().forward(inputs * self.scale)


@pytest.mark.parametrize("condition", ["naive", "endpoint", "recalibrated"])
@pytest.mark.parametrize("kind", [Sequence, Called, Twice, Counting, OfItsBatch, Remembering])
def test_whatever_a_network_does_scores_are_those_of_the_loop_and_members_stay_as_they_are(kind, condition):
    def made(seed: int) -> nn.Module:
        model = kind(seed).double()
        model.train()(torch.randn(40, 4, generator=torch.Generator().manual_seed(seed)).double())
        return model

    generator = torch.Generator().manual_seed(9)
    inputs, labels = torch.randn(700, 4, generator=generator).double(), torch.arange(700) % 3
    examples, ends = Examples(inputs=inputs, labels=labels), (state(made(1)), state(made(2)))
    kept = copy.deepcopy(ends)
    network = Network(made(3))
    blender = Blender(network, ends, layers_of(network.module, inputs[:2]))
    asked = list(product((0.0, 0.5, 1.0), repeat=len(blender.layers)))
    found = blender.score(asked, {"test": examples}, condition, examples)
    copy.deepcopy(network.module)  # recording left nothing in it
    states = [blended(*ends, blender.layers, blend) for blend in asked]
    if condition == "endpoint":
        states = [one | {name: entry for name, entry in ends[0].items() if "running" in name} for one in states]
    if condition == "recalibrated":
        states = recalibrated(Network(made(3)), states, examples)
    expected = [evaluate(Network(made(3)).loaded(one), examples).loss_sum for one in states]
    assert [found[blend]["test"].loss_sum for blend in asked] == pytest.approx(expected, rel=1e-9)
    for end, before in zip(ends, kept, strict=True):
        assert all(torch.equal(entry, before[name]) for name, entry in end.items())


def test_large_logits_are_no_obstacle():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 8))
        for parameter in model.parameters():
            parameter.data *= 30
        examples = Examples(inputs=torch.randn(60, 64), labels=torch.randint(8, (60,)))
    blender = Blender(Network(model), (state(model), state(model)), layers_of(model, examples.inputs[:2]))
    assert blender.records(examples), blender.obstacle


class Fickle(nn.Module):
    """Does another thing where its inputs say so."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.one, self.other, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.one(inputs) if float(inputs.sum()) > 0 else self.other(self.one(inputs))
        return self.head(hidden.relu())


def test_a_network_that_cannot_be_recorded_is_loaded_again_and_again():
    model, ends = Fickle(0), (state(Fickle(1)), state(Fickle(2)))
    inputs = torch.cat([torch.full((512, 4), 0.3), torch.full((512, 4), -0.3)])
    examples = Examples(inputs=inputs, labels=torch.arange(1024) % 3)
    layers = layers_of(model, inputs[-2:])
    assert [layer.name for layer in layers] == ["one", "other", "head"]
    blender = Blender(Network(model), ends, layers)
    asked = list(product((0.0, 0.5), repeat=3))
    found = blender.score(asked, {"test": examples})
    assert blender.obstacle
    states = [blended(*ends, layers, blend) for blend in asked]
    halves = [
        Examples(inputs=half, labels=labels)
        for half, labels in zip(inputs.split(512), examples.labels.split(512), strict=True)
    ]
    expected = [sum(pair) for pair in zip(*(losses_one_by_one(model, states, half) for half in halves), strict=True)]
    assert [found[blend]["test"].loss_sum for blend in asked] == pytest.approx(expected, rel=1e-5)


def test_outputs_come_in_the_order_of_the_examples():
    blender = blender_of("mlp")
    asked = all_blends(len(blender.layers))[:3]
    found: dict[tuple[float, ...], list[Tensor]] = {}
    for blend, split, some, logits in blender.outputs(asked, {"test": IMAGES}):
        assert (split, len(logits)) == ("test", len(some))
        found.setdefault(blend, []).append(logits)
    for blend in asked:
        network = copy.deepcopy(blender.network.module)
        network.load_state_dict(blended(*blender.ends, blender.layers, blend))
        torch.testing.assert_close(torch.cat(found[blend]), network(IMAGES.inputs).detach())


def test_outputs_of_a_network_that_cannot_be_recorded_are_refused():
    ends = state(Fickle(1)), state(Fickle(2))
    examples = Examples(inputs=torch.ones(4, 4), labels=torch.arange(4) % 3)
    blender = Blender(Network(Fickle(0)), ends, layers_of(Fickle(0), examples.inputs))
    with pytest.raises(MeasurementError, match="the network cannot be recorded: "):
        next(blender.outputs([(0.5,) * len(blender.layers)], {"test": examples}))


def test_statistics_cannot_be_estimated_on_nothing():
    blender = blender_of("mlp batch")
    with pytest.raises(MeasurementError, match="recalibrated needs examples of the training set"):
        blender.score([(0.0,) * len(blender.layers)], {"test": IMAGES}, "recalibrated")


def test_scoring_leaves_the_members_as_they_are():
    blender = blender_of("resnet batch")
    before = copy.deepcopy(blender.ends)
    blender.score(all_blends(len(blender.layers)), {"test": IMAGES}, "recalibrated", IMAGES)
    for end, kept in zip(blender.ends, before, strict=True):
        assert all(torch.equal(entry, kept[name]) for name, entry in end.items())
