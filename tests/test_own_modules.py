"""The project of a user, whose modules may have any name."""

import os
from pathlib import Path

import pytest

from tests.sweeps.cases import lmc_tune, write_space


@pytest.mark.slow
def test_modules_of_the_users_project_take_no_name_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("analysis", "search_spaces", "tests", "benchmarks", "report", "sweep", "work", "cli"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('of the user, and not wanted')")
    monkeypatch.chdir(tmp_path)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = lmc_tune("sweep", write_space(tmp_path), "--workers", "1", "--max-pairs", "1", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/runs/tiny/report.html\n"
    assert lmc_tune("report", "runs/tiny", PYTHONPATH=path).returncode == 0
