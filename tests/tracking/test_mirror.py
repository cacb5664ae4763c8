import shutil
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from sqlite3 import connect
from types import MappingProxyType

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from typer.testing import CliRunner

from lmc_tune.cli.commands import app
from lmc_tune.experiment import VerdictSpec
from lmc_tune.sweeps.ownership import owned
from lmc_tune.tables.rows import PairResult
from lmc_tune.tables.store import DamagedTableError, Store
from lmc_tune.tables.sweep_record import SweepRecord
from lmc_tune.tracking import connection
from lmc_tune.tracking.connection import TrackingError
from lmc_tune.tracking.content import RunContent, run_content
from lmc_tune.tracking.mirror import Mirror, Sent, open_mirror
from lmc_tune.tracking.outcome import read_outcome
from lmc_tune.tracking.runs import Run
from lmc_tune.tracking.track import send_all, track
from tests.analysis.layered import layered_pair
from tests.tracking.cases import direction_rows, pair_result, pair_spec, plane_rows, six_results, write_folder
from tests.tracking.shown import (
    all_runs,
    cell_runs,
    chart_text,
    content,
    history,
    pair_runs,
    parents,
    run_line,
    statuses,
)

# By the learning rate of a pair: what was measured around its path.
AROUND = {0.3: {"directions": direction_rows()}, 0.1: {"planes": plane_rows()}}
SWEEP = SweepRecord(id="5eed0001", name="quickstart", planned_pairs=6)


def said_of(result: PairResult) -> RunContent:
    return run_content(result, VerdictSpec())


def begin(mirror: Mirror, result: PairResult) -> Run:
    """The run of a pair as a kill right after its creation leaves it."""
    said = said_of(result)
    return mirror._runs.create(said.name, said.tags, said.seconds)


def uri_of(folder: Path) -> str:
    return f"sqlite:///{folder / connection.STORE_FILE}"


def test_a_pair_whose_layers_were_moved_alone_has_a_page_of_them(folder):
    plain, layered = pair_result(), layered_pair(pair_spec(lr=0.3), {"stem": (9, 0), "head": (0, 0)})
    write_folder(folder, [plain, layered])
    assert track(folder) == Sent(created=2)
    runs, artifacts = pair_runs(uri_of(folder)), folder / "artifacts"
    one, other = (runs["5eed0001", result.key] for result in (layered, plain))
    assert "each layer alone" in chart_text(uri_of(folder), one, artifacts, "layers.html")
    with pytest.raises(FileNotFoundError):
        chart_text(uri_of(folder), other, artifacts, "layers.html")
    assert track(folder) == Sent(unchanged=2)
    next(artifacts.rglob("layers.html")).unlink()
    assert track(folder) == Sent(updated=1, unchanged=1)


def test_a_pair_has_pages_of_what_lies_around_its_path_where_that_was_measured(folder):
    results = [pair_result(), *(replace(pair_result(pair_spec(lr=lr)), tables=own) for lr, own in AROUND.items())]
    write_folder(folder, results)
    assert track(folder) == Sent(created=3)
    runs = [pair_runs(uri_of(folder))["5eed0001", result.key] for result in results]
    homes = [folder / run.info.artifact_uri.replace("mlflow-artifacts:/", "artifacts/") for run in runs]
    assert [sorted(page.name for page in home.iterdir()) for home in homes] == [
        ["interpolation.html", "learning.html"],
        ["directions.html", "interpolation.html"],
        ["interpolation.html", "planes.html"],
    ]
    assert track(folder) == Sent(unchanged=3)
    (homes[2] / "planes.html").unlink()
    assert track(folder) == Sent(updated=1, unchanged=2)


def test_the_mirror_says_what_the_tables_say(folder):
    results = six_results()
    write_folder(folder, results)
    assert track(folder) == Sent(created=6)
    shown = pair_runs(uri_of(folder))
    for result in Store(folder).pairs([result.key for result in results]):
        run, said = shown["5eed0001", result.key], said_of(result)
        by_name: dict[str, list[tuple[int, float]]] = {}
        for name, value, step in said.metrics:
            by_name.setdefault(name, []).append((step, value))
        assert history(uri_of(folder), run) == {name: sorted(points) for name, points in by_name.items()}
        assert run.data.params == said.params
        assert said.tags.items() <= run.data.tags.items()
        assert run.info.run_name == said.name
        assert run.info.status == ("FAILED" if result.status == "failed" else "FINISHED")
        assert said.name in chart_text(uri_of(folder), run, folder / "artifacts")


