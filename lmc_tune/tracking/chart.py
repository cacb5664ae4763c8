"""The interactive charts of one pair (path, learning curves, layers): pages of a few kilobytes that need no network.

What lies around its path has files of its own: :mod:`~lmc_tune.tracking.directions` and
:mod:`~lmc_tune.tracking.planes`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from math import ceil, floor, fsum, log10
from typing import Any

from lmc_tune.analysis.wording import layer_words
from lmc_tune.tables.columns import Row
from lmc_tune.tables.rows import PairResult
from lmc_tune.tracking.content import is_finite, pair_means, round_means

WIDTH, HEIGHT = 520, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 42


MAX_CURVE_POINTS = 100
# Along the axis of a page of layers.
MAX_TICKS = 12

Curve = list[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The horizontal axis of a panel, from 0 to ``top``.

    ends: what stands at its ends. digits: of a value. label: how a tick is written.
    """

    name: str
    top: float
    ticks: tuple[float, ...]
    ends: tuple[str, str] = ("", "")
    digits: int = 0
    label: str = "%g"

    def pixel(self, value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * value / self.top, 1)


LAMBDA = Axis(name="λ", top=1.0, ticks=(0, 0.25, 0.5, 0.75, 1), ends=("member A", "member B"), digits=3)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve in one panel: values along the axis, their positions in pixels, and the classes of its style."""

    name: str
    style: str
    points: Curve
    pixels: Curve


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One quantity along an axis; ``names``: what is at 1, 2, …, if that has names."""

    title: str
    unit: str
    axis: Axis
    lines: list[Line]
    chord: Curve
    ticks: list[tuple[str, float]]
    names: tuple[str, ...] = ()


def interpolation_page(result: PairResult, title: str) -> str:
    """A self-contained HTML page: error and loss along the path, train and test, with values under the pointer.

    A pair without a path (diverged, failed) gets the page with its status and reason instead.
    """
    panels = path_panels(result.tables.get("paths", []))
    return curves_page(result, title, panels, "" if panels else "No path was measured for this pair.")


def learning_page(result: PairResult, title: str) -> str:
    """A self-contained HTML page: loss and accuracy by epoch, train and test: of both members, or of an ensemble's mean
    member.
    """
    points = result.tables.get("curves", [])
    axis = axis_to(max((point["epoch"] for point in points), default=0.0), "epoch", digits=1)
    return curves_page(result, title, learning_panels(points, axis), "" if points else "No learning curve was kept.")


def rounds_page(result: PairResult, title: str) -> str:
    """A self-contained HTML page: accuracy of a federation's clients by round, on test and on their own examples."""
    means = round_means(result.tables.get("rounds", ()))
    axis = axis_to(max((number for by_round in means.values() for number in by_round), default=0), "round")
    panels = [
        panel_of(
            f"Accuracy {where}, mean over clients",
            "%",
            {
                what: [(number, 100 * value) for number, value in sorted(means.get((what, split), {}).items())]
                for what in ("trained", "averaged", "pooled")
            },
            axis,
        )
        for split, where in (("test", "on the test set"), ("own", "on their own examples"))
    ]
    shown = [panel for panel in panels if panel.lines]
    return curves_page(result, title, shown, "" if shown else "No round was measured.")


def ensemble_page(result: PairResult, title: str) -> str:
    """A self-contained HTML page: accuracy by the number of members, and on the paths between two of them.

    On these, accuracy is less what the members' accuracies would average to: mean, lowest and highest over the pairs.
    """
    sizes, points = result.tables.get("ensembles", ()), result.tables.get("averages", ())
    growing = {"test": [(row["members"], 100 * row["accuracy"]) for row in sizes]}
    along = axis_to(max((row["members"] for row in sizes), default=0), "members")
    panels = [panel_of("Accuracy by number of members", "%", growing, along)]
    pairs = [row for row in points if row["what"] == "pair" and row["split"] == "test"]
    for condition in sorted({row["condition"] for row in pairs}, key=lambda name: (name != "naive", name)):
        curves = pair_means([row for row in pairs if row["condition"] == condition])
        suffix = "" if condition == "naive" else f", {condition}"
        panels.append(panel_of(f"Accuracy gained{suffix} between two members", "pp", curves, LAMBDA))
    shown = [panel for panel in panels if panel.lines]
    return curves_page(result, title, shown, "" if shown else "Nothing was measured of this ensemble.")


