"""Which MLflow store a run folder is mirrored to, and how to reach it quietly.

A store in a SQLite file is *embedded*: artifacts lie beside the file, in the layout that ``mlflow server
--artifacts-destination`` serves, and nothing in the file holds an absolute path, so both can be copied together.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmc_tune.core.errors import UserError
from lmc_tune.tracking.content import one_line

STORE_FILE = "mlflow.db"
ARTIFACTS = "artifacts"
ARTIFACT_ROOT = "mlflow-artifacts:/"
ARTIFACT_LOCATION = f"{ARTIFACT_ROOT}lmc-tune"  # of an experiment, relative to the folder of the artifacts

# A server that does not answer must not hold a sweep up; a user's own values win. Read by MLflow at every request.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


_MLFLOW_PACKAGES = {"mlflow", "requests", "urllib3", "sqlalchemy", "alembic"}


class TrackingError(UserError):
    """The MLflow server or store cannot be used; the message names it, without credentials."""

    exit_code = 1


def tracking_uri(folder: Path, uri: str | None = None) -> str:
    """The store of a run folder: ``uri``, else ``MLFLOW_TRACKING_URI``, else the folder's own SQLite file."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / STORE_FILE}"


def embedded_file(uri: str) -> Path | None:
    """The SQLite file of an embedded store; None for any other store."""
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


def without_credentials(text: str) -> str:
    """``https://user:password@host`` → ``https://host``, wherever it occurs in the text."""
    return re.sub(r"(?<=://)[^\s/'\"]*@", "", text)


def place(uri: str) -> str:
    """The store in words, without credentials."""
    return f"the MLflow {'store' if embedded_file(uri) else 'server'} {without_credentials(uri)}"


def connect(uri: str) -> Any:
    """An ``MlflowClient`` for ``uri``; an embedded store is created first if its file is missing.

    Nothing is sent yet: a server that is down is noticed at the first request.
    """
    prepare_environment()
    from mlflow import MlflowClient  # noqa: PLC0415 - takes over a second, and the environment comes first

    # Server-side table upgrades and HTTP retries are MLflow's own business: our callers report what matters, once.
    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    file = embedded_file(uri)
    if file is not None:
        _create_store(file)
    return MlflowClient(uri)


def prepare_environment() -> None:
    """Set what MLflow reads from the environment; the user's own values of time-outs and retries stay."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # stdout belongs to --json
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)


@contextmanager
def errors_of(uri: str) -> Iterator[None]:
    """Turn the many kinds of errors of MLflow and what it stands on into :class:`TrackingError`; others pass."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in _MLFLOW_PACKAGES:
            raise
        reason = one_line(without_credentials(str(error))) or type(error).__name__
        # Without the cause: its message may hold credentials.
        raise TrackingError(f"{place(uri)} cannot be used: {reason}") from None


def _create_store(file: Path) -> None:
    """Create the tables under another name first: a store that is killed half-made would never open again."""
    if file.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # noqa: PLC0415

    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        # The artifact root ends up in the default experiment, where the client would write an absolute path.
        store: Any = SqlAlchemyStore(f"sqlite:///{part}", ARTIFACT_ROOT)  # type: ignore[no-untyped-call]
        store.engine.dispose()
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
