"""From values of examples to verdicts and differences."""

import numpy as np
import pytest
from scipy import stats

from lmc_tune.averaging.judging import Judging, difference, has_learned, judge, judging_of
from lmc_tune.averaging.paths import Curve
from lmc_tune.core.barrier import path_grid
from lmc_tune.errors import UserError
from tests.averaging.cases import curve
from tests.oracles import barrier_heights

ERROR = Judging(quantity="error", threshold=0.02)


@pytest.mark.parametrize(
    ("height", "n", "verdict"),
    [(0.0, 2000, "connected"), (0.2, 2000, "disconnected"), (0.02, 2000, "undecided"), (0.0, 50, "undecided")],
)
def test_the_whole_interval_decides(height, n, verdict):
    """Of 50 examples, not even a flat path is known to be flat: one example is 2%."""
    judged = judge(curve(height, n), ERROR)
    assert judged.verdict == verdict
    assert judged.low <= judged.barrier <= judged.high


def test_the_barrier_is_that_of_the_mean_curve():
    one = curve(0.1, ends=(0.05, 0.2))
    heights = barrier_heights(one.lambdas.tolist(), one.values.mean(axis=0).tolist())
    assert judge(one, ERROR).barrier == pytest.approx(heights["chord"], abs=1e-12)
    assert {name: found.height for name, found in one.barriers().items()} == pytest.approx(heights, abs=1e-12)


def test_a_curve_that_is_not_finite_inside_is_disconnected():
    values = np.zeros((100, 11))
    values[3, 5] = np.inf
    judged = judge(Curve(lambdas=path_grid(11), values=values), Judging(quantity="loss", threshold=0.1))
    assert (judged.verdict, judged.barrier, judged.band) == ("disconnected", np.inf, None)


def test_a_difference_is_that_of_a_paired_test():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 40))
    found, known = difference(one, other, 0.9), stats.ttest_rel(one, other).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-12)
    assert found.mean == pytest.approx((one - other).mean(), abs=1e-12)


def test_thresholds_without_a_choice_of_the_user():
    assert judging_of("error", 0.3, None, 0.95).threshold == 0.02
    assert judging_of("loss", 0.3, None, 0.95).threshold == pytest.approx(0.015)
    assert judging_of("loss", 0.3, 0.1, 0.95).threshold == 0.1


def test_a_network_has_learned_if_it_beats_the_most_frequent_class():
    labels = np.array([0] * 60 + [1] * 40)
    assert not has_learned((labels != 0).astype(float), labels)
    assert not has_learned((labels != 1).astype(float), labels)
    good = np.zeros(100)
    good[:10] = 1
    assert has_learned(good, labels)
    assert has_learned(good[:5], labels[:5]) is None  # too few to know
    assert has_learned(np.zeros(50), np.zeros(50, int)) is None  # of one class
    assert has_learned(np.ones(100), labels) is False


def test_losses_of_few_examples_are_undecided():
    few = Curve(lambdas=path_grid(3), values=np.zeros((29, 3)))
    assert judge(few, Judging(quantity="loss", threshold=0.1)).verdict == "undecided"
    enough = Curve(lambdas=path_grid(3), values=np.zeros((30, 3)))
    assert judge(enough, Judging(quantity="loss", threshold=0.1)).verdict == "connected"


def test_a_mean_loss_of_which_no_part_is_a_threshold_asks_for_one():
    for mean in (0.0, -0.3):
        with pytest.raises(UserError, match="so that no part of it is a threshold; give one"):
            judging_of("loss", mean, None, 0.95)
    assert judging_of("loss", -0.3, 0.1, 0.95).threshold == 0.1
    with pytest.raises(UserError, match=r"threshold 2 is no error: errors are fractions, so write 0\.02 for 2%"):
        judging_of("error", 0.3, 2, 0.95)
