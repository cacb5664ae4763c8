"""The record of published claims, and whether results obtained here support them.

``python -m lmc_tune.analysis.reproduction [--take RUN_FOLDER ...]`` writes docs/reproduction.md from the tables in
docs/reproduction alone; ``--take`` first copies those of finished sweeps of presets there.
"""

import argparse
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import pandas as pd
import pyarrow as pa

from lmc_tune.analysis.phase import SHIFT_FIELDS
from lmc_tune.analysis.reproduction.claims import CLAIMS, Claim, Expectation, Unit
from lmc_tune.analysis.reproduction.sweep_tables import Study
from lmc_tune.analysis.wording import (
    axis_title,
    counted,
    height,
    interval,
    listed,
    number,
    percent,
    percentage_points,
    shift_words,
)
from lmc_tune.errors import UserError
from lmc_tune.experiment.reading import parse_space, presets, read_space
from lmc_tune.experiment.space import SPACE_FILE, SearchSpace
from lmc_tune.storage import write_text
from lmc_tune.tables.cells import CELL_FIELDS
from lmc_tune.tables.columns import MODEL_FIELDS
from lmc_tune.tables.rows import STATUSES
from lmc_tune.tables.store import Store
from lmc_tune.tables.sweep_record import SWEEP_FILE, SweepRecord

PAGE = Path(__file__).parents[3] / "docs" / "reproduction.md"
TABLES = PAGE.with_suffix("")
# Smaller twins of presets.
SMALL = "_small"
_KEPT = ("results.parquet", "paths.parquet", "curves.parquet", SPACE_FILE, SWEEP_FILE)
_HEAD = """# Reproduction record

Written by `python -m lmc_tune.analysis.reproduction` from the tables in [docs/reproduction](reproduction); no number
and no outcome here is typed by hand. Every study is a preset: `lmc-tune sweep NAME` runs it again, and
`python -m lmc_tune.analysis.reproduction --take runs/NAME` copies its tables here and writes this page again.
"""
_RULES = f"""A claim is stated as expectations: means over replicates, and the side of a limit on which each should lie.
An expectation is supported if the whole interval of its mean lies on that side, contradicted if it lies on the other
side, and not decidable otherwise. Intervals are Student's, each wide enough that all intervals of a claim hold together
with 95% confidence (Bonferroni). A claim is supported if all its expectations are supported, and contradicted if one is
contradicted; a claim that something *can* happen needs only one supported expectation. Tables also have numbers without
an expectation. Pairs that are undertrained or diverged are counted, but left out of the means; a cell that lost half of
its pairs in this way decides nothing, and neither do fewer than three values. All replicates are tested on the same
examples, so intervals say nothing about other test sets. Verdicts and intervals of cells are those of the report, whose
bootstrap covers less than its nominal confidence with few replicates. Presets whose name ends in `{SMALL}` run in
minutes on two CPU cores, with fewer examples, fewer epochs and smaller networks. What they contradict is contradicted
at that size."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One sweep of a preset, read from its tables."""

    space: SearchSpace
    record: SweepRecord
    study: Study

    @classmethod
    def read(cls, folder: Path) -> "Run":
        store, text = Store(folder), (folder / SPACE_FILE).read_text(encoding="utf-8")
        space = parse_space(text, str(folder / SPACE_FILE))
        study = Study.of(store.results(), pa.concat_tables(store.parts("paths")), store.table("curves"), space.verdict)
        return cls(space=space, record=SweepRecord.read(folder), study=study)


def take(run: Path, tables: Path = TABLES) -> None:
    """Copy the tables of a run folder, under the name of its preset.

    Raises:
        UserError: if the folder holds no finished sweep of a preset.
    """
    if missing := [name for name in _KEPT if not (run / name).exists()]:
        raise UserError(f"{run} holds no finished sweep: {missing[0]} is missing")
    swept = SweepRecord.read(run)
    if swept.name not in presets():
        raise UserError(f"{run} is a sweep of {swept.name}, which is not a preset; the record holds only presets")
    space = parse_space((run / SPACE_FILE).read_text(encoding="utf-8"), str(run / SPACE_FILE))
    # Whether members were kept changes no number.
    if space.model_copy(update={"members": "auto"}) != read_space(swept.name):
        raise UserError(f"{run} is a sweep of a changed {swept.name}; the record holds only unchanged presets")
    finished = len(Store(run).results(["key"]))
    if finished != swept.planned_pairs:
        raise UserError(
            f"{run} has {finished} of {swept.planned_pairs} pairs; finish it first: lmc-tune sweep {swept.name}"
        )
    target = tables / swept.name
    target.mkdir(parents=True, exist_ok=True)
    for name in _KEPT:
        shutil.copyfile(run / name, target / name)


def reproduction_page(tables: Path = TABLES) -> str:
    """The page, in Markdown."""
    runs = {folder.name: Run.read(folder) for folder in sorted(tables.iterdir()) if folder.is_dir()}
    twins = [name for name in presets() if name.endswith(SMALL)]
    parts = [
        _HEAD,
        fill(" ".join(_RULES.split()), 120) + "\n",
        "## Claims\n",
        _table(["claim", "says", "small twin", "full size"], [_in_short(claim, runs) for claim in CLAIMS]),
        *(_claim(claim, runs) for claim in CLAIMS),
        "## Studies\n",
        *(_study(name, runs) for twin in twins for name in (twin, twin.removesuffix(SMALL))),
    ]
    return "\n".join(parts)


