"""Loss and error on the plane through three weight vectors (Garipov et al. 2018)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from lmc_tune.core.plane import plane_through
from lmc_tune.data.examples import ExampleSet
from lmc_tune.experiment import START, MeasureSpec, PlanesSpec
from lmc_tune.measurement.conditions import estimating_passes, least_stale
from lmc_tune.measurement.lines import Listed, MeasurementError, Mixture
from lmc_tune.measurement.measurement import Found, Sizes, Work
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.score import score
from lmc_tune.measurement.vectors import WeightVectors
from lmc_tune.models.state import State

# The name of a point that is none of the three.
GRID = "grid"


class Planes:
    """A grid on the plane through members, or through members and their start.

    A point is the affine combination of the three states: coordinates are those of the parameters, by Gram–Schmidt in
    float64, and running statistics are combined with the same weights. Networks are recalibrated where that is asked
    for and there is BatchNorm, else naive, where a running variance that extrapolation makes negative counts as 0.
    """

    name = "planes"

    def measure(self, members: Members, asked: MeasureSpec) -> Found:
        """Rows of the table of planes; none if the three lie on one line, as a member that is its own copy does.

        Passes over the data: points² + 3.

        Raises:
            MeasurementError: if a name is no member's, or the start is not known.
        """
        spec = asked.planes
        if spec is None:
            return Found()
        network, condition = members.network, least_stale(asked, members.network)
        networks = networks_asked(network, {name: state_named(members, name) for name in spec.through}, spec)
        data: dict[str, ExampleSet] = {split: members.data[split] for split in spec.splits}
        plane = Listed([one.state for one in networks])
        found = score(network, plane, range(len(networks)), data, condition, members.statistics)
        rows = [
            {
                "condition": condition,
                "split": split,
                "point": one.point,
                "x": one.x,
                "y": one.y,
                **vars(scored),
            }
            for one, by_split in zip(networks, found, strict=True)
            for split, scored in by_split.items()
        ]
        return Found(tables={"planes": rows} if rows else {})

    def work(self, sizes: Sizes, asked: MeasureSpec) -> Work:
        """Every point on every split, and what its condition estimates."""
        spec = asked.planes
        if spec is None:
            return Work()
        points = spec.points**2 + len(spec.through)
        recalibrated = "recalibrated" in (asked.conditions or ())
        return Work(
            scored_apart=points * sum(sizes.splits[split] for split in spec.splits),
            estimated=sizes.both * estimating_passes("recalibrated", points) if recalibrated else 0,
        )


@dataclass(frozen=True, kw_only=True)
class PlaneNetwork:
    """A network on a plane.

    point: the name of one of the three, or ``grid``. weights: of the three states, whose affine combination it is.
    state: makes it.
    """

    point: str
    x: float
    y: float
    weights: tuple[float, float, float]
    state: Callable[[], dict[str, Tensor]]


def networks_asked(network: Network, through: Mapping[str, State], spec: PlanesSpec) -> list[PlaneNetwork]:
    """The three points by name, then a grid, row by row; none if the three lie on one line.

    Args:
        network: of the architecture.
        through: the three states by name, in order.
        spec: what is asked; which points it names does not matter.
    """
    vectors, states = WeightVectors(network), list(through.values())
    basis = plane_through(*(vectors.vector(state) for state in states))
    if basis is None:
        return []
    xs, ys = basis.grid(spec.points, spec.margin)
    points = [*zip(through, basis.points, strict=True), *((GRID, (float(x), float(y))) for y in ys for x in xs)]
    found = []
    for point, (x, y) in points:
        weights = basis.weights(x, y)
        found.append(PlaneNetwork(point=point, x=x, y=y, weights=weights, state=partial(combined, states, weights)))
    return found


def state_named(members: Members, name: str) -> State:
    """The state of a member, or ``start``."""
    known = {**members.states, **({START: members.start} if members.start is not None else {})}
    if name not in known:
        raise MeasurementError(f"there is no {name!r} to span a plane; the points are {', '.join(known)}")
    return known[name]


def combined(states: Sequence[State], weights: tuple[float, ...]) -> dict[str, Tensor]:
    """The affine combination of states, with running variances of at least 0."""
    state = Mixture(states).weighted(weights)
    for name in [name for name in state if name.rpartition(".")[2] == "running_var"]:
        state[name] = state[name].clamp(min=0)
    return state
