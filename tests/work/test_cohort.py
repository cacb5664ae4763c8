import math
import random
import subprocess
import sys
import textwrap
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import cohen_kappa_score

from lmc_tune.core.barrier import DEFINITIONS
from lmc_tune.data.datasets import load_dataset
from lmc_tune.data.shifts import split
from lmc_tune.experiment import GroupSpec, MeasureSpec, MlpSpec, ResnetSpec, VerdictSpec, VitSpec
from lmc_tune.measurement.evaluate import Score, evaluate
from lmc_tune.measurement.path import Path as MeasuredPath
from lmc_tune.measurement.path import path_barriers
from lmc_tune.models.registry import build_model
from lmc_tune.models.stack import Stack
from lmc_tune.tables.columns import (
    MODEL_FIELDS,
    OF_CLIENTS,
    OF_ENSEMBLES,
    OF_TEXT,
    RECIPE_FIELDS,
    RESULTS_SCHEMA,
    SPEC_FIELDS,
    TIME_FIELDS,
    VIEW,
    names,
)
from lmc_tune.tables.rows import PairResult
from lmc_tune.tables.store import Store
from lmc_tune.training import engines
from lmc_tune.work import cohort as pipeline
from lmc_tune.work.bench import Workbench
from lmc_tune.work.cohort import cohort_name, run_cohort, run_pair
from lmc_tune.work.prepare import prepare, supplies
from tests import oracles
from tests.cases import cohort, pair_spec, six, timeless

SIX, STACKED = six("loop"), six("stacked")


@pytest.fixture(scope="module")
def ok(tmp_path_factory) -> PairResult:
    """One ordinary pair with a real barrier."""
    folder = tmp_path_factory.mktemp("ok")
    spec = pair_spec(train={"lr": 0.3, "epochs": 6}, shift={"kind": "label", "severity": 0.6})
    measure = MeasureSpec(lambdas=11, refinements=1)
    return run_pair(spec, Workbench(store=Store(folder), data_root=folder, measure=measure))


def dies_on(monkeypatch, *doomed: GroupSpec, error: type[BaseException] = RuntimeError) -> list[str]:
    """Training these pairs raises; returns the keys that were trained, as they come."""
    trained: list[str] = []
    real, keys = pipeline.train_groups, {spec.key for spec in doomed}

    def train(setups, shelf):
        together = [setup.spec.key for setup in setups]
        trained.extend(together)
        if keys & set(together):
            raise error("the machine ran hot")
        return real(setups, shelf)

    monkeypatch.setattr(pipeline, "train_groups", train)
    return trained


# One cohort, many, any order


@pytest.mark.parametrize("pairs", [SIX, six("auto", hidden=16)], ids=["loop", "stacked"])
def test_a_cohort_of_six_equals_six_cohorts_of_one_in_every_column_but_the_seconds(bench, pairs):
    together = run_cohort(cohort(*pairs), bench("together"))
    alone = [run_cohort(cohort(spec), bench("alone"))[0] for spec in reversed(pairs)]
    shuffled = run_cohort(cohort(*pairs[3:], *pairs[:3]), bench("shuffled"))
    assert [r.key for r in together] == [spec.key for spec in pairs]
    assert timeless(together) == timeless(alone) == timeless(shuffled)
    assert len({r.row["test_loss_a"] for r in together}) == 6


def test_what_is_returned_is_what_the_store_keeps(bench):
    tidy = bench()
    results = run_cohort(cohort(*SIX[:2]), tidy)
    (shard,) = tidy.store.shard_stamps(cohort_name(cohort(*SIX[:2])))
    assert timeless(tidy.store.read_shard(shard.stem)) == timeless(results)


def test_global_random_state_neither_matters_nor_changes(bench):
    rows = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the global state is what is looked at
        random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
        rows.append(timeless(run_cohort(cohort(SIX[0]), bench(str(seed)))))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
        assert random.getstate() == before[2]
    assert rows[0] == rows[1]


def test_a_cohorts_name_depends_on_its_pairs_alone():
    assert cohort_name(cohort(*SIX)) == cohort_name(cohort(*SIX))
    assert len({cohort_name(cohort(spec)) for spec in SIX}) == 6


# Idempotence, failure, interruption


