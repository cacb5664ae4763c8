"""From a model's spec to a network with its initial weights."""

from collections.abc import Callable

import torch
from torch import nn

from lmc_tune.models.mlp import mlp
from lmc_tune.specs import ModelSpec

Builder = Callable[[ModelSpec, tuple[int, ...], int], nn.Module]

BUILDERS: dict[str, Builder] = {"mlp": mlp}


def build_model(
    spec: ModelSpec, input_shape: tuple[int, ...], n_classes: int, seed: int, device: torch.device | str = "cpu"
) -> nn.Module:
    """Build a network and initialise it from ``seed``.

    Initial weights are always drawn on the CPU, so that they do not depend on the device; torch's global random
    state is left as it was.

    Args:
        spec: the architecture.
        input_shape: of one example, (channels, height, width).
        n_classes: width of the output.
        seed: the same seed gives the same weights.
        device: where the model ends up.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs too
        model = BUILDERS[spec.name](spec, input_shape, n_classes)
    return model.to(device)
