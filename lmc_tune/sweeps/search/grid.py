"""Every cell of the space."""

from lmc_tune.experiment.space import SearchSpace
from lmc_tune.sweeps.search.propose import Proposal, SoFar, unfinished


def grid(space: SearchSpace, so_far: SoFar, n: int, /) -> list[Proposal]:
    """Every replicate of every cell."""
    return unfinished(space.cells(), space, so_far)[:n]
