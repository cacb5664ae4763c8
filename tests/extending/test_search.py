"""A search of one's own is held to the contract of all searches."""

from tests.extending.by_chance import by_chance
from tests.sweeps.search.contract import SearchContract


class TestByChance(SearchContract):
    search = by_chance
