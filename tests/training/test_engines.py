"""Which engine trains a pair, and what a stack has to show before it is trusted on a GPU."""

from dataclasses import replace

import pytest
import torch

from lmc_tune.experiment import GroupSpec, MemberSpec
from lmc_tune.models.stack import Stack
from lmc_tune.training import stacked
from lmc_tune.training.engines import Choice, Engines, engine_for, train
from lmc_tune.training.stacked import StackedRun
from tests.cases import NETWORKS
from tests.training.cases import AUGMENTED, RULES, assert_same, member, single, with_many_labels

CPU, GPU = torch.device("cpu"), torch.device("cuda")  # no tensor is put on the latter
STACKED = Choice(engine="stacked")


def pair(model: dict, batch_size: int = 32, engine: str = "auto", dataset: str = "mnist") -> MemberSpec:
    group = GroupSpec.model_validate(
        {
            "dataset": {"name": dataset},
            "model": model,
            "train": {"lr": 0.1, "batch_size": batch_size, "epochs": 1, "engine": engine},
            "shift": {},
            "replicate": 0,
        }
    )
    return group.members["a"]


@pytest.mark.parametrize(
    ("asked", "engine"),
    [
        (pair({"hidden": [32]}), "stacked"),
        (pair({"hidden": [64, 64], "norm": "batch"}, dataset="digits"), "stacked"),
        (pair({"hidden": [512]}), "loop"),  # its weights alone fill the cache
        (pair({"hidden": [32]}, batch_size=512), "loop"),
        (pair({"hidden": [40]}), "loop"),  # its result would depend on its place in the stack
        (pair({"hidden": [32]}, batch_size=18), "loop"),
        (pair({"name": "resnet", "depth": 8}), "loop"),
        (pair({"name": "resnet", "depth": 8}, engine="stacked"), "stacked"),
        (pair({"hidden": [32]}, engine="loop"), "loop"),
    ],
)
def test_on_a_cpu_small_aligned_perceptrons_are_stacked_unless_the_space_says_otherwise(asked, engine):
    assert engine_for(asked, CPU) == engine


def test_on_a_gpu_everything_may_be_stacked_but_a_users_own_network():
    assert engine_for(pair({"name": "resnet", "depth": 8}), GPU) == "stacked"
    assert engine_for(pair({"hidden": [33]}, batch_size=17), GPU) == "stacked"
    assert engine_for(pair({"factory": "mine:build"}), GPU) == "loop"


# The check


def auto(**train) -> MemberSpec:
    return pair({"name": "resnet", "depth": 8, **train})


def chosen(tasks) -> Choice:
    return Engines().choose(auto(), GPU, lambda: tasks)


@pytest.mark.parametrize(("rule", "precision"), [("nesterov", "float32"), ("adamw", "bfloat16")])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_stack_that_trains_as_the_loop_does_is_trusted(network, rule, precision):
    options = {**RULES[rule], **AUGMENTED, "precision": precision}
    assert chosen([single(member(network, number, **options)) for number in range(2)]) == STACKED


@pytest.mark.parametrize("rate", [1e-5, 1e4])
def test_rates_near_divergence_or_hardly_above_nothing_put_no_blame_on_a_stack(rate):
    assert chosen([single(member("resnet batch", number, lr=rate)) for number in range(2)]) == STACKED


def test_a_stack_of_many_labels_is_checked_too(monkeypatch):
    tasks = [single(with_many_labels(member("mlp", number))) for number in range(2)]
    assert chosen(tasks) == STACKED
    monkeypatch.setattr(Stack, "differentiate", lambda _stack, _losses, out: out.zero_())
    assert chosen(tasks).engine == "loop"


def tenth_more_in_one_layer(stack, name):
    """As differentiate does, but that one small entry's gradient is a tenth too long."""
    right = stack.differentiate

    def differentiate(losses, out):
        right(losses, out)
        stack._parts(out)[name].mul_(1.1)

    return differentiate


class Wrong(StackedRun):
    """A stack whose gradient of one norm's scale, 16 of thousands of weights, is a tenth too long."""

    def __init__(self, tasks, way="vmap"):
        super().__init__(tasks, way)
        self.stack.differentiate = tenth_more_in_one_layer(self.stack, "stage1.0.bn1.weight")


class WrongSideBySide(Wrong):
    def __init__(self, tasks, way="vmap"):
        StackedRun.__init__(self, tasks, way)
        if way == "lanes":
            super().__init__(tasks, way)


class WrongLast(StackedRun):
    """Wrong for the last member only."""

    def _step(self, feed):
        super()._step(feed)
        self.stack.weights[-1].mul_(1.001)


