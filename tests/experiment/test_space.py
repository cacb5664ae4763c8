from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lmc_tune.experiment import GroupSpec, Pair
from lmc_tune.experiment.data import SHORT_FORMS
from lmc_tune.experiment.space import AXES, SECTIONS, SETTING, SearchSpace, by_replicate, place

FIXED = {"dataset": {}, "model": {"hidden": [8]}, "train": {"epochs": 1}, "shift": {}}


def space(axes, *, fixed=None, replicates=2, **rest) -> SearchSpace:
    return SearchSpace(name="s", fixed=FIXED if fixed is None else fixed, axes=axes, replicates=replicates, **rest)


def test_cells_run_through_the_axes_in_order_the_last_one_fastest():
    cells = space({"lr": (0.1, 0.2), "batch_size": (4, 8, 16)}).cells()
    assert [(c.first.train.lr, c.first.train.batch_size) for c in cells] == [
        (0.1, 4),
        (0.1, 8),
        (0.1, 16),
        (0.2, 4),
        (0.2, 8),
        (0.2, 16),
    ]
    assert cells[3].coordinates == {"lr": 0.2, "batch_size": 4}
    assert str(cells[3]) == "lr=0.2, batch_size=4"


def test_cells_made_together_are_those_made_one_by_one():
    axes = {
        "batch_size": (4, 8),
        "model": ({"hidden": [8]}, {"hidden": [8], "norm": "layer"}, {"name": "resnet", "depth": 8}),
        "lr": (0.1, 1),
        "shift": ({"kind": "none"}, {"kind": "label", "severity": 0.5}, {"kind": "label", "skew": "dirichlet"}),
        "train": (None, 100),
        "init": ("kaiming", "xavier"),
    }
    whole = space(axes, fixed={"train": {"epochs": 1}})
    one_by_one = [whole.cell(dict(zip(axes, values, strict=True))) for values in product(*axes.values())]
    assert whole.cells() == one_by_one
    assert len({cell.key for cell in one_by_one}) == len(one_by_one)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_there_are_as_many_pairs_as_cells_times_replicates_and_all_keys_differ(n_lr, n_batch, replicates):
    whole = space(
        {"lr": tuple(0.1 * (k + 1) for k in range(n_lr)), "batch_size": tuple(2 ** (k + 1) for k in range(n_batch))},
        replicates=replicates,
    )
    pairs = whole.pairs()
    assert len(whole.cells()) == n_lr * n_batch
    assert len({pair.key for pair in pairs}) == len(pairs) == n_lr * n_batch * replicates


def test_pairs_cover_the_grid_replicate_by_replicate():
    whole = space({"lr": (0.1, 0.2), "batch_size": (4,)}, replicates=3)
    assert [(pair.replicate, pair.train.lr) for pair in whole.pairs()] == [
        (k, lr) for k in range(3) for lr in (0.1, 0.2)
    ]
    by_cell = [pair.key for cell in whole.cells() for pair in by_replicate([cell], 3)]
    assert sorted(by_cell) == sorted(pair.key for pair in whole.pairs())


def test_a_cells_key_is_that_of_its_first_pair():
    cell = space({"lr": (0.1,), "batch_size": (4,)}).cells()[0]
    assert cell.key == by_replicate([cell], 1)[0].key
    assert [pair.replicate for pair in by_replicate([cell], 3)] == [0, 1, 2]


def test_every_pair_carries_the_spaces_seed_and_none_what_is_asked():
    asked = [space({"lr": (0.1,), "batch_size": (4,)}, seed=17, measure={"lambdas": n}).pairs()[0] for n in (7, 9)]
    assert asked[0].seed == 17
    assert asked[0].key == asked[1].key


def test_whole_sections_are_placed_before_their_fields_whatever_the_order_of_the_axes():
    label = {"kind": "label", "severity": 0.2}
    expected = {name: {} for name in SECTIONS} | {"train": {"epochs": 1}, "shift": {**label, "severity": 0.7}}
    for coordinates in ({"shift": label, "severity": 0.7}, {"severity": 0.7, "shift": label}):
        assert place({"train": {"epochs": 1}}, coordinates) == expected


def test_placing_leaves_the_fixed_sections_and_the_coordinates_alone():
    fixed, coordinates = {"train": {"epochs": 1}}, {"lr": 0.1, "shift": {"kind": "none"}}
    place(fixed, coordinates)["shift"]["severity"] = 0.0
    assert fixed == {"train": {"epochs": 1}}
    assert coordinates == {"lr": 0.1, "shift": {"kind": "none"}}


def test_every_axis_names_a_field_that_a_pair_has():
    assert {"lr", "batch_size", "shift", "severity", "model", "norm", "hidden", "dataset", "train"} <= set(AXES)
    for section, *field in AXES.values():
        assert section == "federated" or section in (GroupSpec if section in SETTING else Pair).model_fields
        known = [name for spec in SECTIONS[section] for name in spec.model_fields] + [*SHORT_FORMS]
        assert not field or field[0] in known
    assert AXES["train"] == ("dataset", "train")  # how many examples, not the whole section of the same name


def test_an_impossible_combination_is_refused_when_cells_are_made():
    with pytest.raises(ValidationError, match="momentum belongs to sgd; adam"):
        space({"optimizer": ("sgd", "adam"), "momentum": (0.9,), "lr": (0.1,), "batch_size": (4,)}).cells()


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", "a\nb", "x" * 121])
def test_a_name_that_is_no_folders_name_is_refused(name):
    with pytest.raises(ValidationError, match="name"):
        SearchSpace(name=name, fixed={}, axes={})
