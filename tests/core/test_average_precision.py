import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from lmc_tune.core.average_precision import mean_average_precision
from tests import oracles


def test_values_by_hand():
    # Label 0: yes, no, yes in falling order: ½ · 1 + ½ · ⅔. Label 1: one threshold for all, precision ⅔. Label 2 is
    # first. No example has label 3.
    scores = [[0.9, 0.5, 3, 1], [0.8, 0.5, 2, 2], [0.7, 0.5, 1, 3]]
    labels = [[1, 1, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]]
    assert mean_average_precision(scores, labels) == pytest.approx((5 / 6 + 2 / 3 + 1) / 3)


@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 1000))
def test_it_is_the_definition_label_by_label(n, each, seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(5, size=(n, each)).astype(float), rng.integers(2, size=(n, each))
    found = mean_average_precision(scores, labels)
    there = [label for label in range(each) if labels[:, label].any()]
    if not there:
        assert math.isnan(found)
        return
    by_definition = [oracles.average_precision(scores[:, label].tolist(), labels[:, label].tolist()) for label in there]
    by_scikit_learn = [average_precision_score(labels[:, label], scores[:, label]) for label in there]
    assert found == pytest.approx(np.mean(by_definition), rel=1e-12)
    assert found == pytest.approx(np.mean(by_scikit_learn), rel=1e-12)


def test_a_monotone_change_of_the_scores_changes_nothing():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(50, 3)), rng.integers(2, size=(50, 3))
    assert mean_average_precision(np.exp(scores), labels) == mean_average_precision(scores, labels)


def test_scores_that_are_no_numbers_have_no_average_precision():
    assert math.isnan(mean_average_precision([[math.nan], [1.0]], [[1], [0]]))
    assert math.isnan(mean_average_precision([[math.inf], [1.0]], [[1], [0]]))


@pytest.mark.parametrize(("scores", "labels"), [([1.0, 2.0], [0, 1]), ([[1.0, 2.0]], [[1], [0]])])
def test_shapes_that_do_not_match_are_refused(scores, labels):
    with pytest.raises(ValueError, match=r"expected scores and labels \(examples, labels\) of one shape, got"):
        mean_average_precision(scores, labels)
