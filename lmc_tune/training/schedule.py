"""The learning rate as a function of the step."""

import math

from lmc_tune.experiment import Course, TrainSpec


def learning_rate(spec: TrainSpec, step: int, n_steps: int) -> float:
    """Learning rate of one step.

    During the first ``round(warmup · n_steps)`` steps the rate rises linearly, reaching ``spec.lr`` at the last of
    them; the schedule then runs over the remaining steps. ``step`` divides the rate by 10 after half and again after
    three quarters of them; ``cosine`` is ½ lr (1 + cos πt), t from 0 to just below 1.

    Args:
        spec: schedule, warm-up and peak rate.
        step: 0-based.
        n_steps: of the whole training.
    """
    warmup_steps = round(spec.warmup * n_steps)
    if step < warmup_steps:
        return spec.lr * (step + 1) / warmup_steps
    t = (step - warmup_steps) / max(1, n_steps - warmup_steps)
    if spec.schedule == "cosine":
        return spec.lr * 0.5 * (1 + math.cos(math.pi * t))
    if spec.schedule == "step":
        return spec.lr * (1.0 if t < 0.5 else 0.1 if t < 0.75 else 0.01)
    return spec.lr


def course_rate(spec: TrainSpec, course: Course, step: int, n_steps: int) -> float:
    """Learning rate of one step of a training that is longer than its schedule.

    ``restart``: the schedule begins again every ``n_steps`` steps (Loshchilov & Hutter 2017; snapshot ensembles, Huang
    et al. 2017). ``stay``: after its schedule the rate is ``course.lowest_lr`` (SWE, Lion et al. 2024). After the
    warm-up no rate is lower than that.

    Args:
        spec: schedule, warm-up and peak rate.
        course: how it goes on.
        step: 0-based.
        n_steps: of the schedule.
    """
    if course.then == "restart":
        step %= n_steps
    elif step >= n_steps:
        return course.lowest_lr
    rate = learning_rate(spec, step, n_steps)
    return rate if step < round(spec.warmup * n_steps) else max(rate, course.lowest_lr)
