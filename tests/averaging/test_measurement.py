"""Two checkpoints, from weights to answer, with real networks."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import softmax
from torch import nn
from torch.nn import functional

import lmc_tune
from lmc_tune.averaging.paths import Condition
from lmc_tune.core.calibration import calibration
from lmc_tune.errors import UserError
from lmc_tune.experiment import VitSpec
from lmc_tune.measurement.lines import MeasurementError
from lmc_tune.models.registry import build_model
from tests.averaging.cases import digits, network, permuted_copy, train, trained


def measure(*states, norm: bool = True, **more):
    data = digits()
    return lmc_tune.measure(network(norm=norm), states, data.test, **({"train": data.train} | more))


def error_of(state, *, norm: bool = True) -> float:
    model, test = network(norm=norm), digits().test
    model.load_state_dict(state)
    with torch.no_grad():
        return float(model.eval()(test.inputs).argmax(1).ne(test.labels).double().mean())


def test_branches_of_one_run_are_averaged():
    found = measure(trained(0, 1), trained(0, 2))
    assert (found.answer.kind, found.verdict, found.answer.exit_code) == ("average", "connected", 0)
    assert found.table["condition"].tolist() == ["naive", "recalibrated"]
    assert found.basins == (("A", "B"),)
    state = found.average()
    for name, entry in trained(0, 1).items():
        if entry.is_floating_point():
            torch.testing.assert_close(state[name], torch.lerp(entry, trained(0, 2)[name], 0.5))
    assert found.table["average_test_error"][0] == pytest.approx(error_of(state), abs=1e-12)


def test_a_permuted_copy_is_found_and_the_whole_barrier_is_a_permutation():
    state = trained(0, 1, norm=False)
    found = measure(state, permuted_copy(state, 3), norm=False)
    assert error_of(permuted_copy(state, 3), norm=False) == error_of(state, norm=False)
    assert (found.answer.kind, found.answer.condition) == ("align", Condition("weights"))
    aligned = found.findings.path(Condition("weights"))
    assert aligned.judged["test"].barrier == pytest.approx(0, abs=1e-12)
    assert found.findings.alignments[0].distance == pytest.approx(0, abs=1e-5)
    assert any("removes 100% of the barrier" in reason for reason in found.reasons)
    assert found.answer.in_short == "B is A with its hidden units in another order: there is nothing to average."


def test_different_starts_are_disconnected_and_alignment_wins():
    found = measure(trained(0, 1, norm=False), trained(1, 1, norm=False), norm=False)
    assert found.basins == (("A",), ("B",))
    rows = found.table.set_index("condition")
    assert rows.loc["naive", "test_verdict"] == "disconnected"
    assert rows.loc["aligned by weights", "test_barrier"] < 0.5 * rows.loc["naive", "test_barrier"]


def test_identical_weights_need_nothing():
    found = measure(trained(0, 1), trained(0, 1))
    assert found.reasons[0].startswith("identical files")
    assert found.table["condition"].tolist() == ["naive"]
    assert found.findings.cosine == pytest.approx(1)
    assert found.findings.disagreement == 0


def test_untrained_networks_are_not_judged():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        states = [network().state_dict() for _ in range(2)]
    found = measure(*states)
    assert (found.verdict, found.answer.exit_code) == ("undertrained", 4)
    assert found.table["condition"].tolist() == ["naive", "recalibrated"]  # alignment would change nothing
    assert found.basins == (("A",), ("B",))


@pytest.mark.parametrize(
    "condition",
    [
        Condition(),
        Condition(None, "recalibrated"),
        Condition("weights", "recalibrated"),
        Condition("weights", "repaired"),
        Condition("activations", "repaired"),
    ],
    ids=lambda condition: condition.label,
)
def test_the_saved_average_is_the_one_that_was_measured(condition, tmp_path):
    """Repaired ones too: what REPAIR does to a layer's outputs is in its weight and bias."""
    found = measure(trained(0, 1), trained(1, 1), conditions=[condition], threshold=0.9)
    kept = found.average() if condition == Condition() else found._pair.average(condition)
    assert kept.keys() == network().state_dict().keys()
    value = found.findings.path(condition).average.means["test", "error"]
    assert error_of(kept) == pytest.approx(value, abs=1.5 / len(digits().test))


