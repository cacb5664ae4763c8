import re
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from sqlite3 import connect
from traceback import format_exception

import pytest
from sqlalchemy import create_engine
from typer.testing import CliRunner

from lmc_tune.cli.commands import app
from lmc_tune.tracking import connection
from lmc_tune.tracking.connection import AddressError, TrackingError, check, errors_of, without_credentials
from lmc_tune.tracking.mirror import Sent
from lmc_tune.tracking.track import track
from tests.tracking.cases import pair_result, write_folder
from tests.tracking.conftest import free_port, serving
from tests.tracking.shown import chart_text, pair_runs, run_line


@pytest.mark.parametrize(
    ("uri", "advice"),
    [
        ("localhost:5000", r"the tracking URI localhost:5000 has no scheme; write http://localhost:5000$"),
        (
            "me:secret@10.0.0.1:5000/ml",
            r"the tracking URI 10\.0\.0\.1:5000/ml has no scheme; write http://10\.0\.0\.1:",
        ),
        ("htp://x:5000", r"MLflow knows no tracking URI that begins with htp:; write http://HOST:PORT for a server"),
        ("some/mlruns", r"some/mlruns is a folder, .* write sqlite:////.*/some/mlruns/mlflow\.db for a store"),
        ("file:///some/mlruns", r"is a folder, .* write sqlite:////some/mlruns/mlflow\.db for a store"),
    ],
)
def test_an_address_that_cannot_work_is_refused_with_one_that_can(uri, advice):
    with pytest.raises(AddressError, match=advice) as caught:
        check(uri)
    assert caught.value.exit_code == 2
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    ["http://localhost:5000", "https://me:pw@host:5000/ml", "postgresql://me:pw@host:5432/ml", "databricks", "uc:x"],
)
def test_an_address_that_may_work_is_left_to_mlflow(uri):
    check(uri)


def test_a_folder_is_left_to_mlflow_where_its_user_says_so(monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    check("some/mlruns")


def test_a_file_that_can_be_written_is_not_touched(tmp_path):
    check(f"sqlite:///{tmp_path}/new/mlflow.db")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("file", ["/proc/x.db", "notes.txt/x.db", "folder"])
def test_a_file_that_cannot_be_written_is_refused(tmp_path, file):
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "folder").mkdir()
    with pytest.raises(TrackingError, match=r"the MLflow store sqlite:///.* cannot be written \(.+\); choose another"):
        check(f"sqlite:///{tmp_path / file}")


