"""Random directions of every layer, against the members' weights and a plain loop."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from lmc_tune.experiment import DirectionsSpec, MeasureSpec, RandomSpec
from lmc_tune.measurement.directions import Directions, random_directions
from lmc_tune.measurement.layerwise.layers import layers_of
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.steps import Direction
from lmc_tune.measurement.vectors import WeightVectors
from tests.cases import network, state
from tests.measurement.around import pair, plain_score

SPEC = RandomSpec(draws=3, alphas=(0.5, 1.0))
ASKED = MeasureSpec(directions=DirectionsSpec(random=SPEC), conditions=("naive",))


def directions_of(members: Members, spec: RandomSpec = SPEC) -> list[list[Direction]]:
    layers = layers_of(members.network.module, members.data["test"].inputs[:2])
    return list(random_directions(members, spec, layers))


def norm(step: dict[str, torch.Tensor]) -> float:
    return sum(float((entry.double() ** 2).sum()) for entry in step.values()) ** 0.5


def test_every_direction_has_exactly_the_distance_of_its_layer():
    members = pair()
    a, b = members.pair
    found = [direction for own in directions_of(members) for direction in own]
    assert Counter(direction.layer for direction in found) == {("1", 0): 8, ("3", 1): 8}
    for direction in found:
        layer, _ = direction.layer
        names = [f"{layer}.weight", f"{layer}.bias"]
        distance = norm({name: a[name] - b[name] for name in names})
        assert list(direction.step) == names
        assert norm(direction.step) == pytest.approx(distance, rel=1e-12)
        assert direction.row(0.5)["norm"] == pytest.approx(0.5 * distance, rel=1e-12)


def test_a_step_of_float32_weights_is_rounded_once():
    members = pair()
    single = {name: {key: entry.float() for key, entry in own.items()} for name, own in members.states.items()}
    for own in directions_of(replace(members, states=single)):
        for direction in own:
            for name, moved in direction.at(0.5).items():
                exact = direction.origin[name].double() + 0.5 * direction.step.get(name, torch.zeros(()))
                assert moved.dtype == torch.float32
                assert torch.equal(moved, exact.float())


def test_rows_are_scores_by_the_book():
    members = pair()
    a, b = members.pair
    rows = Directions().measure(members, ASKED).tables["directions"]
    assert len(rows) == 2 * (2 + 2 * 2 * 4 * 2)
    steps = {
        (direction.kind, direction.position, direction.layer[0], direction.draw): direction.step
        for own in directions_of(members)
        for direction in own
    }
    for row in rows:
        weights = dict(b if row["lambda"] else a)
        if row["kind"] == "interpolation":
            other = a if row["lambda"] else b
            for name in (f"{row['layer']}.weight", f"{row['layer']}.bias"):
                weights[name] = (1 - row["alpha"]) * weights[name] + row["alpha"] * other[name]
        elif row["kind"] == "random":
            for name, step in steps["random", row["lambda"], row["layer"], row["draw"]].items():
                weights[name] = weights[name] + row["alpha"] * step
        loss, correct = plain_score(network(0).double(), weights, members.data[row["split"]])
        assert row["loss_sum"] == pytest.approx(loss, rel=1e-10)
        assert (row["correct"], row["n"]) == (correct, len(members.data[row["split"]]))


def test_the_way_to_the_other_member_ends_where_its_layer_is():
    members = pair()
    for own in directions_of(members):
        for direction in own:
            if direction.kind == "interpolation":
                other = members.pair[0 if direction.position else 1]
                for name in direction.step:
                    assert torch.allclose(direction.at(1.0)[name], other[name], rtol=0, atol=1e-15)


def drawn(members: Members, spec: RandomSpec) -> dict[tuple, torch.Tensor]:
    return {
        (direction.position, direction.layer, direction.draw, name): entry
        for own in directions_of(members, spec)
        for direction in own
        if direction.kind == "random"
        for name, entry in direction.step.items()
    }


def test_a_draw_is_the_same_whatever_else_is_asked():
    one, more, other = (
        drawn(pair(seed=seed), RandomSpec(draws=draws, alphas=alphas))
        for seed, draws, alphas in ((5, 1, (1.0,)), (5, 4, (0.1, 2.0)), (6, 1, (1.0,)))
    )
    assert all(torch.equal(entry, more[name]) for name, entry in one.items())
    assert not any(torch.equal(entry, other[name]) for name, entry in one.items())
    weights = [more[position, ("1", 0), draw, "1.weight"] for position in (0.0, 1.0) for draw in range(4)]
    assert len({float(entry[0, 0]) for entry in weights}) == 8


def test_swapping_the_members_swaps_the_ends():
    members = pair()
    a, b = members.pair
    swapped = replace(members, states={"a": b, "b": a})
    one, other = (Directions().measure(each, ASKED).tables["directions"] for each in (members, swapped))

    def at(rows: list, end: float) -> list:
        return [
            {**row, "lambda": 0.0}
            for row in rows
            if row["lambda"] == end and row["kind"] in ("unmoved", "interpolation")
        ]

    assert at(one, 0.0) == at(other, 1.0)
    assert at(one, 1.0) == at(other, 0.0)


def test_statistics_are_estimated_after_the_step_where_recalibration_is_asked_for():
    members = pair(norm=True)
    naive, recalibrated = (
        Directions().measure(members, ASKED.model_copy(update={"conditions": conditions})).tables["directions"]
        for conditions in (("naive",), ("naive", "recalibrated"))
    )
    assert {row["condition"] for row in naive} == {"naive"}
    assert {row["condition"] for row in recalibrated} == {"recalibrated"}
    (row,) = [row for row in recalibrated if row["kind"] == "unmoved" and row["split"] == "test" and row["lambda"] == 0]
    model = network(0, norm=True).double()
    model.load_state_dict(members.pair[0])
    model[2].momentum = None
    model[2].reset_running_stats()
    model.train()(members.data["train"].inputs)
    assert row["loss_sum"] == pytest.approx(plain_score(model, model.state_dict(), members.data["test"])[0], rel=1e-10)
    assert any(a["loss_sum"] != b["loss_sum"] for a, b in zip(naive, recalibrated, strict=True))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.two.weight = self.one.weight


def test_a_weight_with_two_names_is_one():
    model = Tied()
    weights = WeightVectors(Network(model))
    vector = weights.vector(state(model))
    assert len(vector) == 9
    entries = weights.entries(2 * vector, state(model))
    assert torch.equal(entries["one.weight"], entries["two.weight"])
    assert torch.equal(entries["two.weight"], 2 * model.one.weight.detach().double())


def test_members_that_are_one_stay_where_they_are():
    """As with fixed noise and no shift: every distance is 0."""
    members = pair()
    same = replace(members, states={"a": members.pair[0], "b": members.pair[0]})
    rows = [row for row in Directions().measure(same, ASKED).tables["directions"] if row["split"] == "test"]
    assert {row["norm"] for row in rows} == {0.0}
    assert len({row["loss_sum"] for row in rows}) == 1


def test_what_is_not_asked_is_not_measured():
    assert Directions().measure(pair(), MeasureSpec()).tables == {}
