"""What a report costs as sweeps grow: ``python -m benchmarks.reports [--pairs N ...] [--keep FOLDER]``.

Each run folder is made up (tables in the store's own schemas, barriers from a formula), and ``lmc-tune report`` renders
it in a fresh process. The table has the seconds of the whole command, its processor time (for busy machines), and the
most memory that the process ever held.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.command import command
from benchmarks.publish import publish
from benchmarks.timing import RUNS
from lmc_tune.core.barrier import DEFINITIONS, path_grid
from lmc_tune.core.noise import noise_scale
from lmc_tune.experiment import SCHEMA_VERSION, barrier_column
from lmc_tune.experiment.reading import parse_space
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.sweeps.ownership import write_description
from lmc_tune.tables.columns import COMBINED, TABLES, names
from lmc_tune.tables.rows import spec_columns
from lmc_tune.tables.sweep_record import REPORT_FILE

Array = NDArray[np.float64]

_LAMBDAS = 25
_TRAIN, _TEST = 5000, 1000
_REPEATED = 100_000  # pairs up to which a report is short enough to be repeated
_AT_ONCE = 20_000  # pairs; their paths have a million rows, as many as a row group of the store


@dataclass(frozen=True, kw_only=True)
class Size:
    """A sweep of ``lrs × batch_sizes × severities`` cells, and what its report may cost."""

    lrs: int
    batch_sizes: int
    severities: int
    replicates: int
    target_seconds: float | None = None
    target_peak_gib: float | None = None

    @property
    def cells(self) -> int:
        return self.lrs * self.batch_sizes * self.severities

    @property
    def pairs(self) -> int:
        return self.cells * self.replicates


_SIZES = (
    Size(lrs=10, batch_sizes=5, severities=2, replicates=10),
    Size(lrs=50, batch_sizes=20, severities=10, replicates=10, target_seconds=20, target_peak_gib=2),
    Size(lrs=50, batch_sizes=20, severities=10, replicates=100, target_seconds=120, target_peak_gib=6),
    Size(lrs=50, batch_sizes=40, severities=25, replicates=20, target_seconds=120, target_peak_gib=6),
    Size(lrs=6, batch_sizes=3, severities=2, replicates=27_777, target_seconds=120, target_peak_gib=6),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--pairs", type=int, nargs="+", help="only sweeps of about these numbers of pairs, e.g. 1000 100000"
    )
    parser.add_argument("--keep", type=Path, help="make the run folders here, and keep them")
    options = parser.parse_args()
    wanted = [size for size in _SIZES if not options.pairs or any(abs(size.pairs / n - 1) < 0.1 for n in options.pairs)]
    publish("reports", [_measure(size, options.keep) for size in wanted], whole=len(wanted) == len(_SIZES))


def _measure(size: Size, keep: Path | None) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = (keep or Path(scratch)) / f"{size.pairs}-{size.cells}"
        if not folder.exists():
            make_run(folder, size)
        runs = RUNS if size.pairs <= _REPEATED else 1
        measured = [_report(folder) for _ in range(runs)]
        seconds, cpu_seconds, peak_gib = (statistics.median(column) for column in zip(*measured, strict=True))
        return {
            "pairs": size.pairs,
            "cells": size.cells,
            "path_rows": pq.read_metadata(folder / "paths.parquet").num_rows,
            "runs": runs,
            "seconds": seconds,
            "target_seconds": size.target_seconds,
            "cpu_seconds": cpu_seconds,
            "peak_gib": peak_gib,
            "target_peak_gib": size.target_peak_gib,
            "html_mb": (folder / REPORT_FILE).stat().st_size / 1e6,
            "target_html_mb": 20,
        }


def _report(folder: Path) -> tuple[float, float, float]:
    """Seconds of the command, its processor seconds, and its peak memory in GiB."""
    started = time.perf_counter()
    process = subprocess.Popen(command("report", str(folder)), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the report of {folder.name} ended with {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def space_of(size: Size) -> SearchSpace:
    """Learning rates × batch sizes × severities of a label shift, on digits with a small network."""
    return parse_space(
        f"""
