"""The MLflow UI as its user meets it: a real server over a run folder, a real browser, the tool's own address."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from sqlite3 import connect
from urllib.request import urlopen

import psutil
import pytest
from playwright.sync_api import Browser, Frame, Page, expect, sync_playwright

from lmc_tune.experiment import Pair, TrainChanges
from lmc_tune.tables.sweep_record import SweepRecord
from lmc_tune.tracking.connection import STORE_FILE, TrackingError
from lmc_tune.tracking.directions import directions_page
from lmc_tune.tracking.planes import planes_page
from lmc_tune.tracking.track import track
from lmc_tune.tracking.ui import serve_ui, ui_address, ui_command
from lmc_tune.tracking.views import CELLS_VIEW, PAIRS_VIEW
from tests.tracking.cases import direction_rows, pair_result, pair_spec, plane_rows, six_results, write_folder
from tests.tracking.conftest import free_port, serving
from tests.tracking.shown import cell_runs, chart_text, pair_runs, parents

CHROMIUM = Path("/usr/bin/chromium")


def test_a_run_folder_without_a_store_is_told_how_to_get_one(tmp_path):
    run = write_folder(tmp_path / "my run", [pair_result()])
    with pytest.raises(TrackingError, match=r"holds no MLflow store .* lmc-tune track '.*/my run' .*mlflow\.db'$"):
        ui_command(run)


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_without_a_sweep_is_told_how_to_start_one(tmp_path, made):
    folder = tmp_path if made else tmp_path / "nowhere"
    with pytest.raises(FileNotFoundError, match=rf"no sweep in {folder}.*start one with: lmc-tune sweep SPACE"):
        ui_command(folder)


def test_a_damaged_store_is_told_how_to_be_made_anew(tmp_path):
    run = write_folder(tmp_path / "run", [pair_result()])
    (run / STORE_FILE).write_text("notes")
    with pytest.raises(TrackingError, match=r"mlflow\.db cannot be read \(.*\); delete it, then .* lmc-tune track"):
        ui_address(run)


def test_a_port_in_use_is_named_before_anything_starts(folder):
    said: list[str] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(TrackingError, match=rf"^port {port} on 127\.0\.0\.1 is in use; choose another with --port"):
            serve_ui(folder, port, said.append)
    assert said == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "signals"),
    [
        ("starting", [signal.SIGINT]),
        ("MLflow UI over", [signal.SIGINT, signal.SIGINT]),
        ("MLflow UI over", [signal.SIGTERM]),
    ],
)
def test_the_address_is_told_when_it_answers_and_ctrl_c_ends_everything(folder, line, signals):
    port = free_port()
    with ui(folder, port) as running:
        told = next(text for text in running.stderr if text.startswith(line))
        if "http://" in told:
            assert f"http://127.0.0.1:{port}" in told
            assert urlopen(f"http://127.0.0.1:{port}/health").status == 200
        for each in signals:
            running.send_signal(each)
        assert "Traceback" not in running.stderr.read()
        assert running.wait() == 0
    left = [process for process in psutil.process_iter(["cmdline"]) if str(port) in (process.info["cmdline"] or [])]
    assert left == []


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--no-browser",)])
def test_the_browser_opens_its_page_unless_that_is_not_wanted(folder, tmp_path, monkeypatch, options):
    opened, browser = tmp_path / "opened", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    with ui(folder, port := free_port(), *options) as running:
        told = next(text for text in running.stderr if text.startswith("MLflow UI over"))
        running.send_signal(signal.SIGINT)
        assert running.wait() == 0
    assert opened.exists() == (not options)
    if not options:
        assert opened.read_text().startswith(f"http://127.0.0.1:{port}")
        assert f": {opened.read_text().strip()}  (Ctrl-C" in told


@pytest.mark.slow
def test_only_this_machine_can_reach_it_and_no_page_of_another_site(folder, monkeypatch):
    """Whatever the user's environment says of servers for others."""
    for name in ("ALLOWED_HOSTS", "CORS_ALLOWED_ORIGINS"):
        monkeypatch.setenv(f"MLFLOW_SERVER_{name}", "*")
    monkeypatch.setenv("MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE", "true")
    monkeypatch.setenv("MLFLOW_HOST", "0.0.0.0")  # noqa: S104
    port = free_port()

    def status(method: str = "GET", **headers: str) -> int:
        """Of a request for the list of experiments, as a browser sends it for the page of some site."""
        path, body = "/api/2.0/mlflow/experiments/search", '{"max_results": 9}' if method == "POST" else None
        with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            connection.request(
                method, path if body else f"{path}?max_results=9", body, {"Content-Type": "application/json", **headers}
            )
            return connection.getresponse().status

    with ui(folder, port) as running:
        assert any("MLflow UI over" in line for line in running.stderr)
        processes = [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]
        sockets = [each for process in processes for each in process.net_connections(kind="inet")]
        waiting = {each.laddr for each in sockets if each.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)}
        assert waiting == {("127.0.0.1", port)}
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", "localhost"):  # the latter through a tunnel
            assert status(Host=host) == status("POST", Host=host, Origin=f"http://{host}") == 200
        for host in (f"evil.example:{port}", "10.0.0.1", "127.0.0.1.evil.example", f"localhost.evil.example:{port}"):
            assert status(Host=host) == 403
        for origin in ("http://evil.example", f"https://evil.example:{port}", "null"):
            assert status("POST", Origin=origin) == 403


