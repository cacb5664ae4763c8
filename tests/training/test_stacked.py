"""The stack trains every member as the loop would, whoever stands beside it."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lmc_tune.core.interpolation import distance
from lmc_tune.data.augment import Augmentation
from lmc_tune.data.datasets import Examples
from lmc_tune.models.registry import build_model
from lmc_tune.specs import MlpSpec, ResnetSpec, TrainSpec, VggSpec, VitSpec
from lmc_tune.training.loop import train_member
from lmc_tune.training.progress import Trained
from lmc_tune.training.stacked import StackedRun, train_stacked
from lmc_tune.training.task import Task

NETWORKS = {
    "mlp": MlpSpec(hidden=(6, 5)),
    "mlp tanh": MlpSpec(hidden=(6,), activation="tanh"),
    "mlp batch": MlpSpec(hidden=(6,), norm="batch"),
    "mlp layer": MlpSpec(hidden=(6,), norm="layer"),
    "vgg": VggSpec(width=1 / 16),
    "vgg batch": VggSpec(width=1 / 16, norm="batch"),
    "vgg group": VggSpec(width=1 / 16, norm="group"),
    "resnet": ResnetSpec(depth=8, width=1 / 4, norm="none"),
    "resnet batch": ResnetSpec(depth=8, width=1 / 4, norm="batch"),
    "resnet layer": ResnetSpec(depth=8, width=1 / 4, norm="layer", shortcut="3x3"),
    "resnet-18 group": ResnetSpec(depth=18, width=1 / 16, norm="group"),
    "vit": VitSpec(patch=16, depth=2, heads=2, dim=8, mlp_dim=12),
    "mlp dropout": MlpSpec(hidden=(6, 5), dropout=0.3),
    "vgg dropout": VggSpec(width=1 / 16, dropout=0.3),
    "vit dropout": VitSpec(patch=16, depth=2, heads=2, dim=8, mlp_dim=12, dropout=0.3),
}
AUGMENTED = {"crop": 4, "flip": True, "jitter": 0.4}
MEAN, STD = torch.full((3, 1, 1), 0.4, dtype=torch.float64), torch.full((3, 1, 1), 0.3, dtype=torch.float64)
RULES = {
    "sgd": {"optimizer": "sgd"},
    "momentum": {"optimizer": "sgd", "momentum": 0.9},
    "nesterov": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw"},
}
GENERATOR = torch.Generator().manual_seed(0)
WHOLE, TEST = (
    Examples(
        inputs=torch.randn(n, 3, 32, 32, generator=GENERATOR, dtype=torch.float64),
        labels=torch.randint(4, (n,), generator=GENERATOR),
    )
    for n in (50, 9)
)


def member(network: str, number: int, **train) -> Task:
    """The number decides weights, part, order, rate, decay and schedule."""
    model = build_model(NETWORKS[network], (3, 32, 32), 4, seed=number).double()
    given = {
        "lr": 0.003 * (number + 1),
        "weight_decay": 0.01 * number,
        "schedule": ("constant", "cosine", "step")[number % 3],
        "warmup": 0.1 * number,
        "batch_size": 5,
        "steps": 20,
    }
    spec = TrainSpec(**(given | train))
    return Task(
        model=model,
        start={name: tensor.clone() for name, tensor in model.state_dict().items()},
        whole=WHOLE,
        positions=torch.randperm(50, generator=torch.Generator().manual_seed(number))[:40],
        test=TEST,
        spec=spec,
        noise_seed=number,
        augment=Augmentation.of(spec, MEAN, STD),
    )


def assert_same(one: Trained, other: Trained) -> None:
    assert one.state.keys() == other.state.keys()
    for name, tensor in one.state.items():
        assert tensor.dtype == other.state[name].dtype
        assert largest_difference(name, tensor, other.state[name]) < 1e-10, name
    assert [vars(p) for p in one.curve] == [pytest.approx(vars(p), abs=1e-10, nan_ok=True) for p in other.curve]
    assert one.diverged == other.diverged


def largest_difference(name: str, one: Tensor, other: Tensor) -> float:
    difference = (one - other).abs()
    if name.endswith("in_proj_bias"):
        # Softmax cancels the offset of attention's keys, the middle third: its gradient is rounding, and Adam, which
        # divides by the gradient's size, makes steps of it.
        difference = difference.view(3, -1)[[0, 2]]
    return float(difference.max())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_stack_trains_every_member_as_the_loop_does(network, rule):
    tasks = [member(network, number, **RULES[rule]) for number in range(3)]
    for stacked, task in zip(train_stacked(tasks), tasks, strict=True):
        assert_same(stacked, train_member(task))


@pytest.mark.parametrize("rule", ["nesterov", "adam"])
@pytest.mark.parametrize("network", ["vgg", "resnet batch", "vit dropout"])
def test_networks_side_by_side_train_as_the_loop_does(network, rule):
    tasks = [member(network, number, **RULES[rule], **AUGMENTED) for number in range(3)]
    for found, task in zip(StackedRun(tasks, "lanes").train(), tasks, strict=True):
        assert_same(found, train_member(task))


@pytest.mark.parametrize("network", ["mlp", "vgg dropout", "resnet batch", "vit"])
def test_a_stack_augments_every_members_inputs_as_the_loop_does(network):
    tasks = [member(network, number, momentum=0.9, **AUGMENTED) for number in range(3)]
    plain = train_stacked([member(network, 0, momentum=0.9)])[0]
    trained = train_stacked(tasks)
    assert trained[0].curve != plain.curve
    for stacked, task in zip(trained, tasks, strict=True):
        assert_same(stacked, train_member(task))


@pytest.mark.parametrize("network", ["mlp batch", "resnet layer", "vit"])
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


def single(task: Task) -> Task:
    """The same in float32."""
    whole, test = (Examples(inputs=e.inputs.float(), labels=e.labels) for e in (task.whole, task.test))
    model = task.model.float()
    start = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in task.start.items()}
    return replace(task, model=model, start=start, whole=whole, test=test)


@pytest.mark.parametrize("network", ["mlp batch", "resnet batch", "vit"])
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


def test_the_networks_own_weights_and_mode_do_not_matter():
    task = member("mlp batch", 1)
    expected = train_stacked([task])[0]
    with torch.no_grad():
        for parameter in task.model.eval().parameters():
            parameter.zero_()
    assert_same(train_stacked([task])[0], expected)


def test_float32_training_repeats_bit_for_bit():
    model = build_model(NETWORKS["mlp batch"], (3, 32, 32), 4, seed=0)
    part = Examples(inputs=WHOLE.inputs.float(), labels=WHOLE.labels)
    tasks = [
        Task(
            model=model,
            start=nn.Module.state_dict(build_model(NETWORKS["mlp batch"], (3, 32, 32), 4, seed=seed)),
            whole=part,
            positions=torch.arange(50),
            test=part,
            spec=TrainSpec(lr=0.1, batch_size=5, epochs=2),
            noise_seed=seed,
        )
        for seed in range(3)
    ]
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
    whole, test = (
        Examples(
            inputs=torch.randn(n, 1, 8, 8, generator=GENERATOR), labels=torch.randint(10, (n,), generator=GENERATOR)
        )
        for n in (203, 57)
    )
    tasks = []
    for number in range(10):
        model = build_model(spec, (1, 8, 8), 10, seed=number)
        tasks.append(
            Task(
                model=model,
                start={name: tensor.clone() for name, tensor in model.state_dict().items()},
                whole=whole,
                positions=torch.randperm(203, generator=torch.Generator().manual_seed(number))[:200],
                test=test,
                spec=TrainSpec(lr=0.01 * (number + 1), batch_size=batch_size, steps=15, **RULES[rule]),
                noise_seed=number,
            )
        )
    together = train_stacked(tasks)
    for stack in ([3, 4], [9, 2, 7, 0, 5, 4], [8]):
        for at, trained in zip(stack, train_stacked([tasks[at] for at in stack]), strict=True):
            assert all(torch.equal(trained.state[name], found) for name, found in together[at].state.items())
            assert trained.curve == together[at].curve
