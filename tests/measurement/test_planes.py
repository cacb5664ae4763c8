"""Planes through three weight vectors: the three points are the networks themselves; the order is a name only."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import nn

from lmc_tune.core.plane import plane_through
from lmc_tune.experiment import MeasureSpec, PlanesSpec
from lmc_tune.measurement.lines import MeasurementError
from lmc_tune.measurement.planes import Planes, combined
from lmc_tune.measurement.vectors import WeightVectors
from tests.cases import network, state
from tests.measurement.around import pair, plain_score

ASKED = MeasureSpec(planes=PlanesSpec(points=4), conditions=("naive",))


def rows_of(members, **changes) -> list:
    asked = ASKED.model_copy(update={"planes": ASKED.planes.model_copy(update=changes)})
    return Planes().measure(members, asked).tables["planes"]


@pytest.mark.parametrize("through", list(permutations(("a", "b", "start"))))
def test_the_three_points_have_the_values_of_their_networks(through):
    members = pair()
    states = {**members.states, "start": members.start}
    rows = rows_of(members, through=through)
    assert len(rows) == 2 * (3 + 16)
    for row in rows:
        if row["point"] != "grid":
            loss, correct = plain_score(network(0).double(), states[row["point"]], members.data[row["split"]])
            assert row["loss_sum"] == pytest.approx(loss, rel=1e-12)
            assert (row["correct"], row["n"]) == (correct, len(members.data[row["split"]]))
    places = {row["point"]: (row["x"], row["y"]) for row in rows if row["point"] != "grid"}
    assert places[through[0]] == (0.0, 0.0)
    assert places[through[1]][1] == 0.0
    for one in through:
        for other in through:
            distance = sum(float(((states[one][name] - states[other][name]) ** 2).sum()) for name in states[one]) ** 0.5
            assert np.linalg.norm(np.subtract(places[one], places[other])) == pytest.approx(distance, rel=1e-12)


def test_the_grid_is_on_the_plane():
    """Against an orthonormal basis by QR of the weights themselves."""
    members = pair()
    a, b, start = (WeightVectors(members.network).vector(state) for state in (*members.pair, members.start))
    q, r = np.linalg.qr(np.stack([b - a, start - a], axis=1))
    u, v = q.T * np.sign(np.diag(r))[:, None]
    weights = WeightVectors(members.network)
    for row in rows_of(members):
        if row["split"] == "test":
            own = {**members.pair[0], **weights.entries(a + row["x"] * u + row["y"] * v, a_like := members.pair[0])}
            assert a_like is members.pair[0]
            assert row["loss_sum"] == pytest.approx(
                plain_score(network(0).double(), own, members.data["test"])[0], rel=1e-9
            )


def test_another_order_has_other_coordinates_and_the_same_values():
    members = pair()
    states = {**members.states, "start": members.start}
    vectors = {name: WeightVectors(members.network).vector(own) for name, own in states.items()}
    expected = None
    for order in permutations(("a", "b", "start")):
        basis = plane_through(*(vectors[name] for name in order))
        weights = dict(zip(("a", "b", "start"), (0.6, -0.4, 0.8), strict=True))
        x, y = sum(weights[name] * np.array(place) for name, place in zip(order, basis.points, strict=True))
        found = combined([states[name] for name in order], basis.weights(x, y))
        score = plain_score(network(0).double(), found, members.data["test"])
        expected = expected or score
        assert score == (pytest.approx(expected[0], rel=1e-10), expected[1])


def test_three_members_span_a_plane_too():
    members = pair()
    third = {name: entry.double() for name, entry in state(network(7)).items()}
    three = replace(members, states={**members.states, "c": third})
    rows = rows_of(three, through=("a", "c", "b"), splits=("test",))
    (row,) = [row for row in rows if row["point"] == "c"]
    assert row["loss_sum"] == pytest.approx(plain_score(network(0).double(), third, members.data["test"])[0])


def test_points_that_are_not_known_are_named():
    members = replace(pair(), start=None)
    with pytest.raises(MeasurementError, match="no 'start' to span a plane; the points are a, b"):
        rows_of(members)


def test_there_is_no_plane_through_a_line():
    members = pair()
    same = replace(members, states={"a": members.pair[0], "b": members.pair[0]})
    assert Planes().measure(same, ASKED).tables == {}
    assert Planes().measure(members, MeasureSpec()).tables == {}


def test_no_running_variance_is_negative():
    members = pair(norm=True)
    states = [*members.pair, members.start]
    found = combined(states, (-39.0, 40.0, 0.0))
    plain = -39 * states[0]["2.running_var"] + 40 * states[1]["2.running_var"]
    assert float(plain.min()) < 0
    assert torch.allclose(found["2.running_var"], plain.clamp(min=0))
    assert all(np.isfinite(row["loss_sum"]) for row in rows_of(members, margin=3.0))


def test_grids_are_recalibrated_where_that_is_asked_for():
    members = pair(norm=True)
    asked = ASKED.model_copy(update={"conditions": ("naive", "recalibrated")})
    rows = Planes().measure(members, asked).tables["planes"]
    assert {row["condition"] for row in rows} == {"recalibrated"}
    (row,) = [row for row in rows if (row["point"], row["split"]) == ("b", "test")]
    model = network(0, norm=True).double()
    model.load_state_dict(members.pair[1])
    model[2].reset_running_stats()
    model[2].momentum = None
    model.train()(members.data["train"].inputs)
    assert row["loss_sum"] == pytest.approx(plain_score(model, model.state_dict(), members.data["test"])[0], rel=1e-10)


def test_no_running_variance_is_extrapolated_below_zero():
    """Of any norm that has one."""
    model = nn.Sequential(nn.InstanceNorm1d(2, track_running_stats=True))
    states = [{**state(model), "0.running_var": torch.tensor([size, 1.0])} for size in (1.0, 2.0, 3.0)]
    assert combined(states, (3.0, -2.0, 0.0))["0.running_var"].tolist() == [0.0, 1.0]
