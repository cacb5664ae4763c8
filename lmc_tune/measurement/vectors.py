"""A network's parameters as one vector, float64, for arithmetic that has to be exact."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from lmc_tune.core.barrier import Array
from lmc_tune.measurement.network import Network
from lmc_tune.models.state import State


class WeightVectors:
    """Some parameters of a network; one that has several names counts once.

    Args:
        network: of the architecture.
        names: of parameters; None for all.

    Attributes:
        size: of the vectors.
    """

    def __init__(self, network: Network, names: Iterable[str] | None = None) -> None:
        same: dict[int, list[str]] = {}
        for name, parameter in network.module.named_parameters(remove_duplicate=False):
            same.setdefault(id(parameter), []).append(name)
        asked = None if names is None else set(names)
        self._entries = [tuple(own) for own in same.values() if asked is None or asked & set(own)]
        self.size = sum(network.module.get_parameter(own[0]).numel() for own in self._entries)

    def vector(self, state: State) -> Array:
        """(n,) the parameters of a state, one after the other."""
        return np.concatenate([state[own[0]].cpu().double().numpy().ravel() for own in self._entries])

    def entries(self, vector: Array, like: State) -> dict[str, Tensor]:
        """The parts of a vector (n,) by the names of the parameters, float64, shaped and placed as a state's."""
        sizes = [like[own[0]].numel() for own in self._entries]
        parts = torch.from_numpy(vector).split(sizes)
        return {
            name: part.view(like[name].shape).to(like[name].device)
            for own, part in zip(self._entries, parts, strict=True)
            for name in own
        }
