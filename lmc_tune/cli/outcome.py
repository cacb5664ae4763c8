"""What came out, on a terminal and as JSON: the answer, the map, and what to do next."""

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lmc_tune.cli.plainly import note, program, this_command
from lmc_tune.cli.terminal import folded, width_of
from lmc_tune.core.counted import counted
from lmc_tune.core.duration import in_words
from lmc_tune.core.printable import printable

if TYPE_CHECKING:
    from lmc_tune.analysis.answer import Step
    from lmc_tune.analysis.phase import PhaseDiagram
    from lmc_tune.experiment.space import SearchSpace
    from lmc_tune.storage import Place
    from lmc_tune.sweeps.run import Outcome
    from lmc_tune.sweeps.status import SweepStatus

_WIDTH_OF_A_PIPE = 100


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came out of a sweep so far: the phase diagram, and what qualifies or adds to its answer, in sentences."""

    diagram: "PhaseDiagram"
    remarks: tuple[str, ...]


def read_found(folder: "Place", space: "SearchSpace") -> Found:
    """What came out in a run folder in which some pair has answered what its space asks."""
    from lmc_tune.analysis.answer import remarks
    from lmc_tune.analysis.phase import map_regions
    from lmc_tune.tables.cells import judged_columns
    from lmc_tune.tables.store import load_results

    diagram = map_regions(load_results(folder, judged_columns(space.verdict)), space=space)
    of_layers = _said_of_layers(folder, diagram) if space.measure.layers is not None else ""
    return Found(diagram=diagram, remarks=(*([of_layers] if of_layers else []), *remarks(diagram)))


def _said_of_layers(folder: "Place", diagram: "PhaseDiagram") -> str:
    from lmc_tune.analysis.layers import first_layers, layer_heights, layer_intervals, said_of_layers
    from lmc_tune.tables.store import Store

    heights = layer_heights(diagram, Store(folder).parts("layer_barriers"))
    return said_of_layers(diagram, first_layers(layer_intervals(diagram, heights))) if heights is not None else ""


def plain_outcome(found: Found | None) -> dict[str, Any]:
    """The part of ``--json`` that says what came out: ``answer``, ``remarks``, ``verdicts`` and ``cells``."""
    from lmc_tune.analysis.answer import answer, plain_cells, verdict_counts

    if found is None:
        return {"answer": None, "remarks": [], "verdicts": {}, "cells": []}
    return {
        "answer": answer(found.diagram),
        "remarks": list(found.remarks),
        "verdicts": verdict_counts(found.diagram),
        "cells": plain_cells(found.diagram),
    }


def answer_lines(found: Found, width: int | None) -> list[str]:
    """The answer, what qualifies it and, where it fits, the map."""
    from lmc_tune.analysis.answer import answer, character_map

    width = width or _WIDTH_OF_A_PIPE
    said = " ".join([answer(found.diagram), *found.remarks])
    return ["", folded(said, width), *(character_map(found.diagram, width) or []), ""]


def print_outcome(outcome: "Outcome", space: "SearchSpace", found: Found | None) -> None:
    """What a sweep did and what came out: news on stderr, the report's path on stdout."""
    counts = in_order(outcome.counts)
    again = f" and {outcome.remeasured} only measured again" if outcome.remeasured else ""
    idle = outcome.ended and not outcome.trained and not outcome.remeasured
    did = "nothing was left to run" if idle else f"{counted(outcome.trained, space.group)} trained{again} in this call"
    note(f"{did}; now {counts}")
    if found is not None:
        for line in answer_lines(found, width_of(sys.stderr)):
            note(line)
    typer.echo(printable(f"tables  {outcome.folder}"), err=True)  # whole, to be copied
    if outcome.report:
        label = "report  " if sys.stdout.isatty() else ""
        typer.echo(f"{label}{outcome.report}")
    for step in _next_steps(outcome, space, found):
        print_step(step, err=True)


def _next_steps(outcome: "Outcome", space: "SearchSpace", found: Found | None) -> "list[Step]":
    from lmc_tune.analysis.answer import Step, next_steps

    def again(*options: str) -> str:
        return _with_options(this_command(), options)

    steps = [*_looks(outcome.folder, space)]
    if found is not None:
        steps += next_steps(found.diagram, space.replicates, again, ended=outcome.ended)
    left = outcome.counts.get("pending", 0)
    if left and not outcome.interrupted:
        steps.append(
            Step(words=f"{counted(left, space.group)} left: the same command runs more of them", command=again())
        )
    return steps


def _with_options(command: str, options: Sequence[str]) -> str:
    """A command with further options; a search, or a value, takes the place of the one before."""
    kept = re.sub(r" --search[ =]\S+", "", command) if "--search" in options else command
    for option in options:
        if "=" in option:
            kept = re.sub(rf" --set[ =]{re.escape(option.partition('=')[0])}=\S+", "", kept)
    return f"{kept} {shlex.join(options)}".rstrip()


