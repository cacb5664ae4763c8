"""Progress kept between epochs, so that a lost worker costs minutes."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lmc_tune.storage import Place, replacing
from lmc_tune.training.progress import CurvePoint, Progress


@dataclass(kw_only=True)
class Checkpoint:
    """One member's file: written atomically, seldom enough to cost little.

    seconds: least time between two writings.
    """

    path: Place
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
        tensors["facts"] = torch.frombuffer(bytearray(json.dumps(facts).encode()), dtype=torch.uint8)
        with replacing(self.path) as file:
            file.write(save(tensors))
        self._last = time.monotonic()

    def read(self) -> Progress | None:
        """What was kept, on the CPU; None if nothing was, or nothing that can be read."""
        if not self.path.exists():
            return None
        parts: dict[str, dict[str, Tensor]] = {"state": {}, "moment": {}}
        try:
            tensors = load(self.path.read_bytes())
            facts = json.loads(tensors.pop("facts").numpy().tobytes())
            for name, tensor in tensors.items():
                kind, _, entry = name.partition(" ")
                parts[kind][entry] = tensor
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
