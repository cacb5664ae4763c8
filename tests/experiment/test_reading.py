# ruff: noqa: E501 - one mistake and its message per line
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lmc_tune.experiment import DatasetSpec, ShiftSpec
from lmc_tune.experiment.datasets import DATASETS, part_size
from lmc_tune.experiment.reading import SpaceError, parse_space, presets, read_space
from lmc_tune.experiment.space import SearchSpace

GOOD = """\
name: study
dataset: digits
model: {name: mlp, hidden: [8]}
train:
  epochs: 2
  momentum: 0.9
axes:
  lr: [0.1, 0.2]
  batch_size: [16, 32]
  shift: [covariate, {kind: label, ratio: 0.8}]
replicates: 3
seed: 4
measure: {lambdas: 7}
verdict: {barrier: chord, of: test_error}
"""


def keys(space: SearchSpace) -> list[str]:
    return [pair.key for pair in space.pairs()]


def with_axes(axes: str, head: str = "name: s\ntrain: {epochs: 1}\n") -> str:
    return f"{head}axes: {axes}\n"


def problems(text: str, *sets: str) -> list[str]:
    with pytest.raises(SpaceError) as raised:
        parse_space(text, "s.yaml", sets)
    assert str(raised.value) == "\n".join(raised.value.problems)
    return raised.value.problems


def again(space: SearchSpace) -> SearchSpace:
    return parse_space(yaml.safe_dump(space.plain(), sort_keys=False))


def test_a_space_is_read_as_written():
    space = parse_space(GOOD)
    assert (space.name, space.replicates, space.seed) == ("study", 3, 4)
    assert len(space.cells()) == 8
    first = space.cells()[0].first
    assert (first.train.lr, first.train.batch_size, first.train.epochs, first.train.momentum) == (0.1, 16, 2, 0.9)
    assert (first.model.hidden, space.measure.lambdas, first.seed) == ((8,), 7, 4)
    assert [cell.first.shift.label for cell in space.cells()[:2]] == ["covariate", "label 80/20"]


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_valid_and_survives_being_written_out(name, tmp_path, monkeypatch):
    # The text of a preset is the user's own, where the user is.
    (tmp_path / "corpus.txt").write_text("In the beginning was the word, and a line of it has many.\n" * 40_000)
    monkeypatch.chdir(tmp_path)
    space = read_space(name)
    assert space.name == name
    assert again(space) == space
    assert keys(again(space)) == keys(space)


@st.composite
def documents(draw):
    """Valid spaces: some fields fixed, some varied, some left to their defaults."""
    values = {
        "lr": st.floats(1e-4, 2).map(lambda v: float(f"{v:.4g}")),
        "batch_size": st.sampled_from([2, 4, 8, 16]),
        "weight_decay": st.sampled_from([0.0, 1e-4, 5e-4]),
        "noise": st.sampled_from(["fixed", "varied"]),
        "schedule": st.sampled_from(["constant", "step", "cosine"]),
    }
    model_values = {"norm": st.sampled_from(["none", "batch", "layer"]), "hidden": st.sampled_from([[4], [8, 4]])}
    shift_values = {
        "kind": st.sampled_from(["covariate", "label"]),
        "severity": st.sampled_from([0.25, 0.5, 1.0]),
        "shift": st.sampled_from(["none", "covariate", {"kind": "label", "ratio": 0.8}, {"kind": "label", "alpha": 2}]),
    }
    axes, train, model, shift = {}, {"epochs": 1}, {}, {}
    for name, strategy in values.items():
        where = draw(
            st.sampled_from(["axis", "fixed"] if name in ("lr", "batch_size") else ["axis", "fixed", "default"])
        )
        _put(draw, name, strategy, where, axes, train)
    for name, strategy in model_values.items():
        _put(draw, name, strategy, draw(st.sampled_from(["axis", "fixed", "default"])), axes, model)
    if draw(st.booleans()):
        axes["shift"] = draw(st.lists(shift_values["shift"], min_size=1, max_size=3, unique_by=str))
    else:
        for name in ("kind", "severity"):
            _put(draw, name, shift_values[name], draw(st.sampled_from(["axis", "fixed", "default"])), axes, shift)
    if not axes:
        axes["lr"] = [train.pop("lr")]
    document = {"name": "s", "train": train, "axes": axes, "replicates": draw(st.integers(1, 2))}
    return document | ({"model": model} if model else {}) | ({"shift": shift} if shift else {})


def _put(draw, name, strategy, where, axes, section):  # noqa: PLR0913, PLR0917
    if where == "axis":
        axes[name] = draw(st.lists(strategy, min_size=1, max_size=3, unique_by=str))
    elif where == "fixed":
        section[name] = draw(strategy)


@given(documents())
def test_a_space_survives_being_written_out(document):
    space = parse_space(yaml.safe_dump(document))
    assert again(space) == space
    assert keys(again(space)) == keys(space)


@given(documents())
def test_writing_a_space_out_changes_none_of_its_experiments(document):
    """Each cell is what its own fields say, by a plain reading of the document."""
    space = parse_space(yaml.safe_dump(document))
    for cell in space.cells():
        single = {k: v for k, v in document.items() if k != "axes"} | {
            "axes": {axis: [value] for axis, value in cell.coordinates.items()}
        }
        assert parse_space(yaml.safe_dump(single)).cells()[0].key == cell.key


@given(st.floats(1e-5, 1), st.floats(1.5, 1e4), st.integers(2, 9))
def test_a_log_axis_is_geometric_to_six_digits_and_holds_its_bounds(low, factor, steps):
    low = float(f"{low:.3g}")
    high = float(f"{low * factor:.3g}")
    text = with_axes(f"{{lr: {{log: [{low!r}, {high!r}], steps: {steps}}}, batch_size: [4]}}")
    values = [cell.first.train.lr for cell in parse_space(text).cells()]
    assert (values[0], values[-1], len(values)) == (low, high, steps)
    assert np.diff(np.log(values)) == pytest.approx(np.log(high / low) / (steps - 1), rel=1e-3, abs=2e-5)


def test_ranges_by_hand():
    def axis(name, given):
        return [cell.coordinates[name] for cell in parse_space(with_axes(f"{{{name}: {given}, {rest[name]}}}")).cells()]

    rest = {"lr": "batch_size: [4]", "batch_size": "lr: [0.1]"}
    assert axis("lr", "{log: [0.001, 1], steps: 4}") == [0.001, 0.01, 0.1, 1.0]
    assert axis("lr", "{log: [1e-3, 1e-1], steps: 3}") == [0.001, 0.01, 0.1]
    assert axis("lr", "{linear: [0.1, 0.3], steps: 3}") == [0.1, 0.2, 0.3]
    assert axis("batch_size", "{linear: [4, 16], steps: 3}") == [4, 10, 16]
    assert axis("batch_size", "{log: [2, 32], steps: 5}") == [2, 4, 8, 16, 32]
    assert axis("lr", "{log: [1, 0.01], steps: 3}") == [1, 0.1, 0.01]


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), ("2E+1", 20.0), ("1.5e-2", 0.015), ("-1e0", -1.0)])
def test_exponents_without_a_point_are_numbers(text, value):
    # PyYAML alone reads 1e-3 as text.
    good = parse_space(GOOD, sets=[f"axes.lr=[{text}]"]) if value > 0 else None
    if good:
        assert good.axes["lr"] == (value,)
    else:
        assert problems(GOOD, f"axes.lr=[{text}]") == ["command line: axes.lr[0]: should be greater than 0, got -1.0"]


