"""A network that stops where a test wants it to, so that a fault hits the phase it is meant for and no other.

A test asks for a stop by a file ``hold-PHASE`` in the folder that ``LMC_TUNE_TEST_GATES`` names. The first process to
get to that phase renames it to ``held-PHASE-PID``, and waits until that file is gone, or dies.
"""

import os
import resource
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

GATES = "LMC_TUNE_TEST_GATES"
# What a step takes at least: a sweep then lasts long enough to be disturbed.
SECONDS_PER_STEP = 0.002
_MEGABYTE = 2**20


class Gated(nn.Module):
    """A perceptron for digits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training and _is_within("run_cohort"):  # the driver tries a network out before it starts workers
            time.sleep(SECONDS_PER_STEP)
            wait_at("training")
            if list((_gates().parent / "run" / "checkpoints").glob("*.safetensors")):
                wait_at("checkpointed")
            if wait_at("hungry"):
                _fill_memory()
            if wait_at("confined"):
                _allocate_more_than_allowed()
        elif _is_within("measure_path"):
            wait_at("measuring")
        return self.layers(inputs)


def gated() -> nn.Module:
    """The factory. In the workers it makes a slow disk, too: a shard that is being written can be held."""
    os.fsync = _slow_fsync
    return Gated()


def wait_at(phase: str) -> bool:
    """Wait here if a test has asked for it; whether it had."""
    held = _gates() / f"held-{phase}-{os.getpid()}"
    try:
        (_gates() / f"hold-{phase}").rename(held)
    except FileNotFoundError:
        return False
    while held.exists():
        time.sleep(0.02)
    return True


def _gates() -> Path:
    return Path(os.environ[GATES])


_real_fsync = os.fsync


def _slow_fsync(file: int) -> None:
    if ".arrow." in str(Path(f"/proc/self/fd/{file}").readlink()):
        wait_at("writing")
    _real_fsync(file)


def _is_within(function: str) -> bool:
    frame = sys._getframe()
    while frame := frame.f_back:
        if frame.f_code.co_name == function:
            return True
    return False


def _fill_memory() -> None:
    """Take memory until the kernel ends the process."""
    taken = []
    while True:
        taken.append(b"x" * _MEGABYTE)


def _allocate_more_than_allowed() -> None:
    """A limit as by ``ulimit -v``, and a tensor that is too large for it."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + 64 * _MEGABYTE, before[1]))
    try:
        torch.ones(256 * _MEGABYTE)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
