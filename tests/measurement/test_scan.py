"""Scanning a path is evaluating the interpolated network position by position, at a lower price."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_hook

from lmc_tune.data.examples import Examples, Joined, Part
from lmc_tune.experiment import MlpSpec
from lmc_tune.measurement import evaluate as scoring
from lmc_tune.measurement import scan as scanning
from lmc_tune.measurement.evaluate import evaluate
from lmc_tune.measurement.lines import Segment
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.scan import scan, scan_stacked
from lmc_tune.models.registry import build_model
from lmc_tune.models.state import lerp_state
from tests import cases, oracles
from tests.cases import blobs, network, state
from tests.measurement.cases import IMAGES, examples_of, image_network

LAMBDAS = [0.0, 0.1, 0.5, 0.75, 1.0]
DATA = blobs(61, dtype=torch.float64)


def trained_statistics(model: nn.Sequential) -> nn.Sequential:
    """Other batch statistics than the fresh ones."""
    model.train()(DATA.inputs[:20])
    return model


def convolution(seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))


def rows(seed: int) -> nn.Sequential:
    """Its first layer is applied to every row of an image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Flatten(), nn.Linear(5, 3))


NETWORKS: dict[str, Callable[[int], nn.Sequential]] = {
    "mlp": lambda seed: network(seed).double(),
    "mlp with batch norm": lambda seed: trained_statistics(network(seed, norm=True).double()),
    "linear": lambda seed: nn.Sequential(*network(seed).double()[:2]),
    "linear of rows": lambda seed: rows(seed).double(),
    "convolution": lambda seed: convolution(seed).double(),
}


