"""What a row repeats of its spec."""

from typing import Any

import pytest

from lmc_tune.experiment import (
    MODELS,
    DatasetSpec,
    FactorySpec,
    Federated,
    GroupSpec,
    ShiftSpec,
    Spec,
    TextSpec,
    TrainChanges,
    TrainSpec,
)
from lmc_tune.experiment.text import TextContent
from lmc_tune.tables.columns import SPEC_FIELDS
from lmc_tune.tables.rows import pair_name, spec_columns, spec_fields
from tests.cases import NETWORKS, ensemble_spec, pair_spec

CHANGES: dict[str, Any] = {
    "optimizer": "sgd",
    "lr": 0.3,
    "batch_size": 10,
    "momentum": 0.5,
    "nesterov": True,
    "weight_decay": 1e-3,
    "target_loss": 0.1,
    "schedule": "cosine",
    "warmup": 0.1,
    "crop": 1,
    "flip": True,
    "jitter": 0.2,
}


TEXT = TextSpec(
    path="/corpus.txt", second=12, content=TextContent(hash="0", symbols=9, train=2000, test=300, second_test=99)
)


def federation(split: dict[str, float], **fields: str) -> GroupSpec:
    recipe = Federated.model_validate({"clients": 5, "rounds": 2, "split": split, **fields})
    plain = pair_spec(shift={"kind": "none"}, model={"norm": "batch"})
    return plain.model_copy(update={"recipe": recipe})


def test_a_federation_has_its_own_columns_and_none_of_a_pair() -> None:
    row = spec_fields(federation({"classes": 2}, average="none"))
    assert (row["clients"], row["round_budget"], row["local_epochs"]) == (5, 2, 1)
    assert (row["client_split"], row["client_classes"], row["concentration"]) == ("classes", 2, None)
    assert (row["averaged_layers"], row["client_norm"], row["client_moments"]) == ("none", None, "restarted")
    assert all(row[column] is None for column in row if column.startswith(("b_", "perturb_")))
    assert spec_fields(pair_spec())["clients"] is None


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (federation({"dirichlet": 0.1}), "5 clients dirichlet 0.1, averaged: all"),
        (federation({"classes": 2}, norm="local"), "5 clients 2 classes each, averaged: all, norms local"),
    ],
)
def test_a_federation_is_named_by_its_clients(spec: GroupSpec, named: str) -> None:
    assert pair_name(spec_fields(spec)) == f"lr=0.1 batch=20 {named} #0 mlp 8 batch norm"


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (ensemble_spec("distilled"), "3 distilled t=2 beta=0.2 tau=3 none #0 varied noise mlp 8"),
        (ensemble_spec("deep", shift={"kind": "covariate"}), "3 deep covariate #0 varied noise mlp 8"),
    ],
)
def test_an_ensemble_is_named_by_its_family(spec: GroupSpec, named: str) -> None:
    row = spec_fields(spec)
    assert pair_name(row) == f"lr=0.03 batch=20 {named}"
    assert spec_fields(pair_spec())["family"] is None


def test_every_column_of_the_spec_is_filled_from_one() -> None:
    spec, none = pair_spec(), {"kind": "none"}
    networks = [*NETWORKS.values(), FactorySpec(factory="module:function", arguments={"width": 3})]
    specs: list[GroupSpec] = [
        *(spec.model_copy(update={"model": network}) for network in networks),
        spec.model_copy(update={"dataset": DatasetSpec(train=300, test=90, validation=9)}),
        spec.model_copy(update={"dataset": TEXT}),
        pair_spec(train={"epochs": None, "steps": 8, "target_loss": 0.1}),
        federation({"dirichlet": 0.1}, norm="local"),
        federation({"classes": 2}),
        ensemble_spec("distilled"),
        ensemble_spec("swe"),
        pair_spec(recipe={"b": {**CHANGES, "epochs": 3}}),
        pair_spec(recipe={"b": {"steps": 30}}),
        pair_spec(shift=none, recipe={"perturb": {"step": 2, "scale": 0.1}}),
    ]
    rows = [spec_fields(each) for each in specs]
    assert all(list(row) == list(SPEC_FIELDS) for row in rows)
    assert {name for row in rows for name, value in row.items() if value is not None} == set(SPEC_FIELDS)
    assert {*CHANGES, "epochs", "steps"} == set(TrainChanges.model_fields)
    assert {name: value for name, value in rows[-3].items() if name.startswith("b_")} == {
        **{f"b_{name}": value for name, value in CHANGES.items()},
        "b_epochs": 3,
        "b_step_budget": None,
    }
    assert (rows[-2]["step_budget"], rows[-2]["b_step_budget"]) == (None, 30)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "lr=0.1 batch=20 covariate #1 mlp 8"),
        ({"train": {"noise": "varied"}}, "lr=0.1 batch=20 covariate #1 varied noise mlp 8"),
        ({"recipe": {"b": {"lr": 0.3}}}, "lr=0.1 batch=20 b.lr=0.3 covariate #1 mlp 8"),
        (
            {"recipe": {"b": {"optimizer": "sgd", "batch_size": 100, "steps": 30, "flip": False}}},
            "lr=0.1 batch=20 b.optimizer=sgd b.batch_size=100 b.steps=30 b.flip=False covariate #1 mlp 8",
        ),
        (
            {"shift": {"kind": "none"}, "recipe": {"perturb": {"step": 5, "scale": 0.1}}},
            "lr=0.1 batch=20 none perturb 0.1 at step 5 #1 mlp 8",
        ),
        (
            {"shift": {"kind": "none"}, "recipe": {"perturb": {"step": 0, "scale": 0, "weights": "layer"}}},
            "lr=0.1 batch=20 none perturb layer 0 at step 0 #1 mlp 8",
        ),
    ],
)
def test_a_pairs_name_says_what_b_has_otherwise_and_how_it_is_disturbed(changes: dict[str, Any], name: str) -> None:
    assert pair_name(spec_columns(pair_spec(replicate=1, **changes))) == name


@pytest.mark.parametrize("spec", [DatasetSpec, TrainSpec, ShiftSpec, *MODELS.values()], ids=lambda spec: spec.__name__)
def test_every_setting_has_a_column_by_which_cells_differ(spec: type[Spec]) -> None:
    """A setting without one could be an axis whose cells look the same."""
    other_names = {
        DatasetSpec: {"name", "train", "test", "validation"},  # dataset, train_examples, ...
        ShiftSpec: {"kind"},  # shift
        TrainSpec: {"steps", "engine"},  # step_budget; an engine changes rounding alone
        FactorySpec: {"name", "code"},  # model; within a space, the code follows from the factory
    }
    assert set(spec.model_fields) - set(SPEC_FIELDS) == other_names.get(spec, {"name"})
