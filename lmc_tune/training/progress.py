"""The progress of a member's training, and its end."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor


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


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A member after some epochs: its state dict, on the CPU, and its learning curve.

    moments: the optimizer's state, on the CPU, under torch's names: flat in the order of the parameters, and
    ``step`` () where it counts steps.
    diverged: why training stopped early, empty if it did not.
    seconds: that training took, in all calls that kept something of it; of members trained together, each its share.
    snapshots: copies of the state at the end of some epochs, by epoch.
    engine, engine_reason, device: what trained it, and why this engine, if another would be expected; may be empty.
    """

    epochs: int
    state: dict[str, Tensor]
    moments: dict[str, Tensor]
    curve: Sequence[CurvePoint]
    diverged: str = ""
    seconds: float = 0.0
    snapshots: Mapping[int, dict[str, Tensor]] = field(default_factory=dict)
    engine: str = ""
    engine_reason: str = ""
    device: str = ""

    def has(self, snapshots: Collection[int]) -> bool:
        """Whether it holds every one of these snapshots that its epochs came by."""
        return all(epoch in self.snapshots for epoch in snapshots if 0 < epoch <= self.epochs)
