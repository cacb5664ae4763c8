import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lmc_tune.core.measured_shift import total_variation
from lmc_tune.data.shifts import label_fractions, split
from lmc_tune.experiment import ShiftSpec
from tests import oracles

BALANCED = np.arange(400) % 10
labellings = st.lists(st.integers(0, 4), min_size=2, max_size=60).map(np.array)
severities = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0])
seeds = st.integers(0, 2**63 - 1)


@st.composite
def shifts(draw):
    kind = draw(st.sampled_from(["none", "covariate", "label"]))
    if kind == "none":
        return ShiftSpec(kind="none")
    skew = draw(st.sampled_from(["ratio", "dirichlet"])) if kind == "label" else None
    return ShiftSpec(kind=kind, severity=draw(severities), skew=skew)


def counts(labels, indices, classes=10):
    return np.bincount(labels[indices], minlength=classes)


@given(labellings, shifts(), seeds)
def test_both_parts_are_equally_long_and_hold_nothing_twice(labels, shift, seed):
    parts = split(labels, shift, seed)
    assert len(parts.a) == len(parts.b) <= len(labels)
    for part in (parts.a, parts.b):
        assert len(set(part.tolist())) == len(part)
        assert all(0 <= i < len(labels) for i in part)


@given(labellings, shifts(), seeds)
def test_the_same_seed_gives_the_same_parts(labels, shift, seed):
    one, other = split(labels, shift, seed), split(labels, shift, seed)
    assert one.a.tolist() == other.a.tolist()
    assert one.b.tolist() == other.b.tolist()


def test_another_seed_gives_other_parts():
    for shift in (ShiftSpec(kind="none"), ShiftSpec(), ShiftSpec(kind="label", severity=0.6)):
        assert split(BALANCED, shift, 0).a.tolist() != split(BALANCED, shift, 1).a.tolist()


