"""Paths to B with its units permuted, as a sweep measures them."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from lmc_tune.data.examples import Examples
from lmc_tune.experiment import AlignmentSpec, MeasureSpec, MlpSpec
from lmc_tune.measurement.alignment.activations import match_activations
from lmc_tune.measurement.alignment.matching import match_weights
from lmc_tune.measurement.alignment.specification import random_permutations
from lmc_tune.measurement.alignment.trace import specification_of
from lmc_tune.measurement.lines import MeasurementError
from lmc_tune.measurement.measurement import Found, Sizes
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.path import Paths, measure_path, path_barriers
from tests.cases import blobs, network, state

ALL = blobs(90)
PART, TEST = (Examples(inputs=ALL.inputs[own], labels=ALL.labels[own]) for own in (slice(60), slice(60, None)))
DATA = {"train": PART, "test": TEST}
COARSE = MeasureSpec(lambdas=5, refinements=1, alignment=AlignmentSpec())
BATCH, PLAIN = MlpSpec(norm="batch"), MlpSpec()


def members(a: nn.Module, b: nn.Module) -> Members:
    return Members(network=Network(a), states={"a": state(a), "b": state(b)}, data=DATA, statistics=PART)


def trained(seed: int, **how: Any) -> nn.Module:
    model = network(seed, **how).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(PART.inputs), PART.labels).backward()
        optimizer.step()
    return model.eval()


def of_seeds(first: int, second: int, **how: Any) -> Members:
    return members(trained(first, **how), trained(second, **how))


def permuted(pair: Members, member: str, of: str) -> Members:
    """The same pair, in which ``member`` is ``of`` with its units in another order."""
    specification = specification_of(pair.network.module, PART.inputs)
    moved = specification.permuted(pair.states[of], random_permutations(specification, seed=7))
    return replace(pair, states={**pair.states, member: moved})


def measured(pair: Members, norm: MlpSpec = PLAIN, **asked: Any) -> Found:
    return Paths().measure(pair, COARSE.model_copy(update=asked).of(norm))


def rows(found: Found) -> dict[str, dict[str, Any]]:
    return {row["condition"]: row for row in found.tables["barriers"]}


def assert_alike(one: dict[str, Any], other: dict[str, Any], abs_: float = 0.0) -> None:
    """Two rows of barriers, up to rounding; where there is a barrier says nothing of one that is rounding."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        if name != "condition" and not name.endswith("lambda"):
            assert value == pytest.approx(other[name], abs=abs_, nan_ok=True), name


@pytest.mark.parametrize("by", ["weights", "activations"])
def test_a_permuted_copy_has_a_barrier_that_alignment_removes(by: str) -> None:
    pair = of_seeds(1, 2)
    found = measured(permuted(pair, "b", of="a"), alignment=AlignmentSpec(by=by))
    by_condition = rows(found)
    assert by_condition["naive"]["test_loss_barrier_chord"] > 0.1
    assert by_condition["aligned"]["test_loss_barrier_chord"] == pytest.approx(0, abs=1e-5)
    assert by_condition["aligned"]["retention"] == 1
    assert found.columns["permutable_units"] == 6
    assert 0 < found.columns["permuted_units"] <= 6
    assert found.columns["frozen_units"] == ""


@pytest.mark.parametrize("by", ["weights", "activations"])
def test_a_planted_permutation_of_b_changes_no_aligned_barrier(by: str) -> None:
    """With one hidden layer the best permutation is unique, so B is aligned to the same network."""
    pair, how = of_seeds(1, 2), AlignmentSpec(by=by)
    one, planted = (rows(measured(one, alignment=how)) for one in (pair, permuted(pair, "b", of="b")))
    assert one["naive"] != planted["naive"]
    for condition in ("aligned", "aligned + repaired"):
        assert_alike(one[condition], planted[condition], abs_=1e-5)


@pytest.mark.parametrize("by", ["weights", "activations"])
def test_aligned_rows_are_those_of_paths_to_the_permuted_b(by: str) -> None:
    pair = of_seeds(1, 2, norm=True)
    found = rows(measured(pair, BATCH, alignment=AlignmentSpec(by=by)))
    assert list(found) == ["naive", "recalibrated", "aligned", "aligned + recalibrated", "aligned + repaired"]
    module, (a, b) = network(0, norm=True), pair.pair
    specification = specification_of(module, PART.inputs)
    if by == "weights":
        permutations = match_weights(specification, a, b, restarts=5).permutations
    else:
        permutations = match_activations(module, specification, a, b, PART)
    path_to = partial(measure_path, module, a, data=DATA, measure=COARSE, statistics=PART)
    ends = {"aligned": specification.permuted(b, permutations), "": b}
    for condition, row in found.items():
        prefix, _, statistics = condition.rpartition("aligned")
        end = ends["aligned" if "aligned" in condition else prefix]
        prepared = (statistics.removeprefix(" + ") or "naive") if end is not b else condition
        assert_alike(row, {"condition": condition, **path_barriers(path_to(end, condition=prepared))})


