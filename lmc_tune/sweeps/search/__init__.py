"""Which pairs are worth running: pure functions of a space and of the results for its cells."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from lmc_tune.sweeps.search.propose import Search

# What ``--search`` takes.
SearchName = Literal["grid", "adaptive"]


def search_named(name: SearchName) -> "Search":
    """The search of a name. Searches are imported here, so that the command line knows their names at once."""
    from lmc_tune.sweeps.search.coarse_to_fine import coarse_to_fine  # noqa: PLC0415
    from lmc_tune.sweeps.search.grid import grid  # noqa: PLC0415

    searches: dict[SearchName, Search] = {"grid": grid, "adaptive": coarse_to_fine}
    return searches[name]
