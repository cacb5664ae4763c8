"""The definition of a search: a pure function of a space and of its results so far."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lmc_tune.experiment.space import Cell, SearchSpace

if TYPE_CHECKING:
    import pandas as pd

Proposal = tuple[Cell, int]  # a cell and a replicate of it


@dataclass(frozen=True, kw_only=True)
class SoFar:
    """The results of a space so far.

    finished: keys of the pairs that need not be run any more.
    judge: returns the cells whose pairs are all finished, one row each and in any order, as
        :func:`lmc_tune.tables.cells.judge_cells` gives them. It takes time, so a search that needs no verdicts, such
        as a grid, does not call it.
    """

    finished: Collection[str]
    judge: Callable[[], "pd.DataFrame"]


class Search(Protocol):
    """A search decides which pairs are run next.

    It keeps no state, so an interrupted sweep resumes from its table alone. Randomness comes from
    ``space.seed``. ``SearchContract`` in tests/sweeps/search/contract.py holds the laws.
    """

    def __call__(self, space: SearchSpace, so_far: SoFar, n: int, /) -> list[Proposal]:
        """The next batch: up to ``n`` unfinished replicates of the space's cells; empty if the search is over."""


def unfinished(cells: Sequence[Cell], space: SearchSpace, so_far: SoFar) -> list[Proposal]:
    """The replicates of some cells that are still to be run; the first of every cell, then the second, and so on."""
    return [
        (cell, replicate)
        for replicate in range(space.replicates)
        for cell in cells
        if cell.pair(replicate).key not in so_far.finished
    ]
