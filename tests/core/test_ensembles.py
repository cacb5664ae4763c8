import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from lmc_tune.core.calibration import RULES, calibration, combine
from lmc_tune.core.ensembles import connectivity, dirichlet_weights, sizes


def random_members(members, n=40, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(members, n, classes)) * 2, rng.integers(0, classes, n)


def test_weights_are_the_same_for_as_many_members_and_uniform_over_the_simplex():
    weights = dirichlet_weights(4, 20_000)
    assert np.array_equal(weights[:50], dirichlet_weights(4, 50)), "more draws begin with the same"
    assert weights.min() > 0
    assert weights.sum(axis=1) == pytest.approx(1)
    assert weights.mean(axis=0) == pytest.approx(1 / 4, abs=0.01)
    # Dirichlet(1, 1, 1, 1): variance a (s − a) / (s² (s + 1)).
    assert weights.var(axis=0) == pytest.approx(3 / (16 * 5), abs=0.002)
    assert not np.array_equal(weights[:50], dirichlet_weights(4, 50, seed=1))


def test_connectivity_of_members_that_are_one():
    weights = dirichlet_weights(5, 50)
    accuracies = np.full(5, 0.7)
    assert connectivity(np.full(50, 0.7), accuracies, weights) == pytest.approx(0, abs=1e-12)
    assert connectivity(np.full(50, 0.1), accuracies, weights) == pytest.approx(-60)


@given(st.integers(1, 5), st.sampled_from(RULES), st.integers(0, 10**6))
@settings(max_examples=30)
def test_sizes_are_the_means_over_all_subsets(members, rule, seed):
    logits, labels = random_members(members, seed=seed)
    found = sizes(logits, labels, rule)
    assert [one.members for one in found] == list(range(1, members + 1))
    for one in found:
        known = [
            calibration(combine(logits[list(subset)], rule), labels)
            for subset in combinations(range(members), one.members)
        ]
        assert one.exact
        assert one.subsets == len(known) == math.comb(members, one.members)
        assert one.accuracy == pytest.approx(np.mean([k.accuracy for k in known]))
        assert one.nll == pytest.approx(np.mean([k.nll for k in known]))
        assert one.accuracy_error == 0


def test_many_subsets_are_sampled_with_a_stated_error():
    logits, labels = random_members(10, n=60)
    exact = sizes(logits, labels, most=10**6)
    deviations = []
    for seed in range(40):
        for truth, one in zip(exact, sizes(logits, labels, most=30, seed=seed), strict=True):
            assert one.exact == (math.comb(10, one.members) <= 30)
            assert one.subsets == min(30, math.comb(10, one.members))
            if not one.exact:
                deviations.append((one.accuracy - truth.accuracy) / one.accuracy_error)
    # Sampled without replacement: the errors are standard ones, so about 95% of the deviations lie within two.
    assert np.mean(np.abs(deviations) < 2) > 0.9
    assert np.std(deviations) == pytest.approx(1, abs=0.15)


def test_examples_are_taken_block_by_block(monkeypatch):
    logits, labels = random_members(4, n=50)
    whole = sizes(logits, labels)
    monkeypatch.setattr("lmc_tune.core.ensembles._AT_ONCE", 100)
    for one, other in zip(whole, sizes(logits, labels), strict=True):
        assert one.accuracy == other.accuracy
        assert one.nll == pytest.approx(other.nll, abs=1e-12)


def test_equal_members_gain_nothing():
    logits, labels = random_members(1)
    one, *more = sizes(np.repeat(logits, 4, axis=0), labels)
    p = softmax(logits[0], axis=1)
    assert one.accuracy == np.mean(p.argmax(axis=1) == labels)
    for other in more:
        assert other.accuracy == one.accuracy
        assert other.nll == pytest.approx(one.nll, abs=1e-12)
