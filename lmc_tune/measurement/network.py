"""A network whose weights come and go: the only place in this room that writes weights into a module."""

import copy
from functools import cached_property
from typing import Self

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lmc_tune.models.state import State, lerp_into


def holding(module: nn.Module, state: State) -> nn.Module:
    """The module, with the state's own tensors as its weights: whatever writes into it would write into the state."""
    module.load_state_dict(state, assign=True)
    return module


class Network:
    """An architecture; which weights it has is for each measurement to say.

    module: its own weights, statistics and mode are overwritten.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def loaded(self, state: State) -> nn.Module:
        """The module, with these weights copied into it."""
        self.module.load_state_dict(state)
        return self.module

    def moved_to(self, state_a: State, state_b: State, position: float) -> nn.Module:
        """The module at a position between two states, in the memory that its weights have."""
        lerp_into(self._weights, state_a, state_b, position)
        return self.module

    def copy(self) -> Self:
        """Another of the same architecture, which shares no memory with this one."""
        return type(self)(copy.deepcopy(self.module))

    @cached_property
    def layers(self) -> dict[str, tuple[str, ...]]:
        """The names of every layer's parameters, by layer, in the order in which they are registered.

        A layer is a module that holds parameters of its own; its name is the module's, ``""`` for the network itself.
        """
        layers: dict[str, tuple[str, ...]] = {}
        for name in self.parameters:
            layer = name.rpartition(".")[0]
            layers[layer] = (*layers.get(layer, ()), name)
        return layers

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The names of all parameters."""
        return tuple(name for name, _ in self.module.named_parameters())

    @cached_property
    def norms(self) -> dict[str, _BatchNorm]:
        """The BatchNorm layers that keep running statistics, by name."""
        return {
            name: module
            for name, module in self.module.named_modules()
            if isinstance(module, _BatchNorm) and module.track_running_stats
        }

    @cached_property
    def _weights(self) -> State:
        return self.module.state_dict()