@pytest.mark.parametrize("place", ["../../outside", "lmc-tune/../../outside"])
def test_a_store_of_somebody_elses_making_cannot_have_files_written_elsewhere(folder, place):
    client = MlflowClient(uri_of(folder))
    client.create_experiment("lmc-tune/quickstart")
    with closing(connect(folder / connection.STORE_FILE)) as store, store:
        location = f"{connection.ARTIFACT_ROOT}{place}"
        store.execute("UPDATE experiments SET artifact_location = ? WHERE name != 'Default'", [location])
    with pytest.raises(TrackingError, match=r"artifacts would be written to .*outside.* not made by lmc-tune"):
        track(write_folder(folder, [pair_result()]))
    assert not list(folder.parent.rglob("outside"))


def test_pairs_hang_under_their_cells_and_cells_under_one_parent_that_holds_the_report(folder):
    track(write_folder(folder, six_results()))
    [parent] = parents(uri_of(folder))
    runs = pair_runs(uri_of(folder)).values()
    cells = cell_runs(uri_of(folder))
    assert {run.data.tags["mlflow.parentRunId"] for run in cells.values()} == {parent.info.run_id}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {run.info.run_id for run in cells.values()}
    for run in runs:
        assert run.data.tags["mlflow.parentRunId"] == cells[run.data.tags["cell"]].info.run_id
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics == {
        "pairs": 6, "pairs_ok": 4, "pairs_undertrained": 0, "pairs_diverged": 1, "pairs_failed": 1,
        "cells": 4, "cells_connected": 0, "cells_disconnected": 0, "cells_undecided": 3, "cells_undertrained": 0,
        "cells_diverged": 1, "cells_not_run": 0,
    }  # fmt: skip
    assert parent.data.tags["version.torch"] == "2.13.0"
    report = folder / "artifacts" / "lmc-tune" / parent.info.run_id / "artifacts" / "report.html"
    assert report.read_text() == "<h1>phase diagram</h1>"


def test_sending_again_changes_nothing(folder):
    track(write_folder(folder, six_results()))
    before, runs = content(uri_of(folder), folder / "artifacts"), {run.info.run_id for run in all_runs(uri_of(folder))}
    assert track(folder) == Sent(unchanged=6)
    assert content(uri_of(folder), folder / "artifacts") == before
    assert {run.info.run_id for run in all_runs(uri_of(folder), ViewType.ALL)} == runs


@pytest.mark.parametrize("filled", [False, True])
def test_a_run_left_running_is_finished(folder, filled):
    results = six_results()
    mirror = open_mirror(folder, SWEEP, uri_of(folder))
    said = said_of(results[0])
    run = begin(mirror, results[0])
    if filled:
        mirror._fill(run, said)
    assert statuses(uri_of(folder)) == ["RUNNING", "RUNNING"]
    assert track(write_folder(folder, results)) == Sent(created=5, updated=1)
    shown = pair_runs(uri_of(folder))
    assert len(shown) == 6
    assert shown["5eed0001", said.key].info.run_id == run.id
    assert len(history(uri_of(folder), shown["5eed0001", said.key])["path/test_error"]) == 21
    assert statuses(uri_of(folder)) == ["FAILED"] + 10 * ["FINISHED"]


def test_a_run_whose_creation_was_not_answered_in_time_is_shown_once(folder):
    """A slow server creates it after all, beside the one that was then created instead; the last one after the end."""
    results = six_results()
    write_folder(folder, results)
    for late in results[:2]:
        mirror = open_mirror(folder, SWEEP, uri_of(folder))
        begin(mirror, late)
        send_all(mirror, folder)
        assert len(pair_runs(uri_of(folder))) == 6
        assert statuses(uri_of(folder)) == ["FAILED"] + 10 * ["FINISHED"]
    begin(mirror, results[2])
    assert track(folder) == Sent(unchanged=6)
    assert len(pair_runs(uri_of(folder))) == 6
    assert statuses(uri_of(folder)) == ["FAILED"] + 10 * ["FINISHED"]


