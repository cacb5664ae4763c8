"""Charts as pictures: PNG, SVG and PDF, in a theme and as wide as a column of a paper."""

import re
from collections.abc import Callable
from typing import Any

import altair as alt
import vl_convert

from lmc_tune.analysis.report.charts.style import Theme, themed
from lmc_tune.analysis.report.spec import plain_spec

PIXELS_PER_MM = 96 / 25.4
POINTS_PER_MM = 72 / 25.4
# Of a PNG without a given width, and with one: 300 dots per inch.
SCALE, PRINT_SCALE = 2.0, 300 / 96
# A chart is laid out again while it misses its width by more pixels than this.
TOLERANCE, MOST_TRIES = 1.0, 3
PADDING = {"light": 24, "dark": 24, "paper": 2}


def picture(
    draw: Callable[[float | None], Any], name: str, *, title: list[str], theme: Theme, width: float | None
) -> bytes:
    """The chart in a format.

    Args:
        draw: draws it over so many pixels, None for its usual width; one that cannot be laid out is scaled.
        name: ``png``, ``svg`` or ``pdf``.
        title: a title and what stands below it; a picture for a paper has none, since its caption says it.
        theme: the colours.
        width: in millimetres; None as wide as it is.
    """
    svg = _svg(draw, None if width is None else width * PIXELS_PER_MM, title, theme)
    if name == "svg":
        return (svg if width is None else _sized(svg, f"{width:g}mm", width / _width(svg), "mm")).encode()
    if name == "pdf":
        points = width * POINTS_PER_MM if width is not None else _width(svg) * POINTS_PER_MM / PIXELS_PER_MM
        pdf: bytes = vl_convert.svg_to_pdf(_sized(svg, f"{points:.2f}", points / _width(svg)))
        return pdf
    pixels = width * PIXELS_PER_MM if width is not None else _width(svg)
    png: bytes = vl_convert.svg_to_png(
        _sized(svg, f"{pixels:.2f}", pixels / _width(svg)), scale=SCALE if width is None else PRINT_SCALE
    )
    return png


def _svg(draw: Callable[[float | None], Any], pixels: float | None, title: list[str], theme: Theme) -> str:
    """Laid out so that it is as wide as was asked for, text keeping its size; its title is no wider than it is."""
    if pixels is None:
        return _drawn(draw(None), title, theme, _width(_drawn(draw(None), [], theme, None)))
    given = pixels
    for _ in range(MOST_TRIES):
        svg = _drawn(draw(given), title, theme, pixels)
        if abs(_width(svg) - pixels) <= TOLERANCE:
            break
        given += pixels - _width(svg)
    return svg


def _drawn(chart: Any, title: list[str], theme: Theme, pixels: float | None) -> str:
    chart.config.padding = PADDING[theme]
    if title and pixels is not None and theme != "paper":
        most = max(24, int((pixels - 2 * PADDING[theme]) / 6.4))
        lines = [line for text in title[1:] for line in _lines(text, most)]
        chart.title = alt.Title(_lines(title[0], most), subtitle=lines, fontSize=17, offset=12)
    svg: str = vl_convert.vegalite_to_svg(themed(plain_spec(chart), theme))
    return svg


def _lines(text: str, most: int) -> list[str]:
    found = [""]
    for word in text.split(" "):
        joined = f"{found[-1]} {word}".strip()
        found = [*found[:-1], joined] if len(joined) <= most or not found[-1] else [*found, word]
    return found


def _width(svg: str) -> float:
    return _size(svg)[0]


def _size(svg: str) -> tuple[float, float]:
    sizes = (re.search(rf'<svg[^>]*? {side}="([\d.]+)"', svg) for side in ("width", "height"))
    width, height = (float(size[1]) if size else 0.0 for size in sizes)
    return width, height


def _sized(svg: str, width: str, scale: float, unit: str = "") -> str:
    """The same drawing at another size; its ``viewBox`` scales it."""
    height = f"{_size(svg)[1] * scale:.2f}{unit}"
    sized = re.sub(r'(<svg[^>]*?) width="[\d.]+"', rf'\1 width="{width}"', svg, count=1)
    return re.sub(r'(<svg[^>]*?) height="[\d.]+"', rf'\1 height="{height}"', sized, count=1)
