"""Checkpoints as other programs write them: what is taken, and what is refused in one sentence."""

import argparse
import json
import os
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lmc_tune.errors import UserError
from lmc_tune.measurement.checkpoints import read_checkpoint


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(first=nn.Linear(4, 6), norm=nn.BatchNorm1d(6), last=nn.Linear(6, 3)))


NETWORK = network()
STATE = NETWORK.state_dict()


def prefixed(prefix: str) -> dict:
    return {f"{prefix}{name}": entry for name, entry in STATE.items()}


WRITTEN = {
    "plain.pt": (STATE, "plain.pt"),
    "lightning.ckpt": (
        {"epoch": 3, "state_dict": prefixed("model.") | {"criterion.weight": torch.ones(3)}, "optimizer_states": []},
        "state_dict of lightning.ckpt, names without 'model.', 1 entries that are not the network's left out",
    ),
    "timm.pth.tar": (
        {"epoch": 1, "arch": "x", "state_dict": {k: 0 * v for k, v in STATE.items()}, "state_dict_ema": STATE},
        "state_dict_ema of timm.pth.tar",
    ),
    "parallel.pth": (prefixed("module."), "parallel.pth, names without 'module.'"),
    "compiled.pth": ({"model": prefixed("_orig_mod.")}, "model of compiled.pth, names without '_orig_mod.'"),
    "both.pth": (prefixed("_orig_mod.module."), "both.pth, names without '_orig_mod.module.'"),
    "nested.pth": ({"checkpoint": 1, "model": {"state_dict": STATE}}, "model.state_dict of nested.pth"),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_the_weights_are_found_and_it_is_said_where(tmp_path, name):
    content, took = WRITTEN[name]
    torch.save(content, tmp_path / name)
    found = read_checkpoint(tmp_path / name).of(STATE)
    assert found.took == took.replace(name, f"{tmp_path}/{name}")
    assert list(found.state) == list(STATE)
    assert all(torch.equal(found.state[entry], STATE[entry]) for entry in STATE)


def test_safetensors_and_folders_of_hugging_face_are_read(tmp_path):
    save_file(dict(STATE), tmp_path / "model.safetensors")
    assert read_checkpoint(tmp_path / "model.safetensors").of(STATE).took == f"{tmp_path}/model.safetensors"
    assert read_checkpoint(tmp_path).of(STATE).took == f"{tmp_path}/model.safetensors"
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    halves = [dict(list(STATE.items())[:3]), dict(list(STATE.items())[3:])]
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for half, name in zip(halves, names, strict=True):
        save_file(half, sharded / name)
    index = {"weight_map": {entry: name for half, name in zip(halves, names, strict=True) for entry in half}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    found = read_checkpoint(sharded).of(STATE)
    assert found.took == f"{sharded}, 2 files"
    assert all(torch.equal(found.state[entry], STATE[entry]) for entry in STATE)
    index["weight_map"] = dict.fromkeys(STATE, "../model.safetensors")
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"names a file outside of its folder: \.\./model\.safetensors"):
        read_checkpoint(sharded)


class Harmful:
    """A pickle that would make a file."""

    def __init__(self, file) -> None:
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def test_nothing_is_executed(tmp_path):
    torch.save({"state_dict": STATE, "more": Harmful(tmp_path / "executed")}, tmp_path / "harmful.pt")
    with pytest.raises(
        UserError, match=r"holds more than weights \(\w+\.system\): reading it would run code from it, which is refused"
    ):
        read_checkpoint(tmp_path / "harmful.pt")
    torch.save(NETWORK, tmp_path / "whole.pt")
    with pytest.raises(UserError, match=r"Save its state dict alone: torch\.save\(model\.state_dict\(\)"):
        read_checkpoint(tmp_path / "whole.pt")
    assert not (tmp_path / "executed").exists()


def test_options_and_paths_that_training_scripts_store_are_read(tmp_path):
    stored = {"args": argparse.Namespace(model="resnet18", lr=0.1), "hyper_parameters": {"root": Path("/data")}}
    torch.save(stored | {"state_dict": STATE}, tmp_path / "last.pth.tar")
    assert read_checkpoint(tmp_path / "last.pth.tar").of(STATE).took == f"state_dict of {tmp_path}/last.pth.tar"
    options = argparse.Namespace(harm=Harmful(tmp_path / "executed"))
    torch.save({"args": options, "state_dict": STATE}, tmp_path / "harmful.pth.tar")
    with pytest.raises(UserError, match=r"holds more than weights \(\w+\.system\)"):
        read_checkpoint(tmp_path / "harmful.pth.tar")
    assert not (tmp_path / "executed").exists()


def test_what_is_no_weight_is_named_and_a_user_of_lightning_is_advised(tmp_path):
    content = {"state_dict": STATE, "hyper_parameters": {"loss": nn.CrossEntropyLoss()}}
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(
        UserError, match=r"\(torch\.\S+\.CrossEntropyLoss\).* save_hyperparameters\(ignore=\[\.\.\.\]\)$"
    ):
        read_checkpoint(tmp_path / "x.ckpt")


def wider() -> dict:
    return nn.Sequential(OrderedDict(first=nn.Linear(4, 8), norm=nn.BatchNorm1d(8), last=nn.Linear(8, 3))).state_dict()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (wider(), r"is of another architecture: 'first\.weight' is 8×4 there, and 6×4 in the network"),
        ({**STATE, "last.weight": torch.ones(7, 6)}, r"'last\.weight' is 7×6 there, and 3×6 in the network"),
        (
            {("lost" if name == "first.weight" else name): entry for name, entry in STATE.items()},
            r"lacks 'first\.weight', which the network has; of its shape, it has 'lost'",
        ),
        ({**STATE, "extra.weight": torch.ones(1)}, r"has 'extra\.weight', which the network does not have"),
        (
            {**STATE, "last.bias": torch.tensor([1.0, float("nan"), 0.0])},
            r"'last\.bias' holds values that are not finite",
        ),
    ],
)
def test_another_network_is_named_by_the_first_entry_that_differs(tmp_path, content, said):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UserError, match=said):
        read_checkpoint(tmp_path / "x.pt").of(STATE)


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    optimizer = torch.optim.Adam(NETWORK.parameters())
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"epoch": 3, "loss": 0.1}, tmp_path / "log.pt")
    with zipfile.ZipFile(tmp_path / "archive.pt", "w") as archive:
        archive.writestr("readme.txt", "no weights")
    (tmp_path / "text.pt").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "empty").mkdir()
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    save_file({"lora_A.weight": torch.ones(2, 2)}, tmp_path / "adapter/adapter_model.safetensors")
    for name, said in (
        ("optimizer.pt", "holds the state of an optimizer, not of a network"),
        ("list.pt", "holds a list, not the state dict of a network"),
        ("log.pt", "holds no state dict of a network; it has epoch, loss"),
        ("archive.pt", "is a zip archive, but no checkpoint of torch"),
        ("text.pt", "is no checkpoint of torch"),
        ("text.safetensors", "is no safetensors file, or is damaged"),
        ("empty", "is a folder without weights"),
        ("adapter", r"holds an adapter, .* merge it into them first: model\.merge_and_unload\(\)"),
        ("nowhere.pt", "there is no checkpoint"),
    ):
        with pytest.raises(UserError, match=said):
            read_checkpoint(tmp_path / name)
