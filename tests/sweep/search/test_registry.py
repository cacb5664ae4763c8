"""Names of searches."""

from typing import get_args

from lmc_tune.sweep.search import SearchName
from lmc_tune.sweep.search.registry import SEARCHES


def test_every_name_has_a_search() -> None:
    assert set(SEARCHES) == set(get_args(SearchName))