@given(labellings, seeds)
def test_none_gives_both_members_the_same_half_in_the_same_order(labels, seed):
    parts = split(labels, ShiftSpec(kind="none"), seed)
    assert parts.a.tolist() == parts.b.tolist()
    assert counts(labels, parts.a, 5).tolist() == (np.bincount(labels, minlength=5) // 2).tolist()


@given(labellings, severities, seeds)
def test_covariate_parts_have_half_of_every_class_and_the_same_label_at_every_position(labels, severity, seed):
    parts = split(labels, ShiftSpec(kind="covariate", severity=severity), seed)
    assert labels[parts.a].tolist() == labels[parts.b].tolist()
    assert counts(labels, parts.a, 5).tolist() == (np.bincount(labels, minlength=5) // 2).tolist()


@given(labellings, severities, seeds)
def test_covariate_parts_share_all_but_the_severity_of_every_class_at_the_same_positions(labels, severity, seed):
    parts = split(labels, ShiftSpec(kind="covariate", severity=severity), seed)
    shared = set(parts.a.tolist()) & set(parts.b.tolist())
    assert shared == set(parts.a[parts.a == parts.b].tolist())
    for c in np.unique(labels):
        half = int(np.sum(labels == c)) // 2
        assert abs(sum(labels[i] == c for i in shared) - (1 - severity) * half) <= 0.5 + 1e-9
    if severity == 1:
        assert not shared


@given(labellings, severities, seeds)
def test_part_a_is_the_same_without_a_shift_and_under_every_covariate_shift(labels, severity, seed):
    none = split(labels, ShiftSpec(kind="none"), seed)
    covariate = split(labels, ShiftSpec(kind="covariate", severity=severity), seed)
    assert none.a.tolist() == covariate.a.tolist()
    if severity == 0:
        assert none.b.tolist() == covariate.b.tolist()


@given(labellings, st.sampled_from(["ratio", "dirichlet"]), severities, seeds)
def test_label_parts_are_disjoint_and_paired_as_often_as_their_labels_allow(labels, skew, severity, seed):
    parts = split(labels, ShiftSpec(kind="label", skew=skew, severity=severity), seed)
    assert not set(parts.a.tolist()) & set(parts.b.tolist())
    matches = int(np.sum(labels[parts.a] == labels[parts.b]))
    assert matches == oracles.most_label_matches(labels[parts.a].tolist(), labels[parts.b].tolist())


@pytest.mark.parametrize("severity", [0.0, 0.2, 0.5, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_on_balanced_classes_the_total_variation_of_a_ratio_split_is_its_severity(severity, seed):
    parts = split(BALANCED, ShiftSpec(kind="label", severity=severity), seed)
    a, b = counts(BALANCED, parts.a), counts(BALANCED, parts.b)
    assert len(parts.a) == 200
    assert total_variation(a, b) == pytest.approx(severity)
    assert sorted(set(a)) == sorted({round(20 * (1 - severity)), round(20 * (1 + severity))})
    assert (a + b).tolist() == [40] * 10
    assert sum(a > b) == (5 if severity else 0)


def test_80_20_gives_a_four_fifths_of_half_of_the_classes():
    parts = split(BALANCED, ShiftSpec(kind="label", ratio=0.8), 3)
    a = counts(BALANCED, parts.a)
    assert sorted(a.tolist()) == [8] * 5 + [32] * 5


def test_which_classes_a_gets_more_of_depends_on_the_seed():
    rich = {tuple(counts(BALANCED, split(BALANCED, ShiftSpec(kind="label"), seed).a) > 0) for seed in range(40)}
    assert len(rich) > 20  # of 252 halves of ten classes


def test_with_an_odd_number_of_classes_the_one_left_over_is_halved():
    labels = np.arange(90) % 3
    for seed in range(5):
        parts = split(labels, ShiftSpec(kind="label", severity=1.0), seed)
        a, b = counts(labels, parts.a, 3), counts(labels, parts.b, 3)
        assert sorted(a.tolist()) == sorted(b.tolist()) == [0, 15, 30]
        assert total_variation(a, b) == pytest.approx(2 / 3)


def test_unequal_classes_leave_the_surplus_of_the_longer_part_out():
    labels = np.repeat([0, 1], [90, 10])
    parts = split(labels, ShiftSpec(kind="label", severity=1.0), 0)
    assert len(parts.a) == len(parts.b) == 10
    assert {tuple(np.unique(labels[part])) for part in (parts.a, parts.b)} == {(0,), (1,)}


def test_dirichlet_extremes_are_halves_and_whole_classes():
    for seed in range(5):
        parts = split(BALANCED, ShiftSpec(kind="label", skew="dirichlet", severity=0.0), seed)
        assert counts(BALANCED, parts.a).tolist() == counts(BALANCED, parts.b).tolist() == [20] * 10
        parts = split(BALANCED, ShiftSpec(kind="label", skew="dirichlet", severity=1.0), seed)
        assert sorted(counts(BALANCED, parts.a).tolist()) == [0] * 5 + [40] * 5
    nearly = ShiftSpec(kind="label", skew="dirichlet", severity=float(np.nextafter(1, 0)))
    fractions = label_fractions([np.arange(4)] * 10, nearly, np.random.default_rng(0))
    assert set(fractions.tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("severity", [0.2, 0.5, 0.8])
def test_dirichlet_fractions_follow_the_beta_distribution_and_mirror_each_other(severity):
    alpha = (1 - severity) / severity
    shift = ShiftSpec(kind="label", skew="dirichlet", severity=severity)
    rng = np.random.default_rng(0)
    draws = np.array([label_fractions([np.arange(1)] * 10, shift, rng) for _ in range(400)])
    ordered = np.sort(draws, axis=1)
    assert ordered + ordered[:, ::-1] == pytest.approx(1.0)  # five pairs of f and 1 − f
    # One fraction of each pair: the first class and its partner would not be independent.
    assert stats.kstest(draws[:, 0], stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_a_dirichlet_part_gets_the_drawn_fraction_of_every_class():
    parts = split(BALANCED, ShiftSpec(kind="label", skew="dirichlet", severity=0.5), 1)
    a, b = counts(BALANCED, parts.a), counts(BALANCED, parts.b)
    assert (a + b).tolist() == [40] * 10
    assert sorted(a.tolist()) == sorted(b.tolist())
    assert len(set(a.tolist())) > 2  # five different draws


@pytest.mark.parametrize("kind", ["none", "covariate"])
def test_a_class_of_one_example_cannot_be_halved_and_is_left_out(kind):
    parts = split(np.array([0, 1, 1, 1, 2, 2]), ShiftSpec(kind=kind), 0)
    assert sorted(np.array([0, 1, 1, 1, 2, 2])[parts.a].tolist()) == [1, 2]
