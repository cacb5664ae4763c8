"""The plane through three points, against distances and QR."""

import doctest
from itertools import permutations

import numpy as np
import pytest

from lmc_tune.core import plane
from lmc_tune.core.plane import plane_through

POINTS = list(np.random.default_rng(3).standard_normal((3, 50)))


def at(x: float, y: float, points: list[np.ndarray]) -> np.ndarray:
    basis = plane_through(*points)
    return sum(w * point for w, point in zip(basis.weights(x, y), points, strict=True))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_three_points_are_on_the_plane_and_distances_are_kept(order):
    points = [POINTS[at] for at in order]
    basis = plane_through(*points)
    for place, point in zip(basis.points, points, strict=True):
        assert basis.weights(*place) == tuple(float(point is one) for one in points)
    for one in range(3):
        for other in range(3):
            drawn = np.subtract(basis.points[one], basis.points[other])
            assert np.linalg.norm(drawn) == pytest.approx(np.linalg.norm(points[one] - points[other]), rel=1e-12)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_order_of_the_points_changes_the_coordinates_alone(order):
    """The point with the same affine weights has the same place among the three."""
    weights = (0.7, -0.5, 0.8)
    expected = sum(w * point for w, point in zip(weights, POINTS, strict=True))
    points = [POINTS[at] for at in order]
    x, y = sum(weights[at] * np.array(place) for at, place in zip(order, plane_through(*points).points, strict=True))
    assert np.abs(at(x, y, points) - expected).max() < 1e-12


def test_coordinates_are_along_an_orthonormal_basis():
    first, second, third = POINTS
    q, _ = np.linalg.qr(np.stack([second - first, third - first], axis=1))
    u, v = (side * np.sign(side @ towards) for side, towards in zip(q.T, (second - first, third - first), strict=True))
    assert np.abs(at(0.4, -1.3, POINTS) - (first + 0.4 * u - 1.3 * v)).max() < 1e-12


def test_the_grid_holds_the_points_and_a_margin():
    basis = plane_through(*POINTS)
    x, y = basis.grid(5, 0.25)
    xs, ys = np.array(basis.points).T
    for values, own in ((x, xs), (y, ys)):
        assert len(values) == 5
        assert (values[0], values[-1]) == pytest.approx(
            (own.min() - 0.25 * np.ptp(own), own.max() + 0.25 * np.ptp(own))
        )
        assert np.ptp(np.diff(values)) < 1e-12


def test_three_points_on_a_line_span_no_plane():
    first, second, _ = POINTS
    for third in (first, second, 0.3 * first + 0.7 * second):
        assert plane_through(first, second, third) is None
    assert plane_through(first, first, second) is None
    assert plane_through(first, first, first) is None


def test_the_examples_are_right():
    assert doctest.testmod(plane).attempted > 0
    assert doctest.testmod(plane).failed == 0
