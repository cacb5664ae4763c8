"""The picture of docs/diagonal.md: ``python -m lmc_tune.analysis.diagonal`` writes docs/diagonal.png."""

import sys
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd

from lmc_tune.core.diagonal_network import MOVED, loss

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "diagonal.png"
A, B = 0.5, 4.0
_WEIGHTS = np.linspace(0.05, 4.5, 70)
_LAMBDAS = np.linspace(0, 1, 41)
_OTHERS = np.geomspace(0.125, 8, 61)
# Okabe and Ito's colours, which can be told apart without colour vision.
_COLOURS = ["#000000", "#D55E00", "#0072B2", "#E69F00", "#56B4E9"]
_SIDE = 260
# Losses of 0 and of 25 in one panel.
_SQUEEZED = alt.Scale(type="symlog", constant=0.1)


def surface() -> pd.DataFrame:
    """The loss over both weights, at most 10, since the colours end there."""
    one, two = np.meshgrid(_WEIGHTS, _WEIGHTS)
    return pd.DataFrame(
        {"w₁": one.ravel(), "w₂": two.ravel(), "loss": np.minimum(10, 0.5 * (one * two - 1).ravel() ** 2)}
    )


def paths() -> pd.DataFrame:
    """Where the networks of each path are."""
    ends = {"A": (A, 1 / A), "B": (B, 1 / B)}
    rows = []
    for moved in MOVED:
        base, other = (ends[name] for name in (("B", "A") if moved.endswith("B") else ("A", "B")))
        for at in _LAMBDAS:
            weights = [
                (1 - at) * base[layer] + at * other[layer]
                if moved == "full" or f"layer {layer + 1}" in moved
                else base[layer]
                for layer in (0, 1)
            ]
            rows.append({"moved": moved, "λ": at, "w₁": weights[0], "w₂": weights[1]})
    return pd.DataFrame(rows)


def curves() -> pd.DataFrame:
    """The loss along each path."""
    return pd.concat(
        [pd.DataFrame({"moved": moved, "λ": _LAMBDAS, "loss": loss(moved, A, B, _LAMBDAS)}) for moved in MOVED]
    )


def half_way() -> pd.DataFrame:
    """The loss at λ = ½ from A, for other B."""
    return pd.DataFrame(
        [{"moved": moved, "b": b, "loss": float(loss(moved, A, float(b), 0.5))} for moved in MOVED[:3] for b in _OTHERS]
    )


def picture() -> alt.HConcatChart:
    """The three panels."""
    panels = {"Loss over the weights": _surface(), "Loss along the paths": _along(), "Loss half-way": _half_way()}
    found: alt.HConcatChart = alt.hconcat(
        *(panel.properties(width=_SIDE, height=_SIDE, title=title) for title, panel in panels.items()), spacing=40
    ).resolve_scale(color="independent")
    return found


def _surface() -> alt.LayerChart:
    cell = 1.1 * (_WEIGHTS[1] - _WEIGHTS[0])  # cells overlap, or their borders would be seen
    ground = surface().assign(right=lambda frame: frame["w₁"] + cell, above=lambda frame: frame["w₂"] + cell)
    members = pd.DataFrame({"w₁": [A, B], "w₂": [1 / A, 1 / B], "name": ["A", "B"]})
    first, second = (alt.Axis(title=name, titleFont="sans-serif") for name in ("w₁", "w₂"))
    limits = alt.Scale(domain=[0, 4.5], nice=False)
    x, y = alt.X("w₁:Q", axis=first, scale=limits), alt.Y("w₂:Q", axis=second, scale=limits)
    shade = alt.Scale(scheme="greys", type="sqrt", domain=[0, 10])
    legend = alt.Legend(orient="bottom", title="loss (10 and above: black)", gradientLength=_SIDE)
    found: alt.LayerChart = alt.layer(
        alt.Chart(ground)
        .mark_rect(clip=True)
        .encode(x, y, x2="right", y2="above", color=alt.Color("loss:Q", scale=shade, legend=legend)),
        alt.Chart(paths()).mark_line(strokeWidth=3).encode(x, y, color=_colour(), order="λ:Q"),
        alt.Chart(members).mark_point(filled=True, size=60, color="black").encode(x, y),
        alt.Chart(members).mark_text(dx=10, dy=-8, fontSize=14, fontWeight="bold").encode(x, y, text="name"),
    ).resolve_scale(color="independent")
    return found


def _along() -> alt.Chart:
    legend = alt.Legend(orient="bottom", columns=2, title=None)
    dashes = alt.StrokeDash("moved:N", sort=list(MOVED), legend=None)
    found: alt.Chart = (
        alt.Chart(curves())
        .mark_line(strokeWidth=2)
        .encode(
            x="λ:Q", y=alt.Y("loss:Q", title="loss (symlog)", scale=_SQUEEZED), color=_colour(legend), strokeDash=dashes
        )
    )
    return found


def _half_way() -> alt.Chart:
    b = alt.X("b:Q", scale=alt.Scale(type="log"), title="b, for a = ½")
    height = alt.Y("loss:Q", title="loss at λ = ½ (symlog)", scale=_SQUEEZED)
    found: alt.Chart = alt.Chart(half_way()).mark_line(strokeWidth=2).encode(x=b, y=height, color=_colour())
    return found


def _colour(legend: alt.Legend | None = None) -> alt.Color:
    return alt.Color("moved:N", sort=list(MOVED), scale=alt.Scale(domain=list(MOVED), range=_COLOURS), legend=legend)


def main() -> None:
    picture().save(PICTURE, ppi=144)
    sys.stdout.write(f"written to {PICTURE}\n")


if __name__ == "__main__":
    main()
