"""Conditions: how the networks on a path are prepared before they are scored.

The running statistics of two members, interpolated, are not those of the interpolated network: the variance of its
activations has collapsed, and much of a barrier may be that alone (Jordan et al. 2023, REPAIR).
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lmc_tune.data.examples import ExampleSet, at_once
from lmc_tune.experiment import MeasureSpec, Statistics
from lmc_tune.measurement import evaluate as scoring
from lmc_tune.measurement.lines import Line, MeasurementError
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.scan import POSITIONS_AT_ONCE, filled_groups
from lmc_tune.models.stack import Stack, evaluates_faster_stacked
from lmc_tune.models.state import State

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Networks on a line: an architecture, and a state for every position."""

    network: Network
    states: list[dict[str, Tensor]]


def prepare(
    condition: Statistics, network: Network, line: Line, examples: ExampleSet | None, positions: Sequence[float]
) -> Prepared:
    """The networks at some positions of a line.

    ``naive``: θ(λ), BatchNorm's running statistics interpolated with the weights. ``endpoint``: A's statistics
    everywhere. ``recalibrated``: statistics estimated anew at every position. ``repaired``: besides, every channel of a
    layer that no BatchNorm follows gets the mean and standard deviation that lie between the members' (REPAIR).

    Args:
        condition: which of them.
        network: of the architecture.
        line: from A at 0 to B at 1.
        examples: what statistics are estimated on, on the network's device, in shuffled order; None if none are.
        positions: on the line.

    Raises:
        MeasurementError: if statistics are to be estimated and there are no examples.
    """
    states = [line.at(position) for position in positions]
    if condition == "endpoint":
        kept, of_a = {f"{name}.{what}" for name in network.norms for what in _STATISTICS}, line.at(0)
        states = [{name: of_a[name] if name in kept else entry for name, entry in state.items()} for state in states]
    if condition in {"naive", "endpoint"}:
        return Prepared(network=network, states=states)
    if examples is None:
        raise MeasurementError(f"{condition} needs examples of the training set; give them as statistics")
    if condition == "recalibrated":
        return Prepared(network=network, states=recalibrated(network, states, examples))
    if condition == "repaired":
        return _repaired(network, line, states, positions, examples)
    raise ValueError(f"no way to prepare a network is known under {condition}")


def least_stale(asked: MeasureSpec, network: Network) -> Statistics:
    """``recalibrated`` where it is asked for and there is BatchNorm, whose statistics would be stale; else naive."""
    return "recalibrated" if "recalibrated" in (asked.conditions or ()) and network.norms else "naive"


def estimating_passes(condition: Statistics, positions: int) -> int:
    """How often :func:`prepare` reads all examples for so many positions, some at once as ``score`` asks for them.

    To repair, the members' moments are estimated once for all that are prepared at once.
    """
    if condition == "recalibrated":
        return positions
    if condition == "repaired":
        return positions + 2 * math.ceil(positions / POSITIONS_AT_ONCE)
    return 0


@torch.no_grad()
def recalibrated(network: Network, states: Sequence[State], examples: ExampleSet) -> list[dict[str, Tensor]]:
    """States with the running statistics of their own activations.

    They are averages over the batches of every batch's mean and (unbiased) variance, each batch weighted by its size;
    where all batches are equally large, those of :func:`torch.optim.swa_utils.update_bn`. All else is in evaluation
    mode. A network without BatchNorm stays as it is.
    """
    if not network.norms:
        return [dict(state) for state in states]
    stacked = evaluates_faster_stacked(network.module, examples.labels.device)
    return (_recalibrated_stack if stacked else _recalibrated_alone)(network, states, examples)


def _recalibrated_alone(network: Network, states: Sequence[State], examples: ExampleSet) -> list[dict[str, Tensor]]:
    found = []
    for state in states:
        recalibrate(network, network.loaded(state), examples)
        found.append({name: tensor.detach().clone() for name, tensor in network.module.state_dict().items()})
    return found


@torch.no_grad()
def recalibrate(network: Network, forward: Callable[[Tensor], object], examples: ExampleSet) -> None:
    """What :func:`recalibrated` does, in place, to the weights that the network has now.

    forward: what passes inputs through the network.
    """
    for norm in network.norms.values():
        norm.reset_running_stats()
    _estimate(network, examples, forward)


def _recalibrated_stack(network: Network, states: Sequence[State], examples: ExampleSet) -> list[dict[str, Tensor]]:
    """One pass over the examples for a stack of states."""
    found: list[dict[str, Tensor]] = []
    for group in filled_groups(states):
        stack = Stack(network.module, group)
        for name in network.norms:
            stack.buffers[f"{name}.running_mean"].zero_()
            stack.buffers[f"{name}.running_var"].fill_(1)
            stack.buffers[f"{name}.num_batches_tracked"].zero_()
        _estimate(network, examples, partial(stack.logits, shared=True))
        found += [stack.state(number) for number in range(stack.size)]
    return found[: len(states)]


