"""Claims of single layers, directions and federations, on studies whose outcome can be worked out by hand."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from lmc_tune.analysis.reproduction.claims import CLAIMS
from lmc_tune.analysis.reproduction.expectations import Expectation
from lmc_tune.analysis.reproduction.sweep_tables import Study
from lmc_tune.experiment import GroupSpec, ShiftSpec
from lmc_tune.tables.rows import PairResult
from tests.analysis.cases import N_TEST, ok_pair
from tests.analysis.layered import layered_pair
from tests.analysis.reproduction.studies import outcome_of, spec_of, study_of

BY_ID = {claim.id: claim for claim in CLAIMS}
# What a layer's barrier needs to lie above the threshold of 2%, in test examples.
BREAKS = N_TEST // 20


def study(make: Any, replicates: Iterable[int] = range(6), **train: Any) -> Study:
    return study_of([make(spec_of(replicate, **train)) for replicate in replicates])


def layered(spec: GroupSpec, rises: list[int], hump: float = 0.3) -> PairResult:
    jitter = spec.replicate % 2
    names = [f"linear{at}" for at in range(1, len(rises) + 1)]
    return layered_pair(
        spec, {name: (rise, rise + jitter) for name, rise in zip(names, rises, strict=True)}, hump, n_lambdas=1
    )


def expectations(claim: str, found: Study) -> dict[str, Expectation]:
    return {one.what: one for one in BY_ID[claim].reading(found).expectations}


@pytest.mark.parametrize("claim", ["R9", "R10", "R11"])
@pytest.mark.parametrize(
    ("rises", "hump", "outcome"),
    [
        ([0, 1, 0], 0.3, "supported"),
        ([0, BREAKS, 0], 0.3, "contradicted"),
        ([0, 1, 0], 0.001, "contradicted"),
    ],
)
def test_no_single_layer_may_break_and_the_whole_network_must(claim, rises, hump, outcome):
    found = study(lambda spec: layered(spec, rises, hump))
    assert outcome_of(BY_ID[claim], found) == outcome
    highest = next(one for what, one in expectations(claim, found).items() if "highest barrier of any" in what)
    assert sorted(highest.known) == pytest.approx(sorted((max(rises) + k % 2) / N_TEST for k in range(6)))


def test_layers_that_were_not_measured_test_no_claim():
    found = study(lambda spec: ok_pair(spec, 0.1))
    for claim in ("R9", "R12", "R13", "R14", "R15", "R16"):
        assert outcome_of(BY_ID[claim], found) == "premise not met"


@pytest.mark.parametrize(
    ("rises", "share"),
    # Of the whole barrier of 100 examples half is reached by the third layer, and by the first.
    [([1, 1, 60, 1, 1, 1], 2.5 / 6), ([60, 1, 1, 1, 1, 1], 0.5 / 6)],
)
def test_the_layers_that_have_half_of_the_barrier_are_counted_from_the_input(rises, share):
    found = study(lambda spec: layered(spec, rises, 100 / N_TEST))
    shares = next(one for what, one in expectations("R12", found).items() if "from the input" in what)
    assert shares.known == pytest.approx(6 * [share])


def with_steps(spec: GroupSpec, rises: dict[str, float]) -> PairResult:
    """Steps of one layer and of noise at the members, each with its own rise of the test loss, a little unequal."""
    row = {"condition": "naive", "split": "test", "correct": 0, "n": 100, "draw": 0, "norm": 1.0}
    jitter = 1 + 0.01 * (spec.replicate % 3)
    rows: list[dict[str, Any]] = []
    for at in (0.0, 1.0):
        still = {"kind": "unmoved", "lambda": at, "layer": None, "position": None, "alpha": 0.0}
        rows.append({**row, **still, "loss_sum": 50.0})
        for kind, rise in rises.items():
            of_layer = kind in ("interpolation", "random")
            place = {"layer": "linear1" if of_layer else None, "position": 0 if of_layer else None}
            for alpha, factor in ((0.5, 1.0), (1.0, 9.0)):
                loss = 50 + 100 * rise * jitter * factor
                rows.append({**row, **place, "kind": kind, "lambda": at, "alpha": alpha, "loss_sum": loss})
    pair = ok_pair(spec, 0.1)
    return replace(pair, tables={**pair.tables, "directions": rows})


@pytest.mark.parametrize(
    ("one", "other", "outcome"),
    [(0.3, 0.1, "supported"), (0.1, 0.3, "supported"), (0.3, 0.29, "contradicted")],
)
def test_directions_and_subspaces_differ_by_a_tenth_at_least(one, other, outcome):
    rises = {"interpolation": one, "random": other, "span": one, "complement": other}
    found = study(lambda spec: with_steps(spec, rises))
    for claim in ("R13", "R14"):
        (expectation,) = expectations(claim, found).values()
        assert expectation.known == pytest.approx(6 * [(one - other) / max(one, other)])
        assert outcome_of(BY_ID[claim], found) == outcome
        assert expectation.expected_words == "outside ±0.1"


def test_layers_that_break_are_counted_and_compared_replicate_by_replicate():
    def more(spec: GroupSpec) -> PairResult:
        high = spec.members["a"].train.lr > 0.01
        return layered(spec, [BREAKS, BREAKS * high, 0, BREAKS * (high and spec.replicate < 3)])

    both = study_of([more(spec_of(k, lr=lr)) for k in range(6) for lr in (0.001, 0.1)])
    (expectation,) = expectations("R15", both).values()
    assert expectation.known.tolist() == [2, 2, 2, 1, 1, 1]
    assert outcome_of(BY_ID["R15"], both) == "supported"
    one = study_of([more(spec_of(k, lr=0.1)) for k in range(6)])
    assert outcome_of(BY_ID["R15"], one) == "premise not met"


def test_tasks_are_compared_at_equal_rates():
    def of(task: str, replicate: int) -> GroupSpec:
        spec = spec_of(replicate).model_dump()
        return GroupSpec.model_validate(spec | {"dataset": {"name": task}})

    pairs = [layered(of(task, k), rises) for k in range(5) for task, rises in TASKS.items()]
    (expectation,) = expectations("R16", study_of(pairs)).values()
    assert expectation.known.tolist() == 5 * [1]


TASKS = {"mnist": [0, BREAKS, 0], "cifar10": [BREAKS, BREAKS, 0]}


@pytest.mark.parametrize(("tilt", "outcome"), [(0.2, "supported"), (0.0, "contradicted")])
def test_the_mean_of_unequal_members_makes_a_barrier_of_a_straight_path(tilt, outcome):
    def noisy(spec: GroupSpec) -> PairResult:
        return ok_pair(spec, 0.001, tilt=tilt)

    shift = ShiftSpec.model_validate({"kind": "domain", "domain": "blur"})
    specs = [GroupSpec.model_validate(spec_of(k).model_dump() | {"shift": shift.model_dump()}) for k in range(6)]
    found = study_of([noisy(spec) for spec in specs])
    assert outcome_of(BY_ID["R17"], found) == outcome


@pytest.mark.parametrize(
    ("iid", "unlike", "outcome"),
    [
        ({"all": 0.9, "some": 0.9}, {"all": 0.3, "some": 0.5}, "supported"),
        ({"all": 0.8, "some": 0.9}, {"all": 0.3, "some": 0.5}, "contradicted"),
        ({"all": 0.9, "some": 0.9}, {"all": 0.5, "some": 0.3}, "contradicted"),
    ],
)
def test_averages_of_some_layers_are_compared_with_those_of_all(iid, unlike, outcome):
    found = study(lambda spec: ok_pair(spec, 0.1))
    rows = [
        {
            "status": "ok",
            "replicate": replicate,
            "client_split": split,
            "averaged_layers": layers,
            "averaged_test_accuracy": accuracy + 0.002 * (replicate % 2) * (layers == "some"),
        }
        for replicate in range(5)
        for split, accuracies in (("iid", iid), ("dirichlet", unlike))
        for layers, accuracy in [*accuracies.items(), ("none", 0.2)]
    ]
    assert outcome_of(BY_ID["R18"], replace(found, pairs=pd.DataFrame(rows))) == outcome
