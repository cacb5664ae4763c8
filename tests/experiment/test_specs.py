import json
import types
import typing
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from lmc_tune.experiment import (
    MODELS,
    Bands,
    Cohort,
    Corruption,
    DatasetSpec,
    GroupSpec,
    MeasureSpec,
    MlpSpec,
    OtherDataset,
    ShiftSpec,
    TextSpec,
    TrainChanges,
    TrainSpec,
    VerdictSpec,
)
from lmc_tune.experiment.text import TextContent
from tests.cases import pair_spec

PLAIN: dict[str, Any] = {
    "dataset": {},
    "model": {},
    "train": {"lr": 0.1, "batch_size": 32, "epochs": 20},
    "shift": {},
    "replicate": 0,
}
BUSY: dict[str, Any] = {
    "dataset": {"name": "cifar10", "train": 10_000, "test": 2000, "validation": 500, "normalise": False},
    "model": {"hidden": [512, 512], "activation": "gelu", "norm": "batch"},
    "train": {
        "lr": 0.3,
        "batch_size": 128,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
        "steps": 1000,
        "schedule": "cosine",
        "warmup": 0.1,
        "noise": "varied",
    },
    "shift": {"kind": "label", "skew": "dirichlet", "severity": 0.5},
    "replicate": 3,
    "seed": 7,
}
# A pair in which every field can be changed alone: a label shift with skew, momentum under nesterov's absence.
WALKED: dict[str, Any] = {
    **PLAIN,
    "shift": {"kind": "label", "severity": 0.5},
    "train": {**PLAIN["train"], "momentum": 0.5},
    "dataset": {"validation": 10},
}
UNIONS = (typing.Union, types.UnionType)
# Fields that only change together with another one.
TOGETHER = {
    ("train", "epochs"): {"epochs": None, "steps": 10},
    ("train", "steps"): {"epochs": None, "steps": 10},
    ("train", "optimizer"): {"optimizer": "adam", "momentum": 0.0},
    ("shift", "kind"): {"kind": "covariate", "skew": None},
    ("shift", "domain"): {"kind": "domain", "skew": None, "domain": "blur"},
}
# Changes no result, and so no key.
FREE = {("train", "engine")}
# The same of the models.
MODELS_TOGETHER: dict[tuple[str, str], dict[str, Any]] = {
    ("vit", "heads"): {"heads": 4},
    ("vit", "dim"): {"dim": 128},
    ("gpt", "heads"): {"heads": 8},
    ("gpt", "dim"): {"dim": 64},
    ("factory", "arguments"): {"arguments": {"depth": 3}},
    ("factory", "code"): {"code": {"package.py": "0123456789abcdef"}},
}
MODELS_SINGLE = {("vit", "norm")}


def pair(content: dict[str, Any]) -> GroupSpec:
    return GroupSpec.model_validate(content)


# Pinned: a change means that finished results are not found again. Raise SCHEMA_VERSION if that is meant.
@pytest.mark.parametrize(("content", "key"), [(PLAIN, "f59e5b676cc34b3a70c8f76c"), (BUSY, "6654ce5884ff430328d7b4cf")])
def test_keys_are_pinned(content, key):
    assert pair(content).key == key


def leaves(model: type[BaseModel], place: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name in model.model_fields:
        kind = kind_of(model, name)
        nested = isinstance(kind, type) and issubclass(kind, BaseModel)
        found += leaves(kind, (*place, name)) if nested else [(*place, name)]
    return found


def kind_of(model: Any, name: str) -> Any:
    """The type of a field; of the data, images."""
    return DatasetSpec if (model, name) == (GroupSpec, "dataset") else model.model_fields[name].annotation


def another(value: Any, annotation: Any) -> Any:
    """A different value that the annotation allows."""
    choices = [choice for kind in kinds(annotation) for choice in typing.get_args(kind)]
    if choices:
        return next(choice for choice in choices if choice != value)
    if value is None:
        return 17
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value, value[-1])
    if isinstance(value, str):
        return value + "x"
    return value + 1 if isinstance(value, int) else value + 0.125


