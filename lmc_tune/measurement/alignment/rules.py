"""How each kind of layer and operation lets units pass, or does not.

A rule gets what was called, with what, and what came out; it attaches the layer's weights to the units that they read
and make, and says which units run along what came out.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from lmc_tune.measurement.alignment.attention import READS_FIXED, attention_module, product, scaled_dot_product
from lmc_tune.measurement.alignment.links import STATISTICS, Call, Links, Ref, Value
from lmc_tune.measurement.alignment.shapes import (
    expanded,
    item,
    joined,
    parted,
    permuted,
    reshaped,
    stacked,
    unbound,
)

# Rules for modules: what they were given, the tensor that they made.


def _linear(links: Links, call: Call) -> Value:
    (given,) = call.args
    links.attach(given.dims[-1], f"{call.name}.weight", 1, call.module.in_features, READS_FIXED)
    out = links.new(call.module.out_features)
    links.attach(out, f"{call.name}.weight", 0, call.module.out_features, "")
    if call.module.bias is not None:
        links.attach(out, f"{call.name}.bias", 0, call.module.out_features, "")
    return Value(call.made, (*given.dims[:-1], out))


def _convolution(links: Links, call: Call) -> Value:
    (given,) = call.args
    weight = call.module.weight
    for dim in range(2, weight.dim()):
        links.fixed[f"{call.name}.weight", dim] = "it is an axis of the kernel"
    for ref in given.dims[2:]:
        links.freeze(ref, f"{call.name} runs along units")
    into, depthwise = given.dims[1], call.module.groups == call.module.in_channels == call.module.out_channels
    if call.module.groups == 1:
        links.attach(into, f"{call.name}.weight", 1, weight.shape[1], READS_FIXED)
        out: Ref | None = links.new(call.module.out_channels)
    else:
        links.fixed[f"{call.name}.weight", 1] = f"{call.name} has {call.module.groups} groups"
        out = into
        if not depthwise:
            links.freeze(into, f"{call.name} has {call.module.groups} groups")
            out = None
    why = "" if out is not None else f"{call.name} has {call.module.groups} groups"
    links.attach(out, f"{call.name}.weight", 0, call.module.out_channels, why)
    if call.module.bias is not None:
        links.attach(out, f"{call.name}.bias", 0, call.module.out_channels, why)
    return Value(call.made, (given.dims[0], out, *(None for _ in range(call.made.dim() - 2))))


def _channel_norm(links: Links, call: Call) -> Value:
    (given,) = call.args
    groups = getattr(call.module, "num_groups", None)
    channels = given.tensor.shape[1]
    if groups not in {None, 1, channels}:
        links.freeze(given.dims[1], f"{call.name} normalises {groups} groups of channels")
    _along(links, call.name, call.module, given.dims[1], channels)
    return Value(call.made, given.dims)


def _layer_norm(links: Links, call: Call) -> Any:
    (given,) = call.args
    if len(call.module.normalized_shape) > 1:
        return links.opaque(
            call.args, call.made, f"{call.name} normalises several dimensions", _own(call.name, call.module)
        )
    _along(links, call.name, call.module, given.dims[-1], call.module.normalized_shape[0])
    return Value(call.made, given.dims)


def _along(links: Links, name: str, module: nn.Module, ref: Ref | None, size: int) -> None:
    for own in ("weight", "bias", *STATISTICS):
        if getattr(module, own, None) is not None:
            links.attach(ref, f"{name}.{own}", 0, size, "it scales what cannot be permuted")


def _own(name: str, module: nn.Module) -> list[str]:
    return [f"{name}.{own}" for own, _ in module.named_parameters()]


def _passes(_: Links, call: Call) -> Value:
    return Value(call.made, call.args[0].dims)


def _pooling(links: Links, call: Call) -> Value:
    (given,) = call.args
    channel = given.tensor.dim() - (2 if "1d" in type(call.module).__name__ else 3)
    return _pooled(links, call, channel)


def _embedding(links: Links, call: Call) -> Value:
    (given,) = call.args
    links.fixed[f"{call.name}.weight", 0] = "it is read by index"
    out = links.new(call.module.embedding_dim)
    links.attach(out, f"{call.name}.weight", 1, call.module.embedding_dim, "")
    return Value(call.made, (*given.dims, out))


ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid),
    *(nn.Hardswish, nn.Hardtanh, nn.Hardsigmoid, nn.Softplus),
)
_PASSING = (*ACTIVATIONS, nn.Identity, nn.Softmax, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
MODULES: tuple[tuple[tuple[type, ...], Callable[..., Any]], ...] = (
    ((nn.Linear,), _linear),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    (
        (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.GroupNorm),
        _channel_norm,
    ),
    ((nn.LayerNorm,), _layer_norm),
    (_PASSING, _passes),
    (
        (
            *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d),
            *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
        ),
        _pooling,
    ),
    ((nn.Flatten,), reshaped),
    ((nn.Embedding,), _embedding),
    ((nn.MultiheadAttention,), attention_module),
)


# Rules for functions and methods.


def _elementwise(links: Links, call: Call) -> Value:
    """Of several tensors, aligned from their last dimensions, units meet units; a dimension of one meets anything."""
    values = [value for value in (*call.args, *call.kwargs.values()) if isinstance(value, Value)]
    dims: list[Ref | None] = []
    for back in range(call.made.dim(), 0, -1):
        there = [value.dims[-back] for value in values if value.tensor.dim() >= back and value.tensor.shape[-back] > 1]
        ref = there[0] if there else None
        for other in there[1:]:
            ref = links.link(ref, other, f"{call.name} joins units with what cannot be permuted")
        dims.append(ref)
    return Value(call.made, tuple(dims))


def _reduced(_: Links, call: Call) -> Value:
    """Over units too: a mean does not depend on their order."""
    given, rest = call.args[0], call.args[1:]
    which = call.kwargs.get("dim", rest[0] if rest else None)
    n = given.tensor.dim()
    if which is None:
        return Value(call.made, (None,) * call.made.dim())
    gone = {dim % n for dim in ([which] if isinstance(which, int) else which)}
    kept = call.kwargs.get("keepdim", rest[1] if len(rest) > 1 else False)
    dims = [None if dim in gone else ref for dim, ref in enumerate(given.dims) if kept or dim not in gone]
    return Value(call.made, tuple(dims))


def _linear_call(links: Links, call: Call) -> Value:
    """With a weight, and perhaps a bias, that is read from elsewhere."""
    given, weight, bias = call.named("input", "weight", "bias")
    links.link(given.dims[-1], weight.dims[-1], f"{call.name} reads what cannot be permuted")
    if bias is not None:
        links.link(weight.dims[0], bias.dims[0], f"{call.name} adds a bias that cannot be permuted")
    return Value(call.made, (*given.dims[:-1], weight.dims[0]))


def _layer_norm_call(links: Links, call: Call) -> Any:
    given, shape, *own = call.named("input", "normalized_shape", "weight", "bias")
    if len(shape) > 1:
        return links.opaque((call.args, call.kwargs), call.made, f"{call.name} normalises several dimensions")
    ref = given.dims[-1]
    for scale in own:
        if scale is not None:
            ref = links.link(ref, scale.dims[0], f"{call.name} scales what cannot be permuted")
    return Value(call.made, (*given.dims[:-1], ref))


def _pooled_call(links: Links, call: Call) -> Value:
    return _pooled(links, call, call.args[0].tensor.dim() - 3)


def _pooled(links: Links, call: Call, channel: int) -> Value:
    given = call.args[0]
    for ref in given.dims[channel + 1 :]:
        links.freeze(ref, f"{call.name} pools over units")
    return Value(call.made, (*given.dims[: channel + 1], *(None for _ in given.dims[channel + 1 :])))


_ELEMENTWISE = (
    "add",
    "iadd",
    "sub",
    "mul",
    "truediv",
    "div",
    "add_",
    "mul_",
    "maximum",
    "minimum",
    "masked_fill",
    "clamp",
)
ACTIVATION_CALLS = (
    *("relu", "relu_", "relu6", "gelu", "silu", "tanh", "sigmoid"),
    *("hardswish", "hardsigmoid", "leaky_relu", "elu"),
)
_PASSING_CALLS = (
    *ACTIVATION_CALLS,
    *("dropout", "contiguous", "clone", "detach", "float", "to", "neg", "abs", "softmax", "log_softmax", "type_as"),
)
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_PASSING_CALLS, _passes),
    **dict.fromkeys(("mean", "sum", "amax"), _reduced),
    **dict.fromkeys(("flatten", "view", "reshape", "unflatten", "squeeze", "unsqueeze"), reshaped),
    **dict.fromkeys(("permute", "transpose"), permuted),
    **dict.fromkeys(("cat", "concat"), joined),
    **dict.fromkeys(("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "boolean_dispatch"), _pooled_call),
    **dict.fromkeys(("chunk", "split"), parted),
    **dict.fromkeys(("matmul", "bmm"), product),
    "linear": _linear_call,
    "layer_norm": _layer_norm_call,
    "scaled_dot_product_attention": scaled_dot_product,
    "expand": expanded,
    "getitem": item,
    "stack": stacked,
    "unbind": unbound,
}
