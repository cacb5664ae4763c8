"""What lies around checkpoints: against naive loops, dense Hessians and values by hand."""

import copy
import json
import math
import re
import shlex
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional
from typer.testing import CliRunner

import lmc_tune
from lmc_tune.averaging.judging import Difference, Judging
from lmc_tune.averaging.measurement import Measurement, PairMeasurement
from lmc_tune.averaging.paths import Condition
from lmc_tune.averaging.surroundings import Contrast, Curvature, DirectionFindings, Steps
from lmc_tune.averaging.surroundings_page import direction_sections
from lmc_tune.averaging.surroundings_text import direction_sentences
from lmc_tune.cli.commands import app
from lmc_tune.cli.mappings import with_values
from lmc_tune.core.seeding import child_seed
from lmc_tune.errors import UserError
from lmc_tune.experiment import GptSpec, MlpSpec
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.sharpness import filter_normalised
from lmc_tune.models.registry import build_model
from lmc_tune.models.state import State, lerp_state
from tests.averaging.cases import digits, network, train, trained
from tests.measurement.test_hessian import dense

ROOT = Path(__file__).parents[2]
TEST = digits().test
DRAWS = 3
ASKED = {
    "random": {"draws": DRAWS, "alphas": [1.0, 0.5]},
    "noise": {"positions": [0.0, 1.0], "fractions": [0.5], "draws": DRAWS},
    "sharpness": {"examples": 50, "radii": [0.5], "draws": DRAWS},
}


