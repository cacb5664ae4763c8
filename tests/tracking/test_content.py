import math
from dataclasses import replace

import pytest
from mlflow.utils.validation import validate_param_and_metric_name

from lmc_tune.experiment import MlpSpec, Pair, ShiftSpec, TrainChanges, VerdictSpec, condition_name
from lmc_tune.tables.columns import AXIS_SCALES
from lmc_tune.tables.rows import PairResult
from lmc_tune.tables.store import Store
from lmc_tune.tracking import content
from lmc_tune.tracking.content import RunContent, one_line
from tests.cases import pair_of
from tests.tracking.cases import barriers, pair_result, pair_spec, path, six_results, write_folder


def run_content(result: PairResult, verdict: VerdictSpec = VerdictSpec()) -> RunContent:  # noqa: B008 - frozen
    return content.run_content(result, verdict)


def numbers(result: PairResult) -> dict[str, float]:
    return {name: value for name, value, step in run_content(result).metrics if step == 0}


def test_a_run_is_named_by_what_a_cell_is_made_of():
    assert run_content(pair_result(pair_spec(lr=0.03, replicate=2))).name == "lr=0.03 batch=32 label 80/20 #2 mlp 64"
    assert run_content(pair_result(pair_spec(shift=ShiftSpec(kind="none")))).name == "lr=0.03 batch=32 none #0 mlp 64"


def test_parameters_come_from_the_spec_alone():
    one, other = pair_result(height=0.1), pair_result(status="failed")
    assert run_content(one).params == run_content(other).params
    assert run_content(one).params["lr"] == "0.03"
    assert "step_budget" not in run_content(one).params  # None says nothing


def test_every_numeric_setting_is_a_metric_as_well():
    """Of B too; a setting that is not set says nothing."""
    spec = pair_spec(lr=0.03, batch_size=32).model_copy(update={"recipe": Pair(b=TrainChanges(lr=0.3))})
    shown = numbers(pair_result(spec, status="failed"))
    row = pair_result(spec).row
    assert {name: shown.get(name) for name in AXIS_SCALES} == {name: row[name] for name in AXIS_SCALES}
    assert (shown["lr"], shown["b_lr"], shown["batch_size"], shown["severity"]) == (0.03, 0.3, 32, 0.6)
    assert "b_batch_size" not in shown
    assert shown["log10_lr"] == pytest.approx(-1.5229, abs=1e-4)


@pytest.mark.parametrize(("of", "other"), [("test_error", "test_loss"), ("train_loss", "test_error")])
def test_the_judged_curve_is_shown_by_lambda_in_percent(of, other):
    result, (split, quantity) = pair_result(), of.split("_")
    metrics = run_content(result, VerdictSpec(of=of)).metrics
    sent = {(name, step): value for name, value, step in metrics if "/" in name}
    points = [point for point in result.tables["paths"] if point["split"] == split]
    values = {
        round(100 * p["lambda"]): 1 - p["correct"] / p["n"] if quantity == "error" else p["loss_sum"] / p["n"]
        for p in points
    }
    assert sent.items() <= {(f"path/{of}", step): value for step, value in values.items()}.items()
    top = max(values, key=lambda step: values[step])
    assert {(f"path/{of}", step) for step in (0, 50, 100, top)} <= sent.keys()
    assert (len(values), len(sent)) == (29, 21)


def test_sharpness_is_shown_by_lambda_in_percent_where_it_is_known():
    result = pair_result()
    values = {0.0: 12.5, 0.5: math.nan, 1.0: 7.0}
    rows = [{"lambda": at, "eigenvalue": value} for at, value in values.items()]
    known = replace(result, tables={**result.tables, "sharpness": rows})
    sent = set(run_content(known).metrics) - set(run_content(result).metrics)
    assert sent == {("path/sharpness", 12.5, 0), ("path/sharpness", 7.0, 100)}


def test_of_a_curve_its_top_and_the_points_nearest_to_every_fifth_percent_are_shown():
    """However they are ordered."""
    places = {0.0: 5, 0.031: 50, 0.049: 6, 0.052: 7, 0.1201: 20, 0.48: 30, 0.52: 40, 1.0: 5}
    row = {"condition": "naive", "split": "test", "n": 100, "loss_sum": 1.0}
    for order in (list(places), list(reversed(places))):
        paths = [{**row, "lambda": place, "correct": 100 - places[place]} for place in order]
        metrics = run_content(pair_of(pair_result().row, paths=paths)).metrics
        shown = {step: round(100 * value) for name, value, step in metrics if "/" in name}
        assert shown == {0: 5, 3: 50, 5: 6, 12: 20, 48: 30, 52: 40, 100: 5}


