"""Numbers of things in words."""


def counted(n: int, noun: str) -> str:
    """E.g. ``1 cell`` and ``2 cells``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
