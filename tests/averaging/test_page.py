"""The pages of two and of several checkpoints, in a real browser."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser
from safetensors.torch import save_file

import lmc_tune
from lmc_tune.averaging.paths import Condition
from tests.analysis.report.test_browser import Visit, browser  # noqa: F401 - a fixture
from tests.averaging.cases import digits, network, trained

pytestmark = pytest.mark.slow


def measure(*states, **more):
    data = digits()
    return lmc_tune.measure(network(norm=False), states, data.test, train=data.train, **more)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    conditions = [Condition(), Condition("weights"), Condition("weights", "repaired")]
    file = tmp_path_factory.mktemp("page") / "pair.html"
    start = file.with_name("start.safetensors")
    save_file(network(norm=False).state_dict(), start)
    found = measure(
        *(trained(0, 1, norm=False), trained(1, 1, norm=False)),
        conditions=conditions,
        layers=True,
        directions=True,
        planes={"through": ["a", "b", str(start)], "points": 5},
    )
    file.write_text(found.to_html(), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("page") / "many.html"
    states = [trained(start, branch, norm=False) for start in (0, 1) for branch in (1, 2)]
    file.write_text(measure(*states).to_html(), encoding="utf-8")
    return file


@pytest.fixture(params=[1280, 390], ids=["wide", "phone"])
def visits(browser: Browser, request, pair: Path, many: Path) -> tuple[Visit, Visit]:  # noqa: F811
    return Visit(browser, pair, width=request.param), Visit(browser, many, width=request.param)


def test_everything_is_drawn_and_nothing_is_wider_than_the_page(visits):
    of_pair, of_many = visits
    for visit in visits:
        assert visit.complaints == []
        assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert visit.outside(".chart svg") == []
    assert of_pair.marks("along", "mark-line") == 4 * 3
    assert of_pair.marks("along", "mark-area") >= 2
    assert of_pair.marks("profile", "mark-symbol") == 3 * 3  # families, layers
    assert of_pair.marks("layerwise-rises", "mark-line") == 2 * 2  # lengths, kinds
    assert of_pair.marks("whole-rises", "mark-line") == 3 * 3  # points, kinds
    assert of_pair.marks("sharpness-rises", "mark-line") == 3
    assert of_pair.marks("plane", "mark-rect") == 5**2 + 1  # and the legend's gradient
    assert of_pair.marks("plane", "mark-symbol") == 3
    assert of_pair.page.locator("#plane svg .mark-rule line").count() > 8  # contours
    assert of_many.marks("map-0", "mark-rect") == 4 * 3 + 1  # and the legend's gradient


def test_headings_and_charts_have_names_of_their_own(visits):
    for visit in visits:
        names = visit.page.eval_on_selector_all("[id]", "found => found.map(one => one.id)")
        assert len(names) == len(set(names))
        assert visit.page.locator("h2").count() >= 4
