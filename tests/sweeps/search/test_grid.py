"""The grid: all of it, in the order in which pairs run."""

from typing import NoReturn

from lmc_tune.experiment.reading import parse_space
from lmc_tune.sweeps.search.grid import grid
from lmc_tune.sweeps.search.propose import SoFar
from tests.sweeps.search.contract import SearchContract


class TestGrid(SearchContract):
    search = grid


def judge() -> NoReturn:
    raise AssertionError("a grid needs no verdicts")


def test_all_pairs_that_are_not_finished_in_the_order_of_the_space() -> None:
    space = parse_space("name: x\ntrain: {epochs: 1, batch_size: 8}\naxes: {lr: [0.1, 0.01, 0.3]}\nreplicates: 2\n")
    pairs = space.pairs()
    left = grid(space, SoFar(finished={pairs[1].key, pairs[3].key}, judge=judge), 10)
    assert [cell.pair(k) for cell, k in left] == [pairs[0], pairs[2], pairs[4], pairs[5]]
    assert grid(space, SoFar(finished=set(), judge=judge), 2) == [(cell, 0) for cell in space.cells()[:2]]
