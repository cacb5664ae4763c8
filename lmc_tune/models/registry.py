"""From a model's spec to a network with its initial weights."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from lmc_tune.errors import UserError
from lmc_tune.experiment import FactorySpec, ModelSpec
from lmc_tune.experiment.networks import inputs_in_words
from lmc_tune.models.adapt import initialise
from lmc_tune.models.dropout import seed_dropouts
from lmc_tune.models.foreign import call_factory, import_factory
from lmc_tune.models.gpt import gpt
from lmc_tune.models.mlp import mlp
from lmc_tune.models.resnet import resnet
from lmc_tune.models.vgg import vgg
from lmc_tune.models.vit import vit

Builder = Callable[[Any, tuple[int, ...], int], nn.Module]

BUILDERS: dict[str, Builder] = {"mlp": mlp, "vgg": vgg, "resnet": resnet, "vit": vit, "gpt": gpt}


def build_model(  # noqa: PLR0913
    spec: ModelSpec,
    input_shape: tuple[int, ...],
    n_classes: int,
    seed: int,
    device: torch.device | str = "cpu",
    *,
    folders: Sequence[str] = (),
) -> nn.Module:
    """Build a network and initialise it from ``seed``.

    Initial weights are always drawn on the CPU, so that they do not depend on the device; torch's global random
    state is left as it was.

    Args:
        spec: the architecture.
        input_shape: of one example, (channels, height, width) of images, (context,) of text.
        n_classes: width of the output.
        seed: the same seed gives the same weights.
        device: the device of the model.
        folders: where a factory is looked for before ``sys.path``.

    Raises:
        UserError: if the network cannot take such inputs, or a factory cannot be imported or returns no network.
    """
    if needs := spec.needs(input_shape):
        raise UserError(f"{spec.name} {needs}, not {inputs_in_words(input_shape)}")
    # Attention's fused kernel for evaluation rounds differently from training, and cannot be stacked.
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs too
        if isinstance(spec, FactorySpec):
            model = call_factory(import_factory(spec, folders), spec, input_shape, n_classes)
        else:
            model = initialise(BUILDERS[spec.name](spec, input_shape, n_classes), spec.init)
    return seed_dropouts(model).to(device)


def count_parameters(spec: ModelSpec, input_shape: tuple[int, ...], n_classes: int, folders: Sequence[str] = ()) -> int:
    """How many weights a network has; a factory is looked for in ``folders`` first, and run."""
    if isinstance(spec, FactorySpec):
        model = build_model(spec, input_shape, n_classes, seed=0, folders=folders)
    else:
        with torch.device("meta"):  # shapes alone
            model = BUILDERS[spec.name](spec, input_shape, n_classes)
    return sum(parameter.numel() for parameter in model.parameters())
