"""Barriers of sets of layers: laws, and the naive loop's numbers."""

import math
from typing import Any

import pytest
import torch

from lmc_tune.core.barrier import DEFINITIONS, locate_barrier
from lmc_tune.experiment import AlignmentSpec, Condition, LayersSpec, MeasureSpec, barrier_column
from lmc_tune.measurement.conditions import prepare
from lmc_tune.measurement.evaluate import evaluate
from lmc_tune.measurement.layerwise.blends import Blender
from lmc_tune.measurement.layerwise.layer_barriers import LayerBarriers, SetPath, measure_layers
from lmc_tune.measurement.layerwise.layers import layers_of
from lmc_tune.measurement.layerwise.sets import LayerSet, layer_sets
from lmc_tune.measurement.lines import Segment
from lmc_tune.measurement.measurement import Found, Sizes, Work
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.score import score
from lmc_tune.tables.columns import LAYER_BARRIERS, LAYER_PATHS
from tests.cases import state
from tests.measurement.cases import IMAGES, image_network

DATA = {"test": IMAGES}
GRID = (0.0, 0.25, 0.5, 0.75, 1.0)


def blender_of(kind: str, *, swapped: bool = False) -> Blender:
    a, b = (image_network(kind, seed) for seed in ((2, 1) if swapped else (1, 2)))
    return Blender(Network(image_network(kind, 3)), (state(a), state(b)), layers_of(a, IMAGES.inputs[:2]))


def losses(path: SetPath) -> list[float]:
    return [scores["test"].loss for scores in path.scores]


def by_set(paths: list[SetPath]) -> dict[tuple[str, str, str], SetPath]:
    return {(path.moved.family, path.moved.name, path.base): path for path in paths}


def members_of(kind: str, **more: Any) -> Members:
    a, b, start = (state(image_network(kind, seed)) for seed in (1, 2, 3))
    data = {"train": IMAGES, "test": IMAGES}
    return Members(
        network=Network(image_network(kind, 4)),
        states={"a": a, "b": b},
        data=data,
        statistics=IMAGES,
        start=start,
        **more,
    )


def measured(kind: str, layers: dict[str, Any], **more: Any) -> Found:
    asked = MeasureSpec(conditions=("naive",), layers=LayersSpec(**layers), **more)
    return LayerBarriers().measure(members_of(kind), asked)


