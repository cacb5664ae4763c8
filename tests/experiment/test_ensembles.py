"""Spaces of ensembles: what can be written, which members follow, and what is refused."""
# ruff: noqa: E501 - one mistake and its message per line

from typing import Any

import pytest
from pydantic import ValidationError

from lmc_tune.experiment import FAMILIES, Ensemble, EnsembleSpec
from lmc_tune.experiment.reading import SpaceError, parse_space
from lmc_tune.experiment.yaml_lines import dump
from tests.cases import ensemble_spec, pair_spec

GOOD = """\
name: basins
model: {hidden: [8], dropout: 0.1}
train: {batch_size: 10, epochs: 6}
recipe: {members: 3, t: 2, beta: 0.5}
axes:
  recipe: [deep, constrained, swe, permuted, multi_pcd, distilled, distilled_deep, snapshot, mc_dropout]
  lr: [0.1, 0.3]
"""


def refused(*changes: tuple[str, str], sets: tuple[str, ...] = ()) -> list[str]:
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    with pytest.raises(SpaceError) as raised:
        parse_space(text, "s.yaml", sets)
    return raised.value.problems


def test_what_is_fixed_of_a_recipe_is_for_the_families_that_have_it():
    found = {cell.first.recipe.family: cell.first.recipe for cell in parse_space(GOOD).cells()}
    assert list(found) == list(FAMILIES)
    assert found["deep"] == Ensemble(family="deep", members=3)
    assert found["constrained"] == Ensemble(family="constrained", members=3, t=2)
    assert found["distilled"] == Ensemble(family="distilled", members=3, t=2, beta=0.5, tau=3)
    assert found["swe"] == Ensemble(family="swe", members=3, lowest_lr=0.01)


def test_ensembles_see_all_data_with_noise_of_their_own_unless_the_space_says_otherwise():
    first = parse_space(GOOD).cells()[0].first
    assert (first.shift.kind, first.train.noise) == ("none", "varied")
    assert {member.part.side for member in first.members.values()} == {"whole"}
    assert first.part_size == first.training_size == 1437
    shifted = parse_space(GOOD, sets=["shift.kind=covariate"]).cells()[0].first
    assert [member.part.side for member in shifted.members.values()] == ["a", "b", "a"]
    assert (shifted.part_size, shifted.training_size) == (718, 1436)


def test_what_a_run_folder_keeps_of_a_space_is_the_same_space():
    space = parse_space(GOOD)
    again = parse_space(dump(space.plain()))
    assert again == space
    assert [cell.key for cell in again.cells()] == [cell.key for cell in space.cells()]
    assert len({cell.key for cell in space.cells()}) == 18
    assert space.group == "ensemble"


def test_settings_of_a_family_can_be_axes():
    text = (
        GOOD[: GOOD.index("recipe:")]
        + "recipe: {family: distilled}\naxes:\n  recipe.t: [0, 2]\n  recipe.beta: [0.0, 1.0]\n  recipe.members: [2, 4]\n  lr: [0.1]\n"
    )
    cells = parse_space(text).cells()
    assert {(c.first.recipe.t, c.first.recipe.beta, len(c.first.members)) for c in cells} == {
        (t, beta, m) for t in (0, 2) for beta in (0.0, 1.0) for m in (2, 4)
    }


def test_families_share_the_members_that_they_have_in_common():
    members = {family: ensemble_spec(family).members for family in FAMILIES if family != "mc_dropout"}
    assert members["permuted"] == members["multi_pcd"] == members["deep"], "they differ in what is done with them"
    deep, constrained = members["deep"], members["constrained"]
    assert [one.init for one in deep.values()] == [0, 1, 2]
    assert len({one.noise_seed for one in deep.values()}) == len({one.init_seed for one in deep.values()}) == 3
    assert {one.init for one in constrained.values()} == {0}
    assert len({one.branch.trunk.key for one in constrained.values()}) == 1
    taught = members["distilled"]
    assert [one.distil.teacher for one in taught.values()] == list(deep.values())
    assert [one.branch for one in taught.values()] == [one.branch for one in constrained.values()]
    control = members["distilled_deep"]
    assert [one.distil.teacher for one in control.values()] == [*list(deep.values())[1:], deep["member 1"]]
    assert all(one.model_copy(update={"distil": None}) == deep[name] for name, one in control.items())


