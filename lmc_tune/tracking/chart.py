"""The interactive interpolation chart of one pair: a page of a few kilobytes that needs no network and no library."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import ceil, floor, log10
from typing import Any

from lmc_tune.tables.columns import Row
from lmc_tune.tables.rows import PairResult
from lmc_tune.tracking.content import is_finite

WIDTH, HEIGHT = 520, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 42


@dataclass(frozen=True, kw_only=True)
class Line:
    """One split's curve in one panel: values by λ, and their positions in the panel, in pixels."""

    split: str
    points: list[tuple[float, float]]
    pixels: list[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One quantity along the path under one condition."""

    title: str
    unit: str
    lines: list[Line]
    chord: list[tuple[float, float]]
    ticks: list[tuple[str, float]]


def interpolation_page(result: PairResult, title: str) -> str:
    """A self-contained HTML page: error and loss along the path, train and test, with values under the pointer.

    A pair without a path (diverged, failed) gets the page with its status and reason instead.
    """
    panels = path_panels(result.tables.get("paths", []))
    page: str = _template().render(
        title=title,
        row=result.row,
        facts=_facts(result.row),
        panels=panels,
        data=[[[line.split, line.points, line.pixels] for line in panel.lines] for panel in panels],
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
        top=TOP,
        bottom=HEIGHT - BOTTOM,
        lambda_ticks=[(f"{lambda_:g}", _x(lambda_)) for lambda_ in (0, 0.25, 0.5, 0.75, 1)],
    )
    return page


def path_panels(points: Sequence[Row]) -> list[Panel]:
    """Error and loss for every condition that was measured."""
    panels = []
    for condition in sorted({point["condition"] for point in points}, key=lambda name: (name != "naive", name)):
        own = sorted((p for p in points if p["condition"] == condition and p["n"]), key=lambda p: p["lambda"])
        suffix = "" if condition == "naive" else f", {condition}"
        errors = {
            split: [(p["lambda"], 100 * (1 - p["correct"] / p["n"])) for p in own if p["split"] == split]
            for split in _splits(own)
        }
        losses = {
            split: [
                (p["lambda"], p["loss_sum"] / p["n"]) for p in own if p["split"] == split and is_finite(p["loss_sum"])
            ]
            for split in _splits(own)
        }
        panels += [_panel(f"Error{suffix}", "%", errors), _panel(f"Loss{suffix}", "nats", losses)]
    return [panel for panel in panels if panel.lines]


def _splits(points: Sequence[Row]) -> list[str]:
    return sorted({point["split"] for point in points})


def _panel(title: str, unit: str, curves: dict[str, list[tuple[float, float]]]) -> Panel:
    top, step = _scale(max((value for curve in curves.values() for _, value in curve), default=0.0))

    def pixel(lambda_: float, value: float) -> tuple[float, float]:
        return _x(lambda_), round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top), 1)

    test = curves.get("test", [])
    count = round(top / step)
    return Panel(
        title=title,
        unit=unit,
        lines=[
            Line(split=split, points=[(round(x, 5), round(y, 5)) for x, y in curve], pixels=[pixel(*p) for p in curve])
            for split, curve in curves.items()
            if curve
        ],
        chord=[pixel(*test[0]), pixel(*test[-1])] if len(test) > 1 else [],
        ticks=[(f"{at * step:.10g}", pixel(0, at * step)[1]) for at in range(count + 1)],
    )


def _scale(highest: float) -> tuple[float, float]:
    """Top of an axis from 0 that includes ``highest``, and the distance of its ticks, 1, 2 or 5 times a power of 10."""
    rough = max(highest, 1e-6) / 4
    power = 10 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return ceil(max(highest, 1e-6) / step * (1 - 1e-9)) * step, step


def _x(lambda_: float) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * lambda_, 1)


def _facts(row: Row) -> list[tuple[str, str]]:
    """The most important numbers; those that were not measured are left out."""
    shown = [
        ("test error barrier (chord)", "test_error_barrier_chord", 100, " %"),
        ("at λ", "barrier_lambda", 1, ""),
        ("test loss barrier (chord)", "test_loss_barrier_chord", 1, " nats"),
        ("test accuracy A", "test_accuracy_a", 100, " %"),
        ("test accuracy B", "test_accuracy_b", 100, " %"),
        ("disagreement", "disagreement", 100, " %"),
    ]
    return [
        (name, f"{factor * row[column]:.3g}{unit}")
        for name, column, factor, unit in shown
        if is_finite(row.get(column))
    ]


@cache
def _template() -> Any:
    from jinja2 import Environment  # noqa: PLC0415 - only where a page is made

    source = files("lmc_tune.tracking").joinpath("interpolation.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