def small(seed: int) -> nn.Module:
    """So few weights that all second derivatives can be had one by one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Tanh(), nn.Linear(4, 10))


@cache
def members() -> tuple[State, State]:
    return train(small(0), 0, 4).state_dict(), train(small(1), 1, 4).state_dict()


@cache
def found() -> PairMeasurement:
    return lmc_tune.measure(small(9), members(), TEST, train=digits().train, conditions=["naive"], directions=ASKED)


def values_of(state: State, model: nn.Module | None = None) -> dict[str, np.ndarray]:
    """(n,) errors and losses of the test examples, by torch alone."""
    own = copy.deepcopy(model or small(9))
    own.load_state_dict(state)
    with torch.no_grad():
        logits = own.eval()(TEST.inputs)
    return {
        "error": logits.argmax(1).ne(TEST.labels).double().numpy(),
        "loss": functional.cross_entropy(logits, TEST.labels, reduction="none").double().numpy(),
    }


def gaussian_step(state: State, names: list[str], length: float, seed: int) -> State:
    """The state after a random step of some of its entries."""
    sizes = [state[name].numel() for name in names]
    vector = np.random.default_rng(seed).standard_normal(sum(sizes))
    parts = torch.from_numpy(vector * (length / np.linalg.norm(vector))).split(sizes)
    moved = dict(state)
    for name, part in zip(names, parts, strict=True):
        moved[name] = (state[name].double() + part.view(state[name].shape)).float()
    return moved


def apart(one: State, other: State, names: list[str]) -> float:
    return math.sqrt(sum(float((one[name] - other[name]).double().square().sum()) for name in names))


def steps_of(kind: str, **more: object) -> list[Steps]:
    return [
        one
        for one in found().findings.directions.steps
        if one.kind == kind and all(getattr(one, name) == value for name, value in more.items())
    ]


@pytest.mark.parametrize("layer", ["1", "3"])
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_steps_of_a_layer_are_a_loop_over_networks(layer, alpha):
    names = [f"{layer}.weight", f"{layer}.bias"]
    for side, lambda_, own, other in (("a", 0.0, *members()), ("b", 1.0, *members()[::-1])):
        length = apart(own, other, names)
        start = {what: values.mean() for what, values in values_of(own).items()}
        across = {**own, **{name: torch.lerp(own[name], other[name], alpha) for name in names}}
        random = [
            gaussian_step(own, names, alpha * length, child_seed(0, "random", side, layer, draw))
            for draw in range(DRAWS)
        ]
        (one,) = steps_of("interpolation", lambda_=lambda_, layer=layer, alpha=alpha)
        (drawn,) = steps_of("random", lambda_=lambda_, layer=layer, alpha=alpha)
        assert (one.draws, drawn.draws) == (1, DRAWS)
        assert one.norm == drawn.norm == pytest.approx(alpha * length, rel=1e-6)
        for what in ("error", "loss"):
            rises = [values_of(state)[what].mean() - start[what] for state in random]
            rise = drawn.rises["test", what]
            assert (rise.mean, rise.low, rise.high) == pytest.approx((np.mean(rises), min(rises), max(rises)), abs=1e-6)
            assert one.rises["test", what].mean == pytest.approx(values_of(across)[what].mean() - start[what], abs=1e-6)
        expected = stats.ttest_rel(
            values_of(across)["error"], np.mean([values_of(state)["error"] for state in random], axis=0)
        ).confidence_interval()
        assert (one.less_random.low, one.less_random.high) == pytest.approx(tuple(expected), abs=1e-9)
        assert drawn.less_random is None


def test_the_contrast_of_layers_is_the_mean_of_all_their_steps():
    for contrast in found().findings.directions.layerwise:
        across, random = (
            np.mean([one.rises["test", "error"].mean for one in steps_of(kind, alpha=contrast.alpha)])
            for kind in ("interpolation", "random")
        )
        assert (contrast.one, contrast.other) == pytest.approx((across, random))
        assert contrast.apart.mean == pytest.approx(across - random)
        assert contrast.apart.low < contrast.apart.mean < contrast.apart.high
    assert [one.alpha for one in found().findings.directions.layerwise] == [0.5, 1.0]


def test_noise_on_all_weights_is_a_loop_over_networks():
    a, b = members()
    names, mean = list(a), (values_of(a)["error"] + values_of(b)["error"]) / 2
    length = 0.5 * apart(a, b, names)
    across = values_of(lerp_state(a, b, 0.5))["error"]  # half of the distance, from either side
    random = np.mean(
        [
            values_of(gaussian_step(state, names, length, child_seed(0, "noise", "isotropic", repr(at), draw)))["error"]
            for at, state in ((0.0, a), (1.0, b))
            for draw in range(DRAWS)
        ],
        axis=0,
    )
    (contrast,) = found().findings.directions.whole
    assert contrast.one == pytest.approx((across - mean).mean(), abs=1e-9)
    assert contrast.other == pytest.approx((random - mean).mean(), abs=1e-9)
    expected = stats.ttest_rel(across, random).confidence_interval()
    assert (contrast.apart.low, contrast.apart.high) == pytest.approx(tuple(expected), abs=1e-9)
    away = steps_of("towards a", lambda_=0.0)[0]
    beyond = {name: (1.5 * a[name].double() - 0.5 * b[name].double()).float() for name in names}
    assert away.rises["test", "error"].mean == pytest.approx(
        (values_of(beyond)["error"] - values_of(a)["error"]).mean(), abs=1e-9
    )


def test_sharpness_is_that_of_dense_hessians_and_of_a_loop_over_networks():
    directions, rises = found().findings.directions, {}
    order = np.random.default_rng(child_seed(0, "statistics")).permutation(len(digits().train))
    some = digits().train.take(order[:50])
    for curvature in directions.curvatures:
        model, state = small(9), lerp_state(*members(), curvature.lambda_)
        model.load_state_dict(state)
        assert curvature.eigenvalue == pytest.approx(np.linalg.eigvalsh(dense(model, some))[-1], rel=1e-5)
        assert curvature.examples == 50
        losses = []
        for draw in range(DRAWS):
            seed = child_seed(0, "filter", draw)
            step = filter_normalised(Network(small(9)), state, seed)
            moved = {**state, **{name: (state[name].double() + 0.5 * own).float() for name, own in step.items()}}
            losses.append(values_of(moved)["error"] - values_of(state)["error"])
        rises[curvature.lambda_] = np.mean(losses, axis=0)
    assert [one.lambda_ for one in directions.curvatures] == [0.0, 0.5, 1.0]
    (contrast,) = directions.filterwise
    ends = (rises[0.0] + rises[1.0]) / 2
    assert (contrast.one, contrast.other) == pytest.approx((rises[0.5].mean(), ends.mean()), abs=1e-9)
    expected = stats.ttest_rel(rises[0.5], ends).confidence_interval()
    assert (contrast.apart.low, contrast.apart.high) == pytest.approx(tuple(expected), abs=1e-9)


def test_sharpness_of_squared_errors_is_known():
    """The Hessian of the mean of (xᵀw + b − y)² is 2 E (x, 1)(x, 1)ᵀ, wherever it is."""
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(100, 5, generator=generator), torch.randn(100, generator=generator)
    states = [{"weight": torch.randn(1, 5, generator=generator), "bias": torch.zeros(1)} for _ in range(2)]
    asked = {"random": None, "sharpness": {"examples": None, "draws": 1}}
    one = lmc_tune.measure(nn.Linear(5, 1), states, (inputs, targets), loss="mse", directions=asked)
    wide = np.column_stack([inputs.double().numpy(), np.ones(100)])
    expected = np.linalg.eigvalsh(2 * wide.T @ wide / 100)[-1]
    values = [curvature.eigenvalue for curvature in one.findings.directions.curvatures]
    assert values == pytest.approx([expected] * 3, rel=1e-6)
    assert any("the midpoint" in reason and "Hessian" in reason for reason in one.reasons)


def test_networks_with_batchnorm_are_recalibrated_after_the_step():
    asked = {"random": {"draws": 1, "alphas": [1.0]}}
    states = [trained(0, branch) for branch in (1, 2)]
    one = lmc_tune.measure(network(), states, TEST, train=digits().train, directions=asked).findings
    assert one.directions.condition == Condition(None, "recalibrated")
    (step,) = [
        step for step in one.directions.steps if (step.kind, step.lambda_, step.layer) == ("interpolation", 0.0, "1")
    ]

    def recalibrated(state: State) -> float:
        model = network()
        model.load_state_dict(state)
        model[2].reset_running_stats()
        model[2].momentum = None
        model.eval()[2].train()
        model(digits().train.inputs)
        return float(values_of(model.state_dict(), model)["loss"].mean())

    moved = {**states[0], **{name: states[1][name] for name in ("1.weight", "1.bias")}}
    expected = recalibrated(moved) - recalibrated(states[0])
    assert step.rises["test", "loss"].mean == pytest.approx(expected, abs=2e-3)  # by batches, and by all at once
    naive = lmc_tune.measure(network(), states, TEST, conditions=["naive"], directions=asked)
    assert naive.findings.directions.condition == Condition()


def test_b_is_aligned_as_the_answer_says():
    states = [trained(start, 1, norm=False) for start in (0, 1)]
    asked = {"random": {"draws": 1, "alphas": [1.0]}}
    one = lmc_tune.measure(network(norm=False), states, TEST, conditions=["aligned"], threshold=0.05, directions=asked)
    assert one.answer.condition == one.findings.directions.condition == Condition("weights")
    aligned = one._pair.end(Condition("weights"))
    step = next(step for step in one.findings.directions.steps if step.kind == "interpolation")
    assert step.norm == pytest.approx(apart(states[0], aligned, ["1.weight", "1.bias"]), rel=1e-6)
    assert step.norm < 0.9 * apart(*states, ["1.weight", "1.bias"])


# Planes.


def mean_error(state: State) -> float:
    return float(values_of(state)["error"].mean())


@cache
def on_plane(file: Path | None = None) -> Measurement:
    third = small(2).state_dict()
    if file is None:
        return lmc_tune.measure(small(9), [*members(), third], TEST, planes={"points": 4, "splits": ["test"]})
    return lmc_tune.measure(
        small(9), members(), TEST, conditions=["naive"], planes={"through": ["a", "B", str(file)], "points": 4}
    )


def test_the_corners_of_a_plane_are_the_members_and_its_grid_their_combinations(tmp_path):
    torch.save(small(2).state_dict(), tmp_path / "start.pt")
    states = [*members(), small(2).state_dict()]
    for measured, names in ((on_plane(), "ABC"), (on_plane(tmp_path / "start.pt"), ("A", "B", "start"))):
        planes = measured.findings.planes
        assert planes.through == tuple(names)
        assert len(planes.points) == 3 + 16
        for name, state, point in zip(names, states, planes.points, strict=False):
            assert point.point == name
            assert point.means["test", "error"] == pytest.approx(mean_error(state), abs=1e-12)
            assert point.means["test", "loss"] == pytest.approx(values_of(state)["loss"].mean(), rel=1e-6)
        places = [np.array([point.x, point.y]) for point in planes.points[:3]]
        for one, other in ((0, 1), (0, 2), (1, 2)):
            distance = apart(states[one], states[other], list(states[one]))
            assert np.linalg.norm(places[one] - places[other]) == pytest.approx(distance, rel=1e-6)
        for point in planes.grid:
            assert np.array([point.x, point.y]) == pytest.approx(np.array(point.weights) @ places, abs=1e-9)
            mixed = {
                name: sum(w * state[name].double() for w, state in zip(point.weights, states, strict=True)).float()
                for name in states[0]
            }
            assert point.means["test", "error"] == pytest.approx(mean_error(mixed), abs=1.5 / len(TEST))


def test_a_plane_changes_no_answer_and_is_among_the_reasons(tmp_path):
    torch.save(small(2).state_dict(), tmp_path / "start.pt")
    pair = on_plane(tmp_path / "start.pt")
    without = lmc_tune.measure(small(9), members(), TEST, conditions=["naive"])
    assert pair.answer.in_short == without.answer.in_short
    assert pair.reasons[:-1] == without.reasons
    planes = pair.findings.planes
    lowest = min(point.means["test", "error"] for point in planes.grid)
    within = max(point.means["test", "error"] for point in planes.grid if min(point.weights) >= 0)
    assert pair.reasons[-1].startswith(
        "naive: of 16 points on the plane through A, B and start, the error is lowest at"
    )
    assert pair.reasons[-1].endswith(f": {100 * lowest:.2f}%; between the three it is at most {100 * within:.2f}%")
    assert on_plane().reasons[-1].startswith("naive: of 16 points on the plane through A, B and C")
    assert "The plane through A, B, C" in on_plane().to_html()


@pytest.mark.parametrize("n", [2, 3])
def test_three_points_on_a_line_are_refused_before_anything_is_measured(n, tmp_path):
    a, b = members()
    between = lerp_state(a, b, 0.3)
    torch.save(between, tmp_path / "between.pt")
    planes = {"through": ["A", "B", str(tmp_path / "between.pt")]} if n == 2 else True
    phases: list[str] = []
    names = "A, B, between" if n == 2 else "A, B, C"
    with pytest.raises(UserError, match=f"planes: {names} lie on one line, which spans no plane; name another point"):
        lmc_tune.measure(small(9), [a, b, between][:n], TEST, planes=planes, say=phases.append)
    assert phases == []


# What is said.


def test_json_holds_the_numbers_of_the_tables():
    plain = json.loads(found().to_json())["directions"]
    lines = found().text(1000).splitlines()
    for layer, place in (("1", 0), ("3", 1)):
        (row,) = [line for line in lines if re.match(rf"#{place + 1} {layer}  +\d", line)]
        shown = [float(number.replace("−", "-")) for number in re.findall(r"([−\d.]+)%", row)]
        expected = []
        for alpha in (0.5, 1.0):
            for kind in ("interpolation", "random"):
                rises = [
                    step["rises"]["test_error"]
                    for step in plain["steps"]
                    if (step["kind"], step["layer"], step["position"], step["alpha"]) == (kind, layer, place, alpha)
                ]
                assert len(rises) == 2
                keys = ("mean",) if kind == "interpolation" else ("mean", "low", "high")
                expected += [100 * sum(rise[key] for rise in rises) / 2 for key in keys]
        assert shown == pytest.approx(expected, abs=0.0051)
    (row,) = [line for line in lines if line.startswith("midpoint  ")]
    assert float(row.split()[1]) == pytest.approx(plain["sharpness"][1]["eigenvalue"], rel=5e-3)
    assert Counter(step["kind"] for step in plain["steps"]) == {
        "interpolation": 2 * 2 * 2,
        "random": 2 * 2 * 2,
        "towards a": 2,
        "towards b": 2,
        "isotropic": 2,
        "filter": 3,
    }
    (whole,) = plain["whole"]
    contrast = found().findings.directions.whole[0]
    assert whole == {
        "alpha": 0.5,
        "towards": contrast.one,
        "random": contrast.other,
        "difference": {"mean": contrast.apart.mean, "low": contrast.apart.low, "high": contrast.apart.high},
    }
    assert set(plain["filterwise"][0]) == {"alpha", "midpoint", "members", "difference"}
    points = json.loads(on_plane().to_json())["planes"]["points"]
    assert set(points[0]) == {"point", "x", "y", "weights", "test_error", "test_loss"}


def contrast_of(low: float, high: float, alpha: float = 0.5) -> Contrast:
    mean = (low + high) / 2
    return Contrast(alpha=alpha, one=0.1 + mean, other=0.1, apart=Difference(mean=mean, low=low, high=high))


NOTHING = DirectionFindings(condition=Condition(), steps=(), layerwise=(), whole=(), filterwise=(), curvatures=())


@pytest.mark.parametrize(
    ("contrasts", "said"),
    [
        (
            [(-0.04, -0.02)],
            "is special: a step of 0.5 of a layer's distance changes the error by 7.00% towards the other",
        ),
        ([(-0.04, -0.02)], "and by 10.00% in random directions: 3.00 points lower (2.00 to 4.00)"),
        ([(0.02, 0.04)], "is worse than random directions: "),
        ([(0.02, 0.04)], "3.00 points higher (2.00 to 4.00)"),
        ([(-0.02, 0.04)], "is no different from random directions, as far as these examples show: "),
        ([(-0.04, -0.02), (-0.01, 0.01)], "is special: "),
        ([(-0.04, -0.02), (0.01, 0.02)], "is better than random directions at one length and worse at another: "),
        ([(math.nan, math.nan)], "cannot be compared: "),
    ],
)
def test_words_follow_from_the_intervals(contrasts, said):
    layerwise = tuple(contrast_of(*bounds, alpha=0.5 * at) for at, bounds in enumerate(contrasts, start=1))
    judging = Judging(quantity="error", threshold=0.02)
    (sentence,) = direction_sentences(replace(NOTHING, layerwise=layerwise), judging, "error", "nats")
    assert sentence.startswith("naive: layer by layer, the way to the other member ")
    assert said in sentence


def test_losses_are_said_in_their_unit():
    judging = Judging(quantity="loss", threshold=0.02)
    some = replace(NOTHING, filterwise=(contrast_of(-0.04, -0.02),))
    (sentence,) = direction_sentences(some, judging, "cross-entropy", "nats")
    assert sentence == (
        "naive: by noise, the midpoint is flatter than the members: 0.5 of every filter's length changes the "
        "cross-entropy by 0.07 there and by 0.1 at the members: 0.03 nats lower (0.02 to 0.04)"
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((2.0, 1.0, 3.0), "1 at the midpoint, 2 at A, 3 at B: the midpoint is flatter than both"),
        ((2.0, 4.0, 3.0), "the midpoint is sharper than both"),
        ((2.0, 2.5, 3.0), "the midpoint lies between them"),
        ((2.0, math.nan, 3.0), "the largest eigenvalue of the Hessian is – at the midpoint, 2 at A, 3 at B"),
    ],
)
def test_the_midpoint_is_compared_with_both_ends(values, said):
    curvatures = tuple(
        Curvature(lambda_=at, eigenvalue=value, residual=0.0, products=1, examples=1)
        for at, value in zip((0.0, 0.5, 1.0), values, strict=True)
    )
    judging = Judging(quantity="error", threshold=0.02)
    (sentence,) = direction_sentences(replace(NOTHING, curvatures=curvatures), judging, "error", "nats")
    assert sentence.endswith(said)


def test_what_is_not_finite_is_left_out_of_charts_and_comparisons():
    def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        far = model[1].weight.sum() > 0.5 * sum(float(state["1.weight"].sum()) for state in members()) + 5
        own = functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
        return own / (~far).double() if far else own

    asked = {"random": {"draws": DRAWS, "alphas": [20.0]}}
    one = lmc_tune.measure(small(9), members(), TEST, loss=loss, conditions=["naive"], directions=asked)
    directions = one.findings.directions
    assert any(math.isinf(step.rises["test", "loss"].high) for step in directions.steps)
    assert "cannot be compared" in one.reasons[-1]
    assert None in [step["rises"]["test_loss"]["high"] for step in one.plain()["directions"]["steps"]]
    ((section, _),) = direction_sections(directions, one.findings.judging, "loss")
    assert section.id == "layerwise"
    assert "∞" in one.text()


# What is asked of other networks and data.


def test_texts_are_measured_and_losses_have_a_perplexity():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 16, (40, 9), generator=generator)
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    model, *states = (build_model(GptSpec(depth=1, heads=2, dim=8), (8,), 16, seed=seed) for seed in range(3))
    asked = {"random": {"draws": 1, "alphas": [1.0]}, "sharpness": {"examples": 8, "draws": 1, "radii": [0.5]}}
    one = lmc_tune.measure(model, states, (inputs, labels), conditions=["naive"], directions=asked)

    def loss(state: State) -> float:
        model.load_state_dict(state)
        with torch.no_grad():
            return float(functional.cross_entropy(model.eval()(inputs).flatten(0, 1), labels.flatten()))

    a, b = (state.state_dict() for state in states)
    step = next(step for step in one.findings.directions.steps if (step.layer, step.kind) == ("head", "interpolation"))
    moved = {name: b[name] if name.startswith("head.") else entry for name, entry in a.items()}
    expected = loss(moved) - loss(a)
    assert step.rises["test", "loss"].mean == pytest.approx(expected, abs=1e-5)
    assert all(math.isfinite(curvature.eigenvalue) for curvature in one.findings.directions.curvatures)
    rows = [line.split() for line in one.text().splitlines()]
    assert ["network", "accuracy", "loss", "(nats)", "perplexity"] in rows
    (row,) = [row for row in rows if row[:1] == ["A"] and len(row) == 4]
    assert float(row[3]) == pytest.approx(math.exp(loss(a)), rel=1e-3)
    assert float(row[2]) == pytest.approx(loss(a), abs=1e-4)
    assert "test perplexity" in one.to_html()
    assert "perplexity" not in found().text()


def test_networks_that_give_more_than_logits_are_measured_as_others():
    class Told(nn.Module):
        """As networks of Hugging Face."""

        def __init__(self) -> None:
            super().__init__()
            self.net = small(9)

        def forward(self, pixels):
            return SimpleNamespace(logits=self.net(pixels))

    states = [{f"net.{name}": entry for name, entry in state.items()} for state in members()]
    asked = {"sharpness": {"examples": 20, "draws": 1, "radii": [0.5]}, "random": {"draws": 1}}
    one, plain = (
        lmc_tune.measure(model, some, TEST, conditions=["naive"], directions=asked).findings.directions
        for model, some in ((Told(), states), (small(9), members()))
    )
    for own, other in zip(one.curvatures, plain.curvatures, strict=True):
        assert own.eigenvalue == pytest.approx(other.eigenvalue, rel=1e-6)
    assert one.filterwise == plain.filterwise
    assert [step.kind for step in one.steps] == [step.kind for step in plain.steps]


def test_batches_that_cannot_be_joined_have_steps_and_no_curvature():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small(9)

        def forward(self, pixels):
            return self.net(pixels)

    batches = [{"pixels": some.inputs, "labels": some.labels} for some in TEST.chunks(64)]
    states = [{f"net.{name}": entry for name, entry in state.items()} for state in members()]
    one = lmc_tune.measure(Named(), states, batches, conditions=["naive"], directions=ASKED).findings
    assert "the largest eigenvalue was left out: it needs batches of (inputs, labels)" in one.notes
    assert one.directions.curvatures == ()
    for step, other in zip(one.directions.steps, found().findings.directions.steps, strict=True):
        assert (step.kind, step.lambda_, step.alpha) == (other.kind, other.lambda_, other.alpha)
        if step.kind == "interpolation":
            assert step.rises["test", "loss"].mean == pytest.approx(other.rises["test", "loss"].mean, abs=1e-6)


def test_a_loss_without_derivatives_has_no_curvature():
    def wrong(model, batch):
        return model(batch[0]).argmax(1).ne(batch[1]).float()

    asked = {"random": None, "sharpness": {"draws": 1}}
    one = lmc_tune.measure(small(9), members(), TEST, loss=wrong, conditions=["naive"], directions=asked)
    assert one.findings.directions.curvatures == ()
    (note,) = [note for note in one.findings.notes if note.startswith("the largest eigenvalue was left out: ")]
    assert "RuntimeError: " in note
    assert len(one.findings.directions.filterwise) == 3


def test_networks_that_have_learned_nothing_have_no_directions():
    one = lmc_tune.measure(small(0), [small(0).state_dict(), small(1).state_dict()], TEST, directions=True)
    assert one.verdict == "undertrained"
    assert one.findings.directions is None
    assert "directions were left out: a member has learned nothing" in one.findings.notes


def test_training_examples_are_scored_where_that_is_asked():
    asked = {"random": {"draws": 1, "alphas": [1.0]}, "splits": ["train", "test"]}
    one = lmc_tune.measure(small(9), members(), TEST, train=digits().train, conditions=["naive"], directions=asked)
    assert {at[0] for at in one.findings.directions.steps[0].rises} == {"test", "train"}
    assert {at[0] for at in steps_of("random")[0].rises} == {"test"}


# What cannot be had is one sentence.


@pytest.mark.parametrize(
    ("asked", "n", "said"),
    [
        ({"directions": True}, 3, "directions are measured of two checkpoints, not of 3 or of a trajectory; name two"),
        ({"directions": {"randm": {}}}, 2, "directions.randm: unknown key 'randm'; did you mean random?"),
        ({"directions": {"random": {"draws": 0}}}, 2, "directions.random.draws: should be greater than or equal to 1"),
        (
            {"directions": {"noise": {"kinds": ["span"]}}},
            2,
            "needs snapshots of the training, which checkpoints do not",
        ),
        ({"directions": {"random": None}}, 2, "asks nothing: give random, noise or sharpness"),
        ({"directions": {"splits": ["train"]}}, 2, "rests on test examples; add test to splits"),
        ({"directions": {"splits": ["train", "test"]}}, 2, "directions of train: there are no training examples"),
        ({"directions": 3}, 2, "directions: write a mapping as in a search space, e.g. {random: {draws: 20}}; got 3"),
        ({"planes": True}, 2, "a plane goes through three checkpoints: name a third, or a file such as the start"),
        ({"planes": True}, 4, "a plane goes through three: say which of the 4, e.g. planes: {through: [A, B, C]}"),
        (
            {"planes": {"through": ["a", "b", "strt.pt"]}},
            2,
            "no checkpoint and no file 'strt.pt'; the checkpoints are A",
        ),
        ({"planes": {"thru": ["a", "b", "start.pt"]}}, 2, "planes.thru: unknown key 'thru'; did you mean through?"),
        ({"planes": 15}, 3, "planes: write a mapping as in a search space, e.g. {through: [a, b, start.pt]}; got 15"),
        ({"layers": 3}, 2, "layers: say True or False; got 3"),
        ({"layers": {"families": ["single"]}}, 2, "layers: say True or False; got {'families': ['single']}"),
        ({"trajectory": 1}, 2, "trajectory: say True or False; got 1"),
        ({"planes": {"points": 2}}, 3, "planes.points: should be greater than or equal to 3, got 2"),
        (
            {"layers": True, "conditions": ["naive", "endpoint"]},
            2,
            "layers and recipes are not measured under endpoint",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_measured(asked, n, said):
    phases: list[str] = []
    with pytest.raises(UserError, match=re.escape(said)):
        lmc_tune.measure(small(9), [*members() * 2][:n], TEST, **asked, say=phases.append)
    assert phases == []


def test_a_mapping_belongs_to_the_option_before_it():
    options = ("--directions", "--planes")
    assert with_values(["a.pt", "--directions", "b.pt", "--planes"], options) == [
        *("a.pt", "--directions=true", "b.pt", "--planes=true"),
    ]
    assert with_values(["--directions", "{random: {draws: 1}}", "--json"], options) == [
        *("--directions={random: {draws: 1}}", "--json"),
    ]
    assert with_values(["--model", "{name: mlp}", "--planes={points: 3}"], options) == [
        *("--model", "{name: mlp}", "--planes={points: 3}"),
    ]


def test_a_number_is_a_file_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert with_values(["--planes", "5"], ["--planes"]) == ["--planes=5"]
    Path("5").mkdir()
    assert with_values(["--planes", "5"], ["--planes"]) == ["--planes=true", "5"]


@pytest.mark.parametrize("value", ["3", "{families: [single]}", "true"])
def test_layers_take_no_value(value):
    options = ["--model", "mlp", "--data", "digits"]
    done = CliRunner().invoke(app, ["measure", "a.pt", "b.pt", "--layers", value, *options])
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"Option '--layers' takes no value, got {value}: every layer is measured; leave it out." in done.stderr


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Two networks as in the guide, and the start of the first."""
    monkeypatch.chdir(tmp_path)
    spec = MlpSpec(hidden=(32, 32))
    for seed, file in enumerate(("a.pt", "b.pt")):
        torch.save(train(build_model(spec, (1, 8, 8), 10, seed=seed), seed, 9).state_dict(), file)
    torch.save(build_model(spec, (1, 8, 8), 10, seed=0).state_dict(), "start.pt")
    return tmp_path


