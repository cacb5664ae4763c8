# ruff: noqa: E501 - one mistake and its message per line
"""What is said of values that a key does not take, whatever they are."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from lmc_tune.experiment import FederationSpec, MeasureSpec, MlpSpec, TrainSpec
from lmc_tune.experiment.reading import SpaceError, parse_space
from lmc_tune.experiment.space import FILLED_IN
from lmc_tune.experiment.spec import Spec
from lmc_tune.experiment.text import TextSpec
from lmc_tune.experiment.verdict import VerdictSpec

TRAIN = "train: {lr: 0.1, batch_size: 16, epochs: 2}"
SPACE = f"model: {{norm: batch}}\n{TRAIN}"
SPACES = {
    "federated": "train: {lr: 0.1, batch_size: 16}\nfederated: {clients: 3, rounds: 2}",
    "dataset": f"model: {{name: gpt}}\ndataset: {{name: text, path: corpus.txt}}\n{TRAIN}",
}
SPECS: dict[str, type[Spec]] = {
    "measure": MeasureSpec,
    "verdict": VerdictSpec,
    "federated": FederationSpec,
    "dataset": TextSpec,
    "train": TrainSpec,
    "model": MlpSpec,
}
VALUES = [
    *("null", "true", "-1", "0", "1.5", "1e9", "word", "''"),
    *("[]", "[word]", "[[]]", "[-1]", "[1.5]", "[null]", "{}", "{word: 1}", "{1: []}"),
]
# Words of the library that checks values, of Python, and of places where there is a choice of kinds.
FOREIGN = re.compile(
    r"\b(valid|after validation|Tuple|String|List|Input|None|True|False|instance|constrained|literal|did you mean \?)\b|[<>]"
)


def keys_below(place: str, annotation: Any) -> Iterator[str]:
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        for name, field in annotation.model_fields.items():
            yield f"{place}.{name}"
            yield from keys_below(f"{place}.{name}", field.annotation)
    for part in get_args(annotation):
        yield from keys_below(place, part)


KEYS = [key for section, spec in SPECS.items() for key in (section, *keys_below(section, spec))]


@pytest.mark.parametrize("key", [key for key in KEYS if not FILLED_IN & set(key.split("."))])
def test_whatever_is_written_is_answered_at_its_place_in_words_of_our_own(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text("And so on it was. " * 1000, encoding="utf-8")
    section = key.partition(".")[0]
    text = f"name: s\naxes: {{weight_decay: [0]}}\n{SPACES.get(section, SPACE)}"
    refused = 0
    for value in VALUES:
        try:
            parse_space(text, sets=[f"{key}={value}"])
        except SpaceError as error:
            refused += 1
            for problem in error.problems:
                assert not FOREIGN.search(problem), f"{value}: {problem}"
    assert refused >= 4


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("measure.layers", "3", "measure.layers: write a mapping, e.g. layers: {families: [single]}; got 3"),
        ("measure.layers.lambdas", "half", "measure.layers.lambdas: write midpoint, or an odd number of points from 3; got 'half'"),
        ("measure.layers.lambdas", "4", "measure.layers.lambdas: must be odd so that λ = ½ is on the grid; use 5"),
        ("measure.layers.families", "null", "measure.layers.families: write a list, e.g. [single]; got null"),
        ("measure.layers.families", "[]", "measure.layers: asks nothing: give families, window or groups, e.g. families: [single]"),
        ("measure.layers.conditions", "[]", "measure.layers.conditions: name a condition at least, or leave it out for all of measure.conditions"),
        ("measure.layers.groups", "{all: null}", "measure.layers.groups: write a pattern of layers' names behind the name of every group, or a list of them, e.g. {attention: '*attention*'}; got all: null"),
        ("measure.layers.groups", "{1: head}", "measure.layers.groups: write a pattern of layers' names behind the name of every group, or a list of them, e.g. {attention: '*attention*'}; got 1: ['head']"),
        ("measure.snapshots", "null", "measure.snapshots: write a list, e.g. [1, 5]; got null"),
        ("measure.snapshots", "3", "measure.snapshots: write a list, e.g. [3]; got 3"),
        ("measure.snapshots", "all", "measure.snapshots: write a list, e.g. [1, 5]; got 'all'"),
        ("measure.snapshots", "[1.5]", "measure.snapshots[0]: should be a whole number, got 1.5"),
        ("measure.splits", "[]", "measure.splits: name at least one, e.g. [train, test]; got []"),
        ("measure.directions.random.alphas", "[]", "measure.directions.random.alphas: name at least one, e.g. [0.5, 1.0]; got []"),
        ("measure.directions.noise", "{kinds: [path], positions: [2]}", "measure.directions.noise.positions[0]: should be less than or equal to 1, got 2"),
        ("measure.planes.through", "[a, b]", "measure.planes.through[2]: is missing: the list is too short"),
        ("measure.planes.through", "[a, b, start, c]", "measure.planes.through: name 3, not 4; got ['a', 'b', 'start', 'c']"),
        ("measure.planes.through", "[1, a, b]", "measure.planes.through[0]: should be text, got 1; write it in quotes: '1'"),
        ("train.flip", "maybe", "train.flip: should be true or false, got 'maybe'"),
        ("federated.rounds", "0", "federated.rounds: should be greater than or equal to 1, got 0"),
        ("federated.local_epochs", "0", "federated.local_epochs: should be greater than or equal to 1, got 0"),
        ("federated.split", "{dirichlet: a}", "federated.split.dirichlet: should be a number, got 'a'"),
        ("federated.split", "null", "federated.split: write iid, {dirichlet: 0.1} or {classes: 2}; got null"),
        ("dataset.path", "''", "dataset.path: is empty"),
        ("dataset.second", "1", "dataset.second: write a file, or the line from 2 at which the second text begins; got 1"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_message(key: str, value: str, said: str) -> None:
    text = f"name: s\naxes: {{weight_decay: [0]}}\n{SPACES.get(key.partition('.')[0], SPACE)}"
    with pytest.raises(SpaceError) as raised:
        parse_space(text, sets=[f"{key}={value}"])
    assert raised.value.problems == [f"command line: {said}"]
