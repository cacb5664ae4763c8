"""Members aligned once, for every measurement that asks."""

from torch import Tensor

from lmc_tune.experiment import MeasureSpec
from lmc_tune.measurement.alignment.align import align
from lmc_tune.measurement.alignment.trace import specification_of
from lmc_tune.measurement.lines import MeasurementError
from lmc_tune.measurement.members import Members
from lmc_tune.tables.columns import Row


def aligned(members: Members, asked: MeasureSpec) -> tuple[dict[str, Tensor] | None, Row]:
    """B with its units permuted towards A's, or None if all stay where they are; and what the pair's columns say of it.

    Raises:
        MeasurementError: if there are no examples to compare on, or the permuted B computes another function.
    """
    if asked.alignment is None or members.statistics is None:
        raise MeasurementError("alignment needs examples of the training set; give them as statistics")
    key = asked.alignment.text
    if key not in members.aligned:
        module = members.network.module
        specification = specification_of(module, next(members.statistics.chunks(2)).inputs)
        found = align(module, specification, members.pair, asked.alignment, members.statistics)
        columns: Row = {
            "permutable_units": specification.units,
            "permuted_units": found.moved,
            "frozen_units": "; ".join(specification.hindrances),
        }
        members.aligned[key] = (found.state if found.moved else None, columns)
    return members.aligned[key]
