import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lmc_tune.core.barrier import DEFINITIONS, barrier, path_grid
from lmc_tune.data.examples import Examples
from lmc_tune.experiment import MeasureSpec
from lmc_tune.measurement import Path, measure_path
from lmc_tune.measurement.evaluate import evaluate
from lmc_tune.measurement.lines import MeasurementError
from tests import oracles
from tests.cases import blobs, network, state

DATA = {"train": blobs(60), "test": blobs(30, seed=1)}
COARSE = MeasureSpec(lambdas=5, refinements=1)


def sharp(seed: int, factor: float = 3.0) -> dict[str, torch.Tensor]:
    """Random weights scaled up, so that paths between them bend."""
    return {name: factor * tensor for name, tensor in state(network(seed)).items()}


def measured(a, b, measure=COARSE, data=DATA) -> Path:
    return measure_path(network(9), a, b, data, measure)


class Analytic(nn.Module):
    """A model whose loss on label 0 is a given function of its one weight: CE of logits (0, ln(eᶠ − 1)) is f."""

    def __init__(self, function) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.function = function
        self.asked: list[float] = []

    def forward(self, inputs):
        at = self.weight.item()
        self.asked.append(at)
        f = self.function(at)
        z = math.log(math.expm1(f)) if f < 700 else f
        return torch.tensor([[0.0, z]], dtype=torch.float64).expand(len(inputs), 2)


def analytic_path(function, **measure) -> Path:
    ends = [{"weight": torch.tensor([at], dtype=torch.float64)} for at in (0.0, 1.0)]
    data = {"train": Examples(inputs=torch.zeros(3, 1), labels=torch.zeros(3, dtype=torch.int64))}
    return measure_path(Analytic(function), *ends, data, MeasureSpec(**measure))


def bump(centre: float, width: float, height: float = 1.0):
    return lambda x: 0.1 + height * math.exp(-(((x - centre) / width) ** 2))


def test_every_point_agrees_with_the_interpolated_network_in_float64():
    a, b = sharp(1), sharp(2)
    path = measured(a, b)
    assert path.lambdas[0] == 0
    assert path.lambdas[-1] == 1
    for lambda_, scores in zip(path.lambdas, path.scores, strict=True):
        for split, examples in DATA.items():
            logits = oracles.mlp_logits(oracles.lerp(a, b, lambda_), examples.inputs.numpy())
            losses = oracles.cross_entropy(logits, examples.labels.tolist())
            assert scores[split].loss_sum == pytest.approx(math.fsum(losses), rel=1e-5)
            assert scores[split].correct == int(np.sum(logits.argmax(1) == examples.labels.numpy()))
            assert scores[split].n == len(examples)


def test_the_ends_of_the_path_are_the_members_exactly():
    a, b = sharp(1), sharp(2)
    path = measured(a, b)
    model = network(9)
    for end, member in ((0, a), (-1, b)):
        model.load_state_dict(member)
        assert path.scores[end] == {split: evaluate(model, examples) for split, examples in DATA.items()}


def test_identical_members_have_a_barrier_of_exactly_zero_everywhere():
    a = sharp(1)
    path = measured(a, a)
    for split in ("train", "test"):
        for quantity in ("loss", "error"):
            assert len(set(path.curve(split, quantity))) == 1
            assert [path.barrier(split, quantity, d).height for d in DEFINITIONS] == [0.0] * 5
    assert not path.under_resolved


def test_a_member_and_its_permuted_copy_agree_at_the_ends_and_have_a_barrier_between():
    a = trained()
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    b = {
        "1.weight": a["1.weight"][order],
        "1.bias": a["1.bias"][order],
        "3.weight": a["3.weight"][:, order],
        "3.bias": a["3.bias"],
    }
    path = measured(a, b)
    loss = path.curve("train", "loss")
    assert loss[0] == pytest.approx(loss[-1], rel=1e-5)
    assert path.barrier("train", "loss").height > 0.1
    assert path.barrier("train", "error").height > 0.01


