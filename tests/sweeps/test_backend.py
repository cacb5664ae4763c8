"""What Ray has, in our words."""

import errno
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import ray

from lmc_tune.storage import FolderError, StorageError, write_text
from lmc_tune.sweeps.backend import (
    _LONGEST_TMP,
    ClusterError,
    _check_shared,
    _scratch,
    check_address,
    check_scratch,
    machines,
    slots_of,
    why_no_worker,
)
from lmc_tune.sweeps.plan import Slots
from lmc_tune.tables.store import Store
from tests.sweeps.cases import environment, write_space

ROOT = Path(__file__).resolve().parents[2]
TMP = "/tmp"  # noqa: S108 - where it is not said otherwise
GPUS = {"CPU": 10.0, "GPU": 3.0}
NONE_YET = {"CPU": 6.0}
EMPTY: dict[str, float] = {}


@pytest.mark.parametrize(
    ("there", "device", "workers", "slots"),
    [
        (NONE_YET, "auto", None, Slots(number=6)),
        (NONE_YET, "auto", 2, Slots(number=2)),
        (NONE_YET, "cuda", 4, Slots(number=4, gpu=True)),
        (NONE_YET, "cuda", None, Slots(number=1, gpu=True)),
        (GPUS, "auto", None, Slots(number=3, gpu=True)),
        (GPUS, "auto", 2, Slots(number=2, gpu=True)),
        (GPUS, "cuda", 8, Slots(number=8, gpu=True)),
        (GPUS, "cpu", None, Slots(number=10)),
        (EMPTY, "auto", None, Slots(number=1)),
    ],
)
def test_a_sweep_takes_what_is_there_or_what_is_asked_for(monkeypatch, there, device, workers, slots):
    monkeypatch.setattr(ray, "cluster_resources", lambda: there)
    assert slots_of(device, workers) == slots


