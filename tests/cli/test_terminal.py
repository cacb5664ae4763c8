"""What a sweep says of itself while it runs."""

import io
import queue
import re
from collections import Counter
from collections.abc import Iterator

import pytest

from lmc_tune.cli import terminal as progress
from lmc_tune.cli.terminal import folded, listener_for
from lmc_tune.tables.rows import PairResult
from tests.cases import pair_of


def finished(key: str, status: str) -> PairResult:
    return pair_of({"key": key, "status": status})


class Clock:
    """Time as the test sets it; the day began at its zero."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def strftime(self, _: str) -> str:
        return f"0:{int(self.now)}"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def test_a_pair_that_is_tried_again_counts_once(clock: Clock):
    stream = io.StringIO()
    with listener_for(stream) as listener:
        listener.start(3, Counter({"ok": 1}))
        for status in ("failed", "failed", "ok"):
            listener.finished([finished("a", status)])
        listener.finished([finished("b", "diverged")])
        listener.finished([finished("b", "diverged")])
    assert stream.getvalue().splitlines() == [
        "0:0 3 pairs, 1 of them finished already",
        "0:0 3/3 pairs (1 diverged, 2 ok)",
    ]


def test_groups_are_called_by_their_name(clock: Clock):
    stream = io.StringIO()
    with listener_for(stream) as listener:
        listener.start(1, Counter(), "federation")
        listener.finished([finished("a", "ok")])
    assert stream.getvalue().splitlines() == ["0:0 1 federation", "0:0 1/1 federations (1 ok)"]


def test_one_pair_is_one_pair(clock: Clock):
    stream = io.StringIO()
    with listener_for(stream) as listener:
        listener.start(1, Counter())
        listener.finished([finished("a", "ok")])
    assert stream.getvalue().splitlines() == ["0:0 1 pair", "0:0 1/1 pairs (1 ok)"]


def test_lines_name_every_phase_and_the_time_left_with_the_time_of_day(clock: Clock):
    stream = io.StringIO()
    with listener_for(stream) as listener:
        listener.phase("reading data")  # which takes no time
        listener.start(80, Counter())
        listener.aim(8, last=False)
        clock.now = 10.0
        listener.phase("training, round 1")
        listener.working(2, None)
        listener.finished([finished("a", "ok")])  # it is only 10 s since the last line
        clock.now = 15.0
        listener.finished([finished("b", "ok")])
        clock.now = 74.0
        listener.working(1, 7200.0)
        clock.now = 75.0
        listener.working(1, 7200.0)
        listener.aim(9, last=True)
        clock.now = 200.0
        listener.working(3, 100.0)
        listener.working(3, 99.0)
    assert stream.getvalue().splitlines() == [
        "0:0 80 pairs",
        "0:10 training, round 1",
        "0:15 2/8 pairs (2 ok), 2 running",
        "0:75 2/8 pairs (2 ok), 1 running, about 2.0 h left in this round",
        "0:200 2/9 pairs (2 ok), 3 running, about 2 min left",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def screen(stream: Terminal) -> list[str]:
    """What was drawn last, without colours; a cursor that goes up begins a new picture."""
    drawn = re.split(r"(?:\r|\x1b\[2K|\x1b\[1A)+", stream.getvalue())
    plain = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", part) for part in drawn]
    last = [part for part in plain if part.strip()][-1]
    return [line.rstrip() for line in last.rstrip("\n").split("\n")]


def test_a_terminal_shows_the_phase_before_anything_is_known(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, clock: Clock
):
    monkeypatch.setenv("COLUMNS", "60")
    with listener_for(terminal) as listener:
        clock.now = 10.0
        listener.phase("starting 2 workers")
        clock.now = 75.0
    (line,) = screen(terminal)
    assert re.fullmatch(r"\S starting 2 workers  1:05", line)


@pytest.mark.parametrize(("columns", "lines"), [(100, 2), (60, 2), (40, 3)])
def test_a_terminal_shows_all_at_any_width(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, columns: int, lines: int, clock: Clock
):
    """Bar, pairs, running, time left and counts: whole words, no line too long."""
    monkeypatch.setenv("COLUMNS", str(columns))
    with listener_for(terminal) as listener:
        listener.start(80, Counter({"ok": 20}))
        listener.aim(60, last=True)
        listener.phase("training")
        listener.working(16, 120.0)
        listener.finished([finished(str(k), "diverged") for k in range(3)])
        clock.now = 5.0
    first, *others = screen(terminal)
    assert re.fullmatch(r"\S training  [━╸╺ ]+  23/60 pairs  0:05", first)
    assert " ".join(others) == "16 running · about 2 min left · 3 diverged, 20 ok"
    assert len(others) == lines - 1
    assert max(map(len, [first, *others])) <= columns


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch, clock: Clock):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with listener_for(stream) as listener:
        listener.start(8, Counter())
        listener.phase("training")
    assert stream.getvalue() == "0:0 8 pairs\n0:0 training\n"


def test_a_start_that_takes_long_says_in_which_phase_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress, "_SECONDS_OF_A_LONG_START", 0.01)
    told = queue.Queue[str]()

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            told.put(text)
            return len(text)

    with listener_for(Stream()) as listener:
        listener.phase("reading data")
        said = ""
        while "reading data\n" not in said:
            said += told.get(timeout=30)


def test_news_go_above_the_display_in_whole_words(terminal: Terminal, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "30")
    with listener_for(terminal) as listener:
        listener.say("members: kept (40 networks, about 3 MB) [/tmp]")
    drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", terminal.getvalue())
    assert "members: kept (40 networks,\nabout 3 MB) [/tmp]\n" in drawn


def test_text_is_cut_between_words_and_a_command_never():
    command = "    lmc-tune sweep quickstart --set replicates=10"
    text = f"2 cells are undecided; twice as many\n\n{command}\nsee: lmc-tune status runs/quickstart"
    assert folded(text, 24).split("\n") == [
        "2 cells are undecided;",
        "twice as many",
        "",
        command,
        "see: lmc-tune status runs/quickstart",
    ]
    assert folded("see /a/very/long-path/that-has-no-space now", 10).split("\n") == [
        "see",
        "/a/very/long-path/that-has-no-space",
        "now",
    ]
