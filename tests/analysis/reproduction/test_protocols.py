"""Every rule of a protocol, on made-up studies: supported, contradicted, undecided and without its premise."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lmc_tune.analysis.reproduction.claims import CLAIMS
from lmc_tune.analysis.reproduction.expectations import Expectation
from lmc_tune.analysis.reproduction.page import PAGE
from lmc_tune.analysis.reproduction.protocols import PROTOCOLS, pseudo_values
from lmc_tune.analysis.reproduction.runs import GATES, MEDIUM
from lmc_tune.analysis.reproduction.sweep_tables import Study
from lmc_tune.experiment import GroupSpec, MlpSpec, ResnetSpec, VggSpec
from lmc_tune.experiment.reading import presets, read_space
from lmc_tune.tables.rows import PairResult
from tests.analysis.cases import ok_pair, undertrained_pair
from tests.analysis.reproduction.studies import L3, learning_curves, outcome_of, pairs, spec_of, study_of

BY_ID = {protocol.id: protocol for protocol in PROTOCOLS}
NETWORKS = (MlpSpec(hidden=(32, 32, 32)), MlpSpec(hidden=(32, 32, 32), norm="batch"))


def alternating(k: int) -> int:
    return (-1) ** k


def found_in(claim: str, study: Study) -> dict[str, Expectation]:
    return {one.what: one for one in BY_ID[claim].reading(study).expectations}


def test_no_claim_is_reworded():
    claims = {one.id: (one.text, one.source) for one in CLAIMS}
    assert [one.id for one in PROTOCOLS] == [f"R{n}" for n in range(1, 9)]
    assert all(claims[one.id] == (one.text, one.source) for one in PROTOCOLS)


def test_the_page_of_the_protocols_has_the_numbers_of_the_spaces():
    page = (PAGE.parent / "protocols.md").read_text(encoding="utf-8")
    tested = {name: [one.id for one in PROTOCOLS if one.preset == name] for name in presets() if name.endswith(MEDIUM)}
    assert {one.preset for one in PROTOCOLS} == tested.keys()
    for name, claims in tested.items():
        space = read_space(name)
        row = f"| `{name}` | {', '.join(claims)} | {len(space.cells())} | {space.replicates} |"
        assert row in page
        assert space.seed == 1
        assert {*GATES} == {0.4, 0.5, space.verdict.min_train_accuracy}
        assert (space.measure.lambdas, space.measure.refinements, space.verdict.threshold) == (11, 6, 0.02)
    assert all(f"## {one.id}\n" in page for one in PROTOCOLS)


@pytest.mark.parametrize(
    ("hump", "spread", "expected"),
    [(0.1, 0.0, "supported"), (0.001, 0.0, "contradicted"), (0.03, 0.03, "undecided")],
)
def test_r2_asks_both_deep_networks_at_the_rate_of_the_study(hump, spread, expected):
    def make(spec: GroupSpec) -> PairResult:
        height = hump + spread * alternating(spec.replicate)
        result = ok_pair(spec, height)
        columns = {name: value for name, value in result.row.items() if "barrier" in name}
        result.row.update({f"recalibrated_{name}": value for name, value in columns.items()})
        loss = {f"{under}accuracy_difference": -100 * height for under in ("", "recalibrated_")}
        result.row.update(loss)
        return result

    deep = (VggSpec(), ResnetSpec(depth=8))
    study = study_of(pairs(make, spec_of, *(lambda k, model=model: spec_of(k, model) for model in deep)))
    sided = [one for one in found_in("R2", study).values() if one.side]
    assert [one.what.split(":")[0] for one in sided] == 2 * ["resnet-8 batch norm"] + 2 * ["vgg-11"]
    assert outcome_of(BY_ID["R2"], study) == expected
    assert outcome_of(BY_ID["R2"], study_of(pairs(make, spec_of))) == "premise not met"


def trained(early: float, late: float, spread: float = 0.0, bn_late: float | None = None) -> Study:
    """Interpolants of the perceptron are worse than its members by this much after 15 and 45 epochs; with BatchNorm
    too, unless it has a value of its own.
    """

    def make(spec: GroupSpec) -> PairResult:
        last = bn_late if bn_late is not None and spec.model.norm == "batch" else late
        hump = last + spread * alternating(spec.replicate) if spec.train.epochs == 45 else early
        result = ok_pair(spec, hump, endpoint=0.1)
        columns = {name: value for name, value in result.row.items() if "barrier" in name}
        if spec.model.norm == "batch":
            result.row.update({f"recalibrated_{name}": value for name, value in columns.items()})
        return result

    cells = [
        (lambda k, model=model, epochs=epochs: spec_of(k, model, lr=1e-4, epochs=epochs))
        for model in NETWORKS
        for epochs in (15, 45)
    ]
    results = pairs(make, *cells)
    return study_of(results, learning_curves(results, rise=0.2))


@pytest.mark.parametrize(
    ("study", "expected"),
    [
        (trained(0.0, 0.01), "supported"),
        (trained(0.01, 0.01), "undecided"),  # as much before: overfitting explains nothing
        (trained(0.015, 0.01), "contradicted"),  # more before
        (trained(0.0, -0.02), "contradicted"),  # interpolants are better than members
        (trained(0.0, 0.01, spread=0.05), "undecided"),
        (trained(0.0, 0.015, spread=0.003), "undecided"),  # worse than members, perhaps with a barrier
        (trained(0.0, 0.3), "premise not met"),
        (trained(0.0, -0.02, bn_late=0.01), "supported"),  # one network is enough
        (trained(0.0, 0.3, bn_late=0.01), "supported"),
        (trained(0.0, 0.3, bn_late=-0.02), "contradicted"),  # of the network that tests it
    ],
)
def test_r3_compares_interpolants_with_members(study, expected):
    assert outcome_of(BY_ID["R3"], study) == expected


def test_r3_reads_differences_from_members():
    found = found_in("R3", trained(0.05, 0.01))
    name = "mlp 32-32-32: test accuracy at λ = ½ minus the members'"
    # The path is in whole examples of 360.
    np.testing.assert_allclose(found[f"{name}, 45 epochs"].values, -1, atol=0.3)
    np.testing.assert_allclose(found[f"{name}, 15 epochs"].values, -5, atol=0.3)
    np.testing.assert_allclose(found[f"{name}, 45 epochs minus 15"].values, 4, atol=0.5)
    on_train = "mlp 32-32-32: train accuracy at λ = ½ minus the members', on the data of both, 45 epochs"
    np.testing.assert_allclose(found[on_train].values, -0.5, atol=0.15)
    assert {one.side for one in found.values() if "train" in one.what or "loss" in one.what} == {None}
    assert len({one.case for one in found.values() if one.side}) == 2


def on_path(test: Callable[[float, int], float], validation: Callable[[float], float]) -> Study:
    """Pairs with these losses, by λ and replicate."""

    def make(spec: GroupSpec) -> PairResult:
        result = ok_pair(spec, 0.0)
        rows = [row for row in result.tables["paths"] if row["split"] == "test"]
        held_out = [{**row, "split": "validation", "loss_sum": row["n"] * validation(row["lambda"])} for row in rows]
        for row in rows:
            row["loss_sum"] = row["n"] * test(row["lambda"], spec.replicate)
        result.tables["paths"].extend(held_out)
        return result

    return study_of(pairs(make, spec_of))


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (lambda at, _k: 1 - at * (1 - at), "supported"),
        (lambda at, _k: 1 + at * (1 - at), "contradicted"),
        (lambda at, k: 1 + alternating(k) * at * (1 - at), "undecided"),
    ],
)
def test_r4_is_read_where_held_out_examples_are_best(test, expected):
    study = on_path(test, lambda at: (at - 0.25) ** 2)
    (found,) = found_in("R4", study).values()
    np.testing.assert_allclose(found.values, [1 - test(0.25, k) for k in range(4)])
    assert outcome_of(BY_ID["R4"], study) == expected


def test_r4_never_reads_the_ends_and_needs_held_out_examples():
    falling = on_path(lambda at, _k: 1 + at, lambda at: at)  # the best of all is an end
    (found,) = found_in("R4", falling).values()
    np.testing.assert_allclose(found.values, -1 / 24)
    without = study_of(pairs(lambda spec: ok_pair(spec, -0.02), spec_of))
    assert outcome_of(BY_ID["R4"], without) == "undecided"
    assert outcome_of(BY_ID["R4"], study_of(pairs(undertrained_pair, spec_of))) == "premise not met"


def noisy(hump: Callable[[float, int, int], float]) -> Study:
    """Pairs whose barrier depends on rate, batch size and replicate, and whose members differ as the rate over it."""

    def make(spec: GroupSpec) -> PairResult:
        result = ok_pair(spec, hump(spec.train.lr, spec.train.batch_size, spec.replicate))
        result.row["disagreement"] = spec.train.lr / spec.train.batch_size
        return result

    return study_of(
        pairs(
            make,
            *(
                lambda k, lr=lr, size=size: spec_of(k, L3, lr=lr, batch_size=size)
                for lr in (1e-3, 1e-2, 1e-1)
                for size in (16, 32, 64)
            ),
        )
    )


@pytest.mark.parametrize(
    ("hump", "expected"),
    [
        (lambda lr, size, _k: 10 * lr / size, "supported"),
        (lambda lr, size, _k: lr * size / 10, "contradicted"),
        (lambda lr, size, k: 10 * lr / size if k % 2 else lr * size / 10, "undecided"),
        (lambda lr, _size, _k: 0.001 * lr, "premise not met"),
    ],
)
def test_r5_correlates_batch_size_with_the_lowest_rate_that_has_a_barrier(hump, expected):
    assert outcome_of(BY_ID["R5"], noisy(hump)) == expected


def test_r5_ranks_a_batch_size_without_a_critical_rate_last():
    name = "mlp 32-32-32: rank correlation of batch size and critical rate"
    # Barriers above 2% at rates above 0.032, 0.064 and 0.128: two critical rates of 0.1, and none.
    found = found_in("R5", noisy(lambda lr, size, _k: 10 * lr / size))
    np.testing.assert_allclose(found[name].values, 0.75**0.5)
    # Train errors are half as large: 0.1, none and none.
    np.testing.assert_allclose(found[f"{name} of the train barrier"].values, 0.75**0.5)
    assert found[f"{name} of the train barrier"].side is None
    alike = found_in("R5", noisy(lambda lr, _size, _k: lr))
    assert alike[name].known.tolist() == 4 * [0.0]
    study = noisy(lambda lr, size, _k: 10 * lr / size)
    two_sizes = replace(study, pairs=study.pairs[study.pairs["batch_size"] < 64])
    assert len(found_in("R5", two_sizes)[name].known) == 0


def normed(heights: dict[tuple[str, bool], float], spread: float = 0.0, trained: bool = True) -> Study:  # noqa: FBT001, FBT002
    """Barriers by norm and normalisation at a rate of 0.001; at 0.01 there is none."""

    def make(spec: GroupSpec) -> PairResult:
        norm, raw = spec.model.norm, not spec.dataset.normalise
        if raw and not trained:
            return undertrained_pair(spec)
        restored = spread * alternating(spec.replicate) if (norm, raw) == ("batch", False) else 0.0
        height = heights[norm, not raw] + restored if spec.train.lr == 1e-3 else 0.0
        result = ok_pair(spec, height + 0.001 * (1 + alternating(spec.replicate)))
        columns = {name: value for name, value in result.row.items() if "barrier" in name}
        if norm == "batch":
            result.row.update({f"recalibrated_{name}": value for name, value in columns.items()})
        return result

    return study_of(
        pairs(
            make,
            *(
                lambda k, norm=norm, on=on, lr=lr: spec_of(k, MlpSpec(hidden=(32,), norm=norm), on, lr=lr)
                for norm, on in heights
                for lr in (1e-3, 1e-2)
            ),
        )
    )


BROKEN = {("none", True): 0.2, ("none", False): 0.0, ("batch", True): 0.0, ("batch", False): 0.3}


@pytest.mark.parametrize(
    ("study", "expected"),
    [
        (normed(BROKEN), "supported"),
        (normed(BROKEN | {("none", True): 0.0}), "contradicted"),  # normalised inputs break nothing
        (normed(BROKEN | {("none", False): 0.2}), "contradicted"),  # raw ones are broken too
        (normed(BROKEN | {("batch", True): 0.2}), "contradicted"),  # it is not restored
        (normed(BROKEN | {("batch", True): 0.03}, spread=0.03), "undecided"),
        (normed(BROKEN, trained=False), "premise not met"),
    ],
)
def test_r7_can_fail_in_each_of_its_parts(study, expected):
    assert outcome_of(BY_ID["R7"], study) == expected
    assert sum(one.side is not None for one in found_in("R7", study).values()) == 6


def spawned(
    of_basin: float, of_accuracy: float = 0.0, noise: float = 0.0, apart: float = 0.3, together: float = 0.0
) -> Study:
    """Members that separate at 0 and 1; the latter are more accurate."""
    rng = np.random.default_rng(3)

    def make(spec: GroupSpec) -> PairResult:
        late = spec.train.spawn_epoch == 1
        result = ok_pair(spec, together if late else apart)
        accuracy = 0.5 + 0.01 * spec.replicate + (0.02 + 0.003 * spec.replicate**2) * late
        common = of_basin * late + of_accuracy * accuracy + 0.1 * spec.replicate + rng.normal(0, noise)
        result.row.update({f"test_accuracy_{member}": accuracy for member in "ab"})
        result.row.update(
            {
                "error_overlap_ratio": 1 + 2 * common,
                "same_error": common,
                "disagreement": 0.5 - common,
                "ensemble_gain_accuracy": 0.3 - 0.1 * common,
                "ensemble_accuracy": accuracy,
            }
        )
        return result

    return study_of([make(spec_of(k, L3, spawn_epoch=epoch)) for epoch in (0, 1) for k in range(8)])


@pytest.mark.parametrize("claim", ["R6", "R8"])
@pytest.mark.parametrize(
    ("study", "expected"),
    [
        (spawned(0.05, of_accuracy=3.0, noise=0.001), "supported"),
        (spawned(-0.05, of_accuracy=3.0, noise=0.001), "contradicted"),  # though accuracy hides it
        (spawned(0.0, of_accuracy=3.0, noise=0.001), "undecided"),  # that is accuracy alone
        (spawned(0.05, noise=0.2), "undecided"),
        (spawned(0.05, apart=0.0), "premise not met"),
        (spawned(0.05, together=0.3), "premise not met"),
    ],
)
def test_r6_and_r8_are_read_at_equal_accuracy(claim, study, expected):
    assert outcome_of(BY_ID[claim], study) == expected


def test_r6_reads_what_is_left_at_equal_accuracy():
    found = found_in("R6", spawned(0.05, of_accuracy=3.0))
    name = "same wrong label, as a share of all errors: separated at 1 minus at 0"
    gained = 0.02 + 0.003 * np.arange(8) ** 2
    np.testing.assert_allclose(found[name].values, 0.05 + 3 * gained)
    np.testing.assert_allclose(found[f"{name}, at equal accuracy"].values, 0.05, atol=1e-9)
    np.testing.assert_allclose(found["members' test accuracy: separated at 1 minus at 0"].values, gained)
    assert [one.what for one in found.values() if one.side] == [one for one in found if one.endswith("equal accuracy")]


def test_intervals_of_pseudo_values_cover_the_intercept():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(500):
        x = rng.normal(1.0, 0.7, 30)
        y = 0.3 + 2 * x + rng.normal(0, 1, 30)
        low, high = Expectation(what="", values=pseudo_values(y, x), unit="fraction").interval(0.95)
        covered.append(low < 0.3 < high)
    assert 0.92 < np.mean(covered) < 0.98


def test_pseudo_values_are_those_of_the_line():
    x = np.array([0.1, 0.4, 0.2, 0.9, 0.5])
    np.testing.assert_allclose(pseudo_values(0.3 + 2 * x, x), 0.3)
    y = np.array([1.0, 0.2, 0.7, 0.4, 0.9])
    np.testing.assert_allclose(pseudo_values(y + 5 * x, x), pseudo_values(y, x))
    assert np.isnan(pseudo_values(y, np.full(5, 0.1))).all()
    assert np.isnan(pseudo_values(y[:3], x[:3])).all()