def test_machines_that_are_gone_are_not_counted(monkeypatch):
    nodes = [
        {"Alive": True, "Resources": {"CPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 1.0}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert machines() == "2 machines (10 CPU cores, 1 GPU)"
    monkeypatch.setattr(ray, "nodes", lambda: nodes[:1])
    assert machines() == "1 machine (2 CPU cores)"


def test_a_folder_that_is_not_the_drivers_is_refused_before_training(tmp_path):
    with pytest.raises(StorageError, match=r"is not the same folder on all machines.*--storage s3://"):
        _check_shared(tmp_path)
    write_text(tmp_path / "space.yaml", "")
    _check_shared(tmp_path)


def test_a_worker_that_does_not_begin_is_explained_by_rays_logs(tmp_path):
    (tmp_path / "worker-1.err").write_text(":job_id:01000000\n")
    (tmp_path / "runtime_env_setup-1.log").write_text("INFO running\n")
    assert why_no_worker(tmp_path) == f"Ray's logs in {tmp_path} do not say why"
    (tmp_path / "raylet.err").write_text("Traceback\nModuleNotFoundError: No module named 'ray'\n[state-dump] 0\n")
    told = f"Ray's log {tmp_path}/raylet.err says: ModuleNotFoundError: No module named 'ray'"
    assert why_no_worker(tmp_path) == told


@pytest.fixture
def _fresh_tmp(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.mark.usefixtures("_fresh_tmp")
def test_temporary_files_go_where_the_environment_says_if_sockets_fit_there(tmp_path, monkeypatch):
    short = Path(tempfile.mkdtemp(dir=TMP))
    monkeypatch.setenv("TMPDIR", str(short))
    made = Path(_scratch())
    assert made.parent == short
    shutil.rmtree(short)
    monkeypatch.setattr(tempfile, "tempdir", "x" * (_LONGEST_TMP + 1))
    made = Path(_scratch())
    assert made.parent == Path(TMP)
    made.rmdir()


@pytest.mark.usefixtures("_fresh_tmp")
def test_a_tmp_that_cannot_be_used_is_named_with_what_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 20)))

    def mkdtemp(prefix, dir):  # noqa: A002 - as the real one
        raise OSError(errno.EROFS, "Read-only file system", dir)

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    told = (
        r"longlong is longer than \d+ characters, and /tmp cannot be written \(Read-only file system\); set TMPDIR to"
    )
    with pytest.raises(FolderError, match=told):
        check_scratch()


_RUN = '"$PYTHON" -m lmc_tune sweep "$SPACE" --out "$OUT" --workers 1 --max-pairs 1 --no-report; exit $?'


@pytest.mark.slow
def test_under_uv_run_workers_are_this_environments(tmp_path):
    """Ray looks for a parent process `uv run`, and takes the folder of the project, here the one above, to workers."""
    here = tmp_path / "project" / "folder"
    here.mkdir(parents=True)
    (here.parent / "pyproject.toml").write_text('[project]\nname = "mine"\nversion = "0.1.0"\n')
    (here / "run").write_text(_RUN)
    done = subprocess.run(
        ["bash", "-c", "exec -a uv bash run"],
        cwd=here,
        env=environment(PYTHON=sys.executable, SPACE=str(write_space(tmp_path)), OUT=str(tmp_path / "run")),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert len(Store(tmp_path / "run").statuses()) == 1


@pytest.mark.slow
def test_without_a_usable_tmp_a_sweep_runs_where_the_environment_says(tmp_path):
    """As in a container whose system is read-only."""
    with tempfile.TemporaryDirectory(prefix="t", dir=TMP) as here:
        (Path(here) / "t").mkdir()
        line = (
            f"mount --bind /tmp /tmp && mount --bind {here} {here} && mount -o remount,ro,bind /tmp && "
            f'"$0" -m lmc_tune sweep {write_space(tmp_path)} --out {here}/run --workers 1 --max-pairs 1 --no-report'
        )
        tried = subprocess.run(["unshare", "-m", "mount", "--bind", TMP, TMP], capture_output=True, check=False)
        if tried.returncode:
            pytest.skip(f"nothing can be mounted here: {tried.stderr.decode().strip()}")
        done = subprocess.run(
            ["unshare", "-m", "bash", "-c", line, sys.executable],
            env=environment(TMPDIR=f"{here}/t"),
            cwd=here,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        assert len(Store(Path(here) / "run").statuses()) == 1
        assert list(Path(here, "t").glob("lmc-*")) == []


_FATAL = """
from pathlib import Path
from lmc_tune.sweeps.backend import ray_session, run_on_ray
from lmc_tune.sweeps.plan import Slots
from lmc_tune.tables.store import Store
from lmc_tune.work.bench import Workbench
from tests.cases import cohort, six

bench = Workbench(store=Store("not-shared"), data_root=Path())
with ray_session(1):
    errors = run_on_ray([cohort(spec) for spec in six("loop")], bench, Slots(number=1))
    print(len(errors), "is not the same folder on all machines" in errors[0])
"""


@pytest.mark.slow
def test_storage_that_is_refused_once_is_not_asked_by_every_cohort(tmp_path):
    """Every trial would meet it; six are planned. In a process of its own, since ray is imported here."""
    run = subprocess.run(
        [sys.executable, "-c", _FATAL],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
        cwd=tmp_path,
        env=environment(PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])),
    )
    errors, told = run.stdout.split()
    assert int(errors) <= 3, "of the first trial, as error and as result, or of the second at most"
    assert told == "True"


def test_an_address_where_nobody_listens_is_refused_before_ray_warns():
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"127.0.0.1:{server.getsockname()[1]}"
        check_address(here)
    for address in (here, here.replace("127.0.0.1", "[::1]")):
        with pytest.raises(ClusterError, match=rf"^no Ray cluster answers at {re.escape(address)} \(.*; check that it"):
            check_address(address)
    for left_to_ray in ("auto", "ray://127.0.0.1:1", "local"):
        check_address(left_to_ray)
