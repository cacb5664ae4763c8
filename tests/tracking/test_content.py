import math

import pytest

from lmc_tune.experiment import ShiftSpec
from lmc_tune.tables.store import Store
from lmc_tune.tracking.content import MAX_CURVE_POINTS, one_line, run_content
from tests.cases import pair_of
from tests.tracking.cases import pair_result, pair_spec, six_results, write_folder


def test_a_run_is_named_by_what_a_cell_is_made_of():
    assert run_content(pair_result(pair_spec(lr=0.03, replicate=2))).name == "lr=0.03 batch=32 label 80/20 #2 mlp 64"
    assert run_content(pair_result(pair_spec(shift=ShiftSpec(kind="none")))).name == "lr=0.03 batch=32 none #0 mlp 64"


def test_parameters_come_from_the_spec_alone():
    one, other = pair_result(height=0.1), pair_result(status="failed")
    assert run_content(one).params == run_content(other).params
    assert run_content(one).params["lr"] == "0.03"
    assert "step_budget" not in run_content(one).params  # None says nothing


def test_every_step_of_the_path_is_ten_thousand_lambda():
    result = pair_result()
    sent = {(name, step): value for name, value, step in run_content(result).metrics if name == "path/test_error"}
    points = [point for point in result.tables["paths"] if point["split"] == "test"]
    assert sent == {("path/test_error", round(1e4 * p["lambda"])): 1 - p["correct"] / p["n"] for p in points}


def test_other_conditions_have_a_section_of_their_own():
    result = pair_result()
    recalibrated = [{**point, "condition": "recalibrated"} for point in result.tables["paths"]]
    names = {name for name, _, _ in run_content(pair_of(result.row, paths=recalibrated)).metrics}
    assert "path recalibrated/test_loss" in names
    assert "path/test_loss" not in names


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_what_is_not_a_finite_number_is_not_sent(value):
    result = pair_result()
    broken = pair_of(
        {**result.row, "disagreement": value},
        paths=[{**point, "loss_sum": value} for point in result.tables["paths"]],
        curves=[{**point, "train_loss": value} for point in result.tables["curves"]],
    )
    metrics = run_content(broken).metrics
    assert all(math.isfinite(sent) for _, sent, _ in metrics)
    assert not {"disagreement", "path/test_loss", "curve/train_loss_a"} & {name for name, _, _ in metrics}
    assert {"path/test_error", "curve/test_loss_b"} <= {name for name, _, _ in metrics}


def test_long_learning_curves_are_thinned_but_keep_both_ends():
    steps = [step for name, _, step in run_content(pair_result(epochs=400)).metrics if name == "curve/train_loss_a"]
    assert len(steps) == len(set(steps)) == MAX_CURVE_POINTS
    assert (steps[0], steps[-1]) == (19, 19 * 400)


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


def test_of_the_positions_of_barriers_one_is_shown():
    names = {name for name, _, _ in run_content(pair_result()).metrics}
    assert {name for name in names if name.endswith("_lambda")} == {"barrier_lambda"}
    assert {"test_error_barrier_chord", "train_loss_barrier_midpoint", "seconds_train", "steps"} <= names
