"""Weight matching: the permutations of B's units under which its weights lie closest to A's (Ainsworth et al. 2023).

‖θ_A − P θ_B‖² is least where the product ⟨θ_A, P θ_B⟩ is largest, since a permutation changes no norm. For one group,
all others held, the best permutation is that of a linear assignment problem; groups take turns until none gains.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lmc_tune.measurement.alignment.groups import Place
from lmc_tune.measurement.alignment.specification import Permutations, Specification, random_permutations
from lmc_tune.models.state import State

# Rounds over all groups; some ten are usual.
MOST_ROUNDS = 100
# A gain that is no larger, in parts of ‖θ_A‖ ‖θ_B‖, is rounding.
LEAST_GAIN = 1e-12


@dataclass(frozen=True, kw_only=True)
class Matching:
    """What was found.

    permutations: of B's units, for :meth:`~lmc_tune.measurement.alignment.specification.Specification.permuted`.
    objective: ⟨θ_A, P θ_B⟩ over the weights that have free axes; identity: the same without a permutation, which is
        never higher. rounds: over all groups, of the best start. objectives: of every start, the first of which is the
        identity.
    """

    permutations: Permutations
    objective: float
    identity: float
    objectives: tuple[float, ...]


def match_weights(
    specification: Specification, state_a: State, state_b: State, *, restarts: int = 1, seed: int = 0
) -> Matching:
    """Coordinate descent from the identity, and from random permutations; the best of them.

    It finds a local optimum: with one group it is the best of all, with several it need not be.

    Args:
        specification: of the network.
        state_a: stays as it is.
        state_b: whose units are permuted.
        restarts: how many starts in all.
        seed: of the order of the groups and of the random starts.
    """
    problem = _Problem(specification, state_a, state_b)
    identity = specification.identity()
    found = []
    for start in range(restarts):
        first = identity if start == 0 else random_permutations(specification, seed + start)
        found.append(problem.descend(first, np.random.default_rng([seed, start])))
    best = max(found, key=problem.objective)
    return Matching(
        permutations=best,
        objective=problem.objective(best),
        identity=problem.objective(identity),
        objectives=tuple(problem.objective(permutations) for permutations in found),
    )


class _Problem:
    """Two states, in double precision, and the groups by whose permutations they may come closer."""

    def __init__(self, specification: Specification, state_a: State, state_b: State) -> None:
        self.specification = specification
        self.groups = specification.free
        counted = {place.entry for group in self.groups.values() for place in group.places if place.counts}
        self.a = {name: state_a[name].detach().double() for name in sorted(counted)}
        self.b = {name: state_b[name].detach().double() for name in sorted(counted)}
        self.axes: Mapping[str, list[tuple[int, Place]]] = {name: list(specification.uses(name)) for name in self.a}
        norms = [
            torch.cat([entry.flatten() for entry in state.values()]).norm() if state else 0.0
            for state in (self.a, self.b)
        ]
        self.scale = float(norms[0] * norms[1])

    def objective(self, permutations: Permutations) -> float:
        return float(sum((self.a[name] * self._permuted(name, permutations)).sum() for name in self.a))

    def descend(self, start: Permutations, rng: np.random.Generator) -> dict[int, np.ndarray]:
        """Where no group gains any more."""
        permutations = dict(start)
        for _ in range(MOST_ROUNDS):
            order = rng.permutation(list(self.groups)).tolist()
            if not sum(self._improve(number, permutations) for number in order):
                break
        return permutations

    def _improve(self, number: int, permutations: dict[int, np.ndarray]) -> bool:
        """Give one group its best permutation; False if the one that it has is as good."""
        gains = self._gains(number, permutations)
        before = permutations[number]
        best = self.groups[number].best(gains)
        units = np.arange(len(before))
        if gains[units, best].sum() - gains[units, before].sum() <= LEAST_GAIN * self.scale:
            return False
        permutations[number] = best
        return True

    def _gains(self, number: int, permutations: Permutations) -> np.ndarray:
        """(units, units): what unit i of A and unit j of B add to the objective if j takes the place of i."""
        group = self.groups[number]
        gains = torch.zeros(group.size, group.size, dtype=torch.float64)
        for place in group.places:
            if place.counts:
                a = group.by_unit(self.a[place.entry], place)
                b = group.by_unit(self._permuted(place.entry, permutations, without=number), place)
                units = group.kind(place.kind)
                gains[units, units] += (a @ b.T).cpu()
        return gains.numpy()

    def _permuted(self, name: str, permutations: Permutations, without: int = -1) -> Tensor:
        entry = self.b[name]
        for number, place in self.axes[name]:
            if number != without:
                entry = self.groups[number].moved(entry, place, permutations[number])
        return entry