def test_a_store_of_a_newer_mlflow_is_named_before_anything_starts(folder):
    with closing(connect(folder / STORE_FILE)) as store, store:
        store.execute("UPDATE alembic_version SET version_num = 'f00dfeedbead'")
    said: list[str] = []
    with pytest.raises(TrackingError, match=r"was written by a newer MLflow than .* lmc-tune track"):
        serve_ui(folder, free_port(), said.append)
    assert said == []


@pytest.mark.slow
def test_settings_of_the_users_own_server_do_not_reach_it(folder, monkeypatch):
    for name, value in (
        ("MLFLOW_STATIC_PREFIX", "/mlflow"),
        ("MLFLOW_GUNICORN_OPTS", "--timeout 120"),
        ("MLFLOW_BACKEND_STORE_URI", "sqlite:////elsewhere.db"),
        ("_MLFLOW_STATIC_PREFIX", "/mlflow"),
        ("UVICORN_ROOT_PATH", "/mlflow"),
        ("UVICORN_SSL_KEYFILE", "/nowhere.pem"),
    ):
        monkeypatch.setenv(name, value)
    track(write_folder(folder, [pair_result()]))
    port = free_port()
    with ui(folder, port) as running:
        assert any("MLflow UI over" in line for line in running.stderr)
        assert len(pair_runs(f"http://127.0.0.1:{port}")) == 1


@pytest.mark.slow
def test_runs_and_artifacts_of_a_folder_of_any_name_are_shown(tmp_path):
    run = write_folder(tmp_path / "does it connect? 50%41 #1", [pair_result()])
    track(run)
    port = free_port()
    with ui(run, port) as running:
        assert any(f"MLflow UI over {run}: http" in line for line in running.stderr)
        [shown] = pair_runs(f"http://127.0.0.1:{port}").values()
        assert "polyline" in chart_text(f"http://127.0.0.1:{port}", shown, None)
    assert [path.name for path in tmp_path.iterdir()] == [run.name]


@pytest.mark.slow
def test_a_server_that_ends_before_it_answers_is_a_failure(folder):
    with closing(connect(folder / STORE_FILE)) as store, store:
        store.execute("DELETE FROM alembic_version")
    with ui(folder, free_port()) as running:
        said = running.stderr.read()
        assert "MLflow UI over" not in said
        assert said.endswith("the MLflow server ended (exit code 1); see above for why\n")
        assert running.wait() == 1