class NotANumber(StackedRun):
    def _step(self, feed):
        super()._step(feed)
        self.stack.weights.fill_(torch.nan)


class WrongInHalf(StackedRun):
    """Goes uphill, in half precision alone."""

    def _step(self, feed):
        super()._step({**feed, "rate": -feed["rate"]} if self.tasks[0].spec.precision == "bfloat16" else feed)


class Stuck(StackedRun):
    """Every step is the first one again, as where a recording has its feed frozen in."""

    def _step(self, feed):
        self.first = getattr(self, "first", feed)
        super()._step(self.first)


class Raises(StackedRun):
    def _step(self, _):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand so on")


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (Wrong, "in 3 steps a stack came to another stage1.0.bn1.weight than the loop"),
        (WrongSideBySide, "in 3 steps a stack came to another stage1.0.bn1.weight than the loop"),
        (WrongLast, "in 3 steps a stack came to another "),
        (NotANumber, "in 3 steps a stack came to another "),
        (Stuck, "in 3 steps a stack came to another "),
        (Raises, "a stack cannot be trained here: RuntimeError: CUDA error: operation not permitted when stream is "),
    ],
)
def test_a_stack_that_raises_or_does_otherwise_leaves_the_program_to_the_loop_and_says_why(monkeypatch, broken, why):
    tasks = [single(member("resnet batch", number, momentum=0.9)) for number in range(2)]
    monkeypatch.setattr(stacked, "StackedRun", broken)
    found = chosen(tasks)
    assert found.engine == "loop"
    assert found.why.startswith(why)
    assert "\n" not in found.why


def test_half_precision_is_checked_as_such(monkeypatch):
    tasks = [single(member("resnet", number, precision="bfloat16", batch_size=20)) for number in range(2)]
    assert chosen(tasks) == STACKED
    monkeypatch.setattr(stacked, "StackedRun", WrongInHalf)
    assert chosen(tasks).why == "in 3 steps a stack came to another weights than the loop"


def test_memory_that_is_short_is_no_fault_of_the_stack(monkeypatch):
    def short(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(StackedRun, "_step", short)
    engines, tasks = Engines(), [single(member("mlp", number)) for number in range(2)]
    with pytest.raises(torch.OutOfMemoryError):
        engines.choose(auto(), GPU, lambda: tasks)
    monkeypatch.undo()
    assert engines.choose(auto(), GPU, lambda: tasks) == STACKED


def test_a_program_is_checked_once_and_every_program_is(monkeypatch):
    checked = []

    def tasks():
        checked.append(True)
        return [single(member("mlp", number)) for number in range(2)]

    engines, slower = Engines(), auto()
    slower = slower.model_copy(update={"train": slower.train.model_copy(update={"lr": 0.01}), "replicate": 3})
    for asked in (auto(), slower, auto()):
        assert engines.choose(asked, GPU, tasks) == STACKED
    assert len(checked) == 1
    monkeypatch.setattr(stacked, "StackedRun", Raises)
    assert engines.choose(auto(), GPU, tasks) == STACKED
    others = [auto(width=0.5), pair({"name": "resnet", "depth": 8}, batch_size=64)]
    for other in others * 2:
        assert engines.choose(other, GPU, tasks).engine == "loop"
    assert len(checked) == 3


@pytest.mark.parametrize(
    ("asked", "device", "engine"),
    [
        (pair({"hidden": [32]}, engine="stacked"), GPU, "stacked"),
        (pair({"hidden": [32]}, engine="loop"), GPU, "loop"),
        (pair({"factory": "mine:build"}), GPU, "loop"),
        (pair({"hidden": [32]}), CPU, "stacked"),
    ],
)
def test_what_is_asked_for_and_what_is_proven_is_not_checked(asked, device, engine):
    found = Engines().choose(asked, device, lambda: pytest.fail("checked"))
    assert found == Choice(engine=engine)


@pytest.mark.parametrize("engine", ["loop", "stacked"])
def test_the_check_leaves_members_as_they_were(engine):
    def tasks():
        found = [member("resnet batch", number, momentum=0.9) for number in range(2)]
        joint = train(found, "loop")
        return [
            replace(task, resume=replace(before, epochs=0, curve=[])) for task, before in zip(found, joint, strict=True)
        ]

    state = torch.get_rng_state()
    checked = tasks()
    before = {name: tensor.clone() for name, tensor in checked[0].model.state_dict().items()}
    assert chosen(checked) == STACKED
    assert all(torch.equal(before[name], tensor) for name, tensor in checked[0].model.state_dict().items())
    for one, other in zip(train(checked, engine), train(tasks(), engine), strict=True):
        assert_same(one, other)
    assert torch.equal(torch.get_rng_state(), state)
