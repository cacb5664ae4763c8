import math

import pytest
import torch

from lmc_tune.experiment import MlpSpec
from lmc_tune.models.registry import build_model
from tests.cases import state

SHAPE = (3, 4, 5)


def build(**spec) -> torch.nn.Module:
    return build_model(MlpSpec(**spec), SHAPE, 7, seed=0)


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_an_mlp_computes_norm_between_linear_and_activation(norm, activation):
    model = build(hidden=(11, 6), norm=norm, activation=activation).eval()
    weights = state(model)
    x = torch.randn(9, *SHAPE, generator=torch.Generator().manual_seed(0))
    h = x.reshape(9, -1).double()
    for number in (1, 2):
        h = h @ weights[f"linear{number}.weight"].double().T
        if norm == "batch":  # which would cancel an offset
            assert f"linear{number}.bias" not in weights
        else:
            h = h + weights[f"linear{number}.bias"].double()
        if norm == "layer":  # fresh scale 1 and offset 0
            h = (h - h.mean(1, keepdim=True)) / (h.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        if norm == "batch":  # fresh statistics: mean 0, variance 1
            h = h / math.sqrt(1 + 1e-5)
        h = {
            "relu": lambda z: z.clamp(min=0),
            "tanh": torch.tanh,
            "gelu": lambda z: z * 0.5 * (1 + torch.erf(z / math.sqrt(2))),
        }[activation](h)
    expected = h @ weights["head.weight"].double().T + weights["head.bias"].double()
    with torch.no_grad():
        assert torch.allclose(model(x).double(), expected, atol=1e-5)


def test_layers_are_named_so_that_a_table_reads_by_itself():
    names = [name for name, _ in build(hidden=(4, 4), norm="layer").named_children()]
    assert names == ["flatten", "linear1", "norm1", "activation1", "linear2", "norm2", "activation2", "head"]


def test_widths_are_counted_from_the_input_to_the_classes():
    shapes = [tuple(p.shape) for name, p in build(hidden=(11, 6)).named_parameters() if name.endswith("weight")]
    assert shapes == [(11, 60), (6, 11), (7, 6)]
