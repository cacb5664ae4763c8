"""A clock that is moved back: between two calls, and in the middle of one."""

import os
from pathlib import Path

import pytest

from tests.faults.cases import PAIRS, Sweep, assert_whole
from tests.sweeps.cases import lmc_tune_json

_HOUR, _DAY = 3600, 86400

# Python's clock an hour back, once a test has said so. Read by every Python process as it starts.
_CLOCK = """
import os, time
from pathlib import Path
real, real_ns, moved = time.time, time.time_ns, Path(os.environ["LMC_TUNE_TEST_GATES"]) / "clock-moved"
time.time = lambda: real() - 3600 * moved.exists()
time.time_ns = lambda: real_ns() - 3600 * 10**9 * moved.exists()
"""


def date_later(folder: Path, seconds: int) -> None:
    """To a clock moved back by so much, every file there is comes from the future; which is older stays as it was."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        then = path.stat().st_mtime_ns + seconds * 10**9
        os.utime(path, ns=(then, then))


@pytest.mark.slow
@pytest.mark.faults
def test_a_clock_moved_back_by_a_day_between_two_calls_changes_nothing(sweep: Sweep, reference: Sweep) -> None:
    arguments = ("sweep", sweep.space, "--out", sweep.run)
    page = sweep.run / "report.html"
    lmc_tune_json(*arguments, "--max-pairs", "5", **sweep.environment)
    assert f"5 of {PAIRS} pairs finished" in page.read_text()
    driver = sweep.start("--workers", "1")
    sweep.wait_for(lambda: sweep.finished() >= 7, driver)
    driver.kill()
    driver.wait()
    date_later(sweep.run, _DAY)
    lmc_tune_json(*arguments, **sweep.environment)
    assert f"{PAIRS} of {PAIRS} pairs finished" in page.read_text()
    assert_whole(sweep, reference)


@pytest.mark.slow
@pytest.mark.faults
def test_a_clock_moved_back_by_an_hour_in_a_sweep_changes_nothing(
    sweep: Sweep, reference: Sweep, tmp_path: Path
) -> None:
    """While a pair is tried again: what it gives is older than the failure that it replaces."""
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(_CLOCK)
    path = os.pathsep.join([str(tmp_path / "clock"), sweep.environment["PYTHONPATH"]])
    driver = sweep.start("--workers", "1", PYTHONPATH=path)
    sweep.hold("confined")
    sweep.await_held("confined", driver)
    sweep.release("confined")
    sweep.wait_for(lambda: sweep.finished() == PAIRS - 1, driver)
    sweep.hold("training")
    sweep.await_held("training", driver)
    (sweep.gates / "clock-moved").touch()
    date_later(sweep.run, _HOUR)
    sweep.release("training")
    assert driver.wait(120) == 0, sweep.told
    sweep.again()
    assert_whole(sweep, reference)
