"""The bare loop under Ray Tune with fractions of a GPU: ``python -m benchmarks.fractions [--loops K ...]``.

What one would do without stacks: several loops at once, each a Ray trial with its share of the GPU.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.networks import NETWORKS
from benchmarks.publish import publish
from benchmarks.throughput import BATCH_SIZES, TRAINED, Plain, make_tasks, steps_of
from benchmarks.timing import wall_clock
from lmc_tune.sweep.backend import ray_session
from lmc_tune.work.device import exact_device

_LOOPS = (4, 16)
_SECONDS = 10
_PATIENCE_SECONDS = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loops", type=int, nargs="+", default=_LOOPS, metavar="K", help="so many at once")
    parser.add_argument("--only", choices=TRAINED, action="append", help="these networks")
    chosen = parser.parse_args()
    names = chosen.only or TRAINED
    with ray_session(max(chosen.loops)):
        rows = [_row(name, size, loops) for name in names for size in BATCH_SIZES for loops in chosen.loops]
    whole = not chosen.only and set(_LOOPS) <= set(chosen.loops)
    publish("fractions", rows, {"device": torch.cuda.get_device_name()}, whole=whole)


def _row(name: str, batch_size: int, loops: int) -> dict[str, object]:
    """Steps per second of several plain loops at once."""
    from ray import tune  # noqa: PLC0415 - the session's environment is set before it is imported

    def trial(config: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        device = exact_device("cuda")
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
            tune.with_resources(trial, {"gpu": 1 / loops}),
            param_space={"ready": ready, "loop": tune.grid_search(list(range(loops)))},
            run_config=tune.RunConfig(storage_path=scratch, verbose=0),
        ).fit()
    if results.errors:  # memory may be short for so many
        sys.stderr.write(f"{name}, {batch_size}: {len(results.errors)} of {loops} loops failed: {results.errors[0]}\n")
        rate = None
    else:
        rate = sum(float((results[at].metrics or {})["steps_per_second"]) for at in range(loops))
    return {"network": name, "batch_size": batch_size, "loops": loops, "seconds": _SECONDS, "steps_per_second": rate}


def await_all(ready: Path, number: int, loops: int, patience_seconds: float = _PATIENCE_SECONDS) -> None:
    """Say in a folder that this loop is ready, and wait until all are.

    Raises:
        RuntimeError: if they are not after some time.
    """
    (ready / str(number)).touch()
    deadline = time.monotonic() + patience_seconds
    while (found := len(list(ready.iterdir()))) < loops:
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {found} of {loops} loops were ready after {patience_seconds} seconds")
        time.sleep(0.01)


if __name__ == "__main__":
    main()
