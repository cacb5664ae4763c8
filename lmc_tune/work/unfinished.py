"""An unfinished federation on the disk: a lost worker costs minutes of training, not all rounds."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lmc_tune.models.state import State
from lmc_tune.storage import Place, replacing
from lmc_tune.tables.columns import Row
from lmc_tune.training.federation import Round
from lmc_tune.training.progress import CurvePoint, Progress

_FACTS = ("epochs", "seconds", "engine", "engine_reason", "device")
_LENGTH = 8  # bytes that hold the length of a safetensors file's header


@dataclass(kw_only=True)
class Unfinished:
    """One federation's file, written atomically: where its clients begin the next round, and what was measured so far.

    path: the file. seconds: least time between two writings.
    """

    path: Place
    seconds: float
    _last: float = field(default_factory=time.monotonic)

    def offer(self, found: Round, rows: list[Row], spent: float) -> None:
        """Write a round and all rows so far, if the last writing was long enough ago."""
        if time.monotonic() - self._last < self.seconds:
            return
        common = found.pooled or {}
        tensors = {f"pooled {name}": tensor.contiguous() for name, tensor in common.items()}
        for number, (progress, state) in enumerate(zip(found.trained, found.averaged, strict=True)):
            own = {name: tensor for name, tensor in state.items() if tensor is not common.get(name)}
            for kind, entries in (("state", own), ("moment", progress.moments)):
                tensors |= {f"{number} {kind} {name}": tensor.contiguous() for name, tensor in entries.items()}
        clients = [
            {**{name: getattr(one, name) for name in _FACTS}, "curve": [asdict(point) for point in one.curve]}
            for one in found.trained
        ]
        facts = {"number": found.number, "clients": clients, "rows": rows, "spent": spent}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as file:
            file.write(save(tensors, {"federation": json.dumps(facts)}))
        self._last = time.monotonic()

    def read(self) -> tuple[Round, list[Row], float] | None:
        """The last round that was written, the rows until then, and seconds of measuring; None if there is none."""
        try:
            content = self.path.read_bytes()
            header = json.loads(content[_LENGTH : _LENGTH + int.from_bytes(content[:_LENGTH], "little")])
            facts = json.loads(header["__metadata__"]["federation"])
            tensors = load(content)
            trained, averaged, common = [], list[State](), _those_of("pooled ", tensors)
            for number, client in enumerate(facts["clients"]):
                state = common | _those_of(f"{number} state ", tensors)
                moments = _those_of(f"{number} moment ", tensors)
                curve = [CurvePoint(**point) for point in client["curve"]]
                known = {name: client[name] for name in _FACTS}
                trained.append(Progress(state=state, moments=moments, curve=curve, **known))
                averaged.append(state)
            return Round(number=facts["number"], trained=trained, averaged=averaged), facts["rows"], facts["spent"]
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            return None  # the federation begins at its start

    def remove(self) -> None:
        """Delete the file of a federation that is finished."""
        self.path.unlink(missing_ok=True)


def _those_of(start: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, by the rest of their names."""
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
