"""The line between connected and disconnected: where the mean barrier crosses the threshold."""

import contourpy
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lmc_tune.core.barrier import Array

COLUMNS = ["line", "order", "x", "y"]


def find_boundary(x: ArrayLike, y: ArrayLike, means: ArrayLike, threshold: float) -> pd.DataFrame:
    """Contour of a field of mean barriers at the threshold, by linear interpolation between the cells' centres.

    Each cell stands for its whole tile, so the field goes on unchanged for half a step beyond the outermost centres:
    a line that leaves the map reaches its edge. It stops at cells without a known mean.

    Args:
        x: (nx,) increasing positions of the columns, in the scale they are drawn in (logarithms on a log axis).
        y: (ny,) increasing positions of the rows.
        means: (ny, nx) mean barrier of each cell; NaN where there is none.
        threshold: in the unit of the means.

    Returns:
        Columns ``line`` (number of the line), ``order`` (along it), ``x`` and ``y`` in the given positions.
    """
    columns, rows = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    field = np.ma.masked_invalid(np.asarray(means, dtype=np.float64))
    if columns.size < 2 or rows.size < 2 or field.count() == 0:
        return pd.DataFrame(columns=COLUMNS)
    padded = np.ma.array(
        np.pad(field.filled(np.nan), 1, mode="edge"), mask=np.pad(np.ma.getmaskarray(field), 1, mode="edge")
    )
    generator = contourpy.contour_generator(
        x=_with_borders(columns), y=_with_borders(rows), z=padded, corner_mask=True, name="serial"
    )
    parts = [
        pd.DataFrame({"line": at, "order": np.arange(len(line)), "x": line[:, 0], "y": line[:, 1]})
        for at, line in enumerate(np.asarray(line) for line in generator.lines(threshold))
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def tile_edges(positions: ArrayLike) -> Array:
    """(n + 1,) borders of n tiles: halfway between neighbours, as far outside as inside at both ends.

    A single position gets a tile of width one.
    """
    centres = np.asarray(positions, dtype=np.float64)
    if centres.size == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    inner = (centres[:-1] + centres[1:]) / 2
    return np.concatenate([[2 * centres[0] - inner[0]], inner, [2 * centres[-1] - inner[-1]]])


def _with_borders(centres: Array) -> Array:
    edges = tile_edges(centres)
    return np.concatenate([edges[:1], centres, edges[-1:]])
