"""Rows of a benchmark, each written as soon as it is measured, until a budget of seconds is spent.

A separate process measures job after job. A job that raises an exception becomes a row that says so; a job that hangs,
or breaks its process or its GPU, costs no other job.
"""

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.publish import RESULTS, Row, as_text, write_results

Job = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What is measured in rows.

    result: name of its JSON file. jobs: the most important first, each as the first columns of its rows.
    session: open around all jobs, in their process; yields what else describes the machine.
    measure: called there with a job's columns; with every new row, yields all rows of the job so far.
    """

    result: str
    jobs: Sequence[Job]
    session: Callable[[], AbstractContextManager[Mapping[str, object]]]
    measure: Callable[..., Iterator[list[Row]]]


def add_options(parser: ArgumentParser, device: str = "cpu", seconds: float = math.inf) -> None:
    """Add the options of every command that runs a benchmark in rows; ``device`` and ``seconds`` are defaults."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default=device, type=_usable)
    parser.add_argument("--seconds", type=float, default=seconds, help="stop after this many; what is measured is kept")
    parser.add_argument("--out", type=Path, help="write JSON to this folder")


def _usable(device: str) -> str:
    if device == "cuda":
        import torch  # noqa: PLC0415 - takes seconds

        if not torch.cuda.is_available():
            raise ArgumentTypeError("there is no CUDA device here; run it on a machine with a GPU, or say --device cpu")
    return device


def run(benchmark: Benchmark, seconds: float, folder: Path | None = RESULTS) -> None:
    """Measure job after job for ``seconds`` seconds.

    Every row is printed as soon as it is measured, and kept in the folder, if there is one, with the names of the
    jobs that are left.
    """
    deadline = time.monotonic() + seconds
    kept, facts = list[Row](), dict[str, object]()
    left, worker = list(benchmark.jobs), None
    try:
        while left and time.monotonic() < deadline:
            worker, job, rows, said = worker or _Worker(benchmark), left[0], list[Row](), "rows"
            worker.begin(job)
            while said == "rows":
                said, found = worker.hear(deadline)
                told = len(rows)
                if said == "rows":
                    rows, facts = found
                elif said == "failed":
                    rows = [*rows, {**job, "failed": found}]
                for row in rows[told:]:
                    sys.stdout.write(f"{benchmark.result}: {as_text(row)}\n")
                sys.stdout.flush()
                left = left if said in {"rows", "late"} else left[1:]
                if folder and (kept or rows):
                    names = [" ".join(map(str, job.values())) for job in left]
                    write_results(folder, benchmark.result, kept + rows, facts, names)
            kept += rows
            if said == "failed":  # its process may be broken
                worker.kill()
                worker = None
        if worker:
            worker.end(deadline)
    finally:
        if worker:
            worker.kill()
    sys.stdout.write(f"{benchmark.result}: {len(kept)} rows; {len(left)} of {len(benchmark.jobs)} jobs are left\n")


class _Worker:
    """A process that measures one job after the other."""

    def __init__(self, benchmark: Benchmark) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_work, args=(there, benchmark))
        self._process.start()
        there.close()  # so that the end of the process is noticed

    def begin(self, job: Job) -> None:
        with suppress(OSError):  # ``hear`` reports it
            self._here.send(dict(job))

    def hear(self, deadline: float) -> tuple[str, Any]:
        """``rows`` with the job's rows so far and the facts, ``done``, ``failed`` with the reason, or ``late``."""
        patience = max(0.0, deadline - time.monotonic())
        if not self._here.poll(None if math.isinf(patience) else patience):
            return "late", None
        try:
            said: tuple[str, Any] = self._here.recv()
        except (EOFError, OSError):
            self._process.join()
            return "failed", f"its process ended with exit code {self._process.exitcode}"
        return said

    def end(self, deadline: float) -> None:
        """Let the process end in order, if there is time."""
        self._here.close()
        patience = max(0.0, deadline - time.monotonic())
        self._process.join(None if math.isinf(patience) else patience)

    def kill(self) -> None:
        """Kill the process and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid or 0, signal.SIGKILL)
        self._process.kill()  # it may not lead a group yet
        self._process.join()


def _work(there: Connection, benchmark: Benchmark) -> None:
    os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with benchmark.session() as facts:
            while True:
                for rows in benchmark.measure(**there.recv()):
                    there.send(("rows", (rows, dict(facts))))
                there.send(("done", None))
    except (EOFError, BrokenPipeError):
        pass  # there are no more jobs
    except Exception as error:  # noqa: BLE001 - whatever a library or a driver may raise
        there.send(("failed", f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"))


def _end_with_parent() -> None:
    """End with the parent, so that a GPU does not stay busy with work that nobody waits for."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
    os.killpg(os.getpid(), signal.SIGKILL)
