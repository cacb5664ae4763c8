"""The record of published claims, and whether results obtained here support them.

``python -m lmc_tune.analysis.reproduction [--take RUN_FOLDER ...] [--why TEXT]`` writes docs/reproduction.md from the
tables in docs/reproduction alone and trains nothing; ``--take`` first copies those of finished sweeps of presets there.
Outcomes that changed are added to docs/reproduction/outcomes.csv, with the reason.
"""

import argparse
import shutil
import sys
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from textwrap import fill
from typing import TypeVar

import pandas as pd
import pyarrow as pa

from lmc_tune.analysis.phase import SHIFT_FIELDS
from lmc_tune.analysis.reproduction.claims import CLAIMS
from lmc_tune.analysis.reproduction.expectations import Claim, Outcome, Reading, same, value_words
from lmc_tune.analysis.reproduction.outcomes import Recorded, record_outcomes
from lmc_tune.analysis.reproduction.sweep_tables import Study
from lmc_tune.analysis.wording import (
    axis_title,
    height,
    interval,
    listed,
    number,
    percent,
    percentage_points,
    shift_words,
    verdict_words,
)
from lmc_tune.core.counted import counted
from lmc_tune.core.statistics import MODERATED
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
# Train accuracies that members may have to reach before their pair counts, up to that of the presets.
GATES = (0.4, 0.5, 0.6)
_GATE_WORDS = listed([f"{100 * gate:g}%" for gate in GATES])
_HEAD = """# Reproduction record

Written by `python -m lmc_tune.analysis.reproduction` from the tables in [docs/reproduction](reproduction); no number
and no present outcome is typed by hand. Every study is a preset: `lmc-tune sweep NAME` runs it again, and
`python -m lmc_tune.analysis.reproduction --take runs/NAME` copies its tables here and writes this page again. Earlier
outcomes are kept in [outcomes.csv](reproduction/outcomes.csv); those of the first records were copied from this page.
"""
_RULES = (
    """A claim is stated as expectations: means over replicates, and the side of a limit on which each should lie. An
expectation is supported if the whole interval of its mean lies on that side, contradicted if it lies on the other side,
and undecided otherwise. Intervals are Student's, each wide enough that all intervals of a claim hold together with 95%
confidence (Bonferroni). A claim is supported if all its expectations are supported, and contradicted if one is
contradicted; a claim that something *can* happen needs only one supported expectation. Tables also have numbers without
an expectation.""",
    f"""Which pairs count depends on a gate: the train accuracy that both members have to reach. No gate is the right
one, so every claim is read at the study's own and at {_GATE_WORDS}. Its outcome is what holds at all of them.""",
    """A claim can stay open in three ways. It is *undecided* if intervals are too wide or the gates differ. Its
*premise is not met* if the study has no cell about which the claim says anything. It is *not decidable* if the numbers
have another explanation, and the study's replicates do not separate it from the claim's. Until 2026-11-30 the record
said "not decidable" for all three.""",
    f"""Pairs that are undertrained or diverged are counted, but left out of the means; a cell that lost half of its
pairs in this way decides nothing, and neither do fewer than three values. All replicates are tested on the same
examples, so intervals say nothing about other test sets. Verdicts and intervals of cells are those of the report
({MODERATED}; Student's where fewer than five cells tell how much pairs differ);
those of claims are Student's. Presets whose name ends in `{SMALL}` run in minutes on two CPU cores, with fewer
examples, fewer epochs and smaller networks. What they contradict is contradicted at that size.""",
)
_Found = TypeVar("_Found", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One sweep of a preset, read from its tables.

    studies: by the gate on train accuracy; the space's own among them.
    readings: by the claim's id, then by gate; of claims that this preset tests.
    """

    space: SearchSpace
    record: SweepRecord
    studies: Mapping[float, Study]
    readings: Mapping[str, Mapping[float, Reading]]

    @classmethod
    def read(cls, folder: Path) -> "Run":
        store, text = Store(folder), (folder / SPACE_FILE).read_text(encoding="utf-8")
        space = parse_space(text, str(folder / SPACE_FILE))
        results, paths, curves = store.results(), pa.concat_tables(store.parts("paths")), store.table("curves")
        studies = {
            gate: Study.of(results, paths, curves, space.verdict.model_copy(update={"min_train_accuracy": gate}))
            for gate in sorted({*GATES, space.verdict.min_train_accuracy})
        }
        readings = {
            claim.id: {gate: claim.reading(study) for gate, study in studies.items()}
            for claim in CLAIMS
            if claim.preset == folder.name.removesuffix(SMALL)
        }
        return cls(space=space, record=SweepRecord.read(folder), studies=studies, readings=readings)

    @property
    def study(self) -> Study:
        """Under the space's own gate."""
        return self.studies[self.space.verdict.min_train_accuracy]


def read_runs(tables: Path) -> dict[str, Run]:
    """By the name of their preset."""
    return {folder.name: Run.read(folder) for folder in sorted(tables.iterdir()) if folder.is_dir()}


def outcomes_of(runs: Mapping[str, Run]) -> dict[tuple[str, str], Outcome]:
    """By claim and study: what holds at every gate."""
    return {
        (claim.id, name): same(_by_gates(claim, run).values())
        for claim in CLAIMS
        for name, run in runs.items()
        if claim.id in run.readings
    }


def _by_gates(claim: Claim, run: Run) -> dict[float, Outcome]:
    return {gate: claim.outcome(reading) for gate, reading in run.readings[claim.id].items()}


def take(run: Path, tables: Path) -> None:
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


def reproduction_page(runs: Mapping[str, Run], recorded: Sequence[Recorded]) -> str:
    """The page, in Markdown.

    Args:
        runs: as :func:`read_runs` gives them.
        recorded: outcomes so far, those of these runs last.
    """
    twins = [name for name in presets() if name.endswith(SMALL)]
    heads = ["claim", "says", "small twin", "full size", "earlier outcomes of the small twin, latest first"]
    parts = [
        _HEAD,
        *(fill(" ".join(rule.split()), 120) + "\n" for rule in _RULES),
        "## Claims\n",
        _table(heads, [_in_short(claim, runs, recorded) for claim in CLAIMS]),
        *(_claim(claim, runs, recorded) for claim in CLAIMS),
        "## Studies\n",
        *(_study(name, runs) for twin in twins for name in (twin, twin.removesuffix(SMALL))),
    ]
    return "\n".join(parts)


def _in_short(claim: Claim, runs: Mapping[str, Run], recorded: Sequence[Recorded]) -> list[str]:
    small, full = claim.preset + SMALL, claim.preset
    earlier = _of(recorded, claim, small)[:-1]
    return [
        f"[{claim.id}](#{claim.id.lower()})",
        claim.text,
        *(_outcome(claim, runs[name]) if name in runs else "**not run**" for name in (small, full)),
        "; ".join(
            f"{date} {', '.join(one.outcome for one in of_date)}"
            for date, of_date in groupby(reversed(earlier), key=attrgetter("date"))
        )
        or "none",
    ]


def _outcome(claim: Claim, run: Run) -> str:
    """The outcome, and those under each gate if they differ."""
    outcomes = _by_gates(claim, run)
    outcome = f"**{same(outcomes.values())}**"
    if len(set(outcomes.values())) == 1:
        return outcome
    gates = defaultdict[Outcome, list[float]](list)
    for gate, one in outcomes.items():
        gates[one].append(gate)
    return f"{outcome} ({'; '.join(f'{one} at {_gates(of_one)}' for one, of_one in gates.items())})"


def _gates(gates: Iterable[float]) -> str:
    return listed([f"{100 * gate:g}%" for gate in gates])


def _of(recorded: Sequence[Recorded], claim: Claim, study: str) -> list[Recorded]:
    return [one for one in recorded if (one.claim, one.study) == (claim.id, study)]


def _claim(claim: Claim, runs: Mapping[str, Run], recorded: Sequence[Recorded]) -> str:
    parts = [f"### {claim.id}\n", fill(f"{claim.text} ({claim.source}) {claim.note}", 120) + "\n"]
    for name in (claim.preset + SMALL, claim.preset):
        if name not in runs:
            parts.append(f"`{name}`: not run.\n")
            continue
        parts += [f"`{name}`: {_outcome(claim, runs[name])}.\n", *_readings(claim, runs[name])]
        history = [[one.date, one.outcome, one.why] for one in _of(recorded, claim, name)]
        parts.append(_table(["recorded", "outcome", "what had changed"], history))
    return "\n".join(parts)


def _readings(claim: Claim, run: Run) -> Iterator[str]:
    """Why a claim stays open, and its numbers, each with the gates at which it is found."""
    readings = run.readings[claim.id]
    for words, gates in _by_gate({gate: [claim.open_because(one)] for gate, one in readings.items()}).items():
        if words:
            yield fill(words if len(gates) == len(readings) else f"Gate {_gates(gates)}: {words}", 120) + "\n"
    found = _by_gate({gate: _expected(one) for gate, one in readings.items()})
    if not found:
        yield "No cell meets the claim's condition.\n"
        return
    heads = ["quantity", "mean", "interval", "confidence", "n", "expected", "", "gates"]
    rows = [(*row, "all" if len(gates) == len(readings) else _gates(gates)) for row, gates in found.items()]
    quantities = list(dict.fromkeys(row[0] for row in rows))
    rows.sort(key=lambda row: quantities.index(row[0]))
    yield _table(heads, rows)


def _by_gate(found: Mapping[float, Iterable[_Found]]) -> dict[_Found, list[float]]:
    """What is found at several gates once, with its gates."""
    gates = defaultdict[_Found, list[float]](list)
    for gate, of_gate in found.items():
        for one in of_gate:
            gates[one].append(gate)
    return gates


def _expected(reading: Reading) -> Iterator[tuple[str, ...]]:
    confidence = reading.confidence
    for found in reading.expectations:
        yield (
            found.what,
            value_words(found.mean, found.unit),
            found.interval_words(confidence),
            f"{100 * confidence:.4g}%",
            str(len(found.known)),
            f"{found.side} {value_words(found.limit, found.unit)}" if found.side else "",
            found.outcome(confidence) if found.side else "",
        )


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
            verdict_words(row),
            height(row["mean_barrier"], verdict),
            interval(row["low"], row["high"], verdict),
            height(row["train_barrier"], verdict),
            percentage_points(row["accuracy_difference"]),
            percent(row["average_accuracy"] - row["average_gain_accuracy"]),
            percent(0.5 * (row["train_accuracy_a"] + row["train_accuracy_b"])),
            number(row["steps"]),
        ]
        for row in cells.assign(order=cells["cell"].map(order)).sort_values("order").to_dict("records")
    ]
    heads = ["ok pairs", "verdict", "barrier", "95% interval", "train barrier", "Δ (pp)"]
    heads += ["test accuracy", "train accuracy", "steps"]
    return _table(["network", "shift", *map(axis_title, varied), *heads], rows)


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--take", nargs="+", type=Path, default=[], metavar="RUN_FOLDER")
    parser.add_argument("--why", default="", metavar="TEXT", help="what changed since the outcomes were last recorded")
    arguments = parser.parse_args()
    try:
        for run in arguments.take:
            take(run, TABLES)
        runs = read_runs(TABLES)
        why = arguments.why or ("New tables." if arguments.take else "")
        write_text(PAGE, reproduction_page(runs, record_outcomes(TABLES, outcomes_of(runs), why)))
    except (UserError, FileNotFoundError) as error:
        sys.exit(str(error))
    print(PAGE)  # noqa: T201
