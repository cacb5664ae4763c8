"""Ranges of an axis: equally spaced values, and what becomes of them with another number of steps."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Literal, get_args

import numpy as np

Spacing = Literal["linear", "log"]
SPACINGS: tuple[Spacing, ...] = get_args(Spacing)


def spaced(kind: Spacing, bounds: Sequence[float], steps: int) -> list[Any]:
    """``steps`` values from the first bound to the second; whole numbers if all values and the bounds are.

    Args:
        kind: equal differences, or equal ratios of bounds above 0.
        bounds: two finite numbers.
        steps: at least 2.
    """
    low, high = bounds
    values = np.geomspace(low, high, steps) if kind == "log" else np.linspace(low, high, steps)
    # Six digits: the same text, and so the same key, whatever the platform's pow() does to the last bits.
    rounded = [float(f"{value:.6g}") for value in values]
    whole = all(value.is_integer() for value in rounded) and all(isinstance(bound, int) for bound in bounds)
    return [int(value) for value in rounded] if whole else rounded


def nested_steps(before: Sequence[Any], now: Sequence[Any]) -> int | None:
    """The fewest steps, at least as many as now, of a range that keeps all values of an earlier one.

    None unless both are ranges of one kind between the same bounds, and the present one lacks values of the earlier.
    """
    numbers = all(isinstance(value, int | float) for value in (*before, *now))
    if not numbers or min(len(before), len(now)) < 2 or set(before) <= set(now):
        return None
    bounds = before[0], before[-1]
    steps = ceil((len(now) - 1) / (len(before) - 1)) * (len(before) - 1) + 1
    for kind in SPACINGS:
        possible = kind == "linear" or min(bounds) > 0
        if possible and all(spaced(kind, bounds, len(values)) == list(values) for values in (before, now)):
            return steps if set(before) <= set(spaced(kind, bounds, steps)) else None
    return None


def moved(before: Mapping[str, Sequence[Any]], now: Mapping[str, Sequence[Any]]) -> str:
    """That other steps moved the values of axes, and how many keep the earlier ones; empty if none was moved.

    Args:
        before, now: the values of the axes by name, of the space as it was and as it is.
    """
    steps = {axis: nested_steps(before[axis], values) for axis, values in now.items() if axis in before}
    return "; ".join(
        f"axes.{axis} now has {len(now[axis])} steps in place of {len(before[axis])}, which moves the values between "
        f"its bounds; with steps: {enough} all earlier values stay"
        for axis, enough in steps.items()
        if enough
    )