def test_sections_and_axis_values_may_be_given_by_name_alone():
    short = parse_space(
        "name: s\ndataset: digits\nmodel: mlp\ntrain: {epochs: 1, batch_size: 4}\naxes: {lr: [1], shift: [none]}"
    )
    long = parse_space(
        "name: s\ndataset: {name: digits}\nmodel: {name: mlp}\ntrain: {epochs: 1, batch_size: 4}\n"
        "axes: {lr: [1.0], shift: [{kind: none}]}"
    )
    assert keys(short) == keys(long)


def test_defaults_of_a_shift_follow_each_cells_own_kind():
    space = parse_space(with_axes("{lr: [0.1], batch_size: [4], kind: [none, covariate, label]}"))
    shifts = [cell.first.shift for cell in space.cells()]
    assert [(s.kind, s.severity, s.skew) for s in shifts] == [
        ("none", 0.0, None),
        ("covariate", 1.0, None),
        ("label", 1.0, "ratio"),
    ]
    assert keys(again(space)) == keys(space)


@pytest.mark.parametrize(
    ("sets", "read", "value"),
    [
        (["train.epochs=7"], lambda s: s.cells()[0].first.train.epochs, 7),
        (["axes.lr=[0.5]"], lambda s: [c.first.train.lr for c in s.cells()], [0.5] * 4),
        (["replicates=9"], lambda s: s.replicates, 9),
        (["dataset.train=300"], lambda s: s.cells()[0].first.dataset.train, 300),
        (["dataset=mnist"], lambda s: s.cells()[0].first.dataset.name, "mnist"),
        (["train.engine=loop"], lambda s: s.fixed["train"]["engine"], "loop"),
        (
            ["measure={lambdas: 9}", "measure.refinements=2"],
            lambda s: (s.measure.lambdas, s.measure.refinements),
            (9, 2),
        ),
        (["verdict.threshold=0.05"], lambda s: s.verdict.threshold, 0.05),
        ([" seed = 12 "], lambda s: s.seed, 12),
        (["seed=1", "seed=2"], lambda s: s.seed, 2),
    ],
)
def test_overrides_replace_what_the_file_says(sets, read, value):
    assert read(parse_space(GOOD, sets=sets)) == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "--set epochs: write it as key=value, e.g. train.epochs=3"),
        ("=3", "--set =3: write it as key=value"),
        ("train..epochs=3", "--set train..epochs=3: write it as key=value"),
        ("train.epochs=[1", "--set train.epochs=[1: the value is not valid YAML"),
        ("name.x=1", "--set name.x=1: name is not a mapping"),
        ("train.epochs=0", "command line: train.epochs: should be greater than or equal to 1, got 0"),
        ("train.epoch=3", "command line: train.epoch: unknown key 'epoch'; did you mean epochs?"),
        ("axis.lr=[1]", "command line: axis: unknown key 'axis'; did you mean axes?"),
        ("axes.lr=[]", "command line: axes.lr: an axis needs at least one value"),
        ("axes.lr=[0.1, 0]", "command line: axes.lr[1]: should be greater than 0, got 0"),
        ("train.lr=0.3", "command line: train.lr: is varied by axes.lr; to fix it, say axes.lr=[0.3]"),
        ("dataset=mnst", "command line: dataset.name: unknown data set 'mnst'; did you mean mnist?"),
    ],
)
def test_a_bad_override_says_so(override, message):
    (problem,) = problems(GOOD, override)
    assert problem.startswith(message)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("epochs: 2", "epoch: 2"), ["s.yaml:5: train.epoch: unknown key 'epoch'; did you mean epochs?"]),
        (("replicates: 3", "replicates: 0"), ["s.yaml:11: replicates: should be greater than or equal to 1, got 0"]),
        (("replicates: 3", "replicate: 3"), ["s.yaml:11: replicate: unknown key 'replicate'; did you mean replicates?"]),
        (("dataset: digits", "dataset: digit"), ["s.yaml:2: dataset.name: unknown data set 'digit'; did you mean digits?"]),
        (("dataset: digits", "dataset: {name: [digits]}"), ["s.yaml:2: dataset.name: should be text, got ['digits']"]),
        (("dataset: digits", "dataset: 3"), ["s.yaml:2: dataset: write a mapping, e.g. dataset: {name: digits}; got 3"]),
        (("hidden: [8]", "widths: [8]"), ["s.yaml:3: model.widths: unknown key 'widths'; did you mean hidden?"]),
        (
            ("name: mlp", "name: cnn"),
            ["s.yaml:3: model.name: unknown model 'cnn'; choose from mlp, vgg, resnet, vit, gpt, factory"],
        ),
        (("name: mlp", "name: mpl"), ["s.yaml:3: model.name: unknown model 'mpl'; did you mean mlp?"]),
        (("lambdas: 7", "lambdas: 8"), ["s.yaml:13: measure: lambdas must be odd so that λ = ½ is on the grid; use 9"]),
        (("lambdas: 7", "lambda: 7"), ["s.yaml:13: measure.lambda: unknown key 'lambda'; did you mean lambdas?"]),
        (("of: test_error", "of: test_eror"), ["s.yaml:14: verdict.of: should be 'test_error', 'test_loss', 'train_error' or 'train_loss', got 'test_eror'; did you mean test_error?"]),
        (("momentum: 0.9", "momentum: 1.5"), ["s.yaml:6: train.momentum: should be less than 1, got 1.5"]),
        (("momentum: 0.9", "lr: 0.9"), ["s.yaml:6: train.lr: is fixed here and varied by axes.lr; remove one of them"]),
        (("momentum: 0.9", "engine: lop"), ["s.yaml:6: train.engine: should be 'auto', 'loop' or 'stacked', got 'lop'; did you mean loop?"]),
        (("lr: [0.1, 0.2]", "lr: [0.1, x]"), ["s.yaml:8: axes.lr[1]: should be a number, got 'x'"]),
        (("lr: [0.1, 0.2]", "lr: 0.1"), ["s.yaml:8: axes.lr: write a list, {log: [low, high], steps: n} or {linear: ...}; got 0.1"]),
        (("lr: [0.1, 0.2]", "lr: {log: [0, 1], steps: 3}"), ["s.yaml:8: axes.lr: needs two numbers above 0 and steps of at least 2; got {'log': [0, 1], 'steps': 3}"]),
        (("lr: [0.1, 0.2]", "lr: {linear: [0, 1], steps: 1}"), ["s.yaml:8: axes.lr: needs two numbers and steps of at least 2; got {'linear': [0, 1], 'steps': 1}"]),
        (("lr: [0.1, 0.2]", "lr: {linear: [0, .inf], steps: 3}"), ["s.yaml:8: axes.lr: needs two numbers and steps of at least 2; got {'linear': [0, inf], 'steps': 3}"]),
        (("lr: [0.1, 0.2]", "lr: []"), ["s.yaml:8: axes.lr: an axis needs at least one value"]),
        (("lr: [0.1, 0.2]", "lr: [0.1, 0.10]"), ["s.yaml:8: axes.lr[1]: 0.1 is given twice; remove one of them"]),
        (("lr: [0.1", "rl: [1]\n  lr: [0.1"), ["s.yaml:8: axes.rl: unknown axis; did you mean lr?"]),
        (("batch_size: [16, 32]", "batch_size: [16, 800]"), ["s.yaml:9: axes.batch_size[1]: 800 is above the 718 examples that a member sees (half of the training set); lower it or raise dataset.train"]),
        (("ratio: 0.8}", "ratio: 1.8}"), ["s.yaml:10: axes.shift[1]: ratio must be between 0.5 (no skew) and 1 (disjoint classes), got 1.8"]),
        (("ratio: 0.8}", "rtio: 0.8}"), ["s.yaml:10: axes.shift[1].rtio: unknown key 'rtio'; did you mean ratio?"]),
        (("[covariate, {", "[[covariate], {"), ["s.yaml:10: axes.shift[0]: write a mapping, e.g. {kind: label, severity: 0.6}; got ['covariate']"]),
        (("shift: [", "severity: [0.5]\n  shift: ["), ["s.yaml:11: axes.shift[1].ratio: is given here and varied by axes.severity; remove one"]),
        (("seed: 4", "shift: {kind: none}"), ["s.yaml:12: shift.kind: is fixed here and varied by axes.shift; remove one of them"]),
        (("dataset: digits", "dataset: {name: digits, test: 361}"), ["s.yaml:2: dataset.test: digits has 360 test examples; ask for no more"]),
        (("dataset: digits", "dataset: {name: digits, train: 1400, validation: 100}"), ["s.yaml:2: dataset.train: digits has 1437 training examples, of which 100 are held out for validation; ask for 1337 at most"]),
        (("  lr: [0.1, 0.2]\n", ""), ["s.yaml:4: train.lr: is missing: give it a value here or vary it with axes.lr"]),
        (("seed: 4", "seed: 4\nseed: 5"), ["s.yaml:13: seed: is given twice; YAML would keep the last"]),
        (("  momentum: 0.9", "  epochs: 3"), ["s.yaml:6: train.epochs: is given twice; YAML would keep the last"]),
        (("name: study", "name: a/b"), ["s.yaml:1: name: 'a/b' cannot name a run folder; use letters, digits, '-' and '_'"]),
        (("{name: mlp, hidden: [8]}", "{name: vgg, depth: 12}"), ["s.yaml:3: model.depth: should be 11, 13 or 16, got 12"]),
        (("{name: mlp, hidden: [8]}", "{name: resnet, hidden: [8]}"), ["s.yaml:3: model.hidden: unknown key 'hidden'; resnet has none"]),
        (("momentum: 0.9", "dropout: 0.1"), ["s.yaml:6: train.dropout: unknown key 'dropout'; it belongs to model"]),
        (("momentum: 0.9", "spawn_epoch: 2"), ["s.yaml:4: train: spawn_epoch 2 leaves none of 2 epochs to train apart; lower it or raise epochs"]),
        (("momentum: 0.9", "amp: true"), ["s.yaml:6: train.amp: unknown key 'amp'; did you mean precision?"]),
        (("momentum: 0.9", "crop: 8"), ["s.yaml:6: train.crop: 8 would move images of digits, 8x8, out of sight; use 7 at most"]),
        (("seed: 4", "engine: loop"), ["s.yaml:12: engine: unknown key 'engine'; did you mean train.engine?"]),
        (("lr: [0.1, 0.2]", "lr: [0.1, 0.2]\n  engine: [loop]"), ["s.yaml:9: axes.engine: cannot be varied; set train.engine"]),
        (("{name: mlp, hidden: [8]}", "{factory: nowhere}"), ["s.yaml:3: model.factory: write it as package.module:function, got 'nowhere'"]),
        (("{name: mlp, hidden: [8]}", "{name: vgg}"), ["s.yaml:3: model: vgg halves its input five times and needs images of 32x32; digits has 8x8"]),
        (("{name: mlp, hidden: [8]}", "{name: vit, patch: 3}"), ["s.yaml:3: model: vit needs square images that patches of 3 divide; digits has 8x8"]),
        (("hidden: [8]", "hidden: 8"), ["s.yaml:3: model.hidden: write a list, e.g. [8]; got 8"]),
        (("momentum: 0.9", "learning_rate: 0.9"), ["s.yaml:6: train.learning_rate: unknown key 'learning_rate'; did you mean lr?"]),
        (("seed: 4", "lr: 0.1"), ["s.yaml:12: lr: unknown key 'lr'; did you mean train.lr or axes.lr?"]),
        (("seed: 4", "hiden: [8]"), ["s.yaml:12: hiden: unknown key 'hiden'; did you mean model.hidden or axes.hidden?"]),
        (("momentum: 0.9", "steps: 9"), ["s.yaml:4: train: set exactly one of epochs and steps, and leave the other out (or null)"]),
    ],
)  # fmt: skip
def test_every_mistake_names_its_line_its_place_the_value_and_the_nearest_name(change, expected):
    text = GOOD.replace(*change)
    assert text != GOOD
    found = problems(text)
    assert found == expected


