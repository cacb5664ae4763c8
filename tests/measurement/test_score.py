"""The door: whatever the line and the condition, every position is the network that is there."""

import pytest
import torch

from lmc_tune.experiment import DirectionsSpec, MeasureSpec, NoiseSpec, PlanesSpec, SharpnessSpec
from lmc_tune.measurement.conditions import prepare
from lmc_tune.measurement.ends import Ends
from lmc_tune.measurement.evaluate import evaluate
from lmc_tune.measurement.lines import MeasurementError, Segment
from lmc_tune.measurement.measurement import Sizes, Work
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.path import Paths
from lmc_tune.measurement.registry import MEASUREMENTS
from lmc_tune.measurement.score import score
from lmc_tune.measurement.similarity import Similarity
from lmc_tune.tables.columns import RESULTS_SCHEMA, TABLES
from tests.cases import blobs, network, state
from tests.measurement.cases import IMAGES, image_network

DATA = {"train": blobs(60), "test": blobs(30, seed=1)}
POSITIONS = [0.0, 0.2, 0.5, 0.9, 1.0, 0.7]
FIRST = frozenset({"1.weight", "1.bias"})


@pytest.mark.parametrize("moved", [None, FIRST])
def test_a_score_is_that_of_the_network_at_its_position(moved):
    line = Segment(state(network(1)), state(network(2)), moved=moved)
    found = score(Network(network(9)), line, POSITIONS, DATA)
    for position, by_split in zip(POSITIONS, found, strict=True):
        reference = network(0)
        reference.load_state_dict(line.at(position))
        for split, examples in DATA.items():
            expected = evaluate(reference, examples)
            assert by_split[split].loss_sum == pytest.approx(expected.loss_sum, rel=1e-5)
            assert (by_split[split].correct, by_split[split].n) == (expected.correct, expected.n)


@pytest.mark.parametrize("condition", ["endpoint", "recalibrated", "repaired"])
def test_a_segment_with_all_moved_is_the_whole_segment_under_every_condition(condition):
    a, b = (state(image_network("mlp batch", seed)) for seed in (1, 2))
    lines = [Segment(a, b), Segment(a, b, moved=frozenset(a))]
    scores = [
        score(Network(image_network("mlp batch", 3)), line, POSITIONS, {"test": IMAGES}, condition, IMAGES)
        for line in lines
    ]
    assert scores[0] == scores[1]


def test_a_part_of_a_segment_is_prepared_as_what_it_is():
    """Statistics are estimated of the network that stands there, not of the whole path's."""
    a, b = (state(image_network("mlp batch", seed)) for seed in (1, 2))
    line, net = Segment(a, b, moved=frozenset({"linear1.weight"})), Network(image_network("mlp batch", 3))
    (found,) = score(net, line, [0.5], {"test": IMAGES}, "recalibrated", IMAGES)
    prepared = prepare("recalibrated", net, line, IMAGES, [0.5])
    assert found["test"] == evaluate(net.loaded(prepared.states[0]), IMAGES)
    assert torch.equal(prepared.states[0]["linear2.weight"], a["linear2.weight"])


def test_statistics_that_are_needed_and_missing_are_asked_for():
    line = Segment(state(network(1)), state(network(2)))
    with pytest.raises(MeasurementError, match="recalibrated needs examples of the training set; give them as stat"):
        score(Network(network(0)), line, [0.5], DATA, "recalibrated")


def trio(*names: str) -> Members:
    return Members(
        network=Network(network(9)),
        states={name: state(network(seed)) for seed, name in enumerate(names, start=1)},
        data=DATA,
        own=dict.fromkeys(names, DATA["train"]),
        statistics=DATA["train"],
        start=state(network(0)),
    )


def test_what_measurements_find_are_columns_and_tables_that_there_are():
    around = DirectionsSpec(noise=NoiseSpec(kinds=("path",)), sharpness=SharpnessSpec(examples=20))
    asked = MeasureSpec(lambdas=5, refinements=1, conditions=("naive",), directions=around, planes=PlanesSpec(points=3))
    tables = {name: table.schema.names for name, table in TABLES.items()}
    for measurement in (Ends(), *MEASUREMENTS):
        found = measurement.measure(trio("a", "b"), asked)
        assert set(found.columns) <= set(RESULTS_SCHEMA.names), measurement.name
        for name, rows in found.tables.items():
            assert rows
            assert all(set(row) <= set(tables[name]) for row in rows)
    assert len({measurement.name for measurement in MEASUREMENTS}) == len(MEASUREMENTS)


def test_members_of_any_number_have_ends_but_only_two_are_a_pair():
    three = trio("a", "b", "c")
    columns = Ends().measure(three, MeasureSpec()).columns
    assert {"test_loss_c", "train_accuracy_c", "distance_c"} <= set(columns)
    assert "distance" not in columns
    with pytest.raises(ValueError, match="a pair has two members, got 3: a, b, c"):
        _ = three.pair


def test_work_adds_up():
    sizes = Sizes(part=10, both=20, test=5, splits={"train": 20, "test": 5}, layers=2)
    asked = MeasureSpec(lambdas=5, conditions=("naive", "recalibrated"))
    total = sum((one.work(sizes, asked) for one in (Ends(), Paths(), Similarity())), Work())
    assert total.scored_on_path == (5 + 7) * 25
    assert total.scored_apart == 2 * 15 + (5 + 7) * 25 + 3 * 5
    assert total.estimated == 20 * (5 + 7) + 3 * 20
