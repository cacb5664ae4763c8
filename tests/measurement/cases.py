"""Small networks of every kind, with running statistics and norms as training leaves them."""

import torch
from torch import nn

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
