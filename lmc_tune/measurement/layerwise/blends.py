"""Scores of many networks between two members, each with a λ per layer; what they share is computed once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

from lmc_tune.data.examples import Examples, ExampleSet
from lmc_tune.measurement import evaluate as scoring
from lmc_tune.measurement.conditions import batches, recalibrated
from lmc_tune.measurement.evaluate import Score
from lmc_tune.measurement.layerwise.flow import Flow, Live
from lmc_tune.measurement.layerwise.layers import Layer
from lmc_tune.measurement.lines import MeasurementError
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.scan import score_states
from lmc_tune.models.state import State

# The λ of every layer, from 0 (A) to 1 (B), in the order of the layers.
Blend = tuple[float, ...]
# How the statistics of BatchNorm are found; those of a blend whose channels are rescaled need a line, not a blend.
BlendStatistics = Literal["naive", "endpoint", "recalibrated"]

# Outputs of layers that are kept for other blends take no more, nor do interpolated weights besides the members' own.
_ACTIVATION_BYTES, _WEIGHT_BYTES = 2**28, 2**30


def blended(a: State, b: State, layers: Sequence[Layer], blend: Blend) -> dict[str, Tensor]:
    """The state of a blend; integer entries are counts, not weights: they are A's."""
    state = dict(a)
    for layer, position in zip(layers, blend, strict=True):
        for name in layer.entries:
            state[name] = _lerp(a[name], b[name], position)
    return state


def distinct_runs(blends: Iterable[Blend]) -> int:
    """How many layers have to be computed for some blends: what begins alike is computed once."""
    return len({blend[:depth] for blend in blends for depth in range(1, len(blend) + 1)})


