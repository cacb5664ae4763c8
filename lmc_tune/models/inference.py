"""Networks made ready for many evaluations with the same weights."""

import copy
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lmc_tune.vision import import_torchvision


def of_known_layers(model: nn.Module) -> bool:
    """Whether every layer is of a kind that is known: torch's, torchvision's or our own."""
    known = ("torch.nn.", "torchvision.", "lmc_tune.")
    return all(type(module).__module__.startswith(known) for module in model.modules())


def is_convolutional(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


def for_inference(model: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode that a CPU evaluates faster; outputs are the same but for rounding.

    Convolutions keep their channels last: one with 3 or 16 channels fills a vector by them, and poolings and norms
    read their inputs in order. A BatchNorm behind a convolution becomes part of its weights, which saves a pass over
    its outputs; only in networks of known layers, where it is certain that nothing else reads those outputs.
    """
    network = copy.deepcopy(model).eval()
    if of_known_layers(network):
        for parent, conv, norm in list(_normed_convolutions(network)):
            setattr(parent, conv, fuse_conv_bn_eval(getattr(parent, conv), getattr(parent, norm)))
            setattr(parent, norm, nn.Identity())
    nn.utils.convert_conv2d_weight_memory_format(network, torch.channels_last)
    return network


def _normed_convolutions(network: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Parents with the names of a convolution and of the BatchNorm that alone reads its outputs."""
    for parent in network.modules():
        if isinstance(parent, nn.Sequential):
            names = list(pairwise(name for name, _ in parent.named_children()))
        elif isinstance(parent, import_torchvision().models.resnet.BasicBlock):
            names = [("conv1", "bn1"), ("conv2", "bn2")]
        else:
            continue
        for conv, norm in names:
            layer = getattr(parent, norm)
            # Exactly these types: a parametrised weight cannot be assigned.
            if type(getattr(parent, conv)) is nn.Conv2d and type(layer) is nn.BatchNorm2d and layer.track_running_stats:
                yield parent, conv, norm
