"""Numbers in words, the same in answer, terminal and page."""

import math

from lmc_tune.analysis.wording import UNKNOWN
from lmc_tune.averaging.judging import LOSS_PART, Judging


def plain_number(value: float | None, digits: int = 4) -> str:
    """Significant digits, with a minus sign and signs for what is infinite or not known."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value + 0.0:.{digits}g}".replace("-", "−")


def percentage(value: float | None, digits: int = 2) -> str:
    """A fraction as a percentage."""
    if value is None or not math.isfinite(value):
        return plain_number(value)
    return f"{round(100 * value, digits) + 0.0:.{digits}f}%".replace("-", "−")


def decimals(value: float | None, digits: int = 4) -> str:
    """So many digits after the point."""
    if value is None or not math.isfinite(value):
        return plain_number(value)
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def height(value: float | None, judging: Judging, digits: int = 2) -> str:
    """A value of the judged quantity: a percentage of errors, else the loss without its unit."""
    return percentage(value, digits) if judging.quantity == "error" else plain_number(value)


def quantity_name(judging: Judging, metric: str) -> str:
    """What is judged: the error, or a loss by the name of its metric."""
    return "error" if judging.quantity == "error" else metric


def threshold_words(judging: Judging) -> str:
    """E.g. ``threshold 2.00%``."""
    part = f", {100 * LOSS_PART:g}% of the mean loss; other quantities are not judged" if judging.relative else ""
    return f"threshold {height(judging.threshold, judging)}{part}"


def bounds(low: float, high: float, judging: Judging) -> str:
    """An interval of the judged quantity."""
    return f"{height(low, judging)} to {height(high, judging)}"
