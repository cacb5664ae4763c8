"""What ``--model`` names, and functions that are named by their file."""

import json
import sys

import pytest
import torch
from torch import nn

from lmc_tune.averaging.named import called, function_named, names_function
from lmc_tune.averaging.networks import network_of
from lmc_tune.errors import UserError
from lmc_tune.vision import import_torchvision
from tests.averaging.cases import NETS, network


def shapes(state) -> dict[str, tuple[int, ...]]:
    return {name: tuple(entry.shape) for name, entry in state.items()}


def renamed(state, prefix):
    return {f"{prefix}{name}": entry for name, entry in state.items()}


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "mobilenet_v2", "vit_b_16"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_torchvisions_have_as_many_classes_as_the_checkpoint(name, prefix):
    with torch.device("meta"):
        state = import_torchvision().models.get_model(name, weights=None, num_classes=7).state_dict()
    made = network_of(f"torchvision:{name}", renamed(state, prefix), None, None)
    assert shapes(made.state_dict()) == shapes(state)


def test_a_head_is_found_by_its_name_and_not_by_its_place():
    """safetensors keeps no order."""
    with torch.device("meta"):
        state = import_torchvision().models.resnet18(num_classes=7).state_dict()
    made = network_of("torchvision:resnet18", dict(sorted(state.items())), None, None)
    assert shapes(made.state_dict()) == shapes(state)


def test_timms_have_as_many_classes_as_the_checkpoint():
    timm = pytest.importorskip("timm")
    state = timm.create_model("resnet10t", num_classes=5).state_dict()
    assert shapes(network_of("timm:resnet10t", state, None, None).state_dict()) == shapes(state)
    with pytest.raises(UserError, match=r"timm:resnet10: no such network; did you mean resnet10t\?"):
        network_of("timm:resnet10", state, None, None)


def test_a_model_of_a_search_space_fits_the_data_and_the_checkpoint():
    usual = network_of("{name: mlp, hidden: [8]}", {}, (1, 3, 3), 4)
    assert [tuple(p.shape) for p in usual.parameters()] == [(8, 9), (8,), (4, 8), (4,)]
    flat = network_of("{name: mlp, hidden: [8]}", {}, (9,), 4)
    assert shapes(flat.state_dict()) == shapes(usual.state_dict())
    with pytest.raises(UserError, match="it takes images, and examples are 2×3"):
        network_of("mlp", {}, (2, 3), 4)
    sorted_by_name = dict(sorted(usual.state_dict().items()))
    made = network_of("{name: mlp, hidden: [8]}", sorted_by_name, (1, 3, 3), None)
    assert shapes(made.state_dict()) == shapes(usual.state_dict())


def test_a_function_of_a_file_is_called_with_what_it_names(tmp_path):
    file = tmp_path / "nets.py"
    file.write_text(NETS + "\ndef shaped(input_shape, n_classes):\n    return nn.Linear(input_shape[-1], n_classes)\n")
    assert shapes(network_of(f"{file}:build", {}, None, None).state_dict()) == shapes(network().state_dict())
    assert network_of(f"{file}:shaped", {}, (1, 8, 6), 3).weight.shape == (3, 6)


def test_files_beside_the_named_one_can_be_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside_it.py").write_text("WIDTH = 5\n")
    (tmp_path / "model.py").write_text(
        "from torch import nn\nfrom beside_it import WIDTH\ndef build():\n    return nn.Linear(WIDTH, 1)\n"
    )
    assert network_of(f"{tmp_path}/model.py:build", {}, None, None).in_features == 5
    sys.modules.pop("beside_it")


def test_what_a_users_code_prints_is_not_among_the_answers(tmp_path, capsys):
    (tmp_path / "noisy.py").write_text("print('at import')\ndef f():\n    print('when called')\n    return 1\n")
    spec = f"{tmp_path}/noisy.py:f"
    assert called(function_named(spec, "--data"), spec, "--data") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["at import", "when called"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("torchvision:resnt18", r"torchvision:resnt18: no such network; did you mean resnet18\?"),
        ("mpl", r"--model mpl: no such network; did you mean mlp\? Give torchvision:NAME"),
        ("{name: mlp, hidde: [3]}", r"unknown key 'hidde'; did you mean hidden\?"),
        ("{name: mlp", r"--model \{name: mlp: "),
        ("missing.py:build", "there is no file missing.py"),
        ("hf:nowhere", "there is no config.json; give a folder that save_pretrained wrote"),
    ],
)
def test_what_is_no_network_is_refused(spec, said):
    with pytest.raises(UserError, match=said):
        network_of(spec, {"x": torch.ones(2)}, (1, 8, 8), 10)


def test_a_file_that_fails_is_named_with_its_line(tmp_path):
    (tmp_path / "broken.py").write_text("x = 1\nraise ValueError('no')\n")
    with pytest.raises(UserError, match=r"broken\.py cannot be run: ValueError: no \(.*broken\.py:2\)"):
        function_named(f"{tmp_path}/broken.py:build", "--model")
    (tmp_path / "nets.py").write_text(NETS)
    with pytest.raises(UserError, match="has no function 'bild'; it has build, plain, loss"):
        function_named(f"{tmp_path}/nets.py:bild", "--model")
    (tmp_path / "none.py").write_text("def build():\n    return 3\n")
    with pytest.raises(UserError, match=r"returned int; let it return a torch\.nn\.Module"):
        network_of(f"{tmp_path}/none.py:build", {}, None, None)
    (tmp_path / "fails.py").write_text("def build():\n    return 1 / 0\n")
    with pytest.raises(UserError, match=r"failed with ZeroDivisionError: division by zero \(.*fails\.py:2\)"):
        network_of(f"{tmp_path}/fails.py:build", {}, None, None)


def test_a_folder_names_classes_of_transformers_alone(tmp_path):
    """Code that lies in the folder is never looked at."""
    (tmp_path / "config.json").write_text(
        json.dumps({"architectures": ["Evil"], "auto_map": {"AutoModel": "evil.Evil"}})
    )
    (tmp_path / "evil.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(UserError, match=r"'Evil', which transformers does not have|needs transformers"):
        network_of(f"hf:{tmp_path}", {}, None, None)


def test_files_with_functions_are_told_from_other_names():
    assert names_function("a/b.py:f")
    assert not names_function("torchvision:resnet18")
    assert not names_function("b.py")


def test_networks_of_libraries_are_modules():
    assert isinstance(network_of("torchvision:resnet18", {}, None, None), nn.Module)
