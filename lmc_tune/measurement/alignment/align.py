"""B with its units where A's are: matched, permuted, and proved to compute what it did."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor, nn

from lmc_tune.data.examples import ExampleSet
from lmc_tune.experiment import AlignmentSpec
from lmc_tune.measurement.alignment.activations import match_activations
from lmc_tune.measurement.alignment.matching import Matching, match_weights
from lmc_tune.measurement.alignment.proof import check_unchanged
from lmc_tune.measurement.alignment.specification import Permutations, Specification
from lmc_tune.models.state import State

# Inputs on which the function is compared before and after.
COMPARED = 64


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """What was found: B's ``state`` after its units were permuted. matching: None for activations."""

    state: dict[str, Tensor]
    permutations: Permutations
    matching: Matching | None = None

    @cached_property
    def moved(self) -> int:
        """How many units changed place."""
        return sum(int((order != np.arange(len(order))).sum()) for order in self.permutations.values())


def align(
    model: nn.Module,
    specification: Specification,
    states: tuple[State, State],
    how: AlignmentSpec,
    examples: ExampleSet,
) -> Alignment:
    """Permute B's units towards A's; where none can be, B stays as it is. The same states give the same answer.

    Args:
        model: of the architecture, on the device of the examples; stays as it is.
        specification: of the network.
        states: A and B; they stay as they are.
        how: what is compared, and how often the descent starts.
        examples: whose activations are compared, and on the first of which the function is proved unchanged.

    Raises:
        MeasurementError: if the permuted network computes another function, naming the first layer that differs.
    """
    a, b = states
    if not specification.free:
        return Alignment(state=dict(b), permutations={})
    matching: Matching | None = None
    if how.restarts is not None:
        matching = match_weights(specification, a, b, restarts=how.restarts)
        permutations: Permutations = matching.permutations
    else:
        permutations = match_activations(model, specification, a, b, examples)
    check_unchanged(model, specification, b, permutations, next(examples.chunks(COMPARED)).inputs)
    return Alignment(state=specification.permuted(b, permutations), permutations=permutations, matching=matching)
