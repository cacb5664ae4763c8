"""Claims on made-up studies whose outcome can be worked out by hand."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lmc_tune.analysis.reproduction.claims import CLAIMS, Claim, Expectation
from lmc_tune.analysis.reproduction.sweep_tables import Study
from lmc_tune.experiment import DatasetSpec, GroupSpec, MlpSpec, ModelSpec, VerdictSpec, VggSpec
from lmc_tune.experiment.reading import presets
from lmc_tune.tables.columns import CURVES, PATHS, RESULTS_SCHEMA
from lmc_tune.tables.rows import PairResult
from tests.analysis.cases import ok_pair, pair_spec, undertrained_pair

L1, L3 = MlpSpec(hidden=(32,)), MlpSpec(hidden=(32, 32, 32))
BY_ID = {claim.id: claim for claim in CLAIMS}


def spec_of(replicate: int, model: ModelSpec = L1, normalise: bool = True, **train: Any) -> GroupSpec:  # noqa: FBT001, FBT002
    base = pair_spec(replicate=replicate)
    settings = {"lr": 1e-3, "batch_size": 32, "optimizer": "adam", "epochs": 20} | train
    return GroupSpec.model_validate(
        base.model_dump()
        | {
            "model": model.model_dump(),
            "dataset": DatasetSpec(normalise=normalise).model_dump(),
            "train": settings,
        }
    )


def study_of(results: Sequence[PairResult], curves: pd.DataFrame | None = None) -> Study:
    table = pd.DataFrame([result.row for result in results]).reindex(columns=RESULTS_SCHEMA.names)
    rows = [
        {"key": result.key, **row} for result in sorted(results, key=lambda r: r.key) for row in result.tables["paths"]
    ]
    paths = pa.Table.from_pylist(rows, schema=PATHS.schema)
    if curves is None:
        curves = pd.DataFrame(columns=CURVES.schema.names)
    return Study.of(table, paths, curves, VerdictSpec())


def pairs(make: Callable[[GroupSpec], PairResult], *specs: Callable[[int], GroupSpec]) -> list[PairResult]:
    return [make(spec(k)) for spec in specs for k in range(4)]


def outcome_of(claim: Claim, study: Study) -> str:
    return claim.outcome(claim.expectations(study))


@pytest.mark.parametrize(
    ("values", "side", "expected"),
    [
        ([0.1, 0.2, 0.3, 0.2], "above", "supported"),
        ([0.1, 0.2, 0.3, 0.2], "below", "contradicted"),
        ([-0.2, -0.2, -0.2], "below", "supported"),
        ([-0.2, -0.2], "below", "not decidable"),  # too few
        ([-0.2, -0.2, -0.2, np.nan], "below", "not decidable"),  # what is missing may lie anywhere
        ([-0.2, -0.2, -0.2, -np.inf], "below", "not decidable"),
        ([-0.1, -0.2, -0.15], "above", "contradicted"),
        ([0.1, 0.2], "above", "not decidable"),  # t at one degree of freedom reaches 0.64
        ([-1.0, 1.0, 0.5], "above", "not decidable"),
        ([0.5], "above", "not decidable"),
        ([], "above", "not decidable"),
        ([0.5, np.nan], "above", "not decidable"),
        ([0.0, 0.0], "above", "not decidable"),
    ],
)
def test_an_expectation_is_decided_by_the_whole_interval(values, side, expected):
    assert Expectation(what="", values=np.array(values), unit="nats", side=side).outcome(0.95) == expected


def test_expectations_of_a_case_hold_together():
    def expected(mean: float, case: str) -> Expectation:
        return Expectation(what=f"{mean}", values=np.full(3, mean), unit="nats", side="above", case=case)

    claim = replace(BY_ID["R3"], holds="one")
    assert claim.outcome([expected(1, "x"), expected(-1, "x"), expected(2, "y"), expected(-2, "y")]) == "contradicted"
    assert claim.outcome([expected(1, "x"), expected(-1, "x"), expected(2, "y"), expected(3, "y")]) == "supported"
    assert claim.outcome([expected(1, "x"), expected(0, "x"), expected(-2, "y")]) == "not decidable"


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=8), st.sampled_from([0.8, 0.95, 0.99]))
def test_the_interval_is_students(values, confidence):
    found = Expectation(what="", values=np.array([*values, np.nan]), unit="nats")
    scale = stats.sem(values)
    expected = stats.t.interval(confidence, len(values) - 1, np.mean(values), scale) if scale else 2 * [np.mean(values)]
    np.testing.assert_allclose(found.interval(confidence), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("holds", "means", "expected"),
    [
        ("every", [1, 1], "supported"),
        ("every", [1, 0], "not decidable"),
        ("every", [1, 0, -1], "contradicted"),
        ("every", [], "not decidable"),
        ("one", [0, -1, 1], "supported"),
        ("one", [-1, -1], "contradicted"),
        ("one", [-1, 0], "not decidable"),
    ],
)
def test_expectations_decide_the_claim(holds, means, expected):
    found = [
        Expectation(what=f"{at}", values=np.array([mean, mean, mean], dtype=float), unit="nats", side="above")
        for at, mean in enumerate(means)
    ]
    told = Expectation(what="", values=np.array([-9.0, -9.0]), unit="nats")
    claim = replace(BY_ID["R1"], holds=holds)
    assert claim.outcome([*found, told]) == expected


def test_more_expectations_ask_for_wider_intervals():
    """By chance alone one of twenty would be decided at 95% each."""
    narrow = Expectation(what="", values=np.array([0.1, 0.2, 0.35, 0.3]), unit="nats", side="above")
    told = replace(narrow, side=None)
    claim = BY_ID["R1"]
    assert claim.confidence([narrow, told]) == 0.95
    assert claim.confidence(4 * [narrow]) == pytest.approx(0.9875)
    assert claim.outcome([narrow, told]) == "supported"
    assert claim.outcome(8 * [narrow]) == "not decidable"


def test_every_claim_has_its_preset_and_its_small_twin():
    for claim in CLAIMS:
        assert {claim.preset, f"{claim.preset}_small"} <= presets().keys()
    assert [claim.id for claim in CLAIMS] == [f"R{n}" for n in range(1, 9)]


@pytest.mark.parametrize(("hump", "expected"), [(0.001, "supported"), (0.3, "contradicted")])
def test_shallow_networks_are_judged_at_the_papers_rate(hump, expected):
    def make(spec: GroupSpec) -> PairResult:
        mine = spec.model == L1 and spec.train.lr == 1e-3
        result = ok_pair(spec, hump if mine else 0.1, tilt=0.001 * spec.replicate)
        result.row["accuracy_difference"] = -100 * (hump if mine else 0.1)
        return result

    study = study_of(pairs(make, spec_of, lambda k: spec_of(k, lr=1e-4), lambda k: spec_of(k, model=L3)))
    found = BY_ID["R1"].expectations(study)
    assert [expectation.what for expectation in found] == ["mlp 32: barrier", "mlp 32: Δ"]
    np.testing.assert_allclose(found[0].values, hump, atol=1e-9)
    np.testing.assert_allclose(found[1].values, -100 * hump)
    assert outcome_of(BY_ID["R1"], study) == expected


def test_deep_networks_are_expected_to_lose():
    def make(spec: GroupSpec) -> PairResult:
        result = ok_pair(spec, 0.3)
        result.row["accuracy_difference"] = -30.0
        return result

    study = study_of(pairs(make, lambda k: spec_of(k, model=VggSpec(), lr=1e-4), spec_of))
    assert {e.what for e in BY_ID["R2"].expectations(study)} == {"vgg-11: barrier", "vgg-11: Δ"}
    assert outcome_of(BY_ID["R2"], study) == "supported"
    assert outcome_of(BY_ID["R1"], study) == "contradicted"


def test_pairs_that_are_not_trained_decide_nothing():
    study = study_of(pairs(undertrained_pair, spec_of, lambda k: spec_of(k, model=VggSpec(), lr=1e-4)))
    for claim in CLAIMS:
        assert outcome_of(claim, study) == "not decidable"


def learning_curves(results: Sequence[PairResult], rise: float) -> pd.DataFrame:
    """Test loss falls from 1 to 0.5 and ends ``rise`` higher, for member B twice as much."""
    rows = [
        {"key": result.key, "member": member, "step": step, "test_loss": loss}
        for result in results
        for member, factor in (("a", 1), ("b", 2), ("joint", 100))
        for step, loss in ((30, 0.5 + factor * rise), (10, 1.0), (20, 0.5))
    ]
    return pd.DataFrame(rows).reindex(columns=CURVES.schema.names)


def test_overfitting_is_read_where_the_longest_training_is_connected():
    def make(spec: GroupSpec) -> PairResult:
        # Of ok_pair the train error is half of the test error; the latter is a multiple of 1/360 in the path.
        return ok_pair(spec, 0.0 if spec.train.lr == 1e-3 else 0.3, endpoint=0.1 if spec.train.epochs == 5 else 0.3)

    results = pairs(
        make,
        *(lambda k, e=e, lr=lr: spec_of(k, model=L3, epochs=e, lr=lr) for e in (5, 10, 20) for lr in (1e-3, 1e-2)),
    )
    study = study_of(results, learning_curves(results, rise=0.2))
    lost, gap, rise = BY_ID["R3"].expectations(study)
    assert lost.what == "mlp 32-32-32, learning rate 0.001: test accuracy at λ = ½, 20 epochs minus 5"
    np.testing.assert_allclose(lost.values, -0.2, atol=2 / 360)
    np.testing.assert_allclose(gap.values, 0.1, atol=3 / 360)
    np.testing.assert_allclose(rise.values, 0.3)  # the mean of 0.2 and 0.4
    assert outcome_of(BY_ID["R3"], study) == "supported"


@pytest.mark.parametrize(("hump", "depth"), [(-0.02, 0.08), (0.05, None)])
def test_basins_are_measured_below_the_better_endpoint(hump, depth):
    study = study_of(pairs(lambda spec: ok_pair(spec, hump, endpoint=0.1, tilt=0.0), spec_of))
    (found,) = BY_ID["R4"].expectations(study)
    if depth is None:
        assert found.mean < 0
        assert outcome_of(BY_ID["R4"], study) == "contradicted"
    else:
        np.testing.assert_allclose(found.values, depth, atol=1e-9)
        assert outcome_of(BY_ID["R4"], study) == "supported"


def test_noise_is_a_rank_correlation_within_what_is_held():
    def make(spec: GroupSpec) -> PairResult:
        return ok_pair(spec, hump=10 * spec.train.lr / spec.train.batch_size)

    grid = [
        (lambda k, lr=lr, size=size: spec_of(k, lr=lr, batch_size=size))
        for lr in (1e-3, 1e-2, 1e-1)
        for size in (16, 32, 64)
    ]
    study = study_of(pairs(make, *grid))
    found = {expectation.what: expectation for expectation in BY_ID["R5"].expectations(study)}
    np.testing.assert_allclose(found["mlp 32: rank correlation of learning rate and barrier"].values, 1)
    np.testing.assert_allclose(found["mlp 32: rank correlation of batch size and barrier"].values, -1)
    np.testing.assert_allclose(found["mlp 32: rank correlation of batch size and disagreement"].values, -1)
    assert outcome_of(BY_ID["R5"], study) == "supported"
    flat = study_of(pairs(lambda spec: ok_pair(spec, 0.0), *grid))
    of_barriers = [e for e in BY_ID["R5"].expectations(flat) if e.what.endswith("barrier")]
    assert [(e.side, e.known.tolist()) for e in of_barriers] == 2 * [(None, 4 * [0.0])]
    two_rates = study_of(pairs(make, grid[0], grid[3]))
    assert outcome_of(BY_ID["R5"], two_rates) == "not decidable"


def test_basins_are_compared_replicate_by_replicate():
    def make(spec: GroupSpec) -> PairResult:
        together = spec.train.spawn_epoch > 0
        result = ok_pair(spec, 0.0 if together else 0.3)
        offset = 0.1 * spec.replicate  # common to both cells: only the difference is to count
        result.row.update(
            {
                "error_overlap_ratio": offset + (2.0 if together else 1.5),
                "same_error": offset + (0.6 if together else 0.4),
                "ensemble_accuracy": offset + (0.5 if together else 0.6),
                "ensemble_gain_accuracy": offset + (0.001 if together else 0.03),
                "average_gain_accuracy": 0.0,
                "disagreement": offset + (0.1 if together else 0.3),
            }
        )
        return result

    study = study_of(pairs(make, spec_of, lambda k: spec_of(k, spawn_epoch=5)))
    for claim, differences in (("R6", [0.5, 0.2]), ("R8", [-0.2, -0.029])):
        found = [e for e in BY_ID[claim].expectations(study) if e.side is not None]
        for expectation, difference in zip(found, differences, strict=True):
            np.testing.assert_allclose(expectation.values, difference)
        assert outcome_of(BY_ID[claim], study) == "supported"
    told = [e for e in BY_ID["R8"].expectations(study) if e.side is None]
    assert [len(e.values) for e in told] == 5 * [4]
    np.testing.assert_allclose(told[0].values, -0.1)
    more = study_of(pairs(make, spec_of, *(lambda k, n=n: spec_of(k, spawn_epoch=n) for n in (5, 6))))
    (gain,) = (e for e in BY_ID["R8"].expectations(more) if e.what.startswith("connected cells: weight"))
    assert len(gain.values) == 4  # cells of one replicate share its seeds


@pytest.mark.parametrize(
    ("restored", "raw", "expected"),
    [(0.005, 0.0, "supported"), (0.06, 0.0, "contradicted"), (0.005, 0.2, "not decidable")],
)
def test_batch_norm_is_judged_where_normalised_inputs_break_and_raw_ones_do_not(restored, raw, expected):
    heights = {("none", True): 0.2, ("none", False): raw, ("batch", True): restored, ("batch", False): 0.02}

    def make(spec: GroupSpec) -> PairResult:
        broken = spec.train.lr == 1e-3
        result = ok_pair(spec, heights[spec.model.norm, spec.dataset.normalise] if broken else 0.0)
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
    found = BY_ID["R7"].expectations(study)
    assert len(found) == 8
    judged = [expectation for expectation in found if expectation.side]
    assert len(judged) == (expected != "not decidable")
    for expectation in judged:
        assert expectation.what == "mlp, hidden 32, learning rate 0.001: barrier, normalised inputs, BatchNorm"
        np.testing.assert_allclose(expectation.values, restored, atol=1e-9)
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
    found = BY_ID["R1"].expectations(study)
    assert [(expectation.what, len(expectation.known)) for expectation in found] == [
        ("mlp 32: barrier", 0),
        ("mlp 32: Δ", 0),
    ]
