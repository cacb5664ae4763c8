"""A measurement of one's own, against networks made by hand."""

import pytest

from lmc_tune.experiment import MeasureSpec
from lmc_tune.measurement.evaluate import evaluate
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.network import Network
from tests.cases import blobs, network, state
from tests.extending.layers_moved import LayersMoved


def test_a_measurement_per_layer_needs_the_public_names_alone() -> None:
    a, b, test = state(network(1)), state(network(2)), blobs(30, seed=1)
    members = Members(network=Network(network(9)), states={"a": a, "b": b}, data={"test": test})
    rows = LayersMoved().measure(members, MeasureSpec()).tables["moved"]
    assert [row["layer"] for row in rows] == ["1", "3"]
    for row, names in zip(rows, (["1.weight", "1.bias"], ["3.weight", "3.bias"]), strict=True):
        losses = []
        for share in (0.0, 0.5, 1.0):
            reference = network(0)
            reference.load_state_dict(
                {name: a[name] + share * (b[name] - a[name]) if name in names else a[name] for name in a}
            )
            losses.append(evaluate(reference, test).loss)
        assert row["barrier"] == pytest.approx(losses[1] - (losses[0] + losses[2]) / 2, abs=1e-5)
