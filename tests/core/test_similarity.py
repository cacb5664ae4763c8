import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix

from lmc_tune.core.similarity import (
    cka,
    cohens_kappa,
    disagreement,
    error_overlap,
    gram_cka,
    jensen_shannon,
    true_class_variance,
)
from tests import oracles

labels = st.integers(0, 3)
triples = st.lists(st.tuples(labels, labels, labels), min_size=1, max_size=30)
seeds = st.integers(0, 2**32 - 1)
# Whole-number weights over three classes: certain predictions and impossible classes come up often.
weights = st.tuples(*[st.integers(0, 3)] * 3).filter(any)
predicted = st.lists(st.tuples(weights, weights, st.integers(0, 2)), min_size=1, max_size=20)


def distributions(rows):
    """(n, 3) probabilities of A and of B, and (n,) labels."""
    a, b, y = (np.array(column) for column in zip(*rows, strict=True))
    return a / a.sum(axis=1, keepdims=True), b / b.sum(axis=1, keepdims=True), y


def gaussians(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in shapes]


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


def test_kappa_by_hand():
    a, b = [0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0]
    # They agree on 4 of 6; by chance on 4/6 · 4/6 + 2/6 · 2/6 = 5/9.
    assert cohens_kappa(a, b) == pytest.approx((4 / 6 - 5 / 9) / (1 - 5 / 9))
    assert cohens_kappa([0, 1], [1, 0]) == -1.0


@given(triples)
def test_kappa_is_scikit_learns(rows):
    a, b, _ = np.array(rows).T
    if len({*a.tolist(), *b.tolist()}) == 1:
        assert math.isnan(cohens_kappa(a, b))
    else:
        assert cohens_kappa(a, b) == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)


def test_divergence_by_hand():
    assert jensen_shannon([[[1.0, 0.0]], [[0.0, 1.0]]]) == pytest.approx(math.log(2))
    # m = (3/4, 1/4): ½ ln 4/3 + ½ (½ ln 2/3 + ½ ln 2)
    one = 0.5 * math.log(4 / 3) + 0.25 * math.log(2 / 3) + 0.25 * math.log(2)
    assert jensen_shannon([[[1.0, 0.0]], [[0.5, 0.5]]]) == pytest.approx(one)
    assert jensen_shannon([[[1.0, 0.0], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]]) == pytest.approx(one / 2)


@given(predicted)
def test_divergence_is_the_mean_of_scipys_squared_distances(rows):
    p, q, _ = distributions(rows)
    expected = np.mean([jensenshannon(a, b) ** 2 for a, b in zip(p, q, strict=True)])
    assert jensen_shannon([p, q]) == pytest.approx(expected, abs=1e-12)
    assert jensen_shannon([p, q]) == pytest.approx(jensen_shannon([q, p]), abs=1e-15)
    assert 0 <= jensen_shannon([p, q]) <= math.log(2) + 1e-12
    assert jensen_shannon([p, p]) == 0


@given(predicted)
def test_variance_of_the_true_class_is_numpys_over_the_members(rows):
    p, q, y = distributions(rows)
    expected = np.mean([np.var([a[label], b[label]]) for a, b, label in zip(p, q, y, strict=True)])
    assert true_class_variance([p, q], y) == pytest.approx(expected, abs=1e-12)


def test_variance_of_the_true_class_by_hand():
    assert true_class_variance([[[1.0, 0.0]], [[0.0, 1.0]]], [0]) == 0.25
    assert true_class_variance([[[1.0, 0.0], [0.5, 0.5]], [[0.6, 0.4], [0.5, 0.5]]], [1, 1]) == pytest.approx(0.04 / 2)


def test_probabilities_that_are_none_are_refused():
    good = [[0.5, 0.5]]
    for bad, message in [
        ([[2.0, -1.0]], "every row non-negative with sum 1; take the softmax of logits first"),
        ([[0.5, 0.4]], "every row non-negative with sum 1"),
        ([0.5, 0.5], r"expected probabilities \(examples, classes\), got shape \(2,\)"),
        ([[0.5, 0.25, 0.25]], r"of the same examples and classes, got shapes \(1, [23]\), \(1, [23]\)"),
    ]:
        for pair in [(good, bad), (bad, good)]:
            with pytest.raises(ValueError, match=message):
                jensen_shannon(pair)
            with pytest.raises(ValueError, match=message):
                true_class_variance(pair, [0])
    with pytest.raises(ValueError, match="integer labels from 0 to 1, got int64 from 2 to 2"):
        true_class_variance([good, good], [2])


def test_what_a_diverged_member_predicts_is_not_a_number():
    broken = [[math.nan, math.nan]]
    assert math.isnan(jensen_shannon([broken, [[0.5, 0.5]]]))
    assert math.isnan(true_class_variance([[[0.5, 0.5]], broken], [0]))


