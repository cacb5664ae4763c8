"""The page of columns is the list's."""

from lmc_tune.tables.columns_page import PAGE, columns_page


def test_the_page_is_written_from_the_lists() -> None:
    assert PAGE.read_text(encoding="utf-8") == columns_page(), "run: python -m lmc_tune.tables.columns_page"
