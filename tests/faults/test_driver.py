"""Drivers that are killed, and machines that are taken away."""

import signal
import time
from contextlib import suppress

import psutil
import pytest

from lmc_tune.tables.store import Store
from tests.faults.cases import PAIRS, Sweep, assert_no_process, assert_whole, shown_in

pytestmark = pytest.mark.slow


def test_a_driver_killed_leaves_no_process_and_the_same_command_goes_on(sweep: Sweep, reference: Sweep) -> None:
    driver = sweep.start("--workers", "2")
    sweep.wait_for(lambda: sweep.finished() >= 2, driver)
    sweep.hold("training")
    sweep.await_held("training", driver)
    driver.kill()
    driver.wait()
    assert_no_process(sweep)
    kept = Store(sweep.run).results()[["key", "seconds_train"]]
    assert 2 <= len(kept) < PAIRS
    assert sweep.again()["trained"] == PAIRS - len(kept)
    after = Store(sweep.run).results()[["key", "seconds_train"]]
    assert after[after["key"].isin(kept["key"])].reset_index(drop=True).equals(kept), "finished pairs stay as they were"
    assert_whole(sweep, reference)


@pytest.mark.faults
def test_a_second_driver_starts_while_workers_of_a_killed_one_still_write(sweep: Sweep, reference: Sweep) -> None:
    # Ray's workers end seconds after their driver: sooner than a busy machine starts another.
    driver = sweep.start("--workers", "2", RAY_raylet_death_check_interval_milliseconds="600000")
    sweep.wait_for(lambda: sweep.finished() >= 1, driver)
    sweep.hold("writing")
    orphan = sweep.await_held("writing", driver)
    driver.kill()
    driver.wait()
    second = sweep.start("--workers", "2")
    sweep.wait_for(lambda: "starting 2 workers" in sweep.told, second)
    assert orphan.is_running(), "the second driver has begun beside it"
    sweep.release("writing")
    assert second.wait(120) == 0, sweep.told
    psutil.wait_procs([orphan], timeout=60)
    sweep.again()
    assert_whole(sweep, reference)


@pytest.mark.faults
def test_a_spot_machine_taken_away_keeps_finished_pairs_and_checkpoints(sweep: Sweep, reference: Sweep) -> None:
    """Every process gets SIGTERM at once, as at a shutdown, a minute into a training; they have 30 s."""
    driver = sweep.start("--workers", "1")
    sweep.wait_for(lambda: sweep.finished() >= 2, driver)
    sweep.hold("training")
    sweep.await_held("training", driver)
    sweep.hold("checkpointed")
    with suppress(psutil.TimeoutExpired):
        psutil.Process(driver.pid).wait(61)
    sweep.release("training")
    sweep.await_held("checkpointed", driver)
    finished, processes, began = set(Store(sweep.run).statuses()), sweep.processes(), time.monotonic()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    assert driver.wait(30) == 130, sweep.told
    _, alive = psutil.wait_procs(processes, timeout=max(0, began + 30 - time.monotonic()))
    print(f"\nfrom SIGTERM to the last exit: {time.monotonic() - began:.1f} s")  # noqa: T201
    assert not alive, [process.cmdline() for process in alive]
    assert "1 network of unfinished pairs has a checkpoint to resume from. Continue with the same command" in sweep.told
    assert finished <= set(Store(sweep.run).statuses())
    assert "RUNNING" not in shown_in(sweep.run / "mlflow.db")
    sweep.again()
    assert_whole(sweep, reference)
    assert (Store(sweep.run).results()["seconds_train"] > 61).sum() == 1, "trained on from the checkpoint"
