"""Claims on made-up studies whose outcome can be worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lmc_tune.analysis.reproduction.claims import CLAIMS
from lmc_tune.analysis.reproduction.expectations import MOST_REPLICATES, Expectation, Reading, same
from lmc_tune.analysis.reproduction.sweep_tables import Study
from lmc_tune.core.statistics import mean_interval
from lmc_tune.experiment import GroupSpec, MlpSpec, VggSpec
from lmc_tune.experiment.reading import presets
from lmc_tune.tables.rows import PairResult
from tests.analysis.cases import ok_pair, undertrained_pair
from tests.analysis.reproduction.studies import L1, L3, learning_curves, outcome_of, pairs, spec_of, study_of

BY_ID = {claim.id: claim for claim in CLAIMS}


@pytest.mark.parametrize(
    ("values", "side", "expected"),
    [
        ([0.1, 0.2, 0.3, 0.2], "above", "supported"),
        ([0.1, 0.2, 0.3, 0.2], "below", "contradicted"),
        ([-0.2, -0.2, -0.2], "below", "supported"),
        ([-0.2, -0.2], "below", "undecided"),  # too few
        ([-0.2, -0.2, -0.2, np.nan], "below", "undecided"),  # what is missing may lie anywhere
        ([-0.2, -0.2, -0.2, -np.inf], "below", "undecided"),
        ([-0.1, -0.2, -0.15], "above", "contradicted"),
        ([0.1, 0.2], "above", "undecided"),  # t at one degree of freedom reaches 0.64
        ([-1.0, 1.0, 0.5], "above", "undecided"),
        ([0.5], "above", "undecided"),
        ([], "above", "undecided"),
        ([0.5, np.nan], "above", "undecided"),
        ([0.0, 0.0], "above", "undecided"),
    ],
)
def test_an_expectation_is_decided_by_the_whole_interval(values, side, expected):
    assert Expectation(what="", values=np.array(values), unit="nats", side=side).outcome(0.95) == expected


def test_expectations_of_a_case_hold_together():
    def expected(mean: float, case: str) -> Expectation:
        return Expectation(what=f"{mean}", values=np.full(3, mean), unit="nats", side="above", case=case)

    def outcome(*found: Expectation) -> str:
        return replace(BY_ID["R3"], holds="one").outcome(Reading(expectations=found))

    assert outcome(expected(1, "x"), expected(-1, "x"), expected(2, "y"), expected(-2, "y")) == "contradicted"
    assert outcome(expected(1, "x"), expected(-1, "x"), expected(2, "y"), expected(3, "y")) == "supported"
    assert outcome(expected(1, "x"), expected(0, "x"), expected(-2, "y")) == "undecided"


@pytest.mark.parametrize(
    ("means", "expected"),
    [([1, 1], "supported"), ([-1, -1], "contradicted"), ([1, -1], "undecided"), ([1, 0], "undecided")],
)
def test_estimates_of_one_number_have_to_agree(means, expected):
    found = [
        Expectation(what=f"{at}", values=np.full(3, float(mean)), unit="nats", side="above", case="x")
        for at, mean in enumerate(means)
    ]
    assert replace(BY_ID["R1"], cases="same").outcome(Reading(expectations=found)) == expected


@pytest.mark.parametrize(
    ("mean", "unmet", "alternative", "expected"),
    [
        (1, "", "other", "supported"),
        (0, "", "other", "not decidable"),
        (0, "", "", "undecided"),
        (0, "none", "other", "premise not met"),
        (1, "none", "", "premise not met"),
        (-1, "none", "other", "contradicted"),  # of what was tested
    ],
)
def test_what_leaves_a_claim_open_has_a_name(mean, unmet, alternative, expected):
    found = [Expectation(what="", values=np.full(3, float(mean)), unit="nats", side="above")]
    reading = Reading(expectations=found, unmet=unmet, alternative=alternative)
    assert BY_ID["R1"].outcome(reading) == expected
    reasons = {"premise not met": unmet, "not decidable": alternative}
    assert BY_ID["R1"].open_because(reading) == reasons.get(expected, "")


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=8), st.sampled_from([0.8, 0.95, 0.99]))
def test_the_interval_is_students(values, confidence):
    found = Expectation(what="", values=np.array([*values, np.nan]), unit="nats")
    scale = stats.sem(values)
    expected = stats.t.interval(confidence, len(values) - 1, np.mean(values), scale) if scale else 2 * [np.mean(values)]
    np.testing.assert_allclose(found.interval(confidence), expected, atol=1e-9)
    two = Expectation(what="", values=np.array(values[:2]), unit="nats")
    assert two.interval_words(confidence) == "none"


@pytest.mark.parametrize(
    ("holds", "means", "expected"),
    [
        ("every", [1, 1], "supported"),
        ("every", [1, 0], "undecided"),
        ("every", [1, 0, -1], "contradicted"),
        ("every", [], "undecided"),
        ("one", [0, -1, 1], "supported"),
        ("one", [-1, -1], "contradicted"),
        ("one", [-1, 0], "undecided"),
    ],
)
def test_expectations_decide_the_claim(holds, means, expected):
    found = [
        Expectation(what=f"{at}", values=np.array([mean, mean, mean], dtype=float), unit="nats", side="above")
        for at, mean in enumerate(means)
    ]
    told = Expectation(what="", values=np.array([-9.0, -9.0]), unit="nats")
    claim = replace(BY_ID["R1"], holds=holds)
    assert claim.outcome(Reading(expectations=[*found, told])) == expected


def test_more_expectations_ask_for_wider_intervals():
    """By chance alone one of twenty would be decided at 95% each."""
    narrow = Expectation(what="", values=np.array([0.1, 0.2, 0.35, 0.3]), unit="nats", side="above")
    told = replace(narrow, side=None)
    alone, many = Reading(expectations=[narrow, told]), Reading(expectations=8 * [narrow])
    assert alone.confidence == 0.95
    assert many.confidence == pytest.approx(1 - 0.05 / 8)
    assert BY_ID["R1"].outcome(alone) == "supported"
    assert BY_ID["R1"].outcome(many) == "undecided"


@given(
    st.floats(-1, 1).filter(lambda mean: abs(mean) > 0.01),
    st.floats(0.1, 2),
    st.integers(3, 12),
    st.sampled_from([0.95, 0.99]),
)
def test_the_replicates_that_would_decide_are_the_fewest_whose_interval_excludes_the_limit(mean, spread, n, confidence):
    values = np.linspace(-1, 1, n)
    found = Expectation(
        what="", values=0.5 + mean + spread * values / values.std(ddof=1), unit="nats", side="above", limit=0.5
    )
    needed = found.deciding_replicates(confidence)

    def excluded(replicates: int) -> bool:
        low, high = mean_interval(0.5 + mean, spread**2, replicates, confidence)
        return not low <= 0.5 <= high

    if needed is None:
        assert not excluded(MOST_REPLICATES)
        assert found.open_words(confidence).endswith(f"only over {MOST_REPLICATES} replicates would decide")
    else:
        assert excluded(needed)
        assert needed == 3 or not excluded(needed - 1)
        assert (found.outcome(confidence) == "undecided") == (needed > n)


def test_an_undecided_expectation_says_what_it_lacks():
    values = np.array([0.01, 0.03, 0.02, 0.05])
    found = Expectation(what="", values=values, unit="fraction", side="above")
    low, high = found.interval(0.99)
    needed = found.deciding_replicates(0.99)
    assert found.open_words(0.99) == f"width {100 * (high - low):.2f}%, {needed} replicates would decide"
    assert found.open_words(0.5) == replace(found, side=None).open_words(0.99) == ""
    assert replace(found, values=values[:2]).open_words(0.99) == "no interval"
    assert replace(found, values=np.array([*values, np.nan])).open_words(0.99) == "a value is not known"
    points = replace(found, values=100 * values, unit="percentage points")
    assert points.open_words(0.99).startswith(f"width {100 * (high - low):.1f} pp, ")


@pytest.mark.parametrize(
    ("holds", "means", "expected"),
    [
        ("every", [1, 3, 2], 1),  # all are needed: the least clear
        ("every", [1, -3, -2], -3),  # one contradicts: the clearest
        ("every", [0.1, 3, -0.2], 0.1),  # of those that are open
        ("one", [-3, 1, 2], 2),
        ("one", [-3, -1, -2], -1),
        ("every", [], None),
    ],
)
def test_the_deciding_expectation_is_the_one_on_which_the_outcome_rests(holds, means, expected):
    spread = np.array([-0.1, 0.0, 0.1])
    found = [Expectation(what=f"{mean}", values=mean + spread, unit="nats", side="above") for mean in map(float, means)]
    decided = replace(BY_ID["R1"], holds=holds).deciding(Reading(expectations=found))
    assert (None if decided is None else decided.mean) == (None if expected is None else pytest.approx(expected))


def test_every_claim_has_its_preset_and_its_small_twin():
    for claim in CLAIMS:
        assert {claim.preset, f"{claim.preset}_small"} <= presets().keys()
    assert [claim.id for claim in CLAIMS] == [f"R{n}" for n in range(1, 25)]


def test_the_outcome_is_what_holds_at_every_gate():
    def make(spec: GroupSpec) -> PairResult:
        """Half of the replicates learn little and have barriers."""
        slow = spec.replicate % 2
        result = ok_pair(spec, 0.3 if slow else 0.001)
        result.row["accuracy_difference"] = -30.0 if slow else 0.0
        result.row["train_accuracy_a"] = 0.5 if slow else 0.9
        return result

    results = [make(spec_of(k)) for k in range(9)]
    outcomes = {gate: outcome_of(BY_ID["R1"], study_of(results, gate=gate)) for gate in (0.4, 0.5, 0.6)}
    assert outcomes == {0.4: "undecided", 0.5: "undecided", 0.6: "supported"}
    assert same(outcomes.values()) == "undecided"
    assert same(["supported", "supported"]) == "supported"
    assert same(["contradicted", "supported"]) == "undecided"
    assert same(["premise not met"]) == "premise not met"


def deep(k: int) -> GroupSpec:
    return spec_of(k, model=VggSpec(), lr=1e-4)


@pytest.mark.parametrize(
    ("claim", "spec", "hump", "spread", "expected"),
    [
        ("R1", spec_of, 0.001, 0.0, "supported"),
        ("R1", spec_of, 0.3, 0.0, "contradicted"),
        ("R1", spec_of, 0.02, 0.02, "undecided"),
        ("R1", deep, 0.001, 0.0, "premise not met"),
        ("R2", deep, 0.3, 0.0, "supported"),
        ("R2", deep, 0.001, 0.0, "contradicted"),
        ("R2", deep, 0.02, 0.02, "undecided"),
        ("R2", spec_of, 0.3, 0.0, "premise not met"),
        ("R2", lambda k: spec_of(k, model=VggSpec(), lr=1e-3), 0.3, 0.0, "premise not met"),  # not the paper's rate
    ],
)
def test_depth(claim, spec, hump, spread, expected):
    def make(spec: GroupSpec) -> PairResult:
        height = hump + spread * (-1) ** spec.replicate
        result = ok_pair(spec, height)
        result.row["accuracy_difference"] = -100 * height if not spread else -5 + 5 * (-1) ** spec.replicate
        return result

    study = study_of(pairs(make, spec))
    assert outcome_of(BY_ID[claim], study) == expected


@pytest.mark.parametrize(("hump", "expected"), [(0.001, "supported"), (0.3, "contradicted")])
def test_shallow_networks_are_judged_at_the_papers_rate(hump, expected):
    def make(spec: GroupSpec) -> PairResult:
        mine = spec.model == L1 and spec.train.lr == 1e-3
        result = ok_pair(spec, hump if mine else 0.1, tilt=0.001 * spec.replicate)
        result.row["accuracy_difference"] = -100 * (hump if mine else 0.1)
        return result

    study = study_of(pairs(make, spec_of, lambda k: spec_of(k, lr=1e-4), lambda k: spec_of(k, model=L3)))
    found = BY_ID["R1"].reading(study).expectations
    assert [expectation.what for expectation in found] == ["mlp 32: barrier", "mlp 32: Δ", "mlp 32: train barrier"]
    np.testing.assert_allclose(found[0].values, hump, atol=1e-9)
    np.testing.assert_allclose(found[1].values, -100 * hump)
    np.testing.assert_allclose(found[2].values, hump / 2, atol=1e-9)
    assert found[2].side is None
    assert outcome_of(BY_ID["R1"], study) == expected


def test_deep_networks_are_expected_to_lose():
    def make(spec: GroupSpec) -> PairResult:
        result = ok_pair(spec, 0.3)
        result.row["accuracy_difference"] = -30.0
        return result

    study = study_of(pairs(make, lambda k: spec_of(k, model=VggSpec(), lr=1e-4), spec_of))
    assert {e.what for e in BY_ID["R2"].reading(study).expectations} == {
        "vgg-11: barrier",
        "vgg-11: Δ",
        "vgg-11: train barrier",
    }
    assert outcome_of(BY_ID["R2"], study) == "supported"
    assert outcome_of(BY_ID["R1"], study) == "contradicted"


def test_pairs_that_are_not_trained_decide_nothing():
    study = study_of(pairs(undertrained_pair, spec_of, lambda k: spec_of(k, model=VggSpec(), lr=1e-4)))
    for claim in CLAIMS:
        assert outcome_of(claim, study) == ("undecided" if claim.id in ("R1", "R2") else "premise not met")


def test_overfitting_is_read_where_the_longest_training_is_connected():
    def make(spec: GroupSpec) -> PairResult:
        # Of ok_pair the train error is half of the test error; the latter is a multiple of 1/360 in the path.
        return ok_pair(spec, 0.0 if spec.train.lr == 1e-3 else 0.3, endpoint=0.1 if spec.train.epochs == 5 else 0.3)

    results = pairs(
        make,
        *(lambda k, e=e, lr=lr: spec_of(k, model=L3, epochs=e, lr=lr) for e in (5, 10, 20) for lr in (1e-3, 1e-2)),
    )
    study = study_of(results, learning_curves(results, rise=0.2))
    lost, gap, rise = BY_ID["R3"].reading(study).expectations
    assert lost.what == "mlp 32-32-32, learning rate 0.001: test accuracy at λ = ½, 20 epochs minus 5"
    np.testing.assert_allclose(lost.values, -0.2, atol=2 / 360)
    np.testing.assert_allclose(gap.values, 0.1, atol=3 / 360)
    np.testing.assert_allclose(rise.values, 0.3)  # the mean of 0.2 and 0.4
    assert outcome_of(BY_ID["R3"], study) == "supported"


@pytest.mark.parametrize(
    ("late", "hump", "expected"),
    [
        (0.3, 0.0, "supported"),
        (0.1, 0.0, "contradicted"),
        (0.2, 0.0, "undecided"),
        (0.3, 0.3, "premise not met"),  # the longest training is disconnected
    ],
)
def test_overfitting_is_undone_by_better_interpolants(late, hump, expected):
    def make(spec: GroupSpec) -> PairResult:
        last = spec.train.epochs == 20
        return ok_pair(spec, hump if last else 0.0, endpoint=late if last else 0.2)

    results = pairs(make, *(lambda k, e=e: spec_of(k, model=L3, epochs=e) for e in (5, 20)))
    study = study_of(results, learning_curves(results, rise=0.2))
    assert outcome_of(BY_ID["R3"], study) == expected


@pytest.mark.parametrize(
    ("hump", "spread", "expected"),
    [(-0.02, 0.0, "supported"), (0.05, 0.0, "contradicted"), (0.0, 0.02, "undecided")],
)
def test_basins_are_measured_at_the_midpoint(hump, spread, expected):
    def make(spec: GroupSpec) -> PairResult:
        return ok_pair(spec, hump + spread * (-1) ** spec.replicate, endpoint=0.1, tilt=0.01)

    study = study_of(pairs(make, spec_of))
    (found,) = BY_ID["R4"].reading(study).expectations
    # Of ok_pair the test loss is four times the error; A is the better end, and the middle lies half a tilt above it.
    heights = [hump + spread * (-1) ** replicate for replicate in range(4)]
    np.testing.assert_allclose(found.values, [-4 * (height + 0.005) for height in heights], atol=1e-9)
    assert outcome_of(BY_ID["R4"], study) == expected


def test_the_lowest_of_many_noisy_losses_is_no_basin():
    """Where no interpolant is better than the ends, the best of many looks so by chance, and the middle does not."""
    rng = np.random.default_rng(0)

    def make(spec: GroupSpec) -> PairResult:
        result = ok_pair(spec, 0.0, endpoint=0.1)
        for row in result.tables["paths"]:
            row["loss_sum"] += row["n"] * rng.normal(0, 0.05)
        return result

    results = [make(spec_of(k)) for k in range(8)]
    study = study_of(results)
    (found,) = BY_ID["R4"].reading(study).expectations
    losses = [[row["loss_sum"] / row["n"] for row in r.tables["paths"] if row["split"] == "test"] for r in results]
    depths = np.array([min(one[0], one[-1]) - min(one[1:-1]) for one in losses])
    lowest = Expectation(what="", values=depths, unit="nats", side="above")
    assert lowest.outcome(0.95) == "supported"
    assert found.outcome(0.95) != "supported"


def test_noise_is_a_rank_correlation_within_what_is_held():
    def make(spec: GroupSpec) -> PairResult:
        return ok_pair(spec, hump=10 * spec.train.lr / spec.train.batch_size)

    grid = [
        (lambda k, lr=lr, size=size: spec_of(k, lr=lr, batch_size=size))
        for lr in (1e-3, 1e-2, 1e-1)
        for size in (16, 32, 64)
    ]
    study = study_of(pairs(make, *grid))
    found = {expectation.what: expectation for expectation in BY_ID["R5"].reading(study).expectations}
    np.testing.assert_allclose(found["mlp 32: rank correlation of learning rate and barrier"].values, 1)
    np.testing.assert_allclose(found["mlp 32: rank correlation of batch size and barrier"].values, -1)
    np.testing.assert_allclose(found["mlp 32: rank correlation of batch size and disagreement"].values, -1)
    assert outcome_of(BY_ID["R5"], study) == "supported"
    flat = study_of(pairs(lambda spec: ok_pair(spec, 0.0), *grid))
    of_barriers = [e for e in BY_ID["R5"].reading(flat).expectations if e.what.endswith("barrier")]
    assert [(e.side, e.known.tolist()) for e in of_barriers] == 2 * [(None, 4 * [0.0])]
    assert outcome_of(BY_ID["R5"], flat) == "premise not met"
    two_rates = study_of(pairs(make, grid[0], grid[6]))
    assert two_rates.judged["verdict"].eq("disconnected").any()
    assert outcome_of(BY_ID["R5"], two_rates) == "undecided"
    less = study_of(pairs(lambda spec: ok_pair(spec, hump=1e-4 * spec.train.batch_size / spec.train.lr), *grid))
    assert outcome_of(BY_ID["R5"], less) == "contradicted"


def spawned(of_basin: float, of_epoch: float, noise: float = 0.0, connected_from: int = 1) -> Study:
    """Members that separate at 0, 1, 3 and 8: what they have in common grows with their basin and with the epoch."""
    rng = np.random.default_rng(1)

    def make(spec: GroupSpec) -> PairResult:
        together = spec.train.spawn_epoch >= connected_from
        result = ok_pair(spec, 0.0 if together else 0.3)
        common = of_basin * together + of_epoch * spec.train.spawn_epoch + rng.normal(0, noise)
        offset = 0.1 * spec.replicate  # of all cells: only the difference is to count
        result.row.update(
            {
                "error_overlap_ratio": 1 + offset + 2 * common,
                "same_error": 0.2 + offset + common,
                "ensemble_accuracy": 0.5 + offset,
                "ensemble_gain_accuracy": 0.3 + offset - 0.1 * common,
                "average_gain_accuracy": 0.0,
                "disagreement": 0.5 + offset - common,
            }
        )
        return result

    return study_of(pairs(make, *(lambda k, e=e: spec_of(k, spawn_epoch=e) for e in (0, 1, 3, 8))))


def test_basins_are_compared_replicate_by_replicate_and_at_equal_joint_training():
    study = spawned(of_basin=0.05, of_epoch=0.01)
    for claim, factors in (
        ("R6", {"both": 2, "same": 1}),
        ("R8", {"disagreement": -1, "ensemble's accuracy minus": -0.1}),
    ):
        reading = BY_ID[claim].reading(study)
        for title, factor in factors.items():
            plain, share, nearest = (e for e in reading.expectations if e.what.startswith(title) and "cells" in e.what)
            np.testing.assert_allclose(plain.values, 4 * [factor * (0.05 + 0.01 * 4)])  # 4: the mean of 1, 3 and 8
            np.testing.assert_allclose(share.values, 4 * [factor * 0.05])
            np.testing.assert_allclose(nearest.values, 4 * [factor * (0.05 + 0.01)])
            assert (plain.side, share.case) == (None, nearest.case)
            assert nearest.what.endswith("nearest spawn epochs (1 against 0)")
        assert "trained jointly for 4 epochs more" in reading.alternative
        assert reading.confidence == pytest.approx(1 - 0.05 / 4)


@pytest.mark.parametrize("claim", ["R6", "R8"])
@pytest.mark.parametrize(
    ("study", "expected"),
    [
        ({"of_basin": 0.05, "of_epoch": 0.01}, "supported"),
        ({"of_basin": -0.05, "of_epoch": 0.01}, "contradicted"),
        ({"of_basin": 0.0, "of_epoch": 0.05, "noise": 0.002}, "not decidable"),  # that is joint training
        ({"of_basin": 0.0, "of_epoch": 0.0, "noise": 0.01}, "undecided"),
        ({"of_basin": 0.05, "of_epoch": 0.01, "connected_from": 0}, "premise not met"),  # all are connected
    ],
)
def test_joint_training_is_told_apart_from_the_basin(claim, study, expected):
    assert outcome_of(BY_ID[claim], spawned(**study)) == expected


@pytest.mark.parametrize("claim", ["R6", "R8"])
def test_with_two_spawn_epochs_the_share_of_the_basin_is_not_known(claim):
    whole = spawned(of_basin=0.05, of_epoch=0.01)
    few = replace(whole, pairs=whole.pairs[whole.pairs["spawn_epoch"].isin([0, 8])])
    reading = BY_ID[claim].reading(few)
    assert not any(len(e.known) for e in reading.expectations if e.what.endswith("as a covariate"))
    assert BY_ID[claim].outcome(reading) == "not decidable"


@pytest.mark.parametrize(
    ("restored", "raw", "expected"),
    [
        (0.005, 0.0, "supported"),
        (0.06, 0.0, "contradicted"),
        (0.02, 0.0, "undecided"),
        (0.005, 0.2, "premise not met"),
    ],
)
def test_batch_norm_is_judged_where_normalised_inputs_break_and_raw_ones_do_not(restored, raw, expected):
    heights = {("none", True): 0.2, ("none", False): raw, ("batch", True): restored, ("batch", False): 0.02}

    def make(spec: GroupSpec) -> PairResult:
        broken = spec.train.lr == 1e-3
        height = heights[spec.model.norm, spec.dataset.normalise] if broken else 0.0
        result = ok_pair(spec, max(0.0, height + 0.001 * (-1) ** spec.replicate))
        result.row.update(
            {
                f"recalibrated_{name}": value
                for name, value in result.row.items()
                if spec.model.norm == "batch" and "barrier" in name
            }
        )
        return result

    settings = [
        (
            lambda k, norm=norm, normalise=normalise, lr=lr: spec_of(
                k, MlpSpec(hidden=(32,), norm=norm), normalise, lr=lr
            )
        )
        for norm, normalise in heights
        for lr in (1e-3, 1e-2)
    ]
    study = study_of(pairs(make, *settings))
    reading = BY_ID["R7"].reading(study)
    assert len(reading.expectations) == 8
    judged = [expectation for expectation in reading.expectations if expectation.side]
    assert len(judged) == (expected != "premise not met")
    assert bool(reading.unmet) == (expected == "premise not met")
    for expectation in judged:
        assert expectation.what == "mlp, hidden 32, learning rate 0.001: barrier, normalised inputs, BatchNorm"
        np.testing.assert_allclose(expectation.mean, restored, atol=1e-9)
    assert outcome_of(BY_ID["R7"], study) == expected


def test_a_cell_that_lost_half_of_its_pairs_decides_nothing():
    def pairs_of(n: int) -> list[PairResult]:
        return [ok_pair(spec_of(k), 0.1) if k < n else undertrained_pair(spec_of(k)) for k in range(4)]

    study = study_of(pairs_of(2))
    assert len(study.pairs) == 4
    assert len(study.judged) == 0
    assert study_of(pairs_of(3)).judged["replicate"].tolist() == [0, 1, 2]


def test_networks_whose_pairs_are_all_left_out_are_told_of():
    study = study_of(pairs(undertrained_pair, spec_of))
    found = BY_ID["R1"].reading(study).expectations
    assert [(expectation.what, len(expectation.known)) for expectation in found] == [
        ("mlp 32: barrier", 0),
        ("mlp 32: Δ", 0),
        ("mlp 32: train barrier", 0),
    ]