def _estimate(network: Network, examples: ExampleSet, forward: Callable[[Tensor], object]) -> None:
    """Pass the examples forward with the norms, and only them, in training mode."""
    model, norms = network.module, network.norms
    momenta = {name: norm.momentum for name, norm in norms.items()}
    model.eval()
    for norm in norms.values():
        norm.train()
    seen = 0
    for inputs in batches(examples):
        seen += len(inputs)
        for norm in norms.values():
            # The cumulative average. momentum=None would weight all batches alike, and cannot be stacked: it asks a
            # counter for its value.
            norm.momentum = len(inputs) / seen
        forward(inputs)
    model.eval()
    for name, norm in norms.items():
        norm.momentum = momenta[name]


def batches(examples: ExampleSet) -> Iterator[Tensor]:
    """Inputs of all examples; the last batch may be smaller than the others, but is never of one, whose variance is
    not defined.
    """
    size = min(at_once(examples, scoring.CHUNK), len(examples))
    size -= len(examples) % size == 1
    for some in examples.chunks(size):
        yield some.inputs


class _FeatureNorm(nn.BatchNorm1d):
    """BatchNorm over the last dimension."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.flatten(0, -2)).view_as(inputs)


@torch.no_grad()
def _repaired(
    network: Network, line: Line, states: Sequence[State], positions: Sequence[float], examples: ExampleSet
) -> Prepared:
    """A BatchNorm behind each such layer, whose scale and offset say which moments its outputs get."""
    names = layers_to_repair(network, next(batches(examples)))
    of_a, of_b = (_moments(network, line.at(end), names, examples) for end in (0, 1))
    repaired, repairs = network.copy(), dict[str, nn.Module]()
    for name in names:
        layer, (parent, _, own) = repaired.module.get_submodule(name), name.rpartition(".")
        kind = nn.BatchNorm2d if isinstance(layer, nn.Conv2d) else _FeatureNorm
        repairs[name] = kind(len(of_a[name].mean)).to(of_a[name].mean)
        setattr(
            repaired.module.get_submodule(parent), own, nn.Sequential(OrderedDict(layer=layer, repair=repairs[name]))
        )
    found = []
    for position, entries in zip(positions, states, strict=True):
        state = {_renamed(name, names): entry for name, entry in entries.items()}
        for name, norm in repairs.items():
            state |= {f"{name}.repair.{entry}": tensor.clone() for entry, tensor in norm.state_dict().items()}
            state[f"{name}.repair.weight"] = torch.lerp(of_a[name].deviation, of_b[name].deviation, position)
            state[f"{name}.repair.bias"] = torch.lerp(of_a[name].mean, of_b[name].mean, position)
        found.append(state)
    return Prepared(network=repaired, states=recalibrated(repaired, found, examples))


def _renamed(entry: str, layers: Sequence[str]) -> str:
    layer, _, own = entry.rpartition(".")
    return f"{layer}.layer.{own}" if layer in layers else entry


@torch.no_grad()
def layers_to_repair(network: Network, inputs: Tensor) -> list[str]:
    """Names of the linear and 2-D convolutional layers that no BatchNorm follows, except the last, of the logits.

    Attention's own projections are left out, since they are no layers that can be called, and layers that run several
    times, whose outputs have several moments.
    """
    model = network.module
    made: dict[int, str] = {}
    runs: Counter[str] = Counter()
    kept = []  # so that no identity is used twice

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            kept.append(output)
            runs[name] += 1
            if isinstance(module, _BatchNorm):
                made.pop(id(given[0]), None)
            else:
                made[id(output)] = name

        return hook

    layers = {name: m for name, m in model.named_modules() if type(m) in {nn.Linear, nn.Conv2d}}
    with _hooked(layers | network.norms, note):
        model.eval()(inputs)
    return [name for name in list(made.values())[:-1] if runs[name] == 1]


@dataclass(frozen=True, kw_only=True)
class _Moments:
    """(channels,) of a layer's outputs; deviation as a norm divides by it."""

    mean: Tensor
    deviation: Tensor


def _moments(network: Network, state: State, names: Sequence[str], examples: ExampleSet) -> dict[str, _Moments]:
    """Estimated as BatchNorm estimates them."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in names}
    sizes: list[int] = []

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
            channels = output.transpose(0, 1).flatten(1) if isinstance(module, nn.Conv2d) else output.flatten(0, -2).T
            seen[name].append((channels.mean(1), channels.var(1)))

        return hook

    model = network.loaded(state).eval()
    with _hooked({name: model.get_submodule(name) for name in names}, note):
        for inputs in batches(examples):
            model(inputs)
            sizes.append(len(inputs))
    eps = nn.BatchNorm1d(1).eps

    def average(batches: Sequence[Tensor]) -> Tensor:
        values = torch.stack(list(batches))
        weights = values.new_tensor(sizes)[:, None] / sum(sizes)
        return (weights * values).sum(0)

    return {
        name: _Moments(
            mean=average([mean for mean, _ in found]),
            deviation=(average([variance for _, variance in found]) + eps).sqrt(),
        )
        for name, found in seen.items()
    }


@contextmanager
def _hooked(
    modules: dict[str, nn.Module] | dict[str, _BatchNorm],
    note: Callable[[str], Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]],
) -> Iterator[None]:
    hooks = [module.register_forward_hook(note(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