def kinds(annotation: Any) -> list[Any]:
    """The Literal types among the alternatives of an annotation."""
    alternatives = typing.get_args(annotation) if typing.get_origin(annotation) in UNIONS else (annotation,)
    return [kind for kind in alternatives if typing.get_origin(kind) is Literal]


@pytest.mark.parametrize(
    "place", [place for place in leaves(GroupSpec) if place[0] not in {"model", "recipe"}], ids=".".join
)
def test_every_field_changes_the_key(place):
    spec = pair(WALKED)
    content = spec.model_dump()
    section, name = content, place[-1]
    model: Any = GroupSpec
    for step in place[:-1]:
        section, model = section[step], kind_of(model, step)
    if place in TOGETHER:
        section |= TOGETHER[place]
    else:
        section[name] = another(section[name], model.model_fields[name].annotation)
    changed = pair(content)
    assert changed != spec
    assert (changed.key == spec.key) == (place in FREE)


@pytest.mark.parametrize(
    "place",
    [(name, field) for name, spec in MODELS.items() for field in spec.model_fields if field != "name"],
    ids=".".join,
)
def test_every_field_of_every_model_changes_the_key(place):
    name, field = place
    model = {"name": name} | ({"factory": "package:build"} if name == "factory" else {})
    spec = pair(PLAIN | {"model": model})
    annotation = MODELS[name].model_fields[field].annotation
    if place in MODELS_SINGLE:
        assert len(typing.get_args(annotation)) == 1, "it has several values now: remove it from MODELS_SINGLE"
        return
    change = MODELS_TOGETHER.get(place) or {field: another(getattr(spec.model, field), annotation)}
    assert pair(PLAIN | {"model": model | change}).key != spec.key


TEXT = TextSpec(path="/one/corpus.txt", content=TextContent(hash="0", symbols=9, train=2000, test=300))


@pytest.mark.parametrize("field", [field for field in TextSpec.model_fields if field != "name"])
def test_every_field_of_a_text_but_the_place_of_its_file_changes_the_key(field):
    spec = pair(PLAIN | {"dataset": TEXT.model_dump()})
    changes = {
        "second": 12,
        "content": TEXT.known.model_copy(update={"hash": "1"}),
        "held_out": 0.2,
        "path": "/two/corpus.txt",
    }
    change = changes.get(field) or another(getattr(TEXT, field), TextSpec.model_fields[field].annotation)
    changed = pair(PLAIN | {"dataset": TEXT.model_copy(update={field: change})})
    assert (changed.key == spec.key) == (field == "path")
    assert GroupSpec.model_validate_json(changed.text) == changed


def test_of_a_second_file_the_content_counts_and_not_its_path():
    one, other, line = (TEXT.model_copy(update={"second": second}) for second in ("/a.txt", "/b.txt", 12))
    assert one.text == other.text != line.text
    assert len({one.text, line.text, TEXT.text}) == 3


