"""Activation matching: the permutations of B's units under which they respond to examples most as A's do.

Each unit of B is given to the unit of A that it correlates with, all units of a layer at once (Li et al. 2016, Jordan
et al. 2023). Unlike weights, the layers do not depend on each other, and one pass over the examples is enough.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from lmc_tune.data.examples import ExampleSet, at_once
from lmc_tune.measurement.alignment.attention import projections
from lmc_tune.measurement.alignment.graph import graph_of
from lmc_tune.measurement.alignment.groups import Group, Permutation
from lmc_tune.measurement.alignment.specification import Specification
from lmc_tune.models.state import State

# Examples at once.
CHUNK = 256
# A unit whose standard deviation is no larger, in parts of the largest of its layer, responds to nothing.
SILENT = 1e-9


def match_activations(
    model: nn.Module, specification: Specification, state_a: State, state_b: State, examples: ExampleSet
) -> dict[int, Permutation]:
    """The best permutation of every free group, for :meth:`Specification.permuted` of B.

    Args:
        model: of their architecture, on the examples' device; stays as it is.
        specification: of the network.
        state_a: stays as it is.
        state_b: whose units are permuted.
        examples: that both networks are run on, in evaluation mode.
    """
    nodes = {site.node for group in specification.free.values() for site in group.sites}
    seen = [Seen(model, state, nodes) for state in (state_a, state_b)]
    free = specification.free
    sums = {(number, kind): _Sums() for number, group in free.items() for kind in range(len(group.widths))}
    with torch.no_grad():
        for some in examples.chunks(at_once(examples, CHUNK)):
            a, b = (one.on(some.inputs) for one in seen)
            for number, group in free.items():
                for site in group.sites:
                    own = [group.by_unit(one[site.node], site).double() for one in (a, b)]
                    sums[number, site.kind].add(*own)
    return {number: group.best(_gains(group, sums, number)) for number, group in free.items()}


def _gains(group: Group, sums: Mapping[tuple[int, int], "_Sums"], number: int) -> np.ndarray:
    """(units, units): correlations of the units of each kind."""
    gains = np.zeros((group.size, group.size))
    for kind in range(len(group.widths)):
        units = group.kind(kind)
        gains[units, units] = sums[number, kind].correlations()
    return gains


class Seen(fx.Interpreter):
    """A network that keeps what some of its nodes make, and what attention projects its inputs to."""

    def __init__(self, model: nn.Module, state: State, nodes: set[str]) -> None:
        own = deepcopy(model).eval()
        own.load_state_dict(state)
        super().__init__(graph_of(own))
        self.nodes = nodes
        self.kept: dict[str, Tensor] = {}

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        if isinstance(module, nn.MultiheadAttention) and f"{target}.value" in self.nodes:
            made = projections(module, *args, **kwargs)
            self.kept |= {f"{target}.{name}": tensor for name, tensor in made.items()}
        return super().call_module(target, args, kwargs)

    def run_node(self, n: fx.Node) -> Any:
        made = super().run_node(n)
        if n.name in self.nodes:
            self.kept[n.name] = made.clone()  # before an operation in place changes it
        return made

    def on(self, inputs: Tensor) -> dict[str, Tensor]:
        """What the nodes make of the inputs."""
        self.kept = {}
        self.run(inputs)
        return self.kept


@dataclass
class _Sums:
    """What the correlations of two layers' units are worked out from, over all values seen so far."""

    n: int = 0
    moments: dict[str, Tensor] = field(default_factory=dict)

    def add(self, a: Tensor, b: Tensor) -> None:
        """(units, values) of both networks, on the same examples."""
        self.n += a.shape[1]
        for name, value in (
            ("a", a.sum(1)),
            ("b", b.sum(1)),
            ("aa", a.square().sum(1)),
            ("bb", b.square().sum(1)),
            ("ab", a @ b.T),
        ):
            self.moments[name] = self.moments[name] + value if name in self.moments else value

    def correlations(self) -> np.ndarray:
        """(units of A, units of B); 0 for a unit that responds to nothing, or beyond all bounds."""
        mean_a, mean_b = self.moments["a"] / self.n, self.moments["b"] / self.n
        covariance = self.moments["ab"] / self.n - mean_a[:, None] * mean_b
        deviations = [
            (self.moments[name] / self.n - mean.square()).clamp(min=0).sqrt()
            for name, mean in (("aa", mean_a), ("bb", mean_b))
        ]
        scales = []
        for deviation in deviations:
            loud = deviation > SILENT * deviation.max().clamp(min=SILENT)
            scales.append(torch.where(loud, 1 / deviation, torch.zeros_like(deviation)))
        one, other = scales
        found: np.ndarray = (covariance * one[:, None] * other).nan_to_num(0, 0, 0).cpu().numpy()
        return found
