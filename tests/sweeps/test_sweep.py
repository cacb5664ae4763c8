"""Whole sweeps on the real Ray and the real MLflow."""

import errno
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import termios
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from lmc_tune.data.files import DataError
from lmc_tune.experiment.reading import read_space
from lmc_tune.sweeps.options import Options
from lmc_tune.sweeps.ownership import StoreFullError
from lmc_tune.sweeps.progress import SweepListener
from lmc_tune.sweeps.run import run_sweep
from lmc_tune.tables.rows import PairResult, Status
from lmc_tune.tables.store import Store
from tests.sweeps.cases import (
    CELLS,
    PAIRS,
    SPACE,
    assert_same_tables,
    command,
    descendants,
    environment,
    finished,
    lmc_tune,
    lmc_tune_json,
    mlflow_statuses,
    rows,
    start,
    wait_for,
    write_space,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that ran through undisturbed."""
    folder = tmp_path_factory.mktemp("reference")
    space = write_space(folder)
    outcome = lmc_tune_json("sweep", space, "--out", folder / "run")
    assert outcome["trained"] == PAIRS
    return folder


class Silent(SweepListener):
    """Tells nobody."""

    def say(self, message: str) -> None:
        pass

    def phase(self, name: str) -> None:
        pass

    def start(self, total: int, done: Counter[Status], group: str = "pair") -> None:
        pass

    def aim(self, total: int, *, last: bool) -> None:
        pass

    def finished(self, results: Sequence[PairResult]) -> None:
        pass

    def working(self, running: int, seconds_left: float | None) -> None:
        pass


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


def test_every_pair_gets_a_row_a_curve_and_a_finished_run(reference: Path) -> None:
    folder = reference / "run"
    results = rows(folder)
    assert len(results) == results["key"].nunique() == PAIRS
    assert set(Store(folder).table("paths")["key"]) == set(results["key"])
    assert mlflow_statuses(folder) == {"FINISHED": PAIRS + CELLS + 1}
    assert (folder / "report.html").stat().st_size > 100_000
    assert not list((folder / "shards").iterdir())


def test_running_again_trains_nothing(reference: Path) -> None:
    before = Store(reference / "run").results()
    outcome = lmc_tune_json("sweep", reference / "tiny.yaml", "--out", reference / "run")
    assert outcome["trained"] == 0
    assert outcome["counts"] == dict(Counter(before["status"]))
    assert Store(reference / "run").results().equals(before)
    assert mlflow_statuses(reference / "run") == {"FINISHED": PAIRS + CELLS + 1}


def test_the_end_says_the_answer_a_map_and_what_may_come_next(reference: Path) -> None:
    """On stderr; stdout has the report's path alone."""
    run = reference / "run"
    arguments = ("sweep", reference / "tiny.yaml", "--out", run)
    done, found = lmc_tune(*arguments), lmc_tune_json(*arguments)
    assert done.stdout == f"{run}/report.html\n"
    assert (
        f"nothing was left to run; now {', '.join(f'{n} {name}' for name, n in found['counts'].items())}\n"
        in done.stderr
    )
    assert "6 cells have fewer than 3 ok pairs: too few to decide." in found["remarks"]
    assert " ".join([found["answer"], *found["remarks"]]) in " ".join(done.stderr.split())
    assert "\n   batch size  covariate     label 80/20\n" in done.stderr
    assert f"every pair with its curves, in MLflow:\n    python -m lmc_tune ui {run}\n" in done.stderr
    undecided = found["verdicts"]["undecided"]
    assert (f"{undecided} cell" in done.stderr and "--set replicates=4\n" in done.stderr) == (undecided > 0)
    letters = Counter(re.sub(r"[^CD?U×]", "", "".join(re.findall(r"^ +(?:50|10)  (.*)$", done.stderr, re.MULTILINE))))
    assert sorted(letters.values()) == sorted(filter(None, found["verdicts"].values()))
    state = lmc_tune_json("status", run)
    assert [state[name] for name in ("answer", "verdicts", "cells")] == [
        found[name] for name in ("answer", "verdicts", "cells")
    ]


def test_on_a_narrow_terminal_every_line_is_whole(reference: Path, tmp_path: Path) -> None:
    """But for commands and the report's path, which have to be copied. From the first moment it says what it does."""
    shutil.copytree(reference / "run", tmp_path / "run")
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    arguments = command("sweep", reference / "tiny.yaml", "--out", tmp_path / "run")
    process = subprocess.Popen(
        arguments, stdin=follower, stdout=follower, stderr=follower, env=environment(TERM="xterm", COLUMNS="")
    )
    os.close(follower)
    drawn = ""
    with suppress(OSError):  # the end of a terminal, on Linux
        while part := os.read(leader, 2**16):
            drawn += part.decode()
    os.close(leader)
    assert process.wait() == 0
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", re.sub(r"\r|\x1b\[1A", "\n", drawn)).split("\n")
    phases = [name for line in lines for name in re.findall(r"^\S (reading [a-z ]+[a-z])  0:0\d", line)]
    assert phases[0] == "reading the space"
    assert phases[-1] == "reading the answer"
    long = [line for line in lines if len(line) > 60]
    assert all(line.startswith(("    ", "tables  ", "report  ")) for line in long), long
    assert "nothing was left to run; now" in drawn


def test_two_folders_hold_the_same_rows_whatever_the_number_of_workers(reference: Path, tmp_path: Path) -> None:
    lmc_tune_json("sweep", reference / "tiny.yaml", "--out", tmp_path / "run", "--workers", "1", "--no-report")
    assert_same_tables(reference / "run", tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_says_how_to_go_on(reference: Path, tmp_path: Path, number: signal.Signals) -> None:
    arguments = ("sweep", reference / "tiny.yaml", "--out", tmp_path / "run", "--workers", "1", "--no-report")
    last = read_space(str(reference / "tiny.yaml")).pairs()[-1]
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / f"{last.key}-a.safetensors").touch()  # of no use, and so of no harm
    process = start(*arguments)
    wait_for(lambda: finished(tmp_path / "run") >= 2, process)
    children = descendants(process)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    kept = "every finished pair is kept, 1 network of unfinished pairs has a checkpoint to resume from"
    assert f"{kept}. Continue with the same command:\n    python -m lmc_tune sweep {reference}" in told
    assert "Traceback" not in told
    assert 2 <= finished(tmp_path / "run") < PAIRS
    assert "RUNNING" not in mlflow_statuses(tmp_path / "run")
    _, alive = psutil.wait_procs(children, timeout=15)
    assert not alive, "no process outlives the sweep"
    lmc_tune_json(*arguments)
    assert_same_tables(reference / "run", tmp_path / "run")


def test_sigterm_while_ray_starts_is_an_interruption_like_any_other(reference: Path, tmp_path: Path) -> None:
    process = start("sweep", reference / "tiny.yaml", "--out", tmp_path / "run", "--workers", "1", "--no-report")
    wait_for(lambda: any("gcs_server" in child.name() for child in descendants(process)), process)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "Continue with the same command" in told
    assert "Traceback" not in told


def test_tidying_up_is_not_cut_short_by_more_signals(reference: Path, tmp_path: Path) -> None:
    process = start("sweep", reference / "tiny.yaml", "--out", tmp_path / "run", "--workers", "1")
    wait_for(lambda: finished(tmp_path / "run") >= 2, process)
    while process.poll() is None:  # an impatient user, until the end
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (
        "every finished pair is kept, networks that were not finished are trained again. Continue with the same command"
        in told
    )
    assert "Traceback" not in told
    statuses = mlflow_statuses(tmp_path / "run")
    assert statuses.pop("KILLED") == 1
    assert statuses == {"FINISHED": finished(tmp_path / "run") + rows(tmp_path / "run")["cell"].nunique()}
    assert (tmp_path / "run" / "report.html").exists()
    assert not list((tmp_path / "run" / "shards").iterdir())


def test_failing_pairs_are_kept_with_their_traceback_and_tried_again(tmp_path: Path) -> None:
    """A file where the members' folder should be makes every pair fail, until it is gone."""
    arguments = ("sweep", write_space(tmp_path, SPACE + "members: keep\n"), "--out", tmp_path / "run", "--no-report")
    (tmp_path / "run").mkdir()
    obstacle = tmp_path / "run" / "members"
    obstacle.touch()
    done = lmc_tune(*arguments, "--max-pairs", "3")
    assert done.returncode == 1
    assert "3 pairs failed; run the same command to try them again" in done.stderr
    assert f"whole tracebacks: the column 'reason' of lmc_tune.load_results('{tmp_path}/run')" in done.stderr
    state = lmc_tune_json("status", tmp_path / "run")
    assert state["counts"] | {"failed": 3, "pending": PAIRS - 3} == state["counts"]
    assert "FileExistsError" in state["failed"][0]["reason"]
    assert set(rows(tmp_path / "run")["reason"].str[:9]) == {"Traceback"}
    cells = rows(tmp_path / "run")["cell"].nunique()
    assert mlflow_statuses(tmp_path / "run") == {"FINISHED": cells + 1, "FAILED": 3}
    obstacle.unlink()
    assert lmc_tune_json(*arguments, "--max-pairs", "3")["trained"] == 3
    assert mlflow_statuses(tmp_path / "run") == {"FINISHED": cells + 4}


def test_a_second_driver_is_refused_and_the_first_named(reference: Path, tmp_path: Path) -> None:
    arguments = ("sweep", reference / "tiny.yaml", "--out", tmp_path / "run", "--no-report")
    process = start(*arguments)
    wait_for((tmp_path / "run" / "sweep.json").exists, process)
    second = lmc_tune(*arguments)
    assert second.returncode == 2
    assert f"another lmc-tune (process {process.pid}) is at work in {tmp_path}" in second.stderr
    process.communicate(timeout=240)
    assert process.returncode == 0


def test_status_of_a_running_sweep(reference: Path, tmp_path: Path) -> None:
    process = start("sweep", reference / "tiny.yaml", "--out", tmp_path / "run", "--workers", "1", "--no-report")
    wait_for(lambda: finished(tmp_path / "run") >= 1, process)
    state = lmc_tune_json("status", tmp_path / "run")
    process.communicate(timeout=240)
    assert state["total"] == PAIRS == sum(state["counts"].values())
    assert state["counts"]["pending"] > 0
    assert state["seconds_left"] > 0
    assert lmc_tune_json("status", tmp_path / "run")["counts"]["pending"] == 0


def test_pairs_that_cannot_be_measured_again_keep_their_answers_and_that_is_told(tmp_path: Path) -> None:
    text = SPACE.replace("replicates: 2", "replicates: 1").replace("[0.01, 0.1]", "[0.1]").replace("[10, 50]", "[10]")
    arguments = ("sweep", write_space(tmp_path, text), "--out", tmp_path / "run", "--no-report")
    lmc_tune_json(*arguments)
    before = rows(tmp_path / "run")
    write_space(tmp_path, text.replace("lambdas: 5", "lambdas: 7"))
    (tmp_path / "sitecustomize.py").write_text(
        "from lmc_tune.measurement.path import Paths\n"
        "def measure(self, members, asked):\n"
        "    raise RuntimeError('the ruler is broken')\n"
        "Paths.measure = measure\n"
    )
    done = lmc_tune(*arguments, "--json", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert called(json.loads(done.stdout)) == {"trained": 0, "remeasured": 0, "unanswered": 2}
    assert "2 pairs could not be measured again and keep their answers to the earlier question" in done.stderr
    assert "RuntimeError: the ruler is broken" in done.stderr
    assert rows(tmp_path / "run").equals(before)
    assert lmc_tune_json("status", tmp_path / "run")["counts"]["pending"] == 2
    assert called(lmc_tune_json(*arguments)) == {"trained": 0, "remeasured": 2, "unanswered": 0}


def test_pairs_that_are_only_measured_again_are_not_said_to_be_trained(tmp_path: Path) -> None:
    text = SPACE.replace("replicates: 2", "replicates: 1").replace("[0.01, 0.1]", "[0.1]").replace("[10, 50]", "[10]")
    arguments = ("sweep", write_space(tmp_path, text), "--out", tmp_path / "run", "--no-report")
    assert called(lmc_tune_json(*arguments)) == {"trained": 2, "remeasured": 0, "unanswered": 0}
    again = lmc_tune_json(*arguments, "--set", "measure.lambdas=7")
    assert called(again) == {"trained": 0, "remeasured": 2, "unanswered": 0}
    lost = rows(tmp_path / "run")["member_a"].iloc[0]
    (tmp_path / "run" / "members" / f"{lost}.safetensors").unlink()
    done = lmc_tune(*arguments, "--set", "measure.lambdas=9")
    assert "1 pair trained and 1 only measured again in this call; now 2 " in done.stderr


def called(outcome: dict[str, Any]) -> dict[str, int]:
    """What a call did with its pairs."""
    return {name: outcome[name] for name in ("trained", "remeasured", "unanswered")}


@pytest.mark.parametrize(("asked", "kept"), [("auto", True), ("keep", True), ("drop", False)])
def test_members_are_kept_as_the_space_says_and_that_is_told(tmp_path: Path, asked: str, kept: bool) -> None:  # noqa: FBT001
    space = write_space(tmp_path, SPACE + f"members: {asked}\n")
    done = lmc_tune("sweep", space, "--out", tmp_path / "run", "--max-pairs", "1", "--no-report")
    assert f"members: {'kept' if kept else 'dropped when they are measured'} (32 networks, about " in done.stderr
    row = Store(tmp_path / "run").results().iloc[0]
    assert Store(tmp_path / "run").members() == ({row["member_a"], row["member_b"]} if kept else set())


def test_max_pairs_runs_so_many_and_the_next_call_the_rest(reference: Path, tmp_path: Path) -> None:
    arguments = ("sweep", reference / "tiny.yaml", "--out", tmp_path / "run", "--no-report")
    first = lmc_tune_json(*arguments, "--max-pairs", "5")
    assert first["trained"] == 5
    assert first["counts"]["pending"] == PAIRS - 5
    assert lmc_tune_json(*arguments)["trained"] == PAIRS - 5
    assert_same_tables(reference / "run", tmp_path / "run")


def test_a_report_is_rendered_again_when_the_tables_have_moved_on(reference: Path, tmp_path: Path) -> None:
    arguments = ("sweep", reference / "tiny.yaml", "--out", tmp_path / "run")
    page = tmp_path / "run" / "report.html"
    lmc_tune_json(*arguments, "--max-pairs", "4")
    assert f"4 of {PAIRS} pairs finished" in page.read_text()
    lmc_tune_json(*arguments, "--no-report")
    assert f"4 of {PAIRS} pairs finished" in page.read_text()
    lmc_tune_json(*arguments)
    assert f"{PAIRS} of {PAIRS} pairs finished" in page.read_text()
    before = page.stat().st_mtime_ns
    lmc_tune_json(*arguments)
    assert page.stat().st_mtime_ns == before, "nothing has changed since"


def test_a_copied_run_folder_is_complete(reference: Path, tmp_path: Path) -> None:
    shutil.copytree(reference / "run", tmp_path / "copy")
    assert lmc_tune_json("sweep", reference / "tiny.yaml", "--out", tmp_path / "copy")["trained"] == 0
    assert mlflow_statuses(tmp_path / "copy") == {"FINISHED": PAIRS + CELLS + 1}


def test_a_folder_with_another_study_is_refused_untouched(reference: Path, tmp_path: Path) -> None:
    shutil.copytree(reference / "run", tmp_path / "run")
    before = files(tmp_path / "run")
    done = lmc_tune("sweep", reference / "tiny.yaml", "--out", tmp_path / "run", "--set", "train.epochs=1")
    assert done.returncode == 2
    assert f"holds another study: none of its {PAIRS} finished pairs is in this space" in done.stderr
    assert "(train.epochs: 20 there, 1 here); choose another folder with --out" in done.stderr
    assert files(tmp_path / "run") == before


def test_a_damaged_table_is_named_and_nothing_is_written(reference: Path, tmp_path: Path) -> None:
    shutil.copytree(reference / "run", tmp_path / "run")
    table = tmp_path / "run" / "results.parquet"
    table.write_bytes(table.read_bytes()[:500])
    before = files(tmp_path / "run")
    done = lmc_tune("sweep", reference / "tiny.yaml", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "results.parquet cannot be read" in done.stderr
    assert "move it away and run the same sweep again" in done.stderr
    assert files(tmp_path / "run") == before


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_stops_the_sweep_and_keeps_what_is_finished(reference: Path, tmp_path: Path, disk: Path) -> None:
    arguments = ("sweep", reference / "tiny.yaml", "--out", disk / "run", "--no-report")
    assert lmc_tune_json(*arguments, "--max-pairs", "4")["trained"] == 4
    filler = disk / "filler"
    with filler.open("wb") as file:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        file.write(b"\0" * (free - 40_000))
    done = lmc_tune(*arguments)
    assert done.returncode == 1, done.stderr
    assert f"no space left in {disk / 'run'}" in done.stderr
    assert "Traceback" not in done.stderr
    assert finished(disk / "run") >= 4
    filler.unlink()
    lmc_tune_json(*arguments, "--tracking-uri", f"sqlite:///{tmp_path}/elsewhere.db")
    assert_same_tables(reference / "run", disk / "run")


def mnist(tmp_path: Path, data_root: Path, *cuts: str) -> tuple[str | Path, ...]:
    """Arguments of a sweep of two pairs."""
    cuts += ("train.epochs=1", "axes.lr=[0.001]", "axes.batch_size=[64]", "replicates=1", "measure.lambdas=5")
    sets = [part for cut in cuts for part in ("--set", cut)]
    return ("sweep", "mnist_mlp", "--out", tmp_path / "run", "--data-root", data_root, "--no-report", *sets)


def test_a_disk_too_small_for_the_prepared_data_stops_the_sweep(real_data: Path, tmp_path: Path, disk: Path) -> None:
    done = lmc_tune(*mnist(tmp_path, real_data), XDG_CACHE_HOME=str(disk))
    assert done.returncode == 1, done.stderr
    assert f"no space left in {disk / 'lmc-tune' / 'prepared'}: the sweep has stopped" in done.stderr
    assert "Traceback" not in done.stderr
    assert finished(tmp_path / "run") == 0


def test_a_cache_folder_that_cannot_be_written_to_is_said_once(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    arguments = mnist(tmp_path, real_data, "dataset.train=1000", "dataset.test=500")
    message = f"{tmp_path / 'cache' / 'lmc-tune' / 'prepared'} cannot be written to, so every worker loads its own copy"
    shared = lmc_tune(*arguments, "--max-pairs", "1", XDG_CACHE_HOME=str(tmp_path / "other"))
    copied = lmc_tune(*arguments, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert (shared.returncode, copied.returncode) == (0, 0), copied.stderr
    assert "cannot be written to" not in shared.stderr
    assert copied.stderr.count(message) == 1
    assert finished(tmp_path / "run") == 2


def test_json_is_one_object_on_stdout(reference: Path) -> None:
    done = lmc_tune("sweep", reference / "tiny.yaml", "--out", reference / "run", "--json")
    assert json.loads(done.stdout)["folder"] == str(reference / "run")
    assert done.stdout.count("\n") == 1


def test_a_disk_that_fills_up_in_the_driver_is_told_as_plainly_as_in_a_worker(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(reference / "run", tmp_path / "run")

    def compact(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Store, "compact", compact)
    with pytest.raises(StoreFullError, match=r"no space left in .*every pair finished so far is kept"):
        run_sweep(read_space(str(reference / "tiny.yaml")), tmp_path / "run", Options(data_root=tmp_path), Silent())


def test_data_that_do_not_fit_in_memory_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {"SC_PAGE_SIZE": 1024, "SC_PHYS_PAGES": 30}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    space = read_space(str(write_space(tmp_path)))
    with pytest.raises(DataError, match=r"examples of digits take .* ask for fewer with dataset\.train"):
        run_sweep(space, tmp_path / "run", Options(data_root=tmp_path), Silent())
    assert not (tmp_path / "run").exists()


def test_the_other_data_set_of_a_shift_is_looked_for_before_anything_is_written(tmp_path: Path) -> None:
    sets = ["dataset.name=usps", "axes.shift=[{kind: domain, domain: mnist}]"]
    space = read_space("mnist_mlp", sets)
    assert {dataset.name for pair in space.pairs() for dataset in pair.datasets} == {"usps", "mnist"}
    with pytest.raises(DataError, match="datasets get mnist"):
        run_sweep(space, tmp_path / "run", Options(data_root=tmp_path / "empty"), Silent())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("preset", ["mnist_mlp", "fashion_mlp", "cifar10_mlp"])
def test_presets_at_real_size_run_cut_down_on_the_real_files(real_data: Path, tmp_path: Path, preset: str) -> None:
    cuts = [
        "dataset.train=1000",
        "dataset.test=500",
        "train.epochs=1",
        "axes.lr=[0.001]",
        "axes.batch_size=[32]",
        "replicates=1",
        "measure.lambdas=5",
    ]
    sets = [part for cut in cuts for part in ("--set", cut)]
    outcome = lmc_tune_json("sweep", preset, "--out", tmp_path / "run", "--data-root", real_data, "--no-report", *sets)
    results = rows(tmp_path / "run")
    assert outcome["trained"] == len(results) >= 2
    assert set(results["status"]) <= {"ok", "undertrained"}
    assert set(results["n_train"]) <= {500, *range(480, 500)}
    assert (results["test_accuracy_a"] > 0.12).all(), "better than chance after one epoch"


def test_an_adaptive_sweep_runs_fewer_pairs_and_a_grid_fills_in_the_rest(tmp_path: Path) -> None:
    text = SPACE.replace("lr: [0.01, 0.1]", "lr: {log: [0.001, 0.1], steps: 5}").replace(
        "replicates: 2", "replicates: 1"
    )
    arguments = ("sweep", write_space(tmp_path, text), "--out", tmp_path / "run", "--no-report")
    first = lmc_tune_json(*arguments, "--search", "adaptive", "--max-pairs", "3")
    assert (first["trained"], first["complete"], first["counts"]["pending"]) == (3, False, 2 * 2 * 5 - 3)
    first = lmc_tune_json(*arguments, "--search", "adaptive")
    assert 2 * 2 * 3 <= 3 + first["trained"] < 2 * 2 * 5
    left = 2 * 2 * 5 - 3 - first["trained"]
    assert (first["complete"], first["counts"]["left_out"], first["verdicts"]["not_run"]) == (True, left, left)
    done = lmc_tune(*arguments, "--search", "adaptive", "--json")
    assert "fewer than 3 pairs decide nothing, so the search refines only where training fails; set" in done.stderr
    again = json.loads(done.stdout)
    assert (again["trained"], again["complete"]) == (0, True)
    state = lmc_tune_json("status", tmp_path / "run")
    assert state["counts"] | {"pending": 0, "left_out": left} == state["counts"]
    assert (state["complete"], state["seconds_left"]) == (True, 0)
    assert state["cells"] == again["cells"]
    told = lmc_tune("status", tmp_path / "run").stdout
    assert f"the search left {left} cell" in told
    assert f"    python -m lmc_tune sweep {tmp_path}/run/space.yaml --out {tmp_path}/run --search grid\n" in told
    rest = lmc_tune_json(*arguments)
    assert (rest["trained"], rest["complete"], rest["verdicts"]["not_run"]) == (left, True, 0)