@pytest.mark.parametrize(
    ("shift", "axis", "cells"),
    [
        ("{kind: label}", "ratio: [0.6, 0.8]", "[{kind: label, ratio: 0.6}, {kind: label, ratio: 0.8}]"),
        ("{kind: label, skew: ratio}", "ratio: {linear: [0.6, 1], steps: 2}", "[{kind: label, ratio: 0.6}, {kind: label, ratio: 1}]"),
        ("{kind: label}", "alpha: [0.5, 2]", "[{kind: label, alpha: 0.5}, {kind: label, alpha: 2}]"),
        ("{kind: domain, severity: 0.5}", "bands: [[[0], [1]], [[0, 1], [2]]]", "[{kind: domain, severity: 0.5, bands: [[0], [1]]}, {kind: domain, severity: 0.5, bands: [[0, 1], [2]]}]"),
    ],
)  # fmt: skip
def test_a_short_form_is_an_axis_whose_cells_are_those_of_its_shifts(shift, axis, cells):
    head = "name: s\ndataset: cifar10\ntrain: {epochs: 1, lr: 0.1, batch_size: 4}\n"
    short = parse_space(with_axes(f"{{{axis}}}", f"{head}shift: {shift}\n"))
    assert keys(short) == keys(parse_space(with_axes(f"{{shift: {cells}}}", head)))
    assert again(short) == short
    whole = parse_space(with_axes(f"{{shift: [{shift}], {axis}}}", head))
    assert (keys(whole), again(whole)) == (keys(short), whole)


