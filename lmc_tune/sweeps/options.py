"""How a sweep is run."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lmc_tune.sweeps.search import SearchName
from lmc_tune.work.bench import Device

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a sweep is run; none of it changes a result.

    folders: the first in which factories are looked for, here and in the workers.
    address: of a Ray cluster; None for this machine. max_hours: the sweep then ends as if it were interrupted.
    """

    data_root: Path
    folders: tuple[str, ...] = ()
    workers: int | None = None
    device: Device = "auto"
    address: str | None = None
    tracking_uri: str | None = None
    search: SearchName = "grid"
    max_pairs: int | None = None
    max_hours: float | None = None
    report: bool = True
