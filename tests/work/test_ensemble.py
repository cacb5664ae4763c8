"""Ensembles as a unit of work: their members, their averages, and laws that hold for all families."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from lmc_tune.core.ensembles import dirichlet_weights
from lmc_tune.data.datasets import load_dataset
from lmc_tune.experiment import FAMILIES, EnsembleMeasureSpec, MeasureSpec
from lmc_tune.experiment.reading import read_space
from lmc_tune.measurement.ensembles.measure import measure_ensemble
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.network import Network
from lmc_tune.models.registry import build_model
from lmc_tune.models.state import state_of
from lmc_tune.tables.columns import OF_ENSEMBLES, names
from lmc_tune.tables.store import Store
from lmc_tune.training.task import Task
from lmc_tune.work import members as shelves
from lmc_tune.work.cohort import run_cohort, run_pair
from lmc_tune.work.ensemble import trained_steps
from tests.cases import cohort, ensemble_spec, pair_spec, timeless

ASKED = MeasureSpec(lambdas=5, refinements=1, ensemble=EnsembleMeasureSpec(draws=20))
HELD_OUT = {"train": 400, "test": 100, "validation": 60}


@pytest.fixture
def asking(bench):
    return lambda **changes: bench(**{"measure": ASKED} | changes)


@pytest.fixture
def trained(monkeypatch) -> list[tuple[str, int]]:
    """Noise and epoch of everything that is trained."""
    found: list[tuple[str, int]] = []
    real = Task.feed

    def feed(task, epoch, n_steps):
        found.append((task.noise_seed, epoch))
        return real(task, epoch, n_steps)

    monkeypatch.setattr(Task, "feed", feed)
    return found


def logits_by_hand(spec, bench, states):
    """(members, n, classes) on the test set, and its labels, in plain PyTorch."""
    data = load_dataset(spec.dataset, bench.data_root)
    model = build_model(spec.model, tuple(data.train.inputs.shape[1:]), 10, seed=0).eval()
    found = []
    for state in states:
        model.load_state_dict(state)
        with torch.no_grad():
            found.append(model(data.test.inputs).double().numpy())
    return np.stack(found), data.test.labels.numpy()


def kept_states(spec, bench):
    from safetensors.torch import load_file

    return [load_file(bench.members / f"{member.key}.safetensors") for member in spec.members.values()]


def test_an_ensemble_is_what_a_slow_loop_makes_of_its_members(asking, tmp_path):
    bench = asking(members=tmp_path)
    spec = ensemble_spec("constrained")
    result = run_pair(spec, bench)
    states = kept_states(spec, bench)
    logits, labels = logits_by_hand(spec, bench, states)
    p = softmax(logits, axis=2)
    row = result.row
    assert row["status"] == "ok"
    assert row["ensemble_accuracy"] == np.mean(p.mean(axis=0).argmax(axis=1) == labels)
    assert row["ensemble_nll"] == pytest.approx(-np.log(p.mean(axis=0)[np.arange(100), labels]).mean())
    accuracies = (logits.argmax(axis=2) == labels).mean(axis=1)
    assert row["member_accuracy"] == pytest.approx(accuracies.mean())
    assert [member["accuracy"] for member in result.tables["ensemble_members"]] == accuracies.tolist()
    assert row["disagreement"] == pytest.approx(
        np.mean([np.mean(a.argmax(1) != b.argmax(1)) for a, b in combinations(logits, 2)])
    )
    for size in result.tables["ensembles"]:
        expected = [
            np.mean(p[list(subset)].mean(axis=0).argmax(axis=1) == labels)
            for subset in combinations(range(3), size["members"])
        ]
        assert size["accuracy"] == pytest.approx(np.mean(expected))


def test_connectivity_is_that_of_a_slow_loop(asking, tmp_path):
    bench = asking(members=tmp_path)
    spec = ensemble_spec("deep")
    result = run_pair(spec, bench)
    states = kept_states(spec, bench)
    logits, labels = logits_by_hand(spec, bench, states)
    accuracies = (logits.argmax(axis=2) == labels).mean(axis=1)
    q = []
    for weights in dirichlet_weights(3, 20):
        mixed = {name: sum(w * s[name].double() for w, s in zip(weights, states, strict=True)) for name in states[0]}
        average, _ = logits_by_hand(spec, bench, [{name: entry.float() for name, entry in mixed.items()}])
        q.append(100 * ((average[0].argmax(1) == labels).mean() - weights @ accuracies))
    assert result.row["connectivity"] == pytest.approx(np.mean(q), abs=1e-9)
    assert result.row["lowest_connectivity"] == pytest.approx(min(q), abs=1e-9)
    draws = [row for row in result.tables["averages"] if row["what"] == "draw"]
    assert len(draws) == 20
    assert [100 * (r["correct"] / r["n"] - r["expected_accuracy"]) for r in draws] == pytest.approx(q)


def test_two_constrained_members_measure_as_the_pair_does(asking):
    """Bit for bit: they are the same members, on the same path."""
    shift = {"kind": "covariate"}
    ensemble = run_pair(ensemble_spec("constrained", members=2, shift=shift), asking())
    train = {"lr": 0.03, "epochs": 6, "noise": "varied", "spawn_epoch": 2}
    pair = run_pair(pair_spec(train=train, shift=shift), asking())
    (of_ensemble,), (of_pair,) = ensemble.tables["barriers"], pair.tables["barriers"]
    assert of_ensemble == of_pair
    assert [row["accuracy"] for row in ensemble.tables["ensemble_members"]] == [
        pair.row["test_accuracy_a"],
        pair.row["test_accuracy_b"],
    ]
    for name in ("ensemble_accuracy", "ensemble_nll", "average_accuracy", "disagreement", "jensen_shannon", "kappa"):
        assert ensemble.row[name] == pair.row[name], name


def test_the_barrier_of_a_group_is_the_largest_of_its_pairs(asking):
    result = run_pair(ensemble_spec("deep"), asking())
    (barriers,) = result.tables["barriers"]
    points = [row for row in result.tables["averages"] if row["what"] == "pair" and row["split"] == "test"]
    heights = {}
    for row in points:
        excess = (row["n"] - row["correct"]) / row["n"] - (1 - row["expected_accuracy"])
        heights[row["members"]] = max(heights.get(row["members"], 0.0), excess)
    assert set(heights) == {"1 2", "1 3", "2 3"}
    assert barriers["test_error_barrier_chord"] == pytest.approx(max(heights.values()))
    assert result.row["measured_pairs"] == 3


def test_equal_members_have_no_barrier_and_gain_nothing(asking, digits):
    spec = ensemble_spec("deep")
    data = load_dataset(spec.dataset, asking().data_root)
    model = build_model(spec.model, tuple(data.train.inputs.shape[1:]), 10, seed=0)
    state = state_of(model)
    members = Members(
        network=Network(model),
        states={f"member {n}": state for n in (1, 2, 3)},
        data={"train": data.train, "test": data.test},
        statistics=data.train,
    )
    found = measure_ensemble(members, ASKED.of(spec.model))
    columns = found.columns
    assert columns["connectivity"] == pytest.approx(0, abs=1e-12)
    assert columns["loss_connectivity"] == pytest.approx(0, abs=1e-6)
    for name in ("ensemble_gain_accuracy", "average_gain_accuracy", "disagreement", "jensen_shannon"):
        assert columns[name] == pytest.approx(0, abs=1e-12), name
    assert columns["cka"] == pytest.approx(1)
    assert found.tables["barriers"][0]["test_error_barrier_chord"] == 0


@pytest.mark.parametrize("family", ["permuted", "multi_pcd"])
def test_permuting_members_changes_no_prediction_and_brings_them_together(family, asking):
    deep, moved = (run_pair(ensemble_spec(name, model={"hidden": (16,)}), asking()) for name in ("deep", family))
    for name in ("ensemble_accuracy", "member_accuracy", "disagreement"):
        assert moved.row[name] == deep.row[name]
    for name in ("ensemble_nll", "jensen_shannon"):
        assert moved.row[name] == pytest.approx(deep.row[name], rel=1e-5)
    assert abs(moved.row["connectivity"]) < abs(deep.row["connectivity"])
    assert moved.row["member_accuracy"] > 0.7, "members that learned nothing would be connected"


def test_members_of_one_basin_are_connected_and_deep_ones_are_not(asking):
    model = {"hidden": (32, 32)}
    found = {
        family: run_pair(ensemble_spec(family, model=model, train={"epochs": 12, "lr": 0.1}, **own), asking()).row[
            "connectivity"
        ]
        for family, own in (("deep", {}), ("constrained", {"t": 6}), ("swe", {}))
    }
    assert found["deep"] < -10
    assert found["constrained"] > found["deep"] / 4
    assert found["swe"] > found["deep"] / 4


def test_every_family_is_the_same_again(asking):
    for family in FAMILIES:
        spec = ensemble_spec(family, dataset=HELD_OUT)
        one, again = run_pair(spec, asking()), run_pair(spec, asking())
        assert timeless([one]) == timeless([again]), family
        assert one.row["status"] in {"ok", "undertrained"}
        assert math.isfinite(one.row["scaled_nll"])


def test_an_ok_ensemble_fills_every_column_of_ensembles(asking):
    result = run_pair(ensemble_spec("constrained", dataset=HELD_OUT), asking())
    assert result.status == "ok"
    assert not {name for name in names(OF_ENSEMBLES) if result.row.get(name) is None}


def test_training_steps_are_those_that_were_taken(asking, monkeypatch):
    taken = []
    real = Task.feed

    def feed(task, epoch, n_steps):
        taken.append(n_steps)
        return real(task, epoch, n_steps)

    monkeypatch.setattr(Task, "feed", feed)
    for family in FAMILIES:
        taken.clear()
        spec = ensemble_spec(family)
        result = run_pair(spec, asking())
        assert sum(taken) == result.row["training_steps"] == trained_steps(spec), family


def test_members_that_families_share_are_trained_once(asking, trained):
    families = ("deep", "permuted", "constrained", "distilled")
    groups = [ensemble_spec(family) for family in families]
    results = run_cohort(cohort(*groups), asking())
    assert [result.status for result in results] == ["ok"] * 4
    # Three deep ones of 6 epochs; a trunk of 2 epochs; three branches of 4, three students of 4.
    assert len(trained) == 3 * 6 + 2 + 3 * 4 + 3 * 4


def test_an_interrupted_ensemble_trains_no_finished_member_again(asking, monkeypatch, trained):
    spec, bench = ensemble_spec("distilled"), asking(checkpoint_seconds=0)
    whole = timeless([run_pair(spec, asking())])
    straight = len(trained)
    trained.clear()
    real, left = shelves.train, [4]  # the trunk, then teachers, then students: one call each

    def interrupted(tasks, engine):
        done = []
        for task in tasks:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            done += real([task], engine)
        return done

    with monkeypatch.context() as patched:
        patched.setattr(shelves, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_pair(spec, bench)
    assert timeless([run_pair(spec, bench)]) == whole
    assert len(trained) == straight


def test_an_answered_ensemble_is_not_run_again(asking, trained):
    bench = asking()
    group = cohort(ensemble_spec("constrained"))
    first = run_cohort(group, bench)
    trained.clear()
    assert timeless(run_cohort(group, bench)) == timeless(first)
    assert trained == []
    assert Store(bench.store.folder).table("ensembles")["members"].tolist() == [1, 2, 3]


def test_the_greedy_soup_takes_who_does_not_make_it_worse(asking, tmp_path):
    bench = asking(members=tmp_path)
    spec = ensemble_spec("deep", dataset=HELD_OUT)
    result = run_pair(spec, bench)
    data = load_dataset(spec.dataset, bench.data_root)
    model = build_model(spec.model, tuple(data.train.inputs.shape[1:]), 10, seed=0).eval()
    states = kept_states(spec, bench)

    def accuracy(members, examples):
        mean = {name: sum(states[at][name].double() for at in members) / len(members) for name in states[0]}
        model.load_state_dict({name: entry.float() for name, entry in mean.items()})
        with torch.no_grad():
            return float((model(examples.inputs).argmax(1) == examples.labels).double().mean())

    order = sorted(range(3), key=lambda at: -accuracy([at], data.validation))
    kept = order[:1]
    for at in order[1:]:
        if accuracy([*kept, at], data.validation) >= accuracy(kept, data.validation):
            kept.append(at)
    assert result.row["greedy_members"] == len(kept)
    assert result.row["greedy_accuracy"] == pytest.approx(accuracy(kept, data.test))
    (soup,) = [row for row in result.tables["averages"] if row["what"] == "soup"]
    assert soup["members"] == " ".join(str(at + 1) for at in sorted(kept))


def test_dropout_makes_members_of_one_network(asking):
    result = run_pair(ensemble_spec("mc_dropout", members=4), asking())
    assert len(result.tables["ensemble_members"]) == 4
    assert [size["members"] for size in result.tables["ensembles"]] == [1, 2, 3, 4]
    assert result.row["disagreement"] > 0, "every pass drops others"
    assert "connectivity" not in result.columns, "there is one network, and nothing to average"
    assert result.tables["averages"] == []


def test_a_member_that_diverges_ends_the_ensemble(asking):
    result = run_pair(ensemble_spec("deep", train={"lr": 1e6}), asking())
    assert result.status == "diverged"
    assert result.row["reason"].startswith("member 1: ")


def test_members_that_learned_nothing_leave_an_ensemble_undertrained(asking):
    result = run_pair(ensemble_spec("deep", train={"lr": 1e-6}), asking())
    assert result.status == "undertrained"
    assert "a member reached" in result.row["reason"]


def test_batch_norm_is_recalibrated_on_averages_and_members_alike(asking):
    spec = ensemble_spec("deep", model={"norm": "batch", "hidden": (16,)})
    result = run_pair(spec, asking())
    conditions = {row["condition"] for row in result.tables["averages"]}
    assert conditions == {"naive", "recalibrated"}
    draws = [r for r in result.tables["averages"] if r["what"] == "draw" and r["condition"] == "recalibrated"]
    q = np.mean([100 * (r["correct"] / r["n"] - r["expected_accuracy"]) for r in draws])
    assert result.row["connectivity"] == pytest.approx(q)
    assert [row["condition"] for row in result.tables["barriers"]] == ["naive", "recalibrated"]


@pytest.mark.parametrize(
    "shift",
    [
        {"kind": "covariate"},
        {"kind": "label", "severity": 0.6},
        {"kind": "domain", "domain": "gaussian_noise"},
    ],
    ids=lambda shift: shift["kind"],
)
def test_members_of_shifted_parts_take_turns(shift, asking):
    result = run_pair(ensemble_spec("constrained", shift=shift), asking())
    assert result.status == "ok"
    assert result.row["n_train"] == 200
    assert math.isfinite(result.row["connectivity"])
    assert (result.row["label_shift"] > 0.1) == (shift["kind"] == "label")


def test_ensembles_of_language_models(asking, tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("the cat sat on the mat, and the dog sat on the log.\n" * 400)
    space = read_space(
        {
            "name": "texts",
            "dataset": {"name": "text", "path": str(path), "context": 16, "train": 60, "test": 20},
            "model": {"name": "gpt", "depth": 1, "heads": 2, "dim": 8},
            "train": {"optimizer": "adam", "batch_size": 10, "epochs": 4},
            "recipe": {"members": 2, "t": 1},
            "axes": {"recipe": ["constrained", "distilled"], "lr": [0.01]},
            "measure": {"lambdas": 3, "refinements": 0, "ensemble": {"draws": 5}},
            "verdict": {"min_train_accuracy": 0.1},
        }
    )
    for cell in space.cells():
        result = run_pair(cell.first, asking(measure=space.measure, min_train_accuracy=0.1))
        assert result.status == "ok"
        assert 0 < result.row["ensemble_nll"] < math.log(30)
        assert math.isfinite(result.row["connectivity"])
