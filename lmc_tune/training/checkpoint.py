"""Progress kept between epochs, so that a lost worker costs minutes."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lmc_tune.store import replacing
from lmc_tune.training.progress import CurvePoint, Progress


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
            "seconds": progress.seconds,
            "curve": [asdict(point) for point in progress.curve],
        }
        with replacing(self.path) as part:
            save_file(tensors, part, {"facts": json.dumps(facts)})
        self._last = time.monotonic()

    def read(self) -> Progress | None:
        """What was kept, on the CPU; None if nothing was, or nothing that can be read."""
        if not self.path.exists():
            return None
        parts: dict[str, dict[str, Tensor]] = {"state": {}, "moment": {}}
        try:
            with safe_open(self.path, framework="pt") as file:
                facts = json.loads(file.metadata()["facts"])
                for name in file.keys():  # noqa: SIM118 - not a dict
                    kind, _, entry = name.partition(" ")
                    parts[kind][entry] = file.get_tensor(name)
            return Progress(
                epochs=facts["epochs"],
                state=parts["state"],
                moments=parts["moment"],
                curve=[CurvePoint(**point) for point in facts["curve"]],
                diverged=facts["diverged"],
                seconds=facts["seconds"],
            )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            return None  # the member is trained from its start

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