@pytest.mark.parametrize(
    ("shift", "axes", "expected"),
    [
        ("{kind: label}", "ratio: [0.6, 1.8, x]", ["s.yaml:4: axes.ratio[1]: ratio must be between 0.5 (no skew) and 1 (disjoint classes), got 1.8", "s.yaml:4: axes.ratio[2]: ratio must be a number, got 'x'"]),
        ("{kind: label, severity: 0.2}", "ratio: [0.6]", ["s.yaml:3: shift.severity: is fixed here and varied by axes.ratio; remove one of them"]),
        ("{kind: label}", "ratio: [0.6], severity: [0.1]", ["s.yaml:4: axes.severity: varies what axes.ratio varies; remove one of them"]),
        ("{kind: label, skew: dirichlet}", "ratio: [0.6]", ["s.yaml:3: shift: ratio already sets skew and severity; keep one of them"]),
        ("{kind: domain}", "bands: [[[0], [1]]]", ["s.yaml:4: axes.bands[0]: digits has no band 1; its bands are 0"]),
        ("covariate", "ratio: [0.6]", ["s.yaml:3: shift: skew, ratio and alpha belong to kind: label, not covariate; write shift: {kind: label}"]),
        ("", "ratio: [0.6]", ["s.yaml:4: axes.ratio[0]: skew, ratio and alpha belong to kind: label, not covariate; write shift: {kind: label}"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_short_form_is_said_where_it_was_written(shift, axes, expected):
    third = f"shift: {shift}" if shift else "seed: 0"
    assert problems(f"name: s\ntrain: {{epochs: 1, lr: 0.1, batch_size: 4}}\n{third}\naxes: {{{axes}}}\n") == expected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("axes: {rati: [0.6]}", "axes.rati: unknown axis; did you mean ratio?"),
        ("axes: {trains: [100]}", "axes.trains: unknown axis; did you mean train?"),
        ("axes: {sevrity: [0.5]}", "axes.sevrity: unknown axis; did you mean severity?"),
        ("axes: {code: [x]}", "axes.code: unknown axis; did you mean model?"),
        ("axs: {batch_size: [4]}", "axs: unknown key 'axs'; did you mean axes?"),
    ],
)
def test_a_guessed_name_is_not_checked_as_if_it_were_written(line, said):
    """What the guess would contradict (dataset.train, shift.severity) and what it would give are not spoken of."""
    text = "name: s\ndataset: {name: digits, train: 200}\nshift: {severity: 0.5}\ntrain: {epochs: 1, lr: 0.1, batch_size: 4}\n"
    assert problems(text + line) == [f"s.yaml:5: {said}"]


def test_a_section_whose_name_is_misspelt_is_not_missing():
    found = problems("name: s\ntrian: {epochs: 1, lr: 0.1, batch_size: 4}\nmodel: {hidden: []}\naxes: {norm: [none]}\n")
    assert [problem.split(":")[1] for problem in found] == ["2", "3"]
    assert "did you mean train?" in found[0]


def test_all_problems_are_reported_at_once():
    text = GOOD.replace("epochs: 2", "epochs: 0").replace("[16, 32]", "[0]").replace("seed: 4", "sed: 4")
    text = text.replace("barrier: chord", "barrier: cord").replace("dataset: digits", "dataset: diggits")
    lines = sorted(int(problem.split(":")[1]) for problem in problems(text))
    assert lines == [2, 5, 9, 12, 14]


@pytest.mark.parametrize("axis", ["lr: []", "lr: 0.1", "lrr: [0.1]"])
def test_an_axis_without_usable_values_hides_no_other_problem(axis):
    """And what it was to vary is not called missing."""
    text = (
        GOOD.replace("lr: [0.1, 0.2]", axis)
        .replace("momentum: 0.9", "momentum: 2")
        .replace("hidden: [8]", "hidden: []")
    )
    assert sorted(problem.split(":")[1] for problem in problems(text)) == ["3", "6", "8"]


def test_an_impossible_combination_of_possible_values_is_refused():
    text = with_axes("{lr: [0.1], batch_size: [4], optimizer: [sgd, adam], momentum: [0, 0.9]}")
    message = "s.yaml:3: axes: a combination of values is impossible: momentum belongs to sgd; adam has its own moments"
    assert problems(text)[0].startswith(message)
    text = with_axes("{lr: [0.1], batch_size: [2, 1], norm: [none, batch]}")
    assert "norm: batch has no statistics in a batch of 1" in problems(text)[0]


def test_an_axis_that_would_overrule_another_is_refused():
    text = with_axes("{lr: [0.1], batch_size: [4], shift: [{kind: label, severity: 0.6}], severity: [0.1, 0.2]}")
    assert problems(text) == ["s.yaml:3: axes.shift[0].severity: is given here and varied by axes.severity; remove one"]


def test_experiments_that_coincide_after_filling_in_defaults_are_refused():
    text = with_axes("{lr: [0.1], batch_size: [4], shift: [{kind: label, ratio: 0.8}, {kind: label, severity: 0.6}]}")
    assert "two cells are the same experiment" in problems(text)[0]
    text = with_axes("{lr: [0.1], batch_size: [4], shift: [none, {kind: covariate, severity: 0}]}")
    assert len(parse_space(text).cells()) == 2  # the same data in effect, but two kinds that the user named


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "s.yaml:1: a search space is a mapping that starts with name:"),
        ("- a\n- b", "s.yaml:1: a search space is a mapping that starts with name:"),
        ("just text", "s.yaml:1: a search space is a mapping that starts with name:"),
        ("name: s\naxes: {lr: [1\n", "s.yaml:3: not valid YAML: expected ',' or ']'"),
        ("name: s\n\tx: 1", "s.yaml:2: not valid YAML: found character '\\t' that cannot start any token"),
        (
            "name: s\ntrain: {epochs: 1, batch_size: 4}\n",
            "s.yaml:1: axes: name at least one axis, e.g. lr: [0.01, 0.1]",
        ),
        ("name: s\ntrain: {epochs: 1}\naxes: [lr]\n", "s.yaml:3: axes: name at least one axis"),
        ("train: {epochs: 1}\naxes: {lr: [1], batch_size: [4]}\n", "s.yaml:1: name: is missing"),
    ],
)
def test_a_document_that_is_no_space_is_refused(text, message):
    assert any(problem.startswith(message) for problem in problems(text))


def test_the_nearest_preset_is_named_when_a_file_is_not_there(tmp_path):
    with pytest.raises(SpaceError, match=r"^quikstart: no such file and no such preset; did you mean quickstart\?$"):
        read_space("quikstart")
    with pytest.raises(SpaceError, match=r"no such file and no such preset; the presets are .*quickstart"):
        read_space(str(tmp_path / "zzz"))


def test_a_folder_is_no_space_but_may_hold_one(tmp_path):
    with pytest.raises(SpaceError, match="is a folder; name a YAML file or a preset"):
        read_space(str(tmp_path))
    (tmp_path / "space.yaml").write_text(GOOD)
    with pytest.raises(SpaceError, match=re.escape(f"its space is {tmp_path / 'space.yaml'}")):
        read_space(str(tmp_path))


