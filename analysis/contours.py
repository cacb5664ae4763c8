"""Lines of equal height on a grid."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

COLUMNS = ["x", "y", "x2", "y2"]


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
