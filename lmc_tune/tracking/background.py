"""The mirror of a running sweep: it never blocks, never raises, and says once if MLflow cannot be reached."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from lmc_tune.errors import UserError
from lmc_tune.storage import Place
from lmc_tune.tables.rows import PairResult
from lmc_tune.tables.sweep_record import SweepRecord
from lmc_tune.tracking import connection
from lmc_tune.tracking.mirror import Mirror, open_mirror
from lmc_tune.tracking.runs import EndStatus
from lmc_tune.tracking.track import send_all

_RETRY_SECONDS = 60.0


class BackgroundMirror:
    """Sends results from a thread of its own, in which MLflow is also imported and its store opened.

    A failure costs nothing but the window: results that could not be sent are in the tables, and :meth:`close` sends
    what is missing if MLflow answers by then.
    """

    def __init__(
        self, folder: Place, sweep: SweepRecord, uri: str | None = None, say: Callable[[str], None] = print
    ) -> None:
        self._folder = folder
        self._sweep = sweep
        self._uri = connection.tracking_uri(folder, uri)
        self._say = say
        self._said = False
        self._speaking = threading.Lock()
        self._queue: queue.SimpleQueue[PairResult | EndStatus] = queue.SimpleQueue()
        self._mirror: Mirror | None = None
        self._closed_until = 0.0
        self._last_progress = time.monotonic()
        self._complete = False
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="mlflow mirror", daemon=True)
        self._thread.start()

    def send(self, results: Sequence[PairResult]) -> None:
        """Queue finished pairs; returns at once."""
        for result in results:
            self._queue.put(result)

    def close(
        self, status: EndStatus = "FINISHED", *, patience_seconds: float = 30, limit_seconds: float = 600
    ) -> bool:
        """Send what is missing from the tables, then the report, and end the parent run.

        Call it when the tables are compacted and the report is written. Waits no longer than ``limit_seconds``, nor
        than ``patience_seconds`` without any progress; if the sweep did not finish, ``patience_seconds`` in all.

        Args:
            status: KILLED if the sweep was interrupted.
            patience_seconds: give up on a server that does not answer for so long.
            limit_seconds: the most to wait in all.

        Returns:
            True if MLflow now shows everything that the tables hold.
        """
        self._closing = True
        self._queue.put(status)
        self._last_progress = started = time.monotonic()
        until = started + (limit_seconds if status == "FINISHED" else patience_seconds)
        while self._thread.is_alive():
            now = time.monotonic()
            left = min(until, self._last_progress + patience_seconds) - now
            if left <= 0:
                self._warn(f"{connection.place(self._uri)} did not answer in time")
                return False
            self._thread.join(min(left, 0.5))
        return self._complete

    def _work(self) -> None:
        # MLflow is imported when there is something to send: until then the cores are busy starting the workers.
        while True:
            item = self._queue.get()
            if isinstance(item, str):
                self._complete = self._attempt(partial(self._finish, item), last=True)
                return
            if not self._closing:  # results that are not sent by then are sent from the tables
                self._attempt(partial(self._send, item))

    def _send(self, result: PairResult) -> None:
        self._open().send(result)

    def _open(self) -> Mirror:
        if self._mirror is None:
            self._mirror = open_mirror(self._folder, self._sweep, self._uri)
            self._progress()
        return self._mirror

    def _finish(self, status: EndStatus) -> None:
        mirror = self._open()
        if status != "FINISHED":  # first, in case there is no time for the rest
            mirror.end(status)
        send_all(mirror, self._folder, status, self._progress)
        if self._said:
            self._say("MLflow can be reached again and shows every result; nothing needs to be re-sent.")

    def _attempt(self, work: Callable[[], object], *, last: bool = False) -> bool:
        """Run ``work`` unless MLflow failed a short while ago. Whatever fails here is re-sent from the tables later."""
        if not last and time.monotonic() < self._closed_until:
            return False
        try:
            with connection.errors_of(self._uri, self._folder):
                work()
        except Exception as error:  # noqa: BLE001 - nothing that happens to the window may reach the sweep
            self._mirror = None
            self._closed_until = time.monotonic() + _RETRY_SECONDS
            self._warn(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
            return False
        self._progress()
        return True

    def _progress(self) -> None:
        self._last_progress = time.monotonic()

    def _warn(self, reason: str) -> None:
        """Say once what is wrong and how to fix it; both threads may call this."""
        with self._speaking:
            if self._said:
                return
            self._said = True
        self._say(
            f"{reason[:1].upper()}{reason[1:]}. The run folder keeps everything; send it later with: "
            f"{connection.track_command(self._folder, self._uri)}"
        )
