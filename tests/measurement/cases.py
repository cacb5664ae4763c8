"""Small networks of every kind for images of 3x32x32, with running statistics and norms as training leaves them."""

import torch
from torch import nn

from lmc_tune.data.datasets import Examples
from lmc_tune.models.registry import build_model
from lmc_tune.specs import MlpSpec, ModelSpec, ResnetSpec, VggSpec, VitSpec

NETWORKS: dict[str, ModelSpec] = {
    "mlp": MlpSpec(hidden=(6, 5)),
    "mlp batch": MlpSpec(hidden=(6, 7), norm="batch"),
    "mlp layer": MlpSpec(hidden=(6,), norm="layer"),
    "vgg": VggSpec(width=1 / 16),
    "vgg batch": VggSpec(width=1 / 16, norm="batch"),
    "vgg group": VggSpec(width=1 / 16, norm="group"),
    "resnet batch": ResnetSpec(depth=8, width=1 / 4, norm="batch"),
    "resnet layer": ResnetSpec(depth=8, width=1 / 4, norm="layer", shortcut="3x3"),
    "resnet-18 batch": ResnetSpec(depth=18, width=1 / 16, norm="batch"),
    "vit": VitSpec(patch=16, depth=2, heads=2, dim=8, mlp_dim=12),
}
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = Examples(
    inputs=torch.randn(50, 3, 32, 32, generator=GENERATOR, dtype=torch.float64),
    labels=torch.randint(4, (50,), generator=GENERATOR),
)


def image_network(kind: str, seed: int) -> nn.Module:
    """In double precision; no norm has the scale, offset or statistics that it began with."""
    model = build_model(NETWORKS[kind], (3, 32, 32), 4, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64), alpha=0.3)
        model.train()
        for batch in IMAGES.inputs.split(10):
            model(batch + 0.1 * seed)
    return model
