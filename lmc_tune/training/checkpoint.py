"""The progress of a member on the disk: a lost worker costs minutes of training, and no finished member."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lmc_tune.storage import Place, replacing
from lmc_tune.training.progress import CurvePoint, Progress

# Marks moments; the names of weights have no spaces.
_MOMENT = "moment "
# What is known of a training besides its result.
_TOLD = ("seconds", "engine", "engine_reason", "device")
# Number of bytes that hold the length of a safetensors file's header.
_LENGTH = 8


@dataclass(kw_only=True)
class Checkpoint:
    """One member's file, written atomically: weights by name, and everything else in the header's metadata.

    path: the file while it is needed. kept: where the finished member may be kept; None if nowhere. keep: it is to be.
    seconds: least time between two writings in training.
    """

    path: Place
    seconds: float
    kept: Place | None = None
    keep: bool = True
    _last: float = field(default_factory=time.monotonic)

    def offer(self, make: Callable[[], Progress]) -> None:
        """Write the result of ``make`` if the last writing was long enough ago."""
        if time.monotonic() - self._last < self.seconds:
            return
        _write(self.path, make())
        self._last = time.monotonic()

    def finish(self, progress: Progress) -> None:
        """Keep a finished member."""
        _write(self.kept if self.kept and self.keep else self.path, progress)
        if self.kept and self.keep:
            self.remove()

    def read(self) -> Progress | None:
        """The stored progress, on the CPU; None if there is none, or none that can be read."""
        return (_read(self.kept) if self.kept else None) or _read(self.path)

    def settle(self, progress: Progress) -> None:
        """Keep a member that had finished before, if members are to be kept."""
        if self.kept and self.keep:
            self.finish(progress)

    def remove(self) -> None:
        """Delete the file that is not kept."""
        self.path.unlink(missing_ok=True)


def _write(path: Place, progress: Progress) -> None:
    tensors = progress.state | {f"{_MOMENT}{name}": tensor for name, tensor in progress.moments.items()}
    facts = {
        "epochs": progress.epochs,
        "diverged": progress.diverged,
        **{name: getattr(progress, name) for name in _TOLD},
        "curve": [asdict(point) for point in progress.curve],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(
            save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"progress": json.dumps(facts)})
        )


def _read(path: Place) -> Progress | None:
    try:
        content = path.read_bytes()
        header = json.loads(content[_LENGTH : _LENGTH + int.from_bytes(content[:_LENGTH], "little")])
        facts = json.loads(header["__metadata__"]["progress"])
        tensors = load(content)
        moments: dict[str, Tensor] = {
            name.removeprefix(_MOMENT): tensors.pop(name) for name in list(tensors) if name.startswith(_MOMENT)
        }
        return Progress(
            epochs=facts["epochs"],
            state=tensors,
            moments=moments,
            curve=[CurvePoint(**point) for point in facts["curve"]],
            diverged=facts["diverged"],
            **{name: facts[name] for name in _TOLD if name in facts},  # some came later
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None  # the member is trained from its start