@pytest.mark.parametrize("condition", ["naive", "endpoint", "recalibrated", "repaired"])
def test_all_layers_together_are_the_whole_path_under_every_condition(condition):
    blender = blender_of("mlp batch")
    sets = layer_sets(blender.layers, LayersSpec())
    paths = by_set(measure_layers(blender, sets, GRID, DATA, condition, IMAGES))
    whole = score(blender.network, Segment(*blender.ends), GRID, DATA, condition, IMAGES)
    expected = [scores["test"].loss for scores in whole]
    last, first = blender.layers[-1].name, blender.layers[0].name
    for key in (("full", "all", "a"), ("shallow", last, "a"), ("deep", first, "a")):
        assert losses(paths[key]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("condition", ["naive", "endpoint", "recalibrated", "repaired"])
def test_the_barriers_of_all_layers_are_those_of_the_whole_path(condition):
    blender = blender_of("mlp batch")
    full, *_ = layer_sets(blender.layers, LayersSpec(families=("single",)))
    path = by_set(measure_layers(blender, [full], GRID, DATA, condition, IMAGES))["full", "all", "a"]
    whole = [s["test"].loss for s in score(blender.network, Segment(*blender.ends), GRID, DATA, condition, IMAGES)]
    for definition in DEFINITIONS:
        found = path.barriers()[barrier_column("test_loss", definition)]
        assert found == pytest.approx(locate_barrier(GRID, whole, definition).height, abs=1e-9)


@pytest.mark.parametrize("condition", ["naive", "endpoint", "recalibrated", "repaired"])
def test_swapping_the_members_swaps_the_bases(condition):
    one, other = blender_of("mlp batch"), blender_of("mlp batch", swapped=True)
    sets = layer_sets(one.layers, LayersSpec(window=2))
    here = by_set(measure_layers(one, sets, GRID, DATA, condition, IMAGES))
    there = by_set(measure_layers(other, sets, GRID, DATA, condition, IMAGES))
    for (family, name, base), path in here.items():
        if family == "full":
            continue
        mirrored = there[family, name, "b" if base == "a" else "a"]
        assert losses(path) == pytest.approx(losses(mirrored), rel=1e-9)
        assert path.ends[0]["test"].loss == pytest.approx(mirrored.ends[0]["test"].loss, rel=1e-9)


@pytest.mark.parametrize("condition", ["naive", "endpoint", "recalibrated", "repaired"])
def test_a_single_layer_equals_a_segment_that_moves_it_alone(condition):
    """The condition's own networks, one by one."""
    blender = blender_of("resnet batch")
    at = 4
    (moved,) = [s for s in layer_sets(blender.layers, LayersSpec()) if s.family == "single" and s.position == at]
    path = by_set(measure_layers(blender, [moved], (0.25,), DATA, condition, IMAGES))["single", moved.name, "b"]
    b_to_a = Segment(*blender.ends[::-1], moved=frozenset(blender.layers[at].entries))
    prepared = prepare(condition, blender.network, b_to_a, IMAGES, [0.25])
    expected = evaluate(prepared.network.loaded(prepared.states[0]), IMAGES)
    assert losses(path) == pytest.approx([expected.loss], rel=1e-9)


def test_at_the_far_end_shallow_layers_of_one_base_are_deep_layers_of_the_other():
    blender = blender_of("mlp")
    n = len(blender.layers)
    sets = layer_sets(blender.layers, LayersSpec())
    shallow, deep = ({s.position: s for s in sets if s.family == family} for family in ("shallow", "deep"))
    for k in range(n - 1):
        assert shallow[k].blend("a", 1.0, n) == deep[k + 1].blend("b", 1.0, n)


def test_heights_are_taken_from_the_mean_of_the_whole_members():
    """By hand: A and B have losses 1 and 3; the moved layers go 1, 2.5, 0.5."""
    path = _path([1.0, 2.5, 0.5], ends=(1.0, 3.0))
    found = path.barriers()
    assert found["test_loss_barrier_midpoint"] == pytest.approx(2.5 - 2)
    assert found["test_loss_barrier_endpoint_mean"] == pytest.approx(2.5 - 2)
    assert found["test_loss_barrier_chord"] == pytest.approx(2.5 - 2)
    assert found["test_loss_barrier_max_endpoint"] == pytest.approx(2.5 - 3)
    assert found["test_loss_barrier_local_minima"] == pytest.approx(2.5 - 0.75)
    assert found["test_loss_barrier_chord_lambda"] == 0.5


def test_the_members_own_values_as_ends_change_nothing():
    curve = [0.3, 0.9, 0.4, 1.5, 0.7]
    for definition in DEFINITIONS:
        assert locate_barrier(GRID, curve, definition, (curve[0], curve[-1])) == locate_barrier(GRID, curve, definition)
    assert math.isnan(locate_barrier(GRID, curve, "chord", (math.nan, 1.0)).height)


def _path(values: list[float], ends: tuple[float, float]) -> SetPath:
    def scores(loss: float) -> dict[str, Any]:
        return {"test": type("S", (), {"loss": loss, "error": 0.0})()}

    moved = LayerSet(family="single", name="x", position=0, layers=(0,))
    lambdas = tuple(at / (len(values) - 1) for at in range(len(values)))
    one, other = map(scores, ends)
    return SetPath(moved=moved, base="a", lambdas=lambdas, scores=tuple(map(scores, values)), ends=(one, other))


def test_half_way_alone_has_the_midpoint_alone():
    found = measured("mlp", {"families": ("single",)})
    rows = found.tables["layer_barriers"]
    assert {row["family"] for row in rows} == {"single", "full"}
    heights = {name for row in rows for name in row if "_barrier_" in name}
    midpoints = {
        barrier_column(f"{split}_{what}", "midpoint") for split in ("train", "test") for what in ("error", "loss")
    }
    assert heights == midpoints | {f"{name}_lambda" for name in midpoints}
    assert {row["lambda"] for row in found.tables["layer_paths"]} == {0.5}


def test_rows_fit_their_tables_and_say_what_is_moved():
    found = measured("mlp", {"lambdas": 3, "window": 2, "groups": {"hidden": "linear*"}})
    for table, columns in (
        (LAYER_BARRIERS, found.tables["layer_barriers"]),
        (LAYER_PATHS, found.tables["layer_paths"]),
    ):
        assert all(set(row) <= set(table.schema.names) for row in columns)
    named = {(row["family"], row["moved"]): row for row in found.tables["layer_barriers"]}
    assert named["window", "linear1 … linear2"]["layers"] == named["group", "hidden"]["layers"] == 2
    assert named["shallow", "linear2"]["share"] == pytest.approx(2 / 3)
    assert named["full", "all"]["distance"] == pytest.approx(
        math.sqrt(sum(named["single", f"{name}"]["distance"] ** 2 for name in ("linear1", "linear2", "head")))
    )


def test_every_snapshot_of_both_members_is_measured():
    early, late = ({name: entry * size for name, entry in state(image_network("mlp", 5)).items()} for size in (1, 2))
    end = members_of("mlp").states
    snapshots = {"a": {0: early, 2: late, 5: end["a"]}, "b": {0: early, 2: early, 5: end["b"], 9: late}}
    asked = MeasureSpec(layers=LayersSpec(families=("single",)), conditions=("naive",))
    rows = LayerBarriers().measure(members_of("mlp", snapshots=snapshots), asked).tables["layer_barriers"]
    assert {row["epoch"] for row in rows} == {None, 0, 2, 5}
    of = {epoch: [{**row, "epoch": None} for row in rows if row["epoch"] == epoch] for epoch in (None, 0, 5)}
    assert of[5] == of[None]
    assert {row["test_loss_barrier_midpoint"] for row in of[0]} == {0.0}  # one network twice


def test_aligned_conditions_take_the_aligned_b():
    """A permuted copy of A has no barrier once it is aligned."""
    a = image_network("mlp", 1)
    b = state(a)
    order = torch.tensor([3, 0, 2, 1, 5, 4])
    b["linear1.weight"], b["linear1.bias"] = b["linear1.weight"][order], b["linear1.bias"][order]
    b["linear2.weight"] = b["linear2.weight"][:, order]
    members = Members(
        network=Network(image_network("mlp", 4)),
        states={"a": state(a), "b": b},
        data={"train": IMAGES, "test": IMAGES},
        statistics=IMAGES,
    )
    asked = MeasureSpec(conditions=("naive",), alignment=AlignmentSpec(), layers=LayersSpec())
    asked = asked.model_copy(update={"conditions": ("naive", "aligned")})
    rows = LayerBarriers().measure(members, asked).tables["layer_barriers"]
    heights = {
        one: [abs(r["test_loss_barrier_midpoint"]) for r in rows if r["condition"] == one]
        for one in ("naive", "aligned")
    }
    assert max(heights["aligned"]) == pytest.approx(0, abs=1e-9)
    assert max(heights["naive"]) > 1e-4


def test_nothing_is_measured_unless_it_is_asked():
    assert LayerBarriers().measure(members_of("mlp"), MeasureSpec()) == Found()
    sizes = Sizes(part=10, both=20, test=5, splits={"train": 20, "test": 5}, layers=3)
    assert LayerBarriers().work(sizes, MeasureSpec()) == Work()


def test_the_work_is_that_of_the_networks_that_are_scored():
    """Three layers a, b, c from A and B, half-way: 10 sets; by hand, layer by layer, what begins alike once."""
    sizes = Sizes(part=10, both=20, test=5, splits={"train": 20, "test": 5}, layers=3)

    def work(*conditions: Condition, **more: Any) -> Work:
        every: tuple[Condition, ...] = ("naive", "endpoint", "recalibrated", "repaired")
        asked = MeasureSpec(conditions=every, layers=LayersSpec(conditions=conditions), **more)
        return LayerBarriers().work(sizes, asked)

    # Networks: 000, 111, all ½, and from either base ½00, 0½0, 00½, ½½0, 0½½; their first layers 0, 1, ½, their first
    # two 00, 0½, 11, 1½, ½0, ½1, ½½, and 13 whole ones: 23 layers of three.
    assert work("naive") == Work(scored_apart=round(25 * 23 / 3), estimated=0)
    assert work("recalibrated") == Work(scored_apart=round(25 * 23 / 3), estimated=round(20 * 23 / 3))
    # From A alone: 0, 1, ½; 00, 0½, 11, ½0, ½½; 000, 111, ½½½, ½00, 0½0, 00½, ½½0, 0½½. As many from B.
    assert work("endpoint") == Work(scored_apart=round(25 * 2 * 16 / 3), estimated=0)
    # 10 sets from both bases and the two ends; of each the moments of both ends and its own statistics.
    assert work("repaired") == Work(scored_apart=25 * 22, estimated=20 * (20 * 3 + 4))
    assert work("naive", snapshots=(1, 2)).scored_apart == round(25 * 3 * 23 / 3)
    both = work("naive", "repaired")
    assert (both.scored_apart, both.estimated) == (round(25 * (23 / 3 + 22)), 20 * 64)


def test_groups_are_found_by_pattern_and_left_out_where_there_is_none():
    groups = {"first": "stage1.*", "ends": ["stem", "head"], "blocks": "block*"}
    rows = measured("resnet", {"families": (), "groups": groups}).tables["layer_barriers"]
    assert {row["moved"]: row["layers"] for row in rows} == {"all": 10, "first": 2, "ends": 2}
    assert {row["moved"] for row in measured("mlp", {"families": (), "window": 9}).tables["layer_barriers"]} == {"all"}
