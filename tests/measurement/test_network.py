"""One place writes weights into modules."""

import ast
from pathlib import Path

import torch
from torch import nn

import lmc_tune.measurement
from lmc_tune.measurement.network import Network, holding
from lmc_tune.models.state import lerp_state
from tests.cases import network, state
from tests.measurement.cases import image_network

ROOM = Path(lmc_tune.measurement.__file__).parent
WRITERS = {"load_state_dict", "lerp_into"}


def writers_in(text: str) -> set[str]:
    calls = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    names = {func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "") for func in calls}
    return names & WRITERS


def test_nothing_else_in_the_room_or_in_the_work_writes_weights():
    files = [*ROOM.glob("*.py"), *(ROOM.parent / "work").glob("*.py")]
    assert len(files) > 12
    found = {path.name: names for path in files if (names := writers_in(path.read_text()))}
    assert found == {"network.py": WRITERS}
    assert writers_in("model.load_state_dict(state)") == {"load_state_dict"}


def test_a_loaded_module_has_a_copy_and_a_holding_one_the_tensors_themselves():
    own, other = Network(network(0)), state(network(1))
    loaded = own.loaded(other)
    assert all(torch.equal(tensor, other[name]) for name, tensor in loaded.state_dict().items())
    assert not {t.data_ptr() for t in loaded.state_dict().values()} & {t.data_ptr() for t in other.values()}
    held = holding(network(0), other)
    assert {t.data_ptr() for t in held.state_dict().values()} == {t.data_ptr() for t in other.values()}


def test_moving_writes_into_the_memory_that_the_weights_have():
    moving, a, b = Network(network(0, norm=True)), state(network(1, norm=True)), state(network(2, norm=True))
    before = {name: tensor.data_ptr() for name, tensor in moving.module.state_dict().items()}
    for position in (0.3, 0.8):
        found = moving.moved_to(a, b, position).state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in lerp_state(a, b, position).items())
        assert {name: tensor.data_ptr() for name, tensor in found.items()} == before


def test_a_copy_shares_nothing():
    one = Network(network(0))
    other = one.copy()
    other.loaded(state(network(1)))
    assert not torch.equal(one.module.state_dict()["1.weight"], other.module.state_dict()["1.weight"])


def test_norms_and_layers_are_those_of_the_module():
    assert list(Network(image_network("mlp batch", 0)).norms) == ["norm1", "norm2"]
    assert Network(network(0)).norms == {}
    untracked = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4, track_running_stats=False))
    assert Network(untracked).norms == {}
    layers = Network(network(0, norm=True)).layers
    assert layers == {"1": ("1.weight", "1.bias"), "2": ("2.weight", "2.bias"), "4": ("4.weight", "4.bias")}
    assert [name for own in layers.values() for name in own] == list(Network(network(0, norm=True)).parameters)
