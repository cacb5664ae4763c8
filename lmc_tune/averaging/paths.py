"""The path between two states, example by example: what intervals over examples are made of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from lmc_tune.averaging.data import Split
from lmc_tune.averaging.metric import Metric, Quantity, class_labels
from lmc_tune.core.band import Band, simultaneous_band
from lmc_tune.core.barrier import DEFINITIONS, Array, Barrier, Definition, locate_barrier
from lmc_tune.data.examples import ExampleSet
from lmc_tune.errors import UserError
from lmc_tune.experiment import ALIGNED, CONDITIONS, SplitName, Statistics, statistics_of
from lmc_tune.experiment.wording import nearest
from lmc_tune.measurement.conditions import prepare, recalibrate
from lmc_tune.measurement.evaluate import for_evaluation
from lmc_tune.measurement.lines import MeasurementError, Segment
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.scan import POSITIONS_AT_ONCE
from lmc_tune.models.state import State

# Larger networks are evaluated as they are, so that not one more is in memory.
_COPIED_BYTES = 2**28

Method = Literal["weights", "activations"]
# (n,) of every example, by split and quantity.
Values = Mapping[tuple[SplitName, Quantity], Array]


@dataclass(frozen=True)
class Condition:
    """How the networks on a path are prepared: B's units permuted towards A's, or not; then statistics of activations.

    Example:
        >>> Condition("weights", "recalibrated").label
        'aligned by weights + recalibrated'
    """

    alignment: Method | None = None
    statistics: Statistics = "naive"

    @property
    def label(self) -> str:
        if self.alignment is None:
            return self.statistics
        aligned = f"aligned by {self.alignment}"
        return aligned if self.statistics == "naive" else f"{aligned} + {self.statistics}"


def condition_named(name: str, method: Method) -> Condition:
    """The condition of a name such as ``naive`` or ``aligned + repaired``.

    Args:
        name: spaces do not matter.
        method: by which units are aligned.

    Raises:
        UserError: if there is no such condition.
    """
    names = {condition.replace(" ", ""): condition for condition in CONDITIONS}
    found = names.get(name.replace(" ", ""))
    if found is None:
        raise UserError(f"--conditions: no condition {name!r}{nearest(name, names)}; there are {', '.join(names)}")
    return Condition(method if found in ALIGNED else None, statistics_of(found))


def in_order(condition: Condition) -> tuple[int, int]:
    """For sorting: what changes least comes first, and is recommended first."""
    methods: tuple[Method | None, ...] = (None, *get_args(Method))
    return methods.index(condition.alignment), get_args(Statistics).index(condition.statistics)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Values of one quantity along a path, of every example of a split.

    lambdas: (positions,), from 0 to 1. values: (examples, positions).
    """

    lambdas: Array
    values: Array

    @property
    def mean(self) -> Array:
        """(positions,) over the examples."""
        return np.asarray(self.values.mean(axis=0))

    @property
    def n(self) -> int:
        return len(self.values)

    def barriers(self) -> dict[Definition, Barrier]:
        """The barrier of the mean curve by every definition."""
        return {definition: locate_barrier(self.lambdas, self.mean, definition) for definition in DEFINITIONS}

    def band(self, confidence: float, resolution: float) -> Band | None:
        """Of the curve above the chord, over the examples; None where a value is not finite."""
        if not np.isfinite(self.values).all():
            return None
        chord = np.outer(self.values[:, 0], 1 - self.lambdas) + np.outer(self.values[:, -1], self.lambdas)
        excess = self.values - chord
        excess[:, [0, -1]] = 0.0
        return simultaneous_band(excess, confidence, resolution=resolution)

    @property
    def at_half(self) -> Array:
        """(examples,) of the average."""
        return np.asarray(self.values[:, int(np.searchsorted(self.lambdas, 0.5))])


@dataclass(frozen=True, kw_only=True)
class ScoredPath:
    """One path under one condition. outputs: of the test examples, at 0, ½ and 1, where each has one class."""

    condition: Condition
    curves: Mapping[tuple[SplitName, Quantity], Curve]
    outputs: Mapping[float, Array]


