import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from lmc_tune.data.decisions import decisions, stacked_decisions

shapes = st.lists(st.integers(1, 4), min_size=2, max_size=3)


def drawn(shape: list[int], seed: int, spread: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits, torch.randint(2, shape, generator=generator)


def asked(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (decisions if logits.ndim == 2 else stacked_decisions)(logits, labels)


@given(shapes, st.integers(0, 100), st.sampled_from([1.0, 30.0, 1000.0]))
def test_cross_entropy_of_decisions_is_binary_cross_entropy_and_so_is_its_gradient(shape, seed, spread):
    logits, labels = drawn(shape, seed, spread)
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    chosen, truth = asked(ours, labels)
    loss = functional.cross_entropy(chosen.flatten(0, -2), truth.flatten())
    expected = functional.binary_cross_entropy_with_logits(theirs, labels.double())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    (gradient,), (wanted,) = torch.autograd.grad(loss, ours), torch.autograd.grad(expected, theirs)
    assert torch.allclose(gradient, wanted, rtol=1e-9, atol=1e-15)


@given(shapes, st.integers(0, 100))
def test_the_softmax_is_the_sigmoid_and_the_decisions_keep_the_order_of_the_labels(shape, seed):
    logits, labels = drawn(shape, seed, 3.0)
    chosen, truth = asked(logits, labels)
    *many, n, each = shape
    assert chosen.shape == (*many, n * each, 2)
    assert torch.equal(truth, labels.view(*many, n * each))
    assert torch.allclose(chosen.softmax(-1)[..., 1], logits.sigmoid().view(*many, n * each), rtol=1e-12)


def test_yes_is_a_logit_above_0():
    logits = torch.tensor([[-0.1, 0.0, 0.1]])
    chosen, _ = decisions(logits, torch.tensor([[0, 0, 1]]))
    assert chosen.argmax(-1).tolist() == [0, 0, 1]


@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3)])
def test_one_label_per_example_stays_as_it_is(shape):
    logits, labels = torch.randn(shape), torch.zeros(shape[:-1], dtype=torch.int64)
    chosen, truth = asked(logits, labels)
    assert chosen is logits
    assert truth is labels


def test_every_token_is_a_decision_between_all_tokens_window_by_window_and_network_by_network():
    logits, labels = torch.randn(2, 5, 4, 3), torch.randint(3, (2, 5, 4))
    chosen, truth = stacked_decisions(logits, labels)
    assert (chosen.shape, truth.shape) == ((2, 20, 3), (2, 20))
    for network in range(2):
        own, of_own = decisions(logits[network], labels[network])
        assert torch.equal(own, chosen[network])
        assert torch.equal(of_own, truth[network])
        assert torch.equal(own[4 * 3 + 1], logits[network, 3, 1])
        assert of_own[4 * 3 + 1] == labels[network, 3, 1]
