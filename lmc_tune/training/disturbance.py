"""Weights perturbed once in training: does a small push lead to another basin (Kwok et al. 2025)?"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lmc_tune.experiment import Perturbation
from lmc_tune.models.state import State


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """What is added to some of a member's parameters, by name, after it has taken ``step`` steps."""

    step: int
    added: Mapping[str, Tensor]

    @torch.no_grad()
    def apply(self, parameters: Mapping[str, Tensor]) -> None:
        """Add it to parameters, in place."""
        for name, tensor in self.added.items():
            parameters[name].add_(tensor.to(parameters[name]))


def disturbance(spec: Perturbation, start: State, layers: Mapping[str, tuple[str, ...]], seed: int) -> Disturbance:
    """Gaussian noise on one weight, one layer or all weights; its norm is ``spec.scale`` times theirs.

    Args:
        spec: which weights, how strongly, when.
        start: the member's initial state, whose norms are used.
        layers: names of the parameters of every layer. A layer, or a weight, that is 0 at the start is never drawn: it
            has no norm.
        seed: decides which weights, and in which direction.
    """
    generator = torch.Generator().manual_seed(seed)
    values = {name: start[name].cpu().double() for own in layers.values() for name in own}
    chosen = _chosen(spec.weights, values, layers, generator)
    noise = {
        name: mask * torch.randn(mask.shape, generator=generator, dtype=torch.float64) for name, mask in chosen.items()
    }
    factor = spec.scale * _norm({name: values[name] * mask for name, mask in chosen.items()}) / _norm(noise)
    return Disturbance(step=spec.step, added={name: factor * tensor for name, tensor in noise.items()})


def _chosen(
    weights: str, values: Mapping[str, Tensor], layers: Mapping[str, tuple[str, ...]], generator: torch.Generator
) -> dict[str, Tensor]:
    """Where noise is added: masks by name."""
    if weights == "all":
        return {name: torch.ones_like(tensor) for name, tensor in values.items()}
    if weights == "layer":
        known = [own for own in layers.values() if any(values[name].any() for name in own)]
        own = known[int(torch.randint(len(known), (), generator=generator))]
        return {name: torch.ones_like(values[name]) for name in own}
    sizes = [int(tensor.count_nonzero()) for tensor in values.values()]
    drawn = int(torch.randint(sum(sizes), (), generator=generator))
    for (name, tensor), size in zip(values.items(), sizes, strict=True):
        if drawn < size:
            mask = torch.zeros_like(tensor)
            mask.view(-1)[tensor.flatten().nonzero()[drawn]] = 1
            return {name: mask}
        drawn -= size
    raise ValueError("all initial weights are 0: there is none to disturb")


def _norm(tensors: Mapping[str, Tensor]) -> float:
    return float(sum(tensor.square().sum() for tensor in tensors.values()) ** 0.5)
