"""Aligning B to A: which units may move, where they go, and the proof that the function is as it was."""

import numpy as np
import torch
from torch import nn

from lmc_tune.averaging.findings import Aligned
from lmc_tune.averaging.paths import Method
from lmc_tune.data.examples import ExampleSet
from lmc_tune.measurement.alignment.activations import match_activations
from lmc_tune.measurement.alignment.matching import Matching, match_weights
from lmc_tune.measurement.alignment.proof import check_unchanged
from lmc_tune.measurement.alignment.specification import OUTPUT, Permutations, Specification
from lmc_tune.models.state import State, distance

# Starts of the descent that matches weights: of residual networks, one alone often ends in a worse optimum.
RESTARTS = 5
# Inputs on which the function is compared before and after.
COMPARED = 64


def align(  # noqa: PLR0913 - the networks, how, and on what
    model: nn.Module,
    specification: Specification,
    states: tuple[State, State],
    method: Method,
    examples: ExampleSet,
    *,
    restarts: int = RESTARTS,
) -> tuple[dict[str, torch.Tensor], Aligned]:
    """B with its units where A's are, and what that came to.

    Args:
        model: of the architecture, on the device of the examples; its weights are overwritten.
        specification: of the network.
        states: A and B.
        method: what is compared.
        examples: whose activations are compared, and on which the function is proved unchanged.
        restarts: of the descent that matches weights.

    Raises:
        MeasurementError: if the permuted network computes another function, naming the first layer that differs.
    """
    a, b = states
    matching: Matching | None = None
    if method == "weights":
        matching = match_weights(specification, a, b, restarts=restarts)
        permutations: Permutations = matching.permutations
    else:
        permutations = match_activations(model, specification, a, b, examples)
    check_unchanged(model, specification, b, permutations, next(examples.chunks(COMPARED)).inputs)
    moved = specification.permuted(b, permutations)
    names = tuple(name for name, _ in model.named_parameters())
    return moved, Aligned(
        method=method,
        moved=_moved(permutations),
        units=sum(group.size for group in specification.free.values()),
        frozen=tuple(reason for reason in specification.frozen if reason != OUTPUT),
        distance=distance(a, moved, names),
        objective=matching.objective if matching else None,
        identity=matching.identity if matching else None,
        objectives=matching.objectives if matching else (),
    )


def _moved(permutations: Permutations) -> int:
    return sum(int((order != np.arange(len(order))).sum()) for order in permutations.values())