def trained() -> dict[str, torch.Tensor]:
    model, examples = network(4), DATA["train"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(examples.inputs), examples.labels).backward()
        optimizer.step()
    return state(model)


def test_the_excess_over_the_chord_is_d_minus_j_minus_e_at_the_true_label():
    """The identity of docs/definitions.md, section 1, from logits in float64."""
    a, b = sharp(1), sharp(2)
    path = measured(a, b)
    examples = DATA["train"]
    x, y = examples.inputs.numpy(), examples.labels.numpy()
    z_a, z_b = (oracles.mlp_logits(oracles.lerp(a, b, end), x) for end in (0.0, 1.0))
    lse = np.logaddexp.reduce
    loss = path.curve("train", "loss")
    for lambda_, value in zip(path.lambdas, loss, strict=True):
        z = oracles.mlp_logits(oracles.lerp(a, b, lambda_), x)
        mix = (1 - lambda_) * z_a + lambda_ * z_b
        d = lse(z, axis=1) - lse(mix, axis=1)
        j = (1 - lambda_) * lse(z_a, axis=1) + lambda_ * lse(z_b, axis=1) - lse(mix, axis=1)
        e_y = (z - mix)[np.arange(len(y)), y]
        assert (j >= -1e-12).all()
        excess = value - ((1 - lambda_) * loss[0] + lambda_ * loss[-1])
        assert excess == pytest.approx((d - j - e_y).mean(), abs=1e-5)