def _looks(folder: "Place", space: "SearchSpace") -> "list[Step]":
    """How to look at the pairs in MLflow, if the folder has a store of its own."""
    from lmc_tune.analysis.answer import Step
    from lmc_tune.tracking.connection import own_store

    if not own_store(folder).exists():
        return []
    words = f"every {space.group} with its curves, in MLflow"
    return [Step(words=words, command=f"{program()} ui {shlex.quote(str(folder))}")]


def print_status(folder: "Place", state: "SweepStatus", found: Found | None) -> None:
    """Counts, the time left, what came out and what to do next, on stdout."""
    _print_progress(folder, state)
    if found is not None:
        for line in answer_lines(found, width_of(sys.stdout)):
            _echo(line)
    for step in _steps_of(folder, state, found):
        print_step(step, err=False)
    for failure in state.failures:
        _echo(f"failed {failure.key} ({failure.what}): {failure.reason}")
    if state.failures:
        _echo(whole_tracebacks(folder))


def _print_progress(folder: "Place", state: "SweepStatus") -> None:
    for name, count in state.counts.items():
        if count or name != "left_out":
            typer.echo(f"{name.replace('_', ' '):>12}  {count}")
    typer.echo(f"{'total':>12}  {state.total}")
    if state.complete:
        typer.echo("complete")
    elif state.seconds_left and state.counts["running"] + state.counts["pending"]:
        typer.echo(f"about {in_words(state.seconds_left)} left")
    if state.checkpoints:
        typer.echo(on_checkpoints(state.checkpoints, state.space.group))
    if state.stale:
        stale = f"{counted(state.stale, state.space.group)} {'answers' if state.stale == 1 else 'answer'}"
        _echo(f"{stale} an earlier `measure`: pending, since the sweep measures them again")
    if state.other_pairs:
        others = counted(state.other_pairs, state.space.group)
        _echo(f"the folder also holds {others} that {folder}/space.yaml does not plan")


def _steps_of(folder: "Place", state: "SweepStatus", found: Found | None) -> "list[Step]":
    from lmc_tune.analysis.answer import Step, next_steps
    from lmc_tune.experiment.space import SPACE_FILE
    from lmc_tune.tables.sweep_record import REPORT_FILE

    # A factory is looked for in the folder of the space's file, and a bucket is no folder to read one from.
    own = isinstance(folder, Path) and not state.space.factories
    start = ["sweep", str(folder / SPACE_FILE) if own else "SPACE", "--out", str(folder)]
    start += [] if state.search in ("", "grid") else ["--search", state.search]

    def again(*options: str) -> str:
        return _with_options(f"{program()} {shlex.join(start)}", options)

    steps = []
    if not state.complete and not state.counts["running"]:
        left = state.counts["pending"] + state.counts["failed"]
        steps.append(Step(words=f"{counted(left, state.space.group)} left: this resumes the sweep", command=again()))
    if found is not None:
        if not (folder / REPORT_FILE).exists():
            steps.append(Step(words="the report", command=f"{program()} report {shlex.quote(str(folder))}"))
        steps += [
            *_looks(folder, state.space),
            *next_steps(found.diagram, state.space.replicates, again, ended=state.complete),
        ]
    return steps


def print_step(step: "Step", *, err: bool) -> None:
    """The words in lines cut between words, and the command in a line of its own, to be copied whole."""
    stream = sys.stderr if err else sys.stdout
    width = width_of(stream)
    words = f"{step.words}:"
    typer.echo(printable(folded(words, width) if width else words), err=err)
    typer.echo(printable(f"    {step.command}"), err=err)


def print_failures(folder: "Place") -> None:
    """The first pairs that failed, and how to see all of them."""
    from lmc_tune.sweeps.status import read_status

    status = read_status(folder)
    failures = status.failures
    for failure in failures[:5]:
        note(f"failed {failure.key} ({failure.what}): {failure.reason}")
    see = f"{program()} status {shlex.quote(str(folder))}"
    note(f"{counted(len(failures), status.space.group)} failed; run the same command to try them again, or see: {see}")
    note(whole_tracebacks(folder))


def whole_tracebacks(folder: "Place") -> str:
    return f"whole tracebacks: the column 'reason' of lmc_tune.load_results({str(folder)!r})"


def in_order(counts: dict[str, int]) -> str:
    """E.g. ``44 ok, 4 diverged, 20 left out by the search``."""
    words = {"left_out": "left out by the search"}
    return ", ".join(f"{count} {words.get(name, name)}" for name, count in counts.items())


def on_checkpoints(n: int, group: str) -> str:
    of = (
        counted(n, "unfinished federation") if group == "federation" else f"{counted(n, 'network')} of unfinished pairs"
    )
    return f"{of} {'has' if n == 1 else 'have'} a checkpoint to resume from"


def _echo(text: str) -> None:
    width = width_of(sys.stdout)
    typer.echo(printable(folded(text, width) if width else text))
