"""Recorded steps. What only a GPU can do is done for real where there is one."""

import copy
from dataclasses import replace

import pytest
import torch

from lmc_tune.training import engines, graph, stacked
from lmc_tune.training.loop import train_member
from lmc_tune.training.stacked import StackedRun, train_stacked
from lmc_tune.training.task import Task
from tests.cases import IMAGE_NETWORKS, NETWORKS
from tests.training.cases import AUGMENTED, RULES, largest_difference, member, single, with_many_labels

GPU = torch.device("cuda")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def replayed(monkeypatch) -> list[str]:
    """Steps go through a replay as on a GPU; its graph is the step itself. Says what was recorded and replayed."""
    said = []

    def record(work):
        for _ in range(3):
            work()
        said.append("recorded")

        def again():
            said.append("replayed")
            work()

        return again

    monkeypatch.setattr(graph, "record", record)
    monkeypatch.setattr(stacked, "can_record", lambda _: True)
    return said


@pytest.mark.parametrize("labels", ["one label", "many labels"])
@pytest.mark.parametrize("rule", ["nesterov", "adam"])
@pytest.mark.parametrize("network", ["mlp batch", "mlp dropout", "resnet batch", "vit dropout"])
def test_a_replayed_step_reads_its_feed_alone_and_warming_up_leaves_no_trace(network, rule, labels, replayed):
    tasks = [member(network, number, **RULES[rule], **AUGMENTED) for number in range(3)]
    if labels == "many labels" and network not in IMAGE_NETWORKS:
        pytest.skip("a token has one next token")
    if labels == "many labels":
        tasks = [with_many_labels(task) for task in tasks]
    found = train_stacked(tasks)
    assert replayed == ["recorded", *20 * ["replayed"]]
    with pytest.MonkeyPatch.context() as plain:
        plain.setattr(stacked, "can_record", lambda _: False)
        expected = train_stacked(tasks)
    for one, other in zip(found, expected, strict=True):
        assert all(torch.equal(one.state[name], other.state[name]) for name in other.state)
        assert one.curve == other.curve


@needs_gpu
@pytest.mark.parametrize("network", ["resnet batch", "vit"])
def test_on_a_gpu_both_ways_can_be_tried(network):
    tasks = [moved(member(network, number, **AUGMENTED), GPU) for number in range(3)]
    assert stacked._faster_way(tasks) in {"vmap", "lanes"}


@needs_gpu
@pytest.mark.parametrize("labels", ["one label", "many labels"])
@pytest.mark.parametrize("way", ["vmap", "lanes"])
@pytest.mark.parametrize("network", NETWORKS)
def test_on_a_gpu_recorded_stacks_train_as_the_loop_does_on_the_cpu(network, way, labels):
    tasks = [member(network, number, momentum=0.9, **AUGMENTED) for number in range(3)]
    if labels == "many labels" and network not in IMAGE_NETWORKS:
        pytest.skip("a token has one next token")
    if labels == "many labels":
        tasks = [with_many_labels(task) for task in tasks]
    for found, task in zip(StackedRun([moved(task, GPU) for task in tasks], way).train(), tasks, strict=True):
        expected = train_member(task)
        for name, tensor in expected.state.items():
            assert largest_difference(name, found.state[name].cpu(), tensor, adam=False) < 1e-8, name
        assert [p.train_loss for p in found.curve] == pytest.approx([p.train_loss for p in expected.curve], abs=1e-8)


@needs_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("network", NETWORKS)
def test_on_a_gpu_stacks_pass_their_check(network, precision):
    """Where one does not, it is trained by the loop; here it is to be known."""
    tasks = [moved(single(member(network, number, momentum=0.9, precision=precision)), GPU) for number in range(3)]
    assert engines._fault(tasks) == ""


@pytest.mark.parametrize("way", ["vmap", "lanes"])
@pytest.mark.parametrize("rule", ["nesterov", "adamw"])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_step_and_a_scoring_need_no_value_on_the_host_and_nothing_from_another_device(network, rule, way):
    """On a device without values; a step that asked for one could not be recorded."""
    tasks = [moved(member(network, number, **RULES[rule], **AUGMENTED), torch.device("meta")) for number in range(2)]
    run = StackedRun(tasks, way)
    feed = run._first_feed()
    run._step(feed)
    assert {tensor.device.type for tensor in (*feed.values(), *run._changed_by_a_step())} == {"meta"}
    run.stack.model.eval()
    with torch.no_grad():
        assert run.stack.logits(tasks[0].test.inputs, shared=True).device.type == "meta"


def moved(task: Task, device: torch.device) -> Task:
    """The same task there."""
    augment = task.augment and replace(task.augment, mean=task.augment.mean.to(device), std=task.augment.std.to(device))
    return replace(
        task,
        model=copy.deepcopy(task.model).to(device),
        start={name: tensor.to(device) for name, tensor in task.start.items()},
        whole=task.whole.to(device),
        test=task.test.to(device),
        positions=task.positions.to(device),
        augment=augment,
    )
