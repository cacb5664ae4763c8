"""How each kind of layer and operation lets units pass, or does not.

A rule gets what was called, with what, and what came out; it attaches the layer's weights to the units that they read
and make, and says which units run along what came out.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from torch import Tensor, nn

from lmc_tune.measurement.alignment.links import STATISTICS, Call, Links, Ref, Value, unlabelled

# Rules for modules: what they were given, the tensor that they made.


def _linear(links: Links, call: Call) -> Value:
    (given,) = call.args
    links.attach(given.dims[-1], f"{call.name}.weight", 1, call.module.in_features, "it reads what cannot be permuted")
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
    into, depthwise = given.dims[1], call.module.groups == call.module.in_channels == call.module.out_channels
    if call.module.groups == 1:
        links.attach(into, f"{call.name}.weight", 1, weight.shape[1], "it reads what cannot be permuted")
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


def _module_that_passes(_: Links, call: Call) -> Value:
    return Value(call.made, call.args[0].dims)


def _pooling(_: Links, call: Call) -> Value:
    (given,) = call.args
    channel = given.tensor.dim() - (2 if "1d" in type(call.module).__name__ else 3)
    return Value(call.made, tuple(ref if dim <= channel else None for dim, ref in enumerate(given.dims)))


def _flatten_module(links: Links, call: Call) -> Value:
    return _reshaped(links, call.name, call.args[0], call.made)


def _embedding(links: Links, call: Call) -> Value:
    (given,) = call.args
    links.fixed[f"{call.name}.weight", 0] = "it is read by index"
    out = links.new(call.module.embedding_dim)
    links.attach(out, f"{call.name}.weight", 1, call.module.embedding_dim, "")
    return Value(call.made, (*given.dims, out))


def _attention(links: Links, call: Call) -> Any:
    """Queries, keys and values read the same units; what they make stays within the heads, and is fixed."""
    reason = f"{call.name}: the units inside of attention's heads"
    query = call.args[0]
    if call.module.in_proj_weight is None or any(value is not query for value in call.args[:3]):
        return links.opaque(call.args, call.made, f"{call.name} reads several inputs", _own(call.name, call.module))
    d = call.module.embed_dim
    links.attach(query.dims[-1], f"{call.name}.in_proj_weight", 1, d, "it reads what cannot be permuted")
    links.fixed[f"{call.name}.in_proj_weight", 0] = links.fixed[f"{call.name}.out_proj.weight", 1] = reason
    out = links.new(d)
    links.attach(out, f"{call.name}.out_proj.weight", 0, d, "")
    if call.module.in_proj_bias is not None:
        links.fixed[f"{call.name}.in_proj_bias", 0] = reason
        links.attach(out, f"{call.name}.out_proj.bias", 0, d, "")
    for own in ("bias_k", "bias_v"):
        if getattr(call.module, own) is not None:
            links.freeze(out, f"{call.name} has {own}")
            for dim in range(3):
                links.fixed[f"{call.name}.{own}", dim] = reason
    attended, weights = call.made
    return Value(attended, (*query.dims[:-1], out)), unlabelled(weights)


ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid),
    *(nn.Hardswish, nn.Hardtanh, nn.Hardsigmoid, nn.Softplus),
)
_PASSING = (*ACTIVATIONS, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
MODULES: tuple[tuple[tuple[type, ...], Callable[..., Any]], ...] = (
    ((nn.Linear,), _linear),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    (
        (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.GroupNorm),
        _channel_norm,
    ),
    ((nn.LayerNorm,), _layer_norm),
    (_PASSING, _module_that_passes),
    (
        (
            *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d),
            *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
        ),
        _pooling,
    ),
    ((nn.Flatten,), _flatten_module),
    ((nn.Embedding,), _embedding),
    ((nn.MultiheadAttention,), _attention),
)


# Rules for functions and methods.


def _passes(_: Links, call: Call) -> Value:
    return Value(call.made, call.args[0].dims)


def _elementwise(links: Links, call: Call) -> Value:
    """Of several tensors, aligned from their last dimensions, units meet units; a dimension of one meets anything."""
    values = [value for value in call.args if isinstance(value, Value)]
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


def _reshaped_call(links: Links, call: Call) -> Value:
    return _reshaped(links, call.name, call.args[0], call.made)


def _reshaped(links: Links, name: str, given: Value, made: Tensor) -> Value:
    """Dimensions that are merged or split: units pass where they come first of what is merged."""
    old, new = list(given.tensor.shape), list(made.shape)
    dims: list[Ref | None] = []
    at = to = 0
    while at < len(old) or to < len(new):
        some, others = old[at : at + 1], new[to : to + 1]
        while prod(some) != prod(others):
            if prod(some) < prod(others):
                some = old[at : at + len(some) + 1]
            else:
                others = new[to : to + len(others) + 1]
        dims += _segment(links, name, given.dims[at : at + len(some)], some, others)
        at, to = at + len(some), to + len(others)
    return Value(made, tuple(dims))


def _segment(links: Links, name: str, dims: tuple[Ref | None, ...], old: list[int], new: list[int]) -> list[Ref | None]:
    refs = [(at, ref) for at, ref in enumerate(dims) if ref is not None]
    if not refs:
        return [None] * len(new)
    at, ref = refs[0]
    first = prod(old[:at]) == 1 and len(refs) == 1
    unit = links.size[links.root(ref.group)]
    if first and len(new) == 1:
        return [Ref(ref.group, ref.block * prod(old[at + 1 :]))]
    if first and new[0] % unit == 0 and prod(old[at + 1 :]) == 1:
        return [Ref(ref.group, new[0] // unit), *[None] * (len(new) - 1)]
    for _, one in refs:
        links.freeze(one, f"{name} of {'×'.join(map(str, old))} to {'×'.join(map(str, new))} mixes units")
    return [None] * len(new)


def _permuted(_: Links, call: Call) -> Value:
    given, rest = call.args[0], call.args[1:]
    n = given.tensor.dim()
    if call.name == "permute":
        order = list(rest[0] if len(rest) == 1 and not isinstance(rest[0], int) else rest)
        return Value(call.made, tuple(given.dims[dim] for dim in order))
    one, other = (dim % n for dim in rest)
    dims = list(given.dims)
    dims[one], dims[other] = dims[other], dims[one]
    return Value(call.made, tuple(dims))


def _joined(links: Links, call: Call) -> Value:
    values, rest = call.args[0], call.args[1:]
    along = call.kwargs.get("dim", rest[0] if rest else 0) % call.made.dim()
    dims: list[Ref | None] = []
    for dim in range(call.made.dim()):
        refs = [value.dims[dim] for value in values if isinstance(value, Value)]
        if dim == along:
            for one in refs:
                links.freeze(one, f"{call.name} sets units beside others")
            dims.append(None)
            continue
        ref = refs[0]
        for other in refs[1:]:
            ref = links.link(ref, other, f"{call.name} joins units with what cannot be permuted")
        dims.append(ref)
    return Value(call.made, tuple(dims))


def _expanded(_: Links, call: Call) -> Value:
    given = call.args[0]
    new = (None,) * (call.made.dim() - given.tensor.dim())
    return Value(call.made, (*new, *given.dims))


def _item(links: Links, call: Call) -> Any:
    given, key = call.args
    if not isinstance(given, Value):  # of a tuple
        return given[key]
    keys = key if isinstance(key, tuple) else (key,)
    if any(not (one is Ellipsis or one is None or isinstance(one, int | slice)) for one in keys):
        return links.opaque(call.args, call.made, f"{call.name} picks by tensors")
    missing = given.tensor.dim() - sum(one is not None and one is not Ellipsis for one in keys)
    full = [slice(None)] * missing
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys = (*keys[:at], *full, *keys[at + 1 :])
    else:
        keys = (*keys, *full)
    dims: list[Ref | None] = []
    left = iter(given.dims)
    for one in keys:
        if one is None:
            dims.append(None)
            continue
        ref = next(left)
        if one == slice(None):
            dims.append(ref)
            continue
        links.freeze(ref, f"{call.name} picks some of the units")
        if isinstance(one, slice):
            dims.append(None)
    return Value(call.made, tuple(dims))


def _pooled_call(_: Links, call: Call) -> Value:
    given = call.args[0]
    return Value(call.made, tuple(ref if dim <= given.tensor.dim() - 3 else None for dim, ref in enumerate(given.dims)))


_ELEMENTWISE = ("add", "iadd", "sub", "mul", "truediv", "div", "add_", "mul_", "maximum", "minimum")
ACTIVATION_CALLS = (
    *("relu", "relu_", "relu6", "gelu", "silu", "tanh", "sigmoid"),
    *("hardswish", "hardsigmoid", "leaky_relu", "elu"),
)
_PASSING_CALLS = (
    *ACTIVATION_CALLS,
    *("dropout", "contiguous", "clone", "detach", "float", "to", "neg", "abs", "softmax", "log_softmax", "clamp"),
)
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_PASSING_CALLS, _passes),
    **dict.fromkeys(("mean", "sum", "amax"), _reduced),
    **dict.fromkeys(("flatten", "view", "reshape", "unflatten", "squeeze", "unsqueeze"), _reshaped_call),
    **dict.fromkeys(("permute", "transpose"), _permuted),
    **dict.fromkeys(("cat", "concat"), _joined),
    **dict.fromkeys(("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "boolean_dispatch"), _pooled_call),
    "expand": _expanded,
    "getitem": _item,
}