def test_an_average_is_saved_where_the_answer_is_yes(tmp_path):
    found = measure(trained(0, 1), trained(0, 2))
    found.save(tmp_path / "new" / "average.safetensors")
    kept = load_file(tmp_path / "new" / "average.safetensors")
    assert all(torch.equal(entry, kept[name]) for name, entry in found.average().items())


def test_an_average_is_refused_where_the_answer_is_no(tmp_path):
    found = measure(trained(0, 1, norm=False), trained(1, 1, norm=False), norm=False, conditions=[Condition()])
    assert found.answer.kind == "neither"
    with pytest.raises(
        UserError, match=r"was not written: No: there is a barrier .* With force, the average is written anyway"
    ):
        found.save(tmp_path / "average.safetensors")
    with pytest.raises(UserError, match=r"end its name in \.safetensors"):
        found.save(tmp_path / "average.pt", force=True)
    assert not list(tmp_path.iterdir())
    found.save(tmp_path / "average.safetensors", force=True)
    assert load_file(tmp_path / "average.safetensors").keys() == network(norm=False).state_dict().keys()


def test_qualities_are_those_of_the_networks():
    found = measure(trained(0, 1), trained(0, 2)).findings
    assert found.members[0].quality.means["test", "error"] == pytest.approx(error_of(trained(0, 1)))
    distances = [
        (trained(0, 1)[name] - trained(0, 2)[name]).double().square().sum() for name, _ in network().named_parameters()
    ]
    assert found.distance == pytest.approx(float(sum(distances)) ** 0.5)
    assert found.path(Condition()).to_mean.mean == pytest.approx(
        found.path(Condition()).average.means["test", "error"] - (error_of(trained(0, 1)) + error_of(trained(0, 2))) / 2
    )


def test_comparisons_of_the_members_are_those_of_their_outputs():
    states, data = (trained(0, 1), trained(1, 1)), digits().test
    found = measure(*states).findings
    logits = []
    for state in states:
        model = network()
        model.load_state_dict(state)
        with torch.no_grad():
            logits.append(model.eval()(data.inputs).double().numpy())
    labels = data.labels.numpy()
    assert found.disagreement == pytest.approx((logits[0].argmax(1) != logits[1].argmax(1)).mean())
    assert found.disagreement > 0
    together = np.log(sum(softmax(one, axis=1) for one in logits) / 2)
    wrong = together.argmax(1) != labels
    assert found.ensemble.means["test", "error"] == pytest.approx(wrong.mean())
    assert found.ensemble.means["test", "loss"] == pytest.approx(-together[np.arange(len(labels)), labels].mean())
    better = min((one.argmax(1) != labels for one in logits), key=np.mean)
    assert found.ensemble_to_better.mean == pytest.approx(wrong.mean() - better.mean())
    for member, one in zip(found.members, logits, strict=True):
        known = calibration(one, labels)
        assert (member.quality.ece, member.quality.brier) == pytest.approx((known.ece, known.brier))
    average = found.paths[0].average.means["test", "error"]
    assert found.paths[0].to_better.mean == pytest.approx(average - better.mean())
    mean = np.mean([one.argmax(1) == labels for one in logits])
    assert found.paths[0].merge_gain == pytest.approx(100 * (1 - average - mean))
    assert found.paths[0].retention == pytest.approx((1 - average) / mean)
    flat = [torch.cat([state[name].flatten() for name, _ in network().named_parameters()]).double() for state in states]
    assert found.cosine == pytest.approx(float(flat[0] @ flat[1] / flat[0].norm() / flat[1].norm()))


def test_members_that_lost_their_statistics_are_recalibrated_and_not_called_untrained():
    lost = []
    for branch in (1, 2):
        state = {name: entry.clone() for name, entry in trained(0, branch).items()}
        state["2.running_mean"].fill_(30.0)
        lost.append(state)
    found = measure(*lost)
    assert (found.answer.kind, found.answer.condition) == ("recalibrate", Condition(None, "recalibrated"))
    assert found.findings.members[0].learned is False
    assert found.reasons[0].startswith("the statistics are stale")


def test_the_same_weights_with_other_statistics_are_not_identical():
    other = {name: entry.clone() for name, entry in trained(0, 1).items()}
    other["2.running_mean"] += 10
    found = measure(trained(0, 1), other)
    assert not found.findings.identical
    assert found.findings.distance == 0
    assert found.answer.condition == Condition(None, "recalibrated")


