"""Sharpness at the members and at the midpoint: curvature, and the loss along directions scaled filter by filter."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lmc_tune.core.seeding import child_seed
from lmc_tune.experiment import SHARPNESS_AT, SharpnessSpec, Statistics
from lmc_tune.measurement.conditions import prepare
from lmc_tune.measurement.hessian import First, Losses, cross_entropies, top_eigenvalue
from lmc_tune.measurement.lines import Segment
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.steps import Direction
from lmc_tune.measurement.vectors import WeightVectors
from lmc_tune.models.state import State, lerp_state
from lmc_tune.tables.columns import Row


def sharpness_rows(
    members: Members, spec: SharpnessSpec, condition: Statistics, losses: Losses = cross_entropies
) -> list[Row]:
    """The largest eigenvalue of the Hessian of the mean training loss at both members and at the midpoint.

    Of all training examples, or of so many in shuffled order. Running statistics are those of the condition, constants
    to the Hessian.
    """
    examples = members.data["train"] if members.statistics is None else members.statistics
    some = First(examples, spec.examples or len(examples))
    prepared = prepare(condition, members.network, Segment(*members.pair), members.statistics, SHARPNESS_AT)
    rows = []
    for position, state in zip(SHARPNESS_AT, prepared.states, strict=True):
        seed = child_seed(members.seed, "lanczos", repr(position))
        top = top_eigenvalue(prepared.network, state, some, seed, losses)
        rows.append(
            {
                "condition": condition,
                "lambda": position,
                "eigenvalue": top.value,
                "residual": top.residual,
                "products": top.products,
                "examples": len(some),
            }
        )
    return rows


def filter_directions(members: Members, spec: SharpnessSpec) -> Iterator[list[Direction]]:
    """From both members and the midpoint, ``draws`` filter-normalised directions: the same draws, each as long as the
    filters there, so that points are compared and not draws.

    Passes over the data: 3 draws per radius.
    """
    for position in SHARPNESS_AT:
        origin = lerp_state(*members.pair, position)
        for draw in range(spec.draws):
            step = filter_normalised(members.network, origin, child_seed(members.seed, "filter", draw))
            length = float(np.sqrt(sum(float(entry.square().sum()) for entry in step.values())))
            yield [Direction(kind="filter", position=position, origin=origin, step=step, length=length, draw=draw)]


def filter_normalised(network: Network, state: State, seed: int) -> dict[str, Tensor]:
    """A Gaussian direction whose every filter is as long as the state's (Li et al. 2018, Sec. 4).

    A filter is a row of a linear layer, an output channel of a convolution: what shares the first index of a parameter
    of two or more dimensions. Biases, and scales and offsets of norms, do not move, as in the authors' code.

    Returns:
        The direction by entry, float64; a weight with several names has it under each.
    """
    weights = WeightVectors(network)
    entries = weights.entries(np.random.default_rng(seed).standard_normal(weights.size), state)
    return {name: _as_long(step, state[name].double()) for name, step in entries.items() if step.dim() > 1}


def _as_long(step: Tensor, weight: Tensor) -> Tensor:
    rows, lengths = step.flatten(1), weight.flatten(1).norm(dim=1, keepdim=True)
    return torch.mul(rows, lengths / rows.norm(dim=1, keepdim=True)).view_as(step)
