"""What a sweep says of itself while it runs."""

import io
from collections import Counter

import pytest

from lmc_tune.cli import terminal as progress
from lmc_tune.cli.terminal import listener_for
from lmc_tune.tables.rows import PairResult
from tests.cases import pair_of


def finished(key: str, status: str) -> PairResult:
    return pair_of({"key": key, "status": status})


def test_a_pair_that_is_tried_again_counts_once():
    stream = io.StringIO()
    with listener_for(stream) as listener:
        listener.start(3, Counter({"ok": 1}))
        for status in ("failed", "failed", "ok"):
            listener.finished([finished("a", status)])
        listener.finished([finished("b", "diverged")])
    assert stream.getvalue().splitlines() == ["3 pairs, 1 of them finished already", "3/3 pairs (1 diverged, 2 ok)"]


def test_one_pair_is_one_pair():
    stream = io.StringIO()
    with listener_for(stream) as listener:
        listener.start(1, Counter())
        listener.finished([finished("a", "ok")])
    assert stream.getvalue().splitlines() == ["1 pair", "1/1 pairs (1 ok)"]


def test_while_no_pair_finishes_a_line_says_what_is_going_on(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    with listener_for(stream) as listener:
        listener.start(8, Counter())
        clock[0] = 60.0
        listener.waiting(2, None)
        listener.finished([finished("a", "ok")])
        clock[0] = 300.0
        listener.waiting(1, 7200.0)
    assert stream.getvalue().splitlines() == [
        "8 pairs",
        "0/8 pairs, 2 running, 60 s so far",
        "1/8 pairs (1 ok)",
        "1/8 pairs (1 ok), 1 running, 5 min so far, about 2.0 h left",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_bar_says_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    stream = Terminal()
    with listener_for(stream) as listener:
        listener.start(8, Counter({"ok": 1}))
        listener.waiting(2, 120.0)
    assert "1 ok (2 running, about 2 min left)" in stream.getvalue()
