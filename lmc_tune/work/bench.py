"""Where a cohort is run. No torch: the driver of a sweep describes it, the workers use it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lmc_tune.experiment import MeasureSpec
from lmc_tune.storage import Place
from lmc_tune.tables.store import Store

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class Workbench:
    """Settings that change no member: place, device, question, gate.

    folders: where factories are looked for before ``sys.path``; no part of a spec, since a path must not be part of a
    key. device: ``auto`` takes the GPU if there is one. measure: what is asked of every group. members: folder of the
    members' weights, None if there is none. keep_members: those that are finished are written there too.
    checkpoint_seconds: least time between two checkpoints of a member in training.
    """

    store: Store
    data_root: Path
    folders: tuple[str, ...] = ()
    device: Device = "cpu"
    measure: MeasureSpec = field(default_factory=MeasureSpec)
    min_train_accuracy: float = 0.5
    members: Place | None = None
    keep_members: bool = True
    checkpoint_seconds: float = 60
