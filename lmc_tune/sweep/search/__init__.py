"""Which pairs are worth running: pure functions of a space and of the results for its cells."""

from typing import Literal

# What ``--search`` takes; ``registry`` says which search has which name.
SearchName = Literal["grid", "adaptive"]