def test_the_judged_barrier_is_a_metric_whichever_it_is():
    result = pair_result()
    for verdict in (VerdictSpec(), VerdictSpec(of="train_loss", barrier="midpoint")):
        shown = {name: value for name, value, _ in run_content(result, verdict).metrics}
        assert shown["barrier"] == result.row[verdict.column]


@pytest.mark.parametrize(("norm", "condition"), [("batch", "recalibrated"), ("layer", "naive")])
def test_barrier_and_path_are_those_of_the_judged_condition(norm, condition):
    """Of a network without BatchNorm, that is the naive path."""
    result = pair_result(pair_spec().model_copy(update={"model": MlpSpec(norm=norm)}), height=0.2)
    lower = path(0.1)
    both = pair_of(
        result.row | {f"recalibrated_{name}": value for name, value in barriers(lower).items()},
        paths=[*result.tables["paths"], *({**point, "condition": "recalibrated"} for point in lower)],
    )
    height = {"naive": 0.2, "recalibrated": 0.1}
    metrics = run_content(both, VerdictSpec(condition="recalibrated")).metrics
    assert {name: value for name, value, _ in metrics}["barrier"] == pytest.approx(height[condition], abs=0.002)
    assert max(value for name, value, _ in metrics if name == "path/test_error") == pytest.approx(
        height[condition] + 0.11, abs=0.005
    )
    assert numbers(both)["recalibrated_test_error_barrier_chord"] == pytest.approx(0.1, abs=0.002)


@pytest.mark.parametrize(("norm", "condition"), [("batch", "aligned + recalibrated"), ("none", "aligned")])
def test_aligned_conditions_have_metrics_whose_names_are_legal_and_can_be_judged(norm, condition):
    result = pair_result(pair_spec().model_copy(update={"model": MlpSpec(norm=norm)}), height=0.3)
    points = path(0.05)
    both = pair_of(
        result.row | {f"{condition_name(condition)}_{name}": value for name, value in barriers(points).items()},
        paths=[*result.tables["paths"], *({**point, "condition": condition} for point in points)],
    )
    metrics = run_content(both, VerdictSpec(condition="aligned + recalibrated")).metrics
    shown = {name: value for name, value, _ in metrics}
    assert shown["barrier"] == shown[f"{condition_name(condition)}_test_error_barrier_chord"]
    assert shown["barrier"] == pytest.approx(0.05, abs=0.002)
    assert max(value for name, value, _ in metrics if name == "path/test_error") == pytest.approx(0.16, abs=0.005)
    for name in shown:
        assert validate_param_and_metric_name(name)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_what_is_not_a_finite_number_is_not_sent(value):
    result = pair_result()
    broken = pair_of(
        {**result.row, "disagreement": value},
        paths=[{**point, "loss_sum": value} for point in result.tables["paths"]],
    )
    metrics = run_content(broken, VerdictSpec(of="test_loss")).metrics
    assert all(math.isfinite(sent) for _, sent, _ in metrics)
    assert not {"disagreement", "path/test_loss"} & {name for name, _, _ in metrics}
    assert {"distance", "test_error_barrier_chord"} - {name for name, _, _ in metrics} == {"distance"}


def test_a_row_says_the_same_before_and_after_the_tables(tmp_path):
    results = six_results()
    write_folder(tmp_path, results)
    read = {result.key: run_content(result) for result in Store(tmp_path).pairs([r.key for r in results])}
    assert read == {result.key: run_content(result) for result in results}


def test_tags_say_where_and_how_a_pair_was_trained_if_the_table_does():
    result = pair_result()
    tags = run_content(result).tags
    assert (tags["device"], tags["engine"]) == ("cpu", "loop")
    assert not run_content(pair_of({**result.row, "engine": None})).tags["engine"]


def test_the_reason_is_a_short_tag_and_a_whole_description():
    tags = run_content(pair_result(status="failed")).tags
    assert tags["reason"] == "ValueError: no <b>luck</b>"
    assert "Traceback" in tags["mlflow.note.content"]
    assert one_line("x" * 900) == "x" * 249 + "…"


def test_of_what_was_measured_that_is_shown_which_is_looked_at():
    names = set(numbers(pair_result()))
    assert {name for name in names if name.endswith("_lambda")} == {"barrier_lambda"}
    assert {name for name in names if "_barrier_" in name} == {
        f"{split}_{quantity}_barrier_chord" for split in ("train", "test") for quantity in ("error", "loss")
    }
    assert {"test_accuracy_b", "disagreement"} <= names
