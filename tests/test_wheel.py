"""What a user installs: the wheel of the source distribution, in an empty environment and a folder of their own."""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
CUT = ("replicates=1", "axes.batch_size=[32]", "axes.lr=[0.01, 0.1]", "train.epochs=5")
PAIRS = 4
PROBE = """
import sys
from lmc_tune.analysis.report import render
from lmc_tune.sweeps.run import run_sweep
render("runs/quickstart")
print(*(module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)), sep="\\n")
"""

pytestmark = pytest.mark.wheel


def run(*command: str | Path, cwd: Path) -> str:
    """Run to the end, without what this process would have Python find; what it prints."""
    bare = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def empty_environment(folder: Path) -> Path:
    """A new virtual environment; its programs."""
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    return folder / "bin"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("build")
    python = empty_environment(folder / "environment") / "python"
    run(python, "-m", "pip", "install", "--quiet", "build>=1.2,<2", cwd=folder)
    run(python, "-m", "build", "--outdir", folder / "dist", ROOT, cwd=folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The programs of an environment in which the wheel is installed."""
    folder = tmp_path_factory.mktemp("install")
    programs = empty_environment(folder / "environment")
    (wheel,) = dist.glob("*.whl")
    run(programs / "python", "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    yield programs
    shutil.rmtree(folder)  # more than a gigabyte, of which pytest would keep three


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """Holds modules that are called as our folders are, and that are not to be imported."""
    for name in ("analysis", "search_spaces"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(f'{__file__} was imported')\n")
    return tmp_path


def test_source_distribution_and_wheel_hold_the_package_once_and_whole(dist: Path) -> None:
    (source,) = dist.glob("*.tar.gz")
    (wheel,) = dist.glob("*.whl")
    tracked = run("git", "ls-files", "lmc_tune", "analysis", "search_spaces", cwd=ROOT).split()
    links = {"lmc_tune/analysis", "lmc_tune/search_spaces"}
    expected = {path if path.startswith("lmc_tune/") else f"lmc_tune/{path}" for path in tracked if path not in links}
    with ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == expected
    with tarfile.open(source) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    assert expected <= found
    assert not [name for name in found if name.startswith(("analysis/", "search_spaces/"))]


def test_the_quickstart_runs_beside_modules_of_the_same_names(installed: Path, own_folder: Path) -> None:
    sets = [part for cut in CUT for part in ("--set", cut)]
    python = installed / "python"  # with -m, Python looks into the current folder first
    run(python, "-m", "lmc_tune", "sweep", "quickstart", "--workers", "2", *sets, cwd=own_folder)
    assert (own_folder / "runs/quickstart/report.html").stat().st_size > 100_000
    run(installed / "lmc-tune", "report", "runs/quickstart", "-o", "cells.csv", cwd=own_folder)
    cells = pd.read_csv(own_folder / "cells.csv")
    assert cells["n_pairs"].tolist() == [1] * PAIRS
    assert not cells["n_failed"].any()
    modules = run(python, "-c", PROBE, cwd=own_folder).split("\n")
    assert not [path for path in modules if path.startswith(f"{ROOT}{os.sep}")]
    assert sum(path.startswith(f"{installed.parent}{os.sep}") and "/lmc_tune/" in path for path in modules) > 50


def test_all_presets_are_there(installed: Path, own_folder: Path) -> None:
    said = run(installed / "lmc-tune", "presets", cwd=own_folder)
    assert all(path.stem in said for path in (ROOT / "search_spaces").glob("*.yaml"))