def test_a_file_is_read_with_its_own_name_in_messages(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    assert keys(read_space(str(path))) == keys(parse_space(GOOD))
    path.write_text(GOOD.replace("seed: 4", "seed: x"))
    with pytest.raises(SpaceError, match=r"^mine\.yaml:12: seed: should be a whole number"):
        read_space(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpaceError, match=f"{re.escape(str(path))}: cannot be read as text"):
        read_space(str(path))


@pytest.mark.parametrize("name", DATASETS)
def test_a_member_sees_half_of_what_is_left_to_train_on(name):
    facts = DATASETS[name]
    assert part_size(DatasetSpec(name=name), ShiftSpec()) == facts.n_train // 2
    assert part_size(DatasetSpec(name=name, validation=101), ShiftSpec()) == (facts.n_train - 101) // 2
    assert part_size(DatasetSpec(name=name, train=77, validation=101), ShiftSpec()) == 38


def test_the_batch_may_be_as_large_as_the_part_and_no_larger():
    head = "name: s\ndataset: {name: digits, train: 100}\ntrain: {epochs: 1}\n"
    assert parse_space(with_axes("{lr: [0.1], batch_size: [50]}", head)).cells()
    assert "51 is above the 50 examples" in problems(with_axes("{lr: [0.1], batch_size: [51]}", head))[0]


def test_an_alias_inside_what_it_names_is_refused():
    with pytest.raises(SpaceError, match=r"an alias \(\*name\) is inside what it names"):
        parse_space("name: x\naxes: &a\n  lr: [*a]\n")


def levels(first: str, line: str) -> str:
    """A few lines of aliases of aliases, ten at each of eleven levels."""
    return first + "".join(line.format(at=at, ten=", ".join([f"*a{at - 1}"] * 10)) for at in range(1, 12))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (levels("a0: &a0 [x]\n", "a{at}: &a{at} [{ten}]\n"), "s.yaml:10: too large: more than 300000 values"),
        (levels("a0: &a0 {k: v}\n", "a{at}: &a{at}\n  <<: [{ten}]\n"), "s.yaml:14: too large: more than 300000"),
        (f"seed: {'[' * 100_000}", "s.yaml:1: nested too deep"),
        (f"seed: {'{a: ' * 100_000}", "s.yaml:1: nested too deep"),
        (f"seed: {'9' * 5000}", "s.yaml:4: not valid YAML: Exceeds the limit (4300 digits)"),
        (f"seed: 0x{'f' * 5000}", "s.yaml:4: not valid YAML: a whole number of more than 63 bits"),
        ("seed: 2024-13-45", "s.yaml:4: seed: should be a whole number, got '2024-13-45'"),
        ("replicates: 1000000000000", "s.yaml:3: axes: 1000000000000 pairs in all; one sweep has 1000000 at most"),
        ("x: \x1b[2J", "s.yaml:1: not valid YAML: unacceptable character #x001b"),
    ],
)
def test_a_small_text_that_stands_for_a_huge_one_is_refused_with_one_message(line, said):
    """In a process of its own, with a bound: one that is not refused takes all memory, or for ever."""
    text = f"name: s\ntrain: {{epochs: 1, batch_size: 4}}\naxes: {{lr: [0.1]}}\n{line}\n"
    code = "import sys; from lmc_tune.experiment.reading import *\ntry: parse_space(sys.stdin.read(), 's.yaml')\n"
    code = f"import resource; resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))\n{code}"
    code += "except SpaceError as error: print(error)"
    done = subprocess.run(
        [sys.executable, "-c", code], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.startswith(said), done
    assert len(done.stdout) < 500


@pytest.mark.parametrize("axis", ["{log: [0.001, 1], steps: 1000000000}", f"[{', '.join(map(str, range(20_000)))}]"])
def test_an_axis_has_ten_thousand_values_at_most(axis):
    (problem,) = problems(with_axes(f"{{batch_size: [4], lr: {axis}}}"))
    assert re.match(r"s\.yaml:3: axes\.lr: \d+ (steps|values) on an axis; \w+( for)? 10000 at most", problem)


def test_a_message_about_a_long_value_is_short():
    (problem,) = problems(GOOD.replace("name: study", f"name: {'x' * 10_000}"))
    assert problem == "s.yaml:1: name: has 10000 characters, which are too many; use 120 at most"
    (problem,) = problems(GOOD.replace("seed: 4", f"seed: {'x' * 10_000}"))
    assert problem.startswith("s.yaml:12: seed: should be a whole number, got 'xxx")
    assert len(problem) < 1100


def test_aliases_and_merged_keys_stay_usable():
    space = parse_space(
        GOOD.replace("model: {name: mlp, hidden: [8]}\n", "").replace(
            "axes:\n", "axes:\n  model: [&small {name: mlp, hidden: [8]}, {<<: *small, norm: layer}]\n"
        )
    )
    assert [cell.first.model.norm for cell in space.cells()[::8]] == ["none", "layer"]
    assert {cell.first.model.hidden for cell in space.cells()} == {(8,)}


@pytest.mark.parametrize("line", ["axes:\n  lr: [true]", "replicates: true\naxes:\n  lr: [0.1]"])
def test_a_boolean_is_not_a_number(line):
    with pytest.raises(SpaceError, match=r"should be a (whole )?number, got true"):
        parse_space(f"name: x\ntrain: {{epochs: 1, batch_size: 8}}\n{line}\n")


@pytest.mark.parametrize(
    "name", ["..", ".", "a/b", "", "../x", "/etc/x", "a\\b", "a\0b", "a\nb", "a\x1b[2J", "\u202etxt.exe", "x" * 121]
)
def test_a_name_that_is_no_folder_is_refused(name):
    text = "train: {epochs: 1, batch_size: 8}\naxes: {lr: [0.1]}\n"
    for document, sets in (
        (f"name: {json.dumps(name)}\n{text}", []),
        (f"name: s\n{text}", [f"name={json.dumps(name)}"]),
    ):
        with pytest.raises(SpaceError, match="name: "):
            parse_space(document, sets=sets)


@pytest.mark.parametrize(
    ("model", "conditions"),
    [
        ("mlp", [("naive",)]),
        ("{name: mlp, norm: batch}", [("naive", "recalibrated")]),
        ("[mlp, {name: mlp, norm: batch}]", [("naive",), ("naive", "recalibrated")]),
        ("{factory: 'm:f'}", [("naive", "recalibrated")]),  # whatever it has
    ],
)
def test_statistics_are_recalibrated_and_judged_so_where_there_is_batch_norm(model, conditions):
    axes = f"{{model: {model}, lr: [0.1]}}" if model.startswith("[") else "{lr: [0.1]}"
    fixed = "" if model.startswith("[") else f"model: {model}\n"
    text = with_axes(axes, f"name: s\ntrain: {{epochs: 1, batch_size: 2}}\n{fixed}")
    space = parse_space(text)
    assert space.verdict.condition == "recalibrated"
    assert [space.measure.of(cell.first.model).conditions for cell in space.cells()] == conditions
    assert keys(again(space)) == keys(space)


@pytest.mark.parametrize(
    ("model", "tail", "said"),
    [
        ("mlp", "measure: {conditions: [recalibrated]}", "measure.conditions: conditions must include naive: the others are compared with it"),
        ("mlp", "measure: {conditions: [naive, recalibrated]}", "measure.conditions: recalibrated would change nothing: no network of the space has BatchNorm; say norm: batch, or leave it out"),
        ("mlp", "measure: {conditions: [naive, endpoint, recalibrated]}", "measure.conditions: endpoint and recalibrated would change nothing: no network of the space has BatchNorm; say norm: batch, or leave them out"),
        ("mlp", "verdict: {condition: repaired}", "verdict.condition: repaired is not measured; add it to measure.conditions, or judge naive"),
        ("mlp", "verdict: {condition: aligned}", "verdict.condition: aligned is not measured; say measure.alignment: {by: weights}, or judge naive"),
        ("mlp", "verdict: {condition: aligned + recalibrated}", "verdict.condition: aligned + recalibrated is not measured; say measure.alignment: {by: weights}, or judge naive"),
        ("{name: vgg, norm: group}", "verdict: {condition: aligned}", "verdict.condition: aligned is not measured: no network of the space has units that can be permuted; say another norm, or judge naive"),
        ("{name: vgg, norm: group}", "measure: {alignment: {by: weights}}", "measure.alignment: would change nothing: no unit can be permuted between the groups of norm: group; leave it out"),
        ("mlp", "measure: {alignment: weights}", "measure.alignment: write a mapping, e.g. alignment: {by: weights, restarts: 5}; got 'weights'"),
        ("mlp", "measure: {alignment: {by: weight}}", "measure.alignment.by: should be 'weights' or 'activations', got 'weight'; did you mean weights?"),
        ("mlp", "measure: {alignment: {restart: 3}}", "measure.alignment.restart: unknown key 'restart'; did you mean restarts?"),
        ("mlp", "measure: {aligment: {by: weights}}", "measure.aligment: unknown key 'aligment'; did you mean alignment?"),
        ("mlp", "measure: {alignment: {restarts: 0}}", "measure.alignment.restarts: should be greater than or equal to 1, got 0"),
        ("mlp", "measure: {alignment: {by: activations, restarts: 2}}", "measure.alignment.restarts: is for by: weights; activations are matched in one step, so leave it out"),
        ("mlp", "measure: {conditions: [naive, aligned]}", "measure.conditions: aligned is added by measure.alignment, e.g. alignment: {by: weights}"),
        ("mlp", "measure: {layers: {conditions: [recalibrated]}}", "measure.layers.conditions: recalibrated is not measured: no network of the space has BatchNorm; say norm: batch, or ask naive"),
        ("mlp", "measure: {layers: {conditions: [naive, repaired]}}", "measure.layers.conditions: repaired is not measured; add it to measure.conditions, or ask naive"),
        ("resnet", "measure: {layers: {conditions: [endpoint]}}", "measure.layers.conditions: endpoint is not measured; add it to measure.conditions, or ask naive or recalibrated"),
        ("mlp", "measure: {layers: {conditions: [aligned]}}", "measure.layers.conditions: aligned is not measured; say measure.alignment: {by: weights}, or ask naive"),
        ("resnet", "measure: {conditions: [naive, endpoint]}", "measure.conditions: recalibrated is not measured; add it to measure.conditions, or judge naive or endpoint"),
    ],
)  # fmt: skip
def test_conditions_that_make_no_sense_are_refused(model, tail, said):
    (problem,) = problems(
        f"name: s\ndataset: cifar10\nmodel: {model}\ntrain: {{epochs: 1}}\naxes: {{lr: [0.1], batch_size: [2]}}\n{tail}"
    )
    assert problem.removeprefix("s.yaml:6: ").removeprefix("s.yaml:1: ") == said.replace(
        "measure.conditions: recalibrated is", "verdict.condition: recalibrated is"
    )


# What is a mapping, and the example that a message has of it.
MAPPINGS = {
    "dataset": "{name: digits}",
    "model": "{name: mlp, hidden: [64]}",
    "train": "{lr: 0.1, batch_size: 32, epochs: 20}",
    "shift": "{kind: label, severity: 0.6}",
    "b": "{lr: 0.03}",
    "perturb": "{step: 0, scale: 0.1}",
    "federated": "{clients: 20, rounds: 10}",
    "verdict": "{threshold: 0.02}",
    "measure": "{lambdas: 25}",
    "measure.layers": "{families: [single]}",
    "measure.layers.groups": "{attention: '*attention*'}",
    "measure.alignment": "{by: weights, restarts: 5}",
    "measure.directions": "{random: {draws: 5}}",
    "measure.directions.random": "{draws: 5}",
    "measure.directions.noise": "{kinds: [path]}",
    "measure.directions.sharpness": "{examples: 1000}",
    "measure.planes": "{through: [a, b, start]}",
}


# What a space with these sections has besides, if not WHOLE.
WHOLE = "train: {lr: 0.1, batch_size: 32, epochs: 1}"
BESIDES = {"train": "", "federated": "train: {lr: 0.1, batch_size: 32}", "perturb": f"{WHOLE}\nshift: none"}


def written(place: str, value: str) -> str:
    """A space with a value on its first line, and all else that it needs."""
    section, *inside = place.split(".")
    for name in reversed(inside):
        value = f"{{{name}: {value}}}"
    rest = BESIDES.get(section, WHOLE)
    return f"{section}: {value}\nname: s\naxes: {{momentum: [0.5], weight_decay: [0]}}\n{rest}"


@pytest.mark.parametrize("wrong", ["5", "[]", "true"])
@pytest.mark.parametrize(("place", "example"), MAPPINGS.items())
def test_what_is_no_mapping_is_refused_with_an_example(place, example, wrong):
    name = place.rpartition(".")[2]
    said = f"write a mapping, e.g. {name}: {example}; got {wrong}"
    assert problems(written(place, wrong)) == [f"s.yaml:1: {place}: {said}"]


@pytest.mark.parametrize(("place", "example"), MAPPINGS.items())
def test_the_example_of_a_mapping_can_be_written_there(place, example):
    assert parse_space(written(place, example))


@pytest.mark.parametrize(
    ("place", "name"), [("train", "sgd"), ("verdict", "chord"), ("federated", "iid"), ("b", "adam")]
)
def test_only_what_has_a_name_is_written_as_its_name(place, name):
    (problem,) = problems(written(place, name))
    assert problem.endswith(f"{MAPPINGS[place]}; got {name!r}")


def test_an_axis_of_mappings_shows_how_one_is_written_in_its_list():
    (problem,) = problems(with_axes("{b: [5], lr: [0.1], batch_size: [2]}"))
    assert problem == "s.yaml:3: axes.b[0]: write a mapping, e.g. {lr: 0.03}; got 5"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("directions: 5", "measure.directions: write a mapping, e.g. directions: {random: {draws: 5}}; got 5"),
        ("directions: {draws: 5}", "measure.directions.draws: unknown key 'draws'; did you mean measure.directions.random.draws or measure.directions.noise.draws or measure.directions.sharpness.draws or measure.ensemble.draws?"),
        ("noise: {positions: [0.5]}", "measure.noise: unknown key 'noise'; did you mean measure.directions.noise?"),
        ("layers: {snapshots: [1]}", "measure.layers.snapshots: unknown key 'snapshots'; did you mean measure.snapshots?"),
        ("directions: {noize: {}}", "measure.directions.noize: unknown key 'noize'; did you mean noise?"),
        ("directions: {random: null}", "measure.directions: asks nothing: give random, noise or sharpness, e.g. noise: {}"),
        ("directions: {random: {draws: 0}}", "measure.directions.random.draws: should be greater than or equal to 1, got 0"),
        ("directions: {random: {alphas: [0, 1]}}", "measure.directions.random.alphas[0]: should be greater than 0, got 0"),
        ("directions: {random: {alphas: 1}}", "measure.directions.random.alphas: write a list, e.g. [1]; got 1"),
        ("directions: {noise: {}}", "measure: directions.noise in the span of training needs snapshots, e.g. snapshots: [0, 1, 2]; or ask for kinds: [path, isotropic]"),
        ("snapshots: [2], directions: {noise: {}}", "measure.snapshots: epoch 2 comes after the end of every training; name 1 at most, or train for longer"),
        ("directions: {noise: {kinds: [spam, path]}}", "measure.directions.noise.kinds[0]: should be 'path', 'span', 'complement' or 'isotropic', got 'spam'; did you mean span?"),
        ("directions: {noise: {kinds: [path], positions: [1.5, 0.5]}}", "measure.directions.noise.positions[0]: should be less than or equal to 1, got 1.5"),
        ("directions: {splits: [validation, test]}", "measure.directions.splits[0]: should be 'test' or 'train', got 'validation'"),
        ("planes: start", "measure.planes: write a mapping, e.g. planes: {through: [a, b, start]}; got 'start'"),
        ("planes: {through: [a, b, c]}", "measure.planes.through: there is no 'c'; the points are a, b, start"),
        ("planes: {through: [a, b, strat]}", "measure.planes.through: there is no 'strat'; did you mean start?; the points are a, b, start"),
        ("planes: {through: [a, b, a]}", "measure.planes.through: names one point twice, and a plane needs three: a, b, a"),
        ("planes: {points: 2}", "measure.planes.points: should be greater than or equal to 3, got 2"),
    ],
)  # fmt: skip
def test_directions_and_planes_that_cannot_be_measured_are_refused(asked, said):
    (problem,) = problems(f"name: s\ntrain: {{epochs: 1}}\naxes: {{lr: [0.1], batch_size: [2]}}\nmeasure: {{{asked}}}")
    assert problem == f"s.yaml:4: {said}"


