"""Predictions of several networks for the same examples."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lmc_tune.core.calibration import Array, Calibration, calibration, log_probabilities, temperature
from lmc_tune.core.similarity import cohens_kappa, disagreement, error_overlap, jensen_shannon, true_class_variance
from lmc_tune.data.decisions import decisions, has_yes_and_no
from lmc_tune.data.examples import ExampleSet
from lmc_tune.measurement.evaluate import logits_of
from lmc_tune.measurement.similarity import compared
from lmc_tune.models.dropout import dropout_seeds
from lmc_tune.tables.columns import Row


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What networks make of the same decisions.

    logits: of each network, (decisions, classes), float64. labels: (decisions,) int64. pooled: whether several labels
    of an example are decisions of their own.
    """

    logits: Sequence[Array]
    labels: NDArray[np.int64]
    pooled: bool = False

    @cached_property
    def qualities(self) -> list[Calibration]:
        """Of each network."""
        return [calibration(own, self.labels) for own in self.logits]

    @cached_property
    def temperatures(self) -> list[float]:
        """That calibrate each network on these examples."""
        return [temperature(own, self.labels) for own in self.logits]


def predict(models: Iterable[nn.Module], examples: ExampleSet) -> Predictions:
    """Predictions in evaluation mode.

    Args:
        models: one after the other; each may take the place of the one before.
        examples: of text, some windows of it.
    """
    outputs: list[Tensor] = []
    some = examples
    for model in models:
        some = some if outputs else compared(model, examples)
        outputs.append(logits_of(model, some).double().cpu())
    labels = some.labels.cpu()
    return Predictions(
        logits=[decisions(own, labels)[0].numpy() for own in outputs],
        labels=decisions(outputs[0], labels)[1].numpy(),
        pooled=has_yes_and_no(outputs[0], labels),
    )


def with_dropout(model: nn.Module, seeds: Sequence[int]) -> Iterator[nn.Module]:
    """The network once for every seed, which decides what it drops (Gal & Ghahramani 2016); all else is in evaluation
    mode. It drops nothing any more when all are through.
    """
    dropping = _Dropping(model)
    for seed in seeds:
        dropping.seed = seed
        yield dropping


class _Dropping(nn.Module):
    """A network that drops activations in evaluation mode too; another seed for every batch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.seed = model, 0

    def forward(self, inputs: Tensor) -> Tensor:
        droppers = [module for module in self.model.modules() if hasattr(module, "dropout_seed")]
        for dropper in droppers:
            dropper.train()
        for tensor in dropout_seeds(self.model.named_buffers()):
            tensor.fill_(self.seed)
        self.seed += 1
        outputs: Tensor = self.model(inputs)
        self.model.eval()
        return outputs


def diversity(predictions: Predictions) -> Row:
    """How unlike the networks predict: means over all pairs of them, and of each with all others."""
    chosen = [own.argmax(1) for own in predictions.logits]
    probabilities = [np.exp(log_probabilities(own)) for own in predictions.logits]
    pairs = list(combinations(chosen, 2))
    overlaps = [error_overlap(a, b, predictions.labels) for a, b in pairs]
    found = {
        "disagreement": _mean(disagreement(a, b) for a, b in pairs),
        "error_overlap": _mean(overlap.both_wrong for overlap in overlaps),
        "jensen_shannon": jensen_shannon(probabilities),
        "true_class_variance": true_class_variance(probabilities, predictions.labels),
    }
    if not predictions.pooled:
        found["error_overlap_ratio"] = _mean(overlap.over_independence for overlap in overlaps)
        found["same_error"] = _mean(overlap.same_wrong_label for overlap in overlaps)
        found["kappa"] = _mean(cohens_kappa(a, b) for a, b in pairs)
    return found


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