def layers_page(result: PairResult, title: str) -> str:
    """A self-contained HTML page: barriers after training of each layer alone, of the first and of the last ones.

    Of members of which only these layers are half-way to the other's, from A and from B.
    """
    rows = [row for row in result.tables.get("layer_barriers", []) if row["epoch"] is None]
    axis = layer_axis(max((row["layers"] for row in rows if row["family"] == "full"), default=1))
    return curves_page(result, title, layer_panels(rows, axis), "" if rows else "No layers were moved alone.")


def layer_panels(rows: Sequence[Row], axis: Axis) -> list[Panel]:
    """Barriers of error and loss, for every condition and family of sets that grows along the network."""
    panels, numbers = [], replace(axis, name="layers moved", label="%g")
    for condition in sorted({row["condition"] for row in rows}, key=lambda name: (name != "naive", name)):
        for family, words in (("single", "each layer alone"), ("shallow", "first layers"), ("deep", "last layers")):
            own = [row for row in rows if row["condition"] == condition and row["family"] == family]
            own.sort(key=_along)
            along = axis if family == "single" else numbers
            names = tuple(dict.fromkeys(_layers_in_words(row) for row in own))
            for quantity, unit, factor in (("error", "%", 100), ("loss", "nats", 1)):
                curves: dict[str, Curve] = {
                    f"{split} {base.upper()}": [
                        (_along(row), factor * row[column])
                        for row in own
                        if row["base"] == base and is_finite(row.get(column))
                    ]
                    for split in ("test", "train")
                    for column in [f"{split}_{quantity}_barrier_midpoint"]
                    for base in ("a", "b")
                }
                suffix = "" if condition == "naive" else f", {condition}"
                panel = panel_of(f"{quantity.capitalize()} barrier (midpoint{suffix}), {words}", unit, curves, along)
                panels.append(replace(panel, names=names))
    return [panel for panel in panels if panel.lines]


def _along(row: Row) -> int:
    """Where a set of layers stands: its place from 1, or how many are moved."""
    place: int = row["position"] + 1 if row["family"] == "single" else row["layers"]
    return place


def _layers_in_words(row: Row) -> str:
    """E.g. ``#3 head``, ``3, up to #3 head``, or ``1, from #3 head``."""
    layer = layer_words(row["position"] + 1, row["moved"])
    before = {"single": "", "shallow": f"{row['layers']}, up to ", "deep": f"{row['layers']}, from "}[row["family"]]
    return f"{before}{layer}"


def axis_to(highest: float, name: str, digits: int = 0) -> Axis:
    """An axis from 0 that includes ``highest``."""
    top, step = scale_of(highest)
    return Axis(name=name, top=top, ticks=tuple(step * at for at in range(round(top / step) + 1)), digits=digits)


def layer_axis(n: int) -> Axis:
    """The places of ``n`` layers, from 1."""
    return Axis(name="layer", top=n, ticks=tuple(range(1, n + 1, ceil(n / MAX_TICKS))), label="#%g")


def curves_page(result: PairResult, title: str, panels: list[Panel], missing: str) -> str:
    """A page of panels; ``missing`` says why there are none."""
    return page_of(
        "curves.html.j2",
        result,
        title,
        panels=panels,
        missing=missing,
        data=[[[line.name, line.points, line.pixels] for line in panel.lines] for panel in panels],
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
        top=TOP,
        bottom=HEIGHT - BOTTOM,
    )