def test_layers_are_asked_under_conditions_that_some_network_of_the_space_has():
    """Of the others, layers are left out on purpose."""
    text = "name: s\ntrain: {epochs: 1}\naxes: {lr: [0.1], batch_size: [2], norm: [none, batch]}\n"
    space = parse_space(f"{text}measure: {{layers: {{conditions: [recalibrated]}}}}")
    assert [space.measure.of(cell.first.model).conditions for cell in space.cells()] == [
        *(("naive",), ("naive", "recalibrated")),
    ]


@pytest.mark.parametrize(
    ("train", "measure", "said"),
    [
        ("epochs: 3", "snapshots: [0, 3]", None),
        ("epochs: 3", "snapshots: [0, 4]", "epoch 4 comes after the end of every training; name 3 at most, or train for longer"),
        ("steps: 101", "snapshots: [3]", None),  # 44 steps are an epoch
        ("steps: 101", "snapshots: [4]", "epoch 4 comes after the end of every training; name 3 at most, or train for longer"),
        ("epochs: 3}\nb: {epochs: 5", "snapshots: [5]", None),
        ("epochs: 3}\nb: {epochs: 5", "snapshots: [5], layers: {}", "epoch 5 comes after the end of a member of every pair; name 3 at most, or train for longer"),
        ("epochs: 3}\nb: {epochs: 5", "snapshots: [0, 5], layers: {}, directions: {noise: {}}", None),
    ],
)  # fmt: skip
def test_a_snapshot_that_no_training_comes_to_is_refused(train, measure, said):
    text = f"name: s\naxes: {{lr: [0.1, 0.2], batch_size: [16]}}\nmeasure: {{{measure}}}\ntrain: {{{train}}}\n"
    if said is None:
        assert parse_space(text).measure.snapshots
    else:
        assert problems(text) == [f"s.yaml:3: measure.snapshots: {said}"]


