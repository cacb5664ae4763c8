"""Small networks of every kind, with running statistics and norms as training leaves them."""

import torch
from torch import Tensor, nn

from lmc_tune.data.examples import Examples
from lmc_tune.models.registry import build_model
from tests.cases import NETWORKS, examples_for, images, shape_of

IMAGES = images(50)


def image_network(kind: str, seed: int) -> nn.Module:
    """In double precision; no norm has the scale, offset or statistics that it began with."""
    model = build_model(NETWORKS[kind], shape_of(NETWORKS[kind]), 4, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64), alpha=0.3)
        model.train()
        for batch in examples_of(kind).inputs.split(10):
            model(batch + 0.1 * seed if batch.is_floating_point() else batch)
    return model


def examples_of(kind: str) -> Examples:
    """50 that such a network takes."""
    return examples_for(NETWORKS[kind], 50)


class Backwards(nn.Module):
    """Registers its layers in the opposite order of their use; one is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.idle, self.middle = nn.Linear(3, 2), nn.Linear(9, 9), nn.BatchNorm1d(3, affine=False)
        self.first, self.shift = nn.Linear(4, 3), nn.Parameter(torch.zeros(3))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.middle(self.first(inputs)) + self.shift)


class Tied(nn.Module):
    """The head's weight is the first layer's; the head has an offset of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.inner, self.embed = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.inner(self.embed(inputs)).relu())
