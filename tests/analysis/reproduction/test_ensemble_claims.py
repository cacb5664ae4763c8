"""Claims of ensembles in one basin, on studies whose outcome can be worked out by hand."""

from typing import Any

import pytest

from lmc_tune.analysis.reproduction.claims import CLAIMS
from lmc_tune.analysis.reproduction.sweep_tables import Study
from lmc_tune.tables.rows import PairResult, spec_columns
from tests.analysis.reproduction.studies import outcome_of, study_of
from tests.cases import ensemble_spec

BY_ID = {claim.id: claim for claim in CLAIMS}
REPLICATES = 5
# What the paper finds, as mean accuracies (fractions) and q̄ (points).
PUBLISHED: dict[str, dict[str, float]] = {
    "deep": {"ensemble_accuracy": 0.78, "member_accuracy": 0.734, "connectivity": -68.0},
    "permuted": {"ensemble_accuracy": 0.78, "member_accuracy": 0.734, "connectivity": -45.0},
    "multi_pcd": {"ensemble_accuracy": 0.78, "member_accuracy": 0.734, "connectivity": -41.0},
    "constrained": {"ensemble_accuracy": 0.759, "member_accuracy": 0.735, "connectivity": 0.9},
    "distilled": {"ensemble_accuracy": 0.776, "member_accuracy": 0.753, "connectivity": 0.4},
    "swe": {"ensemble_accuracy": 0.75, "member_accuracy": 0.74, "connectivity": 3.3},
    "distilled_deep": {"ensemble_accuracy": 0.784, "member_accuracy": 0.752, "connectivity": -69.0},
}


def result(family: str, replicate: int, values: dict[str, float], **settings: Any) -> PairResult:
    """Accuracies of a replicate are all higher or lower by the same; differences are of a hundredth of that."""
    common, own = 0.01 * (replicate - 2), 0.0001 * (replicate % 2)
    columns = {name: value + (100 * own if name == "connectivity" else common + own) for name, value in values.items()}
    gain = columns["ensemble_accuracy"] - columns["member_accuracy"]
    barrier = {"condition": "naive", "test_error_barrier_chord": 0.01, "train_error_barrier_chord": 0.01}
    return PairResult(
        columns={
            **spec_columns(ensemble_spec(family, replicate=replicate, **settings)),
            "status": "ok",
            "reason": "",
            "lowest_train_accuracy": 0.9,
            "n_train": 400,
            "ensemble_gain_accuracy": gain,
            **columns,
        },
        tables={"barriers": [barrier]},
    )


def study(changes: dict[str, dict[str, float]] | None = None, without: str = "") -> Study:
    found = {family: {**values, **(changes or {}).get(family, {})} for family, values in PUBLISHED.items()}
    return study_of(
        [result(family, k, values) for family, values in found.items() if family != without for k in range(REPLICATES)]
    )


@pytest.mark.parametrize("claim", ["R19", "R20", "R21", "R22", "R23"])
def test_what_the_paper_found_supports_it(claim):
    assert outcome_of(BY_ID[claim], study()) == "supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("R19", {"permuted": {"connectivity": -70.0}}),
        ("R19", {"permuted": {"connectivity": 2.0}}),
        ("R20", {"constrained": {"connectivity": -2.5}}),
        ("R21", {"constrained": {"ensemble_accuracy": 0.785}}),
        ("R22", {"distilled": {"ensemble_accuracy": 0.755}}),
        ("R22", {"distilled": {"ensemble_accuracy": 0.795}}),
        ("R22", {"distilled": {"connectivity": -5.0}}),
        ("R23", {"distilled": {"member_accuracy": 0.73}}),
    ],
)
def test_the_opposite_contradicts_it(claim, changes):
    assert outcome_of(BY_ID[claim], study(changes)) == "contradicted"


def test_differences_are_taken_replicate_by_replicate():
    """Between replicates accuracies differ by points; within one by a hundredth of a point."""
    found = BY_ID["R21"].reading(study()).expectations[0]
    assert found.what == "accuracy of the ensemble, constrained minus deep"
    assert found.known == pytest.approx([-2.1] * REPLICATES)
    assert (found.side, found.limit, found.unit) == ("below", 0.0, "percentage points")


@pytest.mark.parametrize(("claim", "family"), [("R19", "permuted"), ("R20", "constrained"), ("R22", "distilled")])
def test_without_the_family_the_premise_is_not_met(claim, family):
    assert outcome_of(BY_ID[claim], study(without=family)) == "premise not met"
    assert f"No ensemble is judged of: {family}" in BY_ID[claim].reading(study(without=family)).unmet


@pytest.mark.parametrize(
    ("slope", "outcome"), [(1.0, "supported"), (-1.0, "contradicted")], ids=["as published", "the other way round"]
)
def test_the_time_of_parting_is_ranked(slope, outcome):
    results = [
        result(
            "constrained",
            k,
            {
                "ensemble_accuracy": 0.7,
                "member_accuracy": 0.69,
                "connectivity": slope * t,
                "jensen_shannon": 0.1 - slope * 0.01 * t,
                "disagreement": 0.3 - slope * 0.02 * t,
            },
            t=t,
        )
        for t in (0, 1, 3, 5)
        for k in range(REPLICATES)
    ]
    assert outcome_of(BY_ID["R24"], study_of(results)) == outcome
    few = [one for one in results if one.columns["common_epochs"] in (0, 5)]
    assert outcome_of(BY_ID["R24"], study_of(few)) == "premise not met"
