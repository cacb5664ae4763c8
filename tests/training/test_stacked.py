"""The stack trains every member as the loop would, whoever stands beside it."""

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch

from lmc_tune.experiment import MlpSpec, TrainSpec
from lmc_tune.models.registry import BUILDERS, build_model
from lmc_tune.models.state import distance
from lmc_tune.training import stacked as stacking
from lmc_tune.training.loop import train_member
from lmc_tune.training.stacked import StackedRun, train_stacked
from tests import cases
from tests.cases import NETWORKS, images
from tests.training.cases import AUGMENTED, RULES, assert_same, member, single, some_of, with_many_labels


def test_no_network_and_no_optimizer_is_missing_from_the_cases():
    assert {spec.name for spec in NETWORKS.values()} == set(BUILDERS)
    assert {rule["optimizer"] for rule in RULES.values()} == set(
        get_args(TrainSpec.model_fields["optimizer"].annotation)
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_stack_trains_every_member_as_the_loop_does(network, rule):
    tasks = [member(network, number, **RULES[rule]) for number in range(3)]
    for stacked, task in zip(train_stacked(tasks), tasks, strict=True):
        assert_same(stacked, train_member(task))


@pytest.mark.parametrize("rule", ["nesterov", "adam"])
@pytest.mark.parametrize("network", ["vgg", "resnet batch", "vit dropout", "gpt none dropout"])
def test_networks_side_by_side_train_as_the_loop_does(network, rule):
    tasks = [member(network, number, **RULES[rule], **AUGMENTED) for number in range(3)]
    for found, task in zip(StackedRun(tasks, "lanes").train(), tasks, strict=True):
        assert_same(found, train_member(task))


@pytest.mark.parametrize("rule", ["nesterov", "adam"])
@pytest.mark.parametrize("network", ["mlp", "vgg", "resnet batch"])
def test_a_stack_learns_several_labels_per_example_as_the_loop_does(network, rule):
    tasks = [with_many_labels(member(network, number, **RULES[rule])) for number in range(3)]
    for stacked, task in zip(train_stacked(tasks), tasks, strict=True):
        assert_same(stacked, train_member(task))


@pytest.mark.parametrize("network", ["mlp", "vgg dropout", "resnet batch", "vit"])
def test_a_stack_augments_every_members_inputs_as_the_loop_does(network):
    tasks = [member(network, number, momentum=0.9, **AUGMENTED) for number in range(3)]
    plain = train_stacked([member(network, 0, momentum=0.9)])[0]
    trained = train_stacked(tasks)
    assert trained[0].curve != plain.curve
    for stacked, task in zip(trained, tasks, strict=True):
        assert_same(stacked, train_member(task))


@pytest.mark.parametrize("network", ["mlp batch", "resnet layer", "vit", "gpt"])
def test_half_precision_is_that_of_the_forward_pass_alone(network):
    """Steps differ from those of full precision by rounding to eight bits, layer after layer; weights stay float32."""
    tasks = [single(member(network, number, steps=3, precision="bfloat16")) for number in range(3)]
    for stacked, task in zip(train_stacked(tasks), tasks, strict=True):
        looped = train_member(task)
        full = train_member(replace(task, spec=task.spec.model_copy(update={"precision": "float32"})))
        names = [name for name, _ in task.model.named_parameters()]
        moved = distance(full.state, task.start, names)
        for half in (looped, stacked):
            assert {name: t.dtype for name, t in half.state.items()} == {n: t.dtype for n, t in task.start.items()}
            assert 0 < distance(half.state, full.state, names) < 0.25 * moved
        assert looped.curve[0].train_loss != full.curve[0].train_loss
        assert looped.curve[0].train_loss == pytest.approx(full.curve[0].train_loss, rel=0.02)


@pytest.mark.parametrize("network", ["mlp batch", "resnet batch", "vit", "gpt"])
def test_neither_the_size_nor_the_order_of_the_stack_matters(network):
    tasks = [member(network, number, momentum=0.9) for number in range(4)]
    together = train_stacked(tasks)
    for alone, beside in zip([train_stacked([task])[0] for task in tasks], together, strict=True):
        assert_same(alone, beside)
    for reversed_, one in zip(train_stacked(tasks[::-1]), together[::-1], strict=True):
        assert_same(reversed_, one)


@pytest.mark.parametrize("network", ["mlp batch", "vgg"])
def test_a_member_that_diverges_ends_as_in_the_loop_and_disturbs_no_other(network):
    tasks = [member(network, 0), member(network, 1, lr=1e200), member(network, 2)]
    first, second, third = train_stacked(tasks)
    assert second.diverged
    assert len(second.curve) < len(first.curve)
    assert not math.isfinite(second.curve[-1].train_loss)
    for trained, task in ((first, tasks[0]), (third, tasks[2])):
        assert_same(trained, train_member(task))
    looped = train_member(tasks[1])
    assert (second.diverged, [p.step for p in second.curve]) == (looped.diverged, [p.step for p in looped.curve])


def test_members_may_differ_in_momentum_and_decay():
    tasks = [
        member("mlp", n, momentum=m, weight_decay=d) for n, (m, d) in enumerate([(0.0, 0.1), (0.5, 0.0), (0.9, 1.0)])
    ]
    for stacked, task in zip(train_stacked(tasks), tasks, strict=True):
        assert_same(stacked, train_member(task))


@pytest.mark.parametrize("rule", ["adam", "adamw"])
def test_members_may_have_taken_different_numbers_of_steps_before_they_parted(rule):
    """As after joint training on shifts of different severity."""
    tasks = []
    for number in range(3):
        joint = train_member(member("mlp", number, steps=8 * (number + 1), **RULES[rule]))
        assert joint.moments["step"] == 8 * (number + 1)
        tasks.append(replace(member("mlp", number, **RULES[rule]), resume=replace(joint, epochs=0, curve=[])))
    for stacked, task in zip(train_stacked(tasks), tasks, strict=True):
        assert_same(stacked, train_member(task))
        assert stacked.moments["step"] == task.resume.moments["step"] + 20


def test_the_networks_own_weights_and_mode_do_not_matter():
    task = member("mlp batch", 1)
    expected = train_stacked([task])[0]
    with torch.no_grad():
        for parameter in task.model.eval().parameters():
            parameter.zero_()
    assert_same(train_stacked([task])[0], expected)


def test_float32_training_repeats_bit_for_bit():
    tasks = [single(member("mlp batch", number)) for number in range(3)]
    one, two = train_stacked(tasks), train_stacked(tasks)
    for first, second in zip(one, two, strict=True):
        assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)
        assert first.curve == second.curve


