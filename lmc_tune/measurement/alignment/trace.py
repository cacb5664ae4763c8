"""Tracing a network: axes of what flows through it are followed from the weights that make them to what reads them."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import Tensor, fx, nn

from lmc_tune.measurement.alignment.graph import graph_of
from lmc_tune.measurement.alignment.links import Call, Links, Residual, Value, unlabelled
from lmc_tune.measurement.alignment.rules import ACTIVATION_CALLS, ACTIVATIONS, FUNCTIONS, MODULES
from lmc_tune.measurement.alignment.specification import OUTPUT, Specification, check_complete

# Of a layer, which may be made of others.
_WEIGHTS = ("weight", "bias", "in_proj_weight")


def specification_of(model: nn.Module, inputs: Tensor, *, residual: Residual = "fixed") -> Specification:
    """The groups of a network.

    Args:
        model: any module; one that :mod:`torch.fx` cannot trace has no free group.
        inputs: (n, …) examples, two at least, on its device; they only say which shapes occur.
        residual: whether the units that attention reads and makes, a transformer's residual stream, stay.
    """
    was_training = model.training
    model.eval()
    try:
        try:
            graph = graph_of(model)
        except Exception as error:  # noqa: BLE001 - whatever a user's code raises when it meets a proxy
            return _all_fixed(model, f"the network cannot be traced: {[*str(error).splitlines(), ''][0]}")
        links = Links(model)
        with torch.no_grad():
            _Tracer(graph, model, links).run(Value(inputs, (None,) * inputs.dim()))
        specification = links.specification(residual)
        check_complete(specification, links.state, sorted(links.parameters))
        return specification
    finally:
        model.train(was_training)


def _all_fixed(model: nn.Module, reason: str) -> Specification:
    axes = {(name, dim): reason for name, entry in model.named_parameters() for dim in range(entry.dim())}
    return Specification(groups=(), fixed=axes)


class _Tracer(fx.Interpreter):
    """Runs the network once, and links the axes that meet."""

    def __init__(self, graph: fx.GraphModule, model: nn.Module, links: Links) -> None:
        super().__init__(graph)
        self.names = {id(entry): name for name, entry in [*model.named_parameters(), *model.named_buffers()]}
        self.links = links

    def run_node(self, n: fx.Node) -> Any:
        operation = n.op in {"call_function", "call_method"}
        self.links.layer = next(reversed(n.meta.get("nn_module_stack") or {"": None})) if operation else ""
        kind = self.fetch_attr(str(n.target)) if n.op == "call_module" else getattr(n.target, "__name__", n.target)
        if n.op == "get_attr" and n.users and all(_only_looks(user) for user in n.users):
            return unlabelled(self.fetch_attr(str(n.target)))
        made = self.links.settled(super().run_node(n), str(kind if operation else n.target))
        self.links.note(n.name, made, activation=isinstance(kind, ACTIVATIONS) or kind in ACTIVATION_CALLS)
        return made

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A parameter that an operation reads has units of its own along every axis, until they meet others."""
        tensor = super().get_attr(target, args, kwargs)
        if not isinstance(tensor, Tensor):
            return tensor
        name = self.names.get(id(tensor))
        if name is None or not isinstance(tensor, nn.Parameter) or self.links.again(name):
            return unlabelled(tensor)
        dims = []
        for dim, size in enumerate(tensor.shape):
            ref = self.links.new(size) if size > 1 else None
            self.links.attach(ref, name, dim, size, "it has one unit")
            dims.append(ref)
        return Value(tensor, tuple(dims))

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        plain_args, plain_kwargs = _mapped((args, kwargs), _plain)
        bound = signature(module.forward).bind(*args, **kwargs)
        made = module(*plain_args, **plain_kwargs)
        call = Call(name=str(target), module=module, args=bound.args, kwargs=bound.kwargs, made=made)
        own = [(f"{target}.{name}", entry) for name, entry in [*module.named_parameters(), *module.named_buffers()]]
        twice = [entry for entry, tensor in own if self.links.again(self.names.get(id(tensor), entry))]
        rule = next((rule for kinds, rule in MODULES if isinstance(module, kinds)), None)
        if twice:
            rest = [entry for entry, _ in own if entry not in twice]
            return self.links.opaque((args, kwargs), call.made, f"{target} is used twice", rest)
        remade = next((one for one in _WEIGHTS if self._is_remade(f"{target}.{one}", getattr(module, one, None))), "")
        if rule is None or remade:
            reason = f"{target}.{remade} is made of other weights" if remade else ""
            reason = reason or f"{target} is of the unknown kind {type(module).__name__}"
            return self.links.opaque((args, kwargs), call.made, reason, [entry for entry, _ in own])
        return rule(self.links, call)

    def _is_remade(self, name: str, tensor: Any) -> bool:
        """Whether a layer's tensor is no entry of the state, as with a weight norm."""
        return isinstance(tensor, Tensor) and name not in self.links.state

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self._called(getattr(target, "__name__", str(target)), target, args, kwargs)

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        def method(owner: Any, *rest: Any, **more: Any) -> Any:
            return getattr(owner, target)(*rest, **more)

        return self._called(str(target), method, args, kwargs)

    def _called(self, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        plain_args, plain_kwargs = _mapped((args, kwargs), _plain)
        made = function(*plain_args, **plain_kwargs)
        if not _holds(made, Tensor):
            return made
        rule = FUNCTIONS.get(name)
        if rule is None or not _holds((args, kwargs), Value):
            return self.links.opaque((args, kwargs), made, f"{name} lets no permutation pass")
        return rule(self.links, Call(name=name, args=args, kwargs=kwargs, made=made))

    def output(self, target: Any, args: Any, kwargs: Any) -> Any:
        self.links.freeze_all(args, OUTPUT)
        return super().output(target, args, kwargs)


def _only_looks(node: fx.Node) -> bool:
    """Whether it asks a tensor for what no permutation changes."""
    return node.target is getattr and node.args[1] in {"device", "dtype", "shape"}


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    return fx.node.map_aggregate(value, function)


def _plain(value: Any) -> Any:
    return value.tensor if isinstance(value, Value) else value


def _holds(value: Any, kind: type) -> bool:
    found: list[bool] = []
    _mapped(value, lambda one: found.append(isinstance(one, kind)))
    return any(found)
