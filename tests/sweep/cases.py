"""Tiny sweeps, run as a user runs them: the command in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from lmc_tune.results import TIME_FIELDS
from lmc_tune.store import Store

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
PAIRS = 16


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
    pd.testing.assert_frame_equal(Store(one).paths(), Store(other).paths())
    pd.testing.assert_frame_equal(Store(one).curves(), Store(other).curves())
