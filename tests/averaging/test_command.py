"""``lmc-tune measure`` as its users run it."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from lmc_tune.cli.commands import app
from tests.averaging.cases import NETS, trained
from tests.sweeps.cases import lmc_tune


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    found = tmp_path_factory.mktemp("checkpoints")
    (found / "nets.py").write_text(NETS)
    torch.save(dict(trained(0, 1)), found / "a.pt")
    torch.save({"state_dict": {f"model.{name}": entry for name, entry in trained(0, 2).items()}}, found / "b.ckpt")
    save_file(dict(trained(1, 1)), found / "c.safetensors")
    torch.save(dict(trained(0, 1, norm=False)), found / "x.pt")
    torch.save(dict(trained(1, 1, norm=False)), found / "y.pt")
    return found


def run(folder: Path, *files: str, model: str = "nets.py:build", **more: object) -> Result:
    options = [
        part
        for name, value in more.items()
        for part in (f"--{name.replace('_', '-')}", *([] if value is True else [str(value)]))
    ]
    data = () if "data" in more else ("--data", "digits")
    return invoked(*(folder / file for file in files), "--model", f"{folder}/{model}", *data, *options)


def invoked(*arguments: object) -> Result:
    """In this process: what the installed command does besides is a test of its own."""
    return CliRunner().invoke(app, ["measure", *map(str, arguments)])


def messages(done: Result) -> list[str]:
    """What is said on stderr, without the phases, whose lines begin with the time of day."""
    return [line for line in done.stderr.splitlines() if not re.match(r"\d\d:\d\d:\d\d ", line)]


def test_a_pair_that_can_be_averaged(folder, tmp_path):
    done = run(folder, "a.pt", "b.ckpt", out=tmp_path / "out", save=tmp_path / "average.safetensors")
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Average them: the average has an error of ")
    assert f"B: state_dict of {folder}/b.ckpt, names without 'model.'" in lines
    assert lines[-2:] == [f"{tmp_path}/out/measurement.html", f"{tmp_path}/out/measurement.json"]
    assert json.loads((tmp_path / "out/measurement.json").read_text())["answer"] == "average"
    kept = load_file(tmp_path / "average.safetensors")
    torch.testing.assert_close(kept["1.weight"], torch.lerp(trained(0, 1)["1.weight"], trained(0, 2)["1.weight"], 0.5))
    assert f"the average was written to {tmp_path}/average.safetensors" in done.stderr


def test_json_is_one_object_and_the_exit_code_says_the_answer(folder, tmp_path):
    done = run(
        folder, "x.pt", "y.pt", model="nets.py:plain", conditions="naive", json=True, save=tmp_path / "no.safetensors"
    )
    content = json.loads(done.stdout)
    assert (done.exit_code, content["exit_code"], content["answer"], content["saved"]) == (4, 4, "neither", None)
    assert "no.safetensors was not written, since the answer is neither" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_loss_and_a_loader_of_the_users_own(folder):
    (folder / "load.py").write_text(
        "from pathlib import Path\nfrom lmc_tune.data.datasets import load_dataset\n"
        "from lmc_tune.experiment import DatasetSpec\n"
        "def batches():\n    test = load_dataset(DatasetSpec(), Path()).test\n"
        "    return zip(test.inputs.split(50), test.labels.split(50))\n"
    )
    done = run(folder, "a.pt", "b.ckpt", data=f"{folder}/load.py:batches", loss=f"{folder}/nets.py:loss")
    assert done.exit_code == 0, done.stderr
    assert "note: without training data" in done.stdout
    assert "loss along the path from A to B" in done.stdout


def test_several_checkpoints_and_a_trajectory(folder, tmp_path):
    for step in (9, 10, 11):
        torch.save(dict(trained(0, step - 8)), tmp_path / f"step_{step}.pt")
    done = run(folder, json=True, trajectory=str(tmp_path / "step_*.pt"))
    assert done.exit_code == 0, done.stderr
    content = json.loads(done.stdout)
    assert [member["name"] for member in content["members"]] == ["step_9", "step_10", "step_11"]
    assert content["conditions"][0]["window"] == ["step_9", "step_10", "step_11"]
    both = run(folder, "a.pt", trajectory=str(tmp_path / "step_*.pt"))
    assert (both.exit_code, messages(both)) == (2, ["name checkpoints, or a --trajectory: not both"])


def test_a_recipe_is_written_as_its_name_says_and_the_exit_code_stays(folder, tmp_path):
    files = [tmp_path / name for name in ("new/recipe.json", "recipe.yaml", "network.safetensors")]
    options = [part for file in files for part in ("--recipe", file)]
    done = invoked(
        *(folder / "x.pt", folder / "y.pt", "--model", f"{folder}/nets.py:plain", "--data", "digits"),
        *("--conditions", "naive", "--json", *options),
    )
    content = json.loads(done.stdout)
    assert (done.exit_code, content["recipes"]) == (4, list(map(str, files)))
    assert messages(done) == [f"the recipe was written to {file}" for file in files]
    recipe = json.loads(files[0].read_text())
    assert recipe == content["layers"]["recipe"]
    assert recipe["members"] == {"a": str(folder / "x.pt"), "b": str(folder / "y.pt")}
    kept = load_file(files[2])
    shares = recipe["layers"]
    for layer, share in shares.items():
        a, b = (trained(start, 1, norm=False)[f"{layer}.weight"] for start in (0, 1))
        torch.testing.assert_close(kept[f"{layer}.weight"], torch.lerp(a, b, share))
    assert len(set(shares.values())) == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("recipe.txt", "recipe.txt: end a recipe's name in .json, .yaml (for mergekit) or .safetensors"),
        ("recipe.yaml", "takes no whole numbers, and '2.num_batches_tracked' is one; write the network (.safetensors)"),
    ],
)
def test_a_recipe_that_nothing_measured_can_become_is_refused_before(folder, tmp_path, name, said):
    done = run(folder, "a.pt", "b.ckpt", recipe=tmp_path / name)
    (message,) = messages(done)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in message
    assert not list(tmp_path.iterdir())


def test_a_recipe_of_nothing_is_said_after_the_answer_and_ends_with_one(folder, tmp_path):
    """Of these networks no layer can be averaged."""
    done = run(folder, "a.pt", "c.safetensors", conditions="naive", json=True, recipe=tmp_path / "recipe.json")
    content = json.loads(done.stdout)
    assert (done.exit_code, content["exit_code"], content["answer"], content["recipes"]) == (1, 1, "neither", [])
    kept = content["layers"]["recipe"]["kept"].upper()
    why = f"no layer that differs can be averaged, so its network would be {kept}; use that one"
    assert messages(done) == [f"{tmp_path}/recipe.json was not written: {why}"]
    assert not list(tmp_path.iterdir())


def test_a_recipe_that_has_no_place_costs_no_answer(folder, tmp_path):
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "recipe.json"
    done = run(folder, "x.pt", "y.pt", model="nets.py:plain", conditions="naive", recipe=place)
    assert done.exit_code == 1
    assert done.stdout.startswith("No: there is a barrier between them")
    assert messages(done) == [f"cannot write {place}: File exists; choose another place"]


class Harmful:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def _swapped() -> dict[str, torch.Tensor]:
    return {("lost" if name == "1.weight" else name): entry for name, entry in trained(0, 1).items()}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda _: {**trained(0, 1), "1.weight": torch.ones(16, 64)}, "'1.weight' is 16×64 there, and 32×64"),
        (lambda _: {**trained(0, 1), "6.weight": torch.ones(7, 32)}, "'6.weight' is 7×32 there, and 10×32"),
        (lambda _: _swapped(), "lacks '1.weight', which the network has; of its shape, it has 'lost'"),
        (lambda _: {**trained(0, 1), "6.bias": torch.full((10,), float("nan"))}, "'6.bias' holds values that are not"),
        (
            lambda _: torch.optim.Adam([torch.ones(2, requires_grad=True)]).state_dict(),
            "holds the state of an optimizer, not of a network",
        ),
        (lambda out: {"state_dict": dict(trained(0, 1)), "more": Harmful(out)}, "holds more than weights"),
    ],
    ids=["width", "classes", "key", "nan", "optimizer", "code"],
)
def test_a_wrong_checkpoint_is_one_message(folder, tmp_path, content, said):
    torch.save(content(tmp_path / "executed"), tmp_path / "wrong.pt")
    done = invoked(
        *(folder / "a.pt", tmp_path / "wrong.pt", "--model", f"{folder}/nets.py:build"),
        *("--data", "digits", "--out", tmp_path / "out"),
    )
    assert (done.exit_code, done.stdout) == (2, "")
    (message,) = messages(done)
    assert message.startswith(f"{tmp_path}/wrong.pt ")
    assert said in message
    assert [file.name for file in tmp_path.iterdir()] == ["wrong.pt"]


@pytest.mark.parametrize(("name", "text"), [("zip", b"PK\x05\x06" + bytes(18)), ("text", b"hello"), ("empty", b"")])
def test_a_file_that_is_no_checkpoint_is_one_message(folder, tmp_path, name, text):
    (tmp_path / f"{name}.pt").write_bytes(text)
    done = invoked(
        *(tmp_path / f"{name}.pt", folder / "a.pt", "--model", f"{folder}/nets.py:build", "--data", "digits")
    )
    (message,) = messages(done)
    assert done.exit_code == 2
    assert "no checkpoint of torch" in message


def test_examples_may_come_one_by_one(folder):
    assert run(folder, "a.pt", "b.ckpt", batch_size=1, limit=40, conditions="naive").exit_code in {0, 5}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"conditions": "foo"}, "--conditions: no condition 'foo'; there are naive, endpoint, recalibrated"),
        ({"conditions": "aligned+endpoint"}, "no condition 'aligned+endpoint'"),
        ({"lambdas": 4}, "an odd number of positions"),
        ({"data": "digts"}, "did you mean digits?"),
        ({"loss": "mae"}, "there is no loss 'mae'"),
        (
            {"trajectory": "nowhere/*.pt"},
            "nowhere/*.pt: there are no such files; on a command line, write a pattern in quotes",
        ),
    ],
)
def test_wrong_options_are_one_message(folder, options, said):
    done = run(folder, *(() if "trajectory" in options else ("a.pt", "b.ckpt")), **options)
    (message,) = messages(done)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in message


def test_a_wrong_network_is_named_before_data_that_do_not_fit_it(folder):
    done = invoked(folder / "a.pt", folder / "b.ckpt", "--model", "torchvision:resnet18", "--data", "digits")
    assert done.exit_code == 2
    assert "a.pt lacks 'conv1.weight', which the network has" in messages(done)[0]


def test_data_that_the_network_cannot_take_are_one_message(folder, tmp_path):
    done = run(folder, "a.pt", "b.ckpt", data=_npz(tmp_path))
    assert done.exit_code == 2
    assert messages(done)[0].startswith("the network cannot take these data: RuntimeError: ")


def _npz(folder: Path) -> Path:
    np.savez(folder / "wide.npz", inputs=np.ones((4, 100)), labels=np.zeros(4, int))
    return folder / "wide.npz"


def test_help_has_an_example_for_each_kind_of_user():
    done = lmc_tune("measure", "--help")
    assert done.returncode == 0
    for kind in ("torchvision:", "timm:", "hf:", "nets.py:build", ".ckpt", ".safetensors", "--save", "--json"):
        assert kind in done.stdout[done.stdout.index("Examples:") :]


def test_the_installed_command_leaves_with_the_answer(folder):
    done = lmc_tune(
        *("measure", folder / "x.pt", folder / "y.pt", "--model", f"{folder}/nets.py:plain", "--data", "digits"),
        *("--conditions", "naive"),
    )
    assert done.returncode == 4
    assert done.stdout.startswith("No: there is a barrier between them")
