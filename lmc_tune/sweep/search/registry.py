"""The searches by their names."""

from lmc_tune.sweep.search import SearchName
from lmc_tune.sweep.search.coarse_to_fine import coarse_to_fine
from lmc_tune.sweep.search.grid import grid
from lmc_tune.sweep.search.propose import Search

SEARCHES: dict[SearchName, Search] = {"grid": grid, "adaptive": coarse_to_fine}