def test_a_file_of_another_kind_is_refused_and_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(TrackingError, match=r"notes\.txt is not an SQLite file"):
        check(f"sqlite:///{tmp_path}/notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "notes"


@pytest.fixture
def busy_server() -> Iterator[str]:
    """Answers 503 to everything, as a proxy does before a server that is down."""

    class Busy(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(503)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_dead_server_fails_track_with_one_short_sentence(tmp_path):
    run, port = write_folder(tmp_path / "one", [pair_result()]), free_port()
    with pytest.raises(TrackingError) as caught:
        track(run, f"http://user:secret@127.0.0.1:{port}")
    assert str(caught.value) == f"the MLflow server http://127.0.0.1:{port} does not answer (connection refused)"


def test_a_silent_server_fails_track_with_one_short_sentence(tmp_path, silent_server, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with pytest.raises(
        TrackingError, match=r"^the MLflow server http://127\.0\.0\.1:\d+ does not answer \(timed out\)$"
    ):
        track(write_folder(tmp_path / "one", [pair_result()]), silent_server)


def test_a_busy_server_fails_track_with_one_short_sentence(tmp_path, busy_server):
    with pytest.raises(TrackingError, match=r"^the MLflow server .* does not answer \(too many 503 error responses\)$"):
        track(write_folder(tmp_path / "one", [pair_result()]), busy_server)


def test_a_missing_database_driver_is_named(tmp_path):
    uri = "postgresql+nosuchdriver://me:secret@127.0.0.1:9/ml"
    with pytest.raises(TrackingError, match="nosuchdriver") as caught:
        track(write_folder(tmp_path / "one", [pair_result()]), uri)
    assert "secret" not in str(caught.value)


def test_credentials_are_never_told():
    uri = "http://user:p%40ss@127.0.0.1:9/x"
    assert without_credentials(f"at {uri} and {uri}") == "at http://127.0.0.1:9/x and http://127.0.0.1:9/x"
    for uri, told in (
        ("http://me:it's@host:5000/x", "http://host:5000/x"),
        ("http://me:a@b@host:5000", "http://host:5000"),
        ('https://me:"quoted"@host', "https://host"),
        ("postgresql://me:sl/ash@host:5432/ml", "postgresql://host:5432/ml"),
        ("postgresql://host/ml?user=me&password=pa55&x=1", "postgresql://host/ml?user=me&password=…&x=1"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("http://host:5000", "http://host:5000"),
    ):
        assert without_credentials(f"at {uri}, {uri}") == f"at {told}, {told}"
        again = without_credentials(shlex.join(["lmc-tune", "track", "run", "--tracking-uri", uri]))
        assert (again.count("@"), "pa55" in again) == (told.count("@"), False)
    uri = "http://user:p%40ss@127.0.0.1:9/x"
    with pytest.raises(TrackingError, match=r"the MLflow server http://127\.0\.0\.1:9/x ") as caught:  # noqa: SIM117
        with errors_of(uri):
            raise OSError(f"no route to {uri}")
    assert "p%40ss" not in "".join(format_exception(caught.value))


@pytest.mark.slow
def test_a_server_with_passwords_gets_them_from_the_environment(tmp_path, monkeypatch):
    """As docs/cluster.md says it is started, by the real one."""
    pytest.importorskip("flask_wtf")
    (tmp_path / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///{tmp_path}/users.db\n"
        "admin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--backend-store-uri", f"sqlite:///{tmp_path}/m.db"]
    command += ["--serve-artifacts", "--artifacts-destination", f"{tmp_path}/artifacts"]
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": "a-long-pa55word",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "for forms",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    run, server = write_folder(tmp_path / "one", [pair_result()]), f"http://127.0.0.1:{port}"
    with serving(command, environment, port):
        for user, password in (("", ""), ("admin", "another")):
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
            with pytest.raises(TrackingError, match=f"the MLflow server {server} cannot be used"):
                track(run, server)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a-long-pa55word")
        assert track(run, server) == Sent(created=1)
        assert track(run, server) == Sent(unchanged=1)


def test_errors_of_our_own_are_not_blamed_on_the_server():
    with pytest.raises(KeyError), errors_of("http://127.0.0.1:9"):
        raise KeyError("lr")


def test_track_refuses_a_file_that_cannot_be_written(tmp_path):
    run = write_folder(tmp_path / "one", [pair_result()])
    with pytest.raises(TrackingError, match="cannot be written"):
        track(run, f"sqlite:///{run}/report.html/x.db")


def tables(file: Path) -> dict[str, tuple[list, list]]:
    """By name, the columns in no order, and the rows without times."""
    with closing(connect(file)) as store:
        names = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {name: sorted(row[1:4] for row in store.execute(f"PRAGMA table_info('{name}')")) for name in names}
        kept = {
            name: ", ".join(f'"{column}"' for column, *_ in columns[name] if not column.endswith("time"))
            for name in names
        }
        return {name: (columns[name], list(store.execute(f"SELECT {kept[name]} FROM '{name}'"))) for name in names}  # noqa: S608


def test_stores_are_copies_of_an_empty_one_that_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first, second, third = (tmp_path / name / "mlflow.db" for name in "abc")
    for file in (first, second, third):
        file.parent.mkdir()
    connection._create_store(first)
    kept = connection.empty_store()
    assert kept.read_bytes() == first.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(connection, "_make_tables", lambda file: pytest.fail(f"{file} was made anew"))
        connection._create_store(second)
    assert second.read_bytes() == first.read_bytes()
    for content in (b"", b"damaged", kept.read_bytes()[:5000]):
        kept.write_bytes(content)
        connection._create_store(third)
        assert tables(third) == tables(first) == tables(kept)
        third.unlink()


def test_a_kept_store_of_another_mlflow_is_not_copied(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    connection._create_store(tmp_path / "first.db")
    with closing(connect(connection.empty_store())) as store, store:
        store.execute("UPDATE alembic_version SET version_num = 'older'")
    connection._create_store(tmp_path / "second.db")
    assert tables(tmp_path / "second.db") == tables(tmp_path / "first.db")


def test_without_a_cache_folder_every_store_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    for name in ("first.db", "second.db"):
        connection._create_store(tmp_path / name)
    assert tables(tmp_path / "first.db") == tables(tmp_path / "second.db")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.db", "second.db"]


def test_a_store_that_another_process_made_meanwhile_is_left_alone(tmp_path, monkeypatch):
    from mlflow.store.tracking import sqlalchemy_store

    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    file = tmp_path / "shared.db"

    class Slow(sqlalchemy_store.SqlAlchemyStore):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            file.write_bytes(b"SQLite format 3\0 in use by the other")

    monkeypatch.setattr(sqlalchemy_store, "SqlAlchemyStore", Slow)
    connection._create_store(file)
    assert file.read_bytes().endswith(b"in use by the other")
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("name", ["does it connect?", "a%41 b", "50% #1", "plain"])
def test_a_store_is_where_its_folder_is_whatever_the_folders_name(tmp_path, name):
    folder = tmp_path / name / "run"
    uri = connection.tracking_uri(write_folder(folder, [pair_result()]))
    assert connection.embedded_file(uri) == folder / connection.STORE_FILE
    assert track(folder) == Sent(created=1)
    assert track(folder, uri) == Sent(unchanged=1)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert [path.name for path in (tmp_path / name).iterdir()] == ["run"]
    assert (folder / connection.STORE_FILE).stat().st_size > 0


def test_an_address_with_escapes_or_options_names_its_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in (f"sqlite:///{tmp_path}/m.db?timeout=9", "sqlite:///~/m.db", f"sqlite+pysqlite:///{tmp_path}/m.db"):
        assert connection.embedded_file(text) == tmp_path / "m.db"
    run = write_folder(tmp_path / "run", [pair_result()])
    monkeypatch.chdir(tmp_path)
    assert track(run, "sqlite:///~/m.db") == Sent(created=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifacts", "m.db", "run"]


def test_settings_of_the_users_server_do_not_reach_an_embedded_store(folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    assert track(write_folder(folder, [pair_result()])) == Sent(created=1)


def test_a_store_of_a_newer_mlflow_is_made_again_as_it_is_told(folder):
    run = write_folder(folder, [pair_result()])
    with closing(connect(run / connection.STORE_FILE)) as store, store:
        store.execute("UPDATE alembic_version SET version_num = 'f00dfeedbead'")
    told = []
    for look in (connection.check_schema, track):
        with pytest.raises(TrackingError, match=r"by a newer MLflow than .*; install a newer one, or delete ") as error:
            look(run)
        told.append(str(error.value))
    assert told[0] == told[1]
    file, command = re.search(r"delete (\S+) and .* with: (.+)$", told[0]).groups()
    Path(file).unlink()
    assert run_line(command).stdout == "1 runs created, 0 updated, 0 already there\n"


def test_a_store_of_a_newer_mlflow_that_others_may_use_is_not_to_be_deleted(tmp_path, folder):
    with closing(connect(folder / connection.STORE_FILE)) as store, store:
        store.execute("UPDATE alembic_version SET version_num = 'f00dfeedbead'")
    with pytest.raises(TrackingError, match=r"by a newer MLflow .*; install a newer one$"):
        track(write_folder(tmp_path / "one", [pair_result()]), f"sqlite:///{folder}/{connection.STORE_FILE}")


@pytest.mark.slow
def test_runs_in_another_file_are_shown_with_their_charts_as_it_is_told(tmp_path):
    run, uri = write_folder(tmp_path / "one", [pair_result()]), f"sqlite:///{tmp_path}/shared/mlflow.db"
    done = CliRunner().invoke(app, ["track", str(run), "--tracking-uri", uri])
    command = shlex.split(done.stderr.removeprefix("show these runs with: "))
    assert command[:2] == ["mlflow", "server"]
    port = free_port()
    with serving(
        [sys.executable, "-m", *command, "--port", str(port)], {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, port
    ):
        [shown] = pair_runs(f"http://127.0.0.1:{port}").values()
        assert "polyline" in chart_text(f"http://127.0.0.1:{port}", shown, None)


@pytest.mark.slow
def test_a_store_of_an_older_mlflow_is_updated_as_it_is_told(tmp_path):
    """With the tables of the MLflow of one revision ago."""
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base

    run = write_folder(tmp_path, [pair_result()])
    uri = connection.tracking_uri(run)
    engine = create_engine(uri)
    Base.metadata.create_all(engine)
    engine.dispose()
    command.upgrade(_get_alembic_config(uri), "heads-1")
    with pytest.raises(
        TrackingError, match=r"was written by an older MLflow than .*; update it with: mlflow db"
    ) as error:
        connection.check_schema(run)
    run_line(str(error.value).rpartition("update it with: ")[2])
    connection.check_schema(run)
    assert track(run) == Sent(created=1)
