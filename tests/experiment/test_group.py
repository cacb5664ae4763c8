"""Members, and the groups that share them."""

import pytest
from pydantic import ValidationError

from lmc_tune.experiment import GroupSpec, MemberSpec, TrainChanges, TrainSpec
from tests.cases import pair_spec

CHANGES = {
    "optimizer": "adamw", "lr": 0.7, "batch_size": 10, "momentum": 0.5, "nesterov": True, "weight_decay": 0.1,
    "epochs": 7, "steps": 9, "target_loss": 0.2, "schedule": "cosine", "warmup": 0.2, "crop": 1, "flip": True,
    "jitter": 0.3,
}  # fmt: skip


def a(spec: GroupSpec) -> MemberSpec:
    return spec.members["a"]


def b(spec: GroupSpec) -> MemberSpec:
    return spec.members["b"]


def test_part_a_is_one_member_whatever_the_severity_and_whatever_b_s_images_suffer():
    shifts = [
        {"kind": "none"},
        *({"kind": "covariate", "severity": severity} for severity in (0.2, 0.5, 1.0)),
        *({"kind": "domain", "domain": "blur", "severity": severity} for severity in (0.3, 1.0)),
        {"kind": "domain", "domain": "contrast"},
    ]
    pairs = [pair_spec(shift=shift) for shift in shifts]
    assert len({a(pair).key for pair in pairs}) == 1
    assert len({b(pair).key for pair in pairs}) == len(pairs)
    assert len({pair.key for pair in pairs}) == len(pairs)


def test_part_a_of_a_skew_of_bands_and_of_two_data_sets_is_a_member_of_its_own():
    shifts = [
        {"kind": "covariate"},
        {"kind": "label", "ratio": 0.8},
        {"kind": "label", "ratio": 0.9},
        {"kind": "domain", "bands": [[0], [1]]},
        {"kind": "domain", "bands": [[0], [1]], "severity": 0.5},
        {"kind": "domain", "domain": "usps"},
    ]
    assert len({a(pair_spec(shift=shift)).key for shift in shifts}) == len(shifts)


def test_without_a_shift_and_under_fixed_noise_both_members_are_one():
    fixed, varied = (pair_spec(shift={"kind": "none"}, train={"noise": noise}) for noise in ("fixed", "varied"))
    assert a(fixed) == b(fixed)
    assert a(varied) == a(fixed)
    assert b(varied).key != a(varied).key
    assert b(varied).noise_seed != a(varied).noise_seed


def test_a_member_knows_nothing_of_what_only_groups_know():
    fixed, varied = (a(pair_spec(train={"noise": noise})) for noise in ("fixed", "varied"))
    assert fixed.key == varied.key
    assert a(pair_spec(train={"engine": "loop"})).key == a(pair_spec(train={"engine": "stacked"})).key


def test_branches_of_all_epochs_share_one_trunk():
    pairs = [pair_spec(train={"epochs": 12, "spawn_epoch": epoch}) for epoch in (1, 3, 10)]
    trunks = {member.branch.trunk.key for pair in pairs for member in pair.members.values()}
    assert len(trunks) == 1
    assert len({member.key for pair in pairs for member in pair.members.values()}) == 6
    assert {a(pair).branch.epoch for pair in pairs} == {1, 3, 10}
    fresh = pair_spec(train={"epochs": 12})
    assert a(fresh).branch is None
    assert a(fresh).key not in {a(pair).key for pair in pairs}


def test_a_trunk_is_trained_on_both_parts_and_to_an_epoch_not_to_a_loss():
    trunk = a(pair_spec(train={"epochs": 12, "spawn_epoch": 3, "target_loss": 0.1})).branch.trunk
    assert (trunk.part.side, trunk.noise, trunk.train.target_loss) == ("both", "joint", None)
    severities = [pair_spec(shift={"severity": s}, train={"spawn_epoch": 1}) for s in (0.5, 1.0)]
    assert len({a(pair).branch.trunk.key for pair in severities}) == 2


