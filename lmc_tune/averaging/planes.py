"""Three checkpoints, and the plane through them."""

from collections.abc import Mapping

from lmc_tune.averaging.pair import Measuring
from lmc_tune.averaging.paths import Condition
from lmc_tune.averaging.surroundings import PlaneFindings, PlanePoint
from lmc_tune.experiment import PlanesSpec, Statistics
from lmc_tune.measurement.planes import places_asked
from lmc_tune.models.state import State


def measure_plane(
    by: Measuring, through: Mapping[str, State], spec: PlanesSpec, statistics: Statistics
) -> PlaneFindings | None:
    """Every point of a grid on the plane, and the three points themselves; None if these lie on one line.

    Passes over the examples of the splits: points² + 3.

    Args:
        by: what is measured with.
        through: three states by name, as they are: none is aligned.
        spec: how fine the grid is, and what is scored.
        statistics: naive or recalibrated.
    """
    by.say(f"measuring the plane: {spec.points}×{spec.points} points")
    points = [
        PlanePoint(
            point=place.point,
            x=place.x,
            y=place.y,
            weights=place.weights,
            means={at: float(own.mean()) for at, own in by.values(place.state(), statistics, spec.splits).items()},
        )
        for place in places_asked(by.network, through, spec)
    ]
    condition = Condition(None, statistics)
    return PlaneFindings(condition=condition, through=tuple(through), points=tuple(points)) if points else None
