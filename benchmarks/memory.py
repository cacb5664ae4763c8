"""Memory of a sweep's workers on the whole of CIFAR-10: ``python -m benchmarks.memory``. Linux only.

The same short sweep with two workers runs twice: the first run prepares the data, the second finds them prepared.
"""

import os
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.command import command
from benchmarks.publish import publish

_WORKERS = 2
_SETS = (
    "axes.hidden=[[512]]",
    "axes.batch_size=[128]",
    "axes.lr=[0.001]",
    "train={optimizer: adam, steps: 40}",
    "measure={lambdas: 5, refinements: 1}",
    "replicates=1",
)
# Fields of /proc/PID/smaps, and their names here.
_FIELDS = {
    b"Rss:": "resident",
    b"Pss:": "proportional",
    b"Private_Clean:": "private",
    b"Private_Dirty:": "private",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        publish("memory", [row for run in ("first", "second") for row in _run(run, Path(scratch))])


def _run(name: str, scratch: Path) -> list[dict[str, object]]:
    """One row per worker; every figure is the highest that was seen, each at its own time."""
    words = ("sweep", "cifar10_mlp", "--out", str(scratch / name), "--no-report", "--workers", str(_WORKERS))
    peaks: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    with subprocess.Popen(
        command(*words, sets=_SETS),
        env={**os.environ, "XDG_CACHE_HOME": str(scratch / "cache")},
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None:
            for worker in _workers_below(process.pid):
                for what, megabytes in _megabytes(worker, str(scratch / "cache").encode()).items():
                    peaks[worker][what] = max(peaks[worker][what], megabytes)
            time.sleep(0.2)  # reading a process's map stops it for a moment
    if process.returncode:
        raise RuntimeError(f"the sweep ended with exit code {process.returncode}")
    largest = sorted(peaks.values(), key=lambda peak: -peak["proportional"])[:_WORKERS]  # Ray also keeps idle ones
    return [
        {
            "run": name,
            "worker": at,
            "shared_data_mb": peak["data"],
            "beside_data_mb": peak["beside"],
            "private_beside_data_mb": peak["private"],
            "proportional_mb": peak["proportional"],
            "target_beside_data_mb": 700,
        }
        for at, peak in enumerate(largest, start=1)
    ]


def _workers_below(ancestor: int) -> list[int]:
    """Ray's worker processes among the descendants of a process."""
    parents, titles = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                status, title = (folder / "stat").read_text(), (folder / "cmdline").read_bytes()
            except OSError:  # it has ended
                continue
            parents[int(folder.name)], titles[int(folder.name)] = int(status.rpartition(")")[2].split()[1]), title
    below = {ancestor}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return [child for child in below if titles.get(child, b"").startswith(b"ray::")]


def _megabytes(process: int, shared: bytes) -> dict[str, float]:
    """Memory of a process.

    data: mapped from files below the folder ``shared``. beside: all other. private: the part of that which no other
    process shares. proportional: PSS.
    """
    found: dict[str, float] = defaultdict(float)
    of_data = False
    try:
        lines = Path(f"/proc/{process}/smaps").read_bytes().splitlines()
    except OSError:  # it has ended
        return found
    for line in lines:
        words = line.split()
        if not words[0].endswith(b":"):
            of_data = shared in line
        elif what := _FIELDS.get(words[0]):
            megabytes = int(words[1]) / 1e3
            if what == "resident":
                found["data" if of_data else "beside"] += megabytes
            elif what == "proportional" or not of_data:
                found[what] += megabytes
    return found


if __name__ == "__main__":
    main()
