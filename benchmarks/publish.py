"""Printing and keeping what a benchmark found."""

import json
import platform
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from lmc_tune.sweep.plan import workers_here

RESULTS = Path(__file__).parent / "results"


def publish(
    name: str, rows: list[dict[str, object]], facts: Mapping[str, object] | None = None, *, whole: bool = True
) -> None:
    """Print a table and write ``benchmarks/results/NAME.json`` with machine and versions.

    Args:
        name: of the file.
        rows: at least one, all with the same columns.
        facts: what else is to be known of the machine.
        whole: whether these are all rows; a part is printed only, since the page shows what is written as the whole.
    """
    columns = list(rows[0])
    cells = [[_text(row[column]) for column in columns] for row in rows]
    widths = [max(len(c), *(len(row[i]) for row in cells)) for i, c in enumerate(columns)]
    for line in (columns, *cells):
        sys.stdout.write("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + "\n")
    if not whole:
        sys.stdout.write(f"\na part of the rows: {RESULTS / name}.json is left as it is\n")
        return
    machine = {
        "python": platform.python_version(),
        "cores": workers_here(),
        "processor": _processor(),
        **_versions("torch", "ray", "mlflow"),
        **(facts or {}),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"\nwritten to {path}\n")


def _processor() -> str:
    """Its name where the system tells it, else its kind."""
    cpus = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", cpus.read_text(encoding="utf-8")) if cpus.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def _versions(*packages: str) -> dict[str, str]:
    """Versions of those that are installed: not every benchmark needs all of them."""
    versions = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
