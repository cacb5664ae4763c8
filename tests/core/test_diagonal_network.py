"""The one network whose layer-wise barriers are known in closed form, against what the code measures of it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lmc_tune.core.diagonal_network import MOVED, loss, residual
from lmc_tune.experiment import LayersSpec
from lmc_tune.measurement.layerwise.blends import blended
from lmc_tune.measurement.layerwise.layers import layers_of
from lmc_tune.measurement.layerwise.sets import layer_sets

LAMBDAS = np.linspace(0, 1, 11)
WEIGHTS = st.floats(0.1, 10).flatmap(lambda size: st.sampled_from([size, -size]))


class Diagonal(nn.Module):
    """f(x) = w₁ w₂ x."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(1, 1, bias=False).double(), nn.Linear(1, 1, bias=False).double()
        nn.init.constant_(self.one.weight, a)
        nn.init.constant_(self.two.weight, 1 / a)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.two(self.one(inputs))


def measured(moved: str, a: float, b: float) -> list[float]:
    """½ (f(1) − 1)² of the networks that the code makes for a set of layers."""
    model, ends = Diagonal(a), (Diagonal(a).state_dict(), Diagonal(b).state_dict())
    one = torch.ones(1, 1, dtype=torch.float64)
    layers = layers_of(model, one)
    sets = {(s.family, s.name): s for s in layer_sets(layers, LayersSpec())}
    base = "b" if moved.endswith("B") else "a"
    chosen = sets["full", "all"] if moved == "full" else sets["single", "one" if "1" in moved else "two"]
    found = []
    for at in LAMBDAS:
        model.load_state_dict(blended(*ends, layers, chosen.blend(base, float(at), 2)))
        found.append(float(0.5 * (model(one).detach() - 1).square()))
    return found


@pytest.mark.parametrize("moved", MOVED)
@pytest.mark.parametrize(("a", "b"), [(0.5, 4.0), (2.0, -3.0), (1.0, 1.0)])
def test_whole_curves_are_the_closed_form(moved, a, b):
    assert measured(moved, a, b) == pytest.approx(list(loss(moved, a, b, LAMBDAS)), rel=1e-12, abs=1e-14)


def test_the_published_midpoints():
    """a = ½, b = 4: one layer alone stands 5 times higher than the whole path, the other 12 times lower."""
    found = {moved: float(loss(moved, 0.5, 4.0, 0.5)) for moved in MOVED}
    assert found["full"] == pytest.approx(1.1724, abs=5e-5)
    assert found["layer 1 into A"] == found["layer 2 into B"] == 6.125
    assert found["layer 2 into A"] == pytest.approx(0.0957, abs=5e-5)


@given(a=WEIGHTS, b=WEIGHTS, position=st.floats(0, 1))
def test_members_change_places(a, b, position):
    """Layer 1 into A is layer 2 into B; the whole path is the same from both ends."""
    for one, other in (("layer 1 into A", "layer 2 into B"), ("layer 2 into A", "layer 1 into B")):
        assert residual(one, a, b, position) == residual(other, a, b, position)
    assert residual("full", a, b, position) == pytest.approx(
        float(residual("full", b, a, 1 - position)), rel=1e-9, abs=1e-12
    )


@given(a=WEIGHTS, b=WEIGHTS, position=st.floats(0, 1))
def test_one_layer_alone_is_convex_between_the_base_and_the_swapped_network(a, b, position):
    for moved in MOVED[1:]:
        ends = loss(moved, a, b, [0, 1])
        assert loss(moved, a, b, position) <= (1 - position) * ends[0] + position * ends[1] + 1e-9 * ends.max()


def test_zero_is_no_minimum():
    with pytest.raises(ValueError, match="got a=0, b=1"):
        residual("full", 0, 1, 0.5)
