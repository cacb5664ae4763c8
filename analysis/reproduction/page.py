"""The record of published claims, and whether results obtained here support them.

``python -m lmc_tune.analysis.reproduction [--take RUN_FOLDER ...] [--why TEXT]`` writes docs/reproduction.md from the
tables in docs/reproduction alone and trains nothing; ``--take`` first copies those of finished sweeps of presets there.
Outcomes that changed are added to docs/reproduction/outcomes.csv, with the reason.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from textwrap import fill
from typing import TypeVar

import pandas as pd

from lmc_tune.analysis.phase import SHIFT_FIELDS
from lmc_tune.analysis.reproduction.claims import CLAIMS
from lmc_tune.analysis.reproduction.expectations import Claim, Outcome, Reading, same, value_words
from lmc_tune.analysis.reproduction.outcomes import Recorded, record_outcomes
from lmc_tune.analysis.reproduction.protocols import PROTOCOLS
from lmc_tune.analysis.reproduction.runs import GATES, MEDIUM, SMALL, Run, outcomes_of, read_runs, take
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
from lmc_tune.experiment.reading import presets
from lmc_tune.storage import write_text
from lmc_tune.tables.cells import CELL_FIELDS
from lmc_tune.tables.columns import MODEL_FIELDS
from lmc_tune.tables.rows import STATUSES

PAGE = Path(__file__).parents[3] / "docs" / "reproduction.md"
TABLES = PAGE.with_suffix("")
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
and undecided otherwise; one that says only that two numbers differ is supported outside of a range around 0, and
contradicted inside. Intervals are Student's, each wide enough that all intervals of a claim hold together with 95%
confidence (Bonferroni). A claim is supported if all its expectations are supported, and contradicted if one is
contradicted; a claim that something *can* happen needs only one supported expectation. Tables also have numbers without
an expectation. Next to an undecided expectation is the width of its interval, and how many replicates would decide it:
the first n with t(n − 1) · s / √n < |mean − limit|, where mean and standard deviation s are those found.""",
    f"""Which pairs count depends on a gate: the train accuracy that both members have to reach. No gate is the right
one, so every claim is read at the study's own and at {_GATE_WORDS}; claims of text, whose single tokens are rarely
predicted rightly, at the study's own. Its outcome is what holds at all of them.""",
    """A claim can stay open in three ways. It is *undecided* if intervals are too wide or the gates differ. Its
*premise is not met* if the study has no cell about which the claim says anything. It is *not decidable* if the numbers
have another explanation, and the study's replicates do not separate it from the claim's. Until 2026-11-30 the record
said "not decidable" for all three.""",
    f"""Pairs that are undertrained or diverged are counted, but left out of the means; a cell that lost half of its
pairs in this way decides nothing, and neither do fewer than three values. All replicates are tested on the same
examples, so intervals say nothing about other test sets. Verdicts and intervals of cells are those of the report
({MODERATED}; Student's where fewer than five cells tell how much pairs differ);
those of claims are Student's. Presets whose name ends in `{SMALL}` run in minutes on two CPU cores, with fewer
examples, fewer epochs and smaller networks. What they contradict is contradicted at that size. Those whose name ends in
`{MEDIUM}` have seeds and replicates of their own, and rules that were written down before they ran:
[protocols](protocols.md).""",
)
_Found = TypeVar("_Found", bound=Hashable)


def reproduction_page(runs: Mapping[str, Run], recorded: Sequence[Recorded]) -> str:
    """The page, in Markdown.

    Args:
        runs: as :func:`read_runs` gives them.
        recorded: outcomes so far, those of these runs last.
    """
    stems = [name.removesuffix(SMALL) for name in presets() if name.endswith(SMALL)]
    studies = [stem + size for stem in stems for size in (SMALL, MEDIUM, "") if stem + size in presets()]
    heads = ["claim", "says", "small twin", "medium twin", "full size"]
    heads += ["earlier outcomes of the small twin, latest first"]
    parts = [
        _HEAD,
        *(fill(" ".join(rule.split()), 120) + "\n" for rule in _RULES),
        "## Claims\n",
        _table(heads, [_in_short(claim, runs, recorded) for claim in CLAIMS]),
        *(_claim(claim, runs, recorded) for claim in CLAIMS),
        "## Studies\n",
        *(_study(name, runs) for name in studies),
    ]
    return "\n".join(parts)


