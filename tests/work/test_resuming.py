"""Cohorts that end in the middle of a training, and go on."""

import math
import time
from contextlib import suppress

import pytest

from lmc_tune.training.task import Task
from lmc_tune.work.cohort import run_cohort
from tests.cases import cohort, pair_spec, six, timeless


@pytest.mark.parametrize("engine", ["loop", "stacked"])
def test_a_lost_worker_costs_the_epochs_since_the_last_checkpoint(bench, monkeypatch, engine):
    pairs, expected = six(engine)[:3], timeless(run_cohort(cohort(*six(engine)[:3]), bench("whole")))
    tidy = bench("cut", checkpoint_seconds=0)
    epochs, real = [], Task.feed

    def feed(task, epoch, n_steps):
        epochs.append(epoch)
        if len(epochs) == 11:
            raise KeyboardInterrupt
        return real(task, epoch, n_steps)

    monkeypatch.setattr(Task, "feed", feed)
    with pytest.raises(KeyboardInterrupt):
        run_cohort(cohort(*pairs), tidy)
    assert list(tidy.store.checkpoints.iterdir())
    results = run_cohort(cohort(*pairs), tidy)
    assert timeless(results) == expected
    assert len(epochs) - 1 < 4 * 6 + 6  # at most one epoch of each member was trained twice
    assert not list(tidy.store.checkpoints.iterdir())


def test_a_member_that_took_longer_than_a_minute_is_not_trained_from_its_start_again(bench, monkeypatch):
    """Epochs take 25 seconds: A's third is the last that is kept before it is finished, and B's first is cut short."""
    clock, epochs, real = [time.monotonic()], [], Task.feed

    def feed(task, epoch, n_steps):
        clock[0] += 25
        epochs.append(epoch)
        if len(epochs) == 5:
            raise KeyboardInterrupt
        return real(task, epoch, n_steps)

    monkeypatch.setattr(Task, "feed", feed)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    for _ in range(2):
        with suppress(KeyboardInterrupt):
            run_cohort(cohort(six("loop")[0]), bench())
    assert epochs == [0, 1, 2, 3, 0, 0, 1, 2, 3]


@pytest.mark.parametrize("engine", ["loop", "stacked"])
def test_the_seconds_of_a_pair_that_was_interrupted_are_those_of_one_that_was_not(bench, monkeypatch, engine):
    """A member's epoch takes ten seconds: two of joint training, three of each member's own."""
    spec = pair_spec(train={"epochs": 5, "spawn_epoch": 2, "engine": engine})
    clock, cut, real = [0.0], [math.inf], Task.feed

    def feed(task, epoch, n_steps):
        clock[0] += 10
        if clock[0] == cut[0]:
            raise KeyboardInterrupt
        return real(task, epoch, n_steps)

    monkeypatch.setattr(Task, "feed", feed)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    (whole,) = run_cohort(cohort(spec), bench("whole"))
    assert whole.row["seconds_train"] == 80
    cut[0] = clock[0] + 60
    tidy = bench("cut", checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        run_cohort(cohort(spec), tidy)
    (resumed,) = run_cohort(cohort(spec), tidy)
    assert clock[0] > 80 + 80
    assert resumed.row["seconds_train"] == 80


@pytest.mark.parametrize("engine", ["loop", "stacked"])
def test_a_disk_that_is_full_in_training_ends_the_cohort_and_blames_no_pair(bench, monkeypatch, engine):
    def offer(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Task, "offer", offer)
    tidy = bench()
    with pytest.raises(OSError, match="No space left on device"):
        run_cohort(cohort(*six(engine)[:3]), tidy)
    assert tidy.store.statuses() == {}
