"""Values of examples along a path, against plain torch and against the paths of sweeps."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lmc_tune.averaging.data import split_of
from lmc_tune.averaging.metric import CrossEntropy
from lmc_tune.averaging.paths import Condition, check_repeats, score_path, scored
from lmc_tune.core.barrier import path_grid
from lmc_tune.experiment import MeasureSpec
from lmc_tune.measurement.lines import MeasurementError
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.path import measure_path
from lmc_tune.models.registry import build_model
from tests.averaging.cases import CPU, digits, digits_split, network, trained
from tests.cases import NETWORKS, WINDOW, windows

METRIC = CrossEntropy()


def path(condition: Condition, *, norm: bool = True):
    states = trained(0, 1, norm=norm), trained(1, 1, norm=norm)
    splits = {"test": digits_split(), "train": split_of(digits().train, device=CPU, batch_size=64)}
    return score_path(Network(network(norm=norm)), states, path_grid(5), splits, METRIC, condition, digits().train)


def test_every_value_is_that_of_the_interpolated_network():
    found, model, data = path(Condition()), network(), digits().test
    for at, lambda_ in enumerate(path_grid(5)):
        a, b = trained(0, 1), trained(1, 1)
        between = {
            name: torch.lerp(a[name], b[name], lambda_) if a[name].is_floating_point() else a[name] for name in a
        }
        model.load_state_dict(between)
        with torch.no_grad():
            logits = model.eval()(data.inputs)
        losses = functional.cross_entropy(logits, data.labels, reduction="none").double().numpy()
        wrong = logits.argmax(1).ne(data.labels).double().numpy()
        np.testing.assert_allclose(found.curves["test", "loss"].values[:, at], losses, atol=1e-5)
        np.testing.assert_array_equal(found.curves["test", "error"].values[:, at], wrong)
    assert list(found.outputs) == [0.0, 0.5, 1.0]
    assert found.outputs[0.5].shape == (len(data), 10)


def test_text_is_scored_as_by_sweeps_and_its_outputs_which_nobody_reads_are_not_kept():
    spec, data = NETWORKS["gpt"], {"test": windows(20)}
    states = tuple(build_model(spec, WINDOW, 4, seed).state_dict() for seed in (1, 2))
    model = build_model(spec, WINDOW, 4, 0)
    splits = {"test": split_of(data["test"], device=CPU, batch_size=6)}
    found = score_path(Network(model), states, path_grid(5), splits, METRIC, Condition())
    known = measure_path(model, *states, data, MeasureSpec(lambdas=5, refinements=0))
    for (split, quantity), curve in found.curves.items():
        np.testing.assert_allclose(curve.mean, known.curve(split, quantity), atol=1e-6)
    assert found.outputs == {}


@pytest.mark.parametrize("statistics", ["naive", "endpoint", "recalibrated", "repaired"])
def test_means_are_those_of_the_paths_of_sweeps(statistics):
    found = path(Condition(None, statistics))
    measure = MeasureSpec(lambdas=5, refinements=0)
    data = {"test": digits().test, "train": digits().train}
    known = measure_path(network(), trained(0, 1), trained(1, 1), data, measure, statistics, digits().train)
    for (split, quantity), curve in found.curves.items():
        np.testing.assert_allclose(curve.mean, known.curve(split, quantity), atol=1e-5)


def test_batches_do_not_matter():
    model = network()
    model.load_state_dict(trained(0, 1))
    whole, _ = scored(model, split_of(digits().test, device=CPU, batch_size=1000), METRIC)
    parts, _ = scored(model, split_of(digits().test, device=CPU, batch_size=7), METRIC)
    np.testing.assert_allclose(whole["loss"], parts["loss"], atol=1e-5)
    np.testing.assert_array_equal(whole["error"], parts["error"])


def test_the_value_at_one_half_is_the_average():
    found = path(Condition()).curves["test", "error"]
    np.testing.assert_array_equal(found.at_half, found.values[:, 2])


def test_a_network_that_is_random_is_refused():
    class Noisy(nn.Module):
        def forward(self, inputs):
            return inputs.flatten(1)[:, :10] + torch.rand(1)

    with pytest.raises(MeasurementError, match="random in evaluation mode"):
        check_repeats(Noisy(), digits_split(), METRIC)
    check_repeats(network(), digits_split(), METRIC)


def test_labels_of_a_condition():
    assert Condition().label == "naive"
    assert Condition(None, "endpoint").label == "endpoint"
    assert Condition("activations").label == "aligned by activations"
    assert Condition("weights", "repaired").label == "aligned by weights + repaired"