def test_the_same_pair_gives_the_same_rows_whatever_was_measured_before() -> None:
    pair, other = of_seeds(1, 2), of_seeds(3, 4)
    first = measured(pair)
    measured(other)
    assert measured(pair) == first
    assert measured(replace(pair, network=Network(network(9)))) == first


class Opaque(nn.Module):
    """A network whose graph depends on its inputs: it cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = network(5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layers(inputs) if inputs.sum() < 1e9 else self.layers(-inputs)


def test_where_no_unit_can_be_permuted_aligned_repeats_the_path_as_it_is_and_the_reason_is_given() -> None:
    one, other = Opaque(), Opaque()
    other.layers.load_state_dict(network(6).state_dict())
    found = measured(members(one, other))
    assert (found.columns["permutable_units"], found.columns["permuted_units"]) == (0, 0)
    assert "cannot be traced" in found.columns["frozen_units"]
    by_condition = rows(found)
    assert_alike(by_condition["aligned"], by_condition["naive"])
    assert by_condition.keys() == {"naive", "aligned", "aligned + repaired"}


def test_conditions_that_are_the_same_without_batch_norm_repeat_each_other_in_a_network_of_the_users_own() -> None:
    """Whether it has BatchNorm is known only once it is there."""
    by_condition = rows(measured(of_seeds(1, 2), BATCH))
    assert_alike(by_condition["aligned + recalibrated"], by_condition["aligned"])
    assert_alike(by_condition["recalibrated"], by_condition["naive"])
    assert by_condition["aligned"]["test_loss_barrier_chord"] != by_condition["naive"]["test_loss_barrier_chord"]


@pytest.mark.parametrize("by", ["weights", "activations"])
def test_a_member_whose_outputs_overflow_has_no_barrier_and_is_no_failure(by: str) -> None:
    pair = of_seeds(1, 2)
    huge = {name: 3e38 * entry.sign() for name, entry in pair.states["b"].items()}
    by_condition = rows(measured(replace(pair, states={**pair.states, "b": huge}), alignment=AlignmentSpec(by=by)))
    for condition in ("naive", "aligned"):
        assert math.isnan(by_condition[condition]["test_loss_barrier_chord"])


def test_alignment_without_training_examples_is_refused() -> None:
    pair = replace(of_seeds(1, 2), statistics=None)
    with pytest.raises(MeasurementError, match="alignment needs examples of the training set; give them as statistics"):
        measured(pair)


def test_a_question_without_alignment_has_no_columns_of_it() -> None:
    found = measured(of_seeds(1, 2), alignment=None)
    assert found.columns == {}
    assert list(rows(found)) == ["naive"]


def test_the_merge_gain_and_retention_are_those_of_the_average() -> None:
    pair = of_seeds(1, 2)
    row = rows(measured(pair))["naive"]
    accuracy = []
    for position in (0.0, 0.5, 1.0):
        model = network(9)
        model.load_state_dict(
            {name: torch.lerp(entry, pair.pair[1][name], position) for name, entry in pair.pair[0].items()}
        )
        accuracy.append(float(model(DATA["test"].inputs).argmax(1).eq(DATA["test"].labels).double().mean()))
    a, average, b = accuracy
    assert a != b
    assert row["merge_gain"] == pytest.approx(100 * (average - (a + b) / 2))
    assert row["retention"] == pytest.approx(average / ((a + b) / 2))


@pytest.mark.parametrize(("by", "matched"), [("weights", 0), ("activations", 120)])
def test_the_work_counts_aligned_paths_and_what_activations_are_matched_on(by: str, matched: int) -> None:
    sizes = Sizes(part=30, both=60, test=30, splits={"train": 60, "test": 30}, layers=2)
    plain = COARSE.model_copy(update={"alignment": None, "conditions": ("naive", "repaired")})
    asked = plain.model_copy(update={"alignment": AlignmentSpec(by=by)})
    before, after = (Paths().work(sizes, one.of(PLAIN)) for one in (plain, asked))
    assert after.scored_on_path == 2 * before.scored_on_path
    assert after.scored_apart == 2 * before.scored_apart + matched
    assert after.estimated == 2 * before.estimated