def test_running_a_cohort_again_trains_nothing_and_returns_the_same(bench, monkeypatch):
    tidy = bench()
    first = run_cohort(cohort(*SIX[:2]), tidy)
    trained = dies_on(monkeypatch, *SIX[:2])
    assert run_cohort(cohort(*SIX[:2]), tidy) == [
        replace(r, columns={name: r.columns.get(name) for name in RESULTS_SCHEMA.names if name not in VIEW})
        for r in first
    ]
    tidy.store.compact(VerdictSpec())
    assert timeless(run_cohort(cohort(*SIX[:2]), tidy)) == timeless(first)
    assert trained == []


def test_a_compacted_pair_is_found_by_a_cohort_of_another_make_up(bench, monkeypatch):
    tidy = bench()
    run_cohort(cohort(*SIX[:2]), tidy)
    tidy.store.compact(VerdictSpec())
    trained = dies_on(monkeypatch)
    run_cohort(cohort(SIX[2], SIX[1]), tidy)
    assert trained == [SIX[2].key]


def test_a_pair_that_crashes_keeps_its_traceback_and_the_others_their_results(bench, monkeypatch):
    undisturbed = timeless(run_cohort(cohort(SIX[0], SIX[2]), bench("undisturbed")))
    tidy = bench()
    with monkeypatch.context() as hot:
        dies_on(hot, SIX[1])
        results = run_cohort(cohort(*SIX[:3]), tidy)
    assert [r.status for r in results] == ["ok", "failed", "ok"]
    assert "Traceback (most recent call last)" in results[1].row["reason"]
    assert results[1].row["reason"].endswith("RuntimeError: the machine ran hot\n")
    assert {name: results[1].row[name] for name in SPEC_FIELDS}["replicate"] == 1
    assert timeless([results[0], results[2]]) == undisturbed
    assert tidy.store.statuses()[SIX[1].key] == "failed"


@pytest.mark.parametrize("compacted", [True, False])
def test_a_failed_pair_and_only_it_is_tried_again(bench, monkeypatch, compacted):
    tidy = bench()
    with monkeypatch.context() as hot:
        dies_on(hot, SIX[1])
        run_cohort(cohort(*SIX[:3]), tidy)
    if compacted:
        tidy.store.compact(VerdictSpec())
    trained = dies_on(monkeypatch)
    results = run_cohort(cohort(*SIX[:3]), tidy)
    assert trained == [SIX[1].key]
    assert [r.status for r in results] == ["ok"] * 3
    tidy.store.compact(VerdictSpec())
    assert tidy.store.statuses() == {spec.key: "ok" for spec in SIX[:3]}
    assert len(tidy.store.results()) == 3


def test_an_interruption_ends_the_cohort_and_keeps_what_was_finished(bench, monkeypatch):
    tidy = bench()
    with monkeypatch.context() as interrupted:
        dies_on(interrupted, SIX[1], error=KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run_cohort(cohort(*SIX[:3]), tidy)
    assert tidy.store.statuses() == {SIX[0].key: "ok"}
    assert tidy.store.running() == set()
    trained = dies_on(monkeypatch)
    run_cohort(cohort(*SIX[:3]), tidy)
    assert trained == [SIX[1].key, SIX[2].key]


def test_a_store_that_cannot_write_ends_the_cohort(bench, monkeypatch):
    tidy = bench()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tidy.store), "write_shard", full)
    trained = dies_on(monkeypatch)
    with pytest.raises(OSError, match="No space left on device"):
        run_cohort(cohort(*SIX[:3]), tidy)
    assert trained == [SIX[0].key]
    assert tidy.store.running() == set()


def test_every_pair_is_published_as_soon_as_it_is_finished(bench, monkeypatch):
    tidy = bench()
    real, seen = pipeline.train_groups, []

    def train_groups(setups, shelf):
        seen.append((sorted(tidy.store.statuses()), tidy.store.running()))
        return real(setups, shelf)

    monkeypatch.setattr(pipeline, "train_groups", train_groups)
    run_cohort(cohort(*SIX[:2]), tidy)
    first, second = SIX[0].key, SIX[1].key
    assert seen == [([], {first}), ([first], {second})]
    assert tidy.store.running() == set()


def test_a_batch_larger_than_the_part_is_a_failure_with_its_reason(bench):
    (result,) = run_cohort(cohort(pair_spec(train={"batch_size": 201})), bench())
    assert result.status == "failed"
    assert "batch_size 201 is above the" in result.row["reason"]


# All of a cohort at once


