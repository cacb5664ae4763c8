"""Printing and keeping what a benchmark found."""

import json
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from lmc_tune.storage import write_text
from lmc_tune.sweeps.plan import workers_here

RESULTS = Path(__file__).parent / "results"

Row = dict[str, object]


def publish(name: str, rows: list[Row], *, whole: bool = True) -> None:
    """Print a table and write ``benchmarks/results/NAME.json``.

    Args:
        name: of the file.
        rows: at least one, all with the same columns.
        whole: whether these are all rows; a part is only printed, because the page takes what is written for all rows.
    """
    columns = list(rows[0])
    cells = [[_text(row[column]) for column in columns] for row in rows]
    widths = [max(len(c), *(len(row[i]) for row in cells)) for i, c in enumerate(columns)]
    for line in (columns, *cells):
        sys.stdout.write("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + "\n")
    if not whole:
        sys.stdout.write(f"\nonly some of the rows: {RESULTS / name}.json is not changed\n")
        return
    path = write_results(RESULTS, name, rows)
    sys.stdout.write(f"\nwritten to {path}\n")


def write_results(
    folder: Path,
    name: str,
    rows: Sequence[Row],
    facts: Mapping[str, object] | None = None,
    left: Sequence[str] = (),
) -> Path:
    """Write ``NAME.json`` with machine and versions, atomically.

    Args:
        folder: created if necessary.
        name: of the file.
        rows: what was measured.
        facts: what else describes the machine.
        left: names of the jobs that were not measured, or not to the end; the page lists them.
    """
    machine = {
        "python": platform.python_version(),
        "cores": workers_here(),
        "processor": _processor(),
        **_versions("torch", "ray", "mlflow"),
        **(facts or {}),
    }
    content = {"machine": machine, "rows": list(rows), **({"left": list(left)} if left else {})}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    write_text(path, json.dumps(content, indent=2) + "\n")
    return path


def as_text(row: Row) -> str:
    """A row in one line."""
    return ", ".join(f"{name} {_text(value)}" for name, value in row.items() if value is not None)


def _processor() -> str:
    """The processor's name if the system gives it, else its kind."""
    cpus = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", cpus.read_text(encoding="utf-8")) if cpus.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def _versions(*packages: str) -> dict[str, str]:
    """Versions of the packages that are installed: not every benchmark needs all of them."""
    versions = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
