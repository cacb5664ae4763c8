"""Opening a page where there are windows, and nowhere else."""

import webbrowser

import pytest

from lmc_tune.cli import browser
from lmc_tune.cli.browser import open_page


@pytest.mark.parametrize(
    ("platform", "variables", "opened"),
    [
        ("linux", {}, False),  # a browser in the terminal would take it over
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("linux", {"BROWSER": "firefox"}, True),
        ("darwin", {}, True),
    ],
)
def test_a_page_is_opened_where_there_are_windows(
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    variables: dict[str, str],
    opened: bool,  # noqa: FBT001
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(webbrowser, "open", asked.append)
    monkeypatch.setattr(browser.sys, "platform", platform)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    open_page("http://127.0.0.1:5000")
    assert asked == (["http://127.0.0.1:5000"] if opened else [])
