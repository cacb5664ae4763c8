"""Noise at points of the path: along it, in the span of training, and orthogonal to that span (Adilova et al. 2024).

The published notebook draws the span from snapshots that alias the final weights, its noise along the path points away
from the other model, and its coefficients are not isotropic. Here snapshots are copies, the path has both signs, and
coefficients are Gaussian in an orthonormal basis. Noise in any direction, which needs no snapshots, is ours.
"""

from collections.abc import Iterator

import numpy as np

from lmc_tune.core.barrier import Array
from lmc_tune.core.seeding import child_seed
from lmc_tune.core.subspace import gaussian, gaussian_beyond, gaussian_in, orthonormal_basis
from lmc_tune.experiment import NoiseSpec
from lmc_tune.measurement.lines import MeasurementError
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.steps import Direction, between
from lmc_tune.measurement.vectors import WeightVectors
from lmc_tune.models.state import lerp_state


def noise_directions(members: Members, spec: NoiseSpec) -> Iterator[list[Direction]]:
    """At every position, directions as long as the distance between the members, in which all parameters move.

    ``towards a`` and ``towards b`` run along the path. ``span``, ``complement`` and ``isotropic`` are ``draws``
    directions each, uniform in the span of training (:func:`trajectory_basis`), orthogonal to it, and anywhere; there
    is no ``span`` where no member ever moved. Their float64 norms are equal to rounding.

    Passes over the data per position and fraction: 2 for the path, and ``draws`` for every other kind. Memory: the
    basis, 8 bytes per weight and snapshot, and twice as much while it is made.

    Raises:
        MeasurementError: if a member has no snapshots, or training spans all weights.
    """
    weights = WeightVectors(members.network)
    way = between(members, weights)
    distance = float(np.linalg.norm(way))
    basis = trajectory_basis(members, weights) if spec.needs_snapshots else np.zeros((len(way), 0))
    for position in spec.positions:
        origin = lerp_state(*members.pair, position)
        for vectors in _vectors(spec, basis, way, members.seed, position):
            yield [
                Direction(
                    kind=kind,
                    position=position,
                    origin=origin,
                    step=weights.entries(vector, origin),
                    length=distance,
                    draw=draw,
                )
                for kind, draw, vector in vectors
            ]


def _vectors(
    spec: NoiseSpec, basis: Array, way: Array, seed: int, position: float
) -> Iterator[list[tuple[str, int, Array]]]:
    """Kinds, draws and vectors (n,) at a position, draw by draw, so that few are in memory."""
    if "path" in spec.kinds:
        yield [("towards a", 0, -way), ("towards b", 0, way)]
    distance = float(np.linalg.norm(way))
    draws = {"span": gaussian_in, "complement": gaussian_beyond, "isotropic": _anywhere}
    kinds = [kind for kind in spec.kinds if kind != "path" and (kind != "span" or basis.shape[1])]
    for draw in range(spec.draws if kinds else 0):
        yield [
            (kind, draw, draws[kind](basis, distance, child_seed(seed, "noise", kind, repr(position), draw)))
            for kind in kinds
        ]


def _anywhere(basis: Array, norm: float, seed: int) -> Array:
    return gaussian(len(basis), norm, seed)


def trajectory_basis(members: Members, weights: WeightVectors) -> Array:
    """(n, rank) orthonormal columns that span all differences between a member's snapshots and its final weights.

    Raises:
        MeasurementError: if a member has no snapshots, or they span all weights.
    """
    ways = []
    for name, final in members.states.items():
        if not members.snapshots.get(name):
            raise MeasurementError(
                f"no snapshots of {name} are known; ask for measure.snapshots, or noise of kinds: [path, isotropic]"
            )
        end = weights.vector(final)
        ways += [weights.vector(state) - end for state in members.snapshots[name].values()]
    basis = orthonormal_basis(ways)
    if basis.shape[1] == len(basis):
        raise MeasurementError(
            f"snapshots span all {len(basis)} weights, so nothing is orthogonal to training; ask for fewer of them"
        )
    return basis
