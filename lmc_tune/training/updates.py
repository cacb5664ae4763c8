"""Update rules for a stack of networks, every member has its own coefficients."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lmc_tune.experiment import TrainSpec
from lmc_tune.models.stack import Stack


class Sgd:
    """Momentum, Nesterov and weight decay as :class:`torch.optim.SGD`, with each member's own coefficients."""

    def __init__(self, stack: Stack, specs: Sequence[TrainSpec]) -> None:
        self._stack = stack
        self._decay = _column(stack, [spec.weight_decay for spec in specs])
        self._decays = any(spec.weight_decay for spec in specs)  # else a pass over all weights is saved
        self._momentum = _column(stack, [spec.momentum for spec in specs])
        self._nesterov = specs[0].nesterov
        self._velocity = torch.zeros_like(stack.weights)
        self.state = [self._velocity]

    def moments(self, member: int) -> dict[str, Tensor]:
        """A copy of a member's moments, under torch's names."""
        return {"momentum_buffer": self._velocity[member].to("cpu", copy=True)}

    def set_moments(self, moments: Sequence[Mapping[str, Tensor]]) -> None:
        """Set the moments of each member; those of one that has just begun are empty."""
        for row, entries in zip(self._velocity, moments, strict=True):
            if "momentum_buffer" in entries:
                row.copy_(entries["momentum_buffer"])

    def step(self, gradients: Tensor, rate: Tensor) -> None:
        """One update; ``gradients`` are shaped as the weights, ``rate`` is (members, 1)."""
        gradient = torch.addcmul(gradients, self._stack.weights, self._decay) if self._decays else gradients
        torch.addcmul(gradient, self._velocity, self._momentum, out=self._velocity)
        direction = torch.addcmul(gradient, self._velocity, self._momentum) if self._nesterov else self._velocity
        self._stack.weights.addcmul_(direction, -rate)


class Adam:
    """:class:`torch.optim.Adam` or :class:`~torch.optim.AdamW`, with each member's own weight decay."""

    _BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8

    def __init__(self, stack: Stack, specs: Sequence[TrainSpec]) -> None:
        self._stack = stack
        self._decay = _column(stack, [spec.weight_decay for spec in specs])
        self._decoupled = specs[0].optimizer == "adamw"
        self._mean, self._square = torch.zeros_like(stack.weights), torch.zeros_like(stack.weights)
        self._steps = torch.zeros(stack.size, 1, dtype=torch.float64, device=stack.weights.device)
        self.state = [self._mean, self._square, self._steps]

    def moments(self, member: int) -> dict[str, Tensor]:
        """A copy of a member's moments, under torch's names."""
        moments = {"exp_avg": self._mean[member], "exp_avg_sq": self._square[member], "step": self._steps[member, 0]}
        return {name: moment.to("cpu", copy=True) for name, moment in moments.items()}

    def set_moments(self, moments: Sequence[Mapping[str, Tensor]]) -> None:
        """Set the moments of each member; those of one that has just begun are empty."""
        for mean, square, steps, entries in zip(self._mean, self._square, self._steps, moments, strict=True):
            if entries:
                mean.copy_(entries["exp_avg"])
                square.copy_(entries["exp_avg_sq"])
                steps.copy_(entries["step"])

    def step(self, gradients: Tensor, rate: Tensor) -> None:
        """One update; ``gradients`` are shaped as the weights, ``rate`` is (members, 1)."""
        weights, gradient = self._stack.weights, gradients
        if self._decoupled:
            weights.mul_(1 - rate * self._decay)
        else:
            gradient = torch.addcmul(gradient, weights, self._decay)
        self._steps += 1
        self._mean.lerp_(gradient, 1 - self._BETA1)
        self._square.mul_(self._BETA2).addcmul_(gradient, gradient, value=1 - self._BETA2)
        first = (1 - self._BETA1**self._steps).to(weights.dtype)
        second = (1 - self._BETA2**self._steps).sqrt().to(weights.dtype)
        scale = (self._square.sqrt() / second).add_(self._EPSILON)
        weights.addcdiv_(self._mean * (-rate / first), scale)


def make_update(stack: Stack, specs: Sequence[TrainSpec]) -> Sgd | Adam:
    """The rule of ``specs``, which differ in no more than :data:`~lmc_tune.experiment.PER_MEMBER`."""
    kinds: dict[str, type[Sgd | Adam]] = {"sgd": Sgd, "adam": Adam, "adamw": Adam}
    return kinds[specs[0].optimizer](stack, specs)


def _column(stack: Stack, values: Sequence[float]) -> Tensor:
    """(members, 1) of the stack's own type."""
    return torch.tensor(values, dtype=stack.weights.dtype, device=stack.weights.device)[:, None]
