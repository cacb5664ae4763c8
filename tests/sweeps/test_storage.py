"""Whole sweeps in a bucket."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmc_tune.storage import Place, files, place_at
from lmc_tune.tables.store import Store
from tests.buckets import Wire, address, s3_server
from tests.sweeps.cases import (
    PAIRS,
    assert_same_tables,
    finished,
    lmc_tune,
    lmc_tune_json,
    start,
    wait_for,
    write_space,
)

pytestmark = pytest.mark.slow

KEEP = ("--set", "members=keep")


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with s3_server("lmc") as port:
        yield port


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep on disk."""
    folder = tmp_path_factory.mktemp("reference")
    assert lmc_tune_json("sweep", write_space(folder), "--out", folder / "run", "--no-report")["trained"] == PAIRS
    return folder


@pytest.fixture(scope="module")
def in_bucket(server: int, reference: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Path]:
    """A sweep in a bucket, and the folder in which its command ran."""
    here = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        outcome = lmc_tune_json("sweep", reference / "tiny.yaml", *KEEP, "--storage", address(server, "lmc/whole"))
    assert (outcome["trained"], outcome["mirrored"]) == (PAIRS, True)
    assert outcome["folder"] == address(server, "lmc/whole/tiny")
    return place_at(outcome["folder"]), here


def test_a_sweep_in_a_bucket_has_the_tables_of_one_on_disk(in_bucket: tuple[Place, Path], reference: Path) -> None:
    folder, here = in_bucket
    assert_same_tables(folder, reference / "run")
    assert not Store(folder).shard_stamps()
    for name in ("space.yaml", "sweep.json", "report.html"):
        assert (folder / name).exists()
    assert not (folder / "owner.json").exists()
    assert {path.name for path in here.rglob("*") if path.is_file()} == {
        "mlflow.db",
        "interpolation.html",
        "learning.html",
        "report.html",
        "space.yaml",
    }


def test_every_command_takes_the_address(in_bucket: tuple[Place, Path], tmp_path: Path) -> None:
    folder = str(in_bucket[0])
    assert lmc_tune_json("status", folder)["counts"]["pending"] == 0
    assert lmc_tune("report", folder, "-o", tmp_path / "report.html").returncode == 0
    assert (tmp_path / "report.html").read_bytes() == (in_bucket[0] / "report.html").read_bytes()
    sent = lmc_tune_json("track", folder, "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db")
    assert sent == {"created": PAIRS, "updated": 0, "unchanged": 0}
    refused = lmc_tune("report", folder, "-o", folder)
    assert (refused.returncode, "-o names a file or folder on this machine" in refused.stderr) == (2, True)


def test_running_again_trains_nothing(in_bucket: tuple[Place, Path], reference: Path, monkeypatch) -> None:
    monkeypatch.chdir(in_bucket[1])
    before = (in_bucket[0] / "results.parquet").read_bytes()
    outcome = lmc_tune_json("sweep", reference / "tiny.yaml", *KEEP, "--out", str(in_bucket[0]))
    assert outcome["trained"] == 0
    assert (in_bucket[0] / "results.parquet").read_bytes() == before


def test_storage_that_is_away_in_the_middle_costs_nothing(
    server: int, reference: Path, tmp_path: Path, monkeypatch
) -> None:
    """For ten seconds nobody reaches the bucket: not the workers, not the driver."""
    monkeypatch.chdir(tmp_path)
    wire = Wire(server)
    folder = place_at(address(wire.port, "lmc/away/tiny"))
    process = start("sweep", reference / "tiny.yaml", "--out", str(folder), "--workers", "1", "--no-report", "--json")
    wait_for(lambda: finished(folder) >= 2, process)
    wire.cut()
    time.sleep(10)
    assert process.poll() is None
    wire.mend()
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert "does not answer" in err
    assert json.loads(out)["trained"] == PAIRS
    assert_same_tables(folder, reference / "run")
    wire.cut()


def test_a_killed_driver_is_followed_and_a_living_one_is_not(
    server: int, reference: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = place_at(address(server, "lmc/killed/tiny"))
    arguments = ("sweep", reference / "tiny.yaml", "--out", str(folder), "--workers", "1", "--no-report")
    process = start(*arguments)
    wait_for(lambda: finished(folder) >= 2, process)
    second = lmc_tune(*arguments)
    assert second.returncode == 2
    assert f"process {process.pid} on " in second.stderr
    assert "Traceback" not in second.stderr
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = finished(folder)
    outcome = lmc_tune_json(*arguments)
    assert outcome["trained"] <= PAIRS - kept
    assert_same_tables(folder, reference / "run")


def test_members_are_kept_in_the_bucket(in_bucket: tuple[Place, Path]) -> None:
    kept = {file.stem for file in files(in_bucket[0] / "members", end=".safetensors")}
    rows = Store(in_bucket[0]).results(["member_a", "member_b"])
    assert kept == {*rows["member_a"], *rows["member_b"]}


def test_out_and_storage_are_not_given_together(reference: Path, tmp_path: Path) -> None:
    refused = lmc_tune("sweep", reference / "tiny.yaml", "--out", tmp_path / "run", "--storage", tmp_path)
    assert refused.returncode == 2
    assert refused.stderr == "--out names the run folder itself, --storage the folder of all runs: give one of them\n"


def test_max_hours_end_the_sweep_in_order_and_the_same_command_goes_on(reference: Path, tmp_path: Path) -> None:
    """In a storage that is a folder, as machines share one by NFS."""
    arguments = ("sweep", reference / "tiny.yaml", "--storage", tmp_path, "--workers", "1", "--no-report")
    process = start(*arguments, "--max-hours", str(10 / 3600))
    _out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "--max-hours: 10 s are over" in err
    assert "Continue with the same command" in err
    lmc_tune_json(*arguments)
    assert_same_tables(tmp_path / "tiny", reference / "run")
