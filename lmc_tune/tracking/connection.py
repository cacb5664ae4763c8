"""Which MLflow store a run folder is mirrored to, and how to reach it quietly.

A store in a SQLite file is *embedded*: artifacts lie next to the file, in the layout that ``mlflow server
--artifacts-destination`` serves, and nothing in the file holds an absolute path, so both can be copied together.
"""

import logging
import os
import re
import shlex
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.metadata import distribution, entry_points, version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import quote, unquote

from lmc_tune.core.home import cache_folder, expanded
from lmc_tune.errors import UserError
from lmc_tune.storage import BucketPath, Place, replacing, what_fails
from lmc_tune.tracking.content import one_line

STORE_FILE = "mlflow.db"
ARTIFACTS = "artifacts"
ARTIFACT_ROOT = "mlflow-artifacts:/"
ARTIFACT_LOCATION = f"{ARTIFACT_ROOT}lmc-tune"  # of an experiment, relative to the folder of the artifacts

# A server that does not answer must not delay a sweep; a user's own values win. MLflow reads these at every request.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}

_USER = re.compile(r"(?<=://)(?:[^\s/?#]*|[^\s/:@]*:[^\s@]*)@")
_MLFLOW_PACKAGES = {"mlflow", "requests", "urllib3", "sqlalchemy", "alembic"}
_OTHER_SCHEMA = re.compile(r"out-of-date database schema \(found version ([0-9a-f]+)")
_SQLITE = re.compile(r"sqlite(\+pysqlite)?:///")
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
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or sqlite_address(own_store(folder))


def own_store(folder: Place) -> Path:
    """The SQLite file of a run folder; for a bucket, where SQLite cannot work, it is below ``runs`` on this machine."""
    here = (
        Path("runs", *re.split("[:/]+", folder.root), *folder.path.parts) if isinstance(folder, BucketPath) else folder
    )
    return here.resolve() / STORE_FILE


def sqlite_address(file: Path) -> str:
    """The address of an SQLite file, with which SQLAlchemy and MLflow find exactly this file."""
    if not set("?%#") & set(str(file)):
        return f"sqlite:///{file}"
    from sqlalchemy import URL  # noqa: PLC0415 - takes time, and is seldom needed

    # SQLAlchemy 2.1 escapes a file's name once more, 2.0 does not; of sqlite:/// MLflow would make the escaped folder.
    parts = URL.create("sqlite+pysqlite", database=f"file:{quote(str(file))}", query={"uri": "true"})
    return parts.render_as_string()


def embedded_file(uri: str) -> Path | None:
    """The SQLite file of an embedded store; None for any other store."""
    if not (sqlite := _SQLITE.match(uri)):
        return None
    if not set("?%") & set(uri):
        return expanded(uri[sqlite.end() :]).resolve()
    from sqlalchemy import make_url  # noqa: PLC0415

    parts = make_url(uri)
    name = parts.database or ""
    return expanded(unquote(name.removeprefix("file:")) if "uri" in parts.query else name).resolve()


def server_command(file: Path) -> str:
    """MLflow's command that shows an embedded store with its artifacts."""
    artifacts = (file.parent / ARTIFACTS).as_uri()
    return shlex.join(
        ["mlflow", "server", "--backend-store-uri", sqlite_address(file), "--artifacts-destination", artifacts]
    )


def track_command(folder: Place, uri: str) -> str:
    """The command that sends a run folder to a store, without credentials."""
    return shlex.join(["lmc-tune", "track", str(folder), "--tracking-uri", without_credentials(uri)])


def without_credentials(text: str) -> str:
    """``https://user:password@host`` → ``https://host``, wherever it occurs in the text; ``?password=`` is cut as well.

    It cuts too much rather than too little: a password may contain quotes and, for a database, slashes.
    """
    return re.sub(r"(?i)([?&](?:password|passwd|pwd|odbc_connect)=)[^\s&]*", r"\1…", _USER.sub("", text))


def place(uri: str) -> str:
    """The store in words, without credentials."""
    return f"the MLflow {'store' if embedded_file(uri) else 'server'} {without_credentials(uri)}"


def check(uri: str) -> None:
    """Reject at once an address that can never work; MLflow would retry an unwritable file for minutes.

    This does not ask whether a server answers, and does not import MLflow.

    Raises:
        AddressError: if ``uri`` is not the address of a store, or its SQLite file cannot be written.
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

    # MLflow logs table upgrades and HTTP retries; our callers report once what matters.
    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # And whole tracebacks where a store fails, as on a full disk.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    file = embedded_file(uri)
    if file is not None:
        os.environ["MLFLOW_ENABLE_WORKSPACES"] = "false"  # whatever is set for servers
        _create_store(file)
        if "?" not in uri:  # a ~ or an escaped letter means another file to parts of MLflow
            uri = sqlite_address(file)
    return MlflowClient(uri)


def prepare_environment() -> None:
    """Set what MLflow reads from the environment; the user's own values of time-outs and retries stay."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # stdout belongs to --json
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)


