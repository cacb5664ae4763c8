"""A network cut into stretches, one per layer, so that what lies before a changed layer is computed once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.modules.batchnorm import _BatchNorm

from lmc_tune.measurement.layerwise.layers import Layer
from lmc_tune.measurement.network import Network
from lmc_tune.models.inference import gains_by_onednn, is_convolutional

# What the stretches so far computed and later ones read, by the operation that made it.
Live = dict[fx.Node, Any]
# Lays a weight out as an operation reads it.
Packing = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class _Stretch:
    """The operations of a network from the first that reads a layer's entries to the last before the next layer's.

    reads: the names of the entries that it reads, of this layer or of earlier ones.
    operations: in order. keeps: what later stretches read, or the network gives.
    """

    reads: Mapping[fx.Node, str]
    operations: Sequence[fx.Node]
    keeps: frozenset[fx.Node]


class Flow:
    """The operations of one pass through a network, recorded once, and done again stretch by stretch.

    Args:
        network: of the architecture, in evaluation mode; left as it is.
        layers: its layers, in the order of their first use.
        inputs: (n, …) of the size and on the device of all inputs to come; recorded operations have no other.
        estimating: whether norms are in training mode, and give the statistics of the batch.

    Raises:
        Exception: whatever a network raises that cannot be recorded.
    """

    @torch.no_grad()
    def __init__(self, network: Network, layers: Sequence[Layer], inputs: Tensor, *, estimating: bool = False) -> None:
        network = network.copy()  # what a module keeps of a recorded pass is of no use outside of it
        model = network.module
        if any(isinstance(module, _BatchNorm) and module.running_mean is None for module in model.modules()):
            raise ValueError("a BatchNorm without running statistics gives every batch other outputs")
        self._given: dict[str, Tensor] = dict((*model.named_parameters(), *model.named_buffers()))
        self._names = list(self._given)
        self._channels_last = inputs.device.type == "cpu" and inputs.dim() == 4 and is_convolutional(model)

        def run(batch: Tensor, *tensors: Tensor) -> list[Tensor]:
            with _batch_statistics(network.norms if estimating else {}) as seen:
                logits = functional_call(model, dict(zip(self._names, tensors, strict=True)), (batch,))
            self._estimated = list(seen)
            return [logits, *seen.values()]

        model.eval()
        given = map(self._laid_out, self._given.values())
        self._graph = make_fx(functionalize(run))(self._laid_out(inputs).clone(), *given)
        _check_writes_nothing(self._graph.graph)
        placeholders = [node for node in self._graph.graph.nodes if node.op == "placeholder"]
        self._inputs, self._entries = placeholders[0], dict(zip(placeholders[1:], self._names, strict=True))
        self._packed = _use_onednn(self._graph.graph, self._entries, self._given)
        self._cut(layers)

    def begin(self, inputs: Tensor) -> Live:
        """What the first stretch reads."""
        return {self._inputs: self._laid_out(inputs)}

    def prepared(self, name: str, entry: Tensor) -> Tensor:
        """An entry as the operations read it fastest; for :meth:`run`."""
        if name in self._packed:
            return self._packed[name](entry)
        return self._laid_out(entry)

    def _laid_out(self, tensor: Tensor) -> Tensor:
        if self._channels_last and tensor.dim() == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    def run(self, stretch: int, live: Live, entry: Callable[[str], Tensor]) -> Live:
        """Do the operations of a stretch.

        Args:
            stretch: which, from 0; those before it have been done.
            live: what they left; stays as it is.
            entry: gives the entry of a name, :meth:`prepared`.
        """
        part = self.stretches[stretch]
        values: Live = dict(live)
        for node, name in part.reads.items():
            values[node] = entry(name)
        for node in part.operations:
            if node.op == "get_attr":
                values[node] = getattr(self._graph, str(node.target))
            else:
                values[node] = node.target(  # type: ignore[operator]
                    *fx.map_arg(node.args, values.__getitem__), **fx.map_arg(node.kwargs, values.__getitem__)
                )
        return {node: value for node, value in values.items() if node in part.keeps}

    def logits(self, live: Live) -> Tensor:
        """What the network gives, after its last stretch."""
        found: Tensor = live[self._logits]
        return found

    def statistics(self, stretch: int, live: Live) -> dict[str, Tensor]:
        """What norms of a stretch estimated: entries by name."""
        return {name: live[node] for name, node in self._statistics[stretch].items()}

    def own(self, name: str) -> Tensor:
        """A buffer that is not in the network's state."""
        return self._given[name]

    def _cut(self, layers: Sequence[Layer]) -> None:
        nodes, entries = list(self._graph.graph.nodes), self._entries
        (given,) = next(node for node in nodes if node.op == "output").args
        self._logits = given[0]
        of_layer = {name: at for at, layer in enumerate(layers) for name in layer.entries}
        belongs: dict[fx.Node, int] = {}
        operations: list[list[fx.Node]] = [[] for _ in layers]
        at = 0
        for node in nodes:
            if node.op in {"placeholder", "output"}:
                continue
            at = max([at, *(of_layer.get(entries[one], 0) for one in node.all_input_nodes if one in entries)])
            belongs[node] = at
            operations[at].append(node)
        last = {node: max((belongs[user] for user in node.users if user in belongs), default=-1) for node in belongs}
        last[self._inputs] = max((belongs[user] for user in self._inputs.users), default=-1)
        last[self._logits] = len(layers)
        self._statistics: list[dict[str, fx.Node]] = [{} for _ in layers]
        for name, node in zip(self._estimated, given[1:], strict=True):
            if belongs[node] != of_layer[name]:
                raise ValueError(f"{name} is estimated elsewhere than in its layer")
            self._statistics[of_layer[name]][name] = node
            last[node] = max(last[node], belongs[node] + 1)  # until it is read
        self.stretches = [
            _Stretch(
                reads={one: entries[one] for node in own for one in node.all_input_nodes if one in entries},
                operations=own,
                keeps=frozenset(node for node, until in last.items() if until > at),
            )
            for at, own in enumerate(operations)
        ]


