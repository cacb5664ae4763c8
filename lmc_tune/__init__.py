"""lmc-tune maps where linear mode connectivity holds and where it breaks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; at run time see __getattr__
    from lmc_tune.averaging.measure import measure
    from lmc_tune.averaging.measurement import Measurement
    from lmc_tune.experiment.reading import read_space
    from lmc_tune.run import Run, open_run, sweep
    from lmc_tune.tables.store import load_results

__version__ = "0.1.0"
__all__ = ["Measurement", "Run", "__version__", "load_results", "measure", "open_run", "read_space", "sweep"]

_HOMES = {
    "Measurement": "lmc_tune.averaging.measurement",
    "Run": "lmc_tune.run",
    "load_results": "lmc_tune.tables.store",
    "measure": "lmc_tune.averaging.measure",
    "open_run": "lmc_tune.run",
    "read_space": "lmc_tune.experiment.reading",
    "sweep": "lmc_tune.run",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that `lmc-tune --help` does not pay for pandas, pyarrow and pydantic.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
