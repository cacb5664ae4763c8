"""The runs of cells: their verdicts, written again whenever the tables say something else, and found by searching."""

import json
import re
from pathlib import Path

import numpy as np
from mlflow import MlflowClient

from lmc_tune.experiment import GroupSpec, ShiftSpec, VerdictSpec
from lmc_tune.experiment.reading import read_space
from lmc_tune.experiment.space import SPACE_FILE, SearchSpace
from lmc_tune.experiment.yaml_lines import dump
from lmc_tune.tables.cells import summarise
from lmc_tune.tables.rows import PairResult
from lmc_tune.tables.store import load_results
from lmc_tune.tables.sweep_record import SweepRecord
from lmc_tune.tracking.cells import pending_cell
from lmc_tune.tracking.content import KIND_TAG, NOTE_TAG
from lmc_tune.tracking.mirror import RUNNING_NOTE, Sent, open_mirror
from lmc_tune.tracking.outcome import judged_cell
from lmc_tune.tracking.track import track
from lmc_tune.tracking.views import HINTS, PAIRS_VIEW, experiment_tags
from tests.cases import pair_of
from tests.tracking.cases import pair_result, pair_spec, six_results, write_folder
from tests.tracking.shown import all_runs, cell_runs, content, history, pair_runs, parents
from tests.tracking.test_mirror import uri_of

SETS = ["axes.batch_size=[32]", "axes.lr=[0.03, 0.1, 1.0]", "axes.shift=[{kind: covariate}]", "replicates=3"]


def space_of(*sets: str) -> SearchSpace:
    return read_space("quickstart", [*SETS, *sets])


def result_of(pair: GroupSpec) -> PairResult:
    """Flat at the lowest rate, high at the next, diverged at the highest."""
    if pair.train.lr == 1.0:
        return pair_result(pair, status="diverged")
    return pair_result(pair, height=0.01 if pair.train.lr == 0.03 else 0.2 + 0.01 * pair.replicate)


def write_space(folder: Path, space: SearchSpace, pairs: int | None = None) -> Path:
    """A run folder with the space and the results of its first pairs, cell by cell, by default of all."""
    ordered = sorted(space.pairs(), key=lambda pair: (pair.train.lr, pair.train.batch_size, pair.replicate))
    write_folder(folder, [result_of(pair) for pair in ordered[:pairs]])
    (folder / SPACE_FILE).write_text(dump(space.plain()), encoding="utf-8")
    return folder


def test_cells_say_what_the_tables_say(folder):
    space = space_of()
    track(write_space(folder, space))
    shown = cell_runs(uri_of(folder))
    cells = summarise(load_results(folder), space.verdict)
    assert sorted(shown) == sorted(cells["cell"])
    assert sorted(cells["verdict"]) == ["connected", "disconnected", "diverged"]
    for row in cells.to_dict("records"):
        run = shown[row["cell"]]
        assert (run.data.tags["verdict"], run.data.tags["complete"]) == (row["verdict"], "true")
        for name in ("mean_barrier", "low", "high"):
            assert run.data.metrics.get(name) == (row[name] if np.isfinite(row[name]) else None)
        for name in ("n_pairs", "n_ok", "n_diverged", "lr", "batch_size", "epochs", "severity"):
            assert run.data.metrics[name] == row[name]
        assert run.data.params["lr"] == f"{row['lr']}"
        assert "replicate" not in run.data.params
        assert run.data.tags["panel"] == "all cells"
        assert run.info.run_name == f"lr={row['lr']:g} batch=32 covariate mlp 64"
    noted = next(run for run in shown.values() if run.data.tags["verdict"] == "connected").data.tags
    assert (
        "**connected**: 3 of 3 finished pairs ok; their mean barrier is 1.1% (95% interval: "
        in noted["mlflow.note.content"]
    )


def test_the_sweep_has_the_counts_and_the_answer_as_its_description(folder):
    track(write_space(folder, space_of()))
    [parent] = parents(uri_of(folder))
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith("**Of 3 cells, 1 is connected, 1 disconnected and 1 diverged.**")
    assert "chord barrier of the test error against 2%, with a 95% interval" in note
    assert "| disconnected | 1 |" in note
    counts = {name: value for name, value in parent.data.metrics.items() if value}
    assert counts == {
        "pairs": 9, "pairs_ok": 6, "pairs_diverged": 3,
        "cells": 3, "cells_connected": 1, "cells_disconnected": 1, "cells_diverged": 1,
    }  # fmt: skip