def test_a_snapshot_that_some_training_comes_to_is_taken_of_those():
    text = "name: s\ntrain: {batch_size: 16}\naxes: {lr: [0.1], epochs: [2, 5]}\n"
    assert parse_space(f"{text}measure: {{snapshots: [4], layers: {{}}}}").measure.snapshots == (4,)
    noise = "measure: {snapshots: [4], directions: {noise: {}}}"
    assert problems(text + noise) == [
        "s.yaml:4: measure.snapshots: training of 2 epochs ends before the first, 4, so its span is not known; add 0"
    ]


@pytest.mark.parametrize(
    ("asked", "same"),
    [
        ("directions: {}", "directions: {random: {draws: 5, alphas: [1.0, 0.5, 0.5]}, splits: [test, train]}"),
        ("snapshots: [0, 1], directions: {noise: {}}", "snapshots: [1, 0], directions: {noise: {kinds: [span, path, complement], positions: [1.0, 0.0, 0.5]}}"),
        ("directions: {sharpness: {}}", "directions: {sharpness: {examples: 1000}}"),
        ("planes: {}", "planes: {through: [a, b, start], points: 15}"),
    ],
)  # fmt: skip
def test_equal_questions_have_equal_keys_and_other_questions_others(asked, same):
    text = "name: s\ntrain: {epochs: 1}\naxes: {lr: [0.1], batch_size: [2]}\n"
    one, other, plain = (parse_space(f"{text}measure: {{{said}}}") for said in (asked, same, ""))
    assert one.measure == other.measure
    assert one.measure.key == other.measure.key != plain.measure.key
    assert again(one).measure == one.measure


@pytest.mark.parametrize(
    ("model", "said", "conditions"),
    [
        ("mlp", "", ("naive", "aligned", "aligned + repaired")),
        ("resnet", "", ("naive", "recalibrated", "aligned", "aligned + recalibrated", "aligned + repaired")),
        ("resnet", ", conditions: [naive, endpoint]", ("naive", "endpoint", "aligned", "aligned + recalibrated", "aligned + repaired")),
    ],
)  # fmt: skip
def test_an_alignment_adds_its_conditions_and_any_can_be_judged(model, said, conditions):
    text = f"name: s\ndataset: cifar10\nmodel: {model}\ntrain: {{epochs: 1}}\naxes: {{lr: [0.1], batch_size: [2]}}\n"
    for condition in ("aligned", "aligned + recalibrated", "aligned + repaired"):
        space = parse_space(f"{text}measure: {{alignment: {{by: weights}}{said}}}\nverdict: {{condition: {condition}}}")
        assert space.measure.of(space.cells()[0].first.model).conditions == conditions
        assert again(space).measure == space.measure


@pytest.mark.parametrize(
    ("dataset", "shift", "said"),
    [
        ("cifar10", "{kind: domain}", "kind: domain needs a domain: the name of a corruption or of another data set, or bands: [[0], [1, 2]]"),
        ("cifar10", "{kind: covariate, domain: blur}", "domain and bands belong to kind: domain, not covariate"),
        ("cifar10", "{kind: domain, bands: [[0], [1]], domain: blur}", "bands already set the domain; keep one of them"),
        ("cifar10", "{kind: domain, bands: [[0], [0, 1]]}", "band 0 is given to both members; the two sets must be disjoint"),
        ("cifar10", "{kind: domain, bands: [0, 1]}", "bands are two lists of whole numbers from 0, e.g. [[0], [1, 2]]; got [0, 1]"),
        ("cifar10", "{kind: domain, bands: [[0], [3]]}", "cifar10 has no band 3; its bands are 0, 1, 2"),
        ("mnist", "{kind: domain, domain: colour}", "colour needs red, green and blue; mnist has 1 channel"),
        ("mnist", "{kind: domain, domain: blurr}", "'blurr' is neither a corruption nor a data set; did you mean blur?"),
        ("mnist", "{kind: domain, domain: mnist}", "mnist is the data set itself; name another"),
        ("mnist", "{kind: domain, domain: fashion_mnist}", "the labels of fashion_mnist are articles of clothing, those of mnist digits 0 to 9; name one of the same"),
        ("mnist", "{kind: domain, domain: digits}", "the images of digits are 1x8x8, those of mnist 1x28x28; name one of the same"),
    ],
)  # fmt: skip
def test_domains_that_cannot_be_are_refused(dataset, shift, said):
    (problem,) = problems(
        f"name: s\ndataset: {dataset}\nshift: {shift}\ntrain: {{epochs: 1}}\naxes: {{lr: [0.1], batch_size: [2]}}\n"
    )
    assert problem.endswith(said), problem


