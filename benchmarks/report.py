"""Printing and keeping what a benchmark found."""

import json
import platform
import sys
from importlib import metadata
from pathlib import Path

from lmc_tune.sweep.plan import workers_here


def publish(name: str, rows: list[dict[str, object]]) -> None:
    """Print a table and write ``benchmarks/results/NAME.json`` with machine and versions."""
    machine = {
        "python": platform.python_version(),
        "cores": workers_here(),
        "processor": platform.processor() or platform.machine(),
        **{package: metadata.version(package) for package in ("torch", "ray", "mlflow")},
    }
    columns = list(rows[0])
    cells = [[_text(row[column]) for column in columns] for row in rows]
    widths = [max(len(c), *(len(row[i]) for row in cells)) for i, c in enumerate(columns)]
    for line in (columns, *cells):
        sys.stdout.write("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + "\n")
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"\nwritten to {path}\n")


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
