"""Whether two run folders hold the same numbers: ``python -m benchmarks.same_results OLD NEW [OLD NEW ...]``.

Pairs are matched by their settings, since another version may give them other keys. All points of all paths, and the
columns that both tables have, except keys, times and what names the run, are compared to the last bit.
"""

import argparse
import sys
from pathlib import Path

from lmc_tune import load_results
from lmc_tune.tables.columns import SPEC_FIELDS, TIME_FIELDS
from lmc_tune.tables.store import Store

_APART = {"key", "cell", "spec", "question", "member_a", "member_b", *TIME_FIELDS}


def differences(old: Path, new: Path) -> list[str]:
    """What differs, in words; empty if nothing does."""
    results, paths = [], []
    for folder in (old, new):
        rows = load_results(folder)
        named = [name for name in SPEC_FIELDS if name in rows and rows[name].notna().any()]
        rows["setting"] = rows[named].map(str).agg(" ".join, axis="columns")
        points = Store(folder).table("paths").merge(rows[["key", "setting"]], on="key").drop(columns="key")
        results.append(rows.set_index("setting").sort_index())
        paths.append(points.sort_values(["setting", "condition", "split", "lambda"]).reset_index(drop=True))
    one, other = results
    if list(one.index) != list(other.index):
        return [f"{len(one)} and {len(other)} pairs, of which {len(set(one.index) & set(other.index))} are the same"]
    columns = [name for name in one if name in other and name not in _APART and one[name].notna().any()]
    found = [f"column {name}" for name in columns if not one[name].equals(other[name].astype(one[name].dtype))]
    missing = [f"column {name} is gone" for name in one if name not in other and one[name].notna().any()]
    if len(paths[0]) != len(paths[1]) or not paths[0].equals(paths[1][paths[0].columns]):
        found.append("paths")
    return [*found, *missing]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare run folders to the last bit.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    folders = parser.parse_args().folders
    differ = False
    for old, new in zip(folders[::2], folders[1::2], strict=True):
        found = differences(old, new)
        rows, points = len(load_results(new)), len(Store(new).table("paths"))
        print(f"{new.name}: {', '.join(found) or f'equal ({rows} pairs, {points} points of paths)'}")  # noqa: T201
        differ |= bool(found)
    sys.exit(int(differ))


if __name__ == "__main__":
    main()
