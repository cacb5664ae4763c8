"""Lines of equal height, against surfaces whose lines are known."""

import numpy as np
import pytest

from lmc_tune.analysis.contours import contour_lines

X, Y = np.linspace(-1, 2, 13), np.linspace(0, 1, 7)
XX, YY = np.meshgrid(X, Y)


def ends(x, y, heights, level) -> np.ndarray:
    lines = contour_lines(x, y, heights, level)
    return np.concatenate([lines[["x", "y"]].to_numpy(), lines[["x2", "y2"]].to_numpy()])


@pytest.mark.parametrize(("slope_x", "slope_y", "level"), [(1, 0, 0.3), (0, 1, 0.45), (2, -3, 0.1), (-1, 1, 0.77)])
def test_the_lines_of_a_slanted_plane_are_straight_and_cross_all_of_it(slope_x, slope_y, level):
    found = ends(X, Y, slope_x * XX + slope_y * YY, level)
    assert np.abs(slope_x * found[:, 0] + slope_y * found[:, 1] - level).max() < 1e-12
    lines = contour_lines(X, Y, slope_x * XX + slope_y * YY, level)
    lengths = np.hypot(lines["x2"] - lines["x"], lines["y2"] - lines["y"])
    dense = np.linspace(-1, 2, 200001)
    inside = (
        np.mean((dense >= -1) & ((level - slope_x * dense) / slope_y >= 0) & ((level - slope_x * dense) / slope_y <= 1))
        * 3
        * np.hypot(1, slope_x / slope_y)
        if slope_y
        else 1.0
    )
    assert lengths.sum() == pytest.approx(inside, abs=1e-4)


def test_the_lines_of_a_bowl_are_rings():
    side = np.linspace(-1, 1, 81)
    xx, yy = np.meshgrid(side, side)
    found = ends(side, side, xx**2 + yy**2, 0.5)
    assert np.abs(np.hypot(*found.T) - np.sqrt(0.5)).max() < 1e-3
    lines = contour_lines(side, side, xx**2 + yy**2, 0.5)
    assert np.hypot(lines["x2"] - lines["x"], lines["y2"] - lines["y"]).sum() == pytest.approx(
        2 * np.pi * np.sqrt(0.5), rel=1e-3
    )


def test_there_are_no_lines_beyond_the_heights_nor_around_what_is_not_finite():
    assert contour_lines(X, Y, XX, 5.0).empty
    assert contour_lines(X, Y, XX, -5.0).empty
    heights = XX.copy()
    heights[:, X > 0] = np.nan
    assert contour_lines(X, Y, heights, 0.3).empty
    assert len(contour_lines(X, Y, heights, -0.3))