def test_a_linear_model_has_no_loss_barrier_at_all():
    """Cross-entropy is convex in the logits and these are linear in the weights: the path lies below its chord."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    a, b = ({name: (1 - 2 * k) * 3 * tensor for name, tensor in state(model).items()} for k in (0, 1))
    path = measure_path(model, a, b, DATA, MeasureSpec(lambdas=11))
    assert path.barrier("train", "loss").height == 0
    assert path.barrier("test", "loss").height == 0
    assert path.curve("train", "loss")[1:-1].max() < path.curve("train", "loss").max()


def test_swapping_the_members_mirrors_the_path():
    there, back = measured(sharp(1), sharp(2)), measured(sharp(2), sharp(1))
    assert back.lambdas[::-1] == pytest.approx(1 - there.lambdas)
    for split in DATA:
        assert back.curve(split, "loss")[::-1] == pytest.approx(there.curve(split, "loss"), rel=1e-5)
        assert back.curve(split, "error")[::-1].tolist() == there.curve(split, "error").tolist()


def test_measuring_again_gives_the_same_numbers_bit_for_bit():
    one, two = measured(sharp(1), sharp(2)), measured(sharp(1), sharp(2))
    assert one.lambdas.tolist() == two.lambdas.tolist()
    assert one.scores == two.scores


def test_the_first_grid_is_always_on_the_path():
    path = measured(sharp(1), sharp(2), MeasureSpec(lambdas=7, refinements=2))
    assert set(path_grid(7)) <= set(path.lambdas)
    assert (np.diff(path.lambdas) > 0).all()


@pytest.mark.parametrize("lambdas", [5, 11])
def test_a_peak_beside_the_grid_is_found(lambdas):
    # The first grid of five reads f(¼) − chord = 0.57; the peak is at 0.37.
    path = analytic_path(bump(0.37, 0.15), lambdas=lambdas)
    top = path.barrier("train", "loss", "endpoint_mean")
    grid = path_grid(lambdas)
    coarse = barrier(grid, [bump(0.37, 0.15)(x) for x in grid], "endpoint_mean")
    assert not path.under_resolved
    assert top.height == pytest.approx(1.0, abs=0.01)
    assert top.height > coarse + (0.1 if lambdas == 5 else 0.01)
    assert top.lambda_ == pytest.approx(0.37, abs=0.02)


@given(st.floats(0.05, 0.95), st.floats(0.2, 1.0), st.floats(0.05, 3.0))
def test_refining_never_lowers_a_barrier_and_finds_a_smooth_top_within_its_tolerance(centre, width, height):
    function = bump(centre, width, height)
    path = analytic_path(function, lambdas=11, refinements=6, tolerance_loss=0.01)
    dense = np.linspace(0, 1, 4001)
    for definition in ("chord", "endpoint_mean", "max_endpoint"):
        found = path.barrier("train", "loss", definition).height
        coarse = barrier(path_grid(11), [function(x) for x in path_grid(11)], definition)
        truth = barrier(dense, [function(x) for x in dense], definition)
        assert coarse - 1e-12 <= found <= truth + 1e-6
        assert truth - found <= 0.01


def test_a_barrier_that_still_moves_after_the_last_round_is_flagged():
    assert analytic_path(bump(0.37, 0.15), lambdas=5, refinements=1).under_resolved
    assert not analytic_path(bump(0.37, 0.15), lambdas=5, refinements=6).under_resolved
    assert not analytic_path(
        bump(0.37, 0.15), lambdas=5, refinements=1, tolerance_loss=1, tolerance_error=1
    ).under_resolved


def test_a_plain_grid_can_be_asked_for_and_says_whether_it_is_seen_to_be_too_coarse():
    coarse, fine = (analytic_path(bump(0.37, 0.15), lambdas=lambdas, refinements=0) for lambdas in (5, 101))
    assert coarse.lambdas.tolist() == path_grid(5).tolist()
    assert fine.lambdas.tolist() == path_grid(101).tolist()
    assert coarse.under_resolved
    assert not fine.under_resolved


@pytest.mark.parametrize("tolerance", [1e-6, 0.02])
def test_errors_are_settled_once_they_move_by_no_more_than_one_example(tolerance):
    """A finer tolerance would ask for a difference that no test set can show."""
    data = {"test": Examples(inputs=torch.arange(40.0)[:, None], labels=torch.zeros(40, dtype=torch.int64))}

    class OneMore(Analytic):
        """Half of the examples are wrong, and at 0.25, which the first grid passes over, one more."""

        def forward(self, inputs):
            wrong = inputs[:, 0] < 20 + (self.weight.item() == 0.25)
            return torch.stack([torch.zeros(len(inputs)), torch.where(wrong, 0.1, -0.1)], dim=1).double()

    ends = [{"weight": torch.tensor([at], dtype=torch.float64)} for at in (0.0, 1.0)]
    measure = MeasureSpec(lambdas=3, refinements=1, tolerance_error=tolerance, tolerance_loss=10)
    path = measure_path(OneMore(None), *ends, data, measure)
    assert path.barrier("test", "error").height == pytest.approx(1 / 40)
    assert not path.under_resolved


def test_an_error_barrier_that_moves_is_flagged_as_well():
    # The error is 1 where the loss is above ln 2: on (0.26, 0.48), between two points of the first grid.
    def narrow(x):
        return 1.0 if 0.26 < x < 0.48 else 0.1 + 0.02 * math.exp(-(((x - 0.375) / 0.3) ** 2))

    path = analytic_path(narrow, lambdas=5, refinements=1, tolerance_loss=10)
    assert path.barrier("train", "error").height == 1.0
    assert path.under_resolved


def test_a_flat_path_is_settled_after_two_rounds():
    path = analytic_path(lambda _: 0.3, lambdas=5)
    assert path.lambdas.tolist() == [0.0, 0.0625, 0.125, 0.25, 0.5, 0.75, 1.0]
    assert not path.under_resolved


def test_an_error_that_rests_for_a_round_and_moves_again_is_followed():
    # The loss leads the refinement to 0.375 in the first round and to 0.4375 in the second, where the error is 1.
    def narrow(x):
        return 1.0 if 0.43 < x < 0.445 else 0.1 + 0.02 * math.exp(-(((x - 0.375) / 0.3) ** 2))

    path = analytic_path(narrow, lambdas=5, tolerance_loss=10)
    assert path.barrier("train", "error").height == 1.0
    assert not path.under_resolved


def test_every_position_is_evaluated_once_apart_from_the_determinism_probe():
    model = Analytic(bump(0.37, 0.15))
    ends = [{"weight": torch.tensor([at], dtype=torch.float64)} for at in (0.0, 1.0)]
    data = {"test": Examples(inputs=torch.zeros(3, 1), labels=torch.zeros(3, dtype=torch.int64))}
    path = measure_path(model, *ends, data, MeasureSpec(lambdas=5))
    assert sorted(model.asked) == pytest.approx([0.0, *path.lambdas])


def test_a_loss_that_is_not_finite_on_the_way_is_kept_and_makes_the_loss_barrier_nan():
    class Hole(Analytic):
        def forward(self, inputs):
            return super().forward(inputs) * (float("nan") if 0.4 < self.weight.item() < 0.6 else 1)

    ends = [{"weight": torch.tensor([at], dtype=torch.float64)} for at in (0.0, 1.0)]
    data = {"test": Examples(inputs=torch.zeros(3, 1), labels=torch.zeros(3, dtype=torch.int64))}
    path = measure_path(Hole(bump(0.5, 0.2)), *ends, data, COARSE)
    assert math.isnan(path.curve("test", "loss")[path.lambdas.tolist().index(0.5)])
    assert math.isnan(path.barrier("test", "loss").height)


def test_infinite_losses_at_both_ends_are_measured_without_a_warning():
    path = analytic_path(lambda x: 0.1 if 0 < x < 1 else 1e308, lambdas=5)  # the sum of three overflows
    assert path.curve("train", "loss")[[0, -1]].tolist() == [math.inf, math.inf]
    assert math.isnan(path.barrier("train", "loss").height)
    assert not path.under_resolved


def test_running_statistics_are_interpolated_and_counts_are_as():
    a, b = (state(network(seed, norm=True)) for seed in (1, 2))
    a["2.running_mean"], b["2.running_mean"] = torch.arange(6.0), -torch.arange(6.0)
    a["2.running_var"], b["2.running_var"] = torch.full((6,), 1.0), torch.full((6,), 3.0)
    a["2.num_batches_tracked"], b["2.num_batches_tracked"] = torch.tensor(10), torch.tensor(20)
    model = network(9, norm=True)
    seen = []
    model[2].register_forward_pre_hook(lambda layer, _: seen.append(state(layer)))
    measure_path(model, a, b, {"test": DATA["test"]}, COARSE)
    means = {tuple(s["running_mean"].tolist()) for s in seen}
    assert tuple((0.5 * torch.arange(6.0)).tolist()) in means  # λ = ¼: ¾ a − ¼ a
    assert {s["running_var"][0].item() for s in seen} >= {1.0, 1.5, 2.0, 2.5, 3.0}
    assert {s["num_batches_tracked"].item() for s in seen} == {10}
    assert {s["num_batches_tracked"].dtype for s in seen} == {torch.int64}


def test_a_model_that_is_random_in_evaluation_mode_is_refused():
    class Noisy(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs.flatten(1)) + torch.rand(3, generator=generator)

    generator = torch.Generator().manual_seed(0)
    model = Noisy(4, 3)
    a = state(model)
    with pytest.raises(MeasurementError, match=r"the same weights scored \S+ and \S+ on train: the model is random in"):
        measure_path(model, a, a, DATA, COARSE)


def test_members_of_two_architectures_are_refused():
    wide = state(network(1, hidden=7))
    message = r"differ in architecture: '1.weight' is \(6, 4\) in A and \(7, 4\) in B; a path needs two members of one"
    with pytest.raises(MeasurementError, match=message):
        measured(sharp(1), wide)
    with pytest.raises(MeasurementError, match=r"differ in architecture: only B has '2\.bias'"):
        measured(sharp(1), state(network(1, norm=True)))


def test_a_path_reads_its_own_curves():
    path = measured(sharp(1), sharp(2))
    assert path.splits == ["train", "test"]
    assert path.curve("test", "accuracy").tolist() == pytest.approx((1 - path.curve("test", "error")).tolist())
    for definition in DEFINITIONS:
        expected = barrier(path.lambdas, path.curve("test", "loss"), definition)
        assert path.barrier("test", "loss", definition).height == expected
