"""Claims of single layers, directions and federations, on studies whose outcome can be worked out by hand."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
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
    # Linear 2 from B, where it rises by one example more in every other pair.
    highest = next(one for what, one in expectations(claim, found).items() if "rise of the most sensitive" in what)
    assert sorted(highest.known) == pytest.approx(sorted((max(rises) + k % 2) / N_TEST for k in range(6)))


def test_the_most_sensitive_layer_is_chosen_by_other_pairs():
    """Each layer rises in one pair alone, by chance: the highest of a pair is no layer that is sensitive."""
    found = study(lambda spec: layered(spec, [BREAKS * (spec.replicate == at) for at in range(6)]))
    chosen = next(one for what, one in expectations("R9", found).items() if "rise of the most sensitive" in what)
    assert (chosen.known <= 1 / N_TEST).all()


def test_a_layer_that_changes_nothing_does_not_rise_although_the_members_differ():
    def unequal(spec: GroupSpec) -> PairResult:
        still = layered_pair(spec, {"linear1": (-18, 18)}, n_lambdas=1)  # half of 36 examples below and above the mean
        paths = ok_pair(spec, 0.3, tilt=36 / N_TEST).tables["paths"]
        return replace(still, tables={**still.tables, "paths": paths})

    layers = study(unequal).layers
    single = layers[layers["family"] == "single"]
    assert single["error_rise"].to_numpy() == pytest.approx(0, abs=1e-9)
    assert sorted(set(single["error_barrier"].round(6))) == pytest.approx([-0.05, 0.05])


def test_rises_on_the_training_data_are_over_the_members_own_training_errors():
    def make(spec: GroupSpec) -> PairResult:
        return replace(
            pair := layered_pair(spec, {"linear1": (40, 20)}, n_lambdas=1),
            tables={**pair.tables, "paths": ok_pair(spec, 0.3, tilt=0.1).tables["paths"]},
        )

    pair, layers = make(spec_of(0)), study(make, range(1)).layers
    ends = {row["lambda"]: 1 - row["correct"] / row["n"] for row in pair.tables["paths"] if row["split"] == "train"}
    for base, own, other in (("a", ends[0.0], ends[1.0]), ("b", ends[1.0], ends[0.0])):
        (row,) = layers[(layers["family"] == "single") & (layers["base"] == base)].to_dict("records")
        assert abs(own - other) > 0.01
        assert row["train_error_rise"] == pytest.approx(row["train_error_barrier"] + (own + other) / 2 - own)


def undertrained(spec: GroupSpec, pair: PairResult) -> PairResult:
    if spec.members["a"].train.lr > 0.01:
        pair.row["train_accuracy_a"] = 0.1
    return pair


@pytest.mark.parametrize("claim", ["R9", "R12", "R13", "R14", "R15", "R16"])
def test_layers_and_steps_that_were_not_measured_test_no_claim(claim):
    assert outcome_of(BY_ID[claim], study(lambda spec: ok_pair(spec, 0.1))) == "premise not met"


@pytest.mark.parametrize("claim", ["R11", "R12", "R13", "R14", "R15"])
def test_a_claim_of_two_rates_is_not_supported_by_one(claim):
    rises = {"interpolation": 0.3, "random": 0.1, "span": 0.3, "complement": 0.1}

    def make(spec: GroupSpec) -> PairResult:
        pair = layered(spec, [1, 1, 60, 1, 1, 1], 100 / N_TEST)
        return replace(pair, tables={**pair.tables, "directions": with_steps(spec, rises).tables["directions"]})

    specs = [spec_of(k, lr=lr) for k in range(6) for lr in (0.001, 0.1)]
    assert outcome_of(BY_ID[claim], study_of([make(spec) for spec in specs])) != "premise not met"
    half = study_of([undertrained(spec, make(spec)) for spec in specs])
    assert outcome_of(BY_ID[claim], half) == ("contradicted" if claim in ("R11", "R12") else "premise not met")


@pytest.mark.parametrize(
    ("rises", "share", "outcome"),
    [
        ([10, 10, 30, 30, 10, 10], 0.6, "supported"),
        ([25, 25, 0, 0, 25, 25], 0.0, "contradicted"),
        ([20, 15, 15, 15, 15, 20], 0.3, "contradicted"),
    ],
)
def test_the_middle_third_has_to_add_more_than_a_third(rises, share, outcome):
    def make(spec: GroupSpec) -> PairResult:
        """Cumulative barriers from the output mirror those from the input."""
        pair = layered_pair(
            spec, {f"linear{at}": (rise, rise) for at, rise in enumerate(rises)}, 100 / N_TEST, n_lambdas=1
        )
        barriers = [row for row in pair.tables["layer_barriers"] if row["family"] != "deep"]
        mirrored = [{**row, "family": "deep"} for row in barriers if row["family"] == "shallow"]
        return replace(pair, tables={**pair.tables, "layer_barriers": barriers + mirrored})

    found = study(make)
    for expectation in expectations("R12", found).values():
        assert expectation.known == pytest.approx(6 * [share])
    assert outcome_of(BY_ID["R12"], found) == outcome


def with_steps(spec: GroupSpec, rises: dict[str, float], n_draws: int = 4) -> PairResult:
    """Steps of two layers and of noise at the members, whose test loss is 0.5 at A and 0.7 at B.

    Random steps differ among themselves by a tenth. Of the second layer, rises of both kinds are exchanged.
    """
    row = {"condition": "naive", "split": "test", "correct": 0, "n": 100, "norm": 1.0}
    other = {"interpolation": "random", "random": "interpolation"}
    rows: list[dict[str, Any]] = []
    for at, start in ((0.0, 50.0), (1.0, 70.0)):
        rows.append({**row, "kind": "unmoved", "lambda": at, "alpha": 0.0, "draw": 0, "loss_sum": start})
        for kind, rise in rises.items():
            of_layer = kind in other
            for place in range(2 if of_layer else 1):
                own = rises[other[kind]] if place == 1 else rise
                for draw in range(1 if kind == "interpolation" else n_draws):
                    spread = 0.0 if kind == "interpolation" else 0.1 * own * (-1) ** draw
                    for alpha, factor in ((0.5, 1.0), (1.0, 9.0)):
                        loss = start + 100 * (own + spread) * factor
                        step = {"kind": kind, "lambda": at, "alpha": alpha, "draw": draw, "loss_sum": loss}
                        layer = {"layer": f"linear{place}", "position": place} if of_layer else {}
                        rows.append({**row, **layer, **step})
    pair = ok_pair(spec, 0.1)
    return replace(pair, tables={**pair.tables, "directions": rows})


@pytest.mark.parametrize(
    ("one", "other", "outcome"),
    [(0.3, 0.1, "supported"), (0.1, 0.3, "supported"), (0.2, 0.2, "contradicted"), (1e-4, 3e-4, "premise not met")],
)
def test_a_direction_is_special_if_it_differs_from_random_ones_by_more_than_these_do(one, other, outcome):
    found = study(lambda spec: with_steps(spec, {"interpolation": one, "random": other}))
    assert outcome_of(BY_ID["R13"], found) == outcome
    for expectation in expectations("R13", found).values():
        if expectation.side:
            n = 4  # each draw lies n/(n−1) as far from the mean of the others as from the mean of all
            among = sum(0.1 * rise * n / (n - 1) * np.sqrt((n * n - 1) / (n * n)) for rise in (one, other)) / 2
            assert expectation.known == pytest.approx(6 * [(abs(one - other) - among) / max(one, other)])
        else:
            assert expectation.known == pytest.approx(6 * [(one + other) / 2])


def test_random_directions_are_not_special_among_each_other():
    """The way to the other member is drawn as the random ones are."""
    generator = np.random.default_rng(0)

    def make(spec: GroupSpec) -> PairResult:
        pair = with_steps(spec, {"interpolation": 1.0, "random": 1.0}, n_draws=5)
        rows = [{**row, "loss_sum": row["loss_sum"] + generator.normal(0, 30)} for row in pair.tables["directions"]]
        return replace(pair, tables={**pair.tables, "directions": rows})

    expectation = next(one for one in expectations("R13", study(make, range(300))).values() if one.side)
    assert expectation.mean == pytest.approx(0, abs=4 * expectation.known.std() / np.sqrt(300))
    assert expectation.mean < 0.1


def test_a_step_whose_loss_is_not_known_leaves_the_claim_open():
    def make(spec: GroupSpec) -> PairResult:
        pair = with_steps(spec, {"interpolation": 0.3, "random": 0.1, "span": 0.3, "complement": 0.1})
        rows = pair.tables["directions"]
        spoilt = [{**row, "loss_sum": np.nan} if row["draw"] == 3 else row for row in rows]
        return replace(pair, tables={**pair.tables, "directions": spoilt})

    found = study(make)
    for claim in ("R13", "R14"):
        assert outcome_of(BY_ID[claim], found) == "undecided"


@pytest.mark.parametrize(
    ("one", "other", "outcome"),
    [(0.3, 0.1, "supported"), (0.1, 0.3, "supported"), (0.3, 0.29, "contradicted"), (1e-4, 3e-4, "premise not met")],
)
def test_subspaces_differ_by_a_tenth_at_least(one, other, outcome):
    found = study(lambda spec: with_steps(spec, {"span": one, "complement": other}))
    assert outcome_of(BY_ID["R14"], found) == outcome
    for expectation in expectations("R14", found).values():
        assert expectation.known == pytest.approx(6 * [(one - other) / max(one, other)])
        assert expectation.expected_words == "outside ±0.1"


def test_rises_are_compared_replicate_by_replicate():
    def more(spec: GroupSpec) -> PairResult:
        high = spec.members["a"].train.lr > 0.01
        return layered_pair(spec, {"linear1": (0, 0), "linear2": (9 * high, (9 + spec.replicate) * high)}, n_lambdas=1)

    specs = [spec_of(k, lr=lr) for k in range(6) for lr in (0.001, 0.01, 0.1)]
    found = study_of([more(spec) for spec in specs])
    (expectation,) = expectations("R15", found).values()
    assert sorted(expectation.known) == pytest.approx([(18 + k) / 4 / N_TEST for k in range(6)])
    assert outcome_of(BY_ID["R15"], found) == "supported"


def test_tasks_are_compared_at_equal_rates():
    def of(task: str, replicate: int) -> GroupSpec:
        return GroupSpec.model_validate(spec_of(replicate).model_dump() | {"dataset": {"name": task}})

    tasks = {"mnist": (0, 8), "cifar10": (4, 12)}
    pairs = [
        layered_pair(of(task, k), {"linear1": rises, "linear2": (k % 3, k % 3)}, n_lambdas=1)
        for k in range(5)
        for task, rises in tasks.items()
    ]
    (expectation,) = expectations("R16", study_of(pairs)).values()
    assert expectation.known == pytest.approx(5 * [2 / N_TEST])


@pytest.mark.parametrize(("tilt", "outcome"), [(0.2, "supported"), (0.03, "premise not met"), (0.0, "premise not met")])
def test_the_mean_of_unequal_members_makes_a_barrier_of_a_straight_path(tilt, outcome):
    def noisy(spec: GroupSpec) -> PairResult:
        return ok_pair(spec, 0.001, tilt=tilt + 0.001 * (spec.replicate % 2))

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
            "averaged_own_accuracy": 0.99,
            "averaged_test_accuracy": accuracy + 0.002 * (replicate % 2) * (layers == "some"),
        }
        for replicate in range(5)
        for split, accuracies in (("iid", iid), ("dirichlet", unlike))
        for layers, accuracy in [*accuracies.items(), ("none", 0.2)]
    ]
    assert outcome_of(BY_ID["R18"], replace(found, pairs=pd.DataFrame(rows))) == outcome


def test_federations_without_their_partner_test_nothing():
    found = study(lambda spec: ok_pair(spec, 0.1))
    row = {"averaged_test_accuracy": 0.5, "averaged_own_accuracy": 0.5, "replicate": 0}
    rows = [
        {**row, "client_split": split, "averaged_layers": layers, "status": status}
        for split, layers, status in (
            ("iid", "all", "ok"),
            ("iid", "some", "ok"),
            ("dirichlet", "all", "diverged"),
            ("dirichlet", "some", "ok"),
        )
    ]
    pairs = pd.concat([pd.DataFrame(rows).assign(replicate=k) for k in range(5)])
    assert outcome_of(BY_ID["R18"], replace(found, pairs=pairs)) == "premise not met"
