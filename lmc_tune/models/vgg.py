"""VGG networks for small images: torchvision's feature layers with a linear head."""

from typing import Any

from torch import nn

from lmc_tune.experiment import VggSpec
from lmc_tune.models.adapt import renormalise
from lmc_tune.vision import import_torchvision

_LAYERS = {11: "A", 13: "B", 16: "D"}  # torchvision's names of the lists of layers


def vgg(spec: VggSpec, input_shape: tuple[int, ...], n_classes: int) -> nn.Sequential:
    """Convolutions with five poolings in between, global average pooling, and a linear head.

    A convolution before BatchNorm has no bias: the norm would cancel it, and rounding would make it a random walk.
    """
    channels = input_shape[0]
    torchvision: Any = import_torchvision().models.vgg
    layers = [width if width == "M" else round(spec.width * width) for width in torchvision.cfgs[_LAYERS[spec.depth]]]
    features = torchvision.make_layers(layers, batch_norm=spec.norm != "none")
    if channels != 3:
        features[0] = nn.Conv2d(channels, layers[0], kernel_size=3, padding=1)
    if spec.norm == "batch":
        for layer in features:
            if isinstance(layer, nn.Conv2d):
                layer.register_parameter("bias", None)
    renormalise(features, spec.norm)
    dropout = [nn.Dropout(spec.dropout)] if spec.dropout else []
    head = nn.Linear(layers[-2], n_classes)
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *dropout, head)
