"""Lines of equal height, against surfaces whose lines are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmc_tune.analysis.contours import contour_heights, contour_lines

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


@pytest.mark.parametrize(
    ("plateau", "steepness", "least"), [(0.9, 0.3, 6), (0.9, 1.5, 6), (0.9, 20, 6), (1e6, 0.3, 1), (1e6, 1.5, 1)]
)
def test_heights_resolve_a_valley_below_a_plateau(plateau, steepness, least):
    """Equally spaced lines would show the rim of a wide valley or of a narrow one, and nothing of its inside."""
    side = np.linspace(-1, 1, 41)
    xx, yy = np.meshgrid(side, side)
    inside = 0.02 + steepness * (xx**2 + yy**2)
    surface = np.where(inside < 0.5, inside, plateau)
    heights = contour_heights(surface, 8)
    assert len(heights) == 8
    assert (np.diff(heights) > 0).all()
    equally_spaced = np.linspace(surface.min(), surface.max(), 10)[1:-1]
    assert (heights < 0.5).sum() >= least > (equally_spaced < 0.5).sum()
    above = heights - surface.min()
    ratios = np.append(above[1:], plateau - surface.min()) / above
    assert ratios == pytest.approx(ratios[0])
    assert ratios[0] >= 2 - 1e-9


@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=40),
    st.integers(-100, 100),
    st.sampled_from([0.25, 1, 64]),
)
def test_heights_lie_between_the_values_and_move_with_them(values, shift, scale):
    found = contour_heights([*values, np.inf, np.nan], 5)
    assert len(found) == (5 if min(values) < max(values) else 0)
    assert all(min(values) <= height <= max(values) for height in found)
    moved = contour_heights(scale * np.array(values) + shift, 5)
    assert moved == pytest.approx(scale * found + shift, rel=1e-9, abs=1e-6)


def test_of_values_that_are_all_the_same_there_are_none():
    assert contour_heights(np.full((3, 4), 2.5), 8).tolist() == []
    assert contour_heights([np.nan, np.inf], 8).tolist() == []
