"""Runs the benchmarks that need a GPU, within one budget of seconds: ``python -m benchmarks.gpu [--seconds 480]``.

A part that ends before its share of the time is used leaves the rest to the parts after it.
"""

import argparse
import time
from importlib import import_module

from benchmarks.publish import RESULTS
from benchmarks.rows import add_options, run

# The most important first, each with its share of the time that is left when it begins.
_PARTS = {"throughput": 0.5, "paths": 0.6, "fractions": 1.0}
_SECONDS = 480


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", choices=_PARTS, nargs="+", default=list(_PARTS), help="fractions needs Ray")
    add_options(parser, "cuda", _SECONDS)
    began = time.monotonic()  # importing torch takes seconds, which count
    chosen = parser.parse_args()
    deadline = began + chosen.seconds
    from benchmarks import page  # noqa: PLC0415 - imports torch

    for name in chosen.parts:
        share = 1.0 if name == chosen.parts[-1] else _PARTS[name]
        benchmark = import_module(f"benchmarks.{name}").benchmark(chosen.device)
        run(benchmark, share * (deadline - time.monotonic()), chosen.out or RESULTS)
        if not chosen.out:
            page.main()


if __name__ == "__main__":
    main()
