"""What a run folder says of its sweep beside the tables."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Self

from lmc_tune.errors import UserError
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.storage import Place, write_text
from lmc_tune.tables.planned import why_no_run

SWEEP_FILE = "sweep.json"
REPORT_FILE = "report.html"


class DamagedRecordError(UserError):
    """``sweep.json`` cannot be read; the message names the file and how to fix it."""


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """The content of ``sweep.json``.

    id: made once; with a pair's key it identifies the pair's run in MLflow. planned_pairs, workers and search are those
    of the latest call, versions those of the packages it ran with. ended: the :func:`fingerprint` of the space whose
    search has ended; empty before.
    """

    id: str
    name: str
    created: str = ""
    planned_pairs: int | None = None
    workers: int = 1
    versions: Mapping[str, str] = field(default_factory=dict)
    search: str = ""
    ended: str = ""

    @classmethod
    def read(cls, folder: Place) -> Self:
        """The record of a run folder.

        Raises:
            FileNotFoundError: if the folder has none.
            DamagedRecordError: if it cannot be read.
        """
        path = folder / SWEEP_FILE
        if not path.exists():
            raise FileNotFoundError(f"no sweep in {folder}: {SWEEP_FILE} is missing{why_no_run(folder)}")
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise DamagedRecordError(
                f"{path} is damaged ({error}); restore it from a copy, or delete it and run the sweep again: it then "
                f"gets a new id in MLflow"
            ) from error

    def has_ended(self, space: SearchSpace) -> bool:
        """Whether the search of the latest call wants no more pairs of this space, and none of those it wanted failed.

        Planned pairs without a result are then left out, not pending.
        """
        return self.ended == fingerprint(space)

    def write(self, folder: Place) -> None:
        """Write it, atomically."""
        write_text(folder / SWEEP_FILE, json.dumps(asdict(self), indent=2) + "\n")


def fingerprint(space: SearchSpace) -> str:
    """A hash of everything that a search depends on: the space without its name and what is kept of members."""
    content = {key: value for key, value in space.plain().items() if key not in ("name", "members")}
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()