def test_more_members_begin_with_the_same():
    for family in ("deep", "constrained", "distilled", "swe"):
        few, many = (ensemble_spec(family, members=n).members for n in (2, 4))
        assert few.items() <= many.items(), family


def test_at_beta_1_there_is_nothing_to_learn_from_a_teacher():
    for taught, plain in (("distilled", "constrained"), ("distilled_deep", "deep")):
        assert ensemble_spec(taught, beta=1.0).members == ensemble_spec(plain).members


def test_two_constrained_members_are_a_pair_with_a_spawn_epoch():
    """The instability analysis of Frankle et al. 2020 is the constrained ensemble of two."""
    for t in (0, 2):
        shift = {"kind": "covariate"}
        ensemble = ensemble_spec("constrained", members=2, t=t, shift=shift)
        train = ensemble.train.model_dump() | {"spawn_epoch": t}
        pair = pair_spec(
            train=train, shift=shift, dataset=ensemble.dataset.model_dump(), model=ensemble.model.model_dump()
        )
        assert [m.key for m in pair.members.values()] == [m.key for m in ensemble.members.values()]


def test_a_single_training_passes_through_the_members_of_swe_and_snapshots():
    swe, snapshot = ensemble_spec("swe"), ensemble_spec("snapshot")
    assert [(m.train.epochs, m.branch.epoch) for m in swe.members.values()] == [(6, 6), (12, 12), (18, 18)]
    assert [(m.train.epochs, m.branch.epoch) for m in snapshot.members.values()] == [(2, 2), (4, 4), (6, 6)]
    for spec, then in ((swe, "stay"), (snapshot, "restart")):
        (course,) = {m.course for m in spec.members.values()}
        assert course.then == then
        assert len({m.branch.trunk.key for m in spec.members.values()}) == 1


def test_every_setting_decides_members_or_ensemble():
    plain: dict[str, Any] = {"family": "distilled", "members": 3, "t": 2, "beta": 0.2, "tau": 3.0}
    specs = [ensemble_spec(**plain | change) for change in ({}, {"members": 4}, {"t": 1}, {"beta": 0.3}, {"tau": 2.0})]
    assert len({spec.key for spec in specs}) == 5
    assert len({spec.members["member 2"].key for spec in specs}) == 4, "another number of members changes none"
    assert ensemble_spec("swe", lowest_lr=0.02).members["member 2"].key != ensemble_spec("swe").members["member 2"].key


@pytest.mark.parametrize(
    ("family", "says"),
    [("deep", "3 deep"), ("multi_pcd", "3 multi pcd"), ("distilled", "3 distilled t=2 beta=0.2 tau=3")],
)
def test_an_ensemble_in_a_few_words(family, says):
    assert ensemble_spec(family).recipe.label == says