def score_path(  # noqa: PLR0913, PLR0917 - the network, the path, on what, how
    network: Network,
    states: tuple[State, State],
    lambdas: Array,
    splits: Mapping[SplitName, Split],
    metric: Metric,
    condition: Condition,
    statistics: ExampleSet | None = None,
) -> ScoredPath:
    """Score the path between two states, one position after the other.

    Args:
        network: of their architecture; its weights are overwritten.
        states: A and B, which is already aligned where the condition says so.
        lambdas: from 0 to 1, with ½ among them.
        splits: what is scored.
        metric: how.
        condition: how networks on the path are prepared.
        statistics: examples for those that estimate statistics, in shuffled order.
    """
    kept: dict[float, Array] = {}
    one_class = "test" in splits and class_labels(splits["test"], metric) is not None
    columns: dict[tuple[SplitName, Quantity], list[Array]] = {}
    for lambda_, model in zip(lambdas, _networks(network, states, lambdas, condition, statistics), strict=True):
        for name, split in splits.items():
            keep = one_class and name == "test" and lambda_ in {0.0, 0.5, 1.0}
            values, outputs = scored(model, split, metric, keep_outputs=keep)
            for quantity, column in values.items():
                columns.setdefault((name, quantity), []).append(column)
            if outputs is not None:
                kept[float(lambda_)] = outputs
    curves = {at: Curve(lambdas=lambdas, values=np.stack(found, axis=1)) for at, found in columns.items()}
    return ScoredPath(condition=condition, curves=curves, outputs=kept)


@torch.no_grad()
def scored(
    model: nn.Module, split: Split, metric: Metric, *, keep_outputs: bool = False
) -> tuple[dict[Quantity, Array], Array | None]:
    """Every example's values, (n,) by quantity in float64; and its outputs, if asked for."""
    network = model.eval()
    parameters = list(model.parameters())
    if sum(parameter.nbytes for parameter in parameters) <= _COPIED_BYTES:
        network = for_evaluation(model, parameters[0].device)
    found: dict[Quantity, list[Tensor]] = {}
    kept: list[Tensor] = []
    for batch in split.batches:
        outputs = metric.outputs(network, batch)
        for quantity, values in metric.values(outputs, batch).items():
            found.setdefault(quantity, []).append(values.double())
        if keep_outputs:
            kept.append(outputs)
    by_quantity = {quantity: torch.cat(values).cpu().numpy() for quantity, values in found.items()}
    return by_quantity, torch.cat(kept).double().cpu().numpy() if kept else None


def check_repeats(model: nn.Module, split: Split, metric: Metric) -> None:
    """Raise MeasurementError if the same weights give two different results."""
    with torch.no_grad():
        model.eval()
        first, again = (metric.outputs(model, split.batches[0]) for _ in range(2))
    if not torch.equal(first.nan_to_num(), again.nan_to_num()):
        raise MeasurementError(
            "the same weights give two different results: the network, or the loss, is random in evaluation mode; "
            "switch dropout off in eval(), and draw nothing there"
        )


def _networks(
    network: Network,
    states: tuple[State, State],
    lambdas: Sequence[float] | Array,
    condition: Condition,
    statistics: ExampleSet | None,
) -> Iterator[nn.Module]:
    """The network at every position; each is gone when the next is asked for.

    Besides the two states no other network is held, but for repaired ones.
    """
    a, b = states
    if condition.statistics == "repaired":
        for first in range(0, len(lambdas), POSITIONS_AT_ONCE):
            some = [float(lambda_) for lambda_ in lambdas[first : first + POSITIONS_AT_ONCE]]
            prepared = prepare("repaired", network, Segment(a, b), statistics, some)
            for state in prepared.states:
                yield prepared.network.loaded(state)
        return
    of_a = {f"{name}.{own}" for name in network.norms for own in ("running_mean", "running_var")}
    for lambda_ in lambdas:
        model = network.moved_to(a, b, float(lambda_))
        if condition.statistics == "endpoint":
            model.load_state_dict({name: a[name] for name in of_a if name in a}, strict=False)
        if condition.statistics == "recalibrated":
            if statistics is None:
                raise MeasurementError("recalibrated needs examples to estimate statistics on; give them as train")
            recalibrate(network, model, statistics)
        yield model