def assert_close(one: list[PairResult], other: list[PairResult]) -> None:
    """Equal but for the rounding of single precision."""
    for a, b in zip(one, other, strict=True):
        numbers = {name for name, value in a.row.items() if isinstance(value, float)} - set(TIME_FIELDS)
        apart = {*numbers, *TIME_FIELDS, "engine"}
        assert {k: v for k, v in a.row.items() if k not in apart} == {k: v for k, v in b.row.items() if k not in apart}
        for name in numbers:
            assert a.row[name] == pytest.approx(b.row[name], rel=1e-3, abs=1e-3, nan_ok=True), name
        assert [c["train_loss"] for c in a.tables["curves"]] == pytest.approx(
            [c["train_loss"] for c in b.tables["curves"]], rel=1e-3
        )


def test_a_stacked_cohort_equals_the_loop_but_for_rounding(bench):
    assert [spec.key for spec in STACKED] == [spec.key for spec in SIX]
    stacked, looped = run_cohort(cohort(*STACKED), bench("stacked")), run_cohort(cohort(*SIX), bench("loop"))
    assert_close(stacked, looped)
    assert [result.row["engine"] for result in (*stacked, *looped)] == ["stacked"] * 6 + ["loop"] * 6


def test_pairs_that_do_not_fit_together_are_trained_in_smaller_stacks(bench, monkeypatch):
    whole = run_cohort(cohort(*STACKED), bench("whole"))
    real, sizes = pipeline.train_groups, []

    def train_groups(setups, shelf):
        sizes.append(len(setups))
        if len(setups) > 2:
            raise torch.OutOfMemoryError
        return real(setups, shelf)

    monkeypatch.setattr(pipeline, "train_groups", train_groups)
    assert_close(run_cohort(cohort(*STACKED), bench("split")), whole)
    assert sizes == [6, 3, 1, 2, 3, 1, 2]


def test_a_pair_that_cannot_be_trained_costs_its_stack_no_other(bench, monkeypatch):
    tidy = bench()
    dies_on(monkeypatch, STACKED[1])
    results = run_cohort(cohort(*STACKED), tidy)
    assert [result.key for result in results if result.status == "failed"] == [STACKED[1].key]
    assert "the machine ran hot" in results[1].row["reason"]
    assert sorted(tidy.store.statuses()) == sorted(spec.key for spec in STACKED)


# A stack that has to be checked


@pytest.fixture
def unproven(monkeypatch):
    """Stacks are checked here as on a GPU; says how many pairs were trained together."""
    monkeypatch.setattr(engines, "is_unproven", lambda _: True)
    supplies().clear()
    trained, real = [], pipeline.train_groups

    def train(setups, shelf):
        trained.append(len(setups))
        return real(setups, shelf)

    monkeypatch.setattr(pipeline, "train_groups", train)
    yield trained
    supplies().clear()


@pytest.mark.parametrize("spawn_epoch", [0, 1])
def test_a_stack_that_passes_its_check_gives_the_rows_of_one_that_was_not_checked(bench, unproven, spawn_epoch):
    pairs = [
        spec.model_copy(update={"train": spec.train.model_copy(update={"spawn_epoch": spawn_epoch})})
        for spec in six("auto", hidden=16)
    ]
    checked = run_cohort(cohort(*pairs), bench("checked"))
    assert unproven == [6]
    with pytest.MonkeyPatch.context() as proven:
        proven.setattr(engines, "is_unproven", lambda _: False)
        assert timeless(run_cohort(cohort(*pairs), bench("unchecked"))) == timeless(checked)
    assert {(r.row["engine"], r.row["engine_reason"]) for r in checked} == {("stacked", "")}


def test_a_stack_that_fails_its_check_costs_speed_and_no_result(bench, unproven, monkeypatch):
    monkeypatch.setattr(Stack, "differentiate", lambda _stack, _losses, out: out.fill_(1))
    found = run_cohort(cohort(*six("auto", hidden=16)), bench("auto"))
    assert {r.row["engine"] for r in found} == {"loop"}
    (reason,) = {r.row["engine_reason"] for r in found}
    assert reason.startswith("in 3 steps a stack came to another ")
    looped = run_cohort(cohort(*six("loop", hidden=16)), bench("loop"))
    for result in (*found, *looped):
        result.row.pop("engine_reason")
    assert timeless(found) == timeless(looped)


