"""What was found around checkpoints, in words and as tables, the same in terminal and page."""

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from lmc_tune.analysis.wording import LAYER_PLACES, layer_words, listed
from lmc_tune.averaging.judging import Judging
from lmc_tune.averaging.surroundings import Contrast, DirectionFindings, PlaneFindings, PlanePoint
from lmc_tune.averaging.wording import bounds, decimals, height, plain_number
from lmc_tune.measurement.planes import GRID

# What the intervals of differences say together.
Sign = Literal["lower", "higher", "both", "alike", "unknown"]
_SPECIAL: dict[Sign, str] = {
    "lower": "is special",
    "higher": "is worse than random directions",
    "both": "is better than random directions at one length and worse at another",
    "alike": "is no different from random directions, as far as these examples show",
    "unknown": "cannot be compared",
}
_FLAT: dict[Sign, str] = {
    "lower": "flatter than",
    "higher": "sharper than",
    "both": "flatter and sharper than",
    "alike": "no different, as far as these examples show, from",
    "unknown": "not comparable with",
}
_Lead = Callable[[DirectionFindings, str], str]
_Rows = Callable[[DirectionFindings, Judging], list[dict[str, str]]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A table of the directions, of text: name, title, and what its columns are."""

    name: Literal["layerwise", "whole", "sharpness"]
    title: str
    lead: str
    rows: list[dict[str, str]]


def direction_parts(found: DirectionFindings, judging: Judging, what: str) -> list[Part]:
    """The tables of what was asked for."""
    known: tuple[tuple[Literal["layerwise", "whole", "sharpness"], str, _Lead, _Rows], ...] = (
        ("layerwise", "Is the direction special? Layer by layer", _layer_lead, _layer_rows),
        ("whole", "Is the direction special? All weights", _whole_lead, _whole_rows),
        ("sharpness", "Sharpness", _sharpness_lead, _sharpness_rows),
    )
    made = ((name, title, lead, rows(found, judging)) for name, title, lead, rows in known)
    return [Part(name=name, title=title, lead=lead(found, what), rows=rows) for name, title, lead, rows in made if rows]


def direction_sentences(found: DirectionFindings, judging: Judging, what: str, unit: str) -> list[str]:
    """Whether the way to the other member is special, and whether the midpoint is flatter than the members.

    Args:
        found: the numbers.
        judging: what they are of.
        what: the judged quantity in words. unit: of a loss.
    """

    def compared(of: Contrast, one: str, other: str) -> str:
        said = f"by {height(of.one, judging)}{one} and by {height(of.other, judging)}{other}"
        return f"{said}{_apart(of, judging, unit)}"

    label, sentences = found.condition.label, []
    ways = " towards the other member", " in random directions"
    if found.layerwise:
        first, *others = found.layerwise
        steps = [
            f"a step of {first.alpha:g} of a layer's distance changes the {what} {compared(first, *ways)}",
            *(f"a step of {one.alpha:g} {compared(one, '', '')}" for one in others),
        ]
        special = _SPECIAL[_sign(*found.layerwise)]
        sentences.append(f"{label}: layer by layer, the way to the other member {special}: {'; '.join(steps)}")
    if found.whole:
        last = found.whole[-1]
        sentences.append(
            f"{label}: of all weights together, the way to the other member {_SPECIAL[_sign(last)]}: a step "
            f"of {last.alpha:g} of their distance changes the {what} {compared(last, *ways)}"
        )
    if found.curvatures:
        sentences.append(f"{label}: the largest eigenvalue of the Hessian is {_eigenvalues(found)}")
    if found.filterwise:
        last = found.filterwise[-1]
        sentences.append(
            f"{label}: by noise, the midpoint is {_FLAT[_sign(last)]} the members: {last.alpha:g} of every "
            f"filter's length changes the {what} {compared(last, ' there', ' at the members')}"
        )
    return sentences


def _sign(*found: Contrast) -> Sign:
    """Of the differences whose intervals leave out 0."""
    if any(math.isnan(one.apart.mean) for one in found):
        return "unknown"
    lower, higher = any(one.apart.high < 0 for one in found), any(one.apart.low > 0 for one in found)
    if lower and higher:
        return "both"
    return "lower" if lower else "higher" if higher else "alike"


def _apart(found: Contrast, judging: Judging, unit: str) -> str:
    """E.g. ``: 0.49 points lower (0.01 to 0.96)``."""
    apart, sign = found.apart, _sign(found)
    if sign not in {"lower", "higher"}:
        return ""

    def amount(value: float) -> str:
        return decimals(100 * abs(value), 2) if judging.quantity == "error" else plain_number(abs(value))

    low, high = sorted((apart.low, apart.high), key=abs)
    word = f"{'points' if judging.quantity == 'error' else unit} {sign}".strip()
    return f": {amount(apart.mean)} {word} ({amount(low)} to {amount(high)})"


def _eigenvalues(found: DirectionFindings) -> str:
    a, middle, b = (one.eigenvalue for one in found.curvatures)
    at_ends = f"{plain_number(a, 3)} at A, {plain_number(b, 3)} at B"
    said = f"{plain_number(middle, 3)} at the midpoint, {at_ends}"
    if math.isnan(a + middle + b):
        return said
    where = "is flatter than both" if middle < min(a, b) else "is sharper than both" if middle > max(a, b) else ""
    return f"{said}: the midpoint {where or 'lies between them'}"


def plane_sentence(found: PlaneFindings, judging: Judging, what: str) -> str:
    """Where the grid is lowest, and how high it rises between the three."""

    def value(one: PlanePoint) -> float:
        return one.means["test", judging.quantity]

    known = [one for one in found.grid if not math.isnan(value(one))]
    within = [one for one in known if min(one.weights) >= 0]
    plane = f"{found.condition.label}: of {len(found.grid)} points on the plane through {listed(list(found.through))},"
    if not known:
        return f"{plane} the {what} is not known at any"
    lowest = min(known, key=value)
    weights = (round(weight, 2) for weight in lowest.weights)
    mixed = " ".join(
        f"{'−' if weight < 0 else '+'} {abs(weight):.2f} {name}"
        for name, weight in zip(found.through, weights, strict=True)
    )
    said = f"{plane} the {what} is lowest at {mixed.removeprefix('+ ')}: {height(value(lowest), judging)}"
    return f"{said}; between the three it is at most {height(max(map(value, within)), judging)}" if within else said


def steps_table(found: DirectionFindings, judging: Judging) -> pd.DataFrame:
    """A row per kind, point, layer and length: ``rise``, ``low`` and ``high`` of the judged quantity on the test
    examples over ``draws``; columns otherwise as in the table of directions of a sweep. The position is -1, and the
    layer empty, where all weights move.
    """
    rows = []
    for one in found.steps:
        rise = one.rises["test", judging.quantity]
        rows.append(
            {
                "kind": one.kind,
                "lambda": one.lambda_,
                "layer": one.layer or "",
                "position": -1 if one.position is None else one.position,
                "alpha": one.alpha,
                "norm": one.norm,
                "draws": one.draws,
                "rise": rise.mean,
                "low": rise.low,
                "high": rise.high,
            }
        )
    return pd.DataFrame(rows)


def of_layers(found: DirectionFindings, judging: Judging) -> pd.DataFrame:
    """Those of single layers: means of both members, also of their lowest and of their highest draws."""
    steps = steps_table(found, judging)
    own = steps[steps["position"] >= 0].groupby(["position", "layer", "alpha", "kind"], as_index=False)
    return own.agg({"rise": "mean", "low": "mean", "high": "mean", "norm": "first", "draws": "first"})


def plane_rows(found: PlaneFindings, judging: Judging, what: str) -> list[dict[str, str]]:
    """A row for each of the three points."""
    named = [one for one in found.points if one.point != GRID]
    return [
        {
            "point": one.point,
            "x": plain_number(one.x),
            "y": plain_number(one.y),
            what: height(one.means["test", judging.quantity], judging),
        }
        for one in named
    ]


def _layer_lead(found: DirectionFindings, what: str) -> str:
    """What the columns of :func:`_layer_rows` are."""
    draws = next(one.draws for one in found.steps if one.kind == "random")
    return (
        f"{found.condition.label}: by how much the {what} on test examples rises above a member where a layer alone "
        f"moves by α of its distance ‖A − B‖, towards the other member, or in random directions; means of "
        f"both members. In brackets: the lowest and the highest of {draws} draws, likewise. {LAYER_PLACES}"
    )


def _layer_rows(found: DirectionFindings, judging: Judging) -> list[dict[str, str]]:
    """A row per layer, in the order of the data: steps towards the other member, and at random."""
    rows = []
    for (_, layer), own in of_layers(found, judging).groupby(["position", "layer"]):
        place = own["position"].iloc[0] + 1
        distance = float((own["norm"] / own["alpha"]).iloc[0])
        row = {"layer": layer_words(place, str(layer)), "distance": plain_number(distance, 3)}
        for one in own.sort_values(["alpha", "kind"]).to_dict("records"):  # interpolation comes before random
            to = "to the other" if one["kind"] == "interpolation" else "random"
            row[f"{to}, α = {one['alpha']:g}"] = _rise(one, judging)
        rows.append(row)
    return rows


def _whole_lead(found: DirectionFindings, what: str) -> str:
    """What the columns of :func:`_whole_rows` are."""
    return (
        f"{found.condition.label}: by how much the {what} rises above that of a point of the path where all weights "
        f"move from there, by a part of ‖A − B‖: along the path, or in random directions."
    )


def _whole_rows(found: DirectionFindings, judging: Judging) -> list[dict[str, str]]:
    """A row per point and length: steps of all weights along the path, and at random."""
    kinds = {"towards a": "towards A", "towards b": "towards B", "isotropic": "random"}
    steps = steps_table(found, judging)
    steps = steps[steps["kind"].isin(kinds)]
    rows = []
    for (lambda_, alpha), own in steps.groupby(["lambda", "alpha"]):
        known = own.set_index("kind").to_dict("index")
        row = {"from": place_name(lambda_), "by": f"{alpha:g}"}
        rows.append(row | {title: _rise(known[kind], judging) for kind, title in kinds.items() if kind in known})
    return rows


def _sharpness_lead(found: DirectionFindings, what: str) -> str:
    """What the columns of :func:`_sharpness_rows` are."""
    examples = f" on {found.curvatures[0].examples} examples" if found.curvatures else ""
    return (
        f"{found.condition.label}: the largest eigenvalue of the Hessian of the loss{examples}, and by how much the "
        f"{what} on test examples rises in random directions of so many lengths of every filter. In brackets: the "
        f"lowest and the highest draw."
    )


def _sharpness_rows(found: DirectionFindings, judging: Judging) -> list[dict[str, str]]:
    """A row for A, the midpoint and B."""
    steps = steps_table(found, judging)
    values = {one.lambda_: one.eigenvalue for one in found.curvatures}
    rows = []
    for lambda_, own in steps[steps["kind"] == "filter"].groupby("lambda"):
        row = {"at": place_name(lambda_), "eigenvalue": plain_number(values.get(own["lambda"].iloc[0]), 3)}
        rows.append(row | {f"by {one['alpha']:g}": _rise(one, judging) for one in own.to_dict("records")})
    return rows


def place_name(lambda_: Any) -> str:
    """A point of the path, as tables call it."""
    return {0.0: "A", 0.5: "midpoint", 1.0: "B"}.get(lambda_, f"λ = {lambda_:g}")


def _rise(row: Mapping[Hashable, Any], judging: Judging) -> str:
    """E.g. ``0.80% (0.28% to 1.39%)``; of one draw the first alone."""
    said = height(row["rise"], judging)
    return said if row["draws"] == 1 else f"{said} ({bounds(row['low'], row['high'], judging)})"
