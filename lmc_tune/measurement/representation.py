"""How alike two members are layer by layer: in what the layers represent and in their weights.

A layer is one module's own parameters (:mod:`lmc_tune.measurement.layerwise.layers`), so a normalisation is a layer of
its own, and a module that holds parameters beside its children, as a transformer its class token, is one too.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lmc_tune.core.similarity import gram_cka
from lmc_tune.data.examples import ExampleSet, Joined, are_text, at_once
from lmc_tune.measurement.network import Network
from lmc_tune.models.state import State, distance

# Examples that layers are compared on. Debiased CKA is right on average whatever it is; memory grows with it.
LIMIT = 256


@dataclass(frozen=True, kw_only=True)
class WeightSimilarity:
    """How far two members went from their common start θ₀, and in how similar a direction.

    distance: ‖θ_A − θ_B‖. distance_a, distance_b: ‖θ_A − θ₀‖ and ‖θ_B − θ₀‖.
    cosine: of θ_A − θ₀ and θ_B − θ₀, in [−1, 1]; NaN if a member did not move.
    """

    distance: float
    distance_a: float
    distance_b: float
    cosine: float


def weight_similarity(state_a: State, state_b: State, start: State, names: Iterable[str]) -> WeightSimilarity:
    """Distances and cosine over the entries ``names``, of a layer or of all, summed in float64.

    Args:
        state_a: A's parameters by name.
        state_b: B's; the same names and shapes.
        start: θ₀, where both began.
        names: what to sum over.
    """
    entries = tuple(names)
    from_a, from_b = distance(state_a, start, entries), distance(state_b, start, entries)
    dot = sum(_dot(state_a[name], state_b[name], start[name]) for name in entries)
    return WeightSimilarity(
        distance=distance(state_a, state_b, entries),
        distance_a=from_a,
        distance_b=from_b,
        cosine=float(np.clip(dot / from_a / from_b, -1, 1)) if from_a and from_b else math.nan,
    )


Grams = dict[str, NDArray[np.float64] | None]


def layer_grams(
    network: Network, state: State, examples: ExampleSet, layers: Iterable[str], limit: int = LIMIT
) -> Grams:
    """(n, n) Gram matrix of the outputs of every layer, in evaluation mode; None where one has no output of its own.

    All features are kept: of a convolution, channels at every place; of a transformer, every token. Of a module with
    several outputs it is the first. A module that runs several times has the features of all its runs. No more than
    one layer's outputs are held at a time. Of text, every token is an example: the n are :data:`LIMIT` tokens, evenly
    spaced over the windows that are run.

    Args:
        network: of the architecture; left as it is.
        state: its state dict.
        examples: on the network's device, at least 4.
        layers: names of modules.
        limit: the first so many are run, all at once, of several sets as many of each; there may be fewer. Of text
            fewer windows (:func:`~lmc_tune.data.examples.at_once`).
    """
    loaded = network.copy().loaded(state)
    found = _outputs(loaded, _first_inputs(examples, limit), layers, _gram)
    return {name: _total(grams) if grams else None for name, grams in found.items()}


def compare_grams(a: Grams, b: Grams) -> dict[str, float]:
    """Debiased linear CKA by layer (:func:`~lmc_tune.core.similarity.cka`); NaN where a layer has no outputs."""
    return {
        name: math.nan if one is None or (other := b[name]) is None else gram_cka(one, other) for name, one in a.items()
    }


@torch.no_grad()
def _outputs(
    network: nn.Module, inputs: Tensor, names: Iterable[str], reduce: Callable[[Tensor], Tensor]
) -> dict[str, list[Tensor]]:
    """What ``reduce`` makes of every output (n, features), by name, one for each time the module runs.

    It is called at once and must not keep what it is given: later layers may overwrite that in place.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in names}

    def keep(name: str, output: object) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, Tensor) and first.ndim > 0 and len(first) == len(inputs):
            found[name].append(reduce(_rows(first, inputs)))

    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: keep(name, output)
        )
        for name in found
    ]
    network.eval()(inputs)
    for hook in hooks:
        hook.remove()
    return found


def _rows(outputs: Tensor, inputs: Tensor) -> Tensor:
    """(n, features) of all examples; of text, of some tokens, evenly spaced."""
    if not are_text(inputs):
        return outputs.reshape(len(inputs), -1)
    tokens = outputs.reshape(inputs.numel(), -1)
    return tokens[torch.linspace(0, len(tokens) - 1, min(LIMIT, len(tokens)), device=inputs.device).round().long()]


def _gram(outputs: Tensor) -> Tensor:
    """(n, n) inner products of the outputs' deviations from their mean."""
    from_first = outputs.double() - outputs[0]  # so that a feature that does not vary is 0 exactly
    centred = from_first - from_first.mean(dim=0)
    return centred @ centred.T


def _total(grams: list[Tensor]) -> NDArray[np.float64]:
    """The Gram matrix of the features of all runs of a layer."""
    return torch.stack(grams).sum(0).cpu().numpy()


def _first_inputs(examples: ExampleSet, limit: int) -> Tensor:
    if limit < 1 or not len(examples):
        raise ValueError(f"layers are compared on at least one example, got limit {limit} and {len(examples)} examples")
    sets, limit = examples.sets if isinstance(examples, Joined) else (examples,), at_once(examples, limit)
    return torch.cat([next(one.chunks(-(-limit // len(sets)))).inputs for one in sets])


def _dot(a: Tensor, b: Tensor, start: Tensor) -> float:
    origin = start.double()
    return float(((a.double() - origin) * (b.double() - origin)).sum())
