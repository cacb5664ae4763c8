"""Several networks of one architecture as one."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from lmc_tune.models.dropout import SeededDropout
from lmc_tune.models.lanes import Lanes
from lmc_tune.models.plain import is_plain
from lmc_tune.models.state import State

# How networks other than plain matrix products are applied: as one, or each by itself.
Way = Literal["vmap", "lanes"]


def evaluates_faster_stacked(model: nn.Module, device: torch.device) -> bool:
    """Whether to stack: on a GPU, which one network leaves idle. Not all layers of a user's network can be stacked."""
    return device.type == "cuda" and is_plain(model)


class Stack:
    """The weights of several networks of one architecture, network by network in one tensor.

    Plain sequences of linear layers, their norms and activations are applied by batched matrix products; any other
    architecture through :func:`torch.func.vmap`, or each by itself, in :class:`~lmc_tune.models.lanes.Lanes`.

    Args:
        model: a network of the architecture; its train() or eval() and its device are the stack's, its weights are not
            looked at.
        states: every network's state dict, on any device.
        way: how networks that are not such sequences are applied.

    Attributes:
        weights: (networks, parameters), every network's parameters in one row; :attr:`parameters` are views of it.
        buffers: (networks, ...) by name.
    """

    def __init__(self, model: nn.Module, states: Sequence[State], *, way: Way = "vmap") -> None:
        self.model = model
        self.size = len(states)
        shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        device = next(model.parameters()).device
        rows = [torch.cat([state[name].flatten() for name in shapes]) for state in states]
        self.weights = torch.stack(rows).to(device)
        self.buffers = {
            # A dropout's seed is not part of a state.
            name: torch.stack([state.get(name, buffer).to(device) for state in states])
            for name, buffer in model.named_buffers()
        }
        self._shapes = shapes
        self.parameters = {name: part.requires_grad_() for name, part in self._parts(self.weights).items()}
        self._layers = self._batched_layers()
        self.way = way
        self._lanes = Lanes(device, self.size if way == "lanes" else 0)

    def logits(self, inputs: Tensor, *, shared: bool = False) -> Tensor:
        """(networks, n, classes) of inputs (networks, n, ...), or of one (n, ...) that all networks see."""
        if self._layers is None:
            return (self._vmapped if self.way == "vmap" else self._side_by_side)(inputs, shared=shared)
        outputs = inputs.expand(self.size, *inputs.shape) if shared else inputs
        for apply, layer, entries in self._layers:
            outputs = apply(layer, entries, outputs)
        return outputs

    @property
    def batched(self) -> bool:
        """Whether all networks are applied by batched matrix products."""
        return self._layers is not None

    def differentiate(self, losses: Tensor, out: Tensor) -> None:
        """Put the gradient of every network's own loss, (networks,), into ``out``, shaped as the weights."""
        found = torch.autograd.grad(losses.sum(), list(self.parameters.values()))
        for part, gradient in zip(self._parts(out).values(), found, strict=True):
            part.copy_(gradient)

    def _parts(self, rows: Tensor) -> dict[str, Tensor]:
        """Views (networks, ...) of every parameter's own columns of a tensor shaped as the weights."""
        parts = rows.split([math.prod(shape) for shape in self._shapes.values()], dim=1)
        shaped = zip(self._shapes.items(), parts, strict=True)
        return {name: part.view(self.size, *shape) for (name, shape), part in shaped}

    def state(self, network: int) -> dict[str, Tensor]:
        """A copy of one network's state."""
        found = self.parameters | self.buffers
        return {name: found[name][network].detach().clone() for name in self.model.state_dict()}

    def _vmapped(self, inputs: Tensor, *, shared: bool) -> Tensor:
        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: Tensor) -> Tensor:
            logits: Tensor = functional_call(self.model, (parameters, buffers), (batch,))
            return logits

        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention cannot be stacked
            stacked: Tensor = vmap(one, in_dims=(0, 0, None if shared else 0))(self.parameters, self.buffers, inputs)
        return stacked

    def _side_by_side(self, inputs: Tensor, *, shared: bool) -> Tensor:
        # The gradient of unbind is one stack; that of indexing would be a tensor of all networks for each of them.
        found = {name: tensor.unbind() for name, tensor in (self.parameters | self.buffers).items()}

        def one(network: int) -> Tensor:
            own = {name: rows[network] for name, rows in found.items()}
            logits: Tensor = functional_call(self.model, own, (inputs if shared else inputs[network],))
            return logits

        return torch.stack(self._lanes.each(one, self.size))

    def _batched_layers(self) -> list[tuple["_Batched", nn.Module, State]] | None:
        """Every layer with its batched form and its entries; None unless the network is a perceptron of such layers."""
        if type(self.model) is not nn.Sequential or not is_plain(self.model):
            return None
        first = next(iter(self.model), None)
        if not isinstance(first, nn.Flatten) or (first.start_dim, first.end_dim) != (1, -1):
            return None
        found = self.parameters | self.buffers
        layers: list[tuple[_Batched, nn.Module, State]] = []
        for name, layer in self.model.named_children():
            own = [leaf for leaf, _ in (*layer.named_parameters(), *layer.named_buffers())]
            apply, needed = _BATCHED.get(type(layer), (None, ()))
            if apply is None or not set(needed) <= set(own):
                return None
            layers.append((apply, layer, {leaf: found[f"{name}.{leaf}"] for leaf in own}))
        return layers


