"""All that is measured on a GPU, within one budget of seconds: ``python -m benchmarks.gpu [--seconds 480]``.

A part that is over before its share of the time leaves the rest to those behind it.
"""

import argparse
import time

from benchmarks.publish import RESULTS
from benchmarks.rows import add_options, run

# Shares of what is left of the time as each begins.
_THROUGHPUT, _PATHS, _FRACTIONS = 0.5, 0.6, 1.0
_SECONDS = 480


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    add_options(parser, _SECONDS)
    chosen = parser.parse_args()
    deadline = time.monotonic() + chosen.seconds
    from benchmarks import fractions, page, paths, throughput  # noqa: PLC0415 - torch takes seconds, which count

    for part, share in ((throughput, _THROUGHPUT), (paths, _PATHS), (fractions, _FRACTIONS)):
        run(part.benchmark(chosen.device), share * (deadline - time.monotonic()), chosen.out or RESULTS)
        if not chosen.out:
            page.main()


if __name__ == "__main__":
    main()