class Blender:
    """Two members of one architecture whose layers are mixed.

    A pass through the network is recorded once. Blends are then computed layer by layer, as a tree: those whose first
    layers lie at the same positions share the outputs of these layers, in every chunk of examples. Outputs that are
    kept for later take 256 MiB at most, by the number of examples in a chunk, except where statistics are estimated,
    whose batches are those of a single network; interpolated weights take 1 GiB. A network that cannot be recorded is
    loaded with one blend after the other: the same scores, more slowly.

    Args:
        network: of the members' architecture.
        ends: A and B, on the network's device.
        layers: of the network (:func:`~lmc_tune.measurement.layerwise.layers.layers_of`).

    Attributes:
        obstacle: why the network cannot be recorded; empty if it can, or if nothing has been scored yet.
    """

    def __init__(self, network: Network, ends: tuple[State, State], layers: Sequence[Layer]) -> None:
        self.network, self.ends, self.layers = network, ends, layers
        self.obstacle = ""
        self._flows: dict[tuple[tuple[int, ...], bool], Flow] = {}
        self._chunk = 0
        self._estimates = False

    @torch.no_grad()
    def score(
        self,
        blends: Iterable[Blend],
        data: Mapping[str, ExampleSet],
        condition: BlendStatistics = "naive",
        statistics: ExampleSet | None = None,
        base: State | None = None,
    ) -> dict[Blend, dict[str, Score]]:
        """Loss and error of every blend, in evaluation mode, on all examples of every split.

        Args:
            blends: each is scored once, however often it is named.
            data: examples by split, on the network's device.
            condition: ``naive``: BatchNorm's running statistics are interpolated with its layer; ``endpoint``: all are
                the base's; ``recalibrated``: estimated for every blend.
            statistics: what they are estimated on, in shuffled order; None if none are.
            base: of which member statistics are under ``endpoint``; A by default.

        Raises:
            MeasurementError: if statistics are to be estimated and there are no examples.
        """
        asked = sorted(set(blends))
        if not self.records(next(iter(data.values())), condition, statistics):
            return self._one_by_one(asked, data, self._possible(condition, statistics), statistics, base)
        parts: dict[tuple[Blend, str], list[Score]] = {}
        for blend, split, some, logits in self.outputs(asked, data, condition, statistics, base):
            parts.setdefault((blend, split), []).append(scoring.score_of(logits, some.labels))
        return {blend: {split: _together(parts[blend, split]) for split in data} for blend in asked}

    @torch.no_grad()
    def outputs(
        self,
        blends: Iterable[Blend],
        data: Mapping[str, ExampleSet],
        condition: BlendStatistics = "naive",
        statistics: ExampleSet | None = None,
        base: State | None = None,
    ) -> Iterator[tuple[Blend, str, Examples, Tensor]]:
        """What every blend makes of some examples after the others, in the order of every split.

        Args:
            blends: as :meth:`score` takes them, and all else.
            data: some of which :meth:`records` has seen.

        Returns:
            A blend, a split, examples of it and their logits, (n, …).

        Raises:
            MeasurementError: as :meth:`score`; and if the network cannot be recorded.
        """
        asked, condition = sorted(set(blends)), self._possible(condition, statistics)
        if not self.records(next(iter(data.values())), condition, statistics):
            raise MeasurementError(f"the network cannot be recorded: {self.obstacle}")
        weights = _Weights(self.ends, self.layers, self._fixed(condition, base))
        if condition == "recalibrated" and statistics is not None:
            self._estimate(asked, statistics, weights)
        for split, examples in data.items():
            for some in examples.chunks(self._chunk):
                flow = self._flow(some.inputs)
                for blend, live in self._leaves(flow, flow.begin(some.inputs), asked, weights):
                    yield blend, split, some, flow.logits(live)

    def _possible(self, condition: BlendStatistics, statistics: ExampleSet | None) -> BlendStatistics:
        if condition == "recalibrated" and not self.network.norms:
            return "naive"
        if condition == "recalibrated" and statistics is None:
            raise MeasurementError(f"{condition} needs examples of the training set; give them as statistics")
        return condition

    def _fixed(self, condition: BlendStatistics, base: State | None) -> dict[str, Tensor]:
        return running_statistics(self.network, base or self.ends[0]) if condition == "endpoint" else {}

    def _leaves(  # noqa: PLR0913, PLR0917 - what is done, and where in the tree
        self,
        flow: Flow,
        live: Live,
        blends: Sequence[Blend],
        weights: "_Weights",
        depth: int = 0,
        seen: "dict[Blend, dict[str, list[Tensor]]] | None" = None,
    ) -> Iterator[tuple[Blend, Live]]:
        """Every blend with what its last layer left. live: emptied when nothing needs it any more.

        seen: gets the statistics that norms estimated, by the blend's positions up to the norm's layer.
        """
        if depth == len(self.layers):
            yield blends[0], live
            return
        branches = [(begin, list(some)) for begin, some in groupby(blends, key=lambda blend: blend[: depth + 1])]
        for number, (begin, some) in enumerate(branches, start=1):
            after = flow.run(depth, live, lambda name, begin=begin: weights.entry(flow, name, begin))  # type: ignore[misc]
            if seen is not None:
                for name, tensor in flow.statistics(depth, after).items():
                    seen.setdefault(begin, {}).setdefault(name, []).append(tensor)
            if number == len(branches):
                live.clear()
            yield from self._leaves(flow, after, some, weights, depth + 1, seen)

    def _estimate(self, blends: Sequence[Blend], examples: ExampleSet, weights: "_Weights") -> None:
        """Let the weights have the statistics of every blend's own activations: averages over the batches of every
        batch's mean and unbiased variance, each batch weighted by its size.
        """
        seen: dict[Blend, dict[str, list[Tensor]]] = {}
        sizes = []
        for inputs in batches(examples):
            sizes.append(len(inputs))
            flow = self._flow(inputs, estimating=True)
            for _ in self._leaves(flow, flow.begin(inputs), blends, weights, seen=seen):
                pass
        shares = torch.tensor(sizes, dtype=torch.float64) / sum(sizes)
        for begin, entries in seen.items():
            for name, found in entries.items():
                whole = torch.stack(found).double()
                average = (shares.to(whole.device)[:, None] * whole).sum(0)
                weights.estimated[begin[: weights.depth[name] + 1], name] = average.to(found[0].dtype)

    def _one_by_one(
        self,
        blends: Sequence[Blend],
        data: Mapping[str, ExampleSet],
        condition: BlendStatistics,
        statistics: ExampleSet | None,
        base: State | None,
    ) -> dict[Blend, dict[str, Score]]:
        found: dict[Blend, dict[str, Score]] = {}
        for blend in blends:
            state = blended(*self.ends, self.layers, blend) | self._fixed(condition, base)
            if condition == "recalibrated" and statistics is not None:
                (state,) = recalibrated(self.network, [state], statistics)
            found[blend] = {split: score_states(self.network, [state], examples)[0] for split, examples in data.items()}
        return found

    @torch.no_grad()
    def records(
        self,
        examples: ExampleSet,
        condition: BlendStatistics = "naive",
        statistics: ExampleSet | None = None,
    ) -> bool:
        """Whether a recorded pass gives A's own logits and, where they are to be estimated, A's statistics; if not,
        :attr:`obstacle` says why.
        """
        try:
            if not self.obstacle and not self._chunk:
                self.obstacle = self._fault_of_a_pass(examples)
            estimating = self._possible(condition, statistics) == "recalibrated"
            if not self.obstacle and estimating and statistics is not None and not self._estimates:
                self.obstacle = self._fault_of_estimating(statistics)
                self._estimates = not self.obstacle
        except MeasurementError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a user's code raises while it is recorded
            self.obstacle = next(iter(str(error).splitlines()), type(error).__name__)
        return not self.obstacle

    def _fault_of_a_pass(self, examples: ExampleSet) -> str:
        self._chunk = self._examples_at_once(next(examples.chunks(2)).inputs)
        inputs = next(examples.chunks(self._chunk)).inputs
        flow, weights = self._flow(inputs), _Weights(self.ends, self.layers)
        ((_, live),) = self._leaves(flow, flow.begin(inputs), [self._nothing_moved], weights)
        expected = self.network.loaded(self.ends[0]).eval()(inputs)
        return "" if _alike(flow.logits(live), expected) else "it does other things in other passes"

    def _fault_of_estimating(self, statistics: ExampleSet) -> str:
        """Of the first batch."""
        first = next(iter(batches(statistics)))
        some = next(statistics.chunks(len(first)))
        weights = _Weights(self.ends, self.layers)
        self._estimate([self._nothing_moved], some, weights)
        (expected,) = recalibrated(self.network, [self.ends[0]], some)
        found = {name: tensor for (_, name), tensor in weights.estimated.items()}
        names = running_statistics(self.network, expected)
        if found.keys() != names.keys() or not all(_alike(found[name], expected[name]) for name in names):
            return "its norms estimate other statistics than those of what they are given"
        return ""

    @property
    def _nothing_moved(self) -> Blend:
        return (0.0,) * len(self.layers)

    def _examples_at_once(self, two: Tensor) -> int:
        """So many that the outputs of all layers, kept at once, fit."""
        flow, total = Flow(self.network, self.layers, two), 0
        weights, live = _Weights(self.ends, self.layers), flow.begin(two)
        for depth in range(len(self.layers)):
            begin = (0.0,) * (depth + 1)
            live = flow.run(depth, live, lambda name, begin=begin: weights.entry(flow, name, begin))  # type: ignore[misc]
            total += sum(part.nbytes for part in live.values() if isinstance(part, Tensor))
        most = scoring.chunk_of(self.network.module, two.device)
        return max(1, min(most, _ACTIVATION_BYTES * len(two) // max(1, total)))

    def _flow(self, inputs: Tensor, *, estimating: bool = False) -> Flow:
        key = (tuple(inputs.shape), estimating)
        if key not in self._flows:
            self._flows[key] = Flow(self.network, self.layers, inputs, estimating=estimating)
        return self._flows[key]


def _together(parts: Sequence[Score]) -> Score:
    """The score on all examples, from those on parts of them."""
    return Score(
        loss_sum=sum(part.loss_sum for part in parts),
        correct=sum(part.correct for part in parts),
        n=sum(part.n for part in parts),
    )


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether they are equal but for rounding, which grows with the largest of them."""
    most = float(other.detach().abs().nan_to_num(posinf=0.0).max()) if other.numel() else 0.0
    return one.shape == other.shape and torch.allclose(
        one, other, rtol=1e-4, atol=1e-5 * max(1.0, most), equal_nan=True
    )


@dataclass
class _Weights:
    """Entries of blends.

    fixed: entries that are the same in all. estimated: statistics, by a blend's positions up to their layer, and name.
    """

    ends: tuple[State, State]
    layers: Sequence[Layer]
    fixed: dict[str, Tensor] = field(default_factory=dict)
    estimated: dict[tuple[Blend, str], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.depth = {name: at for at, layer in enumerate(self.layers) for name in layer.entries}
        self._made: dict[tuple[str, float], Tensor] = {}
        self._bytes = 0

    def entry(self, flow: Flow, name: str, begin: Blend) -> Tensor:
        """An entry of all blends that begin so."""
        if name in self.fixed:
            return self.fixed[name]
        depth = self.depth.get(name)
        if depth is None:
            return flow.own(name)
        if (found := self.estimated.get((begin[: depth + 1], name))) is not None:
            return found
        position = begin[depth]
        if (name, position) in self._made:
            return self._made[name, position]
        a, b = self.ends
        made = flow.prepared(name, _lerp(a[name], b[name], position))
        if self._bytes + made.nbytes <= _WEIGHT_BYTES:
            self._made[name, position] = made
            self._bytes += made.nbytes
        return made


def _lerp(a: Tensor, b: Tensor, position: float) -> Tensor:
    if position == 0 or not a.is_floating_point():
        return a
    return b if position == 1 else torch.lerp(a, b, position)


def running_statistics(network: Network, state: State) -> dict[str, Tensor]:
    """The running statistics of BatchNorm among the entries of a state."""
    names = {f"{name}.{what}" for name in network.norms for what in ("running_mean", "running_var")}
    return {name: entry for name, entry in state.items() if name in names}