# A layer with the attributes of its own kind, its entries by name, and the inputs of all networks.
_Batched = Callable[[Any, State, Tensor], Tensor]


def _flatten(_: nn.Module, __: State, inputs: Tensor) -> Tensor:
    return inputs.flatten(2)


def _elementwise(layer: nn.Module, _: State, inputs: Tensor) -> Tensor:
    outputs: Tensor = layer(inputs)
    return outputs


def _linear(_: nn.Module, own: State, inputs: Tensor) -> Tensor:
    if "bias" in own:
        return torch.baddbmm(own["bias"][:, None], inputs, own["weight"].mT)
    return torch.bmm(inputs, own["weight"].mT)


def _layer_norm(layer: Any, own: State, inputs: Tensor) -> Tensor:
    plain = functional.layer_norm(inputs, inputs.shape[2:], eps=layer.eps)
    return torch.addcmul(own["bias"][:, None], plain, own["weight"][:, None])


def _batch_norm(layer: Any, own: State, inputs: Tensor) -> Tensor:
    """All networks' features side by side are the features of one layer."""
    networks, n, width = inputs.shape
    if layer.training:
        own["num_batches_tracked"].add_(1)
    outputs = functional.batch_norm(
        inputs.transpose(0, 1).reshape(n, networks * width),
        own["running_mean"].view(-1),
        own["running_var"].view(-1),
        own["weight"].reshape(-1),
        own["bias"].reshape(-1),
        training=layer.training,
        momentum=layer.momentum,
        eps=layer.eps,
    )
    return outputs.view(n, networks, width).transpose(0, 1).contiguous()


def _dropout(layer: SeededDropout, own: State, inputs: Tensor) -> Tensor:
    return layer.drop(inputs, own["dropout_seed"])


# The batched form of a layer, and the entries without which it is another layer.
_BATCHED: dict[type[nn.Module], tuple[_Batched, tuple[str, ...]]] = {
    nn.Flatten: (_flatten, ()),
    nn.Linear: (_linear, ()),
    nn.LayerNorm: (_layer_norm, ("weight", "bias")),
    nn.BatchNorm1d: (_batch_norm, ("weight", "bias", "running_mean", "num_batches_tracked")),
    nn.ReLU: (_elementwise, ()),
    nn.Tanh: (_elementwise, ()),
    nn.GELU: (_elementwise, ()),
    SeededDropout: (_dropout, ()),
}
