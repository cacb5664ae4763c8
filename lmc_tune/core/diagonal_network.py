"""The smallest network with layer-wise barriers: f(x) = w₁ w₂ x, one number per layer (Adilova et al. 2024).

It fits y = x with the loss L = ½ (w₁ w₂ − 1)². Every (a, 1/a) is a minimum. Between A = (a, 1/a) and B = (b, 1/b) all
barriers are known in closed form: the loss is ½ r², and the residual r is the table of :func:`residual`.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from lmc_tune.core.barrier import Array

# Which weights move, and at which member the other stays.
Moved = Literal["full", "layer 1 into A", "layer 2 into A", "layer 1 into B", "layer 2 into B"]
MOVED: tuple[Moved, ...] = get_args(Moved)


def residual(moved: Moved, a: float, b: float, position: ArrayLike) -> Array:
    """r = w₁ w₂ − 1 of the network at a position between 0 (the base) and 1 (the other member's moved layers).

    ============== =====================
    moved          r(λ)
    ============== =====================
    full           λ(1−λ) (a−b)² / (ab)
    layer 1 into A λ (b−a) / a
    layer 2 into A λ (a−b) / b
    layer 1 into B λ (a−b) / b
    layer 2 into B λ (b−a) / a
    ============== =====================

    Args:
        moved: ``layer 1 into A``: w₁ goes from A's to B's while w₂ stays A's; all others likewise.
        a: w₁ of A, not 0; w₂ is 1/a.
        b: w₁ of B, not 0.
        position: (…) λ.

    Raises:
        ValueError: if a or b is 0.
    """
    if not a or not b:
        raise ValueError(f"a minimum is (a, 1/a) with a other than 0, got a={a:g}, b={b:g}")
    at = np.asarray(position, dtype=np.float64)
    if moved == "full":
        return np.asarray(at * (1 - at) * (a - b) ** 2 / (a * b))
    towards_b = moved in {"layer 1 into A", "layer 2 into B"}
    return np.asarray(at * ((b - a) / a if towards_b else (a - b) / b))


def loss(moved: Moved, a: float, b: float, position: ArrayLike) -> Array:
    """L = ½ r² along the path; both members have a loss of 0, so this is the barrier against them.

    Example:
        >>> [round(float(loss(moved, 0.5, 4, 0.5)), 4) for moved in MOVED[:3]]
        [1.1724, 6.125, 0.0957]
    """
    return np.asarray(0.5 * residual(moved, a, b, position) ** 2)
