"""Object storage on this machine: a real S3 server, and a wire to it that can be cut."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection

import pytest

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def s3_server(bucket: str) -> Iterator[int]:
    """An S3 server in a process of its own, with an empty bucket, and credentials for it; its port on loopback."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    try:
        until = time.monotonic() + 60
        while not _answers(port):
            assert server.poll() is None, "the S3 server ended"
            assert time.monotonic() < until, "the S3 server does not answer"
            time.sleep(0.1)
        make_bucket(port, bucket)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in CREDENTIALS.items():
                patch.setenv(name, value)
            yield port
    finally:
        server.kill()
        server.wait()


def make_bucket(port: int, name: str) -> None:
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("PUT", f"/{name}", headers={"Host": f"127.0.0.1:{port}"})
        assert connection.getresponse().status == 200


def address(port: int, path: str) -> str:
    """``s3://`` address of a folder on the server at a port."""
    return f"s3://{path}?scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("GET", "/moto-api/")
            return connection.getresponse().status == 200
    except OSError:
        return False


@dataclass
class Wire:
    """Passes connections on to a port of this machine, until it is cut; then ends them and refuses others.

    passed: bytes sent to the server so far.
    """

    to: int
    port: int = 0
    passed: int = 0
    _listener: socket.socket | None = None
    _open: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mend()

    def mend(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port, self._listener = listener.getsockname()[1], listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        """End the open connections in the middle of what they say."""
        assert self._listener
        # A listener that another thread waits in is not closed before somebody calls.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                return
            self._open += [near, far]
            threading.Thread(target=self._pump, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket, towards: bool) -> None:  # noqa: FBT001
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
                if towards:
                    self.passed += len(data)
            other.shutdown(socket.SHUT_WR)
