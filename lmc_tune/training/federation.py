"""Federated averaging: clients train apart and are averaged, round after round (McMahan et al. 2017)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from lmc_tune.data.examples import ExampleSet
from lmc_tune.experiment import FederationSpec
from lmc_tune.measurement.conditions import recalibrated
from lmc_tune.measurement.layerwise.layers import matches
from lmc_tune.measurement.lines import Mixture
from lmc_tune.measurement.network import Network
from lmc_tune.models.state import State
from lmc_tune.training.progress import Progress
from lmc_tune.training.task import Task


@dataclass(frozen=True, kw_only=True)
class Client:
    """task: of the client's whole training, all rounds joined. own: its examples, in random order."""

    task: Task
    own: ExampleSet


@dataclass(frozen=True, kw_only=True)
class Federation:
    """Clients before training, on one device.

    network: of their architecture; its weights are overwritten. clients: in order; a client's weight in the average is
    its share of all examples. everything: the examples of all clients, in random order. test: the common test set.
    spec: rounds, epochs, and what is averaged.
    """

    spec: FederationSpec
    network: Network
    clients: Sequence[Client]
    everything: ExampleSet
    test: ExampleSet

    @property
    def sizes(self) -> list[int]:
        """Examples of every client."""
        return [len(client.own) for client in self.clients]

    @property
    def weights(self) -> list[float]:
        """Of every client in the average."""
        return shares(self.sizes)


@dataclass(frozen=True, kw_only=True)
class Round:
    """Clients after a round, in their order.

    number: from 1. trained: after their local training. averaged: their states after the average, in which they begin
    the next round. pooled: the average of all layers of all clients. Nothing is averaged if a client diverged:
    ``averaged`` is empty, ``pooled`` as well, and there is no further round.
    """

    number: int
    trained: Sequence[Progress]
    averaged: Sequence[State] = ()
    pooled: State | None = None

    @property
    def diverged(self) -> str:
        """Which clients diverged, and why; empty if none did."""
        found = [f"client {n}: {client.diverged}" for n, client in enumerate(self.trained, 1) if client.diverged]
        return "; ".join(found)


def federate(
    federation: Federation, train: Callable[[list[Task]], list[Progress]], after: Round | None = None
) -> Iterator[Round]:
    """The rounds of a federation, one by one.

    A client's learning rate, the order of its examples, and its epochs go on from round to round as in one training of
    all epochs. The optimizer's moments begin at zero in every round, or are kept (``spec.moments``): so one
    client alone is trained as without rounds, bit for bit, if they are kept or if there are none.

    Args:
        federation: the clients, and what becomes of them.
        train: trains tasks that are independent of each other, and returns their results in order.
        after: the last round that is known already; None to begin with the first.

    Raises:
        ValueError: if a name of ``spec.average`` fits no layer.
    """
    spec, network, clients = federation.spec, federation.network, federation.clients
    shared = averaged_entries(network, spec)
    number, before, states = _begin(clients, after)
    while number < spec.rounds:
        number += 1
        tasks = [
            replace(client.task, resume=_resumed(was, state, spec), epochs=number * spec.local_epochs)
            for client, was, state in zip(clients, before, states, strict=True)
        ]
        trained = train(tasks)
        found = Round(number=number, trained=trained)
        if found.diverged:
            yield found
            return
        pooled, states = average([progress.state for progress in trained], federation.weights, shared)
        if spec.norm == "recalibrated":
            pooled = estimated_again(network, pooled, federation.everything)
            states = [
                estimated_again(network, state, client.own) if shared else state
                for client, state in zip(clients, states, strict=True)
            ]
        yield replace(found, averaged=states, pooled=pooled)
        before = trained


def estimated_again(network: Network, state: State, examples: ExampleSet) -> dict[str, Tensor]:
    """A state, on the CPU, with BatchNorm's statistics estimated on some examples."""
    device = examples.labels.device
    (found,) = recalibrated(network, [{name: entry.to(device) for name, entry in state.items()}], examples)
    return {name: entry.cpu() for name, entry in found.items()}


def _begin(clients: Sequence[Client], after: Round | None) -> tuple[int, Sequence[Progress], Sequence[State]]:
    if after is not None:
        return after.number, after.trained, after.averaged
    start = [client.task.start for client in clients]
    return 0, [Progress(epochs=0, state=dict(state), moments={}, curve=[]) for state in start], start


def _resumed(was: Progress, state: State, spec: FederationSpec) -> Progress:
    """Where a client goes on: as it was, with the weights that the average gave it."""
    return replace(was, state=dict(state), moments=was.moments if spec.moments == "kept" else {})


def shares(sizes: Sequence[int]) -> list[float]:
    """Each size's share of their sum."""
    return [size / sum(sizes) for size in sizes]


def average(
    states: Sequence[State], weights: Sequence[float], shared: frozenset[str]
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """The weighted average of all entries, and each state with its ``shared`` entries replaced by it.

    Args:
        states: of one architecture.
        weights: one per state; they add up to 1.
        shared: names of the entries that are averaged; integers are counts, and stay where they are.

    Example:
        >>> import torch
        >>> one, other = ({"w": torch.tensor([x]), "v": torch.tensor([x])} for x in (0.0, 4.0))
        >>> average([one, other], [0.75, 0.25], frozenset({"w"}))[1]
        [{'w': tensor([1.]), 'v': tensor([0.])}, {'w': tensor([1.]), 'v': tensor([4.])}]
    """
    pooled = Mixture(states).weighted(weights)
    replaced = {name: pooled[name] for name in shared if pooled[name].is_floating_point()}
    return pooled, [{**state, **replaced} for state in states]


def averaged_entries(network: Network, spec: FederationSpec) -> frozenset[str]:
    """The names of the entries of a state that are averaged: parameters and buffers of the averaged layers.

    Raises:
        ValueError: if a name of ``spec.average`` fits no layer.
    """
    names = list(network.module.state_dict())
    if spec.average == "none":
        return frozenset()
    patterns = ("*",) if spec.average == "all" else spec.average
    layers = {name.rpartition(".")[0] for name in names}
    _check_patterns(patterns, network.layers)
    chosen = {layer for layer in layers if any(matches(layer, pattern) for pattern in patterns)}
    chosen -= set(network.norms) if spec.norm == "local" else set()
    entries = dict(network.module.named_parameters(remove_duplicate=False))
    tied = {id(entries[name]) for name in entries if name.rpartition(".")[0] in chosen}  # under every name they have
    return frozenset(name for name in names if name.rpartition(".")[0] in chosen or id(entries.get(name)) in tied)


def _check_patterns(patterns: Sequence[str], layers: Mapping[str, object]) -> None:
    """Raise ValueError naming the first pattern that fits no layer."""
    for pattern in patterns:
        if not any(matches(layer, pattern) for layer in layers):
            raise ValueError(f"{pattern!r} fits no layer; the layers are {', '.join(layers)}")
