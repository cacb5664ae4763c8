"""Before a barrier is read on aligned networks: that the permutation has left the function as it was."""

import torch
from torch import Tensor, nn

from lmc_tune.measurement.alignment.activations import Seen
from lmc_tune.measurement.alignment.specification import Permutations, Specification
from lmc_tune.measurement.lines import MeasurementError
from lmc_tune.models.state import State

# Of the largest output: what rounding may change. Sums in another order differ by far less.
ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 1e-1}


@torch.no_grad()
def check_unchanged(
    model: nn.Module, specification: Specification, state: State, permutations: Permutations, inputs: Tensor
) -> None:
    """Raise MeasurementError, naming the first layer that differs, unless a network still computes the same.

    A network whose outputs overflow has no function that could be compared, and no barrier.

    Args:
        model: of the architecture, on the inputs' device.
        specification: of the network.
        state: before its units were permuted.
        permutations: of its units.
        inputs: (n, …) examples to compare on.
    """
    nodes = {site.node for group in specification.free.values() for site in group.sites}
    before = Seen(model, state, nodes)
    after = Seen(model, specification.permuted(state, permutations), nodes)
    one, other = before.run(inputs), after.run(inputs)
    if not (one.isfinite().all() or other.isfinite().all()) or (outputs := _differ(one, other)) is None:
        return
    for node in before.kept:  # in the order in which they are run
        for number, group in specification.free.items():
            for site in (site for site in group.sites if site.node == node):
                moved = group.by_unit(before.kept[node], site)
                if number in permutations:
                    units = group.kind(site.kind)
                    moved = moved[(permutations[number][units] - units.start).tolist()]
                if (by := _differ(moved, group.by_unit(after.kept[node], site))) is not None:
                    raise MeasurementError(
                        f"aligned weights do not compute the same function: {node} differs by {by:.2g} of its largest "
                        f"value, so what lies before it does not let its units be permuted"
                    )
    raise MeasurementError(
        f"aligned weights do not compute the same function: outputs differ by {outputs:.2g} of the largest, though all "
        f"hidden units that can be seen agree"
    )


def _differ(one: Tensor, other: Tensor) -> float | None:
    """By how much, in parts of the largest value; None if it is no more than rounding."""
    largest = max(float(one.abs().max()), torch.finfo(one.dtype).tiny)
    by = float((one - other).abs().max()) / largest
    return None if by <= ROUNDING[one.dtype] else by
