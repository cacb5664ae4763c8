from pathlib import Path

import pytest

from lmc_tune.core.home import expanded


def test_a_leading_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/runs") == expanded(Path("~/runs")) == Path("/home/me/runs")
    assert expanded("runs/~") == Path("runs/~")
    assert expanded("~no such user/x") == Path("~no such user/x")