def test_a_program_is_checked_once_in_the_life_of_a_worker(bench, unproven, monkeypatch):
    checked, real = [], engines._fault
    monkeypatch.setattr(engines, "_fault", lambda tasks: checked.append(len(tasks)) or real(tasks))
    for spec in six("auto", hidden=16)[::3]:
        run_cohort(cohort(spec), bench())
    assert checked == [2]


def test_where_memory_is_short_for_the_check_smaller_stacks_are_tried(bench, unproven, monkeypatch):
    real = engines._fault

    def fault(tasks):
        if len(tasks) > 6:
            raise torch.OutOfMemoryError
        return real(tasks)

    monkeypatch.setattr(engines, "_fault", fault)
    found = run_cohort(cohort(*six("auto", hidden=16)), bench())
    assert [r.row["engine"] for r in found] == ["stacked"] * 6
    assert unproven == [6, 3, 3]


# What a row says


def test_an_ok_row_fills_every_column_of_the_table_and_none_besides(ok):
    assert ok.status == "ok"
    unmeasured = {
        name
        for name in RESULTS_SCHEMA.names
        if name.startswith(("endpoint_", "recalibrated_", "repaired_", "aligned_")) or "_average_precision" in name
    } | {"permutable_units", "permuted_units", "frozen_units", *names(OF_CLIENTS), *names(OF_ENSEMBLES)}
    assert set(ok.row) == set(RESULTS_SCHEMA.names) - unmeasured
    nullable = {
        "train_examples",
        "test_examples",
        "epochs",
        "step_budget",
        "target_loss",
        "target_reached",
        *MODEL_FIELDS,
        *names(OF_TEXT),
        *RECIPE_FIELDS,
    }
    assert {name for name, value in ok.row.items() if value is None} <= nullable
    assert {name for name in MODEL_FIELDS if ok.row[name] is not None} == {
        "hidden",
        "activation",
        "norm",
        "init",
        "dropout",
    }
    assert ok.row["seconds_train"] > 0
    assert ok.row["seconds_measure"] > 0
    assert (ok.row["device"], ok.row["engine"]) == ("cpu", "loop")


@pytest.fixture(scope="module")
def normed(tmp_path_factory) -> PairResult:
    """One pair of networks with BatchNorm, under all conditions."""
    folder = tmp_path_factory.mktemp("normed")
    spec = pair_spec(
        train={"lr": 0.1, "epochs": 4},
        model={"norm": "batch"},
        shift={"kind": "label", "severity": 0.6},
    )
    measure = MeasureSpec(lambdas=5, refinements=1, conditions=("repaired", "recalibrated", "endpoint", "naive"))
    return run_pair(spec, Workbench(store=Store(folder), data_root=folder, measure=measure))


def test_conditions_differ_where_there_is_batch_norm(normed):
    """The naive ends are the members as trained; with A's statistics B is another; two conditions estimate theirs."""
    points = pd.DataFrame(normed.tables["paths"])
    assert list(dict.fromkeys(points["condition"])) == ["naive", "endpoint", "recalibrated", "repaired"]
    test = points[points["split"] == "test"].set_index(["condition", "lambda"])["loss_sum"]
    n = points.loc[points["split"] == "test", "n"].iloc[0]
    members = [normed.row[f"test_loss_{name}"] * n for name in ("a", "b")]
    assert [test["naive", 0.0], test["naive", 1.0]] == pytest.approx(members, rel=1e-6)
    assert test["endpoint", 0.0] == pytest.approx(members[0], rel=1e-6)
    assert test["endpoint", 1.0] != pytest.approx(members[1], rel=0.01)
    assert test["recalibrated", 0.5] != pytest.approx(test["naive", 0.5], rel=0.01)
    assert test["recalibrated", 0.5] == test["repaired", 0.5]  # every layer but the last has a BatchNorm
    columns = [f"{condition}_test_loss_barrier_chord" for condition in ("endpoint", "recalibrated", "repaired")]
    assert all(np.isfinite(normed.row[column]) for column in columns)
    midpoint = "test_loss_barrier_midpoint"
    assert (
        len({normed.row[midpoint], *(normed.row[f"{name}_{midpoint}"] for name in ("endpoint", "recalibrated"))}) == 3
    )


