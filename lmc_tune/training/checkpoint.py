"""Where a member's training stands, kept between epochs so that a lost worker costs minutes."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lmc_tune.store import replacing
from lmc_tune.training.curve import CurvePoint


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A member after some epochs.

    state: its state dict. moments: what the optimizer remembers, under torch's names: flat in the order of the
    parameters, and ``step`` () where it counts steps. diverged: why training stopped, empty if it did not.
    """

    epochs: int
    state: dict[str, Tensor]
    moments: dict[str, Tensor]
    curve: list[CurvePoint]
    diverged: str = ""


@dataclass(kw_only=True)
class Checkpoint:
    """One member's file: written atomically, seldom enough to cost little.

    seconds: least time between two writings.
    """

    path: Path
    seconds: float
    _last: float = field(default_factory=time.monotonic)

    def offer(self, make: Callable[[], Progress]) -> None:
        """Keep what ``make`` gives, if it is time."""
        if time.monotonic() - self._last < self.seconds:
            return
        progress = make()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"{kind} {name}": tensor.contiguous()
            for kind, entries in (("state", progress.state), ("moment", progress.moments))
            for name, tensor in entries.items()
        }
        facts = {
            "epochs": progress.epochs,
            "diverged": progress.diverged,
            "curve": [asdict(point) for point in progress.curve],
        }
        with replacing(self.path) as part:
            save_file(tensors, part, {"facts": json.dumps(facts)})
        self._last = time.monotonic()

    def read(self) -> Progress | None:
        """What was kept, on the CPU; None if nothing was, or nothing that can be read."""
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
                facts = json.loads(file.metadata()["facts"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            return None  # the member is trained from its start
        parts: dict[str, dict[str, Tensor]] = {"state": {}, "moment": {}}
        for name, tensor in tensors.items():
            kind, _, entry = name.partition(" ")
            parts[kind][entry] = tensor
        return Progress(
            epochs=facts["epochs"],
            state=parts["state"],
            moments=parts["moment"],
            curve=[CurvePoint(**point) for point in facts["curve"]],
            diverged=facts["diverged"],
        )

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