def test_what_b_has_otherwise_can_be_all_that_a_member_is_trained_with_but_noise_and_spawning():
    assert CHANGES.keys() == TrainChanges.model_fields.keys()
    assert TrainSpec.model_fields.keys() - CHANGES.keys() == {"spawn_epoch", "precision", "noise", "engine"}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_of_b_is_b_s_alone(name):
    plain = pair_spec(train={"momentum": 0.0} if name == "optimizer" else {})
    changed = pair_spec(train={"momentum": 0.0} if name == "optimizer" else {}, recipe={"b": {name: CHANGES[name]}})
    assert a(changed) == a(plain)
    assert b(changed).key != b(plain).key
    assert getattr(b(changed).train, name) == CHANGES[name]
    assert changed.key != plain.key


def test_on_the_diagonal_b_is_the_ordinary_pair_s():
    for lr in (0.1, 0.3):
        assert pair_spec(train={"lr": lr}, recipe={"b": {"lr": lr}}).members == pair_spec(train={"lr": lr}).members


def test_every_rate_of_b_is_one_member_for_all_rates_of_a():
    grid = [pair_spec(train={"lr": one}, recipe={"b": {"lr": other}}) for one in (0.1, 0.3) for other in (0.1, 0.3)]
    assert len({member.key for pair in grid for member in pair.members.values()}) == 4


def test_a_disturbed_copy_is_a_but_for_the_disturbance():
    spec = pair_spec(shift={"kind": "none"}, recipe={"perturb": {"step": 3, "scale": 0.1}})
    assert b(spec).model_copy(update={"perturbation": None}) == a(spec)
    assert b(spec).key != a(spec).key
    others = [{"step": 4}, {"scale": 0.2}, {"weights": "layer"}, {"weights": "one"}]
    keys = {
        pair_spec(shift={"kind": "none"}, recipe={"perturb": {"step": 3, "scale": 0.1} | other}).key for other in others
    }
    assert len(keys | {spec.key}) == 5


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"recipe": {"perturb": {"step": 0, "scale": 0.1}}},
            "perturb disturbs a copy of A on A's data; say shift: none",
        ),
        (
            {"shift": {"kind": "none"}, "recipe": {"perturb": {"step": 0, "scale": 0.1}, "b": {"lr": 0.3}}},
            "leave spawn_epoch and b out",
        ),
        (
            {"shift": {"kind": "none"}, "train": {"spawn_epoch": 1}, "recipe": {"perturb": {"step": 0, "scale": 0.1}}},
            "leave spawn_epoch and b out",
        ),
        (
            {"shift": {"kind": "none"}, "train": {"target_loss": 1}, "recipe": {"perturb": {"step": 1, "scale": 0.1}}},
            "leave target_loss out",
        ),
        ({"recipe": {"b": {"optimizer": "adam"}}}, "b: momentum belongs to sgd; adam has its own moments"),
        ({"recipe": {"b": {"epochs": 3, "steps": 9}}}, "b: set exactly one of epochs and steps"),
        (
            {"train": {"momentum": 0.0, "spawn_epoch": 1}, "recipe": {"b": {"optimizer": "adam"}}},
            "after joint training .* B's optimizer goes on: leave b.optimizer out",
        ),
        ({"model": {"norm": "batch"}, "recipe": {"b": {"batch_size": 1}}}, "no statistics in a batch of 1"),
    ],
)
def test_impossible_recipes_are_refused(asked, message):
    with pytest.raises(ValidationError, match=message):
        pair_spec(**asked)


def test_a_copy_forgets_what_was_worked_out_of_the_original():
    spec = pair_spec()
    known = spec.key, spec.cell, a(spec).key
    copy = spec.model_copy(update={"replicate": 1})
    assert (copy.key, copy.cell, a(copy).key) == (
        pair_spec(replicate=1).key,
        known[1],
        a(pair_spec(replicate=1)).key,
    )
    assert copy.key != known[0]
    other = spec.train.model_copy(update={"lr": 0.7})
    assert '"lr":0.7' in other.text
