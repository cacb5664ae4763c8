"""What was found around checkpoints, as plain numbers: steps in other directions, sharpness, and a plane."""

from collections.abc import Mapping
from dataclasses import dataclass

from lmc_tune.averaging.judging import Difference
from lmc_tune.averaging.metric import Quantity
from lmc_tune.averaging.paths import Condition
from lmc_tune.experiment import SplitName
from lmc_tune.measurement.planes import GRID


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Of several draws the mean, the lowest and the highest."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Steps of one kind and length from one point of the path.

    kind: as in the table of directions of a sweep: ``interpolation`` and ``random`` of one layer; ``towards a``,
        ``towards b`` and ``isotropic`` of all weights; ``filter``.
    lambda_: of the point. layer: whose weights move, and its place; None for all.
    alpha: how long they are: in distances of what moves between A and B; of ``filter``, in lengths of every filter.
    norm: of the steps. draws: how many there are.
    rises: means over the examples less those of the point, by split and quantity.
    less_random: judged test values less those of random steps that are as long and begin there; None where no such
        steps were taken.
    """

    kind: str
    lambda_: float
    layer: str | None
    position: int | None
    alpha: float
    norm: float
    draws: int
    rises: Mapping[tuple[SplitName, Quantity], Spread]
    less_random: Difference | None


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Two kinds of steps that are equally long (``alpha``).

    one, other: their mean rises of the judged quantity on the test examples. apart: the one less the other, paired.
    """

    alpha: float
    one: float
    other: float
    apart: Difference


@dataclass(frozen=True, kw_only=True)
class Curvature:
    """The largest eigenvalue of the loss's Hessian at a point of the path; NaN if it was not found.

    residual: ‖Hv − cv‖ / |c|. products: Hessian-vector products that it took. examples: whose mean loss it is.
    """

    lambda_: float
    eigenvalue: float
    residual: float
    products: int
    examples: int


@dataclass(frozen=True, kw_only=True)
class DirectionFindings:
    """What was found of steps under one condition; what was not asked for is empty.

    layerwise: towards the other member, and at random, by length: means over all layers and both members.
    whole: of all weights, towards the other member, and at random, by length: means over both members.
    filterwise: filter-normalised at the midpoint, and at both members, by length: means over the draws.
    """

    condition: Condition
    steps: tuple[Steps, ...]
    layerwise: tuple[Contrast, ...]
    whole: tuple[Contrast, ...]
    filterwise: tuple[Contrast, ...]
    curvatures: tuple[Curvature, ...]


@dataclass(frozen=True, kw_only=True)
class PlanePoint:
    """A network on a plane.

    point: the name of one of the three, or ``grid``. x, y: distances in weight space. weights: of the three, whose
    affine combination it is. means: by split and quantity.
    """

    point: str
    x: float
    y: float
    weights: tuple[float, float, float]
    means: Mapping[tuple[SplitName, Quantity], float]


@dataclass(frozen=True, kw_only=True)
class PlaneFindings:
    """The plane through three checkpoints: these by name, then a grid."""

    condition: Condition
    through: tuple[str, ...]
    points: tuple[PlanePoint, ...]

    @property
    def grid(self) -> tuple[PlanePoint, ...]:
        """The points of the grid, row by row."""
        return tuple(one for one in self.points if one.point == GRID)
