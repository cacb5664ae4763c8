"""The boundary stands on the borders of tiles, where one mean lies below the threshold and its neighbour's does not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lmc_tune.analysis.boundary import find_boundary, tile_edges

MEANS = arrays(
    np.float64, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.sampled_from([0.0, 0.02, 0.5, np.nan])
)


def test_by_hand() -> None:
    means = [[0.0, 0.1, 0.1], [0.0, 0.0, np.nan]]
    assert find_boundary([0.0, 1.0, 3.0], [0.0, 1.0], means, 0.02).values.tolist() == [
        [0.5, -0.5, 0.5, 0.5],
        [0.5, 0.5, 2.0, 0.5],
    ]


def test_a_mean_at_the_threshold_is_not_below_it() -> None:
    assert len(find_boundary([0.0, 1.0], [0.0], [[0.0, 0.02]], 0.02)) == 1
    assert find_boundary([0.0, 1.0], [0.0], [[0.02, 0.1]], 0.02).empty


@given(MEANS)
def test_it_separates_exactly_the_neighbours_that_lie_on_two_sides(means: np.ndarray) -> None:
    rows, columns = means.shape
    found = find_boundary(np.arange(columns), np.arange(rows), means, 0.02)
    expected = []
    for row, column in np.ndindex(rows, columns):  # one tile after the other: its right and its upper neighbour
        own = means[row, column]
        if (
            column + 1 < columns
            and (own < 0.02) != (means[row, column + 1] < 0.02)
            and np.isfinite(own + means[row, column + 1])
        ):
            expected.append([column + 0.5, row - 0.5, column + 0.5, row + 0.5])
        if (
            row + 1 < rows
            and (own < 0.02) != (means[row + 1, column] < 0.02)
            and np.isfinite(own + means[row + 1, column])
        ):
            expected.append([column - 0.5, row + 0.5, column + 0.5, row + 0.5])
    assert sorted(found.values.tolist()) == sorted(expected)


@pytest.mark.parametrize("means", [np.full((3, 3), 0.5), np.full((3, 3), 0.001), np.full((3, 3), np.nan)])
def test_no_crossing_no_line(means: np.ndarray) -> None:
    assert find_boundary(np.arange(3.0), np.arange(3.0), means, 0.02).empty


def test_tile_edges_lie_halfway() -> None:
    np.testing.assert_allclose(tile_edges([0.0, 1.0, 3.0]), [-0.5, 0.5, 2.0, 4.0])
    np.testing.assert_allclose(tile_edges([2.0]), [1.5, 2.5])
