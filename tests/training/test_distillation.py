import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from lmc_tune.data.examples import Examples
from lmc_tune.experiment import TrainSpec
from lmc_tune.training.distillation import Teacher, distillation_loss
from lmc_tune.training.loop import train_member
from lmc_tune.training.order import epoch_batches
from tests import oracles
from tests.cases import blobs, network, state, task

PART, TEST = blobs(61, dtype=torch.float64), blobs(30, seed=1, dtype=torch.float64)
SPEC = TrainSpec(lr=0.05, batch_size=8, epochs=3, momentum=0.9)


def by_hand(student, taught, label, beta, tau):
    """One example, in plain Python."""

    def softened(logits, t):
        powers = [math.exp(z / t) for z in logits]
        return [power / sum(powers) for power in powers]

    p, q = softened(taught, tau), softened(student, tau)
    divergence = sum(one * math.log(one / other) for one, other in zip(p, q, strict=True))
    return (1 - beta) * tau**2 * divergence - beta * math.log(softened(student, 1.0)[label])


@given(
    st.lists(st.floats(-5, 5), min_size=3, max_size=3),
    st.lists(st.floats(-5, 5), min_size=3, max_size=3),
    st.floats(0, 1),
    st.floats(0.5, 10),
)
def test_the_loss_is_that_of_a_calculation_by_hand_and_so_is_its_gradient(student, taught, beta, tau):
    logits = torch.tensor([student], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([taught], dtype=torch.float64)
    loss = distillation_loss(logits, teacher, torch.tensor([1]), beta, tau)
    assert loss.item() == pytest.approx(by_hand(student, taught, 1, beta, tau), abs=1e-10)
    loss.backward()
    # (1 − β) τ (q_τ − p_τ) + β (q − y): one τ of τ² is left.
    softened = [torch.softmax(z / tau, 1) for z in (logits.detach(), teacher)]
    expected = (1 - beta) * tau * (softened[0] - softened[1])
    expected = expected + beta * (torch.softmax(logits.detach(), 1) - functional.one_hot(torch.tensor([1]), 3))
    assert torch.allclose(logits.grad, expected, atol=1e-10)


def test_the_loss_is_a_mean_over_decisions():
    generator = torch.Generator().manual_seed(0)
    logits, taught = (torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    found = distillation_loss(logits, taught, labels, 0.2, 3.0)
    rows = zip(logits.tolist(), taught.tolist(), labels.tolist(), strict=True)
    assert found.item() == pytest.approx(sum(by_hand(*row, 0.2, 3.0) for row in rows) / 6)


def test_training_is_the_textbooks_loop_and_the_teacher_stays():
    teacher, student, slow = network(7).double(), network(3).double(), network(3).double()
    taught = {name: tensor.clone() for name, tensor in state(teacher).items()}
    trained = train_member(
        replace(task(student, PART, TEST, SPEC, 11), teacher=Teacher(state=taught, beta=0.2, temperature=3.0))
    )
    updates = oracles.Updates("sgd", momentum=0.9)
    for point, epoch in zip(trained.curve, range(3), strict=True):
        entropies = []
        for batch in epoch_batches(61, 8, 11, epoch):
            logits, labels = slow(PART.inputs[batch]), PART.labels[batch]
            p = torch.softmax(teacher(PART.inputs[batch]).detach() / 3, 1)
            divergence = (p * (p.log() - torch.log_softmax(logits / 3, 1))).sum(1).mean()
            entropy = functional.cross_entropy(logits, labels)
            loss = 0.8 * 9 * divergence + 0.2 * entropy
            updates.step(list(slow.parameters()), torch.autograd.grad(loss, list(slow.parameters())), SPEC.lr)
            entropies.append(entropy.item())
        assert point.train_loss == pytest.approx(sum(entropies) / 7), "curves of students and others are compared"
    for name, tensor in state(slow).items():
        assert torch.allclose(trained.state[name], tensor, rtol=0, atol=1e-10)
    assert all(torch.equal(tensor, taught[name]) for name, tensor in state(teacher).items())


class Noisy(nn.Module):
    """In training it drops half of its inputs, and says so."""

    def __init__(self):
        super().__init__()
        self.linear, self.dropout, self.norm = nn.Linear(2, 3), nn.Dropout(0.5), nn.BatchNorm1d(2)

    def forward(self, x):
        return self.linear(self.dropout(self.norm(x)))


def test_the_teacher_is_in_evaluation_mode_and_learns_nothing():
    model = Noisy()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lesson = Teacher(state=before, beta=0.5, temperature=2.0).lesson(model)
    inputs = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    logits = torch.zeros(8, 3, requires_grad=True)
    losses = [lesson(inputs, logits, torch.zeros(8, dtype=torch.int64)) for _ in range(3)]
    assert losses[0] == losses[1] == losses[2], "nothing is dropped, no statistics move"
    losses[0].backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@settings(max_examples=5, deadline=None)
@given(st.sampled_from([1, 2]))
def test_a_student_goes_on_from_a_checkpoint_as_straight_through(epochs):
    teacher = Teacher(state=state(network(7).double()), beta=0.2, temperature=3.0)
    whole = replace(task(network(3).double(), PART, TEST, SPEC, 11), teacher=teacher)
    first = train_member(replace(whole, epochs=epochs))
    then = train_member(replace(whole, resume=first))
    straight = train_member(whole)
    assert all(torch.equal(tensor, straight.state[name]) for name, tensor in then.state.items())
    assert then.curve == straight.curve


def test_several_labels_are_taught_one_by_one():
    labels = torch.randint(2, (61, 3), generator=torch.Generator().manual_seed(0))
    part = Examples(inputs=PART.inputs, labels=labels)
    teacher = network(7).double()
    lesson = Teacher(state=state(teacher), beta=0.2, temperature=3.0).lesson(teacher)
    logits = network(3).double()(part.inputs)
    both = torch.stack([torch.zeros_like(logits), logits], -1).flatten(0, 1)
    taught = teacher(part.inputs)
    expected = 0.8 * 9 * functional.kl_div(
        torch.stack([functional.logsigmoid(-logits / 3), functional.logsigmoid(logits / 3)]),
        torch.stack([functional.logsigmoid(-taught / 3), functional.logsigmoid(taught / 3)]),
        log_target=True,
        reduction="sum",
    ) / labels.numel() + 0.2 * functional.binary_cross_entropy_with_logits(logits, labels.double())
    assert lesson(part.inputs, both, labels).item() == pytest.approx(expected.item())
