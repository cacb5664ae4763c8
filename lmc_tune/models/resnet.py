"""Residual networks for small images, of torchvision's basic blocks."""

from collections import OrderedDict
from typing import Any

from torch import nn

from lmc_tune.experiment import ResnetSpec
from lmc_tune.models.adapt import renormalise
from lmc_tune.vision import import_torchvision

_IMAGENET = {18: (64, (2, 2, 2, 2))}  # channels of the first stage, blocks per stage
_CIFAR_CHANNELS = 16


def resnet(spec: ResnetSpec, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """A 3×3 stem, stages of basic blocks that halve the sides and double the channels, pooling, and a linear head."""
    first, blocks = _IMAGENET.get(spec.depth, (_CIFAR_CHANNELS, 3 * ((spec.depth - 2) // 6,)))
    width = round(spec.width * first)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Conv2d(input_shape[0], width, kernel_size=3, padding=1, bias=False),
        norm=nn.BatchNorm2d(width),
        relu=nn.ReLU(),
    )
    width_in = width
    for number, n_blocks in enumerate(blocks, start=1):
        layers[f"stage{number}"] = _stage(width_in, width, n_blocks, spec.shortcut)
        width_in, width = width, 2 * width
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "head": nn.Linear(width_in, n_classes)}
    return renormalise(nn.Sequential(layers), spec.norm)


def _stage(width_in: int, width: int, n_blocks: int, shortcut: str) -> nn.Sequential:
    torchvision: Any = import_torchvision().models.resnet
    if width_in == width:
        first = torchvision.BasicBlock(width, width)
    else:
        size = int(shortcut[0])
        across = nn.Conv2d(width_in, width, size, stride=2, padding=size // 2, bias=False)
        first = torchvision.BasicBlock(width_in, width, 2, nn.Sequential(across, nn.BatchNorm2d(width)))
    return nn.Sequential(first, *(torchvision.BasicBlock(width, width) for _ in range(1, n_blocks)))
