import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmc_tune.record import SweepRecord
from lmc_tune.specs import VerdictSpec
from lmc_tune.store import Store
from lmc_tune.tracking.background import BackgroundMirror
from lmc_tune.tracking.connection import TrackingError
from lmc_tune.tracking.mirror import Sent
from lmc_tune.tracking.track import track
from tests.tracking.cases import pair_result, six_results, write_folder
from tests.tracking.conftest import free_port
from tests.tracking.shown import content, pair_runs, statuses
from tests.tracking.test_mirror import uri_of


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://user:secret@127.0.0.1:{listener.getsockname()[1]}"


def test_what_was_sent_on_the_way_equals_what_is_sent_afterwards(tmp_path, folder, empty_store):
    results, said = six_results(), []
    write_folder(folder, results)
    mirror = BackgroundMirror(folder, SweepRecord.read(folder), say=said.append)
    for result in results:
        mirror.send([result])
    assert mirror.close()
    assert said == []
    other = write_folder(tmp_path / "afterwards", results)
    shutil.copy(empty_store, other)
    track(other)
    assert content(uri_of(other), other / "artifacts") == content(uri_of(folder), folder / "artifacts")
    assert track(folder) == Sent(unchanged=6)


def test_close_sends_what_only_the_tables_know(folder):
    write_folder(folder, six_results())
    mirror = BackgroundMirror(folder, SweepRecord.read(folder))
    mirror.send([pair_result()])
    Store(folder).compact(VerdictSpec(min_train_accuracy=0.995))
    assert mirror.close()
    tags = [run.data.tags["status"] for run in pair_runs(uri_of(folder)).values()]
    assert sorted(tags) == ["diverged", "failed"] + 4 * ["undertrained"]


def test_an_interrupted_sweep_shows_as_killed(folder):
    write_folder(folder, [pair_result()])
    assert BackgroundMirror(folder, SweepRecord.read(folder)).close("KILLED")
    assert statuses(uri_of(folder)) == ["FINISHED", "KILLED"]


def test_a_dead_server_is_told_once_and_caught_up_later(tmp_path, folder):
    run, said = write_folder(tmp_path / "one", six_results()), []
    dead = f"http://user:secret@127.0.0.1:{free_port()}"
    mirror = BackgroundMirror(run, SweepRecord.read(run), dead, say=said.append)
    for result in six_results():
        mirror.send([result])
    assert not mirror.close(patience_seconds=20)
    [message] = said
    assert "cannot be used" in message
    assert f"lmc-tune track {run} --tracking-uri http://127.0.0.1" in message
    assert "secret" not in message
    assert track(run, uri_of(folder)) == Sent(created=6)
    assert track(write_folder(folder, six_results())) == Sent(unchanged=6)


def test_a_server_that_never_answers_blocks_nothing(tmp_path, silent_server):
    run, said = write_folder(tmp_path / "one", six_results()), []
    started = time.monotonic()
    mirror = BackgroundMirror(run, SweepRecord.read(run), silent_server, say=said.append)
    mirror.send(1000 * six_results())
    assert time.monotonic() - started < 2
    assert not mirror.close(patience_seconds=1)
    assert time.monotonic() - started < 10
    [message] = said
    assert "did not answer in time" in message
    assert "secret" not in message


def test_a_dead_server_fails_track_with_one_clear_message(tmp_path):
    run = write_folder(tmp_path / "one", [pair_result()])
    with pytest.raises(TrackingError, match=r"the MLflow server http://127\.0\.0\.1:\d+ cannot be used: .+") as caught:
        track(run, f"http://user:secret@127.0.0.1:{free_port()}")
    assert "secret" not in str(caught.value)


@pytest.mark.slow
def test_the_first_use_prints_nothing_and_leaves_one_whole_store(tmp_path):
    run = write_folder(tmp_path / "one", six_results())
    script = "import sys; from pathlib import Path; from lmc_tune.tracking.track import track; track(Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", script, str(run)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    hidden = [path.name for path in Path(run).iterdir() if path.name.startswith(".")]
    assert hidden == []
