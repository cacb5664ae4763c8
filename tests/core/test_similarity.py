import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix

from lmc_tune.core.similarity import disagreement, error_overlap

labels = st.integers(0, 3)
triples = st.lists(st.tuples(labels, labels, labels), min_size=1, max_size=30)


def test_by_hand():
    truth = [0, 0, 0, 0, 1, 1, 1, 1]
    a = [0, 0, 1, 2, 1, 1, 0, 0]  # wrong at 2, 3, 6, 7
    b = [0, 0, 1, 1, 1, 0, 0, 1]  # wrong at 2, 3, 5, 6; the same wrong label at 2 and 6
    overlap = error_overlap(a, b, truth)
    assert disagreement(a, b) == 3 / 8  # at 3, 5, 7
    assert overlap.both_wrong == 3 / 8  # at 2, 3, 6
    assert overlap.same_wrong_label == 2 / 5  # of 2, 3, 5, 6, 7
    assert overlap.over_independence == pytest.approx((3 / 8) / (4 / 8 * 4 / 8))


@given(triples)
def test_disagreement_is_one_minus_scikit_learns_accuracy_of_one_member_against_the_other(rows):
    a, b, _ = np.array(rows).T
    assert disagreement(a, b) == pytest.approx(1 - accuracy_score(a, b))


@given(triples)
def test_overlaps_agree_with_the_confusion_matrices_of_each_class(rows):
    a, b, y = np.array(rows).T
    both = same = 0
    for c in range(4):
        table = confusion_matrix(a[y == c], b[y == c], labels=range(4)) if np.any(y == c) else np.zeros((4, 4))
        wrong = [k for k in range(4) if k != c]
        both += table[np.ix_(wrong, wrong)].sum()
        same += sum(table[k, k] for k in wrong)
    error_a, error_b = 1 - accuracy_score(y, a), 1 - accuracy_score(y, b)
    overlap = error_overlap(a, b, y)
    either = (error_a + error_b) * len(y) - both
    assert overlap.both_wrong == pytest.approx(both / len(y))
    assert overlap.same_wrong_label == pytest.approx(same / either if round(either) else 0.0)
    if error_a and error_b:
        assert overlap.over_independence == pytest.approx(both / len(y) / (error_a * error_b))


@given(triples)
def test_members_may_be_swapped(rows):
    a, b, y = np.array(rows).T
    assert disagreement(a, b) == disagreement(b, a)
    there, back = error_overlap(a, b, y), error_overlap(b, a, y)
    assert (there.both_wrong, there.same_wrong_label) == (back.both_wrong, back.same_wrong_label)


def test_a_member_without_errors_has_no_ratio():
    overlap = error_overlap([0, 1], [0, 0], [0, 1])
    assert (overlap.both_wrong, overlap.same_wrong_label) == (0.0, 0.0)
    assert math.isnan(overlap.over_independence)
    assert error_overlap([1], [1], [1]).same_wrong_label == 0.0


def test_independent_errors_have_a_ratio_of_one():
    wrong_a, wrong_b = np.array([(i % 5 == 0, i // 5 % 4 == 0) for i in range(2000)]).T.astype(int)
    assert error_overlap(wrong_a, wrong_b, np.zeros(2000)).over_independence == pytest.approx(1.0)


@pytest.mark.parametrize(("a", "b"), [([0, 1], [0]), ([], []), ([[0]], [[0]])])
def test_labels_of_different_examples_are_refused(a, b):
    with pytest.raises(ValueError, match="expected labels of the same examples, got shapes"):
        disagreement(a, b)
    with pytest.raises(ValueError, match="expected labels of the same examples, got shapes"):
        error_overlap(a, b, a)
    with pytest.raises(ValueError, match="expected labels of the same examples"):
        error_overlap([0, 1], [0, 1], [0])
