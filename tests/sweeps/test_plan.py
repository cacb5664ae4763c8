"""Packing: every pair once, alike pairs together, earlier replicates first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmc_tune.experiment import GroupSpec, TrainSpec
from lmc_tune.experiment.reading import parse_space
from lmc_tune.sweeps.plan import Slots, _families, _parts, pack, planned_steps, program
from lmc_tune.work.cohort import run_pair
from tests.cases import pair_spec

SPACE = """
name: s
train: {epochs: 2, optimizer: sgd, momentum: 0.9}
axes:
  model: [{hidden: [4]}, {name: resnet}, {factory: "package:build", arguments: {depth: 3}}]
  nesterov: [false, true]
  batch_size: [8, 32]
  lr: [0.01, 0.1, 0.3]
replicates: 3
"""


@pytest.mark.parametrize(
    ("slots", "attempt", "largest"),
    [
        (Slots(number=1), 0, 3),  # nine pairs per program, four cohorts of it
        (Slots(number=2), 0, 2),
        (Slots(number=2), 1, 1),
        (Slots(number=50), 0, 1),
        (Slots(number=1, gpu=True), 0, 9),
        (Slots(number=2, gpu=True), 0, 5),
        (Slots(number=1, gpu=True), 2, 1),
    ],
)
def test_cohorts_hold_every_pair_once_alike_pairs_together_and_early_replicates_first(slots, attempt, largest):
    pairs = parse_space(SPACE).pairs()
    cohorts = pack(pairs, slots, attempt)
    assert sorted(pair.key for cohort in cohorts for pair in cohort.groups) == sorted(pair.key for pair in pairs)
    assert all(len({program(pair) for pair in cohort.groups}) == 1 for cohort in cohorts)
    assert max(len(cohort.groups) for cohort in cohorts) == largest
    places = [(cohort.groups[0].replicate, -sum(map(planned_steps, cohort.groups))) for cohort in cohorts]
    assert places == sorted(places)


def test_pairs_differ_in_program_where_one_stack_could_not_train_them():
    pairs = parse_space(SPACE).pairs()
    assert len({program(pair) for pair in pairs}) == 3 * 2 * 2  # model, nesterov, batch size; not rate or replicate


def test_settings_that_members_of_a_stack_share_make_programs():
    """Each field of the training differs once; a field that is new has to be added here."""
    other = {
        "optimizer": "adam", "lr": 0.5, "batch_size": 8, "momentum": 0.5, "nesterov": True, "weight_decay": 0.1,
        "epochs": 3, "steps": None, "target_loss": 0.5, "spawn_epoch": 1,
        "schedule": "step", "warmup": 0.5, "crop": 2, "flip": True, "jitter": 0.1,
        "precision": "bfloat16", "noise": "varied", "engine": "loop",
    }  # fmt: skip
    assert other.keys() == TrainSpec.model_fields.keys()
    plain = pair_spec(train={"lr": 0.1, "epochs": 2, "batch_size": 4})

    def changed(name, value):
        return {name: value} | ({"momentum": 0.0} if name == "optimizer" else {})

    sharing = {
        name
        for name, value in other.items()
        if program(plain)
        != program(plain.model_copy(update={"train": plain.train.model_copy(update=changed(name, value))}))
    }
    alike = {"lr", "momentum", "weight_decay", "schedule", "warmup", "noise"}
    # Branches of one trunk go into one cohort, whenever they leave it.
    assert other.keys() - sharing == {*alike, "spawn_epoch", "steps"}


def test_cohorts_do_not_grow_without_end():
    assert Slots(number=2).cohort_size(10_000) == 16
    assert Slots(number=2, gpu=True).cohort_size(10_000) == 128


def families(pairs, slots=None, attempt=0):
    return [[pair.key for pair in cohort.groups] for cohort in pack(pairs, slots or Slots(number=2), attempt)]


def test_pairs_that_share_members_go_into_one_cohort():
    severities = [{"kind": "covariate", "severity": s} for s in (0.2, 0.4, 0.6, 0.8, 1.0)]
    pairs = [pair_spec(shift=shift, replicate=k) for k in range(3) for shift in severities]
    assert families(pairs) == [[pair.key for pair in pairs if pair.replicate == k] for k in range(3)]


def test_branches_of_one_trunk_go_into_one_cohort():
    pairs = [
        pair_spec(train={"epochs": 12, "spawn_epoch": epoch}, replicate=k) for k in range(2) for epoch in (1, 3, 10)
    ]
    assert families(pairs) == [[pair.key for pair in pairs if pair.replicate == k] for k in range(2)]


def test_a_grid_of_both_rates_is_one_family():
    rates = (0.1, 0.2, 0.3)
    pairs = [pair_spec(train={"lr": one}, recipe={"b": {"lr": other}}) for one in rates for other in rates]
    assert families(pairs) == [[pair.key for pair in pairs]]


def test_pairs_of_different_programs_share_a_cohort_if_they_share_members():
    changes = [{}, *({"batch_size": size} for size in (8, 16))]
    pairs = [pair_spec(recipe={"b": change}, replicate=k) for change in changes for k in range(2)]
    assert len({program(pair) for pair in pairs}) == 3
    assert families(pairs) == [[pair.key for pair in pairs if pair.replicate == k] for k in range(2)]


def test_families_of_the_same_programs_share_a_cohort_in_whatever_order_they_name_them():
    changes = [{}, {"batch_size": 8}]
    pairs = [pair_spec(recipe={"b": change}, replicate=k) for k in range(2) for change in changes[:: 1 - 2 * k]]
    assert families(pairs, Slots(number=1, gpu=True)) == [[pair.key for pair in pairs]]


def test_a_family_that_is_larger_than_a_cohort_may_be_is_parted_and_so_is_one_that_is_tried_again():
    pairs = [pair_spec(shift={"severity": s / 40}) for s in range(1, 41)]
    assert [len(family) for family in families(pairs)] == [16, 16, 8]
    assert [len(family) for family in families(pairs, attempt=1)] == [1] * 40
    assert [len(family) for family in families(pairs, Slots(number=1, gpu=True))] == [40]


def _connected(pairs: list[GroupSpec]) -> list[list[GroupSpec]]:
    """Families by definition: a pair, and all that can be reached from it through shared members and trunks."""

    def trained(pair: GroupSpec) -> set[str]:
        return {key for m in pair.members.values() for key in (m.key, m.branch.trunk.key if m.branch else m.key)}

    found = []
    left = list(pairs)
    while left:
        family = left[:1]
        while more := [pair for pair in left if pair not in family and any(trained(pair) & trained(o) for o in family)]:
            family += more
        found.append([pair for pair in left if pair in family])
        left = [pair for pair in left if pair not in family]
    return found


# Rates of A and of B, and the epoch at which they separate.
POINTS = st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from([0, 0, 1, 3]))


@given(st.lists(POINTS, max_size=15, unique=True))
def test_families_are_the_pairs_that_are_connected_by_what_they_share(points: list[tuple[int, int, int]]) -> None:
    pairs = _at(points)
    assert _families(pairs) == _connected(pairs)


def _at(points: list[tuple[int, int, int]]) -> list[GroupSpec]:
    return [
        pair_spec(train={"lr": a / 100, "epochs": 5, "spawn_epoch": epoch}, recipe={"b": {"lr": b / 10}})
        for a, b, epoch in points
    ]


@given(st.lists(POINTS, min_size=1, max_size=20, unique=True), st.integers(1, 6))
def test_parts_of_a_family_hold_every_pair_once_and_no_more_than_they_may(
    points: list[tuple[int, int, int]], most: int
) -> None:
    pairs = _at(points)
    parts = list(_parts(pairs, most))
    assert sorted(pair.key for part in parts for pair in part) == sorted(pair.key for pair in pairs)
    assert all(1 <= len(part) <= most for part in parts)


@pytest.mark.parametrize(
    ("n_a", "n_b", "expected"),
    [
        # Pairs and members of each cohort. Cut by rows, they would have 16 and 9 pairs, 9 and 7 members.
        (5, 5, [(15, 3 + 5), (10, 2 + 5)]),
        (8, 8, 4 * [(16, 4 + 4)]),  # and not 2 + 8
        (2, 20, [(16, 2 + 8), (16, 2 + 8), (8, 2 + 4)]),
        (1, 40, [(16, 1 + 16), (16, 1 + 16), (8, 1 + 8)]),
    ],
)
def test_a_large_grid_of_both_rates_is_cut_into_blocks_that_share_members(
    n_a: int, n_b: int, expected: list[tuple[int, int]]
) -> None:
    cohorts = pack(_at([(a, b, 0) for a in range(1, n_a + 1) for b in range(1, n_b + 1)]), Slots(number=1))
    members = [{member.key for pair in cohort.groups for member in pair.members.values()} for cohort in cohorts]
    assert [(len(cohort.groups), len(some)) for cohort, some in zip(cohorts, members, strict=True)] == expected


def test_a_family_is_not_cut_for_slots_that_stay_free() -> None:
    pairs = [pair_spec(shift={"severity": s / 5}, replicate=k) for k in range(2) for s in range(1, 6)]
    assert [len(family) for family in families(pairs, Slots(number=64))] == [5, 5]


@pytest.mark.parametrize(("epoch", "changes"), [(0, {}), (1, {}), (2, {"batch_size": 40})])
def test_planned_steps_are_those_of_the_row(bench, epoch, changes):
    pair = pair_spec(train={"epochs": 4, "spawn_epoch": epoch}, recipe={"b": changes}, dataset={"train": 430})
    assert planned_steps(pair) == run_pair(pair, bench()).row["steps"]
