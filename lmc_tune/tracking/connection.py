"""Which MLflow store a run folder is mirrored to, and how to reach it quietly.

A store in a SQLite file is *embedded*: artifacts lie beside the file, in the layout that ``mlflow server
--artifacts-destination`` serves, and nothing in the file holds an absolute path, so both can be copied together.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from lmc_tune.errors import UserError
from lmc_tune.storage import BucketPath, Place
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

_USER = re.compile(r"(?<=://)(?:[^\s/?#]*|[^\s/:@]*:[^\s@]*)@")
_MLFLOW_PACKAGES = {"mlflow", "requests", "urllib3", "sqlalchemy", "alembic"}
_SCHEMES = {"http", "https", "sqlite", "postgresql", "mysql", "mssql"}
_DATABRICKS = {"databricks", "databricks-uc", "uc"}


class TrackingError(UserError):
    """The MLflow server or store cannot be used; the message names it, without credentials."""

    exit_code = 1


class AddressError(TrackingError):
    """No server or store can ever be at this address."""

    exit_code = UserError.exit_code


def tracking_uri(folder: Place, uri: str | None = None) -> str:
    """The store of a run folder: ``uri``, else ``MLFLOW_TRACKING_URI``, else the folder's own SQLite file."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{own_store(folder)}"


def own_store(folder: Place) -> Path:
    """The SQLite file of a run folder; of one in a bucket, where SQLite cannot work, below ``runs`` on this machine."""
    here = (
        Path("runs", *re.split("[:/]+", folder.root), *folder.path.parts) if isinstance(folder, BucketPath) else folder
    )
    return here.resolve() / STORE_FILE


def embedded_file(uri: str) -> Path | None:
    """The SQLite file of an embedded store; None for any other store."""
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


def without_credentials(text: str) -> str:
    """``https://user:password@host`` → ``https://host``, wherever it occurs in the text; ``?password=`` is cut as well.

    Rather too much than too little: a password may hold quotes and, of a database, slashes.
    """
    return re.sub(r"(?i)([?&](?:password|passwd|pwd|odbc_connect)=)[^\s&]*", r"\1…", _USER.sub("", text))


def place(uri: str) -> str:
    """The store in words, without credentials."""
    return f"the MLflow {'store' if embedded_file(uri) else 'server'} {without_credentials(uri)}"


def check(uri: str) -> None:
    """Refuse at once what can never work; MLflow would try a file that cannot be written for minutes.

    Whether a server answers is not asked, and MLflow is not imported.

    Raises:
        AddressError: if ``uri`` is no address of a store, or its SQLite file cannot be written.
    """
    if bare := re.fullmatch(r"(?:[^\s/]*@)?([\w.-]+:\d+(?:/\S*)?)", uri):
        raise AddressError(f"the tracking URI {bare[1]} has no scheme; write http://{bare[1]}")
    if uri.startswith("file:") or (":" not in uri and uri not in _DATABRICKS):
        _refuse_folder(uri)
    elif not _is_known(scheme := re.split("[:+]", uri)[0]):
        raise AddressError(
            f"MLflow knows no tracking URI that begins with {scheme}:; write http://HOST:PORT for a server, or "
            f"sqlite:////FOLDER/{STORE_FILE}"
        )
    if file := embedded_file(uri):
        _check_file(file, place(uri))


def _is_known(scheme: str) -> bool:
    plugins = entry_points(group="mlflow.tracking_store", name=scheme)
    return scheme in _SCHEMES or scheme in _DATABRICKS or bool(plugins)


def connect(uri: str) -> Any:
    """An ``MlflowClient`` for ``uri``; an embedded store is created first if its file is missing.

    Nothing is sent yet: a server that is down is noticed at the first request.

    Raises:
        TrackingError: as :func:`check`.
    """
    check(uri)
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
        known = isinstance(error, OSError | ImportError)  # a database's driver may be missing
        if not known and type(error).__module__.split(".")[0] not in _MLFLOW_PACKAGES:
            raise
        # Without the cause: its message may hold credentials.
        raise TrackingError(f"{place(uri)} {without_credentials(_what_failed(error))}") from None


def _what_failed(error: Exception) -> str:
    """Of a request without an answer only the innermost reason: the messages around it repeat it in many words."""
    root: BaseException = error
    while inner := root.__cause__ or root.__context__:
        root = inner
    if root is not error and (isinstance(root, OSError) or type(root).__module__.startswith("urllib3")):
        reason = one_line(getattr(root, "strerror", None) or str(root))
        return f"does not answer ({reason[:1].lower()}{reason[1:]})"
    return f"cannot be used: {one_line(str(error)) or type(error).__name__}"


def _refuse_folder(uri: str) -> None:
    if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1"):
        return
    file = Path(re.sub("^file:(//)?", "", uri)).resolve() / STORE_FILE
    raise AddressError(
        f"the tracking URI {uri} is a folder, and MLflow no longer keeps runs in plain folders; write sqlite:///{file} "
        f"for a store in that folder, or http://HOST:PORT for a server"
    )


def _check_file(file: Path, where: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=file.parent):  # SQLite keeps a journal beside its file
            pass
        start = b""
        if file.exists():
            with file.open("r+b") as opened:
                start = opened.read(16)
    except OSError as error:
        raise AddressError(
            f"{where} cannot be written ({error.strerror}); choose another file, or mend the permissions"
        ) from error
    if start not in (b"", b"SQLite format 3\0"):
        raise AddressError(f"{where} is not an SQLite file; choose another")


def _create_store(file: Path) -> None:
    """Create the tables under another name first: a store that is killed half-made would never open again."""
    if file.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # noqa: PLC0415

    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        # The artifact root ends up in the default experiment, where the client would write an absolute path.
        store: Any = SqlAlchemyStore(f"sqlite:///{part}", ARTIFACT_ROOT)  # type: ignore[no-untyped-call]
        store.engine.dispose()
        with suppress(FileExistsError):  # another process was faster: its store is in use by now
            os.link(part, file)
    finally:
        part.unlink(missing_ok=True)
