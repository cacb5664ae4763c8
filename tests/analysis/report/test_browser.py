"""The page in a real browser without a network: drawn, answering the pointer, and silent on the console."""

import json
import shutil
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from lmc_tune.analysis import phase
from lmc_tune.analysis.report.charts import curves, points
from lmc_tune.analysis.report.charts import style as charts
from lmc_tune.analysis.report.compare import render_comparison
from lmc_tune.analysis.report.render import render
from lmc_tune.experiment import ShiftSpec
from lmc_tune.experiment.reading import parse_space
from lmc_tune.experiment.space import SearchSpace
from tests.analysis.cases import (
    COVARIATE,
    NETWORKS,
    failed_pair,
    grid,
    measured_pair,
    networks_space,
    realistic_pair,
    space_of,
    write_run,
)
from tests.analysis.layered import layered_pair
from tests.analysis.measured import Measured
from tests.analysis.report.test_render import HOSTILE, embedded

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium or Chrome on the PATH"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


class Visit:
    """A page opened offline, with everything that it complained of or asked the network for."""

    def __init__(
        self, browser: Browser, path: Path, *, width: int = 1280, colours: str = "light", at: str = ""
    ) -> None:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, offline=True, color_scheme=colours, accept_downloads=True
        )
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri() + at)
        self.page.wait_for_selector("body[data-ready]", timeout=60_000)

    def marks(self, chart: str, kind: str) -> int:
        return self.page.locator(f"#{chart} svg .{kind} path").count()

    def curves(self) -> list[dict]:
        return self.page.evaluate("window.report.views.curves.data('curves')")

    @property
    def shown(self) -> str | None:
        return self.page.get_attribute("#cell", "data-cell")

    @property
    def pinned(self) -> bool:
        return self.page.get_attribute("#cell", "data-pinned") == "true"

    def signal(self, name: str, chart: str = "phase") -> str:
        return self.page.evaluate("([chart, name]) => window.report.views[chart].signal(name)", [chart, name])

    def settle(self) -> None:
        self.page.evaluate("window.report.settled()")

    def cell(self, verdict: str) -> str:
        """A cell of this verdict."""
        cells = self.page.evaluate("window.report.page.cells")
        return next(key for key, cell in cells.items() if cell["verdict"] == verdict)

    def place_of(self, cell: str, chart: str = "phase") -> tuple[float, float]:
        """The middle of the cell's first mark, scrolled into the window."""
        x, y = self.page.evaluate(
            """([chart, cell]) => {
                const marks = [...document.querySelectorAll(`#${chart} svg path`)];
                const mark = marks.find((mark) => mark.__data__?.datum?.cell === cell);
                mark.scrollIntoView({ block: "center" });
                const box = mark.getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2];
            }""",
            [chart, cell],
        )
        return x, y

    def point_at(self, cell: str, chart: str = "phase") -> None:
        where = self.place_of(cell, chart)
        self.page.mouse.move(0, 0)
        self.page.mouse.move(*where)
        self.page.wait_for_selector(f"#cell[data-cell='{cell}']", timeout=10_000)
        self.settle()

    def click(self, cell: str) -> None:
        self.point_at(cell)
        self.page.mouse.click(*self.place_of(cell))
        self.page.wait_for_selector(f"#cell[data-cell='{cell}'][data-pinned='true']", timeout=10_000)
        self.settle()

    def texts(self, kind: str, chart: str = "phase") -> list[str]:
        return self.page.locator(f"#{chart} svg .{kind} text").all_text_contents()

    def outside(self, selector: str) -> list[str]:
        """Elements that reach beyond the window to the right, except inside of what scrolls."""
        return self.page.evaluate(
            """(selector) => [...document.querySelectorAll(selector)]
                .filter((element) => element.getBoundingClientRect().right > innerWidth + 0.5)
                .map((element) => element.outerHTML.slice(0, 80))""",
            selector,
        )


