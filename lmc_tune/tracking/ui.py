"""The MLflow UI on loopback over a run folder's own store."""

import errno
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from lmc_tune.storage import Place
from lmc_tune.tables.sweep_record import SweepRecord
from lmc_tune.tracking.connection import (
    ARTIFACT_LOCATION,
    ARTIFACT_ROOT,
    ARTIFACTS,
    STORE_FILE,
    TrackingError,
    check_schema,
    own_store,
    sqlite_address,
    track_command,
)
from lmc_tune.tracking.views import view_address

HOST = "127.0.0.1"
_START_SECONDS = 120  # three on an idle machine
_END_SECONDS = 5
# Settings of the user's own MLflow server, and of what MLflow serves it with, would reach this one.
_OF_SERVERS = ("MLFLOW_", "_MLFLOW_", "UVICORN_", "GUNICORN_", "FLASK_")


def serve_ui(
    folder: Place, port: int, say: Callable[[str], None], ready: Callable[[str], object] = lambda _: None
) -> None:
    """Serve the MLflow UI over a run folder's store until Ctrl-C, SIGTERM or a hang-up. For the main thread.

    Args:
        folder: a run folder.
        port: on loopback.
        say: called with news, the address among them.
        ready: called with the address as soon as it answers.

    Raises:
        FileNotFoundError: if the folder is not a run folder.
        TrackingError: if it has no store of its own, the port is taken, or the server does not start or ends by itself.
    """
    command, environment = ui_command(folder, port)
    address = ui_address(folder, port)
    check_port(port)
    asked: list[int] = []  # signals that asked to end; one might come between the server's start and our knowing of it
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:  # nohup's choice stays
            signal.signal(ending, lambda number, _frame: asked.append(number))
    say("starting the MLflow UI...")
    answered, until = False, time.monotonic() + _START_SECONDS
    with _running(command, environment) as server:
        while not asked:
            if server.poll() is not None:
                raise TrackingError(f"the MLflow server ended (exit code {server.returncode}); see above for why")
            if not answered and _answers(port):
                answered = True
                say(f"MLflow UI over {folder}: {address}  (Ctrl-C ends it)")
                ready(address)
            if not answered and time.monotonic() > until:
                raise TrackingError(f"the MLflow server did not answer on port {port} within {_START_SECONDS} s")
            time.sleep(0.1)


def ui_command(folder: Place, port: int = 5000) -> tuple[list[str], dict[str, str]]:
    """The command that opens the MLflow UI on loopback over a run folder's store, and what to add to its environment.

    Raises:
        FileNotFoundError: if the folder is not a run folder.
        TrackingError: if it has no store of its own.
    """
    file = _store_file(folder)
    server = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", HOST, "--port", str(port)]
    store = ["--backend-store-uri", sqlite_address(file), "--serve-artifacts", "--default-artifact-root", ARTIFACT_ROOT]
    command = [*server, *store, "--artifacts-destination", (file.parent / ARTIFACTS).as_uri()]
    return [*command, "--uvicorn-opts", "--log-level warning"], {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Without background jobs it starts in 3 s instead of 10 and takes a quarter of the memory.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # Hosts and origins are checked, whatever the user's environment says of other servers: else a page in the same
        # browser could read and delete runs.
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "localhost,localhost:*,127.0.0.1,127.0.0.1:*",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "",
        "PYTHONWARNINGS": "ignore",  # MLflow's warnings about its dependencies
    }


def ui_address(folder: Place, port: int = 5000) -> str:
    """The page of that UI which lists the sweep's cells with their verdicts; errors as in :func:`ui_command`."""
    server, file = f"http://{HOST}:{port}", _store_file(folder)
    query = "SELECT experiment_id FROM experiments WHERE artifact_location = ? ORDER BY experiment_id DESC"
    try:
        check_schema(folder)
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as store:
            found = store.execute(query, [ARTIFACT_LOCATION]).fetchone()
    except sqlite3.Error as error:
        raise TrackingError(f"{file} cannot be read ({error}); delete it, then {_how_to_make(folder, file)}") from error
    return view_address(server, str(found[0])) if found else server


def _store_file(folder: Place) -> Path:
    file = own_store(folder)
    if file.exists():
        return file
    SweepRecord.read(folder)  # without a sweep, this says so and how to start one
    raise TrackingError(
        f"{folder} holds no MLflow store ({STORE_FILE}): its runs went to another server, or to none; "
        f"{_how_to_make(folder, file)}"
    )


def _how_to_make(folder: Place, file: Path) -> str:
    return f"make one from the tables with: {track_command(folder, sqlite_address(file))}"


def check_port(port: int) -> None:
    """Reject a port that cannot be used: the server itself would end with a log and exit code 0."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            listener.bind((HOST, port))
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            raise TrackingError(f"port {port} on {HOST} {why}; choose another with --port") from error


@contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """The server in its own process group, so that Ctrl-C reaches it only through us; it is always ended."""
    server = subprocess.Popen(  # noqa: S603 - our own command
        command,
        env={name: value for name, value in os.environ.items() if not name.startswith(_OF_SERVERS)} | environment,
        stdout=subprocess.DEVNULL,  # a line per request; errors go to stderr
        process_group=0,
    )
    try:
        yield server
    finally:
        for ending in (signal.SIGTERM, signal.SIGKILL):  # MLflow starts the server proper as a child
            with suppress(ProcessLookupError, PermissionError):  # gone already; the latter on macOS
                os.killpg(server.pid, ending)
            with suppress(subprocess.TimeoutExpired):
                server.wait(_END_SECONDS)


def _answers(port: int) -> bool:
    with closing(HTTPConnection(HOST, port, timeout=5)) as connection:  # passes proxies by
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