def test_augmentation_that_would_bring_hidden_bands_back_is_refused():
    """Contrast mixes the bands, and black borders are not what a hidden band is filled with."""
    text = (
        "name: s\ndataset: cifar10\nshift: {kind: domain, bands: [[0], [1, 2]]}\n"
        "train: {epochs: 1, flip: true%s}\naxes: {lr: [0.1], batch_size: [2]}\n"
    )
    assert parse_space(text % "")
    for train, said in (
        (", crop: 4", "train.crop: crop would bring back"),
        (", jitter: 0.4", "train.jitter: jitter would bring back"),
        (", crop: 4, jitter: 0.4", "train.crop: crop and jitter would bring back"),
    ):
        (problem,) = problems(text % train)
        assert said in problem
    for b, said in (("crop: 4", "b.crop: crop would"), ("jitter: 0.4, lr: 0.3", "b.jitter: jitter would")):
        (problem,) = problems(text % f"}}\nb: {{{b}")
        assert said in problem


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("b: {crop: 8}", "b.crop: 8 would move images of digits, 8x8, out of sight; use 7 at most"),
        ("train: {epochs: 3, crop: 8}", "train.crop: 8 would move images of digits, 8x8, out of sight; use 7 at most"),
        ("b: {batch_size: 101}", "b.batch_size: 101 is above the 100 examples"),
        ("perturb: {step: 30, scale: 1}", "perturb.step: 30 is never reached in training of 30 steps; use 29 at most"),
        ("perturb: {step: 29, scale: 1}", None),
        ("b: {crop: 7, batch_size: 100}", None),
    ],
)
def test_both_members_are_checked_against_what_they_see(rest: str, said: str | None):
    text = (
        "name: s\ndataset: {name: digits, train: 200}\nshift: none\n"
        + ("" if "train:" in rest else "train: {epochs: 3}\n")
        + f"{rest}\naxes: {{lr: [0.1], batch_size: [10]}}\n"
    )
    if said is None:
        assert parse_space(text)
    else:
        (problem,) = problems(text)
        assert said in problem


MULTI_LABEL = """
name: s
dataset: {name: bigearthnet, train: 1000, test: 100}
model: vgg
shift: %s
train: {epochs: 1}
verdict: {min_train_accuracy: %s}
axes: {lr: [0.1], batch_size: [2]}
"""


@pytest.mark.parametrize(
    ("shift", "gate", "said"),
    [
        ("{kind: label, ratio: 0.8}", 0.9, "shift.kind: label skews classes, and an example of bigearthnet may have several; say covariate or domain"),
        ("{kind: domain, domain: mnist}", 0.9, "shift.domain: examples of bigearthnet may have several labels, so it has no partner; name a corruption, or bands"),
        ("{kind: domain, domain: colour}", 0.9, "shift.domain: colour needs red, green and blue; bigearthnet has 12 channels"),
        ("{kind: domain, bands: [[0], [12]]}", 0.9, "shift.domain: bigearthnet has no band 12; its bands are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11"),
        ("{kind: covariate}", 0.5, "verdict.min_train_accuracy: 0.5 is reached on bigearthnet by a network that says no to every label; set it above 0.87"),
    ],
)  # fmt: skip
def test_what_several_labels_per_example_cannot_have_is_refused(shift, gate, said):
    (problem,) = problems(MULTI_LABEL % (shift, gate))
    assert problem.endswith(said), problem


@pytest.mark.parametrize(
    "shift", ["none", "covariate", "{kind: domain, domain: blur}", "{kind: domain, bands: [[0], [11]]}"]
)
def test_several_labels_per_example_can_have_any_other_shift(shift):
    assert parse_space(MULTI_LABEL % (shift, 0.9)).cells()[0].first.dataset.name == "bigearthnet"


@pytest.mark.parametrize(
    ("shift", "label"),
    [
        ("{kind: domain, bands: [[2, 0], [1]]}", "bands 0,2|1"),
        ("{kind: domain, domain: blur, severity: 0.4}", "blur at 0.4"),
    ],
)
def test_a_domain_has_one_spelling(shift, label):
    text = f"name: s\ndataset: cifar10\nshift: {shift}\ntrain: {{epochs: 1}}\naxes: {{lr: [0.1], batch_size: [2]}}\n"
    space = parse_space(text)
    assert space.cells()[0].first.shift.label == label
    assert keys(again(space)) == keys(space)


WITH_CODE = """
name: own
train: {epochs: 1, batch_size: 16}
axes:
  AXIS
  lr: [0.1]
"""
MODELS = "model: [{factory: 'nets:build', arguments: {width: 3}}, {factory: 'others.deep:build'}, {hidden: [4]}]"
FACTORIES = "factory: ['nets:build', 'others.deep:build']"


@pytest.mark.parametrize("axis", [MODELS, FACTORIES])
def test_the_code_of_a_factory_is_part_of_its_pairs_and_stays_with_the_space(tmp_path, monkeypatch, axis):
    """The module lies beside the file, the package in the current folder; nothing of them runs."""
    beside, here = tmp_path / "beside", tmp_path / "here"
    for path in (beside / "nets.py", here / "others/__init__.py", here / "others/deep.py"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raise RuntimeError\n")
    file = beside / "s.yaml"
    file.write_text(WITH_CODE.replace("AXIS", axis))
    monkeypatch.chdir(here)
    space = read_space(str(file))
    codes = [getattr(pair.model, "code", None) for pair in space.pairs()]
    first, second = codes[:2]
    assert (list(first), list(second)) == (["nets.py"], ["others/__init__.py", "others/deep.py"])
    assert keys(again(space)) == keys(space)
    (beside / "nets.py").write_text("raise RuntimeError('tanh')\n")
    changed = read_space(str(file))
    same = [one == other for one, other in zip(keys(space), keys(changed), strict=True)]
    assert same == ([False, True, True] if axis == MODELS else [False, True]) * 5
    assert keys(again(space)) == keys(space), "what was stored stays"


def test_the_code_of_a_factory_cannot_be_given(tmp_path):
    text = with_axes(
        "{lr: [0.1], batch_size: [8]}", "name: s\ntrain: {epochs: 1}\nmodel: {factory: 'm:f', code: {m.py: a}}\n"
    )
    assert problems(text) == ["s.yaml:3: model.code: is filled in when a space is read; leave it out"]


def test_a_space_without_factories_says_nothing_of_code():
    assert "code" not in parse_space(GOOD).plain()


def test_a_factory_that_is_not_here_is_no_reason_not_to_look(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text(WITH_CODE.replace("AXIS", "factory: ['nowhere:build']"))
    assert read_space(str(file)).code == {}
