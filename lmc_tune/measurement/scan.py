"""Loss and error at many positions of a path, with few passes over the data."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lmc_tune.core.interpolation import lerp_state
from lmc_tune.data.datasets import Examples
from lmc_tune.measurement import evaluate as scoring
from lmc_tune.measurement.evaluate import Score, evaluate

State = Mapping[str, Tensor]


def scan(model: nn.Module, state_a: State, state_b: State, lambdas: Sequence[float], examples: Examples) -> list[Score]:
    """Loss and error of θ(λ), in evaluation mode, on all ``examples``: one score per position.

    Where the network begins with a linear layer, that layer is applied to every example twice instead of once per
    position: it is linear in its own weights, so at λ its output is the lerp of its outputs at the two ends.

    Args:
        model: its own weights are overwritten.
        state_a: A's state dict.
        state_b: B's, with the same entries.
        lambdas: positions on the path.
        examples: on the model's device.
    """
    if (first := _first_linear(model)) is None:
        return [_score_at(model, state_a, state_b, lambda_, examples) for lambda_ in lambdas]
    return _scan_behind(first, model, state_a, state_b, lambdas, examples)


def _score_at(model: nn.Module, state_a: State, state_b: State, lambda_: float, examples: Examples) -> Score:
    model.load_state_dict(lerp_state(state_a, state_b, lambda_))
    return evaluate(model, examples)


def _first_linear(model: nn.Module) -> int | None:
    """How many modules of a sequential network end with its first linear layer, if only a flattening precedes it."""
    if isinstance(model, nn.Sequential):
        for at, module in enumerate(model):
            if isinstance(module, nn.Linear):
                return at + 1
            if not isinstance(module, nn.Flatten):
                return None
    return None


@torch.no_grad()
def _scan_behind(  # noqa: PLR0913, PLR0917
    first: int, model: nn.Module, state_a: State, state_b: State, lambdas: Sequence[float], examples: Examples
) -> list[Score]:
    assert isinstance(model, nn.Sequential)  # noqa: S101 - for the type checker
    model.eval()
    begin, rest = model[:first], model[first:]
    begin_a, rest_a = _entries(begin, state_a), _entries(rest, state_a)
    begin_b, rest_b = _entries(begin, state_b), _entries(rest, state_b)
    losses: list[list[Tensor]] = [[] for _ in lambdas]
    correct = [0] * len(lambdas)
    for inputs, labels in zip(examples.inputs.split(scoring.CHUNK), examples.labels.split(scoring.CHUNK), strict=True):
        begin.load_state_dict(begin_a)
        at_a = begin(inputs)
        begin.load_state_dict(begin_b)
        at_b = begin(inputs)
        for at, lambda_ in enumerate(lambdas):
            rest.load_state_dict(lerp_state(rest_a, rest_b, lambda_))
            logits = rest(torch.lerp(at_a, at_b, lambda_))
            losses[at].append(scoring.losses_of(logits, labels))
            correct[at] += int(logits.argmax(1).eq(labels).sum())
    return [
        Score(loss_sum=float(torch.cat(found).sum(dtype=torch.float64)), correct=hits, n=len(examples))
        for found, hits in zip(losses, correct, strict=True)
    ]


def _entries(part: nn.Module, state: State) -> dict[str, Tensor]:
    """The entries of a network's state that belong to one part of it; a slice of a Sequential keeps the names."""
    return {name: state[name] for name in part.state_dict()}
