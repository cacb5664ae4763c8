"""How the report says things: numbers, barriers, axes and cells in a few words. One place, so that they agree."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from lmc_tune.core.statistics import Verdict
from lmc_tune.experiment import VerdictSpec
from lmc_tune.tables.columns import B_COLUMNS, RESULTS
from lmc_tune.tables.rows import shift_label, split_label

# What stands in a cell beside its colour, so that the verdict reads in grey and to the colour-blind.
LETTERS: dict[Verdict, str] = {
    "connected": "C",
    "disconnected": "D",
    "undecided": "?",
    "undertrained": "U",
    "diverged": "×",
}

UNKNOWN = "–"
# What null says in a column of the spec, where it says something.
UNSET = {
    "train_examples": "all",
    "test_examples": "all",
    **dict.fromkeys(B_COLUMNS.values(), "as A"),
    **dict.fromkeys(("perturb_step", "perturb_scale", "perturb_weights"), "none"),
    "client_norm": "averaged",
}

# Beside layers that are named as in :func:`layer_words`.
LAYER_PLACES = "#1 is the layer nearest to the input."

# What is said of a text without the title of its column.
_NAMED = {"optimizer": "{}", "averaged_layers": "averaged: {}", "client_norm": "norms {}"}

# Percentage points. Hepburn et al. 2025 draw this guide in their Fig. 4: an interpolated network that loses more is no
# longer a good one.
SMALL_DIFFERENCE = -5.0


def number(value: Any) -> str:
    """Three significant digits; whole numbers in full; an en dash for what is not known."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if float(value).is_integer() and abs(value) < 1e6:
        return f"{int(value)}".replace("-", "−")
    return f"{value:.3g}".replace("-", "−")


def percent(value: Any, digits: int = 1) -> str:
    """A fraction as a percentage."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    rounded = round(100 * value, digits) + 0.0  # no −0
    return f"{rounded:.{digits}f}%".replace("-", "−")


def percentage_points(value: Any, digits: int = 1) -> str:
    """Percentage points with their sign."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")  # no −0.0


def nats(value: Any) -> str:
    """A loss in nats, without its unit."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{round(value, 3) + 0.0:.3f}".replace("-", "−")


def perplexity(loss: Any) -> str:
    """The perplexity that a mean loss per token, in nats, comes to: e to the loss."""
    return UNKNOWN if loss is None or not math.isfinite(loss) else f"{math.exp(loss):.4g}"


def height(value: Any, verdict: VerdictSpec, digits: int = 1) -> str:
    """A barrier in the unit of the judged curve: percent for errors, with digits after the point; nats for losses."""
    if verdict.quantity == "error":
        return percent(value, digits)
    return f"{number(value)} nats" if number(value) != UNKNOWN else UNKNOWN


def threshold(verdict: VerdictSpec) -> str:
    """The threshold as it was given, e.g. ``0.05%`` or ``0.1 nats``: unlike measured barriers, it is not rounded."""
    return f"{100 * verdict.threshold:.12g}%" if verdict.quantity == "error" else f"{verdict.threshold:.12g} nats"


def gate(verdict: VerdictSpec) -> str:
    """The least train accuracy as it was given, e.g. ``87.5%``."""
    return f"{100 * verdict.min_train_accuracy:.12g}%"


def interval(low: float, high: float, verdict: VerdictSpec) -> str:
    """An interval of the mean barrier, e.g. ``9.1 to 15.0%``, or that there is none.

    A bound that is not the threshold has as many digits as tell it from the threshold.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return "no interval"
    digits, most, limit = 1, 4, verdict.threshold
    while digits < most and any(
        bound != limit and percent(bound, digits) == percent(limit, digits) for bound in (low, high)
    ):
        digits += 1
    return f"{height(low, verdict, digits).removesuffix('%').removesuffix(' nats')} to {height(high, verdict, digits)}"


def verdict_words(cell: Mapping[Any, Any]) -> str:
    """A cell's verdict, or both where its splits say the opposite: ``connected on test, disconnected on train``."""
    if cell["split_apart"]:
        return f"{cell['on_test']} on test, {cell['on_train']} on train"
    return str(cell["verdict"])


def left_out(row: Mapping[Any, Any]) -> str:
    """The pairs of a cell that its mean leaves out, by status, e.g. ``2 diverged, 1 failed``."""
    parts = [
        f"{row[f'n_{status}']} {status}" for status in ("undertrained", "diverged", "failed") if row[f"n_{status}"]
    ]
    if row["n_without_barrier"]:
        parts.append(f"{row['n_without_barrier']} without a finite barrier")
    return ", ".join(parts) or "none"


def confidence(verdict: VerdictSpec) -> str:
    """The confidence level, e.g. ``95%``."""
    return f"{100 * verdict.confidence:g}%"


def quantity(verdict: VerdictSpec) -> str:
    """What is judged, e.g. ``test error``."""
    return verdict.of.replace("_", " ")


def axis_title(column: str, of_a: Collection[str] = ()) -> str:
    """What a column of the results holds, e.g. ``learning rate``; ``learning rate of A`` if it is in ``of_a``."""
    title = RESULTS[column].title
    return f"{title} of A" if column in of_a else title


def setting(column: str, value: Any, of_a: Collection[str] = ()) -> str:
    """One field of a spec, e.g. ``batch norm`` or ``learning rate 0.03``; of A alone if it is in ``of_a``."""
    title = axis_title(column, of_a)
    if column == "normalise":
        return "normalised inputs" if value else "raw inputs"
    if column == "norm" and isinstance(value, str):
        return "no norm" if value == "none" else f"{value} norm"
    if column in _NAMED:
        return _NAMED[column].format(value if isinstance(value, str) else UNSET.get(column, UNKNOWN))
    if isinstance(value, bool):
        return title if value else f"no {title}"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return f"{title} {UNSET.get(column, UNKNOWN)}"
    return f"{title} {value:g}" if isinstance(value, float) else f"{title} {value}"


def shift_words(row: Mapping[Any, Any], *, severity_is_axis: bool) -> str:
    """The shift of a row of results, e.g. ``label 80/20``; its kind alone where the severity is on an axis."""
    kind, skew = row["shift"], row["skew"] or None
    if severity_is_axis:
        if kind == "domain":
            return str(row["domain"])
        return f"{kind} {skew}" if skew not in (None, "ratio") else str(kind)
    label = shift_label(dict(row))
    return "no shift" if label == "none" else label


def split_words(row: Mapping[Any, Any], *, concentration_is_axis: bool) -> str:
    """How clients share the data, e.g. ``dirichlet 0.01``; the kind alone where the concentration is an axis."""
    return str(row["client_split"]) if concentration_is_axis else split_label(row)


def layer_words(place: int, name: str) -> str:
    """A layer by its place from the input and its name.

    Names may be numbers as well: layers of ``nn.Sequential`` are called 0, 2, 4, …

    Args:
        place: from 1.
        name: that of its module; empty for the network's own parameters.

    Example:
        >>> layer_words(2, "linear2"), layer_words(3, "4"), layer_words(1, "")
        ('#2 linear2', '#3 4', '#1 (network)')
    """
    return f"#{place} {name or '(network)'}"


def listed(parts: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
