"""The page of steps away from a pair's members and from the path between them, and of the curvature along it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import Any

from lmc_tune.analysis.rises import LAYER_KINDS, NOISE_KINDS, PLACES
from lmc_tune.analysis.wording import layer_words
from lmc_tune.tables.columns import Row
from lmc_tune.tables.rows import PairResult
from lmc_tune.tracking.chart import LAMBDA, Axis, Curve, Panel, axis_to, curves_page, layer_axis, panel_of
from lmc_tune.tracking.content import is_finite, value_of


def directions_page(result: PairResult, title: str) -> str:
    """A self-contained HTML page: rises of error and loss after steps, means over draws, and the largest eigenvalues.

    By layer: one layer alone moves, towards the other member or in random directions; means over both members. By norm:
    noise on all weights, from points of the path. By radius: directions that are scaled filter by filter.
    """
    panels = [
        *direction_panels(result.tables.get("directions", [])),
        *sharpness_panels(result.tables.get("sharpness", [])),
    ]
    return curves_page(result, title, panels, "" if panels else "No steps away from the members were measured.")


def direction_panels(rows: Sequence[Row]) -> list[Panel]:
    """Rises on every split, over the network from which a step is taken: a member, or a point of the path."""
    still = {(row["lambda"], row["split"]): row for row in rows if row["kind"] == "unmoved"}
    panels = []
    for steps in _charts(rows):
        for split in sorted({row["split"] for row in rows}):
            for quantity, unit, factor in (("error", "%", 100), ("loss", "nats", 1)):
                curves = {
                    name: _means(
                        (steps.along(row), _rise(row, still, quantity, factor)) for row in own if row["split"] == split
                    )
                    for name, own in steps.lines.items()
                }
                panel = panel_of(f"Rise of the {split} {quantity}{steps.title}", unit, curves, steps.axis)
                panels.append(replace(panel, names=steps.names))
    return [panel for panel in panels if panel.lines]


def sharpness_panels(rows: Sequence[Row]) -> list[Panel]:
    """The largest eigenvalue of the Hessian of the training loss along the path, where it converged."""
    curve = [(row["lambda"], row["eigenvalue"]) for row in rows if is_finite(row["eigenvalue"])]
    title = f"Largest eigenvalue of the Hessian of the training loss{_under(rows)}"
    return [panel_of(title, "nats", {"train": curve}, LAMBDA)] if curve else []


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """What is drawn in one panel per split and quantity.

    lines: rows by the name of their line. along: where on the axis a row is. names: of the places 1, 2, … there.
    """

    title: str
    axis: Axis
    lines: Mapping[str, Sequence[Row]]
    along: Callable[[Row], float] = lambda row: row["alpha"]
    names: tuple[str, ...] = ()


def _charts(rows: Sequence[Row]) -> Iterator[_Steps]:
    """Lines of all weights begin at a rise of 0, where there is no step."""
    under, still = _under(rows), [row for row in rows if row["kind"] == "unmoved"]
    single = [row for row in rows if row["kind"] in LAYER_KINDS]
    layers = {row["position"]: row["layer"] for row in single}
    for alpha in _values(single, "alpha"):
        own = [row for row in single if row["alpha"] == alpha]
        yield _Steps(
            title=f", each layer alone, α = {alpha:g}{under}",
            axis=layer_axis(len(layers)),
            lines=_lines(own, "kind", LAYER_KINDS),
            along=lambda row: row["position"] + 1,
            names=tuple(layer_words(place + 1, layers[place]) for place in sorted(layers)),
        )
    noise = [row for row in rows if row["kind"] in NOISE_KINDS]
    norms = axis_to(max(_values(noise, "alpha"), default=0), "norm, in distances ‖A − B‖", digits=2)
    for position in _values(noise, "lambda"):
        begin = [row for row in still if row["lambda"] == position]
        lines = _lines([row for row in noise if row["lambda"] == position], "kind", NOISE_KINDS)
        lines = {name: [*begin, *own] for name, own in lines.items()}
        yield _Steps(title=f", noise at λ = {position:g}{under}", axis=norms, lines=lines)
    if scaled := [row for row in rows if row["kind"] == "filter"]:
        radii = axis_to(max(_values(scaled, "alpha")), "radius, in lengths of every filter", digits=2)
        lines = _lines([*still, *scaled], "lambda", PLACES)
        yield _Steps(title=f", filter by filter{under}", axis=radii, lines=lines)


def _under(rows: Sequence[Row]) -> str:
    """The condition of all rows, where it is worth a word."""
    return "".join(f", {name}" for name in _values(rows, "condition") if name != "naive")


def _values(rows: Sequence[Row], column: str) -> list[Any]:
    return sorted({row[column] for row in rows})


def _lines(rows: Sequence[Row], column: str, names: Mapping[Any, str]) -> dict[str, list[Row]]:
    lines = {name: [row for row in rows if row[column] == value] for value, name in names.items()}
    return {name: own for name, own in lines.items() if own}


def _rise(row: Row, still: Mapping[tuple[float, str], Row], quantity: str, factor: float) -> float | None:
    """How much higher it is than where the step begins; None if one of them is not finite."""
    value, origin = value_of(row, quantity), value_of(still[row["lambda"], row["split"]], quantity)
    return None if value is None or origin is None else factor * (value - origin)


def _means(points: Iterator[tuple[float, float | None]]) -> Curve:
    """The mean at every place at which all values are known."""
    by_place: dict[float, list[float | None]] = {}
    for place, value in points:
        by_place.setdefault(place, []).append(value)
    known = {place: [value for value in values if value is not None] for place, values in sorted(by_place.items())}
    return [(place, fsum(own) / len(own)) for place, own in known.items() if len(own) == len(by_place[place])]
