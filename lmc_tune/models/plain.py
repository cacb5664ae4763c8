"""Which networks can be taken apart, fused and stacked."""

from torch import nn

from lmc_tune.models.dropout import SeededDropout

# The layers of lmc-tune's networks. Exactly these types: a subclass may do anything.
_KNOWN = (
    nn.Sequential,
    nn.Flatten,
    nn.Identity,
    nn.Linear,
    nn.Embedding,
    nn.Conv2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.ReLU,
    nn.Tanh,
    nn.GELU,
    nn.MaxPool2d,
    nn.AdaptiveAvgPool2d,
    nn.MultiheadAttention,
    nn.modules.linear.NonDynamicallyQuantizableLinear,  # part of attention
    SeededDropout,
)
_KNOWN_MODULES = ("torchvision.models.resnet", "torchvision.models.vision_transformer", "lmc_tune.models.gpt")


def is_plain(model: nn.Module) -> bool:
    """Whether a network consists of known layers, each used once, all of them trained, without hooks.

    Only then can layers be taken apart, fused or stacked without knowing what else the network does.
    """
    modules = [module for _, module in model.named_modules(remove_duplicate=False)]
    parameters = [parameter for _, parameter in model.named_parameters(remove_duplicate=False)]
    return (
        len(set(modules)) == len(modules)
        and len(set(parameters)) == len(parameters)
        and all(parameter.requires_grad for parameter in parameters)
        and all(type(module) in _KNOWN or type(module).__module__ in _KNOWN_MODULES for module in modules)
        and not any(module._forward_hooks or module._forward_pre_hooks for module in modules)  # noqa: SLF001 - torch has no other way
    )