def test_models_of_different_kinds_never_share_a_key_and_name_themselves():
    models = [{}, {"name": "vgg"}, {"name": "resnet"}, {"name": "vit"}, {"name": "gpt"}, {"factory": "package:build"}]
    pairs = [pair(PLAIN | {"model": model}) for model in models]
    assert [spec.model.name for spec in pairs] == ["mlp", "vgg", "resnet", "vit", "gpt", "factory"]
    assert len({spec.key for spec in pairs}) == len(pairs)
    assert [GroupSpec.model_validate_json(spec.text) for spec in pairs] == pairs


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"shift": {"kind": "label", "ratio": 0.8}}, {"shift": {"kind": "label", "severity": 0.6}}),
        ({"shift": {"kind": "label", "ratio": 0.9, "skew": "ratio"}}, {"shift": {"kind": "label", "severity": 0.8}}),
        (
            {"shift": {"kind": "label", "alpha": 0.25}},
            {"shift": {"kind": "label", "skew": "dirichlet", "severity": 0.8}},
        ),
        ({"shift": {"kind": "label", "skew": None}}, {"shift": {"kind": "label", "skew": "ratio"}}),
        ({"shift": {"kind": "none"}}, {"shift": {"kind": "none", "severity": 0}}),
        ({"shift": {}}, {"shift": {"kind": "covariate", "severity": 1, "skew": None}}),
        ({"train": {**PLAIN["train"], "lr": 1}}, {"train": {**PLAIN["train"], "lr": 1.0}}),
        ({"train": {**PLAIN["train"], "engine": "loop"}}, {}),
        ({"train": {**PLAIN["train"], "weight_decay": 0}}, {}),
        ({"model": {"hidden": [64]}}, {"model": {"hidden": (64,), "norm": "none"}}),
        ({"dataset": {"name": "digits", "train": None}}, {}),
        ({"seed": 0}, {}),
    ],
)
def test_one_experiment_written_in_two_ways_has_one_key(one, other):
    assert pair(PLAIN | one).key == pair(PLAIN | other).key


def test_the_order_in_which_fields_are_written_does_not_matter():
    backwards = {name: dict(reversed(v.items())) if isinstance(v, dict) else v for name, v in reversed(BUSY.items())}
    assert pair(backwards).key == pair(BUSY).key


def test_a_copy_with_another_replicate_has_another_key():
    spec = pair(PLAIN)
    first = spec.key  # a cached key would be carried over into the copy
    copies = [spec.model_copy(update={"replicate": k}) for k in range(4)]
    assert copies[0].key == first
    assert len({copy.key for copy in copies}) == 4
    assert copies[3].key == pair(PLAIN | {"replicate": 3}).key


def test_a_pair_survives_its_own_json():
    for content in (PLAIN, BUSY):
        spec = pair(content)
        again = GroupSpec.model_validate_json(spec.model_dump_json())
        assert again == spec
        assert again.key == spec.key


def test_a_verdict_is_no_part_of_a_pair():
    assert "verdict" not in GroupSpec.model_fields
    assert VerdictSpec().column == "test_error_barrier_chord"
    assert VerdictSpec(of="train_loss", barrier="local_minima").column == "train_loss_barrier_local_minima"


def test_seeds_differ_by_replicate_base_and_purpose_and_by_nothing_else():
    spec = pair(PLAIN)
    assert spec.seed_for("init") == pair({**BUSY, "replicate": 0, "seed": 0}).seed_for("init")
    others = [
        spec.seed_for("split"),
        pair(PLAIN | {"replicate": 1}).seed_for("init"),
        pair(PLAIN | {"seed": 1}).seed_for("init"),
    ]
    assert len({spec.seed_for("init"), *others}) == 4


@given(st.floats(0.5, 1))
def test_a_ratio_is_the_severity_that_gives_it_back(ratio):
    severity = ShiftSpec(kind="label", ratio=ratio).severity
    assert (1 + severity) / 2 == pytest.approx(ratio, abs=1e-11)


@given(st.floats(1e-3, 1e3))
def test_an_alpha_is_the_severity_that_gives_it_back(alpha):
    severity = ShiftSpec(kind="label", alpha=alpha).severity
    assert (1 - severity) / severity == pytest.approx(alpha, rel=1e-5)


@pytest.mark.parametrize(
    ("shift", "label"),
    [
        ({"kind": "none"}, "none"),
        ({"kind": "covariate"}, "covariate"),
        ({"kind": "covariate", "severity": 0.25}, "covariate 0.25"),
        ({"kind": "label", "ratio": 0.8}, "label 80/20"),
        ({"kind": "label", "severity": 1}, "label 100/0"),
        ({"kind": "label", "severity": 0}, "label 50/50"),
        ({"kind": "label", "ratio": 0.825}, "label 82.5/17.5"),
        ({"kind": "label", "alpha": 1}, "label dirichlet 0.5"),
    ],
)
def test_shifts_are_labelled_in_a_few_words(shift, label):
    assert ShiftSpec.model_validate(shift).label == label


