"""Training one member, step by step."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lmc_tune.data.datasets import Examples
from lmc_tune.measurement.evaluate import evaluate
from lmc_tune.specs import TrainSpec
from lmc_tune.training.order import epoch_batches
from lmc_tune.training.schedule import learning_rate


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """A member after one epoch.

    step: steps taken; epoch: the same in passes over the part. train_loss (nats) and train_accuracy (fraction) are
    running means over the epoch's batches, taken before each update; test_* are measured after the last.
    """

    step: int
    epoch: float
    lr: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A member's weights and learning curve; ``diverged`` says why training stopped early, empty if it did not."""

    state: dict[str, Tensor]
    curve: Sequence[CurvePoint]
    diverged: str = ""


def train_member(model: nn.Module, part: Examples, test: Examples, spec: TrainSpec, order_seed: int) -> Trained:
    """Train ``model`` in place on ``part``.

    Training stops at the end of the first epoch in which the loss was not finite.

    Args:
        model: with its initial weights, on the part's device.
        part: the member's training examples.
        test: measured after every epoch for the learning curve; never acted upon.
        spec: optimizer, schedule and budget.
        order_seed: decides the order of the examples (:func:`~lmc_tune.training.order.epoch_batches`).

    Raises:
        ValueError: if a batch is larger than the part.
    """
    per_epoch, n_steps = len(part) // spec.batch_size, spec.steps_for(len(part))
    if per_epoch == 0:
        raise ValueError(
            f"batch_size {spec.batch_size} is above the {len(part)} examples that a member sees; "
            f"lower it or raise dataset.train"
        )
    optimizer = _optimizer(model.parameters(), spec)
    curve: list[CurvePoint] = []
    for epoch, first in enumerate(range(0, n_steps, per_epoch)):
        batches = epoch_batches(len(part), spec.batch_size, order_seed, epoch)[: n_steps - first]
        model.train()
        rates = [learning_rate(spec, first + at, n_steps) for at in range(len(batches))]
        loss, accuracy = _train_epoch(model, optimizer, part, batches.to(part.labels.device), rates)
        last = first + len(batches)
        tested = evaluate(model, test)
        curve.append(
            CurvePoint(
                step=last,
                epoch=last / per_epoch,
                lr=rates[-1],
                train_loss=loss,
                train_accuracy=accuracy,
                test_loss=tested.loss,
                test_accuracy=tested.accuracy,
            )
        )
        if not math.isfinite(loss):
            reason = f"the training loss became {loss} in epoch {epoch + 1}"
            return Trained(state=_state(model), curve=curve, diverged=reason)
    return Trained(state=_state(model), curve=curve)


def _train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, part: Examples, batches: Tensor, rates: Sequence[float]
) -> tuple[float, float]:
    """Mean loss and accuracy over the epoch's batches, each taken before its update."""
    losses, hits = [], []
    for batch, rate in zip(batches, rates, strict=True):
        labels = part.labels[batch]
        logits = model(part.inputs[batch])
        loss = functional.cross_entropy(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(loss.detach())
        hits.append(logits.detach().argmax(1).eq(labels).sum())
    n = batches.numel()
    return float(torch.stack(losses).double().mean()), float(torch.stack(hits).sum()) / n


def _optimizer(parameters: Iterable[nn.Parameter], spec: TrainSpec) -> torch.optim.Optimizer:
    # The fused kernels do one pass over the weights instead of one call per tensor and operation.
    if spec.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=spec.lr,
            momentum=spec.momentum,
            nesterov=spec.nesterov,
            weight_decay=spec.weight_decay,
            fused=True,
        )
    kind = torch.optim.Adam if spec.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr=spec.lr, weight_decay=spec.weight_decay, fused=True)


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