@contextmanager
def errors_of(uri: str, folder: Place | None = None) -> Iterator[None]:
    """Turn the many kinds of errors of MLflow and its dependencies into :class:`TrackingError`; others pass.

    folder: the run folder that is sent, whose own store can be rebuilt.
    """
    try:
        yield
    except Exception as error:
        known = isinstance(error, OSError | ImportError)  # a database's driver may be missing
        if not known and type(error).__module__.split(".")[0] not in _MLFLOW_PACKAGES:
            raise
        if found := _OTHER_SCHEMA.search(str(error)):
            raise TrackingError(_schema_problem(found[1], uri, folder)) from None
        # Without the cause: its message may hold credentials.
        raise TrackingError(f"{place(uri)} {without_credentials(_what_failed(error))}") from None


def check_schema(folder: Place) -> None:
    """Reject a run folder's own store if another version of MLflow wrote it; MLflow is not imported.

    Raises:
        TrackingError: naming the command that makes the store usable.
        sqlite3.Error: if the file cannot be read.
    """
    file = own_store(folder)
    found = _revision(file)
    if found and found not in _schemas()[1]:
        raise TrackingError(_schema_problem(found, sqlite_address(file), folder))


def _revision(file: Path) -> str | None:
    """Which revision of MLflow's tables an SQLite file has."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as store:
        found = store.execute("SELECT version_num FROM alembic_version").fetchone()
    return found and str(found[0])


def _schema_problem(found: str, uri: str, folder: Place | None) -> str:
    known, _ = _schemas()
    store, installed = f"{place(uri)} was written by", f"MLflow than {version('mlflow')}, which is installed here"
    if found in known:
        command = shlex.join(["mlflow", "db", "upgrade", without_credentials(uri)])
        return f"{store} an older {installed}; update it with: {command}"
    again = ""
    if folder is not None and (file := own_store(folder)) == embedded_file(uri):
        again = f", or delete {file} and make it again from the tables with: {track_command(folder, uri)}"
    return f"{store} a newer {installed}; install a newer one{again}"


def _schemas() -> tuple[set[str], set[str]]:
    """The revisions of its tables that the installed MLflow knows, and the latest."""
    known, earlier = set(), set[str]()
    versions = Path(str(distribution("mlflow").locate_file("mlflow/store/db_migrations/versions")))
    for file in versions.glob("[0-9a-f]*_*.py"):
        known.add(file.name.partition("_")[0])
        earlier |= set(re.findall(r"^down_revision\b.*[\"'](\w+)", file.read_text(encoding="utf-8"), re.MULTILINE))
    return known, known - earlier


def _what_failed(error: Exception) -> str:
    """For an unanswered request, only the innermost reason: the messages around it repeat it in many words."""
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
    file = expanded(re.sub("^file:(//)?", "", uri)).resolve() / STORE_FILE
    raise AddressError(
        f"the tracking URI {uri} is a folder, and MLflow no longer keeps runs in plain folders; write "
        f"{sqlite_address(file)} for a store in that folder, or http://HOST:PORT for a server"
    )


def _check_file(file: Path, where: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=file.parent):  # SQLite keeps a journal next to its file
            pass
        start = b""
        if file.exists():
            with file.open("r+b") as opened:
                start = opened.read(16)
    except OSError as error:
        raise AddressError(
            f"{where} cannot be written ({what_fails(file, error)}); choose another file, or change that"
        ) from error
    if start not in (b"", b"SQLite format 3\0"):
        raise AddressError(f"{where} is not an SQLite file; choose another")


def _create_store(file: Path) -> None:
    """Create the tables under another name first: a store that is killed half-made would never open again.

    MLflow makes them by all of its migrations, one after the other, which takes seconds; nothing in an empty store is
    of its folder, so a copy of the first one is kept, and the next stores are copies of it.
    """
    if file.exists():
        return
    part, kept = file.with_name(f".{file.name}.{os.getpid()}.part"), empty_store()
    try:
        if _is_current(kept):
            shutil.copyfile(kept, part)
        else:
            _make_tables(part)
            with suppress(OSError):  # without a cache folder, every store is made so
                kept.parent.mkdir(parents=True, exist_ok=True)
                with replacing(kept) as copy:
                    copy.write(part.read_bytes())
        with suppress(FileExistsError):  # another process was faster: its store is in use by now
            os.link(part, file)
    finally:
        part.unlink(missing_ok=True)


def empty_store() -> Path:
    """Where the tables of a store without runs are kept, for the installed MLflow."""
    return cache_folder() / f"mlflow-{version('mlflow')}.db"


def _is_current(file: Path) -> bool:
    """Whether it is a store with the tables of the installed MLflow."""
    try:
        return _revision(file) in _schemas()[1]
    except sqlite3.Error:
        return False


def _make_tables(file: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # noqa: PLC0415

    # The artifact root ends up in the default experiment, where the client would write an absolute path.
    store: Any = SqlAlchemyStore(sqlite_address(file), ARTIFACT_ROOT)  # type: ignore[no-untyped-call]
    store.engine.dispose()
