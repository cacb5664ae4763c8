"""Writes docs/performance.md from what the benchmarks found: ``python -m benchmarks.page``."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmarks import layers, paths, sweep, throughput
from benchmarks.publish import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
_MOST, _LEAST = "target_", "least_"
_HEAD = """# Performance

Written by `python -m benchmarks.page` from `benchmarks/results/*.json`; no number here is typed by hand. Every table
names its command. `make bench` runs all benchmarks that need no GPU, `make bench-gpu` the others; both write this page.
Ratios compare things that were measured alternately on one machine. Where there are several runs, figures are medians.
Benchmarks that take minutes are run fewer than five times; their tables say how often. A dash means "not measured".
"""

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A table of the page.

    result: name of its JSON file. text: what is measured. targets: columns of targets that the file will have, their
    values and what they are for; "not measured" until it has them. gpu: whether it needs one.
    """

    title: str
    result: str
    command: str
    text: str
    targets: tuple[tuple[str, float, str], ...] = ()
    gpu: bool = False


SECTIONS = (
    Section(
        title="Start-up",
        result="startup",
        command="python -m benchmarks.startup",
        text="The time from starting `lmc-tune sweep quickstart` to the first step of training, and that of a whole "
        "sweep whose training takes no time, with two workers.",
    ),
    Section(
        title="A sweep against a bare loop",
        result="sweep",
        command="python -m benchmarks.sweep",
        text="A whole `lmc-tune sweep` of the quickstart's cells, report and MLflow included, is compared with a "
        "hand-written loop that trains and measures the same pairs, on one thread and then on two. All start from the "
        "same weights, data and order; where training is chaotic, rounding alone makes the accuracies differ from "
        "those of one thread (docs/decisions/0008-engines.md). Each is run once.",
        targets=tuple((*target, "whole sweep") for target in sweep.TARGETS.items()),
    ),
    Section(
        title="Orchestration",
        result="orchestration",
        command="python -m benchmarks.sweep",
        text="What scheduling, tables and MLflow add to a pair: the slope between a shorter and a longer sweep of tiny "
        "pairs with one worker, minus the times for training and measuring that the worker reports.",
    ),
    *(
        Section(
            title=f"Training on a {kind}",
            result=f"throughput-{device}",
            command=f"python -m benchmarks.throughput --device {device}",
            text="A stack of pairs is compared with a bare PyTorch loop over one member after the other on "
            "the same device; steps per second are those of all members together. Set-up and scoring are left out on "
            "both sides. Pairs per hour are for 20 epochs of 25 000 examples. MLPs have one layer of 32 units "
            "(small), one (L1) or three (L3) of 512, on images like MNIST's; the other networks see images like "
            "CIFAR-10's. The share of the floor is the shortest time in which the device could do a step's "
            "multiplications, or read and write its weights, gradients, momentum and inputs once, divided by the "
            "time that the step took. A network that stays in a cache can exceed the limit that memory sets. `auto "
            "takes` names lmc-tune's default engine here. "
            f"{beside}",
            targets=targets,
            gpu=device == "cuda",
        )
        for kind, device, beside, targets in (
            (
                "CPU",
                "cpu",
                (
                    "Both run on one core. Batches of 512 of VGG-11 and ResNet-18 are left out: such a step takes too "
                    "long on a CPU."
                ),
                (),
            ),
            (
                "GPU",
                "cuda",
                (
                    "Convolutional networks can be stacked in two ways, and training uses the faster one (`way`); "
                    "another column has the other's steps per second. Targets are for the largest stack."
                ),
                throughput.targets(),
            ),
        )
    ),
    Section(
        title="Ray Tune with fractions of a GPU",
        result="fractions",
        command="python -m benchmarks.fractions",
        text="The bare loop runs in several processes at once, each a Ray trial with its fraction of the GPU. Steps "
        "per second are those of all processes together, in one run of the given seconds.",
        gpu=True,
    ),
    *(
        Section(
            title=f"Paths on a {kind}",
            result=f"paths-{device}",
            command=f"python -m benchmarks.paths --device {device}",
            text="The scan, which computes loss and error along a path, is compared with a loop that copies the "
            "model for every position and reads the examples through a `DataLoader`. The loop runs in an ordinary "
            "Python process, the scan in one that keeps freed memory, like a sweep's workers; `kept loop` is the "
            "loop in such a process. An evaluation is one example at one position. The share of the peak is the "
            f"scan's multiplications per second over those that {device_words} reaches in products of large float32 "
            "matrices, in the same process and with the fastest library there. Where it is near 1, the scan has "
            "nothing left to gain.",
            targets=tuple(zip(repeat("least_ratio"), paths.LEAST_RATIO, ("MLPs", "others"), strict=False)),
            gpu=device == "cuda",
        )
        for kind, device, device_words in (("CPU", "cpu", "one core"), ("GPU", "cuda", "the GPU"))
    ),
    Section(
        title="Barriers of layers",
        result="layers",
        command="python -m benchmarks.layers",
        text="Every layer alone, the first and the last 1, 2, … layers, and all together are moved half-way, from both "
        "members. A loop copies the model for every such network, loads its weights and reads the examples through a "
        "`DataLoader`; the tree computes once what networks share, which takes so many whole passes (`passes`).",
        targets=tuple(("least_ratio", least, name) for name, (*_, least) in layers.MEASURED.items()),
    ),
    Section(
        title="Positions and layers",
        result="measuring",
        command="python -m benchmarks.scaling",
        text="One path on the digits, train and test, refined near every barrier's top; hidden layers are 64 wide.",
    ),
    Section(
        title="Pairs",
        result="scaling",
        command="python -m benchmarks.scaling",
        text="Whole sweeps of tiny pairs, start-up, report and MLflow included. The slope is the extra time "
        "over the next smaller sweep, per extra pair. Large sweeps take minutes and are run once.",
    ),
    Section(
        title="Logging to MLflow",
        result="tracking",
        command="python -m benchmarks.tracking",
        text="The processor time to send the quickstart's cells and pairs to a fresh SQLite store and to send them "
        "again, and the size in the store, per pair. In a sweep this happens in parallel with training.",
    ),
    Section(
        title="Reports",
        result="reports",
        command="python -m benchmarks.reports",
        text="The time that the whole command `lmc-tune report` takes on made-up tables, and its peak memory. "
        "Reports on the largest tables take minutes and are run once.",
    ),
    Section(
        title="Memory of workers",
        result="memory",
        command="python -m benchmarks.memory",
        text="Two workers train on the whole of CIFAR-10, once; the first run prepares the data, the second run finds "
        "them prepared.",
    ),
)