name: {size.pairs} pairs
dataset: mnist
model: {{name: mlp, hidden: [64]}}
train: {{momentum: 0.9, epochs: 1}}
shift: {{kind: label}}
axes:
  severity: {{linear: [0.0, 1.0], steps: {size.severities}}}
  batch_size: {sorted({int(n) for n in np.geomspace(8, 4096, size.batch_sizes)})}
  lr: {{log: [0.001, 3.0], steps: {size.lrs}}}
replicates: {size.replicates}
measure: {{lambdas: {_LAMBDAS}}}
members: drop
"""
    )


def make_run(folder: Path, size: Size) -> None:
    """A finished sweep's folder: space.yaml, sweep.json and the tables, sorted as the store writes them.

    Barriers are left to the columns of the results: no report reads their table.
    """
    folder.mkdir(parents=True)
    space = space_of(size)
    write_description(folder, space, workers=2, planned_pairs=size.pairs)
    cells = [cell.first for cell in space.cells()]
    columns = pd.DataFrame([spec_columns(first) for first in cells])
    columns["effective"] = np.log10(columns["lr"]) + 0.25 * np.log10(16 / columns["batch_size"])
    columns["noise_scale"] = [noise_scale(first.train.lr, first.train.batch_size, _TRAIN) for first in cells]
    specs = [content.split('"replicate":0') for content in columns["spec"]]
    pairs = sorted(
        (_key(f'{before}"replicate":{k}{after}'), cell, k)
        for cell, (before, after) in enumerate(specs)
        for k in range(size.replicates)
    )
    if len(cells) != size.cells:
        raise RuntimeError("the made-up cells are not those of the space")
    files: dict[str, pa.Schema] = {name: table.schema for name, table in TABLES.items() if name != "barriers"}
    writers = {
        name: pq.ParquetWriter(folder / f"{name}.parquet", schema, compression="zstd") for name, schema in files.items()
    }
    rng = np.random.default_rng(0)
    for chunk in _chunks(pairs):
        results = _results(columns, chunk, rng)
        tables = {"paths": _paths(results, rng), "curves": _curves(results), "layers": _layers(results, rng)}
        for name, table in ({"results": results} | tables).items():
            writers[name].write_table(pa.Table.from_pandas(_complete(table, files[name]), files[name]))
    for writer in writers.values():
        writer.close()


def _key(content: str) -> str:
    """Distinct and made fast; a report joins tables by keys and reads nothing from them."""
    return blake2b(f"{SCHEMA_VERSION} {content}".encode(), digest_size=12).hexdigest()


def _chunks(pairs: list[tuple[str, int, int]]) -> Iterator[pd.DataFrame]:
    for at in range(0, len(pairs), _AT_ONCE):
        yield pd.DataFrame(pairs[at : at + _AT_ONCE], columns=["key", "at", "replicate"])


def _results(cells: pd.DataFrame, pairs: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Rows of a plausible sweep: small steps learn nothing, large ones break connectivity, the largest diverge."""
    n = len(pairs)
    rows = cells.iloc[pairs["at"]].reset_index(drop=True).assign(key=pairs["key"], replicate=pairs["replicate"])
    effective = rows.pop("effective").to_numpy()
    rows["spec"] = [
        spec.replace('"replicate":0', f'"replicate":{k}')
        for spec, k in zip(rows["spec"], rows["replicate"], strict=True)
    ]
    height = 0.42 / (1 + np.exp(-4.5 * (effective + 1.1 + 0.4 * rows["severity"]))) * rng.lognormal(0, 0.25, n)
    reached = rng.uniform(0.12, 0.35, n)
    low, gone = effective < -2.6, effective + rng.normal(0, 0.2, n) > -0.2
    rows["status"] = np.select([gone, low], ["diverged", "undertrained"], "ok")
    blown_up = [f"member B: the loss became non-finite at step {step}" for step in rng.integers(8, 40, n)]
    too_low = [f"train accuracy below the gate of 50.0%: member A reached {value:.1%}" for value in reached]
    rows["reason"] = np.select([gone, low], [blown_up, too_low], "")
    rows["height"] = np.where(gone, np.nan, height)
    accuracy = np.where(low, reached, rng.uniform(0.94, 0.97, n))
    for split in ("train", "test"):
        for member in ("a", "b"):
            rows[f"{split}_accuracy_{member}"] = np.where(gone, np.nan, accuracy)
            rows[f"{split}_loss_{member}"] = 4 * (1 - rows[f"{split}_accuracy_{member}"])
        for quantity, scale in (("error", 1.0), ("loss", 4.0)):
            for definition in DEFINITIONS:
                column = barrier_column(f"{split}_{quantity}", definition)
                rows[column] = scale * (rows["height"] + rng.normal(0, 0.002, n))
                rows[f"{column}_lambda"] = 0.5
    rows["barrier_lambda"], rows["under_resolved"] = 0.5, rng.random(n) < 0.01
    rows["accuracy_difference"] = rng.normal(0, 1, n)
    for column, mean in (("distance", 8.0), ("distance_a", 5.0), ("distance_b", 5.0), ("disagreement", 0.1)):
        rows[column] = mean * rng.lognormal(0, 0.1, n)
    rows["error_overlap"] = rng.uniform(0, 0.02, n)
    rows["label_shift"], rows["covariate_shift"] = rows["severity"] + rng.normal(0, 0.01, n), 0.004
    rows["steps"], rows["n_train"] = _TRAIN // rows["batch_size"] + 1, _TRAIN
    rows["seconds_train"], rows["seconds_measure"], rows["device"] = 1.0, 0.2, "cpu"
    similar = ("error_overlap_ratio", "same_error", "kappa", "jensen_shannon", "cka", *names(COMBINED))
    return rows.join(pd.DataFrame({column: rng.uniform(0.1, 0.9, n) for column in similar}))


