"""What is read of every example along a path: losses and errors, of which less is better."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lmc_tune.averaging.data import Batch, Split, called_on, size_of
from lmc_tune.data.decisions import decisions
from lmc_tune.data.examples import are_text
from lmc_tune.errors import UserError
from lmc_tune.models.foreign import said

Quantity = Literal["error", "loss"]
# By quantity, (n,) of the examples of a batch.
Values = dict[Quantity, Tensor]
# A name, or a function of a network and a batch.
Loss = str | Callable[[nn.Module, Any], Tensor]


class Metric(Protocol):
    """How outputs are judged.

    name: in words. unit: of its loss; empty if it has none. judged: the quantity that verdicts rest on.
    classifies: whether outputs are logits of classes, so that there is accuracy, calibration and an ensemble.
    plain: whether outputs are what the network gives for inputs, so that they can also be had without the network.
    """

    name: str
    unit: str
    judged: Quantity
    classifies: bool
    plain: bool

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the network makes of a batch, (n, …)."""

    def values(self, outputs: Tensor, batch: Batch) -> Values:
        """Every example's values."""


class CrossEntropy:
    """Cross-entropy in nats, and error: 1 for a wrong class, else 0; means over an example's labels, or its tokens."""

    name = "cross-entropy"
    unit = "nats"
    judged: Quantity = "error"
    classifies = True
    plain = True

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        return _tensor(called_on(model, batch))

    def values(self, outputs: Tensor, batch: Batch) -> Values:
        labels = labels_of(batch)
        _check_classes(outputs, labels)
        logits, truth = decisions(_wide(outputs), labels)
        losses = functional.cross_entropy(logits, truth, reduction="none")
        wrong = (logits.argmax(1).ne(truth) | losses.isnan()).to(losses.dtype)  # what is no number is no class
        return {"error": _by_example(wrong, len(labels)), "loss": _by_example(losses, len(labels))}


class SquaredError:
    """The squared difference from the target, averaged over an example's numbers."""

    name = "mean squared error"
    unit = ""
    judged: Quantity = "loss"
    classifies = False
    plain = True

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        return _tensor(called_on(model, batch))

    def values(self, outputs: Tensor, batch: Batch) -> Values:
        targets = labels_of(batch)
        if outputs.shape == (*targets.shape, 1):
            outputs = outputs[..., 0]
        if outputs.shape != targets.shape:
            raise UserError(
                f"--loss mse compares outputs with targets: the network gives {_shape(outputs)}, and targets are "
                f"{_shape(targets)}"
            )
        return {"loss": _by_example((_wide(outputs) - _wide(targets)).square().flatten(), len(targets))}


class OwnLoss:
    """A user's ``loss(model, batch)``: one value per example, of which less is better."""

    unit = ""
    judged: Quantity = "loss"
    classifies = False
    plain = False

    def __init__(self, function: Callable[[nn.Module, Batch], Any], name: str) -> None:
        self.function, self.name = function, name

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        try:
            found = self.function(model, batch)
        except Exception as error:
            raise UserError(f"the loss {self.name} failed with {said(error)}") from error
        if not isinstance(found, Tensor) or found.dim() != 1:
            what = _shape(found) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(
                f"the loss {self.name} gave {what}; let it return one number per example, a tensor of shape (n,): "
                f"e.g. cross_entropy(..., reduction='none')"
            )
        if len(found) != (n := size_of(batch)):
            raise UserError(
                f"the loss {self.name} gave {len(found)} values for {n} examples; let it return one for each"
            )
        return found

    def values(self, outputs: Tensor, batch: Batch) -> Values:  # noqa: ARG002 - they are the values
        return {"loss": outputs}


def metric_of(loss: Loss) -> Metric:
    """The metric of a name, or of a function."""
    if callable(loss):
        return OwnLoss(loss, getattr(loss, "__name__", "loss"))
    if loss == "cross-entropy":
        return CrossEntropy()
    if loss == "mse":
        return SquaredError()
    raise UserError(f"there is no loss {loss!r}: give cross-entropy, mse, or a function FILE.py:FUNCTION")


def labels_of(batch: Batch) -> Tensor:
    """The labels of a batch: its second part, or ``labels`` of a mapping.

    Raises:
        UserError: if it has none.
    """
    labels = batch.get("labels") if hasattr(batch, "get") else batch[1] if isinstance(batch, list | tuple) else None
    if not isinstance(labels, Tensor):
        raise UserError(
            "a batch has no labels: give (inputs, labels), a mapping with labels, or your own --loss FILE.py:FUNCTION"
        )
    return labels


def is_text(split: Split, metric: Metric) -> bool:
    """Whether examples are windows of tokens, each labelled with a token: losses then have a perplexity."""
    if not metric.classifies:
        return False
    batch = split.batches[0]
    labels, parts = labels_of(batch), batch.values() if isinstance(batch, Mapping) else batch[:1]
    tokens = [part for part in parts if isinstance(part, Tensor) and part is not labels and are_text(part)]
    return labels.dim() == 2 and are_text(labels) and any(part.shape == labels.shape for part in tokens)


def class_labels(split: Split, metric: Metric) -> NDArray[np.int64] | None:
    """(n,) of all examples, where each has one class; None for other data, and other metrics."""
    if not metric.classifies:
        return None
    labels = torch.cat([labels_of(batch) for batch in split.batches])
    return labels.cpu().numpy() if labels.dim() == 1 else None


def _tensor(outputs: Any) -> Tensor:
    found = getattr(outputs, "logits", outputs)
    if not isinstance(found, Tensor):
        raise UserError(
            f"the network gives {type(found).__name__}, not a tensor of outputs; say with --loss FILE.py:FUNCTION what "
            f"is measured of it"
        )
    return found


def _check_classes(outputs: Tensor, labels: Tensor) -> None:
    if labels.is_floating_point():
        raise UserError(
            f"labels are {str(labels.dtype).removeprefix('torch.')}, not classes; for numbers, give --loss mse"
        )
    one_class_each = outputs.shape[:-1] == labels.shape and labels.dim() in {1, 2}  # of examples, or of their tokens
    if not one_class_each and not (labels.dim() == 2 and outputs.shape == labels.shape):
        raise UserError(
            f"the network gives {_shape(outputs)} for labels of {_shape(labels)}; cross-entropy needs one row of "
            f"logits per label. Say with --loss FILE.py:FUNCTION what is measured"
        )
    if one_class_each and (int(labels.max()) >= outputs.shape[-1] or int(labels.min()) < 0):
        raise UserError(
            f"labels run from {int(labels.min())} to {int(labels.max())}; the network has {outputs.shape[-1]} classes"
        )


def _wide(tensor: Tensor) -> Tensor:
    """In single precision at least: halves overflow."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _by_example(values: Tensor, n: int) -> Tensor:
    return values.reshape(n, -1).mean(1)


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"
