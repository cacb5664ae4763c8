"""Two checkpoints, layer by layer: the profile, and the recipe as a network."""

import json
import math
import re
import shlex
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from typer.testing import CliRunner

import lmc_tune
from lmc_tune.averaging.judging import ERROR_THRESHOLD
from lmc_tune.averaging.layers import measure_layers
from lmc_tune.averaging.measurement import PairMeasurement
from lmc_tune.averaging.mixed import Mixed
from lmc_tune.averaging.paths import Condition
from lmc_tune.averaging.recipe import most_averaged, order_of
from lmc_tune.averaging.recipe_files import mergekit_text
from lmc_tune.averaging.soups import halves
from lmc_tune.cli.commands import app
from lmc_tune.errors import UserError
from lmc_tune.experiment import GptSpec, MlpSpec
from lmc_tune.models.registry import build_model
from lmc_tune.models.state import state_of
from tests.averaging.cases import digits, network, permuted_copy, train, trained

ROOT = Path(__file__).parents[2]
# The layers of the networks without and with BatchNorm.
PLAIN, NORMED = ["1", "3", "5"], ["1", "2", "4", "6"]


def own_loss(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


@cache
def far(*, norm: bool = False, own: bool = False) -> PairMeasurement:
    """Two networks of different starts, whose path has a barrier."""
    data = digits()
    return lmc_tune.measure(
        network(norm=norm),
        [trained(0, 1, norm=norm), trained(1, 1, norm=norm)],
        data.test,
        train=data.train,
        conditions=["naive"],
        loss=own_loss if own else "cross-entropy",
        layers=True,
    )


@cache
def near() -> PairMeasurement:
    """Branches of one run."""
    return lmc_tune.measure(network(norm=False), branches(), digits().test, layers=True)


def branches() -> list[dict[str, torch.Tensor]]:
    return [dict(trained(0, branch, norm=False)) for branch in (1, 2)]


@cache
def recalibrated() -> PairMeasurement:
    """Branches of one run whose statistics are stale."""
    generator = torch.Generator().manual_seed(0)
    states = [{**trained(0, branch), "2.running_mean": 2 * torch.randn(32, generator=generator)} for branch in (1, 2)]
    data = digits()
    return lmc_tune.measure(network(), states, data.test, train=data.train, conditions=["recalibrated"], layers=True)


def errors_of(state, *, norm: bool = False) -> np.ndarray:
    """(n,) of the test examples: 1 for a wrong class. By torch alone."""
    model, test = network(norm=norm), digits().test
    model.load_state_dict(state)
    with torch.no_grad():
        return model.eval()(test.inputs).argmax(1).ne(test.labels).double().numpy()


def built(recipe, a, b) -> dict[str, torch.Tensor]:
    """The network that a recipe's JSON describes."""
    state = dict(a)
    for layer, lambda_ in recipe["layers"].items():
        for entry in recipe["entries"][layer]:
            if a[entry].is_floating_point():
                state[entry] = (1 - lambda_) * a[entry] + lambda_ * b[entry]
    return state


@pytest.mark.parametrize("norm", [False, True])
def test_every_set_is_a_network_with_these_layers_half_way(norm):
    a, b = (trained(start, 1, norm=norm) for start in (0, 1))
    found = far(norm=norm).findings.layers
    assert [layer.name for layer in found.layers] == (NORMED if norm else PLAIN)
    mean = (errors_of(a, norm=norm).mean() + errors_of(b, norm=norm).mean()) / 2
    for one in found.sets:
        rises = {}
        for base, (own, other) in {"a": (a, b), "b": (b, a)}.items():
            state = dict(own)
            for at in one.moved.layers:
                for entry in found.layers[at].entries:
                    if state[entry].is_floating_point():
                        state[entry] = torch.lerp(state[entry], other[entry], 0.5)
            rises[base] = errors_of(state, norm=norm).mean() - mean
            assert one.from_base[base]["test", "error"] == pytest.approx(rises[base], abs=1.5 / len(digits().test))
        both = (rises["a"] + rises["b"]) / 2
        assert one.rises["test", "error"] == pytest.approx(both, abs=1.5 / len(digits().test))
        assert one.judged["test"].low <= max(0.0, one.rises["test", "error"]) <= one.judged["test"].high


def test_a_layer_in_which_the_members_agree_has_no_barrier_however_much_they_differ():
    """Over the mean of both members, the worse one alone is above the threshold already."""
    a = trained(0, 1, norm=False)
    b = {**a, "5.bias": a["5.bias"] + torch.linspace(-9, 9, 10)}
    found = lmc_tune.measure(network(norm=False), [a, b], digits().test, layers=True).findings.layers
    single = {one.moved.name: one for one in found.of("single")}
    for name in ("1", "3"):
        apart = single[name].from_base
        assert apart["b"]["test", "error"] - apart["a"]["test", "error"] > 2 * ERROR_THRESHOLD
        assert single[name].rises["test", "error"] == pytest.approx(0.0, abs=1e-12)
        assert single[name].judged["test"].verdict != "disconnected"
    assert single["5"].rises == pytest.approx(found.full.rises)


@pytest.mark.parametrize("statistics", ["naive", "recalibrated", "repaired"])
def test_all_layers_together_are_the_middle_of_the_path(statistics):
    condition = Condition(None, statistics)
    pair, judging = far(norm=True)._pair, far(norm=True).findings.judging
    curve = pair.scored(condition).curves["test", "error"].mean
    middle = curve[len(curve) // 2] - (curve[0] + curve[-1]) / 2
    full = measure_layers(pair, condition, judging).full
    assert full.rises["test", "error"] == pytest.approx(middle, abs=1.5 / len(digits().test))


def test_it_is_measured_under_the_condition_of_the_answer():
    found = recalibrated()
    assert found.answer.condition == found.findings.layers.condition == Condition(None, "recalibrated")
    assert near().findings.layers.condition == Condition()


def test_a_loss_of_the_users_own_gives_what_the_network_gives_recorded():
    """It calls the network itself, which is loaded with one blend after the other."""
    by_loss, recorded = far(own=True).findings.layers, far().findings.layers
    for one, other in zip(by_loss.sets, recorded.sets, strict=True):
        assert one.rises["test", "loss"] == pytest.approx(other.rises["test", "loss"], abs=1e-6)
        assert one.rises["train", "loss"] == pytest.approx(other.rises["train", "loss"], abs=1e-6)


def test_mappings_are_measured_too():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network(norm=False)

        def forward(self, pixels):
            return self.net(pixels)

    test = digits().test
    batches = [{"pixels": some.inputs, "labels": some.labels} for some in test.chunks(64)]
    states = [{f"net.{name}": entry for name, entry in state.items()} for state in branches()]
    found = lmc_tune.measure(Named(), states, batches, layers=True).findings.layers
    assert [layer.name for layer in found.layers] == [f"net.{name}" for name in PLAIN]
    expected = [one.rises["test", "error"] for one in near().findings.layers.sets]
    assert [one.rises["test", "error"] for one in found.sets] == pytest.approx(expected, abs=1.5 / len(test))


def test_language_models_are_measured_layer_by_layer():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(16, (60, 9), generator=generator)
    inputs, labels = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    model, *members = (build_model(GptSpec(depth=1, heads=2, dim=8), (8,), 16, seed=seed) for seed in range(3))
    found = lmc_tune.measure(model, members, (inputs, labels), conditions=["naive"], layers=True, loss="cross-entropy")
    layers = found.findings.layers
    assert (layers.layers[0].name, layers.layers[-1].name) == ("tokens", "head")
    first = next(one for one in layers.sets if one.moved.family == "deep" and one.moved.name == "head")
    states = [member.state_dict() for member in members]
    losses = []
    for share in (0.0, 1.0, 0.5):
        state = {name: torch.lerp(states[0][name], states[1][name], share) for name in states[0]}
        mixed = {name: state[name] if name.startswith("head") or share != 0.5 else states[1][name] for name in state}
        model.load_state_dict(mixed)
        with torch.no_grad():
            losses.append(float(functional.cross_entropy(model.eval()(inputs).flatten(0, 1), labels.flatten())))
    assert first.from_base["b"]["test", "loss"] == pytest.approx(losses[2] - (losses[0] + losses[1]) / 2, abs=1e-6)


@pytest.mark.parametrize("statistics", ["naive", "recalibrated", "repaired"])
def test_blends_computed_as_a_tree_are_those_that_are_loaded(statistics):
    mixed = Mixed.of(far(norm=True)._pair, Condition(None, statistics))
    splits = {"test": mixed.by.splits["test"]}
    blends = list(product((0.0, 0.5, 1.0), repeat=2))
    blends = [(one, other, one, other) for one, other in blends]
    together = mixed.values(blends, splits)
    for blend in blends:
        alone = mixed.measured(blend, splits)
        np.testing.assert_allclose(
            together[blend]["test", "loss"], alone["test", "loss"], rtol=1e-4, atol=1e-5, err_msg=str(blend)
        )
    model = network()
    model.load_state_dict(mixed.state(blends[1]))
    with torch.no_grad():
        losses = functional.cross_entropy(model.eval()(digits().test.inputs), digits().test.labels, reduction="none")
    np.testing.assert_allclose(losses.numpy(), together[blends[1]]["test", "loss"], rtol=1e-3, atol=1e-4)


# Recipes.


def test_a_recipe_in_a_file_is_a_network_with_the_numbers_that_it_says(tmp_path):
    """Read as anyone would read it, with plain torch."""
    a, b = (trained(start, 1, norm=False) for start in (0, 1))
    far().save_recipe(tmp_path / "new" / "recipe.json")
    far().save_recipe(tmp_path / "network.safetensors")
    recipe = json.loads((tmp_path / "new" / "recipe.json").read_text())
    assert recipe == far().recipe
    assert list(recipe["layers"]) == PLAIN
    state = built(recipe, a, b)
    kept = load_file(tmp_path / "network.safetensors")
    assert all(torch.allclose(entry, kept[name], rtol=1e-6, atol=1e-7) for name, entry in state.items())
    own, members = errors_of(state), (errors_of(a), errors_of(b))
    chosen, measured = halves(len(own), digits().test.labels.numpy())
    mean = (members[0] + members[1]) / 2
    assert recipe["to_mean"]["mean"] == pytest.approx((own - mean)[measured].mean(), abs=1e-12)
    better = min(members, key=np.mean)
    assert recipe["to_better"]["mean"] == pytest.approx((own - better)[measured].mean(), abs=1e-12)
    assert recipe["less_mean"]["test_error"] == pytest.approx((own - mean).mean(), abs=1e-12)
    assert (recipe["n"], recipe["chosen_on"]) == (len(measured), len(chosen))
    assert recipe["low"] <= recipe["barrier"] <= recipe["high"]
    assert (own - mean)[chosen].mean() <= recipe["threshold"]


def test_no_other_choice_of_layers_of_so_few_averages_more():
    """All that there are are tried; here, what fits is closed under taking layers away."""
    a, b = (trained(start, 1, norm=False) for start in (0, 1))
    recipe = far().recipe
    mean = (errors_of(a) + errors_of(b)) / 2
    chosen, _ = halves(len(mean), digits().test.labels.numpy())
    squares = {layer: (a[f"{layer}.weight"] - b[f"{layer}.weight"]).square().sum() for layer in PLAIN}
    squares = {name: float(s + (a[f"{name}.bias"] - b[f"{name}.bias"]).square().sum()) for name, s in squares.items()}
    most = 0.0
    for side, picked in product((0.0, 1.0), product((False, True), repeat=3)):
        lambdas = {layer: 0.5 if own else side for layer, own in zip(PLAIN, picked, strict=True)}
        state = built({**recipe, "layers": lambdas}, a, b)
        if (errors_of(state) - mean)[chosen].mean() <= recipe["threshold"]:
            most = max(most, sum(squares[layer] for layer, own in zip(PLAIN, picked, strict=True) if own))
    assert 0 < recipe["share"] < 1
    assert recipe["share"] == pytest.approx(most / sum(squares.values()), rel=1e-5)


def test_where_the_whole_average_is_good_every_layer_is_averaged():
    recipe = near().recipe
    assert set(recipe["layers"].values()) == {0.5}
    assert (recipe["kept"], recipe["share"]) == (None, 1.0)
    assert near().answer.kind == "average"
    assert any("averaging every layer" in reason for reason in near().reasons)


def test_of_identical_weights_every_layer_is_averaged():
    state = trained(0, 1, norm=False)
    found = lmc_tune.measure(network(norm=False), [state, dict(state)], digits().test, layers=True)
    assert set(found.recipe["layers"].values()) == {0.5}
    assert {rise for one in found.findings.layers.sets for rise in one.rises.values()} == {0.0}
    assert found.answer.in_short.startswith("Both files hold the same weights")


def test_where_nothing_can_be_averaged_the_better_member_is_kept():
    found = far(norm=True)
    assert found.recipe["share"] == 0.0
    better = {"A": 0.0, "B": 1.0}[found.findings.better.name]
    assert set(found.recipe["layers"].values()) == {better}
    assert any("no layer that differs can be averaged" in reason for reason in found.reasons)


def test_what_two_networks_have_in_common_is_no_recipe(tmp_path):
    """Only the last layer may be averaged, which is the same in both."""
    a = trained(0, 1, norm=False)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    b = {**a, "1.weight": a["1.weight"][order], "1.bias": a["1.bias"][order], "3.weight": a["3.weight"][:, order]}
    found = lmc_tune.measure(network(norm=False), [a, b], digits().test, conditions=["naive"], layers=True)
    assert found.recipe["layers"] == {"1": 0.0, "3": 0.0, "5": 0.5}
    assert any("no layer that differs can be averaged" in reason for reason in found.reasons)
    with pytest.raises(UserError, match="would be A; use that one"):
        found.save_recipe(tmp_path / "recipe.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("own", [True, False])
def test_what_is_said_before_says_how_many_passes_it_takes(own):
    """A loss of the user's own is called for every batch of every network, and nothing is shared."""
    phases: list[str] = []
    scored: Counter[int] = Counter()

    def counted_loss(model, batch):
        scored[len(phases)] += len(batch[1])
        return own_loss(model, batch)

    states = [trained(start, 1, norm=False) for start in (0, 1)]
    test, n = digits().test, len(PLAIN)
    batches = [(some.inputs, some.labels) for some in test.chunks(100)]
    loss = counted_loss if own else "cross-entropy"
    lmc_tune.measure(
        network(norm=False), states, batches, loss=loss, conditions=["naive"], layers=True, say=phases.append
    )
    (at,) = [at for at, phase in enumerate(phases, 1) if phase.startswith("measuring 3 layers")]
    blends = {
        tuple(0.5 if layer in moved else base for layer in range(n))
        for base in (0, 1)
        for moved in (
            (),
            *((k,) for k in range(n)),
            *(range(k) for k in range(2, n + 1)),
            *(range(k, n) for k in range(n)),
        )
    }
    prefixes = {blend[:depth] for blend in blends for depth in range(1, n + 1)}
    passes = len(blends) if own else math.ceil(len(prefixes) / n)
    assert phases[at - 1] == f"measuring 3 layers in about {passes} passes over the examples: naive"
    most = "choosing layers to average in at most 12 passes over the test examples, usually far fewer"
    assert phases[at] == most
    if own:
        assert scored[at] == passes * len(test)
        assert scored[at + 1] <= 12 * len(test)


def test_recipes_do_not_change_the_answer():
    data = digits()
    without = lmc_tune.measure(
        network(norm=False),
        [trained(start, 1, norm=False) for start in (0, 1)],
        data.test,
        train=data.train,
        conditions=["naive"],
    )
    answer = far().answer
    assert (answer.kind, answer.verdict, answer.in_short) == (
        without.answer.kind,
        without.answer.verdict,
        without.answer.in_short,
    )
    assert answer.reasons[:-1] == without.reasons
    assert "averaging layer #2 3 (28% of the squared distance) and keeping B's others costs" in answer.reasons[-1]
    with pytest.raises(UserError, match="there is no recipe: layers were not measured"):
        _ = without.recipe


def test_layers_are_tried_in_the_order_of_what_they_cost():
    assert order_of([0.3, -0.1, float("inf"), 0.0, 0.2], [1.0, 2.0, 5.0, 3.0, 0.0]) == [3, 1, 4, 0, 2]


@pytest.mark.parametrize("forbidden", [set(), {0}, {3, 4}, {0, 7}, {1, 2, 5}])
def test_layers_that_do_no_harm_are_all_averaged(forbidden):
    asked = []

    def fits(layers: frozenset[int]) -> bool:
        asked.append(layers)
        return not layers & forbidden

    assert most_averaged(range(8), fits) == set(range(8)) - forbidden
    assert len(asked) <= 1 + 2 * 3 * len(forbidden)  # halves of halves of each that does harm


# Files.


def test_the_guide_s_example_does_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = build_model(MlpSpec(hidden=(32, 32)), (1, 8, 8), 10, seed=0)
    for seed, file in enumerate(("a.pt", "b.pt")):
        torch.save(train(build_model(MlpSpec(hidden=(32, 32)), (1, 8, 8), 10, seed=seed), seed, 9).state_dict(), file)
    section = (ROOT / "docs/guide.md").read_text(encoding="utf-8").split("**Layer by layer.**")[1]
    section = section.split("**More than two.**")[0]
    command, code = (
        re.findall(rf"^```{kind}\n(.+?)^```$", section, re.DOTALL | re.MULTILINE) for kind in ("", "python")
    )
    done = CliRunner().invoke(app, shlex.split(command[0].replace("\\\n", ""))[1:])
    assert done.exit_code == 4, done.stderr
    recipe = json.loads(Path("recipe.json").read_text())
    assert list(recipe["layers"]) == ["linear1", "linear2", "head"]
    assert [one["model"] for one in yaml.safe_load(Path("recipe.yaml").read_text())["models"]] == ["a.pt", "b.pt"]
    test = digits().test
    names = {"lmc_tune": lmc_tune, "model": model, "test_loader": [(test.inputs, test.labels)]}
    exec(code[0], names)  # noqa: S102 - of the guide
    kept, found = load_file("network.safetensors"), names["found"]
    assert all(torch.equal(entry, kept[name]) for name, entry in found.recipe_network().items())
    model.load_state_dict(kept)
    with torch.no_grad():
        loss = float(functional.cross_entropy(model.eval()(test.inputs), test.labels))
    curve = found.findings.path(found.findings.layers.condition).means["test", "loss"]
    assert loss - (curve[0] + curve[-1]) / 2 == pytest.approx(found.recipe["less_mean"]["test_loss"], abs=1e-4)


@pytest.fixture
def files(tmp_path) -> list[Path]:
    found = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for file, start in zip(found, (0, 1), strict=True):
        save_file(dict(trained(start, 1, norm=False)), file)
    return found


def weight_of(tensor: str, model: dict) -> float:
    """As mergekit reads it: the first filter that is a part of the tensor's name."""
    return next(one["value"] for one in model["parameters"]["weight"] if one["filter"] in tensor)


def test_mergekit_is_given_the_share_of_every_tensor(files, tmp_path):
    found = lmc_tune.measure(network(norm=False), files, digits().test, conditions=["naive"], layers=True)
    found.save_recipe(tmp_path / "recipe.yaml")
    content = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    assert content["merge_method"] == "linear"
    assert [model["model"] for model in content["models"]] == [str(file) for file in files]
    recipe, states = found.recipe, [load_file(file) for file in files]
    assert set(recipe["layers"].values()) == {0.5, 1.0}
    merged = {
        name: sum(weight_of(name, model) * state[name] for model, state in zip(content["models"], states, strict=True))
        for name in states[0]
    }
    assert all(torch.allclose(entry, built(recipe, *states)[name]) for name, entry in merged.items())


@pytest.mark.parametrize("lambdas", [(0.5, 1.0), (0.0, 0.5)])
def test_a_name_that_is_a_part_of_another_does_not_take_its_share(lambdas):
    """mergekit's filters are parts of names: '1.weight' is one of '11.weight'."""
    layers = [nn.Flatten(), nn.Linear(64, 32), *[nn.ReLU() for _ in range(9)], nn.Linear(32, 10)]
    states = [state_of(train(nn.Sequential(*layers), seed, 1)) for seed in (0, 1)]
    found = lmc_tune.measure(nn.Sequential(*layers), states, digits().test, conditions=["naive"], layers=True).findings
    chosen = replace(found.layers, recipe=replace(found.layers.recipe, lambdas=lambdas))
    _, of_b = yaml.safe_load(mergekit_text(found, chosen))["models"]
    assert [weight_of(f"{layer}.weight", of_b) for layer in ("1", "11")] == list(lambdas)
    assert [weight_of(f"{layer}.bias", of_b) for layer in ("1", "11")] == list(lambdas)


def test_what_mergekit_cannot_do_is_refused(tmp_path):
    with pytest.raises(UserError, match="these weights were given in memory"):
        far().save_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(UserError, match=r"end a recipe's name in \.json, \.yaml"):
        far().save_recipe(tmp_path / "recipe.txt")
    assert not list(tmp_path.iterdir())
    for branch in (1, 2):
        save_file(dict(trained(0, branch)), tmp_path / f"{branch}.safetensors")
    normed = [tmp_path / f"{branch}.safetensors" for branch in (1, 2)]
    found = lmc_tune.measure(network(), normed, digits().test, conditions=["naive"], layers=True)
    with pytest.raises(UserError, match=r"takes no whole numbers, and '2\.num_batches_tracked' is one"):
        found.save_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(UserError, match="takes no whole numbers"):  # which no condition would change
        recalibrated().save_recipe(tmp_path / "recipe.yaml")
    plain = trained(0, 1, norm=False)
    states = {"a.safetensors": dict(plain), "b.safetensors": permuted_copy(plain, 0)}
    for name, state in states.items():
        save_file(state, tmp_path / name)
    places = [tmp_path / name for name in states]
    found = lmc_tune.measure(network(norm=False), places, digits().test, conditions=["aligned"], layers=True)
    with pytest.raises(UserError, match="the recipe holds for aligned by weights networks, and mergekit merges weight"):
        found.save_recipe(tmp_path / "recipe.yaml")


def test_layers_are_of_two_checkpoints_that_have_learned():
    states = [trained(0, branch) for branch in (1, 2, 3)]
    with pytest.raises(UserError, match="layers are measured of two checkpoints, not of 3"):
        lmc_tune.measure(network(), states, digits().test, layers=True)
    lazy = [network(norm=False).state_dict() for _ in range(2)]
    found = lmc_tune.measure(network(norm=False), lazy, digits().test, conditions=["naive"], layers=True)
    assert found.verdict == "undertrained"
    assert "layers were left out: a member has learned nothing" in found.findings.notes
    assert found.plain()["layers"] is None


def test_text_page_and_plain_values_have_the_profile():
    text = far().text()
    assert "layer  distance  B     alone  up to it  from it on" in text
    (row,) = [line for line in text.splitlines() if line.startswith("#2 3  ")]
    assert "½" in row
    assert "highest alone: #1 1, 12.36% ▲" in text
    # The table's first ▲ of the columns from the input, and the last ▲ of those from the output.
    assert "first above the threshold from the input: #1 1; from the output: #3 5" in text
    assert "Layer by layer" in far().to_html()
    plain = json.loads(far().to_json())["layers"]
    assert [layer["name"] for layer in plain["layers"]] == PLAIN
    assert len(plain["sets"]) == 1 + 3 * len(PLAIN)
    assert plain["recipe"] == far().recipe
