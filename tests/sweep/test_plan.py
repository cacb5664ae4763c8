"""Packing: every pair once, alike pairs together, earlier replicates first."""

import pytest

from lmc_tune.experiment import TrainSpec
from lmc_tune.experiment.reading import parse_space
from lmc_tune.sweep.plan import Slots, pack, planned_steps, program
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
    assert sorted(pair.key for cohort in cohorts for pair in cohort.pairs) == sorted(pair.key for pair in pairs)
    assert all(len({program(pair) for pair in cohort.pairs}) == 1 for cohort in cohorts)
    assert max(len(cohort.pairs) for cohort in cohorts) == largest
    places = [(cohort.pairs[0].replicate, -sum(map(planned_steps, cohort.pairs))) for cohort in cohorts]
    assert places == sorted(places)


def test_pairs_differ_in_program_where_one_stack_could_not_train_them():
    pairs = parse_space(SPACE).pairs()
    assert len({program(pair) for pair in pairs}) == 3 * 2 * 2  # model, nesterov, batch size; not rate or replicate


def test_settings_that_members_of_a_stack_share_make_programs():
    """Each field of the training differs once; a field that is new has to be added here."""
    other = {
        "optimizer": "adam", "lr": 0.5, "batch_size": 8, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1,
        "epochs": None, "steps": 7, "target_loss": 0.5, "spawn_epoch": 1,
        "schedule": "step", "warmup": 0.5, "crop": 2, "flip": True, "jitter": 0.1,
        "precision": "bfloat16", "noise": "varied", "engine": "loop",
    }  # fmt: skip
    assert other.keys() == TrainSpec.model_fields.keys()
    plain = pair_spec(train={"lr": 0.1, "epochs": 2, "batch_size": 4})
    sharing = {
        name
        for name, value in other.items()
        if program(plain) != program(plain.model_copy(update={"train": plain.train.model_copy(update={name: value})}))
    }
    assert other.keys() - sharing == {"lr", "momentum", "weight_decay", "schedule", "warmup", "noise"}


def test_cohorts_do_not_grow_without_end():
    assert Slots(number=2).cohort_size(10_000) == 16
    assert Slots(number=2, gpu=True).cohort_size(10_000) == 128