def _paths(results: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """A hump of each measured pair's height on both splits, on its own grid: refined points differ by pair."""
    pairs = results[results["status"] != "diverged"]
    grid = path_grid(_LAMBDAS)
    refined = (grid > 0) & (grid < 1) & (grid != 0.5)
    lambdas = np.where(refined, grid + rng.uniform(-0.01, 0.01, (len(pairs), 2, _LAMBDAS)), grid)
    height, end = (
        column.to_numpy()[:, None, None] for column in (pairs["height"], 1 - pairs["test_accuracy_a"].fillna(1.0))
    )
    error: Array = np.clip(end + height * np.sin(np.pi * lambdas) ** 2, 0, 1)
    n = np.broadcast_to(np.array([_TEST, 2 * _TRAIN])[:, None], error.shape)
    return pd.DataFrame(
        {
            "key": np.repeat(pairs["key"].to_numpy(), 2 * _LAMBDAS),
            "condition": "naive",
            "split": np.tile(np.repeat(["test", "train"], _LAMBDAS), len(pairs)),
            "lambda": lambdas.ravel(),
            "loss_sum": ((4 * error + 0.02) * n).ravel(),
            "correct": np.round((1 - error) * n).astype(np.int64).ravel(),
            "n": n.ravel(),
        }
    )


def _curves(results: pd.DataFrame) -> pd.DataFrame:
    rows = pd.DataFrame(
        {"key": np.repeat(results["key"].to_numpy(), 2), "member": np.tile(["a", "b"], len(results)), "epoch": 1.0}
    )
    measured: dict[str, Any] = {
        name: results[[f"{name}_a", f"{name}_b"]].to_numpy().ravel()
        for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    }
    return rows.assign(step=results["steps"].to_numpy().repeat(2), lr=results["lr"].to_numpy().repeat(2), **measured)


def _layers(results: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The two layers of each measured pair."""
    pairs = results[results["status"] != "diverged"]
    rows = pd.DataFrame({"key": np.repeat(pairs["key"].to_numpy(), 2), "layer": ["0", "2"] * len(pairs)})
    rows["position"] = np.tile([0, 1], len(pairs))
    for column in ("distance", "distance_a", "distance_b", "cosine", "cka", "average_cka"):
        rows[column] = rng.uniform(0.1, 0.9, len(rows))
    return rows


def _complete(rows: pd.DataFrame, schema: pa.Schema) -> pd.DataFrame:
    """All columns of the schema in its order; those that are not made up are unknown."""
    return rows.reindex(columns=schema.names)


if __name__ == "__main__":
    main()
