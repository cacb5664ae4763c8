"""From a model's spec to a network with its initial weights."""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from lmc_tune.errors import UserError
from lmc_tune.experiment import FactorySpec, ModelSpec
from lmc_tune.models.adapt import initialise
from lmc_tune.models.dropout import seed_dropouts
from lmc_tune.models.mlp import mlp
from lmc_tune.models.resnet import resnet
from lmc_tune.models.vgg import vgg
from lmc_tune.models.vit import vit

Builder = Callable[[Any, tuple[int, ...], int], nn.Module]

BUILDERS: dict[str, Builder] = {"mlp": mlp, "vgg": vgg, "resnet": resnet, "vit": vit}


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

    Raises:
        UserError: if the network cannot take such inputs, or a factory cannot be imported, or gives no network.
    """
    height, width = input_shape[1:]
    if needs := spec.needs(height, width):
        raise UserError(f"{spec.name} {needs}, not {height}x{width}")
    # Attention's fused kernel for evaluation rounds otherwise than training does, and cannot be stacked.
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs too
        if isinstance(spec, FactorySpec):
            model = _made_by(spec)
        else:
            model = initialise(BUILDERS[spec.name](spec, input_shape, n_classes), spec.init)
    return seed_dropouts(model).to(device)


def count_parameters(
    spec: Any, input_shape: tuple[int, ...], n_classes: int, *, run_factories: bool = False
) -> int | None:
    """How many weights a network has; None for a factory's unless its code may be run."""
    if isinstance(spec, FactorySpec):
        if not run_factories:
            return None
        model = build_model(spec, input_shape, n_classes, seed=0)
    else:
        with torch.device("meta"):  # shapes alone
            model = BUILDERS[spec.name](spec, input_shape, n_classes)
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def check_fits(model: nn.Module, input_shape: tuple[int, ...], n_classes: int) -> None:
    """Pass two images forward.

    Raises:
        UserError: if the network cannot take them, has weights that wait for a first image, or gives something else
            than one output per class.
    """
    images = "x".join(map(str, input_shape))
    if any(isinstance(parameter, UninitializedParameter) for parameter in model.parameters()):
        raise UserError(f"has weights without a size; pass images of {images} through it before it is returned")
    try:
        outputs = model.eval()(torch.zeros(2, *input_shape))
    except Exception as error:
        raise UserError(f"cannot take images of {images}: {_said(error)}") from error
    if not isinstance(outputs, torch.Tensor) or outputs.shape != (2, n_classes):
        shape = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise UserError(
            f"gives {shape} for two images; there are {n_classes} classes, so it has to be (2, {n_classes})"
        )


def _made_by(spec: FactorySpec) -> nn.Module:
    module, _, name = spec.factory.partition(":")
    try:
        imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a script without a guard reads our command line, and exits
        raise _refused(
            spec,
            f"cannot be imported: {_said(error)}",
            f"install {module}, start lmc-tune in the folder that holds it, or mend what python -c 'import {module}' "
            f"shows",
        ) from error
    factory = getattr(imported, name, None)
    if not callable(factory):
        what = f"is of type {type(factory).__name__}" if hasattr(imported, name) else "is not there"
        raise _refused(spec, what, f"name a function of {module} that returns a torch.nn.Module")
    try:
        model = factory(**spec.arguments)
    except (Exception, SystemExit) as error:
        given = f", or model.arguments: {spec.arguments}" if spec.arguments else ""
        raise _refused(spec, f"failed with {_said(error)}", f"mend it{given}") from error
    if not isinstance(model, nn.Module):
        raise _refused(spec, f"gave {type(model).__name__}, not a torch.nn.Module", "let it return the network")
    return model


def _refused(spec: FactorySpec, why: str, mend: str) -> UserError:
    return UserError(f"model.factory: {spec.factory} {why}; {mend}")


def _said(error: BaseException) -> str:
    """The kind of an error and the first line of its message."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
