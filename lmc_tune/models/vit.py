"""Vision transformers for small images, torchvision's."""

from typing import Any

from torch import nn

from lmc_tune.experiment import VitSpec
from lmc_tune.vision import import_torchvision


def vit(spec: VitSpec, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """Patches, a class token, learnt positions, encoder blocks with LayerNorm first, and a linear head."""
    channels, side, _ = input_shape
    torchvision: Any = import_torchvision().models
    model: nn.Module = torchvision.VisionTransformer(
        image_size=side,
        patch_size=spec.patch,
        num_layers=spec.depth,
        num_heads=spec.heads,
        hidden_dim=spec.dim,
        mlp_dim=spec.mlp_dim,
        dropout=spec.dropout,
        num_classes=n_classes,
    )
    if channels != 3:
        model.conv_proj = nn.Conv2d(channels, spec.dim, kernel_size=spec.patch, stride=spec.patch)
    # torchvision starts the head at 0, and then every pair would start from the same function.
    model.get_submodule("heads.head").reset_parameters()  # type: ignore[operator]
    return model
