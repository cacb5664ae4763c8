"""The progress of a member on the disk: a lost worker costs minutes of training, and no finished member."""

import json
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from typing import IO, Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lmc_tune.storage import Place, replacing
from lmc_tune.training.progress import CurvePoint, Progress

# Marks moments, and the entries of snapshots behind their epoch; the names of weights have no spaces.
_MOMENT, _SNAPSHOT = "moment ", " epoch "
# What is known of a training besides its result.
_TOLD = ("seconds", "engine", "engine_reason", "device")
# Number of bytes that hold the length of a safetensors file's header.
_LENGTH = 8


@dataclass(kw_only=True)
class Checkpoint:
    """One member's file, written atomically: weights by name, and everything else in the header's metadata.

    path: the file while it is needed, snapshots included. kept: where the finished member may be kept; None if nowhere;
    its snapshots lie next to it, each as a state dict of its own (:func:`snapshot_name`). keep: it is to be.
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
        if not (self.kept and self.keep):
            _write(self.path, progress)
            return
        for epoch, state in progress.snapshots.items():
            then = replace(progress, epochs=epoch, state=state, moments={}, curve=[], diverged="", snapshots={})
            _write(self._snapshot(epoch), then)
        _write(self.kept, replace(progress, snapshots={}))  # last: where it is, they are
        self.remove()

    def read(self, snapshots: Collection[int] = ()) -> Progress | None:
        """The stored progress, on the CPU, with these of its snapshots; None if none can be read.

        A finished member is preferred to one in training, unless it lacks snapshots.
        """
        finished = self.kept and _read(self.kept)
        if finished:
            found = {epoch: _read(self._snapshot(epoch)) for epoch in snapshots}
            finished = replace(finished, snapshots={epoch: then.state for epoch, then in found.items() if then})
            if finished.has(snapshots):
                return finished
        return _read(self.path) or finished or None

    def _snapshot(self, epoch: int) -> Place:
        assert self.kept  # noqa: S101 - asked for by its callers
        return self.kept.parent / f"{snapshot_name(self.kept.stem, epoch)}{self.kept.suffix}"

    def settle(self, progress: Progress) -> None:
        """Keep a member that had finished before, if members are to be kept."""
        if self.kept and self.keep:
            self.finish(progress)

    def remove(self) -> None:
        """Delete the file that is not kept."""
        self.path.unlink(missing_ok=True)


def _write(path: Place, progress: Progress) -> None:
    tensors = progress.state | {f"{_MOMENT}{name}": tensor for name, tensor in progress.moments.items()}
    for epoch, state in progress.snapshots.items():
        tensors |= {f"{epoch}{_SNAPSHOT}{name}": tensor for name, tensor in state.items()}
    facts = {
        "epochs": progress.epochs,
        "diverged": progress.diverged,
        "snapshots": list(progress.snapshots),
        **{name: getattr(progress, name) for name in _TOLD},
        "curve": [asdict(point) for point in progress.curve],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(
            save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"progress": json.dumps(facts)})
        )


def snapshot_name(member: str, epoch: int) -> str:
    """What a snapshot of a member is called."""
    return f"{member}@{epoch}"


def epochs_of(member: Place) -> int:
    """How many epochs a kept member was trained; 0 if its file cannot be read."""
    try:
        with member.open("rb") as file:
            return int(_facts(file)["epochs"])
    except (OSError, KeyError, TypeError, ValueError):
        return 0


def _facts(file: IO[bytes]) -> dict[str, Any]:
    """What is kept of a training besides its tensors."""
    header = json.loads(file.read(int.from_bytes(file.read(_LENGTH), "little")))
    facts: dict[str, Any] = json.loads(header["__metadata__"]["progress"])
    return facts


def _read(path: Place) -> Progress | None:
    try:
        content = path.read_bytes()
        facts, tensors = _facts(BytesIO(content)), load(content)
        moments: dict[str, Tensor] = {
            name.removeprefix(_MOMENT): tensors.pop(name) for name in list(tensors) if name.startswith(_MOMENT)
        }
        snapshots: dict[int, dict[str, Tensor]] = {epoch: {} for epoch in facts.get("snapshots", ())}
        for name in [name for name in tensors if _SNAPSHOT in name]:
            epoch, _, entry = name.partition(_SNAPSHOT)
            snapshots[int(epoch)][entry] = tensors.pop(name)
        return Progress(
            epochs=facts["epochs"],
            state=tensors,
            moments=moments,
            curve=[CurvePoint(**point) for point in facts["curve"]],
            diverged=facts["diverged"],
            snapshots=snapshots,
            **{name: facts[name] for name in _TOLD if name in facts},  # some came later
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None  # the member is trained from its start