def _in_short(claim: Claim, runs: Mapping[str, Run], recorded: Sequence[Recorded]) -> list[str]:
    earlier = _of(recorded, claim, claim.preset + SMALL)[:-1]
    small, *medium, full = _studies_of(claim)
    return [
        f"[{claim.id}](#{claim.id.lower()})",
        claim.text,
        _outcome(claim, runs.get(small)),
        _decided(claim, runs.get(medium[0])) if medium else "none",
        _outcome(claim, runs.get(full)),
        "; ".join(
            f"{date} {', '.join(one.outcome for one in of_date)}"
            for date, of_date in groupby(reversed(earlier), key=attrgetter("date"))
        )
        or "none",
    ]


def _studies_of(claim: Claim) -> tuple[str, ...]:
    """The small, the medium, if there is one, and the full preset that test a claim."""
    return claim.preset + SMALL, *(one.preset for one in PROTOCOLS if one.id == claim.id), claim.preset


def _outcome(claim: Claim, run: Run | None) -> str:
    """The outcome, and those under each gate if they differ."""
    if run is None:
        return "**not run**"
    outcomes = run.outcomes(claim.id)
    outcome = f"**{same(outcomes.values())}**"
    if len(set(outcomes.values())) == 1:
        return outcome
    gates = defaultdict[Outcome, list[float]](list)
    for gate, one in outcomes.items():
        gates[one].append(gate)
    return f"{outcome} ({'; '.join(f'{one} at {_gates(of_one)}' for one, of_one in gates.items())})"


def _decided(claim: Claim, run: Run | None) -> str:
    """The outcome with the size of its study, and the number on which it rests under the study's own gate."""
    if run is None:
        return _outcome(claim, run)
    outcome = f"{_outcome(claim, run)} by {_size(run)}"
    reading = run.readings[claim.id][run.space.verdict.min_train_accuracy]
    found = run.claims[claim.id].deciding(reading)
    if found is None:
        return outcome
    parts = [found.words(reading.confidence), f"n = {len(found.known)}", found.open_words(reading.confidence)]
    return f"{outcome}; {found.what}: {', '.join(part for part in parts if part)}"


def _gates(gates: Iterable[float]) -> str:
    return listed([f"{100 * gate:g}%" for gate in gates])


def _of(recorded: Sequence[Recorded], claim: Claim, study: str) -> list[Recorded]:
    return [one for one in recorded if (one.claim, one.study) == (claim.id, study)]


def _claim(claim: Claim, runs: Mapping[str, Run], recorded: Sequence[Recorded]) -> str:
    parts = [f"### {claim.id}\n", fill(f"{claim.text} ({claim.source}) {claim.note}", 120) + "\n"]
    for name in _studies_of(claim):
        if name not in runs:
            parts.append(f"`{name}`: not run.\n")
            continue
        run = runs[name]
        words = f"`{name}`: {_outcome(claim, run)} by {_size(run)}."
        if name.endswith(MEDIUM):
            words += f" [Protocol](protocols.md#{claim.id.lower()}): {run.claims[claim.id].note}"
        parts += [fill(words, 120) + "\n", *_readings(run.claims[claim.id], run)]
        history = [[one.date, one.outcome, one.why] for one in _of(recorded, claim, name)]
        parts.append(_table(["recorded", "outcome", "what had changed"], history))
    return "\n".join(parts)


def _size(run: Run) -> str:
    """E.g. ``40 pairs, 5000 training examples``."""
    pairs = run.study.pairs
    return f"{counted(len(pairs), run.space.group)}, {_examples(pairs)}"


def _examples(pairs: pd.DataFrame) -> str:
    examples = pairs["train_examples"].iloc[0]
    return f"{'all' if pd.isna(examples) else f'{examples:.0f}'} training examples"


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
    heads = ["quantity", "mean", "interval", "confidence", "n", "expected", "", "if undecided", "gates"]
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
            found.expected_words,
            found.outcome(confidence) if found.side else "",
            found.open_words(confidence),
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
    devices = listed(sorted(set(pairs["device"].dropna())))
    facts = (
        f"{counted(len(pairs), run.space.group)} in {counted(len(cells), 'cell')}: {listed(counts)}. "
        f"{pairs['dataset'].iloc[0]}, {_examples(pairs)}, of which a member sees {cells['n_train'].mean():.0f}; "
        f"{run.space.replicates} replicates. {minutes:.0f} minutes of training and "
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
    heads = [f"ok {run.space.group}s", "verdict", "barrier", "95% interval", "train barrier", "Δ (pp)"]
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
