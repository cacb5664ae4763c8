"""Aligning B to A, and what that came to."""

from torch import Tensor, nn

from lmc_tune.averaging.findings import Aligned
from lmc_tune.averaging.paths import Method
from lmc_tune.data.examples import ExampleSet
from lmc_tune.experiment import AlignmentSpec
from lmc_tune.measurement.alignment.align import align as aligned
from lmc_tune.measurement.alignment.specification import Specification
from lmc_tune.models.state import State, distance


def align(
    model: nn.Module, specification: Specification, states: tuple[State, State], method: Method, examples: ExampleSet
) -> tuple[dict[str, Tensor], Aligned]:
    """B with its units where A's are, and what that came to.

    Args:
        model: of the architecture, on the device of the examples; stays as it is.
        specification: of the network.
        states: A and B.
        method: what is compared.
        examples: whose activations are compared, and on which the function is proved unchanged.

    Raises:
        MeasurementError: if the permuted network computes another function, naming the first layer that differs.
    """
    found = aligned(model, specification, states, AlignmentSpec(by=method), examples)
    names, matching = tuple(name for name, _ in model.named_parameters()), found.matching
    return found.state, Aligned(
        method=method,
        moved=found.moved,
        units=specification.units,
        frozen=tuple(specification.hindrances),
        distance=distance(states[0], found.state, names),
        objective=matching.objective if matching else None,
        identity=matching.identity if matching else None,
        objectives=matching.objectives if matching else (),
    )
