"""Jobs of benchmarks that end in every way; without torch, so that their processes start at once."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.publish import Row
from benchmarks.rows import Benchmark, run


@contextmanager
def session() -> Iterator[Mapping[str, object]]:
    yield {"device": "none"}


def measure(name: str) -> Iterator[list[Row]]:
    """Two rows, unless the job's name is how it ends after the first."""
    rows: list[Row] = [{"name": name, "figure": 1.5, "process": os.getpid()}]
    yield rows
    if name == "raises":
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nand more")
    if name == "dies":
        os._exit(9)
    if name == "hangs":
        subprocess.run(["sleep", "600"], check=True)
        time.sleep(600)
    yield [*rows, {**rows[0], "figure": 2.5}]


def benchmark(*names: str) -> Benchmark:
    return Benchmark(result="some", jobs=[{"name": name} for name in names], session=session, measure=measure)


if __name__ == "__main__":
    run(benchmark("ends", "hangs", "never"), 600, Path(sys.argv[1]))