def test_while_a_sweep_runs_its_cells_are_pending(folder):
    write_space(folder, space_of())
    results = [result_of(pair) for pair in space_of().pairs()]
    mirror = open_mirror(folder, SweepRecord.read(folder))
    for result in results[:4]:
        mirror.send(result)
    [parent], cells = parents(uri_of(folder)), cell_runs(uri_of(folder))
    assert parent.data.tags["mlflow.note.content"] == RUNNING_NOTE
    assert {(run.data.tags["verdict"], run.info.status) for run in cells.values()} == {("pending", "RUNNING")}
    assert {run.data.tags["mlflow.parentRunId"] for run in cells.values()} == {parent.info.run_id}
    pairs = pair_runs(uri_of(folder)).values()
    assert {run.data.tags["mlflow.parentRunId"] for run in pairs} == {run.info.run_id for run in cells.values()}
    assert track(folder) == Sent(created=5, unchanged=4)
    after = cell_runs(uri_of(folder))
    assert {cell: run.info.run_id for cell, run in cells.items()}.items() <= {
        cell: run.info.run_id for cell, run in after.items()
    }.items()
    assert {run.info.status for run in after.values()} == {"FINISHED"}


def test_cells_of_an_unfinished_sweep_say_so_and_change_when_it_goes_on(folder):
    space = space_of()
    track(write_space(folder, space, pairs=2))
    [before] = cell_runs(uri_of(folder)).values()
    assert before.data.tags["complete"] == "false"
    assert "2 of 3 planned pairs have finished" in before.data.tags["mlflow.note.content"]
    assert parents(uri_of(folder))[0].data.metrics["cells_not_run"] == 2
    assert parents(uri_of(folder))[0].data.tags["mlflow.note.content"].startswith("**1 of 3 cells has been run: ")
    assert track(write_space(folder, space)) == Sent(created=7, unchanged=2)
    after = cell_runs(uri_of(folder))[before.data.tags["cell"]]
    assert (after.info.run_id, after.data.tags["complete"]) == (before.info.run_id, "true")
    assert (before.data.metrics["n_pairs"], after.data.metrics["n_pairs"]) == (2, 3)
    assert parents(uri_of(folder))[0].data.metrics["cells_not_run"] == 0
    shown = content(uri_of(folder), folder / "artifacts")
    points = history(uri_of(folder), after)
    assert track(folder) == Sent(unchanged=9)
    assert content(uri_of(folder), folder / "artifacts") == shown
    assert history(uri_of(folder), after) == points


def test_another_threshold_changes_verdicts_but_no_pair(folder):
    track(write_space(folder, space_of()))
    before = {cell: run.info.run_id for cell, run in cell_runs(uri_of(folder)).items()}
    stricter = space_of()
    stricter = stricter.model_copy(update={"verdict": stricter.verdict.model_copy(update={"threshold": 0.001})})
    assert track(write_space(folder, stricter)) == Sent(unchanged=9)
    after = cell_runs(uri_of(folder))
    assert {cell: run.info.run_id for cell, run in after.items()} == before
    assert sorted(run.data.tags["verdict"] for run in after.values()) == ["disconnected", "disconnected", "diverged"]


def test_a_mean_that_is_no_longer_known_leaves_no_old_one_behind(folder):
    """MLflow cannot take a metric back: the cell gets another run, and its pairs hang under that."""
    results = [pair_result(pair_spec(replicate=replicate)) for replicate in range(3)]
    track(write_folder(folder, results))
    [before] = cell_runs(uri_of(folder)).values()
    paths = results[0].tables["paths"]
    unknown = pair_of({**results[0].row, "test_error_barrier_chord": None}, paths=paths)
    track(write_folder(folder, [unknown, *results[1:]]))
    [after] = cell_runs(uri_of(folder)).values()
    assert "mean_barrier" in before.data.metrics
    assert not {"mean_barrier", "low", "high"} & after.data.metrics.keys()
    assert after.data.tags["verdict"] == "undecided"
    assert {run.data.tags["mlflow.parentRunId"] for run in pair_runs(uri_of(folder)).values()} == {after.info.run_id}


