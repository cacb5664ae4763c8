"""Tracing a network: following each axis of what flows through it from the weights that make it to those that read it."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from lmc_tune.measurement.alignment.specification import Group, Place, Specification

_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class _Ref:
    """Units of a group along a dimension, ``block`` neighbouring indices each."""

    group: int
    block: int = 1


_Dims = tuple[_Ref | None, ...]


@dataclass(frozen=True)
class _Value:
    """A tensor, and which units run along its dimensions."""

    tensor: Tensor
    dims: _Dims

    def __post_init__(self) -> None:
        assert len(self.dims) == self.tensor.dim()  # noqa: S101 - a rule that is wrong


def specification_of(model: nn.Module, inputs: Tensor) -> Specification:
    """The groups of a network.

    Args:
        model: any module; one that :mod:`torch.fx` cannot trace has no free group.
        inputs: (n, …) examples, two at least, on its device; they only say which shapes occur.
    """
    was_training = model.training
    model.eval()
    try:
        try:
            graph = fx.symbolic_trace(model)
        except Exception as error:  # noqa: BLE001 - whatever a user's code raises when it meets a proxy
            reason = f"the network cannot be traced: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
            return _all_fixed(model, reason)
        tracer = _Tracer(graph, model)
        with torch.no_grad():
            tracer.run(_Value(inputs, (None,) * inputs.dim()))
        return tracer.specification()
    finally:
        model.train(was_training)


def _all_fixed(model: nn.Module, reason: str) -> Specification:
    axes = {(name, dim): reason for name, entry in model.named_parameters() for dim in range(entry.dim())}
    return Specification(groups=(), fixed=axes)


class _Tracer(fx.Interpreter):
    """Runs the network once, and links the axes that meet."""

    def __init__(self, graph: fx.GraphModule, model: nn.Module) -> None:
        super().__init__(graph)
        self.names = {id(entry): name for name, entry in [*model.named_parameters(), *model.named_buffers()]}
        self.model = model
        self.parent: list[int] = []
        self.size: list[int] = []
        self.places: list[list[Place]] = []
        self.reasons: list[str] = []
        self.fixed: dict[tuple[str, int], str] = {}
        self.used: set[str] = set()
        self.node = ""

    # Groups: a forest of sets that grow together.

    def new(self, size: int) -> _Ref:
        self.parent.append(len(self.parent))
        self.size.append(size)
        self.places.append([])
        self.reasons.append("")
        return _Ref(self.parent[-1])

    def root(self, group: int) -> int:
        while self.parent[group] != group:
            self.parent[group] = self.parent[self.parent[group]]
            group = self.parent[group]
        return group

    def freeze(self, ref: _Ref | None, reason: str) -> None:
        if ref is not None:
            root = self.root(ref.group)
            self.reasons[root] = self.reasons[root] or reason

    def freeze_all(self, values: Any, reason: str) -> None:
        fx.node.map_aggregate(values, lambda value: [self.freeze(ref, reason) for ref in _dims(value)] and None)

    def link(self, one: _Ref | None, other: _Ref | None, reason: str) -> _Ref | None:
        """The units of both are the same; where one has none, the other's cannot move."""
        if one is None or other is None:
            self.freeze(one or other, reason)
            return None
        a, b = self.root(one.group), self.root(other.group)
        if a == b:
            return one
        if one.block != other.block or self.size[a] != self.size[b]:
            self.freeze(one, reason)
            self.freeze(other, reason)
            return None
        self.parent[b] = a
        self.places[a] += self.places[b]
        self.reasons[a] = self.reasons[a] or self.reasons[b]
        return one

    def attach(self, ref: _Ref | None, entry: str, dim: int, size: int, why: str) -> None:
        """An axis of an entry runs along units, or is fixed."""
        if ref is not None and self.size[self.root(ref.group)] * ref.block != size:
            self.freeze(ref, why)
            ref = None
        if ref is None:
            self.fixed[entry, dim] = why
            return
        counts = entry.rpartition(".")[2] not in _STATISTICS
        self.places[self.root(ref.group)].append(Place(entry=entry, dim=dim, block=ref.block, counts=counts))

    # Running the graph.

    def run_node(self, node: fx.Node) -> Any:
        self.node = str(node.target)
        return super().run_node(node)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        tensor = super().get_attr(target, args, kwargs)
        if not isinstance(tensor, Tensor):
            return tensor
        name, dims = self.names.get(id(tensor)), []
        if name is None or not isinstance(tensor, nn.Parameter):
            return _Value(tensor, (None,) * tensor.dim())
        if self.again(name):
            return _Value(tensor, (None,) * tensor.dim())
        for dim, size in enumerate(tensor.shape):
            ref = self.new(size) if size > 1 else None
            self.attach(ref, name, dim, size, "has one unit")
            dims.append(ref)
        return _Value(tensor, tuple(dims))

    def again(self, entry: str) -> bool:
        """Whether an entry was used before; its axes are then frozen, since a permutation meets it twice."""
        if entry not in self.used:
            self.used.add(entry)
            return False
        for group in range(len(self.parent)):
            if any(place.entry == entry for place in self.places[self.root(group)]):
                self.freeze(_Ref(group), f"{entry} is used twice")
        return True

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        tensors = fx.node.map_aggregate((args, kwargs), _plain)
        made = module(*tensors[0], **tensors[1])
        entries = [f"{target}.{name}" for name, _ in [*module.named_parameters(), *module.named_buffers()]]
        twice = [entry for entry in entries if self.again(self.names.get(id(_entry(self.model, entry)), entry))]
        rule = next((rule for kinds, rule in _MODULES if isinstance(module, kinds)), None)
        if twice or rule is None:
            what = f"{target} is used twice" if twice else f"{target} is of the unknown kind {type(module).__name__}"
            return self.opaque((args, kwargs), made, what, [] if twice else entries)
        return rule(self, str(target), module, args, made)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self.called(getattr(target, "__name__", str(target)), target, args, kwargs)

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self.called(str(target), lambda self_, *rest, **more: getattr(self_, target)(*rest, **more), args, kwargs)

    def called(self, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        tensors = fx.node.map_aggregate((args, kwargs), _plain)
        made = function(*tensors[0], **tensors[1])
        if not _holds_tensors(made) or not _holds_values((args, kwargs)):
            return made if not _holds_tensors(made) else self.opaque((args, kwargs), made, name, [])
        rule = _FUNCTIONS.get(name)
        if rule is None:
            return self.opaque((args, kwargs), made, f"{name} lets no permutation pass", [])
        return rule(self, name, args, kwargs, made)

    def opaque(self, given: Any, made: Any, reason: str, entries: list[str]) -> Any:
        """What was given cannot be permuted, and nothing is known of what was made."""
        self.freeze_all(given, reason)
        state = self.model.state_dict(keep_vars=True)
        for entry in entries:
            for dim in range(state[entry].dim()) if entry in state else ():
                self.fixed[entry, dim] = reason
        return fx.node.map_aggregate(made, _unlabelled)

    def output(self, target: Any, args: Any, kwargs: Any) -> Any:
        self.freeze_all(args, "it is the network's output")
        return super().output(target, args, kwargs)

    def specification(self) -> Specification:
        groups = []
        for group in range(len(self.parent)):
            if self.root(group) != group or not self.places[group]:
                continue
            places, reason = tuple(self.places[group]), self.reasons[group]
            entries = [place.entry for place in places]
            if both := next((entry for entry in entries if entries.count(entry) > 1), ""):
                reason = reason or f"{both} reads and makes the same units"
            groups.append(Group(size=self.size[group], places=places, frozen=reason))
        for name, entry in self.model.named_parameters():
            for dim in range(entry.dim()):
                if name not in self.used:
                    self.fixed.setdefault((name, dim), "it is not used")
        return Specification(groups=tuple(groups), fixed=self.fixed)


def _entry(model: nn.Module, name: str) -> Tensor | None:
    module, _, own = name.rpartition(".")
    found = getattr(model.get_submodule(module), own, None)
    return found if isinstance(found, Tensor) else None


def _plain(value: Any) -> Any:
    return value.tensor if isinstance(value, _Value) else value


def _dims(value: Any) -> list[_Ref]:
    return [ref for ref in value.dims if ref is not None] if isinstance(value, _Value) else []


def _unlabelled(value: Any) -> Any:
    return _Value(value, (None,) * value.dim()) if isinstance(value, Tensor) else value


def _holds(value: Any, kind: type) -> bool:
    found: list[bool] = []
    fx.node.map_aggregate(value, lambda one: found.append(True) if isinstance(one, kind) else None)
    return bool(found)


def _holds_tensors(value: Any) -> bool:
    return _holds(value, Tensor)


def _holds_values(value: Any) -> bool:
    return _holds(value, _Value)


# Rules for modules: what they were given, the tensor that they made.


def _linear(tracer: _Tracer, name: str, module: nn.Linear, args: Any, made: Tensor) -> _Value:
    (given,) = args
    tracer.attach(given.dims[-1], f"{name}.weight", 1, module.in_features, "it reads what cannot be permuted")
    out = tracer.new(module.out_features)
    tracer.attach(out, f"{name}.weight", 0, module.out_features, "")
    if module.bias is not None:
        tracer.attach(out, f"{name}.bias", 0, module.out_features, "")
    return _Value(made, (*given.dims[:-1], out))


def _convolution(tracer: _Tracer, name: str, module: Any, args: Any, made: Tensor) -> _Value:
    (given,) = args
    weight = module.weight
    for dim in range(2, weight.dim()):
        tracer.fixed[f"{name}.weight", dim] = "it is an axis of the kernel"
    into, depthwise = given.dims[1], module.groups == module.in_channels == module.out_channels
    if module.groups == 1:
        tracer.attach(into, f"{name}.weight", 1, weight.shape[1], "it reads what cannot be permuted")
        out: _Ref | None = tracer.new(module.out_channels)
    else:
        tracer.fixed[f"{name}.weight", 1] = f"{name} has {module.groups} groups"
        out = into
        if not depthwise:
            tracer.freeze(into, f"{name} has {module.groups} groups")
            out = None
    why = "" if out is not None else f"{name} has {module.groups} groups"
    tracer.attach(out, f"{name}.weight", 0, module.out_channels, why)
    if module.bias is not None:
        tracer.attach(out, f"{name}.bias", 0, module.out_channels, why)
    return _Value(made, (given.dims[0], out, *(None for _ in range(made.dim() - 2))))


def _channel_norm(tracer: _Tracer, name: str, module: nn.Module, args: Any, made: Tensor) -> _Value:
    (given,) = args
    groups = getattr(module, "num_groups", None)
    channels = given.tensor.shape[1]
    if groups not in {None, 1, channels}:
        tracer.freeze(given.dims[1], f"{name} normalises {groups} groups of channels")
    _along(tracer, name, module, given.dims[1], channels)
    return _Value(made, given.dims)


def _layer_norm(tracer: _Tracer, name: str, module: nn.LayerNorm, args: Any, made: Tensor) -> _Value:
    (given,) = args
    if len(module.normalized_shape) > 1:
        return tracer.opaque(args, made, f"{name} normalises several dimensions", _own(name, module))
    _along(tracer, name, module, given.dims[-1], module.normalized_shape[0])
    return _Value(made, given.dims)


def _along(tracer: _Tracer, name: str, module: nn.Module, ref: _Ref | None, size: int) -> None:
    for own in ("weight", "bias", *_STATISTICS):
        if getattr(module, own, None) is not None:
            tracer.attach(ref, f"{name}.{own}", 0, size, "it scales what cannot be permuted")


def _own(name: str, module: nn.Module) -> list[str]:
    return [f"{name}.{own}" for own, _ in module.named_parameters()]


def _module_that_passes(tracer: _Tracer, name: str, module: nn.Module, args: Any, made: Tensor) -> _Value:
    return _Value(made, args[0].dims)


def _pooling(tracer: _Tracer, name: str, module: nn.Module, args: Any, made: Tensor) -> _Value:
    (given,) = args
    channel = given.tensor.dim() - (2 if "1d" in type(module).__name__ else 3)
    return _Value(made, tuple(ref if dim <= channel else None for dim, ref in enumerate(given.dims)))


def _flatten_module(tracer: _Tracer, name: str, module: nn.Flatten, args: Any, made: Tensor) -> _Value:
    return _reshaped(tracer, name, args[0], made)


def _embedding(tracer: _Tracer, name: str, module: nn.Embedding, args: Any, made: Tensor) -> _Value:
    (given,) = args
    tracer.fixed[f"{name}.weight", 0] = "it is read by index"
    out = tracer.new(module.embedding_dim)
    tracer.attach(out, f"{name}.weight", 1, module.embedding_dim, "")
    return _Value(made, (*given.dims, out))


def _attention(tracer: _Tracer, name: str, module: nn.MultiheadAttention, args: Any, made: Any) -> Any:
    """Queries, keys and values read the same units; what they make stays within the heads, and is fixed."""
    reason = f"{name}: the units inside of attention's heads"
    query = args[0]
    if module.in_proj_weight is None or any(value is not query for value in args[:3]):
        return tracer.opaque(args, made, f"{name} reads several inputs", _own(name, module))
    d = module.embed_dim
    tracer.attach(query.dims[-1], f"{name}.in_proj_weight", 1, d, "it reads what cannot be permuted")
    tracer.fixed[f"{name}.in_proj_weight", 0] = tracer.fixed[f"{name}.out_proj.weight", 1] = reason
    out = tracer.new(d)
    tracer.attach(out, f"{name}.out_proj.weight", 0, d, "")
    if module.in_proj_bias is not None:
        tracer.fixed[f"{name}.in_proj_bias", 0] = reason
        tracer.attach(out, f"{name}.out_proj.bias", 0, d, "")
    for own in ("bias_k", "bias_v"):
        if getattr(module, own) is not None:
            tracer.freeze(out, f"{name} has {own}")
            for dim in range(3):
                tracer.fixed[f"{name}.{own}", dim] = reason
    attended, weights = made
    return _Value(attended, (*query.dims[:-1], out)), _unlabelled(weights)


_PASSING = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid),
    *(nn.Hardswish, nn.Hardtanh, nn.Hardsigmoid, nn.Softplus, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d),
)
_MODULES: tuple[tuple[tuple[type, ...], Callable[..., Any]], ...] = (
    ((nn.Linear,), _linear),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    ((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.GroupNorm), _channel_norm),
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


def _passes(tracer: _Tracer, name: str, args: Any, kwargs: Any, made: Tensor) -> _Value:
    return _Value(made, args[0].dims)


def _elementwise(tracer: _Tracer, name: str, args: Any, kwargs: Any, made: Tensor) -> _Value:
    """Of several tensors, aligned from their last dimensions, units meet units; a dimension of one meets anything."""
    values = [value for value in args if isinstance(value, _Value)]
    dims: list[_Ref | None] = []
    for back in range(made.dim(), 0, -1):
        there = [value.dims[-back] for value in values if value.tensor.dim() >= back and value.tensor.shape[-back] > 1]
        ref = there[0] if there else None
        for other in there[1:]:
            ref = tracer.link(ref, other, f"{name} joins units with what cannot be permuted")
        dims.append(ref)
    return _Value(made, tuple(dims))


def _reduced(tracer: _Tracer, name: str, args: Any, kwargs: Any, made: Tensor) -> _Value:
    """Over units too: a mean does not depend on their order."""
    given, rest = args[0], args[1:]
    which = kwargs.get("dim", rest[0] if rest else None)
    n = given.tensor.dim()
    if which is None:
        return _Value(made, (None,) * made.dim())
    gone = {dim % n for dim in ([which] if isinstance(which, int) else which)}
    kept = kwargs.get("keepdim", rest[1] if len(rest) > 1 else False)
    dims = [None if dim in gone else ref for dim, ref in enumerate(given.dims) if kept or dim not in gone]
    return _Value(made, tuple(dims))


def _reshaped_call(tracer: _Tracer, name: str, args: Any, kwargs: Any, made: Tensor) -> _Value:
    return _reshaped(tracer, name, args[0], made)


def _reshaped(tracer: _Tracer, name: str, given: _Value, made: Tensor) -> _Value:
    """Dimensions that are merged or split: units pass where they come first of what is merged."""
    old, new = list(given.tensor.shape), list(made.shape)
    dims: list[_Ref | None] = []
    at = to = 0
    while at < len(old) or to < len(new):
        some, others = old[at : at + 1], new[to : to + 1]
        while prod(some) != prod(others):
            if prod(some) < prod(others):
                some = old[at : at + len(some) + 1]
            else:
                others = new[to : to + len(others) + 1]
        dims += _segment(tracer, name, given.dims[at : at + len(some)], some, others)
        at, to = at + len(some), to + len(others)
    return _Value(made, tuple(dims))


def _segment(
    tracer: _Tracer, name: str, dims: tuple[_Ref | None, ...], old: list[int], new: list[int]
) -> list[_Ref | None]:
    refs = [(at, ref) for at, ref in enumerate(dims) if ref is not None]
    if not refs:
        return [None] * len(new)
    at, ref = refs[0]
    first = prod(old[:at]) == 1 and len(refs) == 1
    unit = tracer.size[tracer.root(ref.group)]
    if first and len(new) == 1:
        return [_Ref(ref.group, ref.block * prod(old[at + 1 :]))]
    if first and new[0] % unit == 0 and prod(old[at + 1 :]) == 1:
        return [_Ref(ref.group, new[0] // unit), *[None] * (len(new) - 1)]
    for _, one in refs:
        tracer.freeze(one, f"{name} of {'×'.join(map(str, old))} to {'×'.join(map(str, new))} mixes units")
    return [None] * len(new)


def _permuted(tracer: _Tracer, name: str, args: Any, kwargs: Any, made: Tensor) -> _Value:
    given, rest = args[0], args[1:]
    n = given.tensor.dim()
    if name == "permute":
        order = list(rest[0] if len(rest) == 1 and not isinstance(rest[0], int) else rest)
        return _Value(made, tuple(given.dims[dim] for dim in order))
    one, other = (dim % n for dim in rest)
    dims = list(given.dims)
    dims[one], dims[other] = dims[other], dims[one]
    return _Value(made, tuple(dims))


def _joined(tracer: _Tracer, name: str, args: Any, kwargs: Any, made: Tensor) -> _Value:
    values, rest = args[0], args[1:]
    along = kwargs.get("dim", rest[0] if rest else 0) % made.dim()
    dims: list[_Ref | None] = []
    for dim in range(made.dim()):
        refs = [value.dims[dim] for value in values if isinstance(value, _Value)]
        if dim == along:
            for one in refs:
                tracer.freeze(one, f"{name} sets units beside others")
            dims.append(None)
            continue
        ref = refs[0]
        for other in refs[1:]:
            ref = tracer.link(ref, other, f"{name} joins units with what cannot be permuted")
        dims.append(ref)
    return _Value(made, tuple(dims))


def _expanded(tracer: _Tracer, name: str, args: Any, kwargs: Any, made: Tensor) -> _Value:
    given = args[0]
    new = (None,) * (made.dim() - given.tensor.dim())
    return _Value(made, (*new, *given.dims))


def _item(tracer: _Tracer, name: str, args: Any, kwargs: Any, made: Any) -> Any:
    given, key = args
    if not isinstance(given, _Value):  # of a tuple
        return given[key]
    keys = key if isinstance(key, tuple) else (key,)
    if any(not (one is Ellipsis or one is None or isinstance(one, int | slice)) for one in keys):
        return tracer.opaque(args, made, f"{name} picks by tensors", [])
    missing = given.tensor.dim() - sum(one is not None and one is not Ellipsis for one in keys)
    full = [slice(None)] * missing
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys = (*keys[:at], *full, *keys[at + 1 :])
    else:
        keys = (*keys, *full)
    dims: list[_Ref | None] = []
    left = iter(given.dims)
    for one in keys:
        if one is None:
            dims.append(None)
            continue
        ref = next(left)
        if one == slice(None):
            dims.append(ref)
            continue
        tracer.freeze(ref, f"{name} picks some of the units")
        if isinstance(one, slice):
            dims.append(None)
    return _Value(made, tuple(dims))


def _pooled_call(tracer: _Tracer, name: str, args: Any, kwargs: Any, made: Tensor) -> _Value:
    given = args[0]
    return _Value(made, tuple(ref if dim <= given.tensor.dim() - 3 else None for dim, ref in enumerate(given.dims)))


_ELEMENTWISE = ("add", "iadd", "sub", "mul", "truediv", "div", "add_", "mul_", "maximum", "minimum")
_PASSING_CALLS = (
    *("relu", "relu_", "relu6", "gelu", "silu", "tanh", "sigmoid", "hardswish", "hardsigmoid", "leaky_relu", "elu"),
    *("dropout", "contiguous", "clone", "detach", "float", "to", "neg", "abs", "softmax", "log_softmax", "clamp"),
)
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
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
_ = (operator, functional)
