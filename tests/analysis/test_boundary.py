"""The boundary stands where the field says, not where the tiles end."""

import numpy as np
import pytest

from lmc_tune.analysis.boundary import find_boundary, tile_edges


@pytest.mark.parametrize("where", [-2.2, -1.75, -1.0])
def test_a_field_linear_along_x_gives_a_straight_line_at_the_known_place(where: float) -> None:
    x, y = np.linspace(-3, 0, 7), np.array([1.0, 2.0, 3.0])
    means = np.tile(0.02 + 0.1 * (x - where), (3, 1))
    line = find_boundary(x, y, means, 0.02)
    np.testing.assert_allclose(line["x"], where, atol=1e-12)
    assert (line["y"].min(), line["y"].max()) == (0.5, 3.5)
    assert line["line"].nunique() == 1


def test_a_field_linear_in_both_gives_the_known_slope() -> None:
    x, y = np.linspace(0, 4, 9), np.linspace(0, 2, 5)
    means = 0.01 * (x[None, :] + 2 * y[:, None])
    line = find_boundary(x, y, means, 0.03)
    inside = line[line["x"].between(0, 4) & line["y"].between(0, 2)]
    assert len(inside) > 4
    np.testing.assert_allclose(inside["x"] + 2 * inside["y"], 3, atol=1e-12)


def test_the_line_stops_at_cells_without_a_mean() -> None:
    x, y = np.arange(4.0), np.arange(4.0)
    means = np.tile(0.01 * x, (4, 1))
    means[2:, :] = np.nan
    line = find_boundary(x, y, means, 0.015)
    np.testing.assert_allclose(line["x"], 1.5)
    assert line["y"].max() <= 1


@pytest.mark.parametrize("means", [np.full((3, 3), 0.5), np.full((3, 3), 0.001), np.full((3, 3), np.nan)])
def test_no_crossing_no_line(means: np.ndarray) -> None:
    assert find_boundary(np.arange(3.0), np.arange(3.0), means, 0.02).empty


def test_a_single_row_of_cells_has_no_line() -> None:
    assert find_boundary([0.0, 1.0], [0.0], [[0.0, 1.0]], 0.5).empty


def test_tile_edges_lie_halfway() -> None:
    np.testing.assert_allclose(tile_edges([0.0, 1.0, 3.0]), [-0.5, 0.5, 2.0, 4.0])
    np.testing.assert_allclose(tile_edges([2.0]), [1.5, 2.5])
