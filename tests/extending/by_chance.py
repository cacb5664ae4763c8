"""A search as anybody may add one."""

from random import Random

from lmc_tune.experiment.space import SearchSpace
from lmc_tune.sweeps.search.propose import Proposal, SoFar, unfinished


def by_chance(space: SearchSpace, so_far: SoFar, n: int, /) -> list[Proposal]:
    """Two replicates at a time, drawn by the space's seed, until half of all pairs are finished."""
    left = unfinished(space.cells(), space, so_far)
    if 2 * len(so_far.finished) >= len(space.pairs()):
        return []
    return Random(space.seed).sample(left, min(2, n, len(left)))