def test_members_and_average_are_compared_under_one_condition(normed):
    """What the members' mean is for the gains are the ends of the recalibrated path, not the members as trained."""
    points = pd.DataFrame(normed.tables["paths"])
    test = points[points["split"] == "test"].set_index(["condition", "lambda"]).eval("correct / n")
    ends = (test["recalibrated", 0.0] + test["recalibrated", 1.0]) / 2
    for combined in ("average", "ensemble"):
        assert normed.row[f"{combined}_accuracy"] - normed.row[f"{combined}_gain_accuracy"] == pytest.approx(ends)
    assert normed.row["average_accuracy"] == test["recalibrated", 0.5]
    assert ends != (normed.row["test_accuracy_a"] + normed.row["test_accuracy_b"]) / 2


def test_a_network_without_batch_norm_can_be_repaired(bench):
    measure = MeasureSpec(lambdas=5, refinements=1, conditions=("naive", "repaired"))
    result = run_pair(pair_spec(train={"lr": 0.3, "epochs": 3}), bench(measure=measure))
    row = result.row
    assert row["repaired_test_loss_barrier_midpoint"] != row["test_loss_barrier_midpoint"]
    assert len(pd.DataFrame(result.tables["paths"]).drop_duplicates(["condition", "split", "lambda"])) == len(
        result.tables["paths"]
    )


def test_every_barrier_of_a_row_follows_from_its_stored_path(ok):
    points = pd.DataFrame(ok.tables["paths"]).sort_values("lambda")
    assert set(points["condition"]) == {"naive"}
    for split_name in ("train", "test"):
        own = points[points["split"] == split_name]
        values = {"loss": own["loss_sum"] / own["n"], "error": 1 - own["correct"] / own["n"]}
        for quantity, curve in values.items():
            heights = oracles.barrier_heights(own["lambda"].tolist(), curve.tolist())
            for definition in DEFINITIONS:
                column = f"{split_name}_{quantity}_barrier_{definition}"
                assert ok.row[column] == pytest.approx(heights[definition], abs=1e-9)
    assert ok.row["test_error_barrier_chord"] > 0.02  # there is something to see


def test_the_accuracy_difference_is_read_where_the_error_barrier_stands(ok):
    points = pd.DataFrame(ok.tables["paths"])
    accuracy = points[points["split"] == "test"].set_index("lambda").sort_index().eval("correct / n")
    assert ok.row["barrier_lambda"] == ok.row["test_error_barrier_chord_lambda"]
    expected = 100 * (accuracy[ok.row["barrier_lambda"]] - (accuracy[0.0] + accuracy[1.0]) / 2)
    assert ok.row["accuracy_difference"] == pytest.approx(expected)
    assert ok.row["accuracy_difference"] < 0


@pytest.mark.parametrize(("middle", "difference"), [(70, 0.0), (74, 4.0), (64, -6.0)])
def test_without_a_barrier_the_accuracy_difference_is_that_of_the_midpoint(middle, difference):
    """On a straight line between unlike members the chord ties at both ends; it is no matter which is called A."""
    for ends in ((80, 60), (60, 80)):
        scores = [Score(loss_sum=1.0, correct=correct, n=100) for correct in (ends[0], middle, ends[1])]
        path = MeasuredPath(
            lambdas=np.array([0.0, 0.5, 1.0]),
            scores=tuple({"train": score, "test": score} for score in scores),
            under_resolved=False,
        )
        assert path_barriers(path)["accuracy_difference"] == pytest.approx(difference)


def test_the_ends_of_the_test_path_are_the_members_scores(ok):
    for lambda_, member in ((0.0, "a"), (1.0, "b")):
        (end,) = [p for p in ok.tables["paths"] if p["split"] == "test" and p["lambda"] == lambda_]
        assert end["loss_sum"] / end["n"] == ok.row[f"test_loss_{member}"]
        assert end["correct"] / end["n"] == ok.row[f"test_accuracy_{member}"]
        last = [p for p in ok.tables["curves"] if p["member"] == member][-1]
        assert (last["test_loss"], last["test_accuracy"]) == (
            ok.row[f"test_loss_{member}"],
            ok.row[f"test_accuracy_{member}"],
        )


def test_the_train_path_runs_over_the_examples_of_both_members(ok):
    parts = ok.row["n_train"]
    assert {p["n"] for p in ok.tables["paths"] if p["split"] == "train"} == {2 * parts}  # disjoint under a label shift
    assert {p["n"] for p in ok.tables["paths"] if p["split"] == "test"} == {100}
    assert ok.row["label_shift"] == pytest.approx(0.6, abs=0.03)  # classes of 39 to 41


