"""Activation matching: of a copy whose units stand in another order, every unit is recognised by its responses."""

import numpy as np
import pytest
import torch
from torch import nn

from lmc_tune.data.examples import Examples
from lmc_tune.experiment import MlpSpec, ResnetSpec, VggSpec
from lmc_tune.measurement.alignment.activations import match_activations
from lmc_tune.measurement.alignment.specification import inverse, random_permutations
from lmc_tune.measurement.alignment.trace import specification_of
from lmc_tune.models.registry import build_model
from tests.cases import NETWORKS, examples_for, shape_of

MODELS = {
    "mlp": MlpSpec(hidden=(40, 30, 20)),
    "mlp tanh": MlpSpec(hidden=(24,), activation="tanh"),
    "mlp batch": MlpSpec(hidden=(16, 16), norm="batch"),
    "vgg": VggSpec(width=1 / 16, norm="batch"),
    "resnet": ResnetSpec(depth=8, width=1 / 2),
    "vit": NETWORKS["vit"],
    "gpt": NETWORKS["gpt"],
}


def images(n: int = 300) -> Examples:
    generator = torch.Generator().manual_seed(2)
    return Examples(inputs=torch.randn(n, 3, 32, 32, generator=generator), labels=torch.zeros(n, dtype=torch.int64))


@pytest.mark.parametrize("name", MODELS)
def test_a_planted_permutation_is_recovered_but_for_units_that_never_respond(name):
    spec = MODELS[name]
    model = build_model(spec, shape_of(spec), 4, 0)
    examples = examples_for(spec, 300, seed=2, dtype=torch.float32)
    specification = specification_of(model, examples.inputs[:2])
    state = {entry: tensor.clone() for entry, tensor in model.state_dict().items()}
    planted = random_permutations(specification, 5)
    moved = specification.permuted(state, planted)
    found = match_activations(model, specification, state, moved, examples)
    assert found.keys() == specification.free.keys()
    again = specification.permuted(moved, found)
    model.load_state_dict(state)
    before = model.eval()(examples.inputs[:50])
    model.load_state_dict(again)
    torch.testing.assert_close(model(examples.inputs[:50]), before, rtol=1e-4, atol=1e-4)  # silent units may be swapped
    for number, permutation in inverse(planted).items():
        right = (found[number] == permutation).mean()
        assert right == 1 or name in {"vgg", "resnet"}, (number, right)
        assert right > 0.7


def test_the_correlations_are_numpys_and_the_best_assignment_is_taken():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 12), nn.Tanh(), nn.Linear(12, 4))
    other = nn.Sequential(nn.Flatten(), nn.Linear(3072, 12), nn.Tanh(), nn.Linear(12, 4))
    examples = images(600)  # several chunks
    specification = specification_of(model, examples.inputs[:2])
    (found,) = match_activations(model, specification, model.state_dict(), other.state_dict(), examples).values()
    hidden = [torch.tanh(net[1](examples.inputs.flatten(1))).detach().numpy() for net in (model, other)]
    correlations = np.corrcoef(hidden[0].T, hidden[1].T)[:12, 12:]
    reached = correlations[np.arange(12), found].sum()
    rng = np.random.default_rng(0)
    assert all(reached >= correlations[np.arange(12), rng.permutation(12)].sum() for _ in range(2000))
    for one in range(12):
        for two in range(one):  # no swap of two units is better
            swapped = found.copy()
            swapped[[one, two]] = swapped[[two, one]]
            assert reached >= correlations[np.arange(12), swapped].sum() - 1e-9


def test_units_that_never_respond_do_no_harm():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 6), nn.ReLU(), nn.Linear(6, 4))
    with torch.no_grad():
        model[1].weight[2:4] = 0.0
        model[1].bias[2:4] = -1.0
    specification = specification_of(model, images(2).inputs)
    state = model.state_dict()
    planted = {number: np.array([5, 4, 3, 2, 1, 0]) for number in specification.free}
    (found,) = match_activations(model, specification, state, specification.permuted(state, planted), images()).values()
    assert found[[0, 1, 4, 5]].tolist() == [5, 4, 1, 0]
