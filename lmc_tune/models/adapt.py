"""Adapting networks: their normalisation and their initial weights, by name."""

from collections.abc import Callable
from functools import partial
from math import gcd

from torch import Tensor, nn

_GROUPS = 32
_INITIALISERS: dict[str, Callable[[Tensor], object]] = {
    "kaiming": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "xavier": nn.init.xavier_uniform_,
    "orthogonal": nn.init.orthogonal_,
}


def renormalise(model: nn.Module, norm: str) -> nn.Module:
    """Replace every BatchNorm2d by another normalisation, in place.

    ``none``: nothing; ``batch``: leave it; ``layer``: GroupNorm with one group, over channels and positions of one
    example with a scale and an offset per channel; ``group``: GroupNorm with 32 groups, or fewer where the
    channels are too few for two in each.
    """
    if norm != "batch":
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.BatchNorm2d):
                    setattr(parent, name, _norm(norm, child.num_features))
    return model


def initialise(model: nn.Module, init: str) -> nn.Module:
    """Draw the weights of every linear and convolutional layer again, in place; their biases become 0.

    ``torch``, ``gpt2``: leave every layer as it was built; ``kaiming``: normal, fan in, for ReLU (He et al. 2015);
    ``xavier``: uniform (Glorot and Bengio 2010); ``orthogonal`` (Saxe et al. 2014).
    """
    if init in _INITIALISERS:
        for layer in model.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                _INITIALISERS[init](layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    return model


def _norm(norm: str, channels: int) -> nn.Module:
    if norm == "none":
        return nn.Identity()
    return nn.GroupNorm(1 if norm == "layer" else gcd(_GROUPS, max(1, channels // 2)), channels)
