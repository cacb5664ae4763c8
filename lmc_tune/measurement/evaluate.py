"""Exact loss and error of one model on one set of examples."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lmc_tune.data.decisions import decisions, stacked_decisions
from lmc_tune.data.examples import ExampleSet, at_once
from lmc_tune.models.inference import VECTOR, for_inference, has_large_layers, is_convolutional
from lmc_tune.models.plain import is_plain

# Examples per forward pass. Sums are exact whatever it is. Few enough that activations stay in a core's cache: for
# MLPs half the time of 4096.
CHUNK = 512
# Of a convolutional network on a CPU, for the same reason: ResNet-20 takes 15 % more time with 64 and with 8; VGG-11,
# whose weights are loaded for every chunk, takes 9 % more with 16.
_CONVOLUTIONAL_CHUNK = 32


@dataclass(frozen=True, kw_only=True)
class Score:
    """Sums over ``n`` examples, or over all their decisions where they have several labels or tokens; divided only when
    read.

    loss_sum in nats, added up in float64.
    """

    loss_sum: float
    correct: int
    n: int

    @property
    def loss(self) -> float:
        """Mean cross-entropy, nats."""
        return self.loss_sum / self.n

    @property
    def accuracy(self) -> float:
        return self.correct / self.n

    @property
    def error(self) -> float:
        return (self.n - self.correct) / self.n


@torch.no_grad()
def logits_of(model: nn.Module, examples: ExampleSet) -> Tensor:
    """(n, classes) logits of ``model`` in evaluation mode; of several labels per example, one for each; of text, (n,
    context, tokens).
    """
    return torch.cat([logits for logits, _ in _passed(model, examples)])


def _passed(model: nn.Module, examples: ExampleSet) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and labels of some examples after the other."""
    device = examples.labels.device
    network = for_evaluation(model, device)
    for some in examples.chunks(at_once(examples, chunk_of(model, device))):
        yield network(some.inputs), some.labels


def chunk_of(model: nn.Module, device: torch.device) -> int:
    """How many images a network is given at once."""
    return min(CHUNK, _CONVOLUTIONAL_CHUNK) if device.type == "cpu" and is_convolutional(model) else CHUNK


def for_evaluation(model: nn.Module, device: torch.device) -> nn.Module:
    """The network in evaluation mode; on a CPU a copy that is evaluated faster, where it can be had."""
    model.eval()
    if device.type == "cpu" and (is_convolutional(model) or (has_large_layers(model) and is_plain(model))):
        return for_inference(model)
    return model  # a copy would gain nothing


@torch.no_grad()
def evaluate(model: nn.Module, examples: ExampleSet) -> Score:
    """Loss and error of ``model``, in evaluation mode, on all ``examples``.

    Logits are kept of some examples at a time: those of a whole text would not fit in memory.
    """
    return _summed(_passed(model, examples))


def score_of(logits: Tensor, labels: Tensor) -> Score:
    """Sums over the :func:`~lmc_tune.data.decisions.decisions`; ties between logits go to the smaller class."""
    return _summed([(logits, labels)])


def _summed(passed: Iterable[tuple[Tensor, Tensor]]) -> Score:
    losses, correct = [], 0
    for logits, labels in passed:
        chosen, truth = decisions(logits, labels)
        losses.append(losses_of(chosen, truth))
        correct += int(chosen.argmax(1).eq(truth).sum())
    every = torch.cat(losses)
    return Score(loss_sum=float(every.sum(dtype=torch.float64)), correct=correct, n=len(every))


def sums_of(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(networks,) sums of cross-entropy, float64, and of correct predictions, for logits (networks, n, …)."""
    chosen, truth = stacked_decisions(logits, labels.expand(len(logits), *labels.shape))
    return losses_of(chosen, truth).sum(1, dtype=torch.float64), chosen.argmax(2).eq(truth).sum(1)


def losses_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of every decision, nats, in the labels' shape, for logits (…, n, classes) and labels (…, n).

    A decision's loss does not depend, bit for bit, on the other decisions of the batch.
    """
    classes, n = logits.shape[-1], labels.shape[-1]
    if classes >= VECTOR or logits.device.type != "cpu":
        return functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none").view(labels.shape)
    # Of fewer classes than fill a vector, torch takes the softmax number by number, in four times the time. So
    # examples go last, filled up to whole vectors: those that are left over would be rounded otherwise.
    missing = -n % VECTOR
    by_class = functional.pad(logits.reshape(-1, n, classes).transpose(1, 2), (0, missing))
    filled = functional.pad(labels.reshape(-1, n), (0, missing))
    return functional.cross_entropy(by_class, filled, reduction="none")[:, :n].reshape(labels.shape)