def _in_short(claim: Claim, runs: Mapping[str, Run]) -> list[str]:
    outcomes = [
        claim.outcome(claim.expectations(runs[name].study)) if name in runs else "not run"
        for name in (claim.preset + SMALL, claim.preset)
    ]
    return [f"[{claim.id}](#{claim.id.lower()})", claim.text, *(f"**{outcome}**" for outcome in outcomes)]


def _claim(claim: Claim, runs: Mapping[str, Run]) -> str:
    parts = [f"### {claim.id}\n", fill(f"{claim.text} ({claim.source}) {claim.note}", 120) + "\n"]
    for name in (claim.preset + SMALL, claim.preset):
        if name not in runs:
            parts.append(f"`{name}`: not run.\n")
            continue
        found = claim.expectations(runs[name].study)
        parts.append(f"`{name}`: **{claim.outcome(found)}**.\n")
        if found:
            confidence = claim.confidence(found)
            heads = ["quantity", "mean", f"{100 * confidence:.4g}% interval", "n", "expected", ""]
            parts.append(_table(heads, [_expected(expectation, confidence) for expectation in found]))
        else:
            parts.append("No cell meets the claim's condition.\n")
    return "\n".join(parts)


def _expected(found: Expectation, confidence: float) -> list[str]:
    low, high = found.interval(confidence)
    known = len(found.known)
    return [
        found.what,
        _value(found.mean, found.unit),
        f"{_value(low, found.unit)} to {_value(high, found.unit)}" if known > 1 else "none",
        str(known),
        f"{found.side} {_value(found.limit, found.unit)}" if found.side else "",
        found.outcome(confidence) if found.side else "",
    ]


def _value(value: float, unit: Unit) -> str:
    if unit == "fraction":
        return percent(value, 2)
    if unit == "percentage points":
        return f"{percentage_points(value)} pp"
    return f"{number(value)} nats" if unit == "nats" else number(value)


def _study(name: str, runs: Mapping[str, Run]) -> str:
    """What was run, and its cells."""
    if name not in runs:
        return f"### {name}\n\nNot run.\n"
    run = runs[name]
    pairs, cells, versions = run.study.pairs, run.study.cells, run.record.versions
    counts = [f"{n} {status}" for status in STATUSES if (n := int((pairs["status"] == status).sum()))]
    minutes = (pairs["seconds_train"].sum() + pairs["seconds_measure"].sum()) / 60
    ok = pairs[pairs["status"] == "ok"]
    unresolved = int(ok["under_resolved"].astype(bool).sum())
    size, devices = pairs["train_examples"].iloc[0], listed(sorted(set(pairs["device"].dropna())))
    facts = (
        f"{counted(len(pairs), 'pair')} in {counted(len(cells), 'cell')}: {listed(counts)}. "
        f"{pairs['dataset'].iloc[0]}, {'all' if pd.isna(size) else f'{size:.0f}'} training examples, of which a member "
        f"sees {cells['n_train'].mean():.0f}; {run.space.replicates} replicates. {minutes:.0f} minutes of training and "
        f"measuring, all workers together, on {devices}; {unresolved} paths under-resolved; "
        f"torch {versions.get('torch', 'unknown')}, "
        f"{run.record.created[:10]}."
    )
    return f"### {name}\n\n{fill(facts, 120)}\n\n{_cells(run)}"


def _cells(run: Run) -> str:
    """A table of all cells: what varies, verdict and means."""
    cells, verdict = run.study.cells, run.space.verdict
    order = {cell.key: at for at, cell in enumerate(run.space.cells())}
    varied = [
        name
        for name in CELL_FIELDS
        if name not in (*MODEL_FIELDS, "model", *SHIFT_FIELDS) and len(cells[name].unique()) > 1
    ]
    rows = [
        [
            row["network"],
            shift_words(row, severity_is_axis=False),
            *(str(row[name]) if isinstance(row[name], bool | str) else number(row[name]) for name in varied),
            f"{row['n_ok']} of {row['n_pairs']}",
            row["verdict"],
            height(row["mean_barrier"], verdict),
            interval(row["low"], row["high"], verdict),
            percentage_points(row["accuracy_difference"]),
            percent(row["average_accuracy"] - row["average_gain_accuracy"]),
            percent(0.5 * (row["train_accuracy_a"] + row["train_accuracy_b"])),
            number(row["steps"]),
        ]
        for row in cells.assign(order=cells["cell"].map(order)).sort_values("order").to_dict("records")
    ]
    heads = ["ok pairs", "verdict", "barrier", "95% interval", "Δ (pp)", "test accuracy", "train accuracy", "steps"]
    return _table(["network", "shift", *map(axis_title, varied), *heads], rows)


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--take", nargs="+", type=Path, default=[], metavar="RUN_FOLDER")
    try:
        for run in parser.parse_args().take:
            take(run)
        write_text(PAGE, reproduction_page())
    except (UserError, FileNotFoundError) as error:
        sys.exit(str(error))
    print(PAGE)  # noqa: T201
