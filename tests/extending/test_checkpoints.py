"""Checkpoints that some other program wrote are members like any others."""

from pathlib import Path

import torch

from lmc_tune.experiment import MeasureSpec
from lmc_tune.measurement.evaluate import evaluate
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.registry import MEASUREMENTS
from tests.cases import blobs, network
from tests.extending.layers_moved import LayersMoved

DATA = {"train": blobs(60), "test": blobs(30, seed=1)}


def test_checkpoints_of_another_program_are_measured_by_everything_there_is(tmp_path: Path) -> None:
    for seed, name in enumerate("ab", start=1):
        torch.save({"epoch": 7, "weights": network(seed).state_dict()}, tmp_path / f"{name}.pt")
    states = {name: torch.load(tmp_path / f"{name}.pt")["weights"] for name in "ab"}
    members = Members(network=Network(network(9)), states=states, data=DATA)
    asked = MeasureSpec(lambdas=5, refinements=0, conditions=("naive",))
    found = {one.name: one.measure(members, asked) for one in (*MEASUREMENTS, LayersMoved())}
    (barriers,) = found["path"].tables["barriers"]
    middle = network(0)
    middle.load_state_dict({name: (states["a"][name] + states["b"][name]) / 2 for name in states["a"]})
    losses = [evaluate(one, DATA["test"]).loss for one in (network(1), middle, network(2))]
    assert abs(barriers["test_loss_barrier_midpoint"] - (losses[1] - (losses[0] + losses[2]) / 2)) < 1e-5
    assert 0 <= found["similarity"].columns["disagreement"] <= 1
    assert [row["layer"] for row in found["moved"].tables["moved"]] == ["1", "3"]
