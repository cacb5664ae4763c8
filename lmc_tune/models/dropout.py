"""Dropout whose masks follow from a seed, so that every engine, device and run drops the same."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

# Constants of SplitMix64 (Steele, Lea and Flood 2014), as signed numbers.
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)
_BITS = 24


class SeededDropout(nn.Module):
    """In training, zeroes each entry with chance ``p`` and divides the others by 1 − p, as :class:`torch.nn.Dropout`.

    Which entries are zeroed follows from :attr:`dropout_seed`, a number that the training code sets before every step,
    from the layer's ``number`` within its network, and from the entry's place in its batch. The seed is no part of the
    state.
    """

    dropout_seed: Tensor

    def __init__(self, p: float, number: int) -> None:
        super().__init__()
        self.p = p
        self.number = number
        self.register_buffer("dropout_seed", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.drop(inputs, self.dropout_seed)

    def drop(self, inputs: Tensor, seeds: Tensor) -> Tensor:
        """Inputs (..., entries of a batch) of networks with these seeds (...)."""
        if not self.training or self.p == 0:
            return inputs
        shape = inputs.shape[seeds.dim() :]
        place = torch.arange(shape.numel(), device=inputs.device).view(shape)
        first = _mixed(seeds + self.number).view(*seeds.shape, *(1 for _ in shape))
        bits = _mixed(first + place * _GAMMA) >> (64 - _BITS) & ((1 << _BITS) - 1)
        return (inputs / (1 - self.p)).masked_fill(bits < self.p * (1 << _BITS), 0)


def seed_dropouts(model: nn.Module) -> nn.Module:
    """Replace every ``nn.Dropout`` by a :class:`SeededDropout`, in place."""
    number = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Dropout:
                setattr(parent, name, SeededDropout(child.p, number))
                number += 1
    return model


def dropout_seeds(buffers: Iterable[tuple[str, Tensor]]) -> list[Tensor]:
    """The seeds of all dropout layers, from a network's or a stack's named buffers."""
    return [tensor for name, tensor in buffers if name.rpartition(".")[2] == "dropout_seed"]


def _mixed(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * _MIX_1
    z = (z ^ _shifted(z, 27)) * _MIX_2
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, by: int) -> Tensor:
    """Shift as for unsigned numbers: torch copies the sign into the places that become free."""
    return (z >> by) & ((1 << (64 - by)) - 1)
