"""What plain text stands for: the table of YAML 1.2 (section 10.3.2), where PyYAML has that of 1.1."""

import math

import pytest

from lmc_tune.experiment.yaml_lines import YamlError, dump, load_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("0o10", 8),
        ("0x10", 16),
        ("+12", 12),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", -math.inf),
        ("TRUE", True),
        ("~", None),
        ("", None),
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("no", "no"),
        ("On", "On"),
        ("2024-01-01", "2024-01-01"),
        ("=", "="),
    ],
)
def test_plain_text_is_read_as_yaml_1_2_reads_it(text, value):
    read = load_value(text)
    assert (read, type(read)) == (value, type(value))


def test_text_that_is_tagged_as_a_number_is_refused():
    with pytest.raises(YamlError, match="1:30"):
        load_value("!!int 1:30")


@pytest.mark.parametrize("text", ["010", "1e3", "0o10", "1:30", "no", "2024-01-01", "~", "<<", "", "1_0", "é: ü"])
def test_text_that_looks_like_something_else_is_text_again_when_it_is_read_back(text):
    assert load_value(dump({text: [text]})) == {text: [text]}


def test_what_is_written_is_text_for_readers_of_yaml_1_1_too():
    assert dump(["no", "1:30"]) == "- 'no'\n- '1:30'\n"
