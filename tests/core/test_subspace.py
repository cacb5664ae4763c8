"""Vectors in a span and beyond it, against projections by least squares and the moments of the sphere."""

import doctest

import numpy as np
import pytest

from lmc_tune.core import subspace
from lmc_tune.core.subspace import gaussian, gaussian_beyond, gaussian_in, orthonormal_basis, scaled

RNG = np.random.default_rng(7)
N = 40
# Far from orthogonal, and of very different lengths.
VECTORS = [RNG.standard_normal(N), 1e-3 * RNG.standard_normal(N), 5 + 0.1 * RNG.standard_normal(N)]
BASIS = orthonormal_basis(VECTORS)


def residual(vector: np.ndarray) -> float:
    """What least squares leave of a vector, of which the given ones explain what they can; a fraction of its norm."""
    columns = np.stack(VECTORS, axis=1)
    explained = columns @ np.linalg.lstsq(columns, vector, rcond=None)[0]
    return float(np.linalg.norm(vector - explained) / np.linalg.norm(vector))


def test_a_basis_is_orthonormal_and_spans_the_same():
    assert np.abs(BASIS.T @ BASIS - np.eye(3)).max() < 1e-12
    for vector in VECTORS:
        assert np.linalg.norm(vector - BASIS @ (BASIS.T @ vector)) < 1e-12 * np.linalg.norm(vector)


def test_directions_that_repeat_others_are_left_out():
    doubled = [*VECTORS, VECTORS[0] - 2 * VECTORS[2], np.zeros(N), VECTORS[1] * (1 + 1e-9)]
    assert orthonormal_basis(doubled).shape == (N, 3)
    assert orthonormal_basis([np.zeros(N)]).shape == (N, 0)
    with pytest.raises(ValueError, match="no vectors span nothing"):
        orthonormal_basis([])


@pytest.mark.parametrize("norm", [0.0, 1e-4, 3.0])
def test_norms_are_exact(norm):
    for vector in (gaussian(N, norm, 1), gaussian_in(BASIS, norm, 1), gaussian_beyond(BASIS, norm, 1)):
        assert np.linalg.norm(vector) == pytest.approx(norm, rel=1e-14)


def test_noise_in_the_span_lies_in_it_and_noise_beyond_is_orthogonal_to_it():
    for seed in range(20):
        assert residual(gaussian_in(BASIS, 2.0, seed)) < 1e-10
        beyond = gaussian_beyond(BASIS, 2.0, seed)
        assert residual(beyond) == pytest.approx(1, abs=1e-12)
        assert max(abs(v @ beyond) / np.linalg.norm(v) for v in VECTORS) < 1e-13


def test_noise_in_the_span_is_isotropic():
    """Of a uniform direction in r dimensions every component has the moments 1/r and 3/(r (r + 2)), in every rotated
    basis; independent coefficients that are not Gaussian have other fourth moments along the diagonals.
    """
    drawn = np.stack([BASIS.T @ gaussian_in(BASIS, 1.0, seed) for seed in range(20_000)])
    turn, _ = np.linalg.qr(RNG.standard_normal((3, 3)))
    for coefficients in (
        drawn,
        drawn @ turn,
        drawn @ np.array([[1, 1, 0], [1, -1, 0], [0, 0, np.sqrt(2)]]) / np.sqrt(2),
    ):
        assert np.abs(coefficients.mean(0)).max() < 0.02
        assert np.abs(coefficients.T @ coefficients / 20_000 - np.eye(3) / 3).max() < 0.02
        assert np.abs((coefficients**4).mean(0) - 3 / 15).max() < 0.008


def test_directions_depend_on_the_seed_alone():
    assert np.array_equal(gaussian(N, 1.0, 5), gaussian(N, 1.0, 5))
    assert abs(gaussian(N, 1.0, 5) @ gaussian(N, 1.0, 6)) < 0.7


def test_what_has_no_direction_cannot_be_scaled():
    assert not scaled(np.zeros(3), 0.0).any()
    with pytest.raises(ValueError, match="a zero vector has no direction"):
        scaled(np.zeros(3), 1.0)
    with pytest.raises(ValueError, match="span all 2 dimensions"):
        gaussian_beyond(np.eye(2), 1.0, 0)


def test_the_examples_are_right():
    assert doctest.testmod(subspace).attempted > 0
    assert doctest.testmod(subspace).failed == 0
