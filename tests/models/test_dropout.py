"""Dropout that can be repeated."""

import pytest
import torch
from torch import nn

from lmc_tune.models.dropout import SeededDropout, dropout_seeds, seed_dropouts
from lmc_tune.models.registry import build_model
from tests.cases import NETWORKS, shape_of


def dropped(layer: SeededDropout, seed: int, shape: tuple[int, ...] = (200, 50)) -> torch.Tensor:
    layer.dropout_seed.fill_(seed)
    return layer(torch.ones(shape)) == 0


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_entries_are_dropped_at_the_given_rate_in_every_row_and_column(p):
    zero = dropped(SeededDropout(p, 0), 3, (1000, 1000)).double()
    spread = (p * (1 - p) / 1000) ** 0.5
    assert abs(zero.mean() - p) < 5 * spread / 1000**0.5
    for means in (zero.mean(0), zero.mean(1)):
        assert (means - p).abs().max() < 5 * spread
        assert means.std() == pytest.approx(spread, rel=0.15)  # independent draws, neither more even nor less


def test_masks_of_other_seeds_layers_and_places_have_nothing_in_common():
    first = dropped(SeededDropout(0.5, 0), 3)
    others = [dropped(SeededDropout(0.5, 0), 4), dropped(SeededDropout(0.5, 1), 3), first.roll(1), first.roll(1, 0)]
    for other in others:
        assert (first == other).double().mean() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(first, dropped(SeededDropout(0.5, 0), 3))


def test_the_mean_is_kept_and_evaluation_drops_nothing():
    layer = SeededDropout(0.3, 0)
    values = layer(torch.ones(100, 1000))
    assert values.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert values.mean() == pytest.approx(1, abs=0.01)
    assert torch.equal(layer.eval()(torch.ones(5)), torch.ones(5))


def test_gradients_flow_through_what_was_kept():
    inputs = torch.ones(50, 40, dtype=torch.float64, requires_grad=True)
    outputs = SeededDropout(0.5, 0)(inputs)
    (gradient,) = torch.autograd.grad(outputs.sum(), inputs)
    assert torch.equal(gradient, outputs.detach())


def test_a_networks_dropouts_are_replaced_and_numbered_and_leave_its_state_alone():
    plain = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.2), nn.Sequential(nn.Dropout(0.3)))
    names = list(plain.state_dict())
    model = seed_dropouts(plain)
    assert [(m.p, m.number) for m in model.modules() if isinstance(m, SeededDropout)] == [(0.2, 0), (0.3, 1)]
    assert list(model.state_dict()) == names
    assert len(dropout_seeds(model.named_buffers())) == 2


@pytest.mark.parametrize(
    ("network", "layers"),
    [("mlp dropout", 2), ("vgg dropout", 1), ("vit dropout", 7), ("gpt none dropout", 5), ("mlp", 0), ("vit", 0)],
)
def test_networks_drop_where_their_spec_says(network, layers):
    model = build_model(NETWORKS[network], shape_of(NETWORKS[network]), 4, seed=0)
    found = [m for m in model.modules() if isinstance(m, SeededDropout) and m.p]
    assert len(found) == layers
    assert len({m.number for m in found}) == layers