def test_steps_and_the_noise_scale_count_what_one_member_sees(ok):
    n = ok.row["n_train"]
    assert ok.row["steps"] == 6 * (n // 20)
    assert ok.row["noise_scale"] == pytest.approx(0.3 * (n / 20 - 1))
    assert max(p["step"] for p in ok.tables["curves"]) == ok.row["steps"]
    assert len(ok.tables["curves"]) == 2 * 6


def test_a_budget_of_steps_is_the_number_of_steps(bench):
    spec = pair_spec(train={"epochs": None, "steps": 13})
    result = run_pair(spec, bench())
    assert (result.row["steps"], result.row["step_budget"], result.row["epochs"]) == (13, 13, None)
    assert result.tables["curves"][-1]["step"] == 13


def members_of(spec: GroupSpec, folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {name: load_file(folder / f"{member.key}.safetensors") for name, member in spec.members.items()}


def test_saved_members_reproduce_the_row(bench, tmp_path):
    tidy = bench(members=tmp_path / "members")
    (result,) = run_cohort(cohort(SIX[3]), tidy)
    saved = members_of(SIX[3], tmp_path / "members") | {"start": prepare(SIX[3], tidy).start}
    assert len(list((tmp_path / "members").iterdir())) == 2
    data = prepare(SIX[3], tidy).data
    model = build_model(SIX[3].model, (1, 8, 8), 10, seed=0)
    predictions = {}
    for member in ("a", "b"):
        model.load_state_dict(saved[member])
        assert evaluate(model, data.test).loss == result.row[f"test_loss_{member}"]
        with torch.no_grad():
            predictions[member] = model(data.test.inputs).argmax(1)
        moved = sum((saved[member][n] - saved["start"][n]).double().square().sum() for n in saved["start"])
        assert result.row[f"distance_{member}"] == pytest.approx(math.sqrt(moved), rel=1e-6)
    apart = sum((saved["a"][n].double() - saved["b"][n].double()).square().sum() for n in saved["a"])
    assert result.row["distance"] == pytest.approx(math.sqrt(apart), rel=1e-9)
    differ = predictions["a"] != predictions["b"]
    assert result.row["disagreement"] == pytest.approx(differ.double().mean().item())
    wrong = [predictions[m] != data.test.labels for m in ("a", "b")]
    assert result.row["error_overlap"] == pytest.approx((wrong[0] & wrong[1]).double().mean().item())


def test_the_average_is_compared_with_each_member(bench, tmp_path):
    (result,) = run_cohort(cohort(SIX[3]), bench(members=tmp_path / "members"))
    a, b = members_of(SIX[3], tmp_path / "members").values()
    test = prepare(SIX[3], bench()).data.test
    model, truth = build_model(SIX[3].model, (1, 8, 8), 10, seed=0), test.labels.numpy()
    probabilities = {}
    for name, state in (("a", a), ("b", b), ("average", {n: (a[n] + b[n]) / 2 for n in a})):
        model.load_state_dict(state)
        with torch.no_grad():
            probabilities[name] = model(test.inputs).double().softmax(1).numpy()
    classes = {name: p.argmax(1) for name, p in probabilities.items()}
    found: dict[str, list[float]] = defaultdict(list)
    for member in ("a", "b"):
        wrong, ours = classes[member] != truth, classes["average"] != truth
        both, either = (wrong & ours).mean(), (wrong | ours).mean()
        same = (wrong & (classes[member] == classes["average"])).mean()
        true = np.stack([p[np.arange(len(truth)), truth] for p in (probabilities[member], probabilities["average"])])
        found["average_disagreement"].append((classes[member] != classes["average"]).mean())
        found["average_error_overlap"].append(both)
        found["average_error_overlap_ratio"].append(both / (wrong.mean() * ours.mean()))
        found["average_same_error"].append(same / either)
        found["average_kappa"].append(cohen_kappa_score(classes[member], classes["average"]))
        found["average_true_class_variance"].append(true.var(axis=0).mean())
    for column, values in found.items():
        assert result.row[column] == pytest.approx(np.mean(values), rel=1e-5), column
    assert 0 < result.row["average_jensen_shannon"] < math.log(2)


def test_distances_leave_running_statistics_out(bench, tmp_path):
    spec = pair_spec(model={"norm": "batch"})
    (result,) = run_cohort(cohort(spec), bench(members=tmp_path / "members"))
    assert result.status == "ok"
    a, b = members_of(spec, tmp_path / "members").values()
    weights = [name for name in a if name.endswith(("weight", "bias"))]
    assert len(weights) < len(a)
    apart = sum((a[n].double() - b[n].double()).square().sum() for n in weights)
    assert result.row["distance"] == pytest.approx(math.sqrt(apart), rel=1e-9)


def test_no_members_are_kept_unless_asked_for(bench, tmp_path):
    run_cohort(cohort(SIX[0]), bench("run"))
    assert not list(tmp_path.rglob("*.safetensors"))


# Data


@pytest.mark.parametrize(
    "model",
    [
        MlpSpec(hidden=(8,), norm="batch"),
        ResnetSpec(depth=8, width=0.25),
        VitSpec(patch=4, dim=8, depth=1, heads=2, mlp_dim=8),
    ],
    ids=lambda model: model.name,
)
def test_a_pair_leaves_the_data_that_all_pairs_share_as_they_were(bench, model):
    spec, tidy = pair_spec(train={"epochs": 1}).model_copy(update={"model": model}), bench()
    data = prepare(spec, tidy).data
    shared = {"train": data.a.whole, "test": data.test}
    run_pair(spec, tidy)
    assert prepare(spec, tidy).data.a.whole is data.a.whole
    fresh = load_dataset(spec.dataset, tidy.data_root)
    for part, examples in shared.items():
        assert torch.equal(examples.inputs, getattr(fresh, part).inputs)
        assert torch.equal(examples.labels, getattr(fresh, part).labels)


def test_a_worker_imports_everything_with_its_first_pair(tmp_path):
    code = f"""
        import sys
        from pathlib import Path
        from lmc_tune.work.cohort import run_cohort
        from lmc_tune.tables.store import Store
        from lmc_tune.experiment import Cohort
        from lmc_tune.work.bench import Workbench
        from tests.cases import pair_spec
        folder = Path({str(tmp_path)!r})
        bench = Workbench(store=Store(folder), data_root=folder)
        known = []
        for lr in (0.1, 0.2, 0.3):
            known.append(set(sys.modules))
            run_cohort(Cohort(groups=(pair_spec(train={{"lr": lr}}),)), bench)
        print(len(known[1] - known[0]) > 0, sorted(known[2] - known[1]), sorted(set(sys.modules) - known[2]))
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert (run.stdout, run.returncode) == ("True [] []\n", 0), run.stderr


def test_pairs_of_one_replicate_and_shift_share_their_split_and_no_others(bench):
    tidy, shifts = bench(), [{"kind": "covariate"}, {"kind": "label", "severity": 0.6}]
    pairs = [
        pair_spec(train={"lr": lr}, shift=shift, replicate=k) for lr in (0.1, 0.3) for shift in shifts for k in (0, 1)
    ]
    splits = supplies().split
    splits.cache_clear()
    setups = [prepare(spec, tidy) for spec in pairs]
    info = splits.cache_info()
    assert (info.hits, info.misses) == (4, 4)
    for spec, setup in zip(pairs, setups, strict=True):
        anew = (spec.dataset, tidy.data_root, setup.device, spec.shift, spec.seed_for("split"))
        parts, measured = splits.__wrapped__(*anew)
        assert setup.measured_shift == measured
        assert np.array_equal(setup.data.a.indices, parts.a)
        assert np.array_equal(setup.data.b.indices, parts.b)
    assert len({setup.measured_shift["covariate_shift"] for setup in setups}) == 4


def test_cells_share_their_start_and_split_and_replicates_do_not(bench):
    specs = [pair_spec(train={"lr": lr}, replicate=k) for lr in (0.03, 0.3) for k in (0, 1)]
    starts = [prepare(spec, bench()).start["linear1.weight"] for spec in specs]
    assert torch.equal(starts[0], starts[2])
    assert torch.equal(starts[1], starts[3])
    assert not torch.equal(starts[0], starts[1])
    labels = np.arange(100) % 10
    splits = [split(labels, spec.shift, spec.seed_for("split")).a.tolist() for spec in specs]
    assert splits[0] == splits[2] != splits[1] == splits[3]


# Statuses


def test_a_pair_that_learned_too_little_is_undertrained_but_measured(bench):
    result = run_pair(pair_spec(train={"lr": 1e-6}), bench())
    assert result.status == "undertrained"
    assert result.row["reason"].startswith("train accuracy below the gate of 50.0%: member A reached")
    assert "member B reached" in result.row["reason"]
    assert result.row["test_error_barrier_chord"] is not None
    assert result.tables["paths"]


def test_the_gate_of_the_workbench_decides(bench):
    spec = pair_spec(train={"lr": 0.03})
    accuracy = run_pair(spec, bench()).row["train_accuracy_a"]
    assert run_pair(spec, bench(min_train_accuracy=0.0)).status == "ok"
    assert run_pair(spec, bench(min_train_accuracy=accuracy + 0.1)).status == "undertrained"


def test_a_fresh_network_above_chance_level_has_not_diverged(bench):
    # Initial weights may lie above ln 10; a rate that moves nothing leaves them there.
    spec = next(s for s in (pair_spec(train={"lr": 1e-12}, replicate=k) for k in range(9)) if _starts_above_chance(s))
    result = run_pair(spec, bench())
    assert result.row["train_loss_a"] > math.log(10)
    assert result.status == "undertrained"


def _starts_above_chance(spec: GroupSpec) -> bool:
    data = load_dataset(spec.dataset, Path())
    model = build_model(spec.model, (1, 8, 8), 10, spec.seed_for("init"))
    return evaluate(model, data.train).loss > math.log(10) + 0.01


def test_members_whose_loss_rose_above_chance_for_good_have_diverged(bench):
    result = run_pair(pair_spec(train={"lr": 30.0, "epochs": 3}), bench())
    assert max(result.row["train_loss_a"], result.row["train_loss_b"]) > math.log(10)
    assert math.isfinite(result.row["train_loss_a"])
    assert result.status == "diverged"
    assert "rose above chance level: train loss" in result.row["reason"]
    assert "> ln 10" in result.row["reason"]


def test_members_whose_loss_became_non_finite_have_diverged_and_have_no_path(bench):
    tidy = bench()
    (result,) = run_cohort(cohort(pair_spec(train={"lr": 1e30, "epochs": 5})), tidy)
    assert result.status == "diverged"
    assert "member A: the training loss became" in result.row["reason"]
    assert "member B: the training loss became" in result.row["reason"]
    assert not result.tables["barriers"]
    assert not result.tables["paths"]
    assert not [name for name in result.row if "_barrier_" in name]
    assert len(result.tables["curves"]) < 2 * 5
    tidy.store.compact(VerdictSpec())
    row = tidy.store.results().iloc[0]
    assert row["status"] == "diverged"
    assert math.isnan(row["test_error_barrier_chord"])


def test_the_pipeline_runs_where_ray_mlflow_optuna_and_altair_are_missing(tmp_path):
    code = f"""
        import sys
        class Missing:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("ray", "mlflow", "optuna", "altair", "typer", "rich", "torchvision"):
                    raise ModuleNotFoundError(name)
        sys.meta_path.insert(0, Missing())
        from pathlib import Path
        from lmc_tune.work.cohort import run_cohort
        from lmc_tune.tables.store import Store
        from lmc_tune.experiment import Cohort
        from lmc_tune.work.bench import Workbench
        from tests.cases import pair_spec
        folder = Path({str(tmp_path)!r})
        bench = Workbench(store=Store(folder), data_root=folder)
        print([result.status for result in run_cohort(Cohort(groups=(pair_spec(),)), bench)])
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert (run.stdout, run.returncode) == ("['ok']\n", 0), run.stderr


def test_failed_rows_are_kept_until_their_pair_is_run_again(bench, monkeypatch):
    tidy, two = bench(), SIX[:2]
    monkeypatch.setattr(pipeline, "train_groups", lambda *_: 1 / 0)
    run_cohort(cohort(*two), tidy)
    monkeypatch.undo()

    def interrupted(specs, *_):
        if specs == [two[1]]:
            raise KeyboardInterrupt
        yield run_pair(specs[0], tidy)

    monkeypatch.setattr(pipeline, "_run_or_fail", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_cohort(cohort(*two), tidy)
    assert tidy.store.statuses()[two[0].key] != "failed"
    assert tidy.store.statuses()[two[1].key] == "failed"


def test_held_out_examples_are_measured_along_the_path_when_asked_for(bench):
    measure = MeasureSpec(lambdas=5, refinements=1, splits=("validation", "test", "train"))
    (result,) = run_cohort(cohort(pair_spec(dataset={"validation": 30})), bench(measure=measure))
    counts = {point["split"]: point["n"] for point in result.tables["paths"]}
    assert counts["validation"] == 30
    assert set(counts) == {"train", "test", "validation"}
    assert measure.splits == ("train", "test", "validation")
