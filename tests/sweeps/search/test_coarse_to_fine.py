"""The adaptive search against known maps; no training, no Ray."""

from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmc_tune.experiment.reading import parse_space
from lmc_tune.experiment.space import Cell, SearchSpace
from lmc_tune.sweeps.options import Options
from lmc_tune.sweeps.search.coarse_to_fine import boundary_cells, coarse_to_fine
from lmc_tune.sweeps.trainer import Trainer
from lmc_tune.tables.rows import failed_result
from lmc_tune.tables.store import Store
from tests.sweeps.search.contract import SearchContract
from tests.tracking.cases import pair_result


class TestCoarseToFine(SearchContract):
    search = coarse_to_fine


def space_of(n_lr: int, batch_sizes: list[int]) -> SearchSpace:
    return parse_space(
        f"name: x\ntrain: {{epochs: 1}}\naxes:\n  norm: [none, layer]\n  batch_size: {batch_sizes}\n"
        f"  lr: {{log: [0.001, 1.0], steps: {n_lr}}}\n"
    )


def truth(cell: Cell, slope: float, level: float) -> str:
    """A straight boundary in lr × batch size, at another place for each norm."""
    where = cell.coordinates["lr"] * 100 ** (slope * cell.coordinates["batch_size"] / 64)
    return "disconnected" if where > level * (1 if cell.coordinates["norm"] == "none" else 3) else "connected"


def searched(space: SearchSpace, slope: float, level: float) -> tuple[dict[str, str], int]:
    """Verdicts of the cells that the search ran, and how many rounds it took."""
    known: dict[str, str] = {}
    for rounds in range(100):
        fresh = [cell for cell in boundary_cells(space, known) if cell.key not in known]
        if not fresh:
            return known, rounds
        known |= {cell.key: truth(cell, slope, level) for cell in fresh}
    raise AssertionError("the search does not end")


@given(st.integers(2, 13), st.integers(1, 5), st.floats(-1, 1), st.floats(0.0005, 2))
def test_every_change_of_verdict_between_neighbours_is_found(
    n_lr: int, n_batch: int, slope: float, level: float
) -> None:
    """Where the boundary is straight, both cells beside every step along lr are run, at full resolution."""
    space = space_of(n_lr, [8, 16, 24, 32, 64][:n_batch])
    known, _ = searched(space, slope, level)
    values = space.axes["lr"]
    for norm in space.axes["norm"]:
        for batch_size in space.axes["batch_size"]:
            row = [space.cell({"norm": norm, "batch_size": batch_size, "lr": lr}) for lr in values]
            for left, right in pairwise(row):
                if truth(left, slope, level) != truth(right, slope, level):
                    assert {left.key, right.key} <= known.keys()


@given(st.integers(2, 9), st.integers(1, 4), st.randoms(use_true_random=False))
def test_the_search_ends_on_any_map(n_lr: int, n_batch: int, random: Random) -> None:
    space = space_of(n_lr, [8, 16, 32, 64][:n_batch])
    map_ = {cell.key: random.choice(["connected", "disconnected", "undecided"]) for cell in space.cells()}
    known: dict[str, str] = {}
    while fresh := [cell.key for cell in boundary_cells(space, known) if cell.key not in known]:
        assert len(fresh) == len(set(fresh))
        known |= {key: map_[key] for key in fresh}
    assert known.items() <= map_.items()


def test_a_map_of_one_verdict_costs_the_coarse_grid_alone() -> None:
    space = space_of(13, [8, 16, 24, 32, 64])
    known, rounds = searched(space, slope=0, level=1e9)
    assert rounds == 1
    assert len(known) <= len(space.cells()) / 3


def test_a_fine_map_costs_its_boundary_and_not_its_area() -> None:
    space = space_of(49, [8, 16, 24, 32, 64])
    known, _ = searched(space, slope=0.5, level=0.03)
    assert len(known) < len(space.cells()) / 3


def test_what_is_wanted_only_grows_as_verdicts_come_in() -> None:
    space = space_of(9, [8, 16, 32])
    known: dict[str, str] = {}
    wanted: set[str] = set()
    for cell in space.cells():
        now = {each.key for each in boundary_cells(space, known)}
        assert wanted <= now
        wanted = now
        known[cell.key] = truth(cell, 0.3, 0.03)


@pytest.mark.parametrize("axis", ["lr: [0.1, 0.001, 0.01]", "norm: [none, layer]"])
def test_an_axis_without_an_order_is_run_whole(axis: str) -> None:
    fixed = "lr: 0.1, " if axis.startswith("norm") else ""
    space = parse_space(f"name: x\ntrain: {{{fixed}batch_size: 8, epochs: 1}}\naxes:\n  {axis}\n")
    assert boundary_cells(space, {}) == space.cells()


def test_a_cell_with_a_pair_to_be_tried_again_is_not_judged_yet(tmp_path: Path) -> None:
    space = parse_space(
        "name: s\ntrain: {steps: 2, batch_size: 10}\naxes: {lr: {log: [0.001, 0.1], steps: 5}}\nreplicates: 2\n"
    )
    trainer = Trainer(
        space=space,
        pairs=space.pairs(),
        store=Store(tmp_path),
        check_owned=lambda: None,
        options=Options(data_root=tmp_path, search="adaptive"),
        listener=None,  # nothing is run here
        mirror=None,
        kept=None,
    )
    coarse = trainer._next_batch()
    crashed = coarse[-1]
    results = [pair_result(pair) for pair in coarse[:-1]] + [failed_result(crashed, "out of luck")]
    trainer.store.write_shard("c", results)
    assert trainer._next_batch() == [crashed]
    trainer.store.write_shard("c", [*results[:-1], pair_result(crashed)])
    assert trainer._next_batch() == [], "all cells that are known agree"
