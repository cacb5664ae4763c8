"""Workers that are killed, or that have no memory left."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from lmc_tune.tables.store import Store
from tests.faults.cases import Sweep, assert_no_process, assert_whole

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("phase", ["training", "measuring", "writing"])
def test_a_worker_killed_at_work_costs_no_pair(sweep: Sweep, reference: Sweep, phase: str) -> None:
    driver = sweep.start("--workers", "2")
    sweep.wait_for(lambda: sweep.finished() >= 2, driver)
    sweep.hold(phase)
    worker = sweep.await_held(phase, driver)
    half_written = list((sweep.run / "shards").glob(".*.arrow.*.part"))
    assert bool(half_written) == (phase == "writing")
    worker.kill()
    assert driver.wait(120) == 0, sweep.told
    assert not psutil.pid_exists(worker.pid)
    assert_whole(sweep, reference)


@pytest.mark.faults
def test_a_worker_killed_after_its_checkpoint_trains_on_from_there(sweep: Sweep, reference: Sweep) -> None:
    """Checkpoints are a minute apart, so the first epoch of a member takes a minute."""
    driver = sweep.start("--workers", "1")
    sweep.hold("training")
    sweep.await_held("training", driver)
    sweep.hold("checkpointed")
    with suppress(psutil.TimeoutExpired):
        psutil.Process(driver.pid).wait(61)
    sweep.release("training")
    sweep.await_held("checkpointed", driver).kill()
    assert driver.wait(120) == 0, sweep.told
    assert_whole(sweep, reference)
    seconds = Store(sweep.run).results()["seconds_train"]
    assert (seconds > 61).sum() == 1, "the minute before the checkpoint was not spent twice, nor forgotten"


@pytest.mark.faults
def test_a_worker_without_memory_says_so_and_its_pair_is_tried_again(sweep: Sweep, reference: Sweep) -> None:
    """The worker's address space is limited, and a tensor does not fit."""
    driver = sweep.start("--workers", "1")
    sweep.hold("confined")
    sweep.await_held("confined", driver)
    sweep.hold("training")  # of the pair after it, when the failure has been published
    sweep.release("confined")
    sweep.await_held("training", driver)
    (reason,) = (row for row in Store(sweep.run).results()["reason"] if row)
    assert "can't allocate memory" in reason
    sweep.release("training")
    assert driver.wait(120) == 0, sweep.told
    assert_whole(sweep, reference)


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group of the kernel's whose processes may take another 200 MB."""
    group = Path(f"/sys/fs/cgroup/memory/lmc-tune-test-{os.getpid()}")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(f"{200 * 2**20}")
    except OSError as error:
        pytest.skip(f"no control group for memory can be made here: {error}")
    yield group
    group.rmdir()


@pytest.mark.faults
def test_a_worker_that_the_kernel_kills_for_its_memory_costs_no_pair(
    sweep: Sweep, reference: Sweep, memory_group: Path
) -> None:
    driver = sweep.start("--workers", "2")
    sweep.wait_for(lambda: sweep.finished() >= 2, driver)
    sweep.hold("hungry")
    worker = sweep.await_held("hungry", driver)
    (memory_group / "cgroup.procs").write_text(str(worker.pid))
    sweep.release("hungry")
    assert driver.wait(120) == 0, sweep.told
    assert "oom_kill 1" in (memory_group / "memory.oom_control").read_text()
    assert_whole(sweep, reference)


@pytest.mark.faults
def test_a_worker_that_is_frozen_dies_with_its_driver_and_ray(sweep: Sweep, reference: Sweep) -> None:
    """Otherwise it could write once it wakes, into a folder that others work in.

    The kernel sees to it: a process group that loses its last parent while it is stopped is hung up.
    """
    driver = sweep.start("--workers", "2")
    sweep.wait_for(lambda: sweep.finished() >= 2, driver)
    sweep.hold("training")
    worker = sweep.await_held("training", driver)
    worker.suspend()
    sweep.wait_for(lambda: _is_stopped(worker), driver)
    for process in sweep.processes():
        if process.pid != worker.pid:
            process.kill()
    driver.wait()
    assert_no_process(sweep)
    sweep.again()
    assert_whole(sweep, reference)


def _is_stopped(process: psutil.Process) -> bool:
    """Whether each of its threads has stopped, which takes a moment after the signal."""
    return all(psutil.Process(thread.id).status() == psutil.STATUS_STOPPED for thread in process.threads())
