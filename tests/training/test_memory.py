import pytest

from lmc_tune.training.memory import even_share, members_that_fit


@pytest.mark.parametrize(
    ("members", "base", "each", "free", "fit"),
    [
        (100, 50, 10, 2500, 95),  # 40 % of what is free
        (100, 0, 10, 10**6, 100),
        (100, 0, 10, 1, 1),
        (5, 0, 10, 1, 5),  # too few to be worth a look
    ],
)
def test_the_memory_that_small_stacks_take_says_how_many_fit(members, base, each, free, fit):
    assert members_that_fit(members, lambda n: base + each * n, free) == fit


@pytest.mark.parametrize(
    ("members", "most", "share"), [(10, 10, 10), (10, 9, 6), (10, 4, 4), (10, 3, 2), (10, 1, 1), (4, 5, 4)]
)
def test_the_two_of_a_pair_are_never_parted(members, most, share):
    assert even_share(members, most) == share