@pytest.mark.parametrize(
    ("written", "domain", "text"),
    [
        ({"domain": "blur"}, Corruption(name="blur"), "blur"),
        ({"domain": "usps"}, OtherDataset(name="usps"), "usps"),
        ({"bands": [[2, 0, 2], [1]]}, Bands(a=(0, 2), b=(1,)), "bands 0,2|1"),
        ({"domain": "bands 0,2|1"}, Bands(a=(0, 2), b=(1,)), "bands 0,2|1"),
        ({"domain": "bands 0"}, OtherDataset(name="bands 0"), "bands 0"),
        ({"domain": Bands(a=(0,), b=(1, 2))}, Bands(a=(0,), b=(1, 2)), "bands 0|1,2"),
    ],
)
def test_a_domain_is_a_spec_and_its_text_in_json(written, domain, text):
    shift = ShiftSpec.model_validate({"kind": "domain"} | written)
    assert shift.domain == domain
    assert shift.model_dump(mode="json") == {"kind": "domain", "severity": 1.0, "skew": None, "domain": text}
    assert (
        ShiftSpec.model_validate(shift.model_dump()) == ShiftSpec.model_validate_json(shift.model_dump_json()) == shift
    )


@pytest.mark.parametrize(
    ("shift", "content"),
    [
        ({"kind": "none"}, {"kind": "none", "severity": 0.0, "skew": None, "domain": None}),
        ({}, {"kind": "covariate", "severity": 1.0, "skew": None, "domain": None}),
        ({"kind": "label", "ratio": 0.8}, {"kind": "label", "severity": 0.6, "skew": "ratio", "domain": None}),
        ({"kind": "label", "alpha": 1}, {"kind": "label", "severity": 0.5, "skew": "dirichlet", "domain": None}),
    ],
)
def test_shifts_are_written_as_finished_pairs_have_them(shift, content):
    assert ShiftSpec.model_validate(shift).model_dump(mode="json") == content


