"""Code of the user's own: where it is found, what it is given, what it may not change, and where it went wrong."""

import itertools
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lmc_tune.errors import UserError
from lmc_tune.experiment import FactorySpec
from lmc_tune.experiment.sources import code_of
from lmc_tune.models.foreign import kept_settings, settings
from lmc_tune.models.registry import build_model

DIGITS = (1, 8, 8)
_numbers = itertools.count()
LINEAR = "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module that no process has imported before, and says its name."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(text: str) -> str:
        name = f"foreign_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def built(folder: Path, name: str, seed: int = 0, **arguments: object) -> torch.nn.Module:
    spec = FactorySpec(factory=f"{name}:build", arguments=arguments)
    return build_model(spec, DIGITS, 10, seed=seed, folders=[str(folder)])


def weight(model: torch.nn.Module) -> torch.Tensor:
    return next(model.parameters()).detach()


@pytest.mark.parametrize(
    ("signature", "arguments", "seen"),
    [
        ("input_shape, n_classes", {}, [(1, 8, 8), 10]),
        ("*, n_classes, other=3", {"other": 4}, [10, 4]),
        ("n_classes, input_shape=None", {"n_classes": 5}, [5, (1, 8, 8)]),
        ("other=3", {}, [3]),
        ("**others", {}, [{}]),
        ("n_classes=7, /", {}, [7]),
    ],
)
def test_a_factory_is_given_the_shape_and_the_classes_it_asks_for(module, tmp_path, signature, arguments, seen) -> None:
    names = [part.strip(" *").split("=")[0] for part in signature.split(",") if part.strip(" */")]
    name = module(
        LINEAR.replace("build()", f"build({signature})").replace("    return", "    made =")
        + "    made.seen = ["
        + ", ".join(names)
        + "]\n    return made\n"
    )
    assert built(tmp_path, name, **arguments).seen == seen


@pytest.mark.parametrize(
    "change",
    [
        "torch.set_default_dtype(torch.float64)",
        "torch.set_default_device('meta')",
        "torch.set_num_threads(3)",
        "torch.set_grad_enabled(False)",
        "torch.autograd.set_detect_anomaly(True)",
        "torch.set_float32_matmul_precision('high')",
        "torch.backends.cudnn.allow_tf32 = not torch.backends.cudnn.allow_tf32",
        "torch.backends.fp32_precision = 'tf32'",
        "torch.use_deterministic_algorithms(True, warn_only=True)",
        "torch.backends.cudnn.benchmark = True",
        "torch.backends.cudnn.deterministic = True",
        "torch.backends.mha.set_fastpath_enabled(True)",
        "torch.manual_seed(7)",
        "torch.rand(5)",
    ],
)
@pytest.mark.parametrize("when", ["imported", "called"])
def test_torchs_own_settings_are_put_back(module, tmp_path: Path, change: str, when: str) -> None:
    text = (
        f"import torch\n{change}\n{LINEAR}"
        if when == "imported"
        else LINEAR.replace("    return", f"    import torch\n    {change}\n    return")
    )
    torch.backends.mha.set_fastpath_enabled(False)  # as building a network does
    with kept_settings():
        before, state = settings(), torch.get_rng_state()
        if "meta" in change and when == "called":
            with pytest.raises(UserError, match="gave a network on meta; make it on the CPU: lmc-tune moves it"):
                built(tmp_path, module(text))
        else:
            built(tmp_path, module(text))
        assert settings() == before
        assert torch.equal(torch.get_rng_state(), state)


def test_what_is_printed_is_not_among_our_answers(module, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built(tmp_path, module("print('imported')\n" + LINEAR.replace("    return", "    print('built')\n    return")))
    assert capsys.readouterr() == ("", "imported\nbuilt\n")


def test_what_a_module_draws_as_it_is_imported_changes_no_network(module, tmp_path: Path) -> None:
    """It is imported once: the first network of a process would differ from the second."""
    name = module("import torch\ntorch.rand(3)\n" + LINEAR)
    first, second = built(tmp_path, name), built(tmp_path, name)
    assert torch.equal(weight(first), weight(second))
    assert not torch.equal(weight(first), weight(built(tmp_path, name, seed=1)))


@pytest.mark.parametrize(
    ("text", "said", "line"),
    [
        ("x = 1\ndef build(:\n", "cannot be imported: SyntaxError: invalid syntax", 2),
        ("import json\n\njson.loads('')\n", "cannot be imported: JSONDecodeError: Expecting value", 3),
        (
            "import torch\ndef build():\n    return part()\ndef part():\n    return torch.zeros(2).view(3)\n",
            "failed with RuntimeError: shape",
            5,
        ),
        (f"{LINEAR}import sys\nsys.exit(2)\n", "cannot be imported: SystemExit: 2", 5),
    ],
)
def test_an_error_says_where_in_the_users_code_it_is(module, tmp_path: Path, text: str, said: str, line: int) -> None:
    name = module(text)
    with pytest.raises(UserError) as raised:
        built(tmp_path, name)
    told = str(raised.value)
    assert told.startswith(f"model.factory: {name}:build {said}")
    assert f"({tmp_path / name}.py:{line})" in told
    assert "\n" not in told


def test_the_first_folder_that_has_it_counts_and_stays_reachable_but_last(module, tmp_path: Path) -> None:
    name = module(LINEAR)
    for folder, width in (("one", 3), ("two", 4)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.py").write_text(LINEAR.replace("10", str(width)))
    folders = [str(tmp_path / "two"), str(tmp_path / "one")]
    sys.path.append(str(tmp_path))
    before = list(sys.path)
    assert len(weight(build_model(FactorySpec(factory=f"{name}:build"), DIGITS, 4, seed=0, folders=folders))) == 4
    assert sys.path == [*before, *folders]


def test_code_that_is_not_what_the_space_was_read_with_is_refused(module, tmp_path: Path) -> None:
    name, folders = module(LINEAR), [str(tmp_path)]
    spec = FactorySpec(factory=f"{name}:build", code=code_of(f"{name}:build", folders))
    (tmp_path / f"{name}.py").write_text(LINEAR.replace("10", "11"))
    with pytest.raises(
        UserError, match=f"^model.factory: {name}:build is not what it was .*: {name}.py changed; run the"
    ):
        build_model(spec, DIGITS, 10, seed=0, folders=folders)
    assert name not in sys.modules
    (tmp_path / f"{name}.py").write_text(LINEAR)
    build_model(spec, DIGITS, 10, seed=0, folders=folders)
    (tmp_path / f"{name}.py").write_text("")
    build_model(spec, DIGITS, 10, seed=0, folders=folders)  # imported already


def test_torchvisions_networks_work_beside_a_torch_for_the_cpu() -> None:
    """And so do those of packages that import it."""
    code = """
        import sys
        from lmc_tune.experiment import FactorySpec
        from lmc_tune.models.registry import build_model
        assert "torchvision" not in sys.modules
        spec = FactorySpec(factory="torchvision.models:squeezenet1_1", arguments={"num_classes": 10})
        assert build_model(spec, (3, 32, 32), 10, seed=0).num_classes == 10
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
