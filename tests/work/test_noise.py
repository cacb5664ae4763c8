"""What SGD noise is, batch by batch: which labels, which augmentation, which dropout each member is trained on."""

import hashlib
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from lmc_tune.experiment import GroupSpec
from lmc_tune.training.stacked import StackedRun
from lmc_tune.training.task import Task
from lmc_tune.work.bench import Workbench
from lmc_tune.work.cohort import run_cohort, run_pair
from tests.cases import cohort, pair_spec, timeless

ASKED = {"crop": 2, "flip": True, "jitter": 0.2}
DRAWN = {"drop", "down", "right", "mirrored", "brightness", "contrast", "saturation"}
ALIKE = {"labels", "same images", *DRAWN}

# Hashes of one step, by what is hashed.
Step = dict[str, str]


def digest(tensor: Tensor) -> str:
    return hashlib.blake2b(tensor.contiguous().numpy().tobytes(), digest_size=8).hexdigest()


def step_of(task: Task, feed: Mapping[str, Tensor], inputs: Tensor, labels: Tensor) -> Step:
    """What a member is shown, what was drawn for it, and what that would make of images that are always the same."""
    same = torch.linspace(-1, 1, inputs.numel()).view(inputs.shape)
    seen = {"inputs": inputs, "labels": labels, "same images": task.augmented(same, feed)}
    return {name: digest(tensor) for name, tensor in (seen | {name: feed[name] for name in DRAWN}).items()}


def steps_of(spec: GroupSpec, bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Step], list[Step]]:
    """Every step that the members A and B are trained on, as the engine takes it."""
    looped: dict[int, list[Step]] = {}
    stacked: tuple[list[Step], list[Step]] = ([], [])
    of_one, of_all = Task.examples, StackedRun._examples

    def examples(task, feed):
        inputs, labels = of_one(task, feed)
        looped.setdefault(id(task.positions), []).append(step_of(task, feed, inputs, labels))
        return inputs, labels

    def stack_examples(run, feed):
        inputs, labels = of_all(run, feed)
        for member, steps in enumerate(stacked):
            own = {name: entries[member] for name, entries in feed.items()}
            steps.append(step_of(run.tasks[member], own, inputs[member], labels[member]))
        return inputs, labels

    with monkeypatch.context() as spying:
        spying.setattr(Task, "examples", examples)
        spying.setattr(StackedRun, "_examples", stack_examples)
        result = run_pair(spec, bench)
    a, b = looped.values() if spec.train.engine == "loop" else stacked
    assert len(a) == len(b) == result.row["steps"] > 0
    return a, b


@pytest.mark.parametrize("severity", [1.0, 0.5])
@pytest.mark.parametrize("engine", ["loop", "stacked"])
def test_under_fixed_noise_members_see_other_images_of_the_same_labels_augmented_and_dropped_alike(
    bench, monkeypatch, engine, severity
):
    spec = pair_spec(shift={"severity": severity}, train={"engine": engine, **ASKED}, model={"dropout": 0.5})
    a, b = steps_of(spec, bench(), monkeypatch)
    for of_a, of_b in zip(a, b, strict=True):
        assert {name for name in of_a if of_a[name] == of_b[name]} == ALIKE
    for name in ALIKE:
        assert len({step[name] for step in a}) == len(a), f"{name} is drawn anew in every step"


@pytest.mark.parametrize("engine", ["loop", "stacked"])
def test_without_a_shift_they_are_one_member_trained_once(bench, monkeypatch, engine):
    spec = pair_spec(shift={"kind": "none"}, train={"engine": engine, **ASKED}, model={"dropout": 0.5})
    taken = []
    real = {owner: getattr(owner, name) for owner, name in ((Task, "examples"), (StackedRun, "_examples"))}
    for owner, name in ((Task, "examples"), (StackedRun, "_examples")):
        monkeypatch.setattr(owner, name, lambda *given, real=real[owner]: taken.append(1) or real(*given))
    result = run_pair(spec, bench())
    assert spec.members["a"] == spec.members["b"]
    assert len(taken) == result.row["steps"]


@pytest.mark.parametrize("kind", ["covariate", "none"])
@pytest.mark.parametrize("engine", ["loop", "stacked"])
def test_under_varied_noise_nothing_is_alike(bench, monkeypatch, engine, kind):
    train = {"engine": engine, "noise": "varied", **ASKED}
    a, b = steps_of(pair_spec(shift={"kind": kind}, train=train, model={"dropout": 0.5}), bench(), monkeypatch)
    for of_a, of_b in zip(a, b, strict=True):
        assert {name for name in of_a if of_a[name] == of_b[name]} == set()


def test_augmented_networks_with_dropout_train_alike_in_every_cohort(bench):
    train, model = {"crop": 1, "jitter": 0.2, "epochs": 3}, {"hidden": (16,), "dropout": 0.2}
    pairs = [pair_spec(train=train, model=model, replicate=k) for k in range(3)]
    together = run_cohort(cohort(*pairs), bench("together"))
    alone = [run_cohort(cohort(pair), bench("alone"))[0] for pair in pairs]
    assert timeless(together) == timeless(alone)
    plain = run_pair(pair_spec(train={"epochs": 3}, model={"hidden": (16,)}), bench("plain"))
    assert plain.row["test_loss_a"] != together[0].row["test_loss_a"]


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("optimizer", [{"momentum": 0.9}, {"optimizer": "adam", "momentum": 0.0, "lr": 0.01}])
def test_without_a_shift_fixed_noise_gives_one_member_twice(bench, norm, optimizer):
    result = run_pair(pair_spec(shift={"kind": "none"}, train=optimizer, model={"norm": norm}), bench())
    assert result.row["distance"] == 0.0
    assert result.row["disagreement"] == 0.0
    assert result.row["covariate_shift"] == result.row["label_shift"] == 0.0
    assert result.row["test_loss_a"] == result.row["test_loss_b"]
    barriers = {v for k, v in result.row.items() if "_barrier_" in k and not k.endswith("_lambda")}
    assert barriers == {0.0}
    assert {p["n"] for p in result.tables["paths"] if p["split"] == "train"} == {result.row["n_train"]}


def test_without_a_shift_varied_noise_gives_two_members(bench):
    result = run_pair(pair_spec(shift={"kind": "none"}, train={"noise": "varied"}), bench())
    assert result.row["distance"] > 0
    assert result.row["label_shift"] == result.row["covariate_shift"] == 0.0


def test_severity_moves_the_members_apart(bench):
    distances = [
        run_pair(pair_spec(shift={"kind": "covariate", "severity": s}), bench()).row["distance"]
        for s in (0.0, 0.2, 1.0)
    ]
    assert distances[0] == 0.0
    assert distances[0] < distances[1] < distances[2]