def test_conditions_are_recommended_in_their_order_whatever_was_asked_first():
    found = measure(trained(0, 1), trained(0, 2), conditions=[Condition("weights"), Condition(None, "recalibrated")])
    assert found.table["condition"].tolist() == ["naive", "recalibrated", "aligned by weights"]


def test_the_residual_stream_of_a_transformer_stays_unless_it_is_asked_for():
    spec = VitSpec(patch=4, depth=1, heads=2, dim=8, mlp_dim=12)
    networks = [build_model(spec, (1, 8, 8), 10, seed) for seed in (0, 1)]
    data, units = digits(), {}
    for residual in ("fixed", "free"):
        found = lmc_tune.measure(
            networks[0], [one.state_dict() for one in networks], data.test, align="weights", residual=residual
        )
        units[residual] = found.findings.alignments[0].units
    assert units["free"] == units["fixed"] + spec.dim


def test_without_batchnorm_there_is_nothing_to_recalibrate():
    states = trained(0, 1, norm=False), trained(0, 2, norm=False)
    found = measure(*states, norm=False, conditions=["recalibrated", "endpoint"])
    assert found.table["condition"].tolist() == ["naive"]
    assert "recalibrated was left out: there is no BatchNorm" in found.findings.notes


def test_a_failing_alignment_is_a_note_unless_it_was_asked_for(monkeypatch):
    def fail(*_, **__):
        raise MeasurementError("relu differs")

    monkeypatch.setattr("lmc_tune.averaging.pair.align", fail)
    states = trained(0, 1, norm=False), trained(1, 1, norm=False)
    found = measure(*states, norm=False)
    assert found.table["condition"].tolist() == ["naive"]
    assert "aligned by weights was left out: relu differs" in found.findings.notes
    with pytest.raises(UserError, match="relu differs"):
        measure(*states, norm=False, align="weights")


@pytest.mark.parametrize("shared", [False, True])
def test_a_repaired_average_of_a_convolutional_network_is_the_one_that_was_measured(shared):
    def build() -> nn.Module:
        first, second = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        third = nn.Conv2d(6, 6, 3, padding=1)
        if shared:
            third.weight = second.weight
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third, nn.ReLU(), nn.Flatten(), nn.Linear(384, 10))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        states = [train(build(), seed, 2).state_dict() for seed in (1, 2)]
    condition, data = Condition(None, "repaired"), digits()
    found = lmc_tune.measure(build(), states, data.test, train=data.train, conditions=[condition])
    if shared:
        with pytest.raises(UserError, match="2 shares its weight; save another condition"):
            found._pair.average(condition)
        return
    model = build()
    model.load_state_dict(found._pair.average(condition))
    with torch.no_grad():
        loss = functional.cross_entropy(model.eval()(data.test.inputs), data.test.labels)
    assert float(loss) == pytest.approx(found.findings.path(condition).average.means["test", "loss"], abs=1e-5)


def test_a_loss_of_the_users_own_is_judged():
    def focal(model, batch):
        return functional.cross_entropy(model(batch[0]), batch[1], reduction="none") ** 2

    found = measure(trained(0, 1), trained(0, 2), loss=focal)
    assert found.findings.judging.quantity == "loss"
    assert found.findings.metric == "focal"
    assert found.findings.ensemble is None
    mean = sum(member.quality.means["test", "loss"] for member in found.findings.members) / 2
    assert found.findings.judging.threshold == pytest.approx(0.05 * mean)


def test_squared_errors_of_linear_regressions_have_no_barrier():
    """The loss is a convex parabola along the path, whatever the two are."""
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(100, 5, generator=generator), torch.randn(100, generator=generator)
    states = [{"weight": torch.randn(1, 5, generator=generator), "bias": torch.zeros(1)} for _ in range(2)]
    found = lmc_tune.measure(nn.Linear(5, 1), states, (inputs, targets), loss="mse")
    assert found.findings.paths[0].judged["test"].barrier == 0


def test_without_training_data_the_answer_says_what_it_cannot_see():
    found = measure(trained(0, 1), trained(0, 2), train=None)
    assert found.findings.notes == (
        "without training data: two overfitted networks may look connected on test data alone",
        "without training data: statistics were estimated on the inputs of the test examples",
    )