def test_a_gate_that_changes_the_status_changes_the_tags_of_the_same_run(folder):
    write_folder(folder, [pair_result()])
    track(folder)
    [before] = pair_runs(uri_of(folder)).values()
    Store(folder).compact(VerdictSpec(min_train_accuracy=0.995))
    assert track(folder) == Sent(updated=1)
    [after] = pair_runs(uri_of(folder)).values()
    assert after.info.run_id == before.info.run_id
    assert after.data.tags["status"] == "undertrained"
    assert "member B reached 99.0%" in chart_text(uri_of(folder), after, folder / "artifacts")
    assert history(uri_of(folder), after) == history(uri_of(folder), before)
    assert parents(uri_of(folder))[0].data.metrics["pairs_undertrained"] == 1
    assert parents(uri_of(folder))[0].data.metrics["pairs_ok"] == 0


def test_a_failed_pair_that_is_retried_keeps_its_run(folder):
    track(write_folder(folder, [pair_result(status="failed")]))
    [before] = pair_runs(uri_of(folder)).values()
    assert track(write_folder(folder, [pair_result()])) == Sent(updated=1)
    [after] = pair_runs(uri_of(folder)).values()
    assert (after.info.run_id, after.info.status) == (before.info.run_id, "FINISHED")
    assert after.data.tags["reason"] == after.data.tags["mlflow.note.content"] == ""


def test_other_measurements_replace_the_old_ones_instead_of_mixing(folder):
    track(write_folder(folder, [pair_result(height=0.2)]))
    assert track(write_folder(folder, [pair_result(height=0.1)])) == Sent(updated=1)
    [run] = pair_runs(uri_of(folder)).values()
    assert len(history(uri_of(folder), run)["path/test_error"]) == 21
    assert run.data.metrics["test_error_barrier_chord"] == pytest.approx(0.1, abs=0.01)


def test_two_folders_on_one_store_are_two_sweeps(tmp_path, folder):
    first = write_folder(tmp_path / "one", six_results(), "5eed0001")
    second = write_folder(tmp_path / "two", six_results(), "5eed0002")
    for path in (first, second, first):
        track(path, uri_of(folder))
    assert sorted(sweep for sweep, _ in pair_runs(uri_of(folder))) == 6 * ["5eed0001"] + 6 * ["5eed0002"]
    assert len(parents(uri_of(folder))) == 2


def test_a_copied_folder_shows_the_same_and_continues(tmp_path, folder):
    track(write_folder(folder, six_results()))
    before = content(uri_of(folder), folder / "artifacts")
    moved = tmp_path / "elsewhere" / "run"
    shutil.copytree(folder, moved)
    assert not [line for line in _dump(folder) if str(tmp_path) in line], "an absolute path in the store"
    shutil.rmtree(folder)
    assert content(uri_of(moved), moved / "artifacts") == before
    assert track(moved) == Sent(unchanged=6)


def _dump(folder: Path) -> list[str]:
    with closing(connect(folder / connection.STORE_FILE)) as store:
        return list(store.iterdump())


def test_without_a_uri_the_environment_decides(tmp_path, folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri_of(folder))
    track(write_folder(tmp_path / "one", [pair_result()]))
    assert len(pair_runs(uri_of(folder))) == 1
    assert not (tmp_path / "one" / connection.STORE_FILE).exists()


def test_an_interrupted_sweep_ends_its_parent_and_goes_on_with_it(folder):
    open_mirror(folder, SWEEP).finish(read_outcome(folder, None), status="KILLED")
    assert statuses(uri_of(folder)) == ["KILLED"]
    open_mirror(folder, SWEEP)
    assert statuses(uri_of(folder)) == ["RUNNING"]


@pytest.mark.parametrize(("level", "moved"), [("sweep", 0), ("cell", 6), ("both", 6)])
def test_runs_hang_under_the_new_parent_where_the_old_one_was_deleted(folder, level, moved):
    track(write_folder(folder, six_results()))
    before, gone = content(uri_of(folder), folder / "artifacts"), set()
    for run in all_runs(uri_of(folder)):
        if run.data.tags["kind"] in (level, *(["sweep", "cell"] if level == "both" else [])):
            MlflowClient(uri_of(folder)).delete_run(run.info.run_id)
            gone.add(run.info.run_id)
    assert track(folder) == Sent(updated=moved, unchanged=6 - moved)
    [parent], cells, pairs = parents(uri_of(folder)), cell_runs(uri_of(folder)), pair_runs(uri_of(folder)).values()
    assert {run.data.tags["mlflow.parentRunId"] for run in cells.values()} == {parent.info.run_id}
    for run in pairs:
        assert run.data.tags["mlflow.parentRunId"] == cells[run.data.tags["cell"]].info.run_id
    assert not gone & {run.info.run_id for run in all_runs(uri_of(folder))}
    assert content(uri_of(folder), folder / "artifacts") == before
    assert track(folder) == Sent(unchanged=6)