def test_the_guide_s_example_does_what_it_says(folder):
    section = (ROOT / "docs/guide.md").read_text(encoding="utf-8").split("**Around two networks.**")[1]
    section = section.split("**More than two.**")[0]
    command, code = (
        re.findall(rf"^```{kind}\n(.+?)^```$", section, re.DOTALL | re.MULTILINE) for kind in ("", "python")
    )
    arguments = shlex.split(command[0].replace("\\\n", ""))[1:]
    done = CliRunner().invoke(app, [*arguments, "--json", "--out", "out"])
    assert done.exit_code in {0, 3, 4, 5}, done.stderr
    plain = json.loads(done.stdout)
    directions, planes = plain["directions"], plain["planes"]
    layers = ["linear1", "linear2", "head"]
    assert [step["layer"] for step in directions["steps"] if step["kind"] == "random"] == [
        layer for layer in layers for _ in range(2 * 2)
    ]
    scored = sum(step["draws"] for step in directions["steps"]) + 3  # and the three points themselves
    assert f"{(scored - 111) // len(layers)} passes per layer over the test examples, and 111 more" in section
    assert len(planes["points"]) == 3 + 15**2
    assert planes["through"] == ["A", "B", "start"]
    assert "The plane through A, B, start" in Path("out/measurement.html").read_text(encoding="utf-8")
    model = build_model(MlpSpec(hidden=(32, 32)), (1, 8, 8), 10, seed=0)
    names = {"lmc_tune": lmc_tune, "model": model, "test_loader": [(TEST.inputs, TEST.labels)]}
    exec(code[0], names)  # noqa: S102 - of the guide
    assert {step["draws"] for step in names["found"].plain()["directions"]["steps"] if step["kind"] == "random"} == {20}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--planes"], "a plane goes through three checkpoints: name a third"),
        (["--directions", "c.pt"], "directions are measured of two checkpoints, not of 3"),
        (["--directions", "{random: {drws: 1}}"], "directions.random.drws: unknown key 'drws'; did you mean draws?"),
        (["--directions", "{random: "], "--directions {random: : "),
        (["--planes=3"], "--planes 3: write a mapping, e.g. --planes '{through: [a, b, start.pt]}'"),
        (["--planes", "15"], "--planes 15: write a mapping, e.g. --planes '{through: [a, b, start.pt]}'"),
        (["--planes", "[a, b, start.pt]"], "--planes [a, b, start.pt]: write a mapping, e.g. --planes '{through"),
        (["--planes", "{thru: [a, b, start.pt]}"], "planes.thru: unknown key 'thru'; did you mean through?"),
        (["--directions", "5"], "--directions 5: write a mapping, e.g. --directions '{random: {draws: 20}}'"),
        (["--directions", "true", "c.pt"], "directions are measured of two checkpoints, not of 3"),
        (["--recipe", "recipe.json", "--conditions", "endpoint"], "layers and recipes are not measured under endpoint"),
    ],
)
def test_wrong_questions_are_one_message_before_anything_is_read(tmp_path, monkeypatch, options, said):
    """There are no such files."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["measure", "a.pt", "b.pt", "--model", "mlp", "--data", "digits", *options])
    (message,) = [line for line in done.stderr.splitlines() if not re.match(r"\d\d:\d\d:\d\d ", line)]
    assert (done.exit_code, done.stdout) == (2, "")
    assert message.startswith(said)
    assert not list(tmp_path.iterdir())
