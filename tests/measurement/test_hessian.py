"""The largest eigenvalue of the Hessian, against the dense Hessian."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from lmc_tune.data.examples import Examples
from lmc_tune.measurement import hessian
from lmc_tune.measurement.hessian import First, Hessian, top_eigenvalue
from lmc_tune.measurement.network import Network
from tests.cases import NETWORKS, blobs, examples_for, network, state
from tests.measurement.cases import image_network


def dense(model: nn.Module, examples: Examples) -> np.ndarray:
    """All second derivatives of the mean loss, one by one."""
    model = model.double().eval()
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([shape.numel() for shape in shapes.values()])
        weights = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        return functional.cross_entropy(functional_call(model, weights, (examples.inputs.double(),)), examples.labels)

    flat = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    return torch.autograd.functional.hessian(loss, flat).numpy()


def trained(model: nn.Module, examples: Examples, steps: int) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(model(examples.inputs), examples.labels).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batch norm"])
@pytest.mark.parametrize("steps", [0, 40])
def test_it_is_the_dense_hessians(monkeypatch, norm, steps):
    """Summed over chunks of which the last is smaller; at the start, where eigenvalues of both signs are large."""
    monkeypatch.setattr(hessian, "_CHUNK", 25)
    model, examples = trained(network(3, norm=norm), blobs(60), steps), blobs(60)
    expected = np.linalg.eigvalsh(dense(again(model, norm=norm), examples))[-1]
    found = top_eigenvalue(Network(network(0, norm=norm)), state(model), examples, seed=1)
    assert found.value == pytest.approx(expected, rel=1e-6)
    assert found.residual < 1e-4
    assert 0 < found.products < 500


def again(model: nn.Module, *, norm: bool) -> nn.Module:
    other = network(0, norm=norm)
    other.load_state_dict(state(model))
    return other


def test_the_largest_is_not_the_largest_absolute():
    """Surely wrong on a branch of tanh that bends away from the truth."""
    examples = Examples(inputs=torch.ones(4, 1, 1, 1), labels=torch.tensor([0, 0, 0, 1]))
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1, bias=False), nn.Tanh(), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        model[1].weight.fill_(0.6)
        model[3].weight.copy_(torch.tensor([[-5.0], [5.0]]))
    values = np.linalg.eigvalsh(dense(model, examples))
    assert abs(values[0]) > values[-1] > 0
    assert top_eigenvalue(Network(model), state(model), examples, seed=0).value == pytest.approx(values[-1], rel=1e-6)


@pytest.mark.parametrize("kind", ["mlp layer", "vgg", "resnet batch", "vit dropout", "gpt"])
def test_products_are_differences_of_gradients(kind):
    model, examples = image_network(kind, 1), examples_for(NETWORKS[kind], 12)
    own, single = (Hessian(copy.deepcopy(model), examples, kind) for kind in (torch.float64, torch.float32))
    direction = np.random.default_rng(0).standard_normal(own.size)
    direction /= np.linalg.norm(direction)
    model.eval()

    def gradient(step: float) -> np.ndarray:
        moved, at = {}, 0
        for name, parameter in model.named_parameters():
            part = torch.from_numpy(direction[at : at + parameter.numel()]).view_as(parameter)
            moved[name], at = (parameter.detach() + step * part).requires_grad_(), at + parameter.numel()
        logits = functional_call(model, moved, (examples.inputs,)).flatten(0, -2)
        loss = functional.cross_entropy(logits, examples.labels.flatten())
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(moved.values()))]).numpy()

    expected = (gradient(1e-6) - gradient(-1e-6)) / 2e-6
    assert np.abs(own.times(direction) - expected).max() < 1e-5 * max(1, np.abs(expected).max())
    assert np.abs(single.times(direction) - expected).max() < 1e-3 * max(1, np.abs(expected).max())


def test_several_labels_are_decisions():
    examples = Examples(inputs=blobs(20).inputs, labels=(torch.arange(60).view(20, 3) % 2))
    model = network(2)
    model_loss = dense_of_decisions(model, examples)
    assert top_eigenvalue(Network(network(0)), state(model), examples, seed=0).value == pytest.approx(
        np.linalg.eigvalsh(model_loss)[-1], rel=1e-6
    )


def dense_of_decisions(model: nn.Module, examples: Examples) -> np.ndarray:
    model = model.double()
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([shape.numel() for shape in shapes.values()])
        weights = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        logits = functional_call(model, weights, (examples.inputs.double(),))
        return functional.binary_cross_entropy_with_logits(logits, examples.labels.double())

    return torch.autograd.functional.hessian(
        loss, torch.cat([p.detach().flatten() for p in model.parameters()])
    ).numpy()


def test_the_network_stays_as_it_was():
    own, other = Network(network(0)), state(network(1))
    before = state(own.module)
    top_eigenvalue(own, other, blobs(20), seed=0)
    assert all(
        torch.equal(entry, before[name]) and entry.dtype == torch.float32 for name, entry in state(own.module).items()
    )


@pytest.mark.parametrize("size", [7, 25, 100])
@pytest.mark.parametrize("most", [20, 25, 60, 100])
def test_the_first_examples_are_the_first(most, size):
    whole = blobs(60)
    some = First(whole, most)
    inputs = torch.cat([chunk.inputs for chunk in some.chunks(size)])
    labels = torch.cat([chunk.labels for chunk in some.chunks(size)])
    assert torch.equal(inputs, whole.inputs[:most])
    assert torch.equal(labels, whole.labels[:most])
    assert torch.equal(some.labels, labels)
    assert len(some) == len(labels)