def page_of(template: str, result: PairResult, title: str, **content: Any) -> str:
    """A page from one of the templates beside this file, with the pair's status and its most important numbers."""
    page: str = (
        _templates().get_template(template).render(title=title, row=result.row, facts=_facts(result.row), **content)
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
        panels += [
            panel_of(f"Error{suffix} along the path", "%", errors, LAMBDA, chord_of="test"),
            panel_of(f"Loss{suffix} along the path", "nats", losses, LAMBDA, chord_of="test"),
        ]
    return [panel for panel in panels if panel.lines]


def learning_panels(points: Sequence[Row], axis: Axis) -> list[Panel]:
    """Loss and accuracy during training."""
    panels = []
    for title, quantity, unit, factor in (("Loss", "loss", "nats", 1), ("Accuracy", "accuracy", "%", 100)):
        curves = {
            f"{split} {member.upper()}": [
                (point["epoch"], factor * point[f"{split}_{quantity}"])
                for point in _thinned([point for point in points if point["member"] == member])
                if is_finite(point.get(f"{split}_{quantity}"))
            ]
            for split in ("test", "train")
            for member in ("a", "b")
        } | {
            split: _mean_by_epoch(points, f"{split}_{quantity}", factor)
            for split in ("test", "train")
            if not any(point["member"] == "a" for point in points)
        }
        panels.append(panel_of(f"{title} during training", unit, curves, axis))
    return [panel for panel in panels if panel.lines]


def _mean_by_epoch(points: Sequence[Row], column: str, factor: float) -> Curve:
    """Of an ensemble: the mean over the members that have a point at an epoch, and before that what they share."""
    by_epoch: dict[float, list[float]] = {}
    for point in points:
        if is_finite(point.get(column)):
            by_epoch.setdefault(point["epoch"], []).append(factor * point[column])
    return [(epoch, fsum(values) / len(values)) for epoch, values in sorted(by_epoch.items())]


def _thinned(points: list[Row]) -> list[Row]:
    """In the order of the steps, at most :data:`MAX_CURVE_POINTS`, evenly spaced, the first and the last among them."""
    ordered = sorted(points, key=lambda point: point["step"])
    excess = len(ordered) - 1
    if excess < MAX_CURVE_POINTS:
        return ordered
    return [ordered[round(at * excess / (MAX_CURVE_POINTS - 1))] for at in range(MAX_CURVE_POINTS)]


def _splits(points: Sequence[Row]) -> list[str]:
    return sorted({point["split"] for point in points})


def panel_of(title: str, unit: str, curves: dict[str, Curve], axis: Axis, chord_of: str = "") -> Panel:
    """Curves by name, of which those without a point are left out, and the chord of one of them."""
    values = [value for curve in curves.values() for _, value in curve]
    low = max(0.0, -min(values, default=0.0))  # barriers against whole members may be negative
    top, step = scale_of(max(max(values, default=0.0), low))
    below = ceil(low / step * (1 - 1e-9))

    def pixel(x: float, value: float) -> tuple[float, float]:
        height = (value + below * step) / (top + below * step)
        return axis.pixel(x), round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - height), 1)

    chord = curves.get(chord_of, [])
    count = round(top / step)
    return Panel(
        title=title,
        unit=unit,
        axis=axis,
        lines=[
            Line(
                name=name,
                style=name.lower(),
                points=[(round(x, 5), round(y, 5)) for x, y in curve],
                pixels=[pixel(*point) for point in curve],
            )
            for name, curve in curves.items()
            if curve
        ],
        chord=[pixel(*chord[0]), pixel(*chord[-1])] if len(chord) > 1 else [],
        ticks=[(f"{at * step:.10g}", pixel(0, at * step)[1]) for at in range(-below, count + 1)],
    )


def scale_of(highest: float) -> tuple[float, float]:
    """Top of an axis from 0 that includes ``highest``, and the distance of its ticks, 1, 2 or 5 times a power of 10."""
    rough = max(highest, 1e-6) / 4
    power = 10 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return ceil(max(highest, 1e-6) / step * (1 - 1e-9)) * step, step


def _facts(row: Row) -> list[tuple[str, str]]:
    """The most important numbers; those that were not measured are left out."""
    shown = [
        ("test error barrier (chord)", "test_error_barrier_chord", 100, " %"),
        ("at λ", "barrier_lambda", 1, ""),
        ("test loss barrier (chord)", "test_loss_barrier_chord", 1, " nats"),
        ("test accuracy A", "test_accuracy_a", 100, " %"),
        ("test accuracy B", "test_accuracy_b", 100, " %"),
        ("disagreement", "disagreement", 100, " %"),
        ("clients, test accuracy", "clients_test_accuracy", 100, " %"),
        ("average, test accuracy", "pooled_test_accuracy", 100, " %"),
        ("mean member, test accuracy", "member_accuracy", 100, " %"),
        ("ensemble, test accuracy", "ensemble_accuracy", 100, " %"),
        ("connectivity q̄", "connectivity", 1, " pp"),
    ]
    return [
        (name, f"{factor * row[column]:.3g}{unit}")
        for name, column, factor, unit in shown
        if is_finite(row.get(column))
    ]


@cache
def _templates() -> Any:
    from jinja2 import Environment, FunctionLoader  # noqa: PLC0415 - only where a page is made

    here = files("lmc_tune.tracking")
    loader = FunctionLoader(lambda name: here.joinpath(name).read_text(encoding="utf-8"))
    return Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
