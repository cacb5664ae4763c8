"""Steps away from the members and from the path between them: where they lead, and what the network is worth there."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

from torch import Tensor

from lmc_tune.core.barrier import Array
from lmc_tune.data.examples import ExampleSet
from lmc_tune.experiment import Statistics
from lmc_tune.measurement.lines import Listed, Ray
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.score import score
from lmc_tune.measurement.vectors import WeightVectors
from lmc_tune.models.state import State, lerp_state
from lmc_tune.tables.columns import Row


@dataclass(frozen=True, kw_only=True)
class Direction:
    """A direction from a point of the path.

    kind: ``interpolation``, ``random``, ``towards a``, ``towards b``, ``span``, ``complement``, ``isotropic``,
        ``filter``, or ``unmoved`` for the point itself. position: of the point. origin: the state there.
    step: by entry, as :meth:`~lmc_tune.measurement.vectors.WeightVectors.entries` gives it; length: its norm.
    draw: which of several. layer: whose weights move, and its place; None for all weights.
    """

    kind: str
    position: float
    origin: State
    step: State
    length: float
    draw: int = 0
    layer: tuple[str, int] | None = None

    def at(self, alpha: float) -> dict[str, Tensor]:
        """The state after ``alpha`` times the step."""
        return Ray(self.origin, self.step).at(alpha)

    def row(self, alpha: float) -> Row:
        """What the table of directions says of the step besides what it scores."""
        layer, place = self.layer or (None, None)
        return {
            "kind": self.kind,
            "lambda": self.position,
            "layer": layer,
            "position": place,
            "draw": self.draw,
            "alpha": alpha,
            "norm": alpha * self.length,
        }


def score_steps(
    members: Members,
    steps: Iterable[tuple[Sequence[Direction], Sequence[float]]],
    data: Mapping[str, ExampleSet],
    condition: Statistics,
) -> Iterator[Row]:
    """A row per direction, length and split; a pass over the examples for each of them.

    Args:
        members: whose network is scored, and the examples on which statistics are estimated.
        steps: some directions after the others, with how far to go along them.
        data: examples by split.
        condition: how every network is prepared.
    """
    for directions, alphas in steps:
        taken = list(product(directions, alphas))
        states = Listed([partial(direction.at, alpha) for direction, alpha in taken])
        found = score(members.network, states, range(len(taken)), data, condition, members.statistics)
        for (direction, alpha), by_split in zip(taken, found, strict=True):
            for split, scored in by_split.items():
                yield {"condition": condition, **direction.row(alpha), "split": split, **vars(scored)}


def unmoved(members: Members, position: float) -> Direction:
    """No step from a point of the path; the members themselves at 0 and 1."""
    origin = lerp_state(*members.pair, position)
    return Direction(kind="unmoved", position=position, origin=origin, step={}, length=0.0)


def between(members: Members, weights: WeightVectors) -> Array:
    """(n,) some weights of B less those of A."""
    a, b = (weights.vector(state) for state in members.pair)
    return b - a
