"""Lines of equal height on a grid, and heights that show its valleys."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lmc_tune.core.barrier import Array

COLUMNS = ["x", "y", "x2", "y2"]
# Of the values above the lowest one, at most so many lie below the first line.
LOWEST_PART = 0.1


def contour_heights(values: ArrayLike, n: int) -> Array:
    """Heights of lines that resolve valleys as well as the slopes around them.

    Losses and errors are low near the members and may be high everywhere else, where equally spaced lines would all
    lie. Here each height is, above the lowest value, as many times as high as the one before: at least twice, and more
    where otherwise more than a tenth of the higher values would lie below the first.

    Args:
        values: of any shape; those that are not finite do not count.
        n: of the lines.

    Returns:
        (n,) increasing heights between the lowest and the highest value; none if all values are the same.

    Example:
        >>> contour_heights([0, 1, 1, 1, 16], 4).round(9).tolist()
        [1.0, 2.0, 4.0, 8.0]
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    above = known - known.min(initial=np.inf)
    higher = above[above > 0]
    if not len(higher):
        return np.empty(0)
    first = min(np.quantile(higher, LOWEST_PART), higher.max() / 2**n)
    heights: Array = known.min() + np.geomspace(first, higher.max(), n + 1)[:-1]
    return heights


def contour_lines(x: ArrayLike, y: ArrayLike, heights: ArrayLike, level: float) -> pd.DataFrame:
    """Where a surface has a height, by linear interpolation over the two triangles of every tile of the grid.

    Args:
        x: (nx,) increasing positions. y: (ny,) likewise.
        heights: (ny, nx); around those that are not finite there are no lines.
        level: of the lines.

    Returns:
        One straight piece per row, from (``x``, ``y``) to (``x2``, ``y2``).
    """
    field = np.asarray(heights, dtype=np.float64)
    places = np.stack(np.meshgrid(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)), axis=-1)
    pieces = []
    for corners in (
        (np.s_[:-1, :-1], np.s_[:-1, 1:], np.s_[1:, :-1]),
        (np.s_[1:, 1:], np.s_[:-1, 1:], np.s_[1:, :-1]),
    ):
        own = np.stack([field[corner].ravel() for corner in corners], axis=1)
        at = np.stack([places[corner].reshape(-1, 2) for corner in corners], axis=1)
        above = own >= level
        crossed = np.isfinite(own).all(axis=1) & above.any(axis=1) & ~above.all(axis=1)
        own, at, above = own[crossed], at[crossed], above[crossed]
        # The corner that lies alone on its side, and the two others.
        alone = np.where(above.sum(axis=1) == 1, above.argmax(axis=1), above.argmin(axis=1))
        row = np.arange(len(own))
        ends = []
        for step in (1, 2):
            other = (alone + step) % 3
            part = (level - own[row, alone]) / (own[row, other] - own[row, alone])
            ends.append(at[row, alone] + part[:, None] * (at[row, other] - at[row, alone]))
        pieces.append(np.concatenate(ends, axis=1))
    return pd.DataFrame(np.concatenate(pieces), columns=COLUMNS)
