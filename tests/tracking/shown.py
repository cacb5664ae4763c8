"""What an MLflow store shows of a sweep, read back independently of the mirror; what its user is told, tried."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import ViewType


def all_runs(uri: str, view: int = ViewType.ACTIVE_ONLY) -> list[Any]:
    client = MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, run_view_type=view, max_results=1000))


def pair_runs(uri: str) -> dict[tuple[str, str], Any]:
    """Active pair runs by sweep and key; fails if a pair has two."""
    runs = [run for run in all_runs(uri) if run.data.tags.get("kind") == "pair"]
    by_key = {(run.data.tags["lmc_tune.sweep"], run.data.tags["lmc_tune.key"]): run for run in runs}
    assert len(by_key) == len(runs), "a pair has two runs"
    return by_key


def cell_runs(uri: str) -> dict[str, Any]:
    """Active runs of cells by the cell's id, of one sweep; fails if a cell has two."""
    runs = [run for run in all_runs(uri) if run.data.tags.get("kind") == "cell"]
    by_cell = {run.data.tags["cell"]: run for run in runs}
    assert len(by_cell) == len(runs), "a cell has two runs"
    return by_cell


def parents(uri: str) -> list[Any]:
    return [run for run in all_runs(uri) if run.data.tags.get("kind") == "sweep"]


def statuses(uri: str) -> list[str]:
    return sorted(run.info.status for run in all_runs(uri))


def history(uri: str, run: Any) -> dict[str, list[tuple[int, float]]]:
    """Every metric as (step, value), in the order of the steps."""
    client = MlflowClient(uri)
    return {
        name: sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }


def content(uri: str, artifacts: Path | None = None) -> dict[Any, Any]:
    """Everything that must not depend on when and how often it was sent, of one sweep."""
    found = {}
    for key, run in pair_runs(uri).items():
        tags = {name: value for name, value in run.data.tags.items() if name != "mlflow.parentRunId"}
        charts = ["interpolation.html", *(["learning.html"] if run.data.tags["status"] == "ok" else [])]
        chart = [chart_text(uri, run, artifacts, name) for name in charts]
        found[key] = (run.info.run_name, run.info.status, run.data.params, tags, history(uri, run), chart)
    for cell, run in cell_runs(uri).items():
        tags = {name: value for name, value in run.data.tags.items() if name != "mlflow.parentRunId"}
        found[cell] = (run.info.run_name, run.info.status, run.data.params, tags, run.data.metrics)
    parent = parents(uri)[0]
    found["parent"] = (parent.info.run_name, parent.info.status, parent.data.metrics, parent.data.tags)
    return found


def chart_text(uri: str, run: Any, artifacts: Path | None, name: str = "interpolation.html") -> str:
    if artifacts is None:
        return Path(MlflowClient(uri).download_artifacts(run.info.run_id, name)).read_text()
    return (artifacts / run.info.artifact_uri.removeprefix("mlflow-artifacts:/") / name).read_text()


def run_line(line: str) -> "subprocess.CompletedProcess[str]":
    """Run a command that a message names, as its reader would."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    return done
