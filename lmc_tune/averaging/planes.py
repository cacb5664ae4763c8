"""Three checkpoints, and the plane through them."""

from collections.abc import Mapping

from lmc_tune.averaging.pair import Measuring
from lmc_tune.averaging.paths import Condition
from lmc_tune.averaging.surroundings import PlaneFindings, PlanePoint
from lmc_tune.errors import UserError
from lmc_tune.experiment import PlanesSpec, Statistics
from lmc_tune.measurement.planes import networks_asked
from lmc_tune.models.state import State


def check_plane(by: Measuring, through: Mapping[str, State], spec: PlanesSpec) -> None:
    """Raise UserError if three states lie on one line, so that there is no plane through them."""
    if not networks_asked(by.network, through, spec):
        raise UserError(f"planes: {', '.join(through)} lie on one line, which spans no plane; name another point")


def measure_plane(
    by: Measuring, through: Mapping[str, State], spec: PlanesSpec, statistics: Statistics
) -> PlaneFindings:
    """Every point of a grid on the plane, and the three points themselves.

    Passes over the examples of the splits: points² + 3.

    Args:
        by: what is measured with.
        through: three states by name, as they are: none is aligned (:func:`check_plane`).
        spec: how fine the grid is, and what is scored.
        statistics: naive or recalibrated.
    """
    by.say(f"measuring the plane: {spec.points}×{spec.points} points, a pass over the examples each")
    points = [
        PlanePoint(
            point=one.point,
            x=one.x,
            y=one.y,
            weights=one.weights,
            means={at: float(own.mean()) for at, own in by.values(one.state(), statistics, spec.splits).items()},
        )
        for one in networks_asked(by.network, through, spec)
    ]
    return PlaneFindings(condition=Condition(None, statistics), through=tuple(through), points=tuple(points))