def test_an_ensemble_without_its_family_is_none():
    with pytest.raises(ValidationError, match="Field required"):
        EnsembleSpec.model_validate({"members": 3})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            [("t: 2, ", "t: 6, ")],
            "a combination of values is impossible: t 6 leaves none of 6 epochs to train apart; lower t or raise epochs",
        ),
        ([("members: 3", "members: 1")], "recipe.members: should be greater than or equal to 2, got 1"),
        ([("beta: 0.5", "beta: 1.5")], "beta: should be less than or equal to 1, got 1.5"),
        ([("beta: 0.5", "beta: -0.5")], "beta: should be greater than or equal to 0, got -0.5"),
        (
            [("recipe: [deep,", "recipe: [{family: deep, t: 2},")],
            "deep has no t; leave it out (t is for constrained, distilled)",
        ),
        ([("t: 2, ", "")], "constrained needs t, e.g. t: 10"),
        ([("recipe: [deep,", "recipe: [deeep,")], "'deeep'"),
        ([("epochs: 6", "epochs: 7")], "the schedule runs 3 times in 7 epochs; let members divide epochs"),
        ([(", dropout: 0.1", "")], "mc_dropout needs a network that drops activations; mlp 8 has no dropout"),
        (
            [("epochs: 6", "steps: 100")],
            "train.steps: cannot be set where there is recipe: members are trained for train.epochs",
        ),
        ([("epochs: 6", "epochs: 6, spawn_epoch: 2")], "train.spawn_epoch: cannot be set where there is recipe"),
        (
            [("epochs: 6", "epochs: 6, noise: fixed")],
            "on the same data with the same noise members are equal; say noise: varied",
        ),
        (
            [("recipe: {members", "b: {lr: 0.2}\nrecipe: {members")],
            "b.lr: cannot be set where there is recipe: all members are trained alike",
        ),
        ([("axes:", "measure: {layers: {}}\naxes:")], "measure.layers: is for pairs; leave it out"),
        (
            [("axes:", "measure: {alignment: {}}\naxes:")],
            "measure.alignment: is for pairs; recipe: permuted and recipe: multi_pcd align members",
        ),
        (
            [("axes:", "measure: {conditions: [naive, repaired]}\naxes:")],
            "repaired is for pairs; of an ensemble, ask naive or recalibrated",
        ),
        ([("lr: [0.1, 0.3]", "lr: [0.001]")], "lowest_lr 0.01 is above lr 0.001; lower it"),
    ],
)
def test_what_no_ensemble_can_be_is_refused_with_what_to_do(changes, says):
    assert any(says in problem for problem in refused(*changes)), refused(*changes)


def test_what_is_asked_of_ensembles_is_not_asked_of_pairs():
    text = GOOD[: GOOD.index("recipe:")] + "axes: {lr: [0.1]}\nmeasure: {ensemble: {draws: 5}}\n"
    with pytest.raises(SpaceError, match=r"measure\.ensemble: is for ensembles"):
        parse_space(text)
    with pytest.raises(SpaceError, match=r"measure\.ensemble\.pairs: should be greater than or equal to 1, got 0"):
        parse_space(GOOD + "measure: {ensemble: {pairs: 0}}\n")


def test_three_members_on_two_parts_need_noise_of_their_own():
    shift = {"kind": "covariate"}
    with pytest.raises(ValidationError, match="members are equal; say noise: varied"):
        ensemble_spec("constrained", shift=shift, train={"noise": "fixed"})
    two = ensemble_spec("constrained", members=2, shift=shift, train={"noise": "fixed"})
    assert len({member.key for member in two.members.values()}) == 2


def test_what_a_student_and_a_stack_have_in_common():
    with pytest.raises(
        ValidationError, match="members that learn from others are trained in the loop; leave engine out"
    ):
        ensemble_spec("distilled", train={"engine": "stacked"})


GOLDEN = {
    "distilled": [
        *("489fe7e1638f1d8bba394ec5", "326bab1116845cbe2cac2f68", "359abfaba96232400133217d"),
        "f42e2f574d8c2045ce426aaa",
    ],
    "swe": [
        *("cef4d7f4d7db1d1715e29a4e", "b8dabee017f256974f46944a", "4d654513163b309fdfc40c02"),
        "c2e7fd2a6f68676ce93ea31c",
    ],
}


@pytest.mark.parametrize("family", GOLDEN)
def test_keys_of_ensembles_and_members_stay(family):
    """Finished folders stay finished: these may change only together with SCHEMA_VERSION."""
    spec = ensemble_spec(family)
    assert [spec.key, *(member.key for member in spec.members.values())] == GOLDEN[family]
