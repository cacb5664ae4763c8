import pytest

from lmc_tune.core.duration import in_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (1e6, "277.8 h")],
)
def test_a_duration_is_said_in_the_unit_that_suits_it(seconds, words):
    assert in_words(seconds) == words
