"""How lists and help are laid out."""

import io
import sys

import pytest

from lmc_tune.cli.plainly import examples, print_entry


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("columns", "printed"),
    [
        (90, "quickstart  Where can two small networks, trained on disjoint halves, be averaged?\n"),
        (60, "quickstart  Where can two small networks, trained on\n            disjoint halves, be averaged?\n"),
        (40, "quickstart\n    Where can two small networks,\n    trained on disjoint halves, be\n    averaged?\n"),
    ],
)
def test_an_entry_is_cut_between_words_and_below_its_name_where_there_is_little_room(
    monkeypatch: pytest.MonkeyPatch, columns: int, printed: str
) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", str(columns))
    print_entry("quickstart", "Where can two small networks, trained on disjoint halves, be averaged?", 12)
    assert stream.getvalue() == printed


def test_in_a_pipe_an_entry_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_entry("a", "word " * 30, 3)
    assert capsys.readouterr().out == f"a  {'word ' * 30}\n"


def test_examples_keep_their_lines() -> None:
    assert examples("lmc-tune x").splitlines() == ["\b", "Example:", "  lmc-tune x"]
    assert examples("a", "b").splitlines()[1:] == ["Examples:", "  a", "  b"]