@pytest.mark.parametrize("way", [scan, scan_stacked])
@pytest.mark.parametrize("chunk", [7, 4096])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_scan_agrees_with_the_network_at_every_position(kind, chunk, way, monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    a, b, model = (NETWORKS[kind](seed) for seed in (1, 2, 3))
    for lambda_, score in zip(LAMBDAS, way(Network(model), Segment(state(a), state(b)), LAMBDAS, DATA), strict=True):
        model.load_state_dict(lerp_state(state(a), state(b), lambda_))
        expected = evaluate(model, DATA)
        assert score.loss_sum == pytest.approx(expected.loss_sum, rel=1e-12)
        assert (score.correct, score.n) == (expected.correct, expected.n)


@pytest.mark.parametrize("way", [scan, scan_stacked])
@pytest.mark.parametrize("chunk", [7, 4096])
@pytest.mark.parametrize("kind", NETWORKS)
def test_of_several_labels_every_decision_counts_with_its_binary_cross_entropy(kind, chunk, way, monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    a, b, model = (NETWORKS[kind](seed) for seed in (1, 2, 3))
    each = model(DATA.inputs[:2]).shape[1]
    labels = torch.randint(2, (len(DATA), each), generator=torch.Generator().manual_seed(0))
    data = Joined(
        sets=(
            Part(whole=Examples(inputs=DATA.inputs, labels=labels), indices=np.arange(50)),
            Part(whole=Examples(inputs=DATA.inputs, labels=labels), indices=np.arange(50, 61)),
        )
    )
    for lambda_, score in zip(LAMBDAS, way(Network(model), Segment(state(a), state(b)), LAMBDAS, data), strict=True):
        model.load_state_dict(lerp_state(state(a), state(b), lambda_))
        with torch.no_grad():
            logits = model.eval()(DATA.inputs)
        expected = functional.binary_cross_entropy_with_logits(logits, labels.double(), reduction="sum")
        assert score.loss_sum == pytest.approx(expected.item(), rel=1e-12)
        assert (score.correct, score.n) == (int(((logits > 0) == labels).sum()), each * 61)
        assert evaluate(model, data).loss_sum == pytest.approx(expected.item(), rel=1e-12)
        assert (evaluate(model, data).correct, evaluate(model, data).n) == (score.correct, score.n)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_ends_are_the_members_bit_for_bit(kind):
    data = Examples(inputs=DATA.inputs.float(), labels=DATA.labels)
    a, b, model = (NETWORKS[kind](seed).float() for seed in (1, 2, 3))
    assert scan(Network(model), Segment(state(a), state(b)), [0.0, 1.0], data) == [evaluate(a, data), evaluate(b, data)]


@pytest.mark.parametrize("chunk", [7, 512])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_part_scores_as_a_copy_of_it_bit_for_bit(kind, chunk, monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    at = np.array([60, 3, *range(7, 58)])
    part, copy = Part(whole=DATA, indices=at), DATA.take(at)
    a, b, model = (NETWORKS[kind](seed) for seed in (1, 2, 3))
    assert scan(Network(model), Segment(state(a), state(b)), LAMBDAS, part) == scan(
        Network(model), Segment(state(a), state(b)), LAMBDAS, copy
    )
    assert evaluate(a, part) == evaluate(a, copy)


@pytest.mark.parametrize("kept", [1, 10_000])
def test_how_much_is_kept_of_the_first_layer_changes_nothing(kept, monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK", 7)
    a, b, model = (network(seed) for seed in (1, 2, 3))
    expected = scan(Network(model), Segment(state(a), state(b)), LAMBDAS, blobs(61))
    monkeypatch.setattr("lmc_tune.measurement.scan._KEPT_BYTES", kept)
    assert scan(Network(model), Segment(state(a), state(b)), LAMBDAS, blobs(61)) == expected


def test_weights_that_onednn_lays_out_are_those_of_every_position():
    a, b, model = (build_model(MlpSpec(hidden=(300, 300)), (1, 8, 8), 10, seed) for seed in (1, 2, 3))
    images = cases.images(1200, shape=(1, 8, 8), classes=10, dtype=torch.float32)
    found = scan(Network(model), Segment(state(a), state(b)), LAMBDAS, images)
    for lambda_, score in zip(LAMBDAS, found, strict=True):
        model.load_state_dict(lerp_state(state(a), state(b), lambda_))
        with torch.no_grad():
            logits = model.double().eval()(images.inputs.double())
        model.float()
        expected = functional.cross_entropy(logits, images.labels, reduction="sum").item()
        assert score.loss_sum == pytest.approx(expected, rel=1e-6)
    assert len({score.loss_sum for score in found}) == len(LAMBDAS)


def test_a_first_linear_layer_is_applied_twice_however_many_positions_there_are():
    a, b, model = (network(seed).double() for seed in (1, 2, 3))
    with called() as calls:
        scan(Network(model), Segment(state(a), state(b)), LAMBDAS, DATA)
    widths = [module.out_features for module in calls if isinstance(module, nn.Linear)]
    assert (widths.count(model[1].out_features), widths.count(model[3].out_features)) == (2, len(LAMBDAS))


@contextmanager
def called() -> Iterator[list[nn.Module]]:
    """Modules as they are called; a hook of one's own on a layer would make its network another kind."""
    calls: list[nn.Module] = []
    hook = register_module_forward_hook(lambda module, *_: calls.append(module))
    try:
        yield calls
    finally:
        hook.remove()


def reference(kind: str, lambdas: list[float]) -> list[tuple[float, int]]:
    """Sums of losses and correct predictions, over all tokens, by the plain interpolated network on all at once."""
    a, b, model = (image_network(kind, seed) for seed in (1, 2, 3))
    found = []
    for lambda_ in lambdas:
        model.load_state_dict(lerp_state(state(a), state(b), lambda_))
        examples = examples_of(kind)
        with torch.no_grad():
            logits, labels = model.eval()(examples.inputs).view(-1, 4), examples.labels.flatten()
        losses = oracles.cross_entropy(logits.numpy(), labels.tolist())
        found.append((math.fsum(losses), int(logits.argmax(1).eq(labels).sum())))
    return found


def single(examples: Examples) -> Examples:
    inputs = examples.inputs.float() if examples.inputs.is_floating_point() else examples.inputs
    return Examples(inputs=inputs, labels=examples.labels)


@pytest.mark.parametrize("way", [scan, scan_stacked])
@pytest.mark.parametrize("kind", cases.NETWORKS)
def test_scans_agree_with_the_plain_network_for_every_kind(kind, way, monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK", 19)
    a, b, model = (image_network(kind, seed) for seed in (1, 2, 3))
    lambdas = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]
    scores = way(Network(model), Segment(state(a), state(b)), lambdas, examples_of(kind))
    for score, (loss_sum, correct) in zip(scores, reference(kind, lambdas), strict=True):
        assert abs(score.loss_sum - loss_sum) < 1e-10
        assert (score.correct, score.n) == (correct, examples_of(kind).labels.numel())


@pytest.mark.parametrize("kind", ["mlp batch", "vgg batch", "resnet batch", "vit", "gpt"])
def test_a_position_s_score_is_the_same_whoever_stands_beside_it(kind):
    a, b, model = (image_network(kind, seed).float() for seed in (1, 2, 3))
    data = single(examples_of(kind))
    together = scan(Network(model), Segment(state(a), state(b)), LAMBDAS, data)
    assert [scan(Network(model), Segment(state(a), state(b)), [lambda_], data)[0] for lambda_ in LAMBDAS] == together


@pytest.mark.parametrize("kind", ["mlp batch", "vgg batch", "resnet batch", "vit", "gpt"])
def test_in_a_stack_it_is_so_too_bit_for_bit_in_the_same_place(kind):
    a, b, model = (image_network(kind, seed).float() for seed in (1, 2, 3))
    data = single(examples_of(kind))
    together = scan_stacked(Network(model), Segment(state(a), state(b)), LAMBDAS, data)
    assert scan_stacked(Network(model), Segment(state(a), state(b)), LAMBDAS[:1], data) == together[:1]
    assert (
        scan_stacked(Network(model), Segment(state(a), state(b)), [*LAMBDAS, 0.2, 0.9], data)[: len(LAMBDAS)]
        == together
    )
    for lambda_, score in zip(LAMBDAS, together, strict=True):
        alone = scan_stacked(Network(model), Segment(state(a), state(b)), [lambda_], data)[0]
        assert alone.loss_sum == pytest.approx(score.loss_sum, rel=1e-6)


def test_no_position_has_no_score():
    model = image_network("mlp", 1)
    assert scan_stacked(Network(model), Segment(state(model), state(model)), [], IMAGES) == []


def test_a_stacked_scan_applies_a_first_linear_layer_twice_to_every_chunk():
    a, b, model = (network(seed).double() for seed in (1, 2, 3))
    with called() as calls:
        scan_stacked(Network(model), Segment(state(a), state(b)), LAMBDAS, DATA)
    assert calls.count(model[1]) == 2


def test_where_stacks_are_faster_a_scan_is_a_stacked_one(monkeypatch):
    asked = []
    a, b, model = (image_network("vgg", seed) for seed in (1, 2, 3))
    expected = scan_stacked(Network(model), Segment(state(a), state(b)), LAMBDAS, IMAGES)
    monkeypatch.setattr(scanning, "evaluates_faster_stacked", lambda *given: asked.append(given) or True)
    assert scan(Network(model), Segment(state(a), state(b)), LAMBDAS, IMAGES) == expected
    assert asked == [(model, torch.device("cpu"))]
