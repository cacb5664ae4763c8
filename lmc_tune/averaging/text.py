"""The answer in characters: for a terminal, a log, a Python prompt."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import numpy as np

from lmc_tune.analysis.wording import LETTERS, perplexity
from lmc_tune.averaging.answer import Answer
from lmc_tune.averaging.findings import LayerFindings, OfCondition, PairFindings, Quality
from lmc_tune.averaging.layer_text import layer_lead, layer_rows, layer_sentences
from lmc_tune.averaging.many import Basins, ManyFindings
from lmc_tune.averaging.surroundings import DirectionFindings
from lmc_tune.averaging.surroundings_text import direction_parts
from lmc_tune.averaging.wording import (
    bounds,
    decimals,
    height,
    percentage,
    plain_number,
    quantity_name,
    threshold_words,
)
from lmc_tune.core.barrier import Array

# Networks whose matrix fits into 80 characters.
_MOST_IN_MATRIX = 26
# Lines of the plot of a path.
_ROWS = 7


def pair_text(found: PairFindings, answer: Answer, width: int) -> str:
    """Answer, reasons, table of conditions, path, members."""
    judged = found.paths[0].judged["test"]
    how = quantity_name(found.judging, found.metric)
    lines = [
        *_said(answer, width),
        "",
        *_conditions(found),
        "",
        *_members(found, answer),
        "",
        *_plot(found, answer, width),
        *([] if found.layers is None else _layers(found, found.layers, width)),
        *([] if found.directions is None else _directions(found, found.directions, width)),
        f"chord barrier of the {how}, {100 * found.judging.confidence:g}% interval over {judged.n} test examples",
        threshold_words(found.judging),
        *(f"note: {note}" for note in found.notes),
        *(f"{member.name}: {member.took}" for member in found.members if member.took),
    ]
    return "\n".join(lines)


def _layers(found: PairFindings, layers: LayerFindings, width: int) -> list[str]:
    sentences = [layer_lead(found, layers), *layer_sentences(found, layers)]
    lead, *others = (textwrap.wrap(text, width, break_long_words=False) for text in sentences)
    return ["", *lead, *_in_columns(layer_rows(found, layers)), *chain.from_iterable(others), ""]


def _directions(found: PairFindings, directions: DirectionFindings, width: int) -> list[str]:
    lines = []
    for part in direction_parts(directions, found.judging, quantity_name(found.judging, found.metric)):
        lines += ["", *textwrap.wrap(part.lead, width, break_long_words=False), *_in_columns(part.rows)]
    return [*lines, ""]


def _in_columns(rows: Sequence[Mapping[str, str]]) -> list[str]:
    return table([list(rows[0]), *(list(row.values()) for row in rows)])


def _said(answer: Answer, width: int) -> list[str]:
    """The answer and its reasons, cut between words."""
    reasons = [
        textwrap.wrap(reason, width, initial_indent="  · ", subsequent_indent="    ", break_long_words=False)
        for reason in answer.reasons
    ]
    return [*textwrap.wrap(answer.in_short, width, break_long_words=False), *chain.from_iterable(reasons)]


def many_text(found: ManyFindings, answer: Answer, width: int) -> str:
    """Answer, reasons, a matrix of verdicts per condition, members."""
    n = found.chosen_on + found.measured_on
    how = quantity_name(found.judging, found.metric)
    lines = _said(answer, width)
    for basins in found.basins:
        lines += ["", basins.condition.label, *_matrix(found, basins)]
    rows = [["", "network", "accuracy" if found.judging.quantity == "error" else found.metric]]
    for number, (name, quality) in enumerate(zip(found.names, found.qualities, strict=True), start=1):
        own = quality.means["test", found.judging.quantity]
        rows.append(
            [str(number), name, percentage(1 - own) if found.judging.quantity == "error" else plain_number(own)]
        )
    return "\n".join(
        [
            *lines,
            ", ".join(f"{letter} {verdict}" for verdict, letter in LETTERS.items() if verdict in _verdicts(found)),
            "",
            *table(rows),
            "",
            f"chord barrier of the {how}, {100 * found.judging.confidence:g}% intervals over {n} test examples",
            threshold_words(found.judging),
            f"soups: members chosen on {found.chosen_on} of them, measured on the other {found.measured_on}",
            *(f"note: {note}" for note in found.notes),
        ]
    )


def _verdicts(found: ManyFindings) -> set[str]:
    return {judged.verdict for basins in found.basins for judged in basins.judged.values()}


def _matrix(found: ManyFindings, basins: Basins) -> list[str]:
    """A letter for every pair; of more than a terminal holds, what the reasons say."""
    n = len(found.names)
    if n > _MOST_IN_MATRIX:
        return [f"{n} × {n}: see the page, or --json"]
    width = len(str(n))
    header = " " * (width + 1) + " ".join(f"{number:>{width}}" for number in range(1, n + 1))
    rows = [header]
    for i in range(n):
        cells = [LETTERS[basins.judged[min(i, j), max(i, j)].verdict] if i != j else "·" for j in range(n)]
        rows.append(f"{i + 1:>{width}} " + " ".join(f"{cell:>{width}}" for cell in cells))
    return rows


def shown_path(found: PairFindings, answer: Answer) -> OfCondition:
    """The path whose average is shown: that of the answer, else the one with the lowest barrier."""
    return found.path(answer.condition) or min(found.paths, key=lambda path: path.judged["test"].barrier)


def _conditions(found: PairFindings) -> list[str]:
    train = "train" in found.paths[0].judged
    header = ["condition", "on test", "barrier", "interval", *(["on train"] if train else []), "average"]
    if found.judging.quantity == "error":
        header[-1] = "average's error"
    rows = [header]
    for path in found.paths:
        judged = path.judged["test"]
        rows.append(
            [
                path.condition.label,
                judged.verdict,
                height(judged.barrier, found.judging),
                bounds(judged.low, judged.high, found.judging),
                *([_on_train(found, path)] if train else []),
                height(path.average.means["test", found.judging.quantity], found.judging),
            ]
        )
    return table(rows)


def _on_train(found: PairFindings, path: OfCondition) -> str:
    judged = path.judged["train"]
    return f"{judged.verdict}, {height(judged.barrier, found.judging)}"


def _members(found: PairFindings, answer: Answer) -> list[str]:
    best = shown_path(found, answer)
    rows = [["network", *_qualities(found)]]
    rows += [[member.name, *_quality(found, member.quality)] for member in found.members]
    rows.append([f"average ({best.condition.label})", *_quality(found, best.average)])
    if found.ensemble is not None:
        rows.append(["ensemble", *_quality(found, found.ensemble)])
    apart = "" if found.disagreement is None else f", they disagree on {100 * found.disagreement:.1f}% of examples"
    return [*table(rows), f"distance {plain_number(found.distance)}, cosine {decimals(found.cosine)}{apart}"]


def _qualities(found: PairFindings) -> list[str]:
    if found.judging.quantity != "error":
        return [found.metric]
    return ["accuracy", f"loss ({found.unit})", "perplexity" if found.text else "calibration error"]


def _quality(found: PairFindings, quality: Quality) -> list[str]:
    if found.judging.quantity != "error":
        return [plain_number(quality.means["test", "loss"])]
    error, loss = (quality.means["test", quantity] for quantity in ("error", "loss"))
    return [percentage(1 - error), decimals(loss), perplexity(loss) if found.text else percentage(quality.ece)]


def _plot(found: PairFindings, answer: Answer, width: int) -> list[str]:
    """The judged curve of the naive path and of the best one, test examples."""
    naive = found.paths[0]
    best, quantity = shown_path(found, answer), found.judging.quantity
    curves = [("●", naive.means["test", quantity], naive.condition.label)]
    if best is not naive:
        curves.append(("○", best.means["test", quantity], best.condition.label))
    drawn = plot(
        [(mark, curve) for mark, curve, _ in curves], lambda number: height(number, found.judging, 1), min(width, 60)
    )
    legend = "   ".join(f"{mark} {label}" for mark, _, label in curves)
    what = "error" if quantity == "error" else found.metric
    return [f"{what} along the path from {found.members[0].name} to {found.members[1].name}   {legend}", *drawn]


def plot(curves: Sequence[tuple[str, Array]], label: Callable[[float], str], width: int) -> list[str]:
    """Curves over equally spaced positions, in characters; the first is drawn on top.

    Args:
        curves: a mark and (positions,) values of each.
        label: what is said of a value beside the axis.
        width: of the whole, in characters.
    """
    known = np.concatenate([curve[np.isfinite(curve)] for _, curve in curves])
    low, high = min(0.0, float(known.min())), float(known.max())
    labels = [label(high), label(low)]
    margin = max(map(len, labels)) + 1
    columns = max(11, width - margin - 2)
    grid = [[" "] * columns for _ in range(_ROWS)]
    for mark, curve in reversed(curves):
        for at, number in enumerate(curve):
            if math.isfinite(number):
                row = 0 if high == low else round((high - number) / (high - low) * (_ROWS - 1))
                grid[row][round(at / (len(curve) - 1) * (columns - 1))] = mark
    lines = []
    for at, cells in enumerate(grid):
        side = labels[0] if at == 0 else labels[1] if at == _ROWS - 1 else ""
        lines.append(f"{side:>{margin}}│{''.join(cells).rstrip()}")
    return [*lines, f"{'':>{margin}}└{'─' * columns}", f"{'':>{margin}} 0{'½':^{columns - 2}}1"]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns, the first of which is flush left."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            f"{row[0]:<{widths[0]}}",
            *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
