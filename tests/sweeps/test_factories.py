"""Factories of the user's own: refused before anything is written, and run only for a space that is to run."""

import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lmc_tune.experiment import MeasureSpec
from lmc_tune.experiment.reading import SpaceError, parse_space, read_space
from lmc_tune.measurement.alignment import proof
from lmc_tune.models.foreign import settings
from lmc_tune.sweeps.factories import check_factories
from lmc_tune.sweeps.ownership import write_description
from lmc_tune.sweeps.status import read_status
from lmc_tune.tables.store import Store
from tests.sweeps.cases import PAIRS, SPACE, complaint, environment, write_space

MLP = "{name: mlp, hidden: [8]}"
MODULE = """
import ray
from torch import nn

print("imported")

def build(width=8):
    print("built")
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
"""


# What users wrote, and what is said of it.
BROKEN = {
    "in_place": (
        """
        def build():
            return nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 10))
        """,
        "changes its inputs in evaluation mode, which other networks are given too; take inplace=True from",
    ),
    "handed_out_again": (
        """
        @functools.cache
        def build():
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        """,
        "shares '1.weight' with a network from another call; create a new network in each call",
    ),
    "auxiliary": (
        """
        class Auxiliary(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
            def forward(self, images):
                logits = self.body(images)
                return (logits, logits) if self.training else logits
        build = Auxiliary
        """,
        r"gives tuple for 2 images in training mode; .* one tensor of logits, \(2, 10\)",
    ),
    "versioned": (
        """
        class Versioned(nn.Sequential):
            def get_extra_state(self):
                return {"version": 3}
            def set_extra_state(self, state):
                pass
        def build():
            return Versioned(nn.Flatten(), nn.Linear(64, 10))
        """,
        "keeps '_extra_state' of type dict in its state dict, which may hold tensors alone",
    ),
    "frozen": (
        """
        def build():
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).requires_grad_(False)
        """,
        "cannot be trained: ValueError: optimizer got an empty parameter list",
    ),
    "detached": (
        """
        class Detached(nn.Sequential):
            def forward(self, images):
                return super().forward(images).detach()
        def build():
            return Detached(nn.Flatten(), nn.Linear(64, 10))
        """,
        "cannot be trained: RuntimeError: element 0 of tensors does not require grad",
    ),
    "drawn_by_numpy": (
        """
        def build():
            model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
            model[1].weight.data = torch.from_numpy(np.random.randn(10, 64)).float()
            return model
        """,
        "begins with another '1.weight' in every call; draw initial weights from torch's global random state",
    ),
    "counting": (
        """
        class Counting(nn.Sequential):
            steps = 0
            def forward(self, images):
                self.steps += self.training
                return super().forward(images) / (1 + self.steps)
        def build():
            return Counting(nn.Flatten(), nn.Linear(64, 10))
        """,
        "gives other outputs in evaluation mode once its state dict is loaded into a new one",
    ),
    "looked_into": (
        """
        class LookedInto(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.last = nn.Linear(64, 10), nn.Linear(10, 10)
            def forward(self, images):
                return self.last(self.first(images.flatten(1))) + self.first.weight.sum()
        build = LookedInto
        """,
        r"cannot be measured: AttributeError: .* \(.*looked_into.py:\d+\)$",
    ),
}
HEAD = "import functools\nimport numpy as np\nimport torch\nfrom torch import nn\n"


@pytest.fixture(autouse=True)
def _forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules of one test are not there in the next, whatever they are called."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


def with_factory(factory: str, **arguments: object) -> str:
    return SPACE.replace(MLP, f"{{factory: '{factory}', arguments: {arguments}}}")