@pytest.fixture(scope="module")
def visit(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    folder = write_run(tmp_path_factory.mktemp("run"), grid(replicates=3))
    return Visit(browser, render(folder)[0])


def test_all_charts_are_drawn(visit: Visit) -> None:
    assert visit.marks("phase", "mark-rect") >= 2 * 36
    assert visit.page.locator("#phase svg .mark-rule line").count() >= 2 * 2 * 6  # a line and its halo, on two maps
    assert visit.marks("noise", "mark-symbol") >= 20
    assert visit.marks("curves", "mark-line") >= 4
    assert visit.page.locator("#cell-table tbody tr").count() == 36


def test_pointing_at_a_tile_shows_its_curves_and_numbers(visit: Visit) -> None:
    cells = visit.page.evaluate("window.report.page.cells")
    connected = next(key for key, cell in cells.items() if cell["verdict"] == "connected")
    before, drawn = visit.curves(), visit.page.locator("#curves svg").inner_html()
    visit.point_at(connected)
    after = visit.curves()
    assert [row["mean"] for row in after] != [row["mean"] for row in before]
    assert [row["mean"] for row in after if row["split"] == "test" and row["quantity"] == "error"] == cells[connected][
        "curves"
    ]["test_error"][0]
    assert visit.page.locator("#curves svg").inner_html() != drawn
    assert visit.page.locator("#cell-verdict").inner_text() == "connected"
    assert visit.page.locator("#cell-place").inner_text() == cells[connected]["place"]
    visit.page.wait_for_selector("#vg-tooltip-element.visible")
    assert "mean barrier" in visit.page.locator("#vg-tooltip-element").inner_text()


def test_the_tooltip_covers_little(visit: Visit) -> None:
    visit.point_at(visit.page.evaluate("window.report.page.picked"))
    visit.page.wait_for_selector("#vg-tooltip-element.visible")
    assert visit.page.locator("#vg-tooltip-element tr").count() <= 4


def test_pointing_shows_a_cell_for_as_long_as_the_pointer_is_on_it(visit: Visit) -> None:
    own = visit.page.evaluate("window.report.page.picked")
    connected = visit.cell("connected")
    visit.point_at(connected)
    assert (visit.signal("picked"), visit.signal("shown")) == (own, connected)
    visit.page.mouse.move(2, 2)
    visit.page.wait_for_selector(f"#cell[data-cell='{own}']")


def test_a_click_pins_and_neither_pointing_nor_scrolling_nor_the_way_to_the_panel_changes_it(visit: Visit) -> None:
    pinned, other = visit.cell("connected"), visit.cell("undecided")
    visit.click(pinned)
    assert visit.page.url.endswith(f"#cell={pinned}")
    visit.page.mouse.move(*visit.place_of(other), steps=3)
    visit.settle()
    assert (visit.signal("picked"), visit.signal("shown"), visit.pinned) == (pinned, pinned, True)
    panel = visit.page.locator("#cell-place").bounding_box()
    assert panel
    visit.page.mouse.move(panel["x"] + 5, panel["y"] + 5, steps=25)
    visit.page.wait_for_selector(f"#cell[data-cell='{pinned}'][data-pinned='true']")
    visit.page.mouse.move(*visit.place_of(pinned))
    for _ in range(4):
        visit.page.mouse.wheel(0, 60)
        visit.page.wait_for_timeout(60)
    visit.settle()
    assert (visit.shown, visit.pinned) == (pinned, True)
    for free in (lambda: visit.page.keyboard.press("Escape"), lambda: visit.page.mouse.click(*visit.place_of(pinned))):
        free()
        visit.page.mouse.move(2, 2)
        visit.settle()
        assert visit.shown == visit.page.evaluate("window.report.page.picked")
        assert not visit.pinned
        assert "#" not in visit.page.url
        visit.click(pinned)
    visit.page.keyboard.press("Escape")
    visit.settle()


def test_on_a_phone_a_tap_or_an_address_brings_the_cell_into_view(browser: Browser, visit: Visit) -> None:
    cell = visit.cell("undecided")
    path = Path(visit.page.evaluate("decodeURIComponent(location.pathname)"))
    phone = Visit(browser, path, width=390, at=f"#cell={cell}")
    in_sight = """(() => {
        const { top, bottom } = document.getElementById("cell").getBoundingClientRect();
        return bottom > 0 && top < innerHeight;
    })()"""
    assert phone.page.evaluate(in_sight)
    phone.page.keyboard.press("Escape")
    phone.page.evaluate("scrollTo(0, 0)")
    phone.page.mouse.click(*phone.place_of(phone.cell("connected")))
    phone.page.wait_for_selector("#cell[data-pinned='true']")
    phone.settle()
    assert phone.page.evaluate(in_sight)
    row = phone.page.locator("#cell-table tbody tr").nth(8)
    row.scroll_into_view_if_needed()
    row.locator("td").nth(2).click()
    phone.page.wait_for_selector(f"#cell[data-cell='{row.get_attribute('data-cell')}'][data-pinned='true']")
    phone.settle()
    assert phone.page.evaluate(in_sight)
    assert phone.complaints == []


def test_on_paper_no_column_of_the_cells_is_cut_off(browser: Browser, visit: Visit, tmp_path: Path) -> None:
    ours, theirs = (write_run(tmp_path / name) for name in ("ours", "theirs_with_a_rather_long_name"))
    comparison = render_comparison(ours, theirs)[0][0]
    path = Path(visit.page.evaluate("decodeURIComponent(location.pathname)"))
    landscape = (297 - 2 * 14) / 25.4 * 96  # A4 without its margins
    for file in (path, comparison):
        page = Visit(browser, file).page
        page.emulate_media(media="print")
        page.set_viewport_size({"width": int(landscape), "height": 700})
        assert page.evaluate("document.getElementById('cell-table').scrollWidth") <= landscape + 1


def test_a_tile_that_comes_under_a_pointer_at_rest_is_not_shown(visit: Visit) -> None:
    visit.page.evaluate(
        "addEventListener('pointermove', ({ screenX, screenY }) => (window.rests = { screenX, screenY }))"
    )
    visit.point_at(visit.cell("connected"))
    before = visit.shown
    send = """([cell, by]) => {
        const marks = [...document.querySelectorAll("#phase svg path")];
        const at = { screenX: window.rests.screenX + by, screenY: window.rests.screenY, bubbles: true };
        marks.find((mark) => mark.__data__?.datum?.cell === cell).dispatchEvent(new PointerEvent("pointermove", at));
    }"""  # as browsers do while a page scrolls
    other = visit.cell("undecided")
    visit.page.evaluate(send, [other, 0])
    visit.settle()
    assert visit.shown == before
    visit.page.evaluate(send, [other, 1])
    visit.settle()
    assert visit.shown == other
    visit.page.mouse.move(2, 2)


def test_the_keyboard_moves_pins_and_frees(visit: Visit) -> None:
    def place() -> dict:
        places = visit.page.evaluate("[...window.report.picking.places.values()]")
        return next(tile for tile in places if tile["cell"] == visit.shown)

    visit.page.mouse.move(2, 2)
    visit.page.locator("#phase").focus()
    own = visit.shown
    start = place()
    visit.page.keyboard.press("ArrowLeft")
    visit.settle()
    left = place()
    assert (left["y"], left["panel"]) == (start["y"], start["panel"])
    assert left["x"] < start["x"]
    assert visit.signal("picked") == own
    visit.page.keyboard.press("Enter")
    visit.settle()
    assert (visit.pinned, visit.signal("picked")) == (True, left["cell"])
    place_said, verdict_said = (visit.page.locator(f"#cell-{part}").inner_text() for part in ("place", "verdict"))
    assert visit.page.locator("#said").text_content() == f"{place_said}: {verdict_said}, pinned"
    visit.page.keyboard.press("ArrowDown")
    visit.settle()
    below = place()
    assert (below["x"], below["y"] < left["y"], visit.pinned) == (left["x"], True, True)
    for _ in range(4):  # on to the lower map
        visit.page.keyboard.press("ArrowDown")
    visit.settle()
    assert place()["panel"] == visit.page.evaluate("[...window.report.picking.places.values()].at(-1).panel")
    visit.page.keyboard.press("Escape")
    visit.settle()
    assert (visit.shown, visit.pinned) == (own, False)


def test_an_address_names_a_cell(browser: Browser, visit: Visit) -> None:
    cell = visit.cell("undecided")
    path = Path(visit.page.evaluate("decodeURIComponent(location.pathname)"))
    other = Visit(browser, path, at=f"#cell={cell}")
    assert (other.shown, other.pinned, other.signal("picked")) == (cell, True, cell)
    assert other.page.locator("#cell-link").get_attribute("href") == f"#cell={cell}"
    unknown = Visit(browser, path, at="#cell=nobody")
    assert (unknown.shown, unknown.pinned) == (unknown.page.evaluate("window.report.page.picked"), False)
    assert [*other.complaints, *unknown.complaints] == []


def test_the_panel_never_scrolls_inside_itself(visit: Visit) -> None:
    panel = visit.page.locator("#cell")
    for height in (900, 400):
        visit.page.set_viewport_size({"width": 1280, "height": height})
        assert panel.evaluate("panel => panel.scrollHeight <= panel.clientHeight")
        assert panel.evaluate("panel => getComputedStyle(panel).overflowY") == "visible"
    visit.page.set_viewport_size({"width": 1280, "height": 900})


def test_a_cell_without_curves_says_why(visit: Visit) -> None:
    cells = visit.page.evaluate("window.report.page.cells")
    lost = next(key for key, cell in cells.items() if not cell["curves"])
    visit.point_at(lost)
    assert not visit.page.locator("#curves").is_visible()
    assert visit.page.locator("#cell-reason").inner_text() == cells[lost]["reason"]


def test_a_row_of_the_table_picks_its_cell_and_heads_sort(visit: Visit) -> None:
    row = visit.page.locator("#cell-table tbody tr").nth(5)
    row.hover()
    assert visit.shown == row.get_attribute("data-cell")
    row.click()
    visit.page.mouse.move(2, 2)
    assert (visit.shown, visit.pinned) == (row.get_attribute("data-cell"), True)
    visit.page.keyboard.press("Escape")
    visit.page.get_by_role("button", name="mean barrier").click()
    heights = visit.page.locator("#cell-table tbody tr td:nth-child(5)").all_inner_texts()
    known = [float(text.removesuffix("%")) for text in heights if text != "–"]
    assert known == sorted(known)
    assert heights[-1] == "–"


def test_nothing_is_wider_than_the_window(visit: Visit) -> None:
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_no_complaints_and_no_requests(visit: Visit) -> None:
    assert visit.complaints == []
    assert [url for url in visit.requests if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.parametrize(
    "hostile",
    [HOSTILE, f'"onload=alert(1) {{{{7*7}}}} ${{alert(2)}}\u202e\x1b[2J\u2028<!--<script>{"x" * 10_000}'],
    ids=["elements", "other"],
)
def test_hostile_text_does_not_run(browser: Browser, tmp_path: Path, hostile: str) -> None:
    folder = write_run(
        tmp_path,
        grid(lrs=(0.01, 0.1), replicates=2),
        make=lambda spec: failed_pair(spec, hostile) if spec.train.lr == 0.1 else realistic_pair(spec),
        name=hostile,
    )
    visit = Visit(browser, render(folder)[0])
    cells = visit.page.evaluate("window.report.page.cells")
    visit.point_at(next(key for key, cell in cells.items() if cell["reason"]))
    assert visit.page.evaluate("window.hostile") is None
    assert visit.page.locator("h1").text_content() == hostile
    assert visit.page.locator("#cell-reason").text_content() == hostile
    assert visit.complaints == []


def test_a_tile_that_has_not_been_run_says_so_and_picks_nothing(browser: Browser, tmp_path: Path) -> None:
    folder = write_run(tmp_path, grid(lrs=(0.01, 0.1), replicates=2), space=space_of(replicates=2))
    visit = Visit(browser, render(folder)[0])
    picked = visit.page.locator("#cell").get_attribute("data-cell")
    where = visit.page.evaluate(
        """() => {
            const marks = [...document.querySelectorAll("#phase svg path")];
            const box = marks.find((mark) => mark.__data__?.datum?.verdict === "not run").getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }"""
    )
    visit.page.mouse.move(*where)
    visit.page.wait_for_selector("#vg-tooltip-element.visible")
    assert "not run" in visit.page.locator("#vg-tooltip-element").inner_text()
    assert visit.shown == picked
    with visit.page.expect_download() as saved:
        visit.page.locator("#phase + .exports").get_by_role("button", name="CSV").click()
    rows = Path(saved.value.path()).read_text(encoding="utf-8").splitlines()
    assert (len(rows), sum("not run" in row for row in rows)) == (1 + 36, 24)
    assert visit.complaints == []


def test_tiles_of_values_spaced_unevenly_can_be_read(browser: Browser, tmp_path: Path) -> None:
    train = {**space_of().fixed["train"]}
    del train["weight_decay"]
    space = space_of((0.01, 0.1), (64,), (COVARIATE,), 2)
    space = space.model_copy(
        update={"fixed": {**space.fixed, "train": train}, "axes": {"weight_decay": (0, 0.0001, 0.01), **space.axes}}
    )
    visit = Visit(browser, render(write_run(tmp_path, space.pairs(), space=space))[0])
    letters, labels = visit.page.evaluate(
        """() => {
            const boxes = (kind) => [...document.querySelectorAll(`#phase svg .${kind} text`)].map(
                (text) => [text.textContent, text.getBoundingClientRect().y]);
            return [boxes("mark-text.role-mark"), boxes("role-axis-label")];
        }"""
    )
    rows = sorted({round(y) for text, y in letters if text in "CD?"})
    assert len(rows) == 3
    assert min(below - above for above, below in pairwise(rows)) > 30
    assert [text for text, _ in labels if text in ("0", "0.0001", "0.01")].count("0.0001") == 2
    assert visit.complaints == []


def test_a_page_of_too_many_cells_still_works_and_unpacks_to_what_was_packed(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, bound, limit in (
        (curves, "VERY_MANY_CELLS", 5),
        (phase, "MOST_PANELS", 2),
        (charts, "MANY_POINTS", 3),
        (points, "MANY_COLOURS", 2),
        (sys.modules[render.__module__], "MANY_TILES", 10),
    ):
        monkeypatch.setattr(module, bound, limit)
    shifts = [ShiftSpec(kind="label", severity=severity) for severity in (0.2, 0.4, 0.6, 0.8)]
    path = render(write_run(tmp_path, grid(shifts=shifts, replicates=2)))[0]
    visit, packed = Visit(browser, path), embedded(path.read_text(encoding="utf-8"))
    cells = visit.page.evaluate("window.report.page.cells")
    assert list(cells) == list(packed["cells"])
    for key, cell in cells.items():
        mine = packed["cells"][key]
        assert (cell["verdict"], cell["reason"], cell["curves"]) == (mine["verdict"], mine["reason"], mine["curves"])
        assert cell["numbers"] == {name: mine[name] for name in cell["numbers"]}
    assert {name for cell in cells.values() for name in cell["curves"]} == {"test_error"}
    for key in [key for key, cell in cells.items() if cell["curves"]][:3]:
        visit.page.evaluate("key => window.report.picking.pin(key)", key)
        assert visit.page.locator("#cell-place").inner_text() == cells[key]["place"]
        assert visit.page.evaluate("window.report.views.phase.signal('picked')") == key
        assert [row["mean"] for row in visit.curves()] == cells[key]["curves"]["test_error"][0]
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert visit.complaints == []


@pytest.fixture(scope="module")
def full(browser: Browser, measured: Measured) -> Visit:
    return Visit(browser, render(measured.store.folder)[0])


def test_every_section_is_drawn(full: Visit) -> None:
    for chart in ("networks", "conditions", "noise", "basins", "similarity", "ensembles", "layers"):
        assert full.marks(chart, "mark-symbol") >= 8, chart
    assert full.marks("learning", "mark-line") == 4
    assert full.complaints == []


def test_learning_curves_follow_the_picked_cell(full: Visit) -> None:
    cells = full.page.evaluate("window.report.page.cells")
    key = next(key for key in cells if key != full.page.evaluate("window.report.page.picked"))
    full.page.evaluate("key => window.report.picking.pin(key)", key)
    rows = full.page.evaluate("window.report.views.learning.data('learning')")
    epochs, *lines = cells[key]["learning"]
    names = [("train", "loss"), ("test", "loss"), ("train", "error"), ("test", "error")]
    for (split, quantity), line in zip(names, lines, strict=True):
        own = [row for row in rows if (row["split"], row["quantity"]) == (split, quantity)]
        assert [row["epoch"] for row in own] == epochs
        assert [row["value"] for row in own] == line


def test_charts_of_layers_follow_the_cell_that_is_shown_and_fit_a_phone(browser: Browser, tmp_path: Path) -> None:
    specs = grid(lrs=(0.03, 0.3), batch_sizes=(16, 64), shifts=(COVARIATE,), replicates=3)
    folder = write_run(
        tmp_path / "run",
        specs,
        make=lambda spec: layered_pair(
            spec, {"stem": (0, 1), "head": (200 * spec.train.lr, 0)}, hump=spec.train.lr, epochs=(None, 0, 2)
        ),
    )
    (page,) = render(folder)
    visit = Visit(browser, page)
    charts = ("first_layer", "layer_barriers", "layer_maps")
    for key, cell in visit.page.evaluate("window.report.page.cells").items():
        visit.page.evaluate("key => window.report.picking.pin(key)", key)
        visit.settle()
        words = [visit.page.locator(f"#{chart}").inner_text() for chart in charts]
        assert all(part in text for text in words[1:] for part in cell["place"].split(" · "))
        assert [text.count("learning rate") for text in words[1:]] == [1, 1]
        assert visit.signal("picked", "first_layer") == key
    assert visit.complaints == []
    phone = Visit(browser, page, width=390)
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
    for chart in charts:
        drawn, room = phone.page.eval_on_selector(f"#{chart}", "chart => [chart.scrollWidth, chart.clientWidth]")
        assert drawn <= room, chart
    assert phone.complaints == []


def test_epochs_are_whole(full: Visit) -> None:
    labels = full.page.eval_on_selector_all(
        "#learning svg .role-axis-label text",
        "labels => labels.filter((label) => getComputedStyle(label).opacity !== '0').map((label) => label.textContent)",
    )
    assert [label for label in labels if "%" not in label and "." not in label][:3] == ["1", "2", "3"]


@pytest.mark.parametrize("chart", ["networks", "conditions", "basins", "similarity", "ensembles"])
def test_a_point_of_any_chart_picks_its_cell_in_all_of_them(full: Visit, chart: str) -> None:
    full.page.mouse.move(0, 0)
    cell = full.page.evaluate(  # the pointer itself would meet whichever of some points lies on top
        """chart => {
            const picked = document.getElementById("cell").dataset.cell;
            const marks = [...document.querySelectorAll(`#${chart} svg path`)];
            const mark = marks.find((mark) => ![undefined, picked].includes(mark.__data__?.datum?.cell));
            mark.dispatchEvent(new PointerEvent("pointerdown", { bubbles: true }));
            mark.dispatchEvent(new MouseEvent("click", { bubbles: true }));
            return mark.__data__.datum.cell;
        }""",
        chart,
    )
    full.page.wait_for_selector(f"#cell[data-cell='{cell}']", timeout=10_000)
    full.page.wait_for_function(
        """cell => Object.entries(window.report.page.charts).every(
            ([id, spec]) => !spec.params || window.report.views[id].signal("picked") === cell)""",
        arg=cell,
        timeout=10_000,
    )
    assert full.page.get_attribute("#cell", "data-cell") == cell


def test_the_full_page_fits_its_window_and_a_phones(full: Visit) -> None:
    def names(chart: str) -> list[str]:
        return [text for text in full.texts("role-axis-label", chart) if text.startswith("mlp")]

    beside = names("networks")
    assert full.texts("role-axis-title", "similarity").count("mean barrier of test error") == 1
    assert full.page.evaluate("document.documentElement.scrollWidth") <= 1280
    full.page.set_viewport_size({"width": 390, "height": 844})
    full.page.wait_for_function("document.querySelector('#noise svg').getBoundingClientRect().width < 390")
    full.settle()
    assert full.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert full.outside(".chart svg") == []
    # Charts below each other have the titles and labels that only the first one of a row has.
    assert full.texts("role-axis-title", "similarity").count("mean barrier of test error") == 4
    assert sorted(names("networks")) == sorted(2 * beside)
    full.page.set_viewport_size({"width": 1280, "height": 900})


def test_a_page_says_whose_setting_is_whose_and_fits_a_phone(browser: Browser, tmp_path: Path) -> None:
    space = parse_space(
        "name: two members\ndataset: digits\ntrain: {momentum: 0.9, epochs: 20}\nreplicates: 2\n"
        "axes: {b: [{}, {lr: 0.3, batch_size: 64}], batch_size: [16, 64], lr: [0.01, 0.1]}\n"
    )
    visit = Visit(browser, render(write_run(tmp_path, space.pairs(), measured_pair, space=space))[0])
    titles = set(visit.page.locator("#phase svg .role-axis-title text").all_text_contents())
    assert titles == {"learning rate of A (log scale)", "batch size of A (log scale)"}
    said = visit.page.locator("body").inner_text()
    assert "learning rate of B as A · batch size of B as A" in said
    assert "learning rate of B\t0.3, as A" in said.replace("\n", "\t")
    assert "noise scale g of A" in said
    visit.page.set_viewport_size({"width": 390, "height": 844})
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert visit.complaints == []


def test_it_prints_on_a_few_pages(visit: Visit) -> None:
    paper = visit.page.pdf(prefer_css_page_size=True, print_background=True)
    assert paper.startswith(b"%PDF-")
    assert 3 <= paper.count(b"/Type /Page\n") <= 9


def two_factors() -> SearchSpace:
    """Two shifts × three networks, with maps of two by two cells."""
    return networks_space(NETWORKS[:3], lrs=(0.01, 0.1), replicates=5).model_copy(
        update={"axes": {**networks_space(NETWORKS[:3]).axes, "lr": (0.01, 0.1), "batch_size": (16, 64)}}
    )


def colour(visit: Visit, selector: str, what: str) -> str:
    return visit.page.eval_on_selector(selector, f"element => getComputedStyle(element).{what}")


def test_a_dark_screen_gets_a_dark_page_and_the_switch_is_remembered(browser: Browser, visit: Visit) -> None:
    path = Path(visit.page.evaluate("decodeURIComponent(location.pathname)"))
    dark = Visit(browser, path, colours="dark")
    assert colour(visit, "body", "backgroundColor") == "rgb(255, 255, 255)"
    assert colour(dark, "body", "backgroundColor") == "rgb(21, 25, 28)"
    assert colour(dark, "#phase svg", "backgroundColor") == "rgb(21, 25, 28)"
    labels = dark.page.locator("#noise svg .role-axis-label text").first.get_attribute("fill")
    assert labels == charts.THEMES["dark"][charts.FAINT]
    dark.click(dark.cell("connected"))
    dark.page.locator("#theme").click()
    dark.page.wait_for_function("document.documentElement.dataset.theme === 'light'")
    dark.settle()
    assert colour(dark, "#phase svg", "backgroundColor") == "rgb(255, 255, 255)"
    assert dark.signal("picked") == dark.shown == dark.cell("connected")
    dark.page.reload()
    dark.page.wait_for_selector("body[data-ready]", timeout=60_000)
    assert colour(dark, "body", "backgroundColor") == "rgb(255, 255, 255)"
    assert dark.complaints == []


def test_what_is_dark_on_the_screen_is_light_on_paper(browser: Browser, visit: Visit) -> None:
    path = Path(visit.page.evaluate("decodeURIComponent(location.pathname)"))
    dark = Visit(browser, path, colours="dark")
    dark.page.emulate_media(media="print", color_scheme="dark")
    assert colour(dark, "body", "backgroundColor") == "rgb(255, 255, 255)"
    assert colour(dark, "#phase svg", "backgroundColor") == "rgb(255, 255, 255)"
    assert colour(dark, "#phase svg .role-axis-label text", "fill") == "rgb(74, 81, 87)"


def test_on_a_phone_maps_stand_below_each_other_and_a_tap_pins(browser: Browser, tmp_path: Path) -> None:
    space = two_factors()
    visit = Visit(browser, render(write_run(tmp_path, space.pairs(), measured_pair, space=space))[0], width=390)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert visit.outside(".chart svg") == []
    visit.page.mouse.click(*visit.place_of(visit.cell("undecided")))
    visit.settle()
    assert (visit.shown, visit.pinned) == (visit.cell("undecided"), True)
    visit.page.locator("#pin").click()
    visit.settle()
    assert not visit.pinned
    assert visit.complaints == []


def test_two_factors_make_rows_and_columns_of_maps(browser: Browser, tmp_path: Path) -> None:
    space = two_factors()
    visit = Visit(browser, render(write_run(tmp_path, space.pairs(), measured_pair, space=space))[0])
    maps = visit.page.evaluate(
        """() => {
            const places = {};
            for (const mark of document.querySelectorAll("#phase svg .mark-rect path")) {
                const panel = mark.__data__?.datum?.panel;
                const { left } = mark.getBoundingClientRect();
                if (panel) places[panel] = Math.min(places[panel] ?? left, left);
            }
            return places;
        }"""
    )
    assert len(maps) == 6
    assert len({round(left / 10) for left in maps.values()}) == 3
    titles = [title for title in visit.texts("role-title-text") if "hidden" in title]
    assert [title.startswith("covariate") for title in titles] == 2 * (3 * [True] + 3 * [False])
    assert visit.outside("#phase svg, #phase svg text") == []
    assert visit.complaints == []


@pytest.fixture(scope="module")
def many(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    space = parse_space(
        "name: twenty\ndataset: digits\ntrain: {momentum: 0.9, epochs: 20}\nreplicates: 1\n"
        f"axes: {{batch_size: {list(range(10, 210, 10))}, lr: {{log: [0.002, 1.2], steps: 20}}}}\n"
    )
    return Visit(browser, render(write_run(tmp_path_factory.mktemp("many"), space.pairs(), space=space))[0])


def tiles_and_overflows(visit: Visit) -> tuple[list[list[float]], list[str]]:
    """Width and height of every tile, and the texts that are larger than theirs."""
    tiles, overflowing = visit.page.evaluate(
        """() => {
            const own = (mark) => mark.__data__?.datum?.cell;
            const boxes = new Map();
            for (const mark of document.querySelectorAll("#phase svg .mark-rect path")) {
                if (own(mark)) boxes.set(own(mark), mark.getBoundingClientRect());
            }
            const texts = [...document.querySelectorAll("#phase svg .mark-text.role-mark text")].filter(own);
            const bad = texts.filter((text) => {
                const [inner, outer] = [text.getBoundingClientRect(), boxes.get(own(text))];
                return inner.width > outer.width || inner.height > outer.height + 3;
            });
            const sizes = [...boxes.values()].map(({ width, height }) => [width, height]);
            return [sizes, bad.map((text) => text.textContent)];
        }"""
    )
    return tiles, overflowing


def test_twenty_by_twenty_tiles_can_be_read_and_no_text_leaves_its_tile(many: Visit) -> None:
    tiles, overflowing = tiles_and_overflows(many)
    assert len(tiles) == 400
    assert min(width for width, _ in tiles) > 30
    assert overflowing == []
    letters = [text for text in many.texts("mark-text.role-mark") if text in set("CD?U×")]
    assert len(letters) >= sum(height > 16 for _, height in tiles) > 100
    assert many.outside("#phase svg") == []
    assert many.complaints == []


def test_on_a_phone_letters_stay_and_numbers_that_do_not_fit_are_dropped(browser: Browser, many: Visit) -> None:
    phone = Visit(browser, Path(many.page.evaluate("decodeURIComponent(location.pathname)")), width=390)
    tiles, overflowing = tiles_and_overflows(phone)
    assert max(width for width, _ in tiles) < 16
    assert overflowing == []
    texts = phone.texts("mark-text.role-mark")
    assert sum(text in set("C?D") for text in texts) > 100
    assert not [text for text in texts if "%" in text]


def test_the_boundary_crosses_no_text(many: Visit) -> None:
    assert many.page.locator("#phase svg .mark-rule line").count() > 20
    crossed = many.page.evaluate(
        """() => {
            const boxes = [...document.querySelectorAll("#phase svg .mark-text.role-mark text")]
                .map((text) => text.getBoundingClientRect());
            const lines = [...document.querySelectorAll("#phase svg .mark-rule line")]
                .map((line) => line.getBoundingClientRect());
            return lines.filter((line) => boxes.some((box) => line.left < box.right && line.right > box.left
                && line.top < box.bottom - 3 && line.bottom > box.top + 3)).length;
        }"""
    )
    assert crossed == 0


def test_a_zero_among_logarithmic_values_has_a_tile_and_a_label(browser: Browser, tmp_path: Path) -> None:
    space = parse_space(
        "name: zero\ndataset: digits\ntrain: {momentum: 0.9, epochs: 20, batch_size: 64}\nreplicates: 2\n"
        "axes: {weight_decay: [0, 0.0001, 0.001, 0.01], lr: [0.01, 0.03, 0.1]}\n"
    )
    visit = Visit(browser, render(write_run(tmp_path, space.pairs(), space=space))[0])
    assert visit.texts("role-axis-title").count("weight decay (equal steps)") == 2
    assert [text for text in visit.texts("role-axis-label") if text in ("0", "0.0001", "0.001", "0.01")].count("0") == 2
    heights = visit.page.evaluate(
        """() => [...document.querySelectorAll("#phase svg .mark-rect path")]
            .filter((mark) => mark.__data__?.datum?.cell)
            .map((mark) => Math.round(mark.getBoundingClientRect().height))"""
    )
    assert max(heights) - min(heights) <= 6  # but for the outline
    assert visit.outside("#phase svg") == []


def test_one_axis_is_one_chart_of_lines_with_a_sentence_that_fits(browser: Browser, tmp_path: Path) -> None:
    visit = Visit(browser, render(write_run(tmp_path, grid(batch_sizes=(64,), replicates=3)))[0])
    assert visit.texts("role-axis-title").count("learning rate (log scale)") == 1
    lines = visit.page.locator("#phase svg .mark-line path").all()
    assert len({line.get_attribute("stroke") for line in lines}) == 2
    lead = visit.page.locator("#diagram .lead").inner_text()
    assert "tile" not in lead
    assert "a line joins the cells of one setting" in lead
    assert visit.complaints == []


@pytest.mark.parametrize(
    ("chart", "name", "start"),
    [
        ("phase", "SVG", b"<svg"),
        ("phase", "PNG", b"\x89PNG"),
        ("phase", "CSV", b"cell,"),
        ("phase", "Vega-Lite", b"{"),
        ("noise", "PNG", b"\x89PNG"),
        ("curves", "CSV", b"split,"),
        ("curves", "Vega-Lite", b"{"),
    ],
)
def test_every_chart_can_be_saved(visit: Visit, chart: str, name: str, start: bytes) -> None:
    menu = visit.page.locator(f"#{chart} + .exports")
    with visit.page.expect_download() as saved:
        menu.get_by_role("button", name=name, exact=True).click()
    content = Path(saved.value.path()).read_bytes()
    assert content.startswith(start)
    if (chart, name) == ("phase", "CSV"):
        assert content.count(b"\n") == 1 + 36
        assert b"verdict" in content.split(b"\n")[0]
    if (chart, name) == ("curves", "Vega-Lite"):
        assert [row["mean"] for row in json.loads(content)["datasets"]["curves"]] == [
            row["mean"] for row in visit.curves()
        ]
    assert visit.complaints == []


def test_the_menus_cover_nothing_and_are_never_cut_off(visit: Visit) -> None:
    boxes = visit.page.evaluate(
        """() => [...document.querySelectorAll(".exports")].map((menu) => {
            const [own, chart] = [menu, menu.previousElementSibling].map((element) => element.getBoundingClientRect());
            return [own.top - chart.bottom, innerWidth - own.right];
        })"""
    )
    assert len(boxes) == len(visit.page.evaluate("Object.keys(window.report.views)"))
    assert all(below >= 0 and right >= 0 for below, right in boxes)


def test_contents_lead_to_sections_and_all_cells_fit(visit: Visit) -> None:
    targets = visit.page.eval_on_selector_all("nav.contents a", "links => links.map((link) => link.hash.slice(1))")
    headings = visit.page.eval_on_selector_all("h2 a.anchor", "links => links.map((link) => link.hash.slice(1))")
    assert targets == headings
    assert all(visit.page.locator(f"section#{target}").count() == 1 for target in targets)
    assert visit.page.eval_on_selector("#cells .wide", "box => box.scrollWidth <= box.clientWidth")
    assert colour(visit, "#cell-table td:nth-child(5)", "textAlign") == "right"


@pytest.mark.parametrize(("width", "colours"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_two_runs_stand_side_by_side(browser: Browser, tmp_path: Path, width: int, colours: str) -> None:
    ours, theirs = (write_run(tmp_path / name, name=name) for name in ("ours", "theirs_with_a_rather_long_name"))
    visit = Visit(browser, render_comparison(ours, theirs)[0][0], width=width, colours=colours)
    assert visit.complaints == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in visit.requests)
    page = visit.page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.documentElement.dataset.theme") == colours
    drawn = page.evaluate("Object.keys(window.report.page.charts.comparison.datasets).length")
    assert drawn >= 6
    letters = page.locator("#comparison svg text", has_text="×").count()
    assert letters >= 2
    column = page.locator("#cell-table th [role=button]").nth(2)
    column.click()
    sizes = [int(text) for text in page.locator("#cell-table tbody td:nth-child(3)").all_text_contents()]
    assert sizes == sorted(sizes)
    with page.expect_download() as saved:
        page.locator("#comparison + .exports").get_by_role("button", name="CSV").click()
    table = pd.read_csv(saved.value.path())
    assert len(table) == 36
    assert {"first_verdict", "second_verdict", "difference", "difference_low"} <= set(table.columns)
    assert (table["first_mean_barrier"].dropna() == table["second_mean_barrier"].dropna()).all()
    page.click("#theme")
    visit.settle()
    assert page.evaluate("document.documentElement.dataset.theme") != colours
    assert visit.complaints == []
