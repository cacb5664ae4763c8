"""Coarse to fine: most pairs are spent near the boundary between verdicts."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from lmc_tune.experiment.space import Cell, SearchSpace
from lmc_tune.sweeps.search.propose import Proposal, SoFar, unfinished

Point = tuple[int, ...]  # positions on the numeric axes


def coarse_to_fine(space: SearchSpace, so_far: SoFar, n: int, /) -> list[Proposal]:
    """Every replicate of the :func:`boundary_cells`. A cell has a verdict once all of its replicates are finished."""
    cells = so_far.judge()
    verdicts = dict(zip(cells["cell"], cells["verdict"], strict=True))
    for cell, _ in unfinished([cell for cell in space.cells() if cell.key in verdicts], space, so_far):
        verdicts.pop(cell.key, None)
    return unfinished(boundary_cells(space, verdicts), space, so_far)[:n]


def boundary_cells(space: SearchSpace, verdicts: Mapping[str, str]) -> list[Cell]:
    """Coarse to fine: cells between neighbours with different verdicts, and none where they agree.

    The first level is a coarse sub-grid of the numeric axes (with both their ends) at every value of the others. Each
    further level halves the spacing: a new cell is wanted if the cells at the corners around it, one level up, differ
    in verdict; if they agree, the new cell is assumed to agree with them and is not run. Finally, cells next to a cell
    of another verdict are run too, so that both sides of a boundary are known at the full resolution of the space. A
    region smaller than the first level's spacing can be missed.

    Args:
        space: the whole grid.
        verdicts: of the cells whose pairs are all finished, by the cell's key.

    Returns:
        The cells wanted by all levels up to the first that is not complete yet.
    """
    varied = [axis for axis, values in space.axes.items() if _is_numeric(values)]
    wanted = []
    for others in _points({axis: range(len(values)) for axis, values in space.axes.items() if axis not in varied}):
        wanted += _facet(space, varied, others, verdicts)
    return wanted


def _facet(
    space: SearchSpace, varied: Sequence[str], others: Mapping[str, int], verdicts: Mapping[str, str]
) -> list[Cell]:
    """The wanted cells at one setting of the axes that are not numeric."""
    labels: dict[Point, str] = {}
    wanted: dict[Point, Cell] = {}
    taken: dict[Point, Cell] = {}  # labelled as the cells around them, not run
    coarser: list[list[int]] = []
    for level in _levels([len(space.axes[axis]) for axis in varied]):
        for point in product(*level):
            if point in labels:
                continue
            at = {**others, **dict(zip(varied, point, strict=True))}
            cell = space.cell({axis: values[at[axis]] for axis, values in space.axes.items()})
            around = {labels[corner] for corner in _corners(point, coarser)} if coarser else set()
            run = cell.key in verdicts or len(around) != 1
            (wanted if run else taken)[point] = cell
            labels[point] = verdicts.get(cell.key, "") if run else around.pop()
        if "" in labels.values():
            return list(wanted.values())
        coarser = level
    at_boundary = [
        cell for point, cell in taken.items() if any(labels[n] != labels[point] for n in _neighbours(point, labels))
    ]
    return [*wanted.values(), *at_boundary]


def _neighbours(point: Point, known: Mapping[Point, str]) -> Iterator[Point]:
    """Neighbours of a point along the axes."""
    for axis, at in enumerate(point):
        for neighbour in (at - 1, at + 1):
            if (there := (*point[:axis], neighbour, *point[axis + 1 :])) in known:
                yield there


def _levels(sizes: Sequence[int]) -> Iterator[list[list[int]]]:
    """Positions on every axis, level by level: both ends and every s-th, s halved from level to level down to 1."""
    stride = 1
    while 4 * stride < max(sizes, default=1):
        stride *= 2
    while stride >= 1:
        yield [sorted({*range(0, size, stride), size - 1}) for size in sizes]
        stride //= 2


def _corners(point: Point, level: Sequence[Sequence[int]]) -> Iterator[Point]:
    """Corners of the box of a level's grid that a point lies in."""
    yield from product(
        *(
            sorted({max(p for p in axis if p <= at), min(p for p in axis if p >= at)})
            for at, axis in zip(point, level, strict=True)
        )
    )


def _points(ranges: Mapping[str, range]) -> Iterator[dict[str, int]]:
    for point in product(*ranges.values()):
        yield dict(zip(ranges, point, strict=True))


def _is_numeric(values: Sequence[object]) -> bool:
    """Whether all are numbers, in ascending or descending order: else no value lies between two others."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return len(numbers) == len(values) and numbers in (sorted(numbers), sorted(numbers, reverse=True))
