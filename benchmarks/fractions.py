"""The bare loop under Ray Tune with fractions of a GPU: ``python -m benchmarks.fractions [--loops K ...]``.

What one would do without stacks: several loops at once, each a Ray trial with its share of the GPU.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.networks import NETWORKS
from benchmarks.publish import RESULTS, Row
from benchmarks.rows import Benchmark, add_options, run
from benchmarks.throughput import BATCH_SIZES, TRAINED, Plain, make_tasks, steps_of
from benchmarks.timing import wall_clock
from lmc_tune.sweeps.backend import ray_session
from lmc_tune.work.bench import Device
from lmc_tune.work.device import exact_device

_LOOPS = (4, 16)
_SECONDS = 10
_PATIENCE_SECONDS = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loops", type=int, nargs="+", default=_LOOPS, metavar="K", help="how many at once")
    parser.add_argument("--only", choices=TRAINED, action="append", help="these networks")
    add_options(parser, "cuda")
    chosen = parser.parse_args()
    whole = not chosen.only and set(_LOOPS) <= set(chosen.loops)
    measured = benchmark(chosen.device, chosen.only, chosen.loops)
    run(measured, chosen.seconds, chosen.out or (RESULTS if whole else None))


def benchmark(kind: Device, only: Sequence[str] | None = None, loops: Sequence[int] = _LOOPS) -> Benchmark:
    return Benchmark(
        result="fractions" if kind == "cuda" else f"fractions-{kind}",
        jobs=[
            {"network": name, "batch_size": size, "loops": number}
            for size in BATCH_SIZES
            for name in only or TRAINED
            for number in loops
        ],
        session=partial(_session, kind, max(loops)),
        measure=partial(_measure, kind),
    )


@contextmanager
def _session(kind: Device, most: int) -> Iterator[Mapping[str, object]]:
    with ray_session(most):
        yield {"device": torch.cuda.get_device_name() if kind == "cuda" else "cpu"}


def _measure(kind: Device, network: str, batch_size: int, loops: int) -> Iterator[list[Row]]:
    yield [_row(kind, network, batch_size, loops)]


def _row(kind: Device, name: str, batch_size: int, loops: int) -> Row:
    """Steps per second of several plain loops at once."""
    from ray import tune  # noqa: PLC0415 - the session's environment is set before it is imported

    def trial(config: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        device = exact_device(kind)
        steps, clock = steps_of(name, batch_size, device), wall_clock(device)
        plain = Plain(make_tasks(NETWORKS[name], members=1, batch_size=batch_size, steps=steps, device=device))
        plain.epoch(0)
        await_all(Path(config["ready"]), config["loop"], loops)
        done, started = 0, clock()
        while clock() < started + _SECONDS:
            plain.epoch(done + 1)
            done += 1
        tune.report({"steps_per_second": done * steps / (clock() - started)})

    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as ready:
        results = tune.Tuner(
            tune.with_resources(trial, {"gpu": 1 / loops} if kind == "cuda" else {"cpu": 1}),
            param_space={"ready": ready, "loop": tune.grid_search(list(range(loops)))},
            run_config=tune.RunConfig(storage_path=scratch, verbose=0),
        ).fit()
    found: Row = {"network": name, "batch_size": batch_size, "loops": loops, "seconds": _SECONDS}
    if results.errors:  # there may be too little memory for so many
        return {**found, "failed": f"{len(results.errors)} loops: {_last_line(results.errors[0])}"}
    rates = (float((results[at].metrics or {})["steps_per_second"]) for at in range(loops))
    return {**found, "steps_per_second": sum(rates)}


def _last_line(error: Exception) -> str:
    """The last line of a trial's traceback, which names the error."""
    return str(error).strip().splitlines()[-1]


def await_all(ready: Path, number: int, loops: int, patience_seconds: float = _PATIENCE_SECONDS) -> None:
    """Say in a folder that this loop is ready, and wait until all are.

    Raises:
        RuntimeError: if they are not ready in time.
    """
    (ready / str(number)).touch()
    deadline = time.monotonic() + patience_seconds
    while (found := len(list(ready.iterdir()))) < loops:
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {found} of {loops} loops were ready after {patience_seconds} seconds")
        time.sleep(0.01)


if __name__ == "__main__":
    # Imported by its own name, because Ray's workers cannot import what the main module defines.
    import_module("benchmarks.fractions").main()
