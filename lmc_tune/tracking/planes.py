"""The page of the plane through three weight vectors of a pair: maps with values under the pointer."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from math import ceil, floor, nan

import numpy as np

from lmc_tune.core.barrier import Array
from lmc_tune.tables.columns import Row
from lmc_tune.tables.rows import PairResult
from lmc_tune.tracking.chart import BOTTOM, LEFT, RIGHT, TOP, WIDTH, page_of, scale_of
from lmc_tune.tracking.content import value_of

LEAST_HEIGHT, MOST_HEIGHT = 160, 420
# Viridis at equal steps, the lowest first.
COLOURS = ("#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725")


@dataclass(frozen=True, kw_only=True)
class Map:
    """One quantity on the grid of a plane.

    low, high: ends of the scale of colours. values: row by row, the lowest y first; None where not finite. image: a PNG
    with a pixel per value, in base 64. points: the three that span the plane: name, value, x and y.
    """

    title: str
    unit: str
    low: float
    high: float
    logarithmic: bool
    values: list[float | None]
    image: str
    points: list[tuple[str, float | None, float, float]]


class Frame:
    """Where a plane is drawn: a tile per point of its grid, on axes of distance.

    Attributes:
        xs: (nx,) places of the grid. ys: (ny,).
        right: edge in pixels, as are ``left``, ``top`` and ``bottom``. A distance is as long along y as along x, unless
            the plane is too flat or too tall.
    """

    left, top, right = LEFT, TOP, WIDTH - RIGHT

    def __init__(self, grid: Sequence[Row]) -> None:
        self.xs, self.ys = (np.unique([row[along] for row in grid]) for along in ("x", "y"))
        height = (self.right - self.left) * _extent(self.ys) / _extent(self.xs)
        self.bottom = self.top + round(min(MOST_HEIGHT, max(LEAST_HEIGHT, height)))

    def x(self, value: float) -> float:
        """In pixels."""
        return round(self.left + (self.right - self.left) * _share(value, self.xs), 1)

    def y(self, value: float) -> float:
        """In pixels."""
        return round(self.bottom - (self.bottom - self.top) * _share(value, self.ys), 1)


def planes_page(result: PairResult, title: str) -> str:
    """A self-contained HTML page: error and loss on the plane, on every split.

    Distances are those of the weights. The maps of a quantity share one scale of colours, which is logarithmic for
    losses; what is not finite is white.
    """
    rows = result.tables.get("planes", [])
    grid = [row for row in rows if row["point"] == "grid"]
    if not grid:
        return page_of("page.html.j2", result, title, missing="No plane was measured.")
    frame = Frame(grid)
    return page_of(
        "planes.html.j2",
        result,
        title,
        maps=plane_maps(rows),
        frame=frame,
        ticks=[_ticks(frame.xs), _ticks(frame.ys)],
        colours=COLOURS,
        width=WIDTH,
        height=frame.bottom + BOTTOM,
    )


def plane_maps(rows: Sequence[Row]) -> list[Map]:
    """Of error and loss, on every split; none of a quantity that is finite nowhere."""
    under = "".join(f", {name}" for name in sorted({row["condition"] for row in rows}) if name != "naive")
    maps = []
    for quantity, unit, factor in (("error", "%", 100), ("loss", "nats", 1)):
        known = [(row, _shown(value_of(row, quantity), factor)) for row in rows]
        finite = [value for row, value in known if value is not None and row["point"] == "grid"]
        if not finite:
            continue
        low, high = min(finite), max(finite)
        logarithmic = quantity == "loss" and low > 0
        for split in sorted({row["split"] for row in rows}):
            own = [(row, value) for row, value in known if row["split"] == split]
            grid = {(row["y"], row["x"]): value for row, value in own if row["point"] == "grid"}
            values = [grid[place] for place in sorted(grid)]
            field = np.array([nan if value is None else value for value in values]).reshape(
                len({y for y, _ in grid}), -1
            )
            points = [(row, value) for row, value in own if row["point"] != "grid"]
            maps.append(
                Map(
                    title=f"{split.capitalize()} {quantity} on the plane{under}",
                    unit=unit,
                    low=low,
                    high=high,
                    logarithmic=logarithmic,
                    values=values,
                    image=_image(*(np.log([low, high]), np.log(field)) if logarithmic else ([low, high], field)),
                    points=[(_name(row["point"]), value, row["x"], row["y"]) for row, value in points],
                )
            )
    return maps


def _name(point: str) -> str:
    return point.upper() if point in {"a", "b"} else point


def _shown(value: float | None, factor: float) -> float | None:
    """In the unit of a map, to four digits."""
    return None if value is None else float(f"{factor * value:.4g}")


def _image(bounds: Sequence[float] | Array, field: Array) -> str:
    """A PNG in base 64 of values (ny, nx), the lowest row first; transparent where they are not finite."""
    from PIL import Image  # noqa: PLC0415 - only where there is a plane

    colours = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in COLOURS])
    level = np.interp(field, bounds, [0, len(colours) - 1])
    channels = [np.interp(level, range(len(colours)), channel) for channel in colours.T]
    pixels = np.stack([*channels, 255.0 * np.isfinite(field)], axis=-1)
    file = BytesIO()
    Image.fromarray(np.nan_to_num(pixels[::-1]).round().astype(np.uint8)).save(file, "PNG")
    return b64encode(file.getvalue()).decode()


def _extent(places: Array) -> float:
    """Of the tiles around equally spaced places."""
    return float(places[-1] - places[0]) * len(places) / (len(places) - 1)


def _share(value: float, places: Array) -> float:
    """How far along the tiles around some places a value lies, from 0 to 1."""
    return 0.5 + (value - float(places[0] + places[-1]) / 2) / _extent(places)


def _ticks(places: Array) -> list[float]:
    _, step = scale_of(float(np.ptp(places)))
    return [step * at for at in range(ceil(places[0] / step), floor(places[-1] / step) + 1)]
