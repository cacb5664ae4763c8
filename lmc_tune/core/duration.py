"""Durations in words."""


def in_words(seconds: float) -> str:
    """A duration in the unit that suits it, rounded: ``40 s``, ``5 min``, ``1.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
