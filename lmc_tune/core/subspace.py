"""Gaussian vectors of a given norm: anywhere, in a subspace, and orthogonal to one."""

from collections.abc import Sequence

import numpy as np

from lmc_tune.core.barrier import Array

# Weights are float32: of directions shorter than this part of the longest, rounding may be all there is.
_ROUNDING = 1e-6


def orthonormal_basis(vectors: Sequence[Array]) -> Array:
    """(n, rank) orthonormal columns that span some vectors (n,); rank 0 if all are zero.

    By QR and the singular values of R: directions whose singular value is at most 1e-6 of the largest are left out.

    Raises:
        ValueError: if there is no vector.

    Example:
        >>> orthonormal_basis([np.array([3.0, 0.0, 0.0]), np.array([6.0, 0.0, 0.0])]).shape
        (3, 1)
    """
    if not vectors:
        raise ValueError("no vectors span nothing; give at least one")
    q, r = np.linalg.qr(np.stack(vectors, axis=1))
    u, sizes, _ = np.linalg.svd(r)
    rank = int(np.count_nonzero(sizes > _ROUNDING * sizes[0]))
    basis: Array = q @ u[:, :rank]
    return basis


def gaussian(n: int, norm: float, seed: int) -> Array:
    """(n,) a vector of this norm, in a direction that is uniform on the sphere."""
    return scaled(np.random.default_rng(seed).standard_normal(n), norm)


def gaussian_in(basis: Array, norm: float, seed: int) -> Array:
    """(n,) a vector of this norm, in a uniform direction in the span of orthonormal columns: their coefficients are
    independent and Gaussian.
    """
    return scaled(basis @ np.random.default_rng(seed).standard_normal(basis.shape[1]), norm)


def gaussian_beyond(basis: Array, norm: float, seed: int) -> Array:
    """(n,) a vector of this norm, in a uniform direction orthogonal to some orthonormal columns.

    Raises:
        ValueError: if the columns span the whole space.
    """
    if basis.shape[1] >= len(basis):
        raise ValueError(f"{basis.shape[1]} columns span all {len(basis)} dimensions; nothing is orthogonal to them")
    vector = np.random.default_rng(seed).standard_normal(len(basis))
    for _ in range(2):  # once leaves what rounding makes of the part that is removed
        vector -= basis @ (basis.T @ vector)
    return scaled(vector, norm)


def scaled(vector: Array, norm: float) -> Array:
    """The vector with this norm; the zero vector has no direction and is returned where the norm is 0.

    Raises:
        ValueError: if a zero vector is asked for another norm.
    """
    length = float(np.linalg.norm(vector))
    if length == 0:
        if norm:
            raise ValueError(f"a zero vector has no direction, so it cannot have the norm {norm:g}")
        return vector
    return vector * (norm / length)