def main() -> None:
    PAGE.write_text(render(RESULTS), encoding="utf-8")
    sys.stdout.write(f"written to {PAGE}\n")


def render(results: Path, sections: Sequence[Section] = SECTIONS) -> str:
    """The page from the JSON files of a folder."""
    found = {section: _read(results / f"{section.result}.json") for section in sections}
    goals = [
        [section.title, *goal]
        for section, content in found.items()
        for goal in _goals(section, content["rows"] if content else [])
    ]
    targets = (
        f"\n## Targets\n\n{_table(['what', 'of', 'quantity', 'target', 'worst', 'verdict'], goals)}" if goals else ""
    )
    return _HEAD + targets + "".join(_section(section, content) for section, content in found.items())


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _section(section: Section, content: Any) -> str:
    text = fill(section.text, 120, break_long_words=False, break_on_hyphens=False)
    head = f"\n## {section.title}\n\n{text}\n\n    {section.command}\n\n"
    if content is None:
        return head + ("Not measured: no GPU was available.\n" if section.gpu else "Not measured.\n")
    rows = content["rows"]
    columns = [column for column in _columns(rows) if any(row.get(column) is not None for row in rows)]
    cells = [[_text(row.get(column)) for column in columns] for row in rows]
    table = _table([_words(column) for column in columns], cells)
    if left := content.get("left"):
        table += "\n" + fill(f"Partial: not measured, or not to the end: {', '.join(left)}.", 120) + "\n"
    machine = ", ".join(f"{_words(name)} {_text(value)}" for name, value in content["machine"].items())
    return f"{head}{table}\nMeasured with {machine}.\n"


def _columns(rows: Sequence[Row]) -> list[str]:
    """The columns of all rows together: a row that failed has few."""
    return list(dict.fromkeys(column for row in rows for column in row))


def _goals(section: Section, rows: Sequence[Row]) -> list[list[str]]:
    """For every target: the rows it is for, quantity, target, the worst of their figures, and whether all meet it.

    A column ``target_X`` is the most, and ``least_X`` the least, that the column ``X`` of its row may be.
    """
    columns = [column for column in _columns(rows) if column.startswith((_MOST, _LEAST))]
    found = [(column, row[column]) for column in columns for row in rows if row.get(column) is not None]
    awaited = {(column, value): of for column, value, of in section.targets}
    goals = dict.fromkeys(found, _text(None)) | awaited
    return [_goal(*target, of, rows, section) for target, of in goals.items()]


def _goal(column: str, value: float, of: str, rows: Sequence[Row], section: Section) -> list[str]:
    most = column.startswith(_MOST)
    quantity = column.removeprefix(_MOST if most else _LEAST)
    judged = [row for row in rows if row.get(column) == value]
    names = dict.fromkeys(_text(next(iter(row.values()))) for row in judged)
    named = [", ".join(names) or of, _words(quantity), f"{'≤' if most else '≥'} {_text(value)}"]
    figures = [row[quantity] for row in judged]
    if not figures:
        return [*named, _text(None), "not measured: needs a GPU" if section.gpu and not rows else "not measured"]
    worst = max(figures) if most else min(figures)
    holds = worst <= value if most else worst >= value
    return [*named, _text(worst), "holds" if holds else "does not hold"]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}".replace(",", " ") if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}".replace(",", " ") if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