def test_a_chart_that_is_gone_is_sent_again(folder):
    track(write_folder(folder, [pair_result()]))
    before = content(uri_of(folder), folder / "artifacts")
    shutil.rmtree(folder / "artifacts")
    assert track(folder) == Sent(updated=1)
    assert content(uri_of(folder), folder / "artifacts") == before


def test_a_deleted_experiment_is_restored_as_it_is_told(folder):
    write_folder(folder, [pair_result()])
    track(folder)
    client = MlflowClient(uri_of(folder))
    client.delete_experiment(client.get_experiment_by_name("lmc-tune/quickstart").experiment_id)
    with pytest.raises(TrackingError, match=r"'lmc-tune/quickstart' was deleted; set .* or restore it with: ") as error:
        track(folder)
    run_line(str(error.value).rpartition("with: ")[2])
    assert track(folder) == Sent(unchanged=1)


def test_a_folder_without_a_sweep_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"sweep\.json is missing"):
        track(tmp_path)


def test_a_sending_that_breaks_off_leaves_no_parent_running(folder):
    write_folder(folder, six_results())
    track(folder)
    (folder / "paths.parquet").write_bytes(b"damaged")
    with pytest.raises(DamagedTableError):
        track(folder)
    assert [parent.info.status for parent in parents(uri_of(folder))] == ["FAILED"]


def test_nothing_is_sent_beside_a_running_sweep(folder):
    """Two senders would give one pair two runs."""
    write_folder(folder, [pair_result()])
    with owned(folder):
        done = CliRunner().invoke(app, ["track", str(folder)])
    assert done.exit_code == 2
    assert f"is at work in {folder}; wait for it" in done.stderr
    assert all_runs(uri_of(folder)) == []


@pytest.mark.slow
def test_killed_in_the_middle_then_sent_again(tmp_path):
    """SIGKILL at several depths; what is left is always completed to one finished run per pair."""
    results = [pair_result(pair_spec(lr=0.01 * (1 + i))) for i in range(60)]
    folder = write_folder(tmp_path / "run", results)
    for runs in (1, 30, 67, 80):  # of 60 cells, then 60 pairs
        sender = subprocess.Popen([sys.executable, "-c", _SENDER, str(folder)], stdout=subprocess.PIPE, text=True)
        lines = iter(sender.stdout.readline, "")
        assert sum(1 for _, _ in zip(range(runs), lines, strict=False)) == runs
        sender.send_signal(signal.SIGKILL)
        sender.wait()
        sender.stdout.close()
    assert "RUNNING" in statuses(uri_of(folder))
    sent = track(folder)
    assert sent.created > 0
    assert sent.unchanged > 0
    assert statuses(uri_of(folder)) == 121 * ["FINISHED"]
    assert len(cell_runs(uri_of(folder))) == 60
    assert len(pair_runs(uri_of(folder))) == 60
    assert all(len(history(uri_of(folder), run)["path/test_error"]) == 21 for run in pair_runs(uri_of(folder)).values())


_SENDER = """
import sys
from pathlib import Path
from lmc_tune.tables.sweep_record import SweepRecord
from lmc_tune.tracking.mirror import open_mirror
from lmc_tune.tracking.track import send_all
folder = Path(sys.argv[1])
send_all(open_mirror(folder, SweepRecord.read(folder)), folder, progress=lambda: print("sent", flush=True))
"""


def test_versions_may_be_any_mapping(folder):
    sweep = SweepRecord(id="5eed0003", name="other", versions=MappingProxyType({"ray": "2.60.0"}))
    open_mirror(folder, sweep).finish(read_outcome(folder, None))
    assert parents(uri_of(folder))[0].data.tags["version.ray"] == "2.60.0"


@pytest.mark.slow
def test_a_server_shows_the_same_as_the_embedded_store(tmp_path, folder, server):
    path = write_folder(tmp_path / "one", six_results())
    write_folder(folder, six_results())
    track(folder)
    assert track(path, server) == Sent(created=6)
    assert track(path, server) == Sent(unchanged=6)
    assert content(server) == content(uri_of(folder), folder / "artifacts")
    assert sum(parent.info.status == "FINISHED" for parent in parents(server)) == 1