def test_cells_that_the_space_does_not_plan_have_no_verdict(folder):
    track(write_space(folder, space_of()))
    fewer = space_of("axes.lr=[0.03, 1.0]")
    (folder / SPACE_FILE).write_text(dump(fewer.plain()), encoding="utf-8")
    track(folder)
    verdicts = {run.data.metrics["lr"]: run.data.tags["verdict"] for run in cell_runs(uri_of(folder)).values()}
    assert verdicts == {0.03: "connected", 0.1: "pending", 1.0: "diverged"}
    [gone] = [run for run in cell_runs(uri_of(folder)).values() if run.data.tags["verdict"] == "pending"]
    assert "mean_barrier" not in gone.data.metrics
    assert len(pair_runs(uri_of(folder))) == 9


def test_where_nothing_can_be_judged_the_sweep_says_why(folder):
    write_folder(folder, six_results())
    (folder / SPACE_FILE).write_text(dump(space_of().plain()), encoding="utf-8")
    assert track(folder) == Sent(created=6)
    [parent] = parents(uri_of(folder))
    assert "none of the 6 finished pairs belongs to the space 'quickstart'" in parent.data.tags["mlflow.note.content"]
    assert {run.data.tags["verdict"] for run in cell_runs(uri_of(folder)).values()} == {"pending"}


def test_a_store_of_the_earlier_version_gets_the_new_shape(tmp_path, folder, empty_store):
    """Pairs directly beneath the sweep, with step = 10 000 λ, and views that know no cells."""
    track(write_space(folder, space_of()))
    expected = content(uri_of(folder), folder / "artifacts")
    client = MlflowClient(uri_of(folder))
    [parent] = parents(uri_of(folder))
    for run in cell_runs(uri_of(folder)).values():
        client.delete_run(run.info.run_id)
    for run in pair_runs(uri_of(folder)).values():
        client.set_tag(run.info.run_id, "mlflow.parentRunId", parent.info.run_id)
        if run.data.tags["status"] == "ok":
            client.set_tag(run.info.run_id, "lmc_tune.metrics_digest", "0123456789abcdef")
            client.log_metric(run.info.run_id, "path/test_error", 0.5, step=10_000)
            client.log_metric(run.info.run_id, "curve/train_loss_a", 0.5, step=19)
    experiment = parent.info.experiment_id
    client.delete_experiment_tag(experiment, "mlflow.sharedViewState.lmc-tune-cells")
    client.set_experiment_tag(experiment, "mlflow.note.content", "earlier")
    assert track(folder) == Sent(updated=9)
    assert content(uri_of(folder), folder / "artifacts") == expected
    tags = client.get_experiment(experiment).tags
    assert experiment_tags(space_of().verdict, varied=["lr"]).items() <= tags.items()
    assert track(folder) == Sent(unchanged=9)


def test_a_deleted_pair_is_sent_again_beneath_its_cell(folder):
    track(write_space(folder, space_of()))
    before = content(uri_of(folder), folder / "artifacts")
    MlflowClient(uri_of(folder)).delete_run(next(iter(pair_runs(uri_of(folder)).values())).info.run_id)
    assert track(folder) == Sent(created=1, unchanged=8)
    assert content(uri_of(folder), folder / "artifacts") == before


def test_what_the_tables_say_of_train_and_test_is_shown_where_they_say_it():
    row = {
        **result_of(space_of().pairs()[0]).row,
        "panel": "all cells",
        "n_pairs": 3,
        "n_ok": 3,
        "verdict": "connected",
        "beside_diverged": False,
    }
    row |= {"mean_barrier": 0.01, "low": 0.0, "high": 0.015, "train_barrier": 0.1, "train_low": 0.09, "train_high": 0.2}
    apart = {"on_test": "connected", "on_train": "disconnected", "split_apart": np.True_}
    shown = judged_cell({**row, **apart}, VerdictSpec(), 3)
    assert {name: shown.tags[name] for name in apart} == {
        "on_test": "connected", "on_train": "disconnected", "split_apart": "true",
    }  # fmt: skip
    assert shown.metrics["train_low"] == 0.09
    assert shown.tags[NOTE_TAG].startswith("**connected on test, disconnected on train**: 3 of 3 finished pairs ok")
    unknown = judged_cell(
        {**row, "on_test": "connected", "on_train": None, "split_apart": False}, VerdictSpec(), 3
    ).tags
    assert (unknown["on_test"], unknown["on_train"]) == ("connected", "none")


