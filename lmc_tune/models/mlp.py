"""Multilayer perceptrons."""

from collections import OrderedDict
from math import prod

from torch import nn

from lmc_tune.experiment import MlpSpec

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


def mlp(spec: MlpSpec, input_shape: tuple[int, ...], n_classes: int) -> nn.Sequential:
    """Flatten, then linear (+ norm) + activation per hidden layer, then a linear head.

    Layers are named ``linear1``, ``norm1``, ..., ``head``, so that a layer-wise table reads by itself. A
    linear layer before BatchNorm has no bias: the norm would cancel it, and rounding would make it a random walk.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    width_in = prod(input_shape)
    for number, width in enumerate(spec.hidden, start=1):
        layers[f"linear{number}"] = nn.Linear(width_in, width, bias=spec.norm != "batch")
        if spec.norm == "batch":
            layers[f"norm{number}"] = nn.BatchNorm1d(width)
        elif spec.norm == "layer":
            layers[f"norm{number}"] = nn.LayerNorm(width)
        layers[f"activation{number}"] = _ACTIVATIONS[spec.activation]()
        if spec.dropout:
            layers[f"dropout{number}"] = nn.Dropout(spec.dropout)
        width_in = width
    layers["head"] = nn.Linear(width_in, n_classes)
    return nn.Sequential(layers)
