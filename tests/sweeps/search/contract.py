"""The laws of every search, for its tests to inherit: ``class TestMine(SearchContract): search = mine``."""

from collections.abc import Iterable
from random import Random

import pandas as pd
import pytest

from lmc_tune.experiment.reading import parse_space
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.sweeps.search.propose import Proposal, Search, SoFar

SPACES = {
    "one cell": "{batch_size: [8], lr: [0.1]}",
    "a line": "{batch_size: [8], lr: {log: [0.001, 1.0], steps: 9}}",
    "a map": "{batch_size: [8, 16, 32], lr: {log: [0.001, 1.0], steps: 7}}",
    "panels": "{norm: [none, layer], lr: [0.1, 0.001, 0.01, 1.0], batch_size: [8, 16, 32, 64]}",
}
Pair = tuple[str, int]  # a cell's key and a replicate


class SearchContract:
    search: Search

    @pytest.fixture(params=SPACES)
    def space(self, request: pytest.FixtureRequest) -> SearchSpace:
        return parse_space(f"name: x\ntrain: {{epochs: 1}}\naxes: {SPACES[request.param]}\nreplicates: 3\nseed: 5\n")

    def proposals(
        self, space: SearchSpace, done: Iterable[Pair], n: int = 7, order: Random | None = None
    ) -> list[Pair]:
        return [(cell.key, k) for cell, k in self.proposed(space, done, n, order)]

    def proposed(self, space: SearchSpace, done: Iterable[Pair], n: int, order: Random | None = None) -> list[Proposal]:
        """What the search proposes when these pairs are finished, in an order of the results."""
        return type(self).search(space, so_far(space, done, order or Random(0)), n)

    def played(self, space: SearchSpace, n: int = 7) -> list[set[Pair]]:
        """What is finished before each batch; at last nothing is proposed any more."""
        states: list[set[Pair]] = [set()]
        while batch := self.proposals(space, states[-1], n):
            assert len(states) <= len(space.pairs()), "the search does not end"
            states.append(states[-1] | set(batch))
        return states

    def test_it_proposes_replicates_of_the_spaces_cells_each_once_and_no_more_than_asked(self, space: SearchSpace):
        there = {cell.key: cell for cell in space.cells()}
        for n in (1, 7, 10_000):
            for done in (set[Pair](), *scattered(space)):
                batch = self.proposed(space, done, n)
                assert all(there.get(cell.key) == cell for cell, _ in batch)
                assert all(0 <= k < space.replicates for _, k in batch)
                assert len({(cell.key, k) for cell, k in batch}) == len(batch) <= n

    def test_it_begins(self, space: SearchSpace):
        assert self.proposals(space, ())

    def test_it_proposes_nothing_that_is_finished(self, space: SearchSpace):
        for done in (*self.played(space), *scattered(space)):
            assert not done.intersection(self.proposals(space, done))

    def test_it_ends_and_a_complete_table_leaves_nothing(self, space: SearchSpace):
        self.played(space, n=1)
        self.played(space)
        assert self.proposals(space, all_pairs(space)) == []

    def test_it_follows_from_the_table_alone(self, space: SearchSpace):
        """Whatever it was asked before, and so after an interruption: it keeps nothing to itself."""
        states = [*self.played(space), *scattered(space)]
        first = [self.proposals(space, done) for done in states]
        for at in Random(1).sample(range(len(states)), len(states)):
            assert self.proposals(space, states[at]) == first[at]

    def test_the_order_of_the_results_changes_nothing(self, space: SearchSpace):
        for done in (*self.played(space), *scattered(space)):
            orders = [self.proposals(space, done, order=Random(seed)) for seed in range(3)]
            assert orders[0] == orders[1] == orders[2]

    def test_a_batch_that_was_cut_short_is_gone_on_with(self, space: SearchSpace):
        """Half of every batch comes in; the search still ends, and never asks for a pair twice."""
        done: set[Pair] = set()
        while batch := self.proposals(space, done):
            came_in = set(batch[: (len(batch) + 1) // 2])
            assert not came_in & done
            done |= came_in
        assert done <= set(all_pairs(space))


def all_pairs(space: SearchSpace) -> list[Pair]:
    return [(cell.key, k) for cell in space.cells() for k in range(space.replicates)]


def scattered(space: SearchSpace) -> list[set[Pair]]:
    """Tables as other sweeps into the same folder may leave them: some pairs, as chance has it."""
    pairs, random = all_pairs(space), Random(2)
    return [set(random.sample(pairs, random.randint(1, len(pairs)))) for _ in range(4)]


def so_far(space: SearchSpace, done: Iterable[Pair], order: Random) -> SoFar:
    """What a table of these pairs holds, its rows in some order. The boundary is a straight line in lr."""
    done = list(done)
    order.shuffle(done)
    cells = {cell.key: cell for cell in space.cells()}
    rows = []
    for key in dict.fromkeys(key for key, _ in done):
        barrier = cells[key].first.train.lr / 10
        verdict = "disconnected" if barrier > 0.005 else "connected"
        rows.append(
            {"cell": key, "verdict": verdict, "mean_barrier": barrier, "low": barrier - 0.001, "high": barrier + 0.001}
        )
    table = pd.DataFrame(rows, columns=["cell", "verdict", "mean_barrier", "low", "high"])
    return SoFar(finished={cells[key].pair(k).key for key, k in done}, judge=lambda: table)
