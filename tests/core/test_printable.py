import pytest

from lmc_tune.core.printable import printable


@pytest.mark.parametrize("text", ["", "lr 0.1 → λ, größer\n\tx", "学習率", "שיפוע", "thin\u2009space"])
def test_what_can_be_shown_is_left_alone(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("a\rb\x00", r"a\rb\x00"),
        ("\u202etxt.exe\u2066", r"\u202etxt.exe\u2066"),
        ("\u2028\u200b\x9b", r"\u2028\u200b\x9b"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_would_act_on_a_terminal_is_shown_as_an_escape(text, shown):
    assert printable(text) == shown