def _check_writes_nothing(graph: fx.Graph) -> None:
    """Raise ValueError if an operation changes what the network is given: its weights, its buffers or its inputs."""
    for node in graph.nodes:
        if node.op != "call_function" or not hasattr(node.target, "_schema"):
            continue
        # Of operations that say so in their schema, and of the one that does not.
        written = [
            value
            for argument, value in zip(node.target._schema.arguments, node.args, strict=False)  # noqa: SLF001
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        if node.target is torch.ops.aten.native_batch_norm.default and node.args[5]:
            written += node.args[3:5]
        if any(isinstance(value, fx.Node) and value.op == "placeholder" for value in written):
            raise ValueError("a pass changes the network's buffers or its inputs")


@contextmanager
def _batch_statistics(norms: Mapping[str, _BatchNorm]) -> Iterator[dict[str, Tensor]]:
    """Let norms use the statistics of their batch and nothing else, and remember them: entries by name.

    Raises:
        ValueError: if a norm runs twice, and so has two.
    """
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, given: tuple[Tensor, ...], __: Tensor) -> None:
            if f"{name}.running_mean" in seen:
                raise ValueError(f"{name} runs more than once")
            channels = given[0].transpose(0, 1).flatten(1)
            seen[f"{name}.running_var"], seen[f"{name}.running_mean"] = torch.var_mean(channels, 1, correction=1)

        return hook

    hooks = [norm.register_forward_hook(note(name)) for name, norm in norms.items()]
    for norm in norms.values():
        norm.train()
        norm.track_running_stats = False
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
        for norm in norms.values():
            norm.eval()
            norm.track_running_stats = True


def _use_onednn(graph: fx.Graph, entries: Mapping[fx.Node, str], given: Mapping[str, Tensor]) -> dict[str, Packing]:
    """Let oneDNN do large products and convolutions on a CPU, with the ReLU behind them
    (:mod:`lmc_tune.models.inference` says why); returns how it reads their weights, by name.
    """
    packings: dict[str, Packing] = {}
    for node in list(graph.nodes):
        found = _PRODUCTS[node.target](node) if node.target in _PRODUCTS and not node.kwargs else None
        if found is None or entries.get(found.weight) is None or len(found.weight.users) > 1:
            continue
        name = entries[found.weight]
        if not gains_by_onednn(given[name]):
            continue
        after, *others = node.users
        fused = not others and after.target is torch.ops.aten.relu.default
        with graph.inserting_before(node):
            product = graph.call_function(found.operation, (*found.arguments, "relu" if fused else "none", [], ""))
        (after if fused else node).replace_all_uses_with(product)
        for done in (after, node) if fused else (node,):
            graph.erase_node(done)
        packings[name] = found.packing
    graph.eliminate_dead_code()
    return packings


@dataclass(frozen=True, kw_only=True)
class _Product:
    """What oneDNN does in the place of an operation; its arguments are followed by those of what it is fused with."""

    operation: Callable[..., Any]
    arguments: tuple[Any, ...]
    weight: fx.Node
    packing: Packing


def _linear(node: fx.Node) -> _Product | None:
    *bias, rows, turned = node.args
    if not isinstance(turned, fx.Node) or turned.target is not torch.ops.aten.t.default or len(turned.users) > 1:
        return None
    (weight,) = turned.args
    n = node.meta["tensor_meta"].shape[0]
    return _Product(
        operation=torch.ops.mkldnn._linear_pointwise.default,  # noqa: SLF001
        arguments=(rows, weight, *(bias or [None])),
        weight=weight,  # type: ignore[arg-type]
        packing=lambda entry: torch.ops.mkldnn._reorder_linear_weight(entry, n),  # noqa: SLF001
    )


def _convolution(node: fx.Node) -> _Product | None:
    rows, weight, bias, stride, padding, dilation, transposed, _, groups = node.args
    if transposed or len(stride) != 2:  # type: ignore[arg-type]
        return None
    shape = (padding, stride, dilation, groups)
    return _Product(
        operation=torch.ops.mkldnn._convolution_pointwise.default,  # noqa: SLF001
        arguments=(rows, weight, bias, *shape),
        weight=weight,  # type: ignore[arg-type]
        packing=lambda entry: torch.ops.mkldnn._reorder_convolution_weight(entry, *shape, None),  # noqa: SLF001
    )


_PRODUCTS: dict[Any, Callable[[fx.Node], _Product | None]] = {
    torch.ops.aten.addmm.default: _linear,
    torch.ops.aten.mm.default: _linear,
    torch.ops.aten.convolution.default: _convolution,
}
