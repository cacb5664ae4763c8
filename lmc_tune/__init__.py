"""lmc-tune maps where linear mode connectivity holds and where it breaks."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_results", "read_space"]


def __getattr__(name: str) -> Any:
    # Lazy, so that `lmc-tune --help` does not pay for pandas, pyarrow and pydantic.
    if name == "load_results":
        from lmc_tune.tables.store import load_results  # noqa: PLC0415

        return load_results
    if name == "read_space":
        from lmc_tune.experiment.reading import read_space  # noqa: PLC0415

        return read_space
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
