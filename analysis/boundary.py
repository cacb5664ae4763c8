"""The line between connected and disconnected: the borders of tiles across which the mean barrier passes the threshold.

It is drawn where it is known, between two cells, and not interpolated within them: decision 0020.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lmc_tune.core.barrier import Array

COLUMNS = ["x", "y", "x2", "y2"]


def find_boundary(x: ArrayLike, y: ArrayLike, means: ArrayLike, threshold: float) -> pd.DataFrame:
    """The borders between neighbouring tiles of which one mean lies below the threshold and the other does not.

    Between a tile with a known mean and one without there is none.

    Args:
        x: (nx,) increasing positions of the columns, in the scale they are drawn in (logarithms on a log axis).
        y: (ny,) increasing positions of the rows.
        means: (ny, nx) mean barrier of each cell; NaN where there is none.
        threshold: in the unit of the means.

    Returns:
        One straight piece per row, from (``x``, ``y``) to (``x2``, ``y2``) in the given positions; first the vertical
        ones, row by row.
    """
    field = np.asarray(means, dtype=np.float64)
    known, above = np.isfinite(field), field >= threshold
    right, top = tile_edges(x), tile_edges(y)
    row, column = np.nonzero(known[:, :-1] & known[:, 1:] & (above[:, :-1] != above[:, 1:]))
    vertical = [right[column + 1], top[row], right[column + 1], top[row + 1]]
    row, column = np.nonzero(known[:-1] & known[1:] & (above[:-1] != above[1:]))
    horizontal = [right[column], top[row + 1], right[column + 1], top[row + 1]]
    return pd.DataFrame(np.concatenate([np.stack(vertical), np.stack(horizontal)], axis=1).T, columns=COLUMNS)


def tile_edges(positions: ArrayLike) -> Array:
    """(n + 1,) borders of n tiles: halfway between neighbours, as far outside as inside at both ends.

    A single position gets a tile of width one.
    """
    centres = np.asarray(positions, dtype=np.float64)
    if centres.size == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    inner = (centres[:-1] + centres[1:]) / 2
    return np.concatenate([[2 * centres[0] - inner[0]], inner, [2 * centres[-1] - inner[-1]]])