@contextmanager
def ui(folder: Path, port: int, *options: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "lmc_tune", "ui", str(folder), "--port", str(port), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Fifteen mirrored pairs, in a folder that was moved afterwards, under the command of ``lmc-tune ui``."""
    differs = pair_spec().model_copy(update={"recipe": Pair(b=TrainChanges(lr=0.3))})
    more = [pair_result(pair_spec(lr=0.01, replicate=replicate), height=0.005) for replicate in range(4)]
    more += [
        pair_result(pair_spec(lr=lr, replicate=replicate), height=2 * lr) for lr in (0.03, 0.1) for replicate in (2, 3)
    ]
    made = write_folder(tmp_path_factory.mktemp("made") / "run", [*six_results(), pair_result(differs), *more])
    track(made)
    folder = tmp_path_factory.mktemp("moved") / "run"
    shutil.move(made, folder)
    port = free_port()
    with serving(*ui_command(folder, port), port):
        yield ui_address(folder, port), folder


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1500, "height": 900})
    page.set_default_timeout(30_000)
    expect.set_options(timeout=30_000)
    yield page
    page.close()


def picture(page: Page, name: str) -> None:
    """Keep a screenshot where ``LMC_TUNE_PICTURES`` names a folder."""
    if folder := os.environ.get("LMC_TUNE_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def first_run(folder: Path, key: str | None = None) -> str:
    runs = pair_runs(f"sqlite:///{folder}/mlflow.db")
    return str(runs["5eed0001", key or pair_spec(lr=0.1).key].info.run_id)


@pytest.mark.slow
def test_it_opens_with_the_cells_and_their_verdicts(page, served):
    page.set_viewport_size({"width": 1800, "height": 900})  # columns out of sight are not drawn
    page.goto(served[0])
    expect(page.get_by_text("6 matching runs")).to_be_visible()
    expect(page.get_by_role("link", name="lr=0.1 batch=32 label 80/20 mlp 64", exact=True)).to_be_visible()
    for column in ("verdict", "mean_barrier", "low", "high", "n_ok"):
        expect(page.get_by_role("columnheader", name=column, exact=True).first).to_be_attached()
    for verdict, count in (("connected", 1), ("disconnected", 2), ("diverged", 1)):
        expect(page.get_by_role("gridcell", name=verdict, exact=True)).to_have_count(count)
    picture(page, "cells")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("metrics.lr > 0.1", "4 matching runs"),  # two cells with a pair each
        ("tags.verdict = 'disconnected'", "2 matching runs"),
        ("tags.kind = 'pair' and metrics.barrier > 0.1", "5 matching runs"),
    ],
)
def test_a_rate_a_verdict_and_a_barrier_are_found(page, served, search, found):
    page.goto(served[0])
    expect(page.get_by_text("6 matching runs")).to_be_visible()
    page.get_by_test_id("search-box").fill(search)
    page.get_by_test_id("search-box").press("Enter")
    expect(page.get_by_text(found)).to_be_visible()


@pytest.mark.slow
def test_the_table_lists_the_pairs_with_their_barriers(page, served):
    page.set_viewport_size({"width": 1800, "height": 900})
    page.goto(served[0].replace(CELLS_VIEW, PAIRS_VIEW))
    for name in (
        "lr=0.03 batch=32 label 80/20 #1",
        "lr=0.1 batch=32 label 80/20 #0",
        "lr=0.03 batch=32 b.lr=0.3 label 80/20 #0",
    ):
        expect(page.get_by_role("link", name=name)).to_be_visible()
    expect(page.get_by_text("15 matching runs")).to_be_visible()
    for column in ("barrier", "lr", "b_lr", "shift_label", "status"):
        expect(page.get_by_role("columnheader", name=column, exact=True).first).to_be_attached()
    expect(page.get_by_role("columnheader", name="b_momentum", exact=True)).to_have_count(0)  # no run has it
    picture(page, "table")


@pytest.mark.slow
def test_the_chart_view_draws_all_pairs_under_the_titles_it_was_given(page, served):
    """MLflow itself shows the first ten, and names a chart after its metrics."""
    page.set_viewport_size({"width": 1500, "height": 2000})  # charts out of sight are not drawn
    page.goto(served[0].replace(CELLS_VIEW, PAIRS_VIEW))
    expect(page.get_by_text("15 matching runs")).to_be_visible()
    page.goto(f"{page.url}&compareRunsMode=CHART")
    for title in ("Barrier by learning rate", "Test error, step: λ in %", "Settings and barrier"):
        expect(page.get_by_text(title)).to_be_visible()
    scatter, lines = (page.locator(".js-plotly-plot").nth(at) for at in range(2))
    expect(scatter.locator(".scatterlayer path.point")).to_have_count(13)  # all with a barrier
    expect(scatter.locator(".xtitle")).to_have_text("log10_lr")
    expect(lines.locator(".scatterlayer path.js-line")).to_have_count(2 * 13)  # MLflow draws each twice
    assert lines.locator(".xtick text").all_text_contents()[-1] == "100"
    expect(page.locator(".parcoords .dimension")).to_have_count(2)
    picture(page, "charts")


@pytest.mark.slow
def test_the_chart_view_of_cells_draws_every_mean(page, served):
    page.set_viewport_size({"width": 1500, "height": 1500})
    page.goto(served[0])
    expect(page.get_by_text("6 matching runs")).to_be_visible()
    page.goto(f"{page.url}&compareRunsMode=CHART")
    expect(page.get_by_text("Mean barrier by learning rate")).to_be_visible()
    expect(page.locator(".js-plotly-plot").first.locator(".scatterlayer path.point")).to_have_count(4)
    picture(page, "cell-charts")


@pytest.mark.slow
def test_pairs_are_nested_in_cells_and_cells_in_the_sweep_that_says_the_answer(page, served):
    address, folder = served
    uri = f"sqlite:///{folder}/mlflow.db"
    [sweep], cells = parents(uri), cell_runs(uri)
    page.goto(f"{address.split('?')[0]}/{sweep.info.run_id}")
    expect(page.get_by_text("Of 6 cells, 1 is connected, 2 disconnected, 2 undecided and 1 diverged.")).to_be_visible()
    cell = cells[pair_spec(lr=0.1).cell]
    page.get_by_role("link", name="lr=0.1 batch=32 label 80/20 mlp 64", exact=True).click()
    expect(page.get_by_text(cell.info.run_id).first).to_be_visible()
    for replicate in (0, 1):
        expect(page.get_by_role("link", name=f"lr=0.1 batch=32 label 80/20 #{replicate} mlp 64")).to_be_visible()
    picture(page, "cell")


@pytest.mark.slow
def test_the_interpolation_chart_is_live_inside_the_ui(page, served):
    address, folder = served
    runs_page = address.split("?")[0]
    page.goto(f"{runs_page}/{first_run(folder)}/artifacts/interpolation.html")
    frame = chart_frame(page)
    assert "ok" in frame.locator("h1").inner_text()
    assert frame.locator("polyline").count() == 4
    frame.locator("svg").first.get_by_text("λ", exact=True).hover()  # stands below λ = ½
    for caption in frame.locator("figcaption").all():
        expect(caption).to_contain_text("λ = 0.500")
    expect(frame.locator("figcaption").first).to_contain_text("test 31 %")
    picture(page, "interpolation")
    page.goto("about:blank")  # the UI keeps the artifact that is shown while only the part after # changes
    page.goto(f"{runs_page}/{first_run(folder)}/artifacts/learning.html")
    frame = chart_frame(page, heading="during training")
    assert frame.locator("polyline").count() == 8
    frame.locator("svg").first.get_by_text("10", exact=True).hover()
    expect(frame.locator("figcaption").first).to_contain_text("epoch = 10.0")
    picture(page, "learning")


@pytest.mark.slow
def test_values_of_a_plane_and_of_directions_are_read_under_the_pointer(page):
    around = replace(pair_result(), tables={"planes": plane_rows(), "directions": direction_rows()})
    page.set_content(planes_page(around, "x"))
    start = page.locator("circle.point").nth(2)  # of the first map, at a point of the grid
    start.hover()
    captions = [caption.inner_text() for caption in page.locator("figcaption").all()]
    assert captions == ["at 1.00, 3.00: 10 %", "at 1.00, 3.00: 1.1 nats"]
    page.goto("about:blank")  # for a script of its own
    page.set_content(directions_page(around, "x"))
    page.locator("svg").first.get_by_text("#2", exact=True).hover()
    captions = [caption.inner_text() for caption in page.locator("figcaption").all()]
    assert captions[0] == "layer #2 head, towards the other member 33 %, random directions 3 %"
    assert set(captions[2:]) == {"Point at the chart to read values."}, "panels of other axes stay as they are"


@pytest.mark.slow
def test_a_hostile_name_is_text_in_the_ui(page, folder):
    hostile = '<img src=x onerror=alert(1)><script>alert(2)</script>{{7*7}} "onload=alert(3)'
    pairs = [
        replace(pair_result(), columns={**pair_result().columns, "status": "failed", "reason": f"{hostile}\n{hostile}"})
    ]
    write_folder(folder, pairs)
    replace(SweepRecord.read(folder), name=hostile).write(folder)
    track(folder)
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    port = free_port()
    with serving(*ui_command(folder, port), port):
        page.goto(ui_address(folder, port))
        expect(page.get_by_text(hostile).first).to_be_attached()
        expect(page.get_by_text("1 matching run")).to_be_visible()
        page.goto(ui_address(folder, port).replace(CELLS_VIEW, PAIRS_VIEW))
        expect(page.get_by_text("1 matching run")).to_be_visible()
        page.goto(f"{ui_address(folder, port).split('?')[0]}/{first_run(folder, pair_result().key)}")
        expect(page.get_by_text(hostile).first).to_be_attached()
        page.goto(f"{page.url}/artifacts/interpolation.html")
        page.wait_for_selector("iframe")
        frame = page.frame_locator("iframe")
        expect(frame.locator("pre")).to_contain_text(hostile)
    assert dialogs == []


def chart_frame(page: Page, heading: str = "along the path") -> Frame:
    page.wait_for_selector("iframe")
    for _ in range(100):
        for frame in page.frames:
            if frame.locator("h2").filter(has_text=heading).count() == 2:
                return frame
        page.wait_for_timeout(100)
    raise AssertionError("no frame holds the chart")
