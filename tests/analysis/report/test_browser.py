"""The page in a real browser without a network: drawn, answering the pointer, and silent on the console."""

import shutil
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from lmc_tune.analysis import phase
from lmc_tune.analysis.report.charts import curves, points
from lmc_tune.analysis.report.charts import style as charts
from lmc_tune.analysis.report.render import render
from lmc_tune.experiment import ShiftSpec
from lmc_tune.experiment.reading import parse_space
from tests.analysis.cases import COVARIATE, failed_pair, grid, measured_pair, realistic_pair, space_of, write_run
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
    visit.point_at(other)
    assert (visit.signal("picked"), visit.signal("shown"), visit.pinned) == (pinned, other, False)
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
    visit.page.keyboard.press("Escape")
    visit.settle()
    assert visit.shown == visit.page.evaluate("window.report.page.picked")
    assert not visit.pinned
    assert "#" not in visit.page.url


def test_scrolling_under_a_pointer_at_rest_changes_nothing(visit: Visit) -> None:
    visit.point_at(visit.cell("connected"))
    before = visit.shown
    visit.page.evaluate("scrollBy(0, 70)")
    visit.page.wait_for_timeout(300)
    visit.settle()
    assert visit.shown == before
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
    assert visit.page.locator("#cell").get_attribute("data-cell") == picked
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
    assert full.page.evaluate("document.documentElement.scrollWidth") <= 1280
    full.page.set_viewport_size({"width": 390, "height": 844})
    assert full.page.evaluate("document.documentElement.scrollWidth") <= 390
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
