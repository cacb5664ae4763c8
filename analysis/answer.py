"""The outcome of a sweep: in words, in counts, as a map in characters, and what to do next."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from typing import Any

import pandas as pd

from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.analysis.wording import LETTERS, gate, listed, number, percent, threshold
from lmc_tune.core.counted import counted
from lmc_tune.core.statistics import LEAST_PAIRS, VERDICTS

NOT_RUN = "·"
MOST_LINES = 12
# What rests on fewer is said.
FEW_PAIRS = 5
_GAP = 2  # between an axis' words and its cells
_BETWEEN_PANELS = 3


def answer(diagram: PhaseDiagram) -> str:
    """The outcome in one sentence."""
    n, n_planned = len(diagram.cells), len(diagram.cells) + len(diagram.not_run)
    first, *others = tally(diagram.cells)
    count, name = first.split(" ", 1)
    words = listed([f"{count} {'is' if count == '1' else 'are'} {name}", *others])
    if n < n_planned:
        return f"{n} of {counted(n_planned, 'cell')} {'has' if n == 1 else 'have'} been run: {words}."
    if others:
        return f"Of {counted(n, 'cell')}, {words}."
    return f"The one cell is {name}." if n == 1 else f"All {n} cells are {name}."


def tally(cells: pd.DataFrame) -> list[str]:
    """How many cells have which verdict, in words; verdicts that no cell has are left out."""
    counts = cells["verdict"].value_counts()
    return [f"{counts[name]} {name}" for name in VERDICTS if counts.get(name, 0)]


def remarks(diagram: PhaseDiagram) -> list[str]:
    """What qualifies the answer, in sentences: an earlier question, the other split, divergence, few data."""
    cells, other, group, found = diagram.cells, diagram.verdict.other_split, diagram.group, []
    if diagram.outdated:
        found.append(
            f"All {group}s answer an earlier `measure` than space.yaml asks; run the sweep to measure them again."
        )
    for verdict, opposite in (("connected", "disconnected"), ("disconnected", "connected")):
        alike = cells[cells["verdict"] == verdict]
        if n := int((alike[f"on_{other}"] == opposite).sum()):
            are = f"of {counted(len(alike), f'{verdict} cell')} {n} {'is' if n == 1 else 'are'}"
            found.append(f"On {other} {diagram.verdict.quantity}, {are} {opposite}.")
    if n := int(cells["beside_diverged"].sum()):
        lie = "judged cell lies" if n == 1 else "judged cells lie"
        found.append(f"{n} {lie} next to divergence, where small causes change barriers a lot.")
    if n := int(_coarse(diagram).sum()):
        one = percent(cells["one_example"].max())
        found.append(
            f"{counted(n, 'cell')} cannot be connected: one {diagram.verdict.split} example is {one} of the error, and "
            f"the threshold is {threshold(diagram.verdict)}. Use more examples, or a higher threshold."
        )
    if n := int((cells["judged"] & (cells["n_ok"] < LEAST_PAIRS)).sum()):
        have = f"{counted(n, 'cell')} {'has' if n == 1 else 'have'}"
        found.append(f"{have} fewer than {LEAST_PAIRS} ok {group}s: too few to decide.")
    if n := int((cells["judged"] & cells["n_ok"].between(LEAST_PAIRS, FEW_PAIRS - 1)).sum()):
        found.append(f"{counted(n, 'cell')} {'rests' if n == 1 else 'rest'} on fewer than {FEW_PAIRS} {group}s.")
    if (cells["verdict"] == "undertrained").all():
        found.append(
            f"In no cell do most {group}s reach {gate(diagram.verdict)} train accuracy: train longer or with other "
            "learning rates, or lower verdict.min_train_accuracy."
        )
    return found


def _coarse(diagram: PhaseDiagram) -> "pd.Series[bool]":
    """The judged cells whose barrier is measured so coarsely that no interval lies below the threshold."""
    cells = diagram.cells
    return cells["judged"] & (cells["one_example"] >= diagram.verdict.threshold)


def verdict_counts(diagram: PhaseDiagram) -> dict[str, int]:
    """How many cells have which verdict, all five of them, and how many planned cells are ``not_run``."""
    counts = diagram.cells["verdict"].value_counts()
    return {name: int(counts.get(name, 0)) for name in VERDICTS} | {"not_run": len(diagram.not_run)}


def plain_cells(diagram: PhaseDiagram) -> list[dict[str, Any]]:
    """Every cell that has been run, in the order of panels and axes, as plain values for JSON.

    ``cell``, its id; ``place``, the values of the columns that tell it from others; ``verdict``; ``mean``, ``low`` and
    ``high`` of the mean barrier in the unit of the judged curve, None where they are not known; ``n``, the ok pairs;
    ``on_test`` and ``on_train``, the verdicts on both splits; ``beside_diverged``.
    """
    columns = [*diagram.facets, *(axis.column for axis in diagram.axes)]
    return [
        {
            "cell": row["cell"],
            "place": {column: plain_value(row[column]) for column in columns},
            "verdict": row["verdict"],
            "mean": plain_value(row["mean_barrier"]),
            "low": plain_value(row["low"]),
            "high": plain_value(row["high"]),
            "n": int(row["n_ok"]),
            "on_test": row["on_test"],
            "on_train": row["on_train"],
            "beside_diverged": bool(row["beside_diverged"]),
        }
        for row in diagram.in_order(diagram.cells).to_dict("records")
    ]


def plain_value(value: Any) -> Any:
    """A value of a table as JSON has it: None for what is missing or not finite."""
    if pd.isna(value) or (isinstance(value, float) and not isfinite(value)):
        return None
    return value.item() if hasattr(value, "item") else value


@dataclass(frozen=True, kw_only=True)
class Step:
    """Something that may be done next: a sentence without a full stop, and the command that does it."""

    words: str
    command: str


def next_steps(diagram: PhaseDiagram, replicates: int, again: Callable[..., str], *, ended: bool) -> list[Step]:
    """What may be done about cells that are not decided, and about cells that an ended search left out.

    Args:
        diagram: of the run folder.
        replicates: of its space.
        again: the command that runs the sweep with these options in addition.
        ended: whether the search has ended. Until then cells are undecided, or not run, because pairs are missing, and
            the step is to resume the sweep.
    """
    if not ended:
        return []
    cells, steps = diagram.cells, []
    undecided = int(((cells["verdict"] == "undecided") & cells["judged"] & ~_coarse(diagram)).sum())
    if undecided:
        wanted = max(LEAST_PAIRS, 2 * replicates)
        more = counted(len(cells) * (wanted - replicates), f"more {diagram.group}")
        words = (
            f"{counted(undecided, 'cell')} {'is' if undecided == 1 else 'are'} undecided; {wanted} replicates ({more})"
        )
        words += " give narrower intervals" if replicates >= LEAST_PAIRS else " are enough for intervals"
        steps.append(Step(words=words, command=again("--set", f"replicates={wanted}")))
    if left_out := len(diagram.not_run):
        words = f"the search left {counted(left_out, 'cell')} out; this runs {'it' if left_out == 1 else 'them'} too"
        steps.append(Step(words=words, command=again("--search", "grid")))
    return steps


def character_map(diagram: PhaseDiagram, width: int, height: int = MOST_LINES) -> list[str] | None:
    """The phase diagram in characters: a letter per cell, a dot for a planned cell that has not been run.

    Panels are side by side where they fit, else below each other. With one axis a panel is a line, without axes a cell
    is one. Of an axis all values are named, or the first and the last where there is no room. The last lines say
    what the letters mean.

    Args:
        diagram: what is drawn.
        width: of the longest line, in characters.
        height: the most lines.

    Returns:
        The lines; None if they would be more or longer, or if there is only one cell.
    """
    if len(diagram.cells) + len(diagram.not_run) == 1:
        return None
    letters = _letters(diagram)
    for all_named in (True, False):
        drawn = _lines(diagram, letters, all_named=all_named)
        if diagram.y is not None:
            drawn = _grids(diagram, letters, width, all_named=all_named)
        lines = [*drawn, *_legend(diagram, width)]
        if len(lines) <= height and max(map(len, lines)) <= width:
            return lines
    return None


Letters = Mapping[tuple[Any, ...], str]


def _letters(diagram: PhaseDiagram) -> Letters:
    """The letter of every cell that has been run by its panel, its value on y and its value on x, where there are."""
    columns = ["panel", *(axis.column for axis in reversed(diagram.axes))]
    places = diagram.cells[columns].itertuples(index=False, name=None)
    return {place: LETTERS[verdict] for place, verdict in zip(places, diagram.cells["verdict"], strict=True)}


def _legend(diagram: PhaseDiagram, width: int) -> list[str]:
    """What the letters mean, in lines that are cut between two of them."""
    seen = set(diagram.cells["verdict"])
    words = [f"{LETTERS[name]} {name}" for name in VERDICTS if name in seen]
    first, *others = [*words, *([f"{NOT_RUN} not run"] if len(diagram.not_run) else [])]
    lines = [first]
    for word in others:
        longer = f"{lines[-1]}  {word}"
        lines[-1:] = [longer] if len(longer) <= width else [lines[-1], word]
    return lines


def _lines(diagram: PhaseDiagram, letters: Letters, *, all_named: bool) -> list[str]:
    """A line per panel: one axis, or none."""
    if diagram.x is None:
        return [f"{letters.get((panel,), NOT_RUN)}  {panel}" for panel in diagram.panels]
    step, scale = _scale(diagram.x.ticks, all_named=all_named)
    rows = [_row([letters.get((panel, x), NOT_RUN) for x in diagram.x.ticks], step) for panel in diagram.panels]
    names = diagram.panels if len(diagram.panels) > 1 else ("",)
    margin = max(map(len, [*names, diagram.x.title])) + _GAP
    return [f"{name:<{margin}}{row}" for name, row in zip((*names, diagram.x.title), (*rows, scale), strict=True)]


def _grids(diagram: PhaseDiagram, letters: Letters, width: int, *, all_named: bool) -> list[str]:
    """The panels over two axes, as many side by side as fit; y grows upwards."""
    x, y = diagram.axes
    step, scale = _scale(x.ticks, all_named=all_named)
    heads = {panel: panel if len(diagram.panels) > 1 else "" for panel in diagram.panels}
    margin = max(len(text) for text in (x.title, y.title, *map(number, y.ticks)))
    wide = max(map(len, (scale, *heads.values())))
    at_once = max(1, (width - margin - _GAP + _BETWEEN_PANELS) // (wide + _BETWEEN_PANELS))

    def side_by_side(name: str, parts: Iterable[str]) -> str:
        cells = (" " * _BETWEEN_PANELS).join(part.ljust(wide) for part in parts)
        return f"{name:>{margin}}{' ' * _GAP}{cells}".rstrip()

    lines = []
    for start in range(0, len(diagram.panels), at_once):
        panels = diagram.panels[start : start + at_once]
        lines.append(side_by_side(y.title, (heads[panel] for panel in panels)))
        for value in reversed(y.ticks):
            rows = (_row([letters.get((panel, value, at), NOT_RUN) for at in x.ticks], step) for panel in panels)
            lines.append(side_by_side(number(value), rows))
        lines.append(side_by_side(x.title, [scale] * len(panels)))
    return lines


def _row(cells: Sequence[str], step: int) -> str:
    return "".join(cell.ljust(step) for cell in cells).rstrip()


def _scale(ticks: Sequence[float], *, all_named: bool) -> tuple[int, str]:
    """How many characters a cell takes, and the line that names an axis' values: all, or the first and the last."""
    names = [number(tick) for tick in ticks]
    if all_named:
        step = max(map(len, names)) + 1
        return step, _row(names, step)
    first, last = names[0], names[-1]
    step = max(2, ceil((len(first) + 1) / (len(names) - 1)))
    return step, first.ljust(step * (len(names) - 1)) + last
