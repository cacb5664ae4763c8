"""A learning curve's points."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """A member after one epoch.

    step: steps taken; epoch: the same in passes over the part. train_loss (nats) and train_accuracy (fraction) are
    running means over the epoch's batches, taken before each update; test_* are measured after the last.
    """

    step: int
    epoch: float
    lr: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