def in_folder(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as it is installed: without the current folder on the path for modules."""
    command = [sys.executable, "-P", "-m", "lmc_tune", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=False, env=environment()
    )


def test_every_broken_factory_of_a_space_is_told_at_once_and_each_once():
    models = "[{factory: 'nowhere:build'}, {factory: 'builtins:dict'}, {factory: 'torch.nn:Flatten'}]"
    space = parse_space(SPACE.replace(f"model: {MLP}\n", "").replace("  shift:", f"  model: {models}\n  shift:"))
    with pytest.raises(SpaceError) as refused:
        check_factories(space.pairs(), space.measure)
    named = ["nowhere:build", "builtins:dict", "torch.nn:Flatten"]
    assert all(name in problem for name, problem in zip(named, refused.value.problems, strict=True))


def test_a_network_that_cannot_be_stacked_is_refused_where_the_space_asks_for_it(tmp_path: Path, monkeypatch):
    layer = "class Own(nn.Module):\n    def forward(self, inputs):\n        return inputs\n"
    built = "nn.Sequential(nn.Flatten(), Own(), nn.Linear(64, 10))"
    (tmp_path / "of_ones_own.py").write_text(f"from torch import nn\n{layer}def build():\n    return {built}\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = with_factory("of_ones_own:build")
    check_factories(parse_space(text).pairs(), MeasureSpec())
    with pytest.raises(SpaceError, match="cannot be trained by engine: stacked"):
        check_factories(parse_space(text, sets=["train.engine=stacked"]).pairs(), MeasureSpec())


def test_statistics_of_no_batch_norm_cannot_be_recalibrated(tmp_path: Path, monkeypatch):
    layers = "nn.Sequential(nn.Flatten(), nn.Linear(64, 10), *([nn.BatchNorm1d(10)] if normed else []))"
    (tmp_path / "maybe.py").write_text(f"from torch import nn\ndef build(normed):\n    return {layers}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "maybe", raising=False)
    asked = MeasureSpec(conditions=("naive", "endpoint", "recalibrated"))
    without, normed = (parse_space(with_factory("maybe:build", normed=on)).pairs() for on in (False, True))
    with pytest.raises(SpaceError, match="endpoint and recalibrated would change nothing: no network of the space has"):
        check_factories(without, asked)
    check_factories(without, MeasureSpec())  # by default they are measured where they can be
    check_factories(normed, asked)
    check_factories([*without, *normed], asked)


def test_alignment_is_refused_where_no_unit_of_any_network_can_be_permuted_and_the_reason_is_given(
    tmp_path: Path, monkeypatch
):
    layers = "nn.Sequential(nn.Flatten(), nn.Linear(64, 8), norm, nn.ReLU(), nn.Linear(8, 10))"
    made = f"from torch import nn\ndef build(groups):\n    norm = nn.GroupNorm(groups, 8)\n    return {layers}\n"
    (tmp_path / "grouped.py").write_text(made)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "grouped", raising=False)
    asked = MeasureSpec(alignment={"by": "activations"})
    frozen, free = (parse_space(with_factory("grouped:build", groups=groups)).pairs() for groups in (2, 1))
    with pytest.raises(
        SpaceError, match=r"no hidden unit .* can be permuted \(2 normalises 2 groups of channels\); leave"
    ):
        check_factories(frozen, asked)
    check_factories(frozen, MeasureSpec())
    check_factories(free, asked)
    check_factories([*frozen, *free], asked)


def test_a_network_that_a_permutation_changes_is_refused_before_anything_is_trained(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(proof, "ROUNDING", {torch.float32: -1.0})  # any difference, even none, is too large
    (tmp_path / "plain_mlp.py").write_text(MODULE.replace("import ray\n", ""))
    monkeypatch.syspath_prepend(tmp_path)
    space = parse_space(with_factory("plain_mlp:build"))
    with pytest.raises(SpaceError, match=r"the network of .* cannot be aligned: .*do not compute the same function"):
        check_factories(space.pairs(), MeasureSpec(alignment={}))
    check_factories(space.pairs(), MeasureSpec())


def test_a_network_has_to_fit_every_data_set_of_the_space(tmp_path: Path, monkeypatch):
    (tmp_path / "small.py").write_text(MODULE.replace("import ray\n", ""))
    monkeypatch.syspath_prepend(tmp_path)
    text = with_factory("small:build").replace("dataset: {name: digits, train: 200, test: 100}\n", "")
    for order in ("[digits, cifar10]", "[cifar10, digits]"):
        space = parse_space(text.replace("axes:\n", f"axes:\n  dataset: {order}\n"))
        assert len({pair.dataset.name for pair in space.pairs()}) == 2
        with pytest.raises(SpaceError, match="cannot take images of 3x32x32"):
            check_factories(space.pairs(), space.measure)


@pytest.mark.parametrize(
    ("built", "said"),
    [
        (
            "nn.Sequential(nn.Flatten(), nn.Linear(64, 7))",
            r"gives \(2, 7\) for 2 images in evaluation mode; there are 10 classes, so it has to be one .*, \(2, 10\)",
        ),
        ("nn.Conv2d(3, 4, 3)", "cannot take images of 1x8x8 in evaluation mode: RuntimeError: "),
        (
            "nn.Sequential(nn.Flatten(), nn.LazyLinear(10))",
            "has weights without a size; pass images of 1x8x8 through it",
        ),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_refused(tmp_path: Path, monkeypatch, built: str, said: str):
    (tmp_path / "unfit.py").write_text(f"from torch import nn\ndef build():\n    return {built}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "unfit", raising=False)
    with pytest.raises(SpaceError, match=f"model.factory: the network of unfit:build {said}"):
        check_factories(parse_space(with_factory("unfit:build")).pairs(), MeasureSpec())


def test_a_module_that_ends_the_process_is_refused_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a_script_without_a_guard.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpaceError, match="a_script_without_a_guard:build cannot be imported: SystemExit: 3"):
        check_factories(parse_space(with_factory("a_script_without_a_guard:build")).pairs(), MeasureSpec())


@pytest.mark.parametrize("command", [["sweep"], ["space", "--run-factories"]])
def test_the_command_refuses_a_broken_factory_and_writes_nothing(tmp_path: Path, command: list[str]):
    write_space(tmp_path, with_factory("nowhere:build"))
    done = in_folder(tmp_path, *command, "tiny.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint(done).startswith("model.factory: nowhere:build cannot be imported: ModuleNotFoundError")
    assert complaint(done).count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


@pytest.mark.slow
def test_a_factory_in_the_current_folder_is_run_for_a_space_that_names_it_and_only_to_run_it(tmp_path: Path):
    """Its module may import ray and may print: neither Ray's ports nor --json are spoilt."""
    (tmp_path / "mine.py").write_text(MODULE)
    write_space(tmp_path, with_factory("mine:build", width=4))
    done = in_folder(tmp_path, "sweep", "tiny.yaml", "--out", "run", "--max-pairs", "1", "--no-report", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("{")
    assert done.stdout.count("\n") == 1
    assert "imported\nbuilt\n" in done.stderr
    (tmp_path / "mine.py").write_text("raise RuntimeError\n")
    done = in_folder(tmp_path, "status", "run", "--json")
    assert done.returncode == 0, done.stderr


def test_a_space_without_factories_is_checked_without_torch():
    code = """
        import sys
        from lmc_tune.experiment.reading import read_space
        import lmc_tune.sweeps.run
        from lmc_tune.experiment import MeasureSpec
        from lmc_tune.sweeps.factories import check_factories
        check_factories(read_space("quickstart").pairs(), MeasureSpec())
        assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_looking_at_a_space_runs_no_code_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "never_to_be_imported.py").write_text("raise RuntimeError\n")
    monkeypatch.syspath_prepend(tmp_path)
    space = parse_space(with_factory("never_to_be_imported:build"))
    write_description(tmp_path, space, workers=1, planned_pairs=PAIRS)
    assert read_status(tmp_path).total == PAIRS
    assert "never_to_be_imported" not in sys.modules


@pytest.mark.parametrize("name", BROKEN)
def test_what_would_fail_every_pair_or_falsify_it_is_told_before_anything_is_trained(tmp_path: Path, name: str):
    text, said = BROKEN[name]
    (tmp_path / f"{name}.py").write_text(HEAD + textwrap.dedent(text))
    space = parse_space(with_factory(f"{name}:build"), sets=["measure.conditions=[naive, recalibrated, repaired]"])
    before = settings(), torch.get_rng_state()
    with pytest.raises(SpaceError, match=f"^model.factory: the network of {name}:build {said}") as raised:
        check_factories(space.pairs(), space.measure, folders=[str(tmp_path)])
    assert len(raised.value.problems) == 1
    assert settings() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_batches_of_one_are_tried_where_a_cell_has_them(tmp_path: Path):
    layers = "nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))"
    (tmp_path / "normed_own.py").write_text(f"{HEAD}def build():\n    return {layers}\n")
    text = with_factory("normed_own:build")
    check_factories(parse_space(text).pairs(), MeasureSpec(), folders=[str(tmp_path)])
    with pytest.raises(
        SpaceError, match="cannot take images of 1x8x8 in training mode: ValueError: Expected more than 1"
    ):
        check_factories(
            parse_space(text, sets=["axes.batch_size=[1, 10]"]).pairs(), MeasureSpec(), folders=[str(tmp_path)]
        )


def test_the_example_of_the_guide_keeps_to_what_the_guide_says(tmp_path: Path):
    guide = (Path(__file__).parents[2] / "docs/guide.md").read_text(encoding="utf-8")
    module, space = re.search(
        r"## A network of your own.*?```python\n(.+?)```.*?```yaml\n(.+?)```", guide, re.DOTALL
    ).groups()
    name = module.partition("\n")[0].removeprefix("# ")
    (tmp_path / name).write_text(module)
    (tmp_path / "own.yaml").write_text(space)
    read = read_space(str(tmp_path / "own.yaml"))
    assert {name for code in read.code.values() for name in code} == {name}
    check_factories(read.pairs(), read.measure, folders=[str(tmp_path)])


@pytest.mark.slow
def test_torchvisions_own_factories_are_factories():
    model = "{factory: 'torchvision.models:resnet18', arguments: {num_classes: 10}}"
    text = SPACE.replace("dataset: {name: digits, train: 200, test: 100}", "dataset: cifar10").replace(MLP, model)
    check_factories(parse_space(text).pairs(), MeasureSpec())


@pytest.mark.slow
def test_code_that_changed_makes_other_pairs_and_is_named(tmp_path: Path):
    """The network lies beside the space and not where the command is run; workers find it, too."""
    study = tmp_path / "study"
    study.mkdir()
    (study / "layers_of_mine.py").write_text("from torch import nn\nActivation = nn.ReLU\n")
    (study / "nets_of_mine.py").write_text(
        "from torch import nn\nfrom layers_of_mine import Activation\n"
        "def build(input_shape, n_classes, width=8):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), Activation(), nn.Linear(width, n_classes))\n"
    )
    models = f"[{{factory: 'nets_of_mine:build'}}, {MLP}]"
    axes = f"axes:\n  model: {models}\n  batch_size: [50]\n  lr: [0.1]\nreplicates: 1\n"
    write_space(study, SPACE[: SPACE.index("axes:")].replace(f"model: {MLP}\n", "") + axes)
    arguments = ("sweep", "study/tiny.yaml", "--out", "run", "--workers", "1", "--no-report", "--json")

    def swept(*more: str) -> tuple[int, str]:
        done = in_folder(tmp_path, *arguments, *more)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["trained"], done.stderr

    assert swept()[0] == 2
    assert swept()[0] == 0
    (study / "layers_of_mine.py").write_text("from torch import nn\nActivation = nn.Tanh\n")
    state = in_folder(tmp_path, "status", "run", "--json")
    assert json.loads(state.stdout)["counts"]["pending"] == 0, "what was stored counts"
    trained, told = swept()
    assert trained == 1
    assert "; 1 of them were made before layers_of_mine.py changed, and count as other pairs" in told
    results = Store(tmp_path / "run").results().query("model == 'factory'")
    assert len(results) == results["train_loss_a"].nunique() == 2
    (study / "nets_of_mine.py").write_text((study / "nets_of_mine.py").read_text() + "# for once\n")
    refused = in_folder(tmp_path, *arguments, "--set", "axes.model=[{factory: 'nets_of_mine:build'}]")
    assert refused.returncode == 2
    assert "2 of them were made before layers_of_mine.py and nets_of_mine.py changed, and count as" in refused.stderr