@pytest.mark.parametrize("rule", ["momentum", "adam"])
@pytest.mark.parametrize(
    ("hidden", "norm", "activation", "batch_size"),
    [((64,), "none", "relu", 16), ((32, 16), "batch", "gelu", 36), ((16, 48, 16), "layer", "tanh", 100)],
)
def test_small_aligned_perceptrons_come_out_bit_for_bit_whoever_stands_beside_them(
    hidden, norm, activation, batch_size, rule
):
    spec = MlpSpec(hidden=hidden, norm=norm, activation=activation)
    whole, test = (images(n, seed=n, shape=(1, 8, 8), classes=10, dtype=torch.float32) for n in (203, 57))
    tasks = []
    for number in range(10):
        model = build_model(spec, (1, 8, 8), 10, seed=number)
        train = TrainSpec(lr=0.01 * (number + 1), batch_size=batch_size, steps=15, **RULES[rule])
        tasks.append(replace(cases.task(model, whole, test, train, number), positions=some_of(203, 200, number)))
    together = train_stacked(tasks)
    for stack in ([3, 4], [9, 2, 7, 0, 5, 4], [8]):
        for at, trained in zip(stack, train_stacked([tasks[at] for at in stack]), strict=True):
            assert all(torch.equal(trained.state[name], found) for name, found in together[at].state.items())
            assert trained.curve == together[at].curve


def test_what_is_probed_is_a_whole_stack_in_training(monkeypatch):
    """Of 40 % of 100 bytes every member takes 10."""
    steps = []

    class Noted(StackedRun):
        def _step(self, feed):
            steps.append((self.stack.size, self.stack.model.training))
            super()._step(feed)

    def bytes_of(work):
        work()
        return 10 * steps[-1][0]

    monkeypatch.setattr(stacking, "StackedRun", Noted)
    assert stacking._at_once([member("mlp dropout", number) for number in range(8)], 100, bytes_of) == 4
    assert steps == [(2, True), (2, True), (6, True)]  # the first one for what stays


def test_members_that_do_not_fit_at_once_come_out_the_same_in_several_stacks(monkeypatch):
    tasks = [member("mlp batch", number) for number in range(5)]
    whole = train_stacked(tasks)
    monkeypatch.setattr(stacking, "_fitted", lambda _: (2, "lanes"))
    for one, other in zip(train_stacked(tasks), whole, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("faster", ["vmap", "lanes"])
def test_convolutions_are_trained_the_way_that_is_faster(faster, monkeypatch):
    monkeypatch.setattr(StackedRun, "seconds", lambda run: 1.0 if run.stack.way == faster else 2.0)
    assert stacking._faster_way([member("resnet batch", number) for number in range(2)]) == faster


def test_perceptrons_are_batched_without_a_try(monkeypatch):
    monkeypatch.setattr(StackedRun, "seconds", lambda _: pytest.fail("tried"))
    assert stacking._faster_way([member("mlp batch", number) for number in range(2)]) == "vmap"
