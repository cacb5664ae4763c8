"""Tiny sweeps, run as a user runs them: the command in a process of its own."""

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from lmc_tune.tables.columns import TIME_FIELDS
from lmc_tune.tables.store import Store

SPACE = """
name: tiny
dataset: {name: digits, train: 200, test: 100}
model: {name: mlp, hidden: [8]}
train: {momentum: 0.9, epochs: 20}
axes:
  shift: [{kind: covariate}, {kind: label, ratio: 0.8}]
  batch_size: [10, 50]
  lr: [0.01, 0.1]
replicates: 2
measure: {lambdas: 5, refinements: 1}
"""
CELLS, PAIRS = 8, 16


def write_space(folder: Path, text: str = SPACE) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(text)
    return path


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "lmc_tune", *map(str, arguments)]


def environment(**extra: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | extra


def lmc_tune(*arguments: str | Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=300, check=False, env=environment(**extra)
    )


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """What a command says on stderr, without what it is busy with, which it tells where that takes long."""
    return re.sub(r"^\d\d:\d\d:\d\d .*\n", "", done.stderr, flags=re.MULTILINE)


def lmc_tune_json(*arguments: str | Path, **extra: str) -> dict[str, Any]:
    """Run the command with --json; what it prints."""
    done = lmc_tune(*arguments, "--json", **extra)
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def rows(folder: Path) -> pd.DataFrame:
    """The results table without its times."""
    return Store(folder).results().drop(columns=list(TIME_FIELDS))


def assert_same_tables(one: Path, other: Path) -> None:
    pd.testing.assert_frame_equal(rows(one), rows(other))
    pd.testing.assert_frame_equal(Store(one).table("paths"), Store(other).table("paths"))
    pd.testing.assert_frame_equal(Store(one).table("curves"), Store(other).table("curves"))
    pd.testing.assert_frame_equal(Store(one).table("layers"), Store(other).table("layers"))


def mlflow_statuses(folder: Path) -> dict[str, int]:
    """Runs in the folder's MLflow store by status, read past MLflow."""
    with closing(sqlite3.connect(f"file:{folder}/mlflow.db?mode=ro", uri=True)) as store:
        return dict(store.execute("select status, count(*) from runs group by status"))


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"ended early: {process.communicate()}"
        assert time.monotonic() < deadline, "nothing finished in time"
        time.sleep(0.05)


def finished(folder: Path) -> int:
    return len(Store(folder).statuses())


def start(*arguments: str | Path, **extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**extra),
        start_new_session=True,
    )


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes of a sweep that train; none while they start."""
    return [child for child in descendants(process) if "_trial" in child.name() or "ImplicitFunc" in child.name()]