def test_cka_of_a_known_pair():
    x, mixing, noise = gaussians(0, (200, 50), (50, 30), (200, 30))
    y = x @ mixing + 0.5 * noise
    assert cka(x, y, debiased=False) == pytest.approx(0.6589498375826639, abs=1e-12)
    assert cka(x, y) == pytest.approx(0.6161024706380394, abs=1e-12)


@given(seeds, st.integers(1, 9), st.integers(1, 9))
def test_cka_agrees_with_its_definition(seed, width_x, width_y):
    x, noise, mixing = gaussians(seed, (7, width_x), (7, width_y), (width_x, width_y))
    y = x @ mixing + noise + 3
    assert cka(x, y) == pytest.approx(oracles.debiased_cka(x, y), abs=1e-8)
    assert cka(x, y, debiased=False) == pytest.approx(oracles.biased_cka(x, y), abs=1e-8)


@given(seeds, st.booleans(), st.sampled_from([4, 30]), st.floats(0.01, 100))
def test_cka_ignores_rotations_scales_and_offsets(seed, debiased, width, scale):
    x, y, square, offset = gaussians(seed, (12, width), (12, 6), (width, width), (width,))
    rotation = np.linalg.qr(square)[0]
    expected = cka(x, y, debiased=debiased)
    assert cka(scale * x @ rotation + offset, y, debiased=debiased) == pytest.approx(expected, abs=1e-9)
    assert cka(y, x, debiased=debiased) == pytest.approx(expected, abs=1e-12)
    assert cka(x, scale * x @ rotation + offset, debiased=debiased) == pytest.approx(1.0, abs=1e-9)
    assert abs(expected) <= 1 + 1e-12


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("width", [2, 20])
def test_cka_bears_the_largest_and_smallest_activations(scale, width):
    x, y = gaussians(0, (8, width), (8, width))
    assert cka(scale * x, scale * y) == pytest.approx(cka(x, y), abs=1e-9)


def test_unrelated_representations_are_alike_only_to_the_biased_estimator():
    biased, debiased = [], []
    for seed in range(100):
        x, y = gaussians(seed, (32, 256), (32, 256))
        biased.append(cka(x, y, debiased=False))
        debiased.append(cka(x, y))
    assert np.mean(biased) == pytest.approx(0.885, abs=0.01)
    assert np.mean(debiased) == pytest.approx(0.0, abs=4 * np.std(debiased) / 10)


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("width", [2, 20])
def test_a_representation_that_does_not_vary_has_no_cka(debiased, width):
    (x,) = gaussians(0, (8, 3))
    constant = np.full((8, width), 0.1)
    assert math.isnan(cka(constant, x, debiased=debiased))
    assert math.isnan(cka(x, constant, debiased=debiased))
    assert math.isnan(gram_cka(constant @ constant.T, x @ x.T, debiased=debiased))


@pytest.mark.parametrize("width", [2, 20])
def test_a_representation_of_one_example_alone_has_no_debiased_cka(width):
    (x,) = gaussians(0, (8, 3))
    alone = np.zeros((8, width))
    alone[3] = 0.7  # no two different examples say anything about each other
    assert math.isnan(cka(alone, x))
    assert 0 < cka(alone, x, debiased=False) < 1


def test_representations_of_different_examples_are_refused():
    x = np.eye(5)
    with pytest.raises(ValueError, match=r"of the same examples, got shapes \(5, 5\) and \(4, 5\)"):
        cka(x, x[:4])
    with pytest.raises(ValueError, match=r"expected a representation \(examples, features\), got shape \(5,\)"):
        cka(x, x[0])
    with pytest.raises(ValueError, match=r"Gram matrices of the same examples, got shapes \(5, 5\) and \(4, 4\)"):
        gram_cka(x, x[:4, :4])
    with pytest.raises(ValueError, match=r"Gram matrices of the same examples, got shapes \(4, 5\) and \(4, 5\)"):
        gram_cka(x[:4], x[:4])
    for x_few in (x[:3, :2], x[:3]):
        with pytest.raises(ValueError, match="debiased CKA needs at least 4 examples, got 3"):
            cka(x_few, x_few)
    with pytest.raises(ValueError, match="biased CKA needs at least 2 examples, got 1"):
        cka(x[:1], x[:1], debiased=False)


def test_divergence_of_several_members_compares_each_with_the_mean_of_all_others():
    p = np.random.default_rng(0).dirichlet(np.ones(4), size=(5, 6))  # members, examples
    expected = np.mean(
        [
            jensenshannon(p[member, at], np.delete(p, member, axis=0)[:, at].mean(axis=0)) ** 2
            for member in range(5)
            for at in range(6)
        ]
    )
    assert jensen_shannon(p) == pytest.approx(expected, abs=1e-12)
    assert jensen_shannon(p[::-1]) == pytest.approx(jensen_shannon(p), abs=1e-15)
    y = np.arange(6) % 4
    assert true_class_variance(p, y) == pytest.approx(np.mean(np.var(p[:, np.arange(6), y], axis=0)))
    with pytest.raises(ValueError, match="two at least, got 1"):
        jensen_shannon(p[:1])