def test_a_cell_is_the_same_from_a_pair_and_from_the_tables():
    """Pandas has floats where some rows have no value: parameters of a run can never change."""
    pair = pair_spec(shift=ShiftSpec(kind="label", severity=0.6))
    row = pair_result(pair).row | {"train_examples": 500, "perturb_step": None}
    from_tables = {**row, "train_examples": 500.0, "b_batch_size": float("nan"), "perturb_step": float("nan")}
    assert pending_cell(row) == pending_cell(from_tables)
    assert pending_cell(row).params["train_examples"] == "500"


PROMISED = {
    "tags.kind = 'cell'": lambda run: run.data.tags[KIND_TAG] == "cell",
    "tags.verdict = 'connected'": lambda run: run.data.tags.get("verdict") == "connected",
    "tags.kind = 'cell' and metrics.low > 0.02": lambda run: run.data.tags.get("verdict") == "disconnected",
    "tags.complete = 'false'": lambda run: run.data.tags.get("complete") == "false",
    "tags.kind = 'pair' and tags.status = 'ok'": lambda run: run.data.tags.get("status") == "ok",
    "metrics.lr > 0.1": lambda run: float(run.data.params.get("lr", 0)) > 0.1,
    "metrics.lr > 0.02 and metrics.lr < 0.05": lambda run: run.data.params.get("lr") == "0.03",
    "metrics.batch_size <= 32": lambda run: int(run.data.params.get("batch_size", 99)) <= 32,
    "metrics.barrier > 0.02": lambda run: run.info.run_name.startswith("lr=0.1 ") and run.data.tags[KIND_TAG] == "pair",
}


def test_every_hint_that_ships_with_the_experiment_finds_what_it_promises(folder):
    space = space_of("axes.batch_size=[32, 64]")
    track(write_space(folder, space, pairs=len(space.pairs()) - 1))
    client = MlflowClient(uri_of(folder))
    experiment = client.get_experiment_by_name("lmc-tune/quickstart")
    hints = re.findall(r"^- `([^`]+)`: ", experiment.tags["mlflow.note.content"], re.MULTILINE)
    assert set(hints) == set(HINTS) == set(PROMISED)
    runs = all_runs(uri_of(folder))
    for hint in hints:
        found = {run.info.run_id for run in client.search_runs([experiment.experiment_id], hint, max_results=1000)}
        expected = {run.info.run_id for run in runs if PROMISED[hint](run)}
        assert found == expected, hint
        assert 0 < len(found) < len(runs), hint


def test_the_filters_of_the_guide_are_among_the_hints():
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
    section = guide.split("\n## MLflow\n")[1].split("\n## ")[0]
    filters = set(re.findall(r"`((?:tags|metrics|params)\.[^`]+)`", section))
    assert len(filters) > 3
    assert filters <= HINTS.keys()


def test_views_follow_what_varies_and_what_is_judged(folder):
    space = space_of("axes.lr=[0.1]", "axes.spawn_epoch=[0, 2]", "verdict.of=train_loss")
    track(write_space(folder, space))
    experiment = MlflowClient(uri_of(folder)).get_experiment_by_name("lmc-tune/quickstart")
    state = json.loads(json.loads(experiment.tags[f"mlflow.sharedViewState.{PAIRS_VIEW}"])["state"])
    view = json.dumps(state, ensure_ascii=False)
    for text in (
        "Barrier by spawn epoch",
        "path/train_loss",
        "Train loss, step: λ in %",
    ):
        assert text in view
    assert "path/test_error" not in view
    for run in pair_runs(uri_of(folder)).values():
        assert run.data.metrics["barrier"] == run.data.metrics["train_loss_barrier_chord"]
        assert "path/train_loss" in run.data.metrics
