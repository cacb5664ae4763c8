"""Barriers: one measured curve along the path θ(λ) = (1−λ) θ_A + λ θ_B gives several numbers, each named.

A curve is a pair of arrays ``(lambdas, values)``: ``lambdas`` strictly increasing from 0 to 1, ``values`` a loss
(nats) or an error (fraction). Positive barrier = the path is worse than the definition's baseline.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Definition = Literal["chord", "endpoint_mean", "midpoint", "local_minima", "max_endpoint"]
DEFINITIONS: tuple[Definition, ...] = get_args(Definition)

# The others are 0 at least, since the ends of the path are among its positions.
MAY_BE_NEGATIVE: tuple[Definition, ...] = ("midpoint",)

Array = NDArray[np.float64]

# Positions whose excess differs by no more than this tie: it is the rounding of the baseline.
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Barrier:
    """A barrier and its position on the path.

    ``height`` is in the unit of the curve (nats or fraction); ``lambda_`` in [0, 1] is the position at which it was
    read (0 where the curve has no barrier by this definition).
    """

    height: float
    lambda_: float


def path_grid(n: int) -> Array:
    """``n`` equally spaced positions from 0 to 1, the midpoint among them.

    Raises:
        ValueError: if ``n`` is even or below 3: the grid would miss λ = ½.
    """
    if n < 3 or n % 2 == 0:
        raise ValueError(f"a path grid needs an odd number of points, at least 3, so that λ = ½ is on it; got {n}")
    return np.arange(n) / (n - 1)  # a quotient, unlike linspace's product, makes the midpoint exactly ½


def barrier(lambdas: ArrayLike, values: ArrayLike, definition: Definition = "chord") -> float:
    """Height of the barrier of one curve; see :func:`locate_barrier`.

    Example:
        A bump of 0.5 over the line between the ends; against the mean of the ends it is higher, as B is worse than A.

        >>> lambdas, losses = [0, 0.25, 0.5, 0.75, 1], [0, 0.25, 0.5, 1.25, 1]
        >>> barrier(lambdas, losses)
        0.5
        >>> barrier(lambdas, losses, "endpoint_mean")
        0.75
    """
    return locate_barrier(lambdas, values, definition).height


def locate_barrier(
    lambdas: ArrayLike,
    values: ArrayLike,
    definition: Definition = "chord",
    ends: tuple[float, float] | None = None,
) -> Barrier:
    """Barrier of one curve and its position.

    ============== ======================================================= ==========================================
    definition     height                                                  source
    ============== ======================================================= ==========================================
    chord          max over λ of L(λ) − ((1−λ) L(0) + λ L(1))              Entezari et al. 2022
    endpoint_mean  max over λ of L(λ) − ½ (L(0) + L(1))                    Frankle et al. 2020; Ainsworth et al. 2023
    midpoint       L(½) − ½ (L(0) + L(1))                                  Adilova et al. 2024; Jordan et al. 2023
    local_minima   L(λ*) − ½ (min before λ* + min after λ*), λ* the top    Hepburn et al. 2025, Fig. 3 (reconstructed)
                   of the interior bump highest over its own flanks
    max_endpoint   max over λ of L(λ) − max(L(0), L(1))                    "worse than both"
    ============== ======================================================= ==========================================

    Where several positions tie, the smallest λ is reported. A non-finite value anywhere makes the height NaN: such a
    curve has no barrier that could be compared with a threshold.

    Args:
        lambdas: (n,) positions, strictly increasing, first 0, last 1.
        values: (n,) loss or error at each position.
        definition: a name from the table above.
        ends: values that stand for L(0) and L(1) in the table: those of two whole members, where the curve moves only
            some of their layers. Heights may then be negative. ``local_minima`` reads none. The curve's own by default.

    Raises:
        ValueError: if the arrays are not a curve, the name is unknown, or ``midpoint`` is asked of a grid without ½.
    """
    grid, curve = _checked_curve(lambdas, values)
    if definition not in DEFINITIONS:
        raise ValueError(f"unknown barrier definition {definition!r}; choose one of {', '.join(DEFINITIONS)}")
    if not np.all(np.isfinite(curve)):
        return Barrier(height=float("nan"), lambda_=float("nan"))
    if definition == "local_minima":
        return _local_minima(grid, curve)
    first, last = (float(curve[0]), float(curve[-1])) if ends is None else ends
    if not np.all(np.isfinite([first, last])):
        return Barrier(height=float("nan"), lambda_=float("nan"))
    excess = curve - _baseline(grid, first, last, definition)
    if definition == "midpoint":
        at = _index_of_midpoint(grid)
        return Barrier(height=float(excess[at]), lambda_=0.5)
    top = excess.max()
    at = int(np.argmax(excess >= top - _ROUNDING * max(1.0, abs(top))))
    return Barrier(height=float(top), lambda_=float(grid[at]))


def average_barriers(average: float, members: Sequence[float], weights: Sequence[float]) -> dict[Definition, float]:
    """Barriers of the weighted average of some members, by definition, in the unit of the values.

    The positions are the members and their average: the baseline of ``chord``, ``endpoint_mean`` and ``midpoint`` is
    the weighted mean of the members' values, that of ``max_endpoint`` the largest. ``local_minima`` needs a path, and
    is left out. Of two equal weights ``midpoint`` is the midpoint barrier of the pair.

    Args:
        average: the value of the average.
        members: those of the members.
        weights: of the members in the average; they add up to 1.

    Example:
        >>> average_barriers(0.5, [0.1, 0.3], [0.5, 0.5])["midpoint"]
        0.3
    """
    mean = math.fsum(weight * value for weight, value in zip(weights, members, strict=True))
    excess = average - mean
    return {
        "chord": max(0.0, excess),
        "endpoint_mean": max(average, *members) - mean,
        "midpoint": excess,
        "max_endpoint": max(0.0, average - max(members)),
    }


def _baseline(grid: Array, first: float, last: float, definition: Definition) -> Array:
    if definition == "chord":
        # Written so that both endpoints are reproduced exactly: a flat path must read 0, not rounding noise.
        chord: Array = first + grid * (last - first)
        chord[-1] = last
        return chord
    level = max(first, last) if definition == "max_endpoint" else 0.5 * (first + last)
    return np.full_like(grid, level)


def _local_minima(grid: Array, curve: Array) -> Barrier:
    """The interior local maximum that rises highest over the mean of the minima on its two sides."""
    best = Barrier(height=0.0, lambda_=0.0)
    for at in _interior_maxima(curve):
        height = float(curve[at] - 0.5 * (curve[: at + 1].min() + curve[at:].min()))
        if height > best.height:
            best = Barrier(height=height, lambda_=float(grid[at]))
    return best


def _interior_maxima(curve: Array) -> list[int]:
    """First index of every interior plateau (of one or more points) that is higher than both its neighbours."""
    starts = np.flatnonzero(np.diff(curve, prepend=np.nan) != 0)
    levels = curve[starts]
    return [int(starts[i]) for i in range(1, len(starts) - 1) if levels[i - 1] < levels[i] > levels[i + 1]]


def _index_of_midpoint(grid: Array) -> int:
    at = int(np.argmin(np.abs(grid - 0.5)))
    if abs(grid[at] - 0.5) > 1e-12:
        raise ValueError("midpoint needs λ = ½ on the grid; build the grid with path_grid(n)")
    return at


def _checked_curve(lambdas: ArrayLike, values: ArrayLike) -> tuple[Array, Array]:
    grid = np.asarray(lambdas, dtype=np.float64)
    curve = np.asarray(values, dtype=np.float64)
    if grid.ndim != 1 or grid.shape != curve.shape or grid.size < 2:
        raise ValueError(
            f"lambdas and values must be two equally long 1-D arrays, got shapes {grid.shape} and {curve.shape}"
        )
    for name, got, want in (("lambdas[0]", grid[0], 0.0), ("lambdas[-1]", grid[-1], 1.0)):
        if got != want:
            raise ValueError(f"lambdas must run from 0 to 1, got {name}={got:g}; build it with path_grid(n)")
    if np.any(np.diff(grid) <= 0):
        raise ValueError("lambdas must increase strictly; sort them and drop duplicates")
    return grid, curve
