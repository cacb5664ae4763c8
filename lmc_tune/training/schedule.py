"""The learning rate as a function of the step."""

import math

from lmc_tune.experiment import TrainSpec


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
