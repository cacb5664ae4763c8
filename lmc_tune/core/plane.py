"""The plane through three points, with an orthonormal basis (Garipov et al. 2018)."""

from dataclasses import dataclass

import numpy as np

from lmc_tune.core.barrier import Array

# Points that stand closer to one line than this part of their distance span no plane: float32 rounds as coarsely.
_FLAT = 1e-6


@dataclass(frozen=True, kw_only=True)
class PlaneBasis:
    """Coordinates on a plane: the first point is (0, 0), the second (``reach``, 0), the third (``across``, ``height``).

    Units are those of the distance between the points.
    """

    reach: float
    across: float
    height: float

    @property
    def points(self) -> tuple[tuple[float, float], ...]:
        """(x, y) of the three points."""
        return (0.0, 0.0), (self.reach, 0.0), (self.across, self.height)

    def weights(self, x: float, y: float) -> tuple[float, float, float]:
        """The affine weights of the three points, of sum 1, whose combination is the point at (x, y).

        Example:
            >>> PlaneBasis(reach=2.0, across=1.0, height=3.0).weights(1.5, 3.0)
            (-0.25, 0.25, 1.0)
        """
        third = y / self.height
        second = (x - third * self.across) / self.reach
        return 1 - second - third, second, third

    def grid(self, points: int, margin: float) -> tuple[Array, Array]:
        """(points,) positions along x and along y that hold all three points and ``margin`` times their extent more."""
        x, y = np.array(self.points).T
        return _spread(x, points, margin), _spread(y, points, margin)


def plane_through(first: Array, second: Array, third: Array) -> PlaneBasis | None:
    """The coordinates of three points (n,) by Gram–Schmidt: x runs from the first to the second, y towards the third.

    None if they lie on one line.
    """
    along, other = second - first, third - first
    reach, distance = float(np.linalg.norm(along)), float(np.linalg.norm(other))
    if reach <= _FLAT * distance or distance == 0:
        return None
    unit = along / reach
    across = float(unit @ other)
    height = float(np.linalg.norm(other - across * unit))
    if height <= _FLAT * max(reach, distance):
        return None
    return PlaneBasis(reach=reach, across=across, height=height)


def _spread(values: Array, points: int, margin: float) -> Array:
    low, high = float(values.min()), float(values.max())
    beyond = margin * (high - low)
    return np.linspace(low - beyond, high + beyond, points)
