"""What was found of a pair, as plain numbers."""

from collections.abc import Mapping
from dataclasses import dataclass

from lmc_tune.averaging.judging import Difference, Judged, Judging
from lmc_tune.averaging.metric import Quantity
from lmc_tune.averaging.paths import Condition, Method
from lmc_tune.averaging.surroundings import DirectionFindings, PlaneFindings
from lmc_tune.core.barrier import Array, Barrier, Definition
from lmc_tune.experiment import SplitName
from lmc_tune.measurement.layerwise.layers import Layer
from lmc_tune.measurement.layerwise.sets import Base, Family, LayerSet
from lmc_tune.models.state import State


@dataclass(frozen=True, kw_only=True)
class Named:
    """A member's weights. file: where they were read. took: what was read, in words."""

    name: str
    state: State
    file: str = ""
    took: str = ""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How good one network, or an ensemble, is on the test examples.

    means: by split, where both were given, and quantity. brier, ece: None unless it classifies one label.
    """

    means: Mapping[tuple[SplitName, Quantity], float]
    brier: float | None = None
    ece: float | None = None


@dataclass(frozen=True, kw_only=True)
class Member:
    """One of the checkpoints. file: where it was read; empty for weights in memory. took: what was read, in words.
    learned: whether it does better than naming the most frequent class, as it is; None where that is not known.
    """

    name: str
    file: str
    took: str
    quality: Quality
    learned: bool | None


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """What aligning B to A came to.

    objective: ⟨θ_A, P θ_B⟩ over the weights with free axes, that of the identity, and those of all starts; None of a
    matching by activations, which has another. moved: units that changed place, of so many. frozen: why others cannot.
    distance: ‖θ_A − P θ_B‖.
    """

    method: Method
    moved: int
    units: int
    frozen: tuple[str, ...]
    distance: float
    objective: float | None = None
    identity: float | None = None
    objectives: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OfCondition:
    """One path. average: θ(½). to_mean, to_better: its judged values less those of the members' mean, and less those of
    the better member, on the test examples; negative is better.
    """

    condition: Condition
    lambdas: Array
    judged: Mapping[SplitName, Judged]
    means: Mapping[tuple[SplitName, Quantity], Array]
    barriers: Mapping[tuple[SplitName, Quantity], Mapping[Definition, Barrier]]
    average: Quality
    to_mean: Difference
    to_better: Difference

    @property
    def merge_gain(self) -> float:
        """By how much the average is better than the members' mean: percentage points of accuracy, or loss."""
        return -self.to_mean.mean * (100 if ("test", "error") in self.means else 1)

    @property
    def retention(self) -> float | None:
        """The average's accuracy in parts of the members' mean accuracy; None without accuracies."""
        error = self.average.means.get(("test", "error"))
        mean = None if error is None else 1 - (error - self.to_mean.mean)
        return (1 - error) / mean if error is not None and mean else None


@dataclass(frozen=True, kw_only=True)
class OfLayers:
    """Two networks: A and B with some layers half-way to the other member's. Numbers are means of both.

    rises: means of the networks less those of both whole members, by split and quantity. judged: the barrier of the
    judged quantity by split. from_base: the rises of each by itself.
    """

    moved: LayerSet
    rises: Mapping[tuple[SplitName, Quantity], float]
    judged: Mapping[SplitName, Judged]
    from_base: Mapping[Base, Mapping[tuple[SplitName, Quantity], float]]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A network whose layers are each averaged, or one member's.

    lambdas: of every layer, the share of B: ½, or that of ``kept``. kept: the member that has the layers which are not
    averaged; None if all are. share: of ‖θ_A − θ_B‖², what lies in averaged layers. judged: its barrier, and to_mean,
    to_better: its judged values less those of the members' mean, and less those of the better member, on the examples
    that did not choose it. rises: its means on all examples less those of both members, by split and quantity.
    """

    lambdas: tuple[float, ...]
    kept: Base | None
    share: float
    judged: Judged
    to_mean: Difference
    to_better: Difference
    rises: Mapping[tuple[SplitName, Quantity], float]

    @property
    def is_empty(self) -> bool:
        """Whether its network is one of two members that differ: no layer is averaged, or none that differs."""
        return self.share == 0

    @property
    def averaged(self) -> tuple[int, ...]:
        """The places of the layers that are averaged."""
        return tuple(at for at, lambda_ in enumerate(self.lambdas) if lambda_ == 0.5)


@dataclass(frozen=True, kw_only=True)
class LayerFindings:
    """What was found of every layer under one condition.

    layers: in the order in which data flow through them. counts: names of entries that are whole numbers, which are A's
    in every network. distances: ‖θ_A − θ_B‖ of each layer; B as the condition aligns it.
    sets: alone, from the input up to it, from it on to the output; and all layers as the control.
    chosen_on: the number of test examples that chose the recipe; the others measured it.
    """

    condition: Condition
    layers: tuple[Layer, ...]
    counts: tuple[str, ...]
    distances: tuple[float, ...]
    sets: tuple[OfLayers, ...]
    recipe: Recipe
    chosen_on: int

    @property
    def lambdas(self) -> tuple[tuple[Layer, float], ...]:
        """Every layer with its share of B in the recipe."""
        return tuple(zip(self.layers, self.recipe.lambdas, strict=True))

    @property
    def full(self) -> OfLayers:
        """All layers half-way."""
        return next(one for one in self.sets if one.moved.family == "full")

    def of(self, family: Family) -> tuple[OfLayers, ...]:
        """The sets of a family, by their layer."""
        return tuple(one for one in self.sets if one.moved.family == family)

    def first_above(self, family: Family) -> OfLayers | None:
        """The smallest set of a cumulative family that is disconnected; None if none is."""
        above = [one for one in self.of(family) if one.judged["test"].verdict == "disconnected"]
        return min(above, key=lambda one: len(one.moved.layers), default=None)

    @property
    def heaviest(self) -> OfLayers:
        """The single layer with the highest barrier."""
        return max(self.of("single"), key=lambda one: one.judged["test"].barrier)


@dataclass(frozen=True, kw_only=True)
class PairFindings:
    """Everything that was found of two checkpoints.

    identical: whether all entries are the same. distance: ‖θ_A − θ_B‖ over all parameters. cosine: of θ_A and θ_B.
    disagreement: fraction of test examples for which they predict another class. ensemble: of both members'
    probabilities; ensemble_to_better as ``to_better``; None unless they classify. notes: what to know before trusting
    the numbers. layers, directions, planes: None unless they were asked for. text: whether every example is a window of
    tokens, so that losses have a perplexity.
    """

    members: tuple[Member, Member]
    judging: Judging
    metric: str
    unit: str
    paths: tuple[OfCondition, ...]
    alignments: tuple[Aligned, ...]
    identical: bool
    distance: float
    cosine: float
    disagreement: float | None
    ensemble: Quality | None
    ensemble_to_better: Difference | None
    notes: tuple[str, ...]
    layers: LayerFindings | None = None
    directions: DirectionFindings | None = None
    planes: PlaneFindings | None = None
    text: bool = False

    @property
    def better(self) -> Member:
        """The member with the lower judged value on the test examples."""
        return min(self.members, key=lambda member: member.quality.means["test", self.judging.quantity])

    def path(self, condition: Condition | None) -> OfCondition | None:
        """The path under a condition; None if it was not measured."""
        return next((path for path in self.paths if path.condition == condition), None)
