"""The yardstick: the same pairs by a bare PyTorch loop, one process, no sweep, no store.

It is written as one would write it by hand for a single experiment: ``torch.optim.SGD``, fancy indexing, a fresh
model's state per λ. It takes from lmc-tune only what defines the pairs (data, parts, seeds), so that its numbers can be
compared with the sweep's.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lmc_tune.data.datasets import Dataset, load_dataset
from lmc_tune.data.examples import Examples
from lmc_tune.data.shifts import split
from lmc_tune.experiment import GroupSpec
from lmc_tune.models.registry import build_model
from lmc_tune.training.order import epoch_batches


def run_plain(
    pairs: Sequence[GroupSpec], data_root: Path, lambdas: int, threads: int = 1
) -> tuple[float, dict[str, float]]:
    """Train and measure pairs one after the other (MLP, SGD, fixed noise, constant rate), on ``threads`` threads.

    Returns:
        Seconds for all pairs, loading left out; and each pair's test accuracy of member A by key.
    """
    torch.set_num_threads(threads)
    dataset = load_dataset(pairs[0].dataset, data_root)
    started = time.perf_counter()
    accuracies = {pair.key: _run_pair(pair, dataset, lambdas) for pair in pairs}
    return time.perf_counter() - started, accuracies


def train_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, part: Examples, batches: Tensor) -> None:
    """One step for every row of ``batches``, positions in the part."""
    model.train()
    for batch in batches.to(part.labels.device):
        loss = functional.cross_entropy(model(part.inputs[batch]), part.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _run_pair(pair: GroupSpec, dataset: Dataset, lambdas: int) -> float:
    parts = split(dataset.train.labels.numpy(), pair.shift, pair.seed_for("split"))
    states = [_train(pair, dataset, dataset.train.take(indices)) for indices in (parts.a, parts.b)]
    both = dataset.train.take(np.union1d(parts.a, parts.b))
    model = build_model(pair.model, tuple(both.inputs.shape[1:]), dataset.n_classes, seed=0)
    accuracies = []
    for lambda_ in np.linspace(0, 1, lambdas):
        model.load_state_dict({name: torch.lerp(a, states[1][name], float(lambda_)) for name, a in states[0].items()})
        _score(model, both)
        accuracies.append(_score(model, dataset.test)[1])
    return accuracies[0]


def _train(pair: GroupSpec, dataset: Dataset, part: Examples) -> dict[str, Tensor]:
    train = pair.train
    model = build_model(pair.model, tuple(part.inputs.shape[1:]), dataset.n_classes, pair.seed_for("init"))
    optimizer = torch.optim.SGD(model.parameters(), lr=train.lr, momentum=train.momentum)
    for epoch in range(train.epochs or 0):
        batches = epoch_batches(len(part), train.batch_size, pair.seed_for("order"), epoch)
        train_epoch(model, optimizer, part, batches)
        _score(model, dataset.test)  # the learning curve
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@torch.no_grad()
def _score(model: nn.Module, examples: Examples) -> tuple[float, float]:
    model.eval()
    logits = model(examples.inputs)
    loss = functional.cross_entropy(logits, examples.labels)
    return float(loss), float((logits.argmax(1) == examples.labels).double().mean())
