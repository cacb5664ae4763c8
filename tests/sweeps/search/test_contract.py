"""A search of one's own passes the contract, and each of its laws catches one that breaks it."""

from typing import get_args

import pytest

from lmc_tune.experiment.reading import parse_space
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.sweeps.search import SearchName, search_named
from lmc_tune.sweeps.search.propose import Proposal, SoFar, unfinished
from tests.sweeps.search.contract import SPACES, SearchContract


def foreign(space: SearchSpace, so_far: SoFar, n: int, /) -> list[Proposal]:
    batch = unfinished(space.cells(), space, so_far)[:n]
    return [(cell.model_copy(update={"first": cell.pair(17)}), k) for cell, k in batch]


def greedy(space: SearchSpace, so_far: SoFar, n: int, /) -> list[Proposal]:
    return unfinished(space.cells(), space, so_far)[: n + 1]


def idle(space: SearchSpace, so_far: SoFar, n: int, /) -> list[Proposal]:
    return []


def repeating(space: SearchSpace, so_far: SoFar, n: int, /) -> list[Proposal]:
    return [(cell, 0) for cell in space.cells()][:n] if len(so_far.finished) < len(space.pairs()) / 2 else []


def endless(space: SearchSpace, so_far: SoFar, n: int, /) -> list[Proposal]:
    return unfinished(space.cells(), space, so_far)[:n] or [(space.cells()[0], 0)]


class Moody:
    """Goes through the cells from where it was."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, space: SearchSpace, so_far: SoFar, n: int, /) -> list[Proposal]:
        self.asked += 1
        left = unfinished(space.cells(), space, so_far)
        return (left[::-1] if self.asked % 2 else left)[:n]


def as_it_came(space: SearchSpace, so_far: SoFar, n: int, /) -> list[Proposal]:
    """The cells first whose results came last."""
    order = so_far.judge()["cell"].tolist()
    cells = sorted(space.cells(), key=lambda cell: order.index(cell.key) if cell.key in order else -1)
    return unfinished(cells, space, so_far)[:n]


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (foreign, SearchContract.test_it_proposes_replicates_of_the_spaces_cells_each_once_and_no_more_than_asked),
        (greedy, SearchContract.test_it_proposes_replicates_of_the_spaces_cells_each_once_and_no_more_than_asked),
        (idle, SearchContract.test_it_begins),
        (repeating, SearchContract.test_it_proposes_nothing_that_is_finished),
        (repeating, SearchContract.test_a_batch_that_was_cut_short_is_gone_on_with),
        (endless, SearchContract.test_it_ends_and_a_complete_table_leaves_nothing),
        (Moody(), SearchContract.test_it_follows_from_the_table_alone),
        (as_it_came, SearchContract.test_the_order_of_the_results_changes_nothing),
    ],
)
def test_a_search_that_breaks_a_law_is_caught(broken, law) -> None:
    contract = type("Broken", (SearchContract,), {"search": staticmethod(broken)})()
    space = parse_space(f"name: x\ntrain: {{epochs: 1}}\naxes: {SPACES['a map']}\nreplicates: 3\n")
    with pytest.raises(AssertionError):
        law(contract, space)


def test_every_name_has_a_search() -> None:
    assert len({search_named(name) for name in get_args(SearchName)}) == len(get_args(SearchName))