@pytest.mark.parametrize(
    ("model", "content", "message"),
    [
        (
            ShiftSpec,
            {"kind": "covariate", "skew": "ratio"},
            "skew, ratio and alpha belong to kind: label, not covariate",
        ),
        (ShiftSpec, {"ratio": 0.8}, "skew, ratio and alpha belong to kind: label, not covariate"),
        (
            ShiftSpec,
            {"kind": "none", "severity": 0.5},
            "kind: none has no severity, got 0.5; use kind: covariate or label",
        ),
        (ShiftSpec, {"kind": "label", "ratio": 0.8, "severity": 0.6}, "ratio already sets skew and severity; keep one"),
        (ShiftSpec, {"kind": "label", "ratio": 0.8, "skew": "dirichlet"}, "ratio already sets skew and severity"),
        (ShiftSpec, {"kind": "label", "alpha": 1, "ratio": 0.8}, "alpha already sets skew and severity"),
        (ShiftSpec, {"kind": "label", "ratio": 0.4}, r"ratio must be between 0.5 \(no skew\) and 1 .*, got 0.4"),
        (ShiftSpec, {"kind": "label", "ratio": float("nan")}, "ratio must be between 0.5"),
        (ShiftSpec, {"kind": "label", "ratio": True}, "ratio must be a number, got true"),
        (ShiftSpec, {"kind": "label", "alpha": "x"}, "alpha must be a number, got 'x'"),
        (ShiftSpec, {"kind": "label", "alpha": 0}, "alpha must be above 0, got 0"),
        (ShiftSpec, {"kind": "domain", "domain": 3}, "should be a valid string"),
        (ShiftSpec, {"severity": 1.1}, "less than or equal to 1"),
        (ShiftSpec, {"severity": float("nan")}, "less than or equal to 1|greater than or equal to 0"),
        (TrainSpec, {"lr": 0.1, "batch_size": 1}, "set exactly one of epochs and steps"),
        (TrainSpec, {"lr": 0.1, "batch_size": 1, "epochs": 1, "steps": 1}, "set exactly one of epochs and steps"),
        (
            TrainSpec,
            {"lr": 0.1, "batch_size": 1, "epochs": 1, "nesterov": True},
            "nesterov needs optimizer: sgd and a momentum",
        ),
        (
            TrainSpec,
            {"lr": 0.1, "batch_size": 1, "epochs": 1, "optimizer": "adam", "momentum": 0.9},
            "momentum belongs to sgd; adam",
        ),
        (TrainSpec, {"lr": 0, "batch_size": 1, "epochs": 1}, "greater than 0"),
        (TrainSpec, {"lr": float("inf"), "batch_size": 1, "epochs": 1}, "finite number"),
        (TrainSpec, {"lr": 0.1, "batch_size": 1, "epochs": 1, "momentum": 1.0}, "less than 1"),
        (TrainSpec, {"lr": 0.1, "batch_size": 0, "epochs": 1}, "greater than or equal to 1"),
        (TrainSpec, {"lr": 0.1, "batch_size": 1, "epochs": 1, "schedul": "step"}, "Extra inputs are not permitted"),
        (MlpSpec, {"hidden": []}, "at least 1 item"),
        (MlpSpec, {"hidden": [0]}, "greater than or equal to 1"),
        (MeasureSpec, {"lambdas": 24}, "lambdas must be odd so that λ = ½ is on the grid; use 25"),
        (MeasureSpec, {"lambdas": 1}, "greater than or equal to 3"),
        (MeasureSpec, {"splits": ["test"]}, "splits must name both train and test"),
        (VerdictSpec, {"confidence": 1.0}, "less than 1"),
        (VerdictSpec, {"threshold": 0.0}, "greater than 0"),
        (DatasetSpec, {"validation": -1}, "greater than or equal to 0"),
        (Cohort, {"groups": []}, "at least 1 item"),
    ],
)
def test_what_is_no_experiment_is_refused(model, content, message):
    with pytest.raises(ValidationError, match=message):
        model.model_validate(content)


def test_batch_normalisation_of_single_examples_is_refused():
    with pytest.raises(ValidationError, match="norm: batch has no statistics in a batch of 1"):
        pair_spec(model={"norm": "batch"}, train={"batch_size": 1})


@pytest.mark.parametrize("spec", [pair(PLAIN), pair(BUSY), VerdictSpec()])
def test_specs_are_frozen(spec):
    with pytest.raises(ValidationError, match="frozen"):
        spec.seed = 1


def test_the_key_covers_the_schema_version(monkeypatch):
    key = pair(PLAIN).key
    monkeypatch.setattr("lmc_tune.experiment.member.SCHEMA_VERSION", 999)
    assert pair(PLAIN).key != key
    assert json.loads(pair(PLAIN).model_dump_json())["train"]["lr"] == 0.1


def test_a_question_without_later_parts_is_the_one_that_it_was_before_there_were_any():
    """Pinned: a change means that every finished pair is measured again."""
    assert MeasureSpec().key == "b48ee46517b0"
    assert not {"alignment", "directions", "planes"} & set(json.loads(MeasureSpec().text))
    asked = [MeasureSpec(alignment=how) for how in ({}, {"restarts": 1}, {"by": "activations"})]
    assert len({MeasureSpec().key, *(one.key for one in asked)}) == 4
    assert MeasureSpec(alignment={"by": "weights", "restarts": 5}).key == asked[0].key
    assert [MeasureSpec.model_validate(one.model_dump(mode="json")) for one in asked] == asked


def test_null_is_no_value_of_b():
    with pytest.raises(ValidationError, match="null is no value for B: leave the key out, and B has A's value"):
        TrainChanges(target_loss=None)
    assert TrainChanges().given() == {}
