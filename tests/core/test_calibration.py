import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from lmc_tune.core.calibration import (
    RULES,
    accuracy,
    brier_score,
    calibration,
    calibration_error,
    combine,
    gain,
    log_probabilities,
    negative_log_likelihood,
    temperature,
)
from lmc_tune.core.similarity import true_class_variance
from tests import oracles

# Whole-number weights over three classes: certain predictions, ties and confidences on the edges of bins come up often.
weights = st.tuples(*[st.integers(0, 5)] * 3).filter(any)
predicted = st.lists(st.tuples(weights, st.integers(0, 2)), min_size=1, max_size=30)
rules = st.sampled_from(RULES)


@st.composite
def scored(draw, members=2):
    """Logits (n, 4) of some members, and (n,) labels."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, scale = draw(st.integers(1, 20)), draw(st.sampled_from([0.1, 1.0, 10.0]))
    return [scale * rng.normal(size=(n, 4)) for _ in range(members)], rng.integers(0, 4, n)


def distributions(rows):
    p, y = (np.array(column) for column in zip(*rows, strict=True))
    return p / p.sum(axis=1, keepdims=True), y


def test_calibration_error_by_hand():
    # A confidence of exactly 1 is in the last bin beside 0.95: |½ − 0.975|. Put elsewhere, it would read 0.525.
    assert calibration_error([[0.95, 0.05], [1.0, 0.0]], [0, 1], bins=10) == pytest.approx(0.475)
    # 0.7 belongs to (0.6, 0.7], with 0.65: |½ − 0.675|; alone it would be 0.3 and 0.65 halved.
    assert calibration_error([[0.7, 0.3], [0.65, 0.35]], [0, 1], bins=10) == pytest.approx(0.175)
    assert calibration_error([[0.7, 0.3], [0.75, 0.25]], [0, 1], bins=10) == pytest.approx((0.3 + 0.75) / 2)


@given(predicted, st.integers(1, 20))
def test_calibration_error_agrees_with_the_loop_over_bins(rows, bins):
    p, y = distributions(rows)
    confidences, hits = p.max(axis=1).tolist(), (p.argmax(axis=1) == y).tolist()
    expected = oracles.calibration_error(confidences, hits, bins)
    assert calibration_error(p, y, bins) == pytest.approx(expected, abs=1e-12)


@given(predicted)
def test_accuracy_and_brier_score_are_scikit_learns(rows):
    p, y = distributions(rows)
    assert accuracy(p, y) == pytest.approx(accuracy_score(y, p.argmax(axis=1)))
    assert brier_score(p, y) == pytest.approx(brier_score_loss(y, p, labels=[0, 1, 2], scale_by_half=False))


@given(scored(members=1))
def test_likelihood_is_scikit_learns_and_that_of_plain_python(case):
    (logits,), y = case
    found = negative_log_likelihood(logits, y)
    assert found == pytest.approx(np.mean(oracles.cross_entropy(logits, y)), rel=1e-12)
    mild = logits / 10  # scikit-learn cuts small probabilities off
    assert negative_log_likelihood(mild, y) == pytest.approx(log_loss(y, softmax(mild, axis=1), labels=range(4)))
    assert negative_log_likelihood(log_probabilities(logits) + 7, y) == pytest.approx(found, rel=1e-9)


def test_likelihood_is_finite_for_logits_and_infinite_for_what_was_impossible():
    assert negative_log_likelihood([[0.0, 2000.0]], [0]) == 2000.0  # where the probability itself is 0
    assert negative_log_likelihood(np.array([[0, 90]], dtype=np.float32), [0]) == pytest.approx(90.0, rel=1e-12)
    assert negative_log_likelihood([[0.0, -math.inf]], [1]) == math.inf
    assert negative_log_likelihood([[0.0, -math.inf]], [0]) == 0.0


def test_brier_score_by_hand():
    assert brier_score([[1.0, 0.0, 0.0]], [1]) == 2.0
    assert brier_score([[0.5, 0.3, 0.2], [0.0, 0.0, 1.0]], [0, 2]) == pytest.approx((0.25 + 0.09 + 0.04) / 2)


@given(scored(members=1))
def test_all_qualities_are_of_the_same_predictions(case):
    (logits,), y = case
    p = softmax(logits, axis=1)
    found = calibration(logits, y, bins=7)
    assert found.accuracy == accuracy(p, y)
    assert found.nll == negative_log_likelihood(logits, y)
    assert found.brier == pytest.approx(brier_score(p, y))
    assert found.ece == pytest.approx(calibration_error(p, y, 7))


@given(scored())
def test_probabilities_are_averaged(case):
    (a, b), _ = case
    expected = (softmax(a, axis=1) + softmax(b, axis=1)) / 2
    assert np.exp(combine([a, b])) == pytest.approx(expected, abs=1e-12)


@given(scored())
def test_averaging_logits_or_log_probabilities_is_the_normalised_geometric_mean(case):
    (a, b), _ = case
    product = np.sqrt(softmax(a, axis=1) * softmax(b, axis=1))
    expected = product / product.sum(axis=1, keepdims=True)
    assert np.exp(combine([a, b], "logit")) == pytest.approx(expected, abs=1e-12)
    assert np.exp(combine([a, b], "log_probability")) == pytest.approx(expected, abs=1e-12)


@given(scored(), rules)
def test_an_ensemble_is_no_less_likely_than_its_mean_member(case, rule):
    (a, b), y = case
    mixed = calibration(combine([a, b], rule), y)
    found = gain(mixed, [calibration(a, y), calibration(b, y)])
    assert found["nll"] >= -1e-12
    assert combine([a, b], rule) == pytest.approx(combine([b, a], rule), abs=1e-12)
    assert combine([a, a], rule) == pytest.approx(log_probabilities(a), abs=1e-9)


@given(scored())
def test_averaging_probabilities_gains_the_members_variance_of_the_brier_score(case):
    (a, b), y = case
    p, q = softmax(a, axis=1), softmax(b, axis=1)
    found = gain(calibration(combine([a, b]), y), [calibration(a, y), calibration(b, y)])["brier"]
    variance = sum(true_class_variance([p, q], np.full(len(y), c)) for c in range(4))
    assert found == pytest.approx(variance, abs=1e-12)


def test_gain_is_positive_where_the_ensemble_is_better():
    # Each member is wrong once, and surer where it is right.
    a, b = np.log([[0.9, 0.1], [0.6, 0.4]]), np.log([[0.4, 0.6], [0.1, 0.9]])
    y = [0, 1]
    ensemble = calibration(combine([a, b]), y)
    found = gain(ensemble, [calibration(a, y), calibration(b, y)])
    assert ensemble.accuracy == 1.0
    assert found["accuracy"] == 0.5
    assert found["nll"] == pytest.approx((math.log(1 / 0.9) + math.log(1 / 0.4)) / 2 - math.log(1 / 0.65))
    assert found["brier"] == pytest.approx(2 * 0.25**2)
    # Members: |1 − 0.9| and |0 − 0.6|; ensemble: |1 − 0.65|.
    assert found["ece"] == pytest.approx((0.1 + 0.6) / 2 - 0.35)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_a_diverged_network_predicts_is_not_a_number(bad):
    found = calibration([[bad, 0.0], [0.0, 1.0]], [1, 1])
    assert all(math.isnan(found_) for name, found_ in asdict(found).items() if name != "accuracy")
    assert np.isnan(combine([[[bad, 0.0]], [[0.0, 1.0]]])).all()


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        ([[0.5, 0.5]], [2], "integer labels from 0 to 1, got int64 from 2 to 2"),
        ([[0.5, 0.5]], [-1], "integer labels from 0 to 1, got int64 from -1 to -1"),
        ([[0.5, 0.5]], [0.0], "integer labels from 0 to 1, got float64"),
        ([[0.5, 0.5]], [0, 1], r"one label for each of 1 examples, got shape \(2,\)"),
        ([0.5, 0.5], [0, 1], r"\(examples, classes\), got shape \(2,\)"),
        (np.zeros((0, 2)), [], r"\(examples, classes\), got shape \(0, 2\)"),
    ],
)
def test_labels_of_other_examples_or_classes_are_refused(values, labels, message):
    for quality in (accuracy, brier_score, calibration_error, negative_log_likelihood, calibration):
        with pytest.raises(ValueError, match=message):
            quality(values, labels)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="every row non-negative with sum 1; take the softmax of logits first"):
        calibration_error([[3.0, -2.0]], [0])
    with pytest.raises(ValueError, match="at least one bin, got 0"):
        calibration_error([[0.5, 0.5]], [0], bins=0)
    with pytest.raises(ValueError, match="unknown rule 'mean' of combining; choose one of probability, logit, log_"):
        combine([[[0.0]], [[0.0]]], "mean")
    with pytest.raises(ValueError, match=r"same examples and classes, got shapes \(1, 1\) and \(1, 2\)"):
        combine([[[0.0]], [[0.0, 1.0]]])


@given(st.integers(0, 10**6), st.sampled_from([0.3, 1.0, 3.0]))
@settings(max_examples=20, deadline=None)
def test_temperature_is_scikit_learns(seed, scale):
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(4), rng.integers(0, 4, 60)])
    logits = scale * (rng.normal(size=(64, 4)) + 1.5 * np.eye(4)[y])

    class Given(ClassifierMixin, BaseEstimator):
        classes_ = np.arange(4)

        def fit(self, x, y):  # noqa: ARG002 - scikit-learn's contract
            self.fitted_ = True
            return self

        def decision_function(self, x):
            return x

        def predict(self, x):
            return x.argmax(axis=1)

    theirs = CalibratedClassifierCV(FrozenEstimator(Given().fit(logits, y)), method="temperature").fit(logits, y)
    (fitted,) = theirs.calibrated_classifiers_
    assert 1 / fitted.calibrators[0].beta_ == pytest.approx(temperature(logits, y), rel=1e-4)


def test_temperature_changes_no_prediction_and_lowers_the_likelihood_s_negative():
    (logits,), y = [3 * np.random.default_rng(0).normal(size=(50, 4))], np.random.default_rng(1).integers(0, 4, 50)
    found = temperature(logits, y)
    assert negative_log_likelihood(logits / found, y) < negative_log_likelihood(logits, y)
    for other in (0.9 * found, 1.1 * found):
        assert negative_log_likelihood(logits / found, y) < negative_log_likelihood(logits / other, y)
    assert temperature(logits / found, y) == pytest.approx(1, rel=1e-5), "scaled once, nothing is left to scale"
    assert temperature(logits + 7, y) == pytest.approx(found, rel=1e-6)


def test_temperature_ends_where_predictions_are_certain_or_uniform():
    assert 0.01 <= temperature([[1.0, 0.0], [0.0, 1.0]], [0, 1]) < 0.03, "all are right"
    assert temperature([[1.0, 0.0], [0.0, 1.0]], [1, 0]) == pytest.approx(100, rel=1e-3), "all are wrong"
    assert math.isnan(temperature([[math.nan, 0.0]], [0]))


@given(scored(members=3))
def test_calibration_error_is_that_of_scikit_learns_curve(case):
    logits, y = case
    p = np.exp(combine(logits))
    confidences, hits = p.max(axis=1), p.argmax(axis=1) == y
    accuracies, means = calibration_curve(hits, confidences, n_bins=15, strategy="uniform", pos_label=True)
    counts = np.histogram(confidences, bins=15, range=(0, 1))[0]
    expected = np.sum(counts[counts > 0] * np.abs(accuracies - means)) / len(y)
    assert calibration_error(p, y) == pytest.approx(expected, abs=1e-12)


def test_an_ensemble_of_many_is_the_mean_of_their_probabilities():
    logits = np.random.default_rng(0).normal(size=(7, 5, 3))
    assert np.exp(combine(logits)) == pytest.approx(softmax(logits, axis=2).mean(axis=0))
    assert np.exp(combine(logits, "logit")) == pytest.approx(softmax(log_softmax(logits, axis=2).mean(axis=0), axis=1))
    with pytest.raises(ValueError, match="one member at least"):
        combine([])