def test_the_model_and_the_states_stay_as_they_are():
    model, states = network(), [dict(trained(0, 1)), dict(trained(1, 1))]
    model.train()
    before = [{name: entry.clone() for name, entry in state.items()} for state in (model.state_dict(), *states)]
    lmc_tune.measure(model, states, digits().test)
    for state, old in zip((model.state_dict(), *states), before, strict=True):
        assert all(torch.equal(entry, old[name]) for name, entry in state.items())
    assert model.training


def test_plain_values_are_json_and_their_names_stable():
    plain = json.loads(measure(trained(0, 1), trained(0, 2)).to_json())
    assert set(plain) == {
        *("schema", "answer", "exit_code", "verdict", "condition", "in_short", "reasons", "notes", "metric", "unit"),
        *("judging", "members", "conditions", "ensemble", "ensemble_to_better", "alignments", "identical", "distance"),
        *("cosine", "disagreement", "layers", "directions", "planes"),
    }
    assert set(plain["conditions"][0]) == {
        *("condition", "alignment", "statistics", "lambdas", "test", "train", "average", "to_mean", "to_better"),
        *("merge_gain", "retention"),
    }
    assert set(plain["conditions"][0]["test"]) == {
        *("verdict", "barrier", "low", "high", "n", "curves", "barriers", "band"),
    }
    assert plain["judging"] == {
        "quantity": "error",
        "threshold": 0.02,
        "confidence": 0.95,
        "relative": False,
        "barrier": "chord",
        "n": 360,
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lambdas": 4}, "odd number of positions"),
        ({"loss": "mae"}, "there is no loss 'mae'"),
        ({"confidence": 1.0}, "confidence must be between 0 and 1"),
        ({"threshold": 0.0}, "threshold must be above 0"),
        ({"conditions": []}, "name a condition"),
    ],
)
def test_impossible_wishes_are_refused(change, said):
    with pytest.raises(UserError, match=said):
        measure(trained(0, 1), trained(0, 2), **change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"align": "weight"}, "align by weights or activations, not 'weight'"),
        ({"conditions": ["repair"]}, "no condition 'repair'; did you mean repaired"),
        ({"loss": "mae"}, "there is no loss 'mae'"),
        ({"threshold": 2}, "so write 0.02 for 2%"),
    ],
)
def test_misspelt_wishes_are_answered_in_a_sentence(change, said):
    with pytest.raises(UserError, match=said):
        measure(trained(0, 1), trained(0, 2), **change)


def test_conditions_can_be_named_and_states_can_be_networks():
    networks = [network() for _ in range(2)]
    for branch, one in enumerate(networks, start=1):
        one.load_state_dict(trained(0, branch))
    found = measure(*networks, conditions=["recalibrated", "aligned + recalibrated"], align="activations")
    labels = ["naive", "recalibrated", "aligned by activations + recalibrated"]
    assert found.table["condition"].tolist() == labels
    with pytest.raises(UserError, match=r"data are batches, or a pair of tensors, not 'digits'"):
        lmc_tune.measure(networks[0], networks, "digits")
    with pytest.raises(UserError, match=r"give a network as model, a torch\.nn\.Module, not function"):
        lmc_tune.measure(network, networks, digits().test)


def test_one_network_that_has_not_learned_is_named():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = network().state_dict()
    found = measure(trained(0, 1), fresh)
    assert found.answer.in_short == "No: B does no better than naming the most frequent class; keep A."


def test_states_of_other_networks_are_refused_by_their_first_entry():
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 16)).state_dict()
    with pytest.raises(UserError, match=r"B is of another architecture: '1\.weight' is 16×64 there"):
        measure(trained(0, 1), other)
    with pytest.raises(UserError, match="give two checkpoints at least, got 1"):
        measure(trained(0, 1))


def test_half_precision_is_measured_in_that_of_the_network():
    halves = [
        {name: entry.half() if entry.is_floating_point() else entry for name, entry in trained(0, k).items()}
        for k in (1, 2)
    ]
    found = measure(*halves)
    assert found.answer.kind == "average"


def test_a_notebook_shows_the_answer_and_print_the_table():
    found = measure(trained(0, 1), trained(0, 2))
    assert found.answer.in_short in found._repr_html_()
    assert repr(found) == found.text()
    assert "naive" in repr(found)
    assert max(map(len, found.text(80).splitlines())) <= 100
