"""Several networks at once: each is aligned to the sum of all the others, in turn (Multi-PCD, Lion et al. 2024)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lmc_tune.measurement.alignment.matching import LEAST_GAIN, match_weights
from lmc_tune.measurement.alignment.specification import Permutations, Specification, composed
from lmc_tune.models.state import State

# Turns of every member; a few are usual.
MOST_TURNS = 50


@dataclass(frozen=True, kw_only=True)
class Together:
    """What was found.

    permutations: of every member's units, in the order of the members. objectives: the sum over all pairs of the
    product of their weights, at the start and after every turn of all members; it never falls. converged: no member
    gained any more.
    """

    permutations: tuple[Permutations, ...]
    objectives: tuple[float, ...]
    converged: bool


def match_together(specification: Specification, states: Sequence[State], *, seed: int = 0) -> Together:
    """Permutations under which all networks lie close to each other.

    Args:
        specification: of the networks.
        states: two at least.
        seed: of the order in which members take turns.

    Raises:
        ValueError: if there are fewer than two states.
    """
    if len(states) < 2:
        raise ValueError(f"networks are aligned to each other: give two at least, got {len(states)}")
    rng = np.random.default_rng(seed)
    found = [specification.identity() for _ in states]
    moved = [dict(state) for state in states]
    counted = {place.entry for group in specification.free.values() for place in group.places if place.counts}
    objectives, gained = [_objective(moved, counted)], True
    while gained and len(objectives) <= MOST_TURNS:
        gained = False
        for member in rng.permutation(len(states)).tolist():
            others = _sum([state for at, state in enumerate(moved) if at != member], counted)
            better = match_weights(specification, {**moved[member], **others}, moved[member], seed=seed)
            if better.objective - better.identity > LEAST_GAIN * abs(better.objective):
                found[member] = composed(found[member], better.permutations)
                moved[member] = specification.permuted(states[member], found[member])
                gained = True
        objectives.append(_objective(moved, counted))
    return Together(permutations=tuple(found), objectives=tuple(objectives), converged=not gained)


def _sum(states: Sequence[State], entries: set[str]) -> dict[str, Tensor]:
    return {name: torch.stack([state[name].double() for state in states]).sum(0) for name in entries}


def _objective(states: Sequence[State], entries: set[str]) -> float:
    """Σ over pairs ⟨θ_i, θ_j⟩, half of ‖Σ θ‖² − Σ ‖θ‖²."""
    whole = _sum(states, entries)
    squares = sum(float(state[name].double().square().sum()) for state in states for name in entries)
    return (sum(float(entry.square().sum()) for entry in whole.values()) - squares) / 2
