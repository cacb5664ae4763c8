"""The layers of any network, in the order in which data flow through them."""

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One module's own parameters, weight and bias together; modules that share a parameter are one layer.

    name: of the module, ``""`` for the network itself; of several that share a parameter, of the one that runs first.
    parameters: names of its parameters, each once.
    entries: names of all entries of a state dict that belong to it: its parameters under every name that they have, and
        the module's buffers, such as BatchNorm's running statistics. Buffers of a module without parameters belong to
        the layer before it.
    """

    name: str
    parameters: tuple[str, ...]
    entries: tuple[str, ...]


def layers_of(
    model: nn.Module, inputs: Any, called: Callable[[nn.Module, Any], object] = operator.call
) -> tuple[Layer, ...]:
    """The layers of a network, in the order in which it first uses their parameters; unused ones come last.

    Every entry of the state dict belongs to exactly one layer.

    Args:
        model: any module with a parameter; run once, in evaluation mode, and left as it is.
        inputs: (n, …) examples, on its device; or whatever ``called`` takes.
        called: how the model is called on them.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1, bias=False))
        >>> [(layer.name, layer.parameters) for layer in layers_of(model, torch.zeros(1, 2))]
        [('0', ('0.weight', '0.bias')), ('2', ('2.weight',))]
    """
    used, ran = _first_uses(model, lambda: called(model, inputs))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    tensors = parameters | dict(model.named_buffers(remove_duplicate=False))
    first = {name: used.get(id(tensors[name]), math.inf) for name in model.state_dict()}
    stands = _united((_owner(name), id(tensor)) for name, tensor in parameters.items())
    own: dict[str, list[str]] = {}
    for name in parameters:
        own.setdefault(stands[_owner(name)], []).append(name)
    begins = {layer: min(first[name] for name in names) for layer, names in own.items()}
    order = sorted(own, key=lambda layer: begins[layer])  # stable: unused ones as they are registered
    entries = {layer: list(names) for layer, names in own.items()}
    for name in first.keys() - parameters.keys():
        entries[stands[_owner(name)] if _owner(name) in stands else _before(first[name], order, begins)].append(name)
    return tuple(
        Layer(
            name=min(map(_owner, own[layer]), key=lambda owner: ran.get(owner, math.inf)),
            parameters=tuple({id(tensors[name]): name for name in reversed(own[layer])}.values())[::-1],
            entries=tuple(sorted(entries[layer])),
        )
        for layer in order
    )


def matches(layer: str, pattern: str) -> bool:
    """Whether a layer's name matches a pattern as of files: ``stage1.*``.

    Example:
        >>> matches("stage1.0.conv1", "stage1.*"), matches("stem", "stage*")
        (True, False)
    """
    return fnmatchcase(layer, pattern)


def _owner(name: str) -> str:
    """The module whose parameter it is; a parametrised weight is that of the module that uses it."""
    module, parametrised, _ = f".{name}".partition(".parametrizations.")
    return module.removeprefix(".") if parametrised else name.rpartition(".")[0]


def _before(time: float, order: Sequence[str], begins: Mapping[str, float]) -> str:
    """The last layer that has begun by some time; the first of all if none has."""
    begun = [owner for owner in order if begins[owner] <= time and begins[owner] < math.inf]
    return begun[-1] if begun else order[0]


def _united(pairs: Iterable[tuple[str, int]]) -> dict[str, str]:
    """For every owner, one that stands for all owners that it shares a tensor with, directly or not."""
    stands: dict[str, str] = {}
    holder: dict[int, str] = {}

    def root(owner: str) -> str:
        while stands[owner] != owner:
            owner = stands[owner]
        return owner

    for owner, tensor in pairs:
        stands.setdefault(owner, owner)
        stands[root(owner)] = root(holder.setdefault(tensor, owner))
    return {owner: root(owner) for owner in stands}


@torch.no_grad()
def _first_uses(model: nn.Module, run: Callable[[], object]) -> tuple[dict[int, int], dict[str, int]]:
    """When a pass first uses each tensor, by identity, and first runs each module, by name."""
    training, uses, ran = model.training, _Uses(), dict[str, int]()

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, __: tuple[Any, ...]) -> None:
            ran.setdefault(name, uses.count)

        return hook

    hooks = [module.register_forward_pre_hook(note(name)) for name, module in model.named_modules()]
    model.eval()
    try:
        with uses:
            run()
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return uses.first, ran


class _Uses(TorchDispatchMode):
    """Counts operations, and remembers at which one a tensor first was an argument."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.first: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no identity is used twice
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs or {})):
            if id(tensor) not in self.first:
                self.first[id(tensor)] = self.count
                self._kept.append(tensor)
        self.count += 1
        return func(*args, **(kwargs or {}))


def _tensors(arguments: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor))
