"""Barriers of some layers alone (Adilova et al. 2024): a member with a set of its layers on their way to the other's.

Each is compared with the mean of the two whole members.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lmc_tune.core.barrier import DEFINITIONS, locate_barrier, path_grid
from lmc_tune.data.examples import ExampleSet
from lmc_tune.experiment import (
    ALIGNED,
    SAME_WITHOUT_BATCH_NORM,
    Condition,
    LayersSpec,
    MeasureSpec,
    Statistics,
    barrier_column,
    statistics_of,
)
from lmc_tune.measurement.alignment.members import aligned
from lmc_tune.measurement.conditions import estimating_passes
from lmc_tune.measurement.evaluate import Score
from lmc_tune.measurement.layerwise.blends import Blend, Blender, distinct_runs
from lmc_tune.measurement.layerwise.layers import Layer, layers_of
from lmc_tune.measurement.layerwise.sets import Base, LayerSet, layer_sets
from lmc_tune.measurement.lines import Segment
from lmc_tune.measurement.measurement import Found, Sizes, Work
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.score import score
from lmc_tune.models.state import State, distance
from lmc_tune.tables.columns import Row

Scores = Mapping[str, Score]
BASES: tuple[Base, ...] = ("a", "b")


@dataclass(frozen=True, kw_only=True)
class SetPath:
    """A set of layers of a base, scored by split at some positions from the base to the other member.

    ends: scores of the whole base and of the whole other member, under the same condition.
    """

    moved: LayerSet
    base: Base
    lambdas: tuple[float, ...]
    scores: tuple[Scores, ...]
    ends: tuple[Scores, Scores]

    def barriers(self) -> Row:
        """Every barrier against the mean of the whole members, with its λ; half-way alone, that at the midpoint."""
        row = Row()
        for split in self.ends[0]:
            for quantity in ("error", "loss"):
                values = [getattr(scores[split], quantity) for scores in self.scores]
                ends = getattr(self.ends[0][split], quantity), getattr(self.ends[1][split], quantity)
                for definition in DEFINITIONS if len(values) > 1 else ():
                    found = locate_barrier(np.array(self.lambdas), values, definition, ends)
                    column = barrier_column(f"{split}_{quantity}", definition)
                    row[column], row[f"{column}_lambda"] = found.height, found.lambda_
                if len(values) == 1:
                    column = barrier_column(f"{split}_{quantity}", "midpoint")
                    row[column], row[f"{column}_lambda"] = values[0] - 0.5 * sum(ends), 0.5
        return row


def measure_layers(  # noqa: PLR0913, PLR0917 - what is scored, of which networks, on what, and how it is prepared
    blender: Blender,
    sets: Sequence[LayerSet],
    lambdas: Sequence[float],
    data: Mapping[str, ExampleSet],
    condition: Statistics = "naive",
    statistics: ExampleSet | None = None,
) -> list[SetPath]:
    """The path of every set from A and from B.

    Args:
        blender: of A and B.
        sets: of their layers.
        lambdas: positions from the base to the other member.
        data: examples by split, on the network's device.
        condition: how networks are prepared: ``endpoint``: all statistics are the base's, also those of the other whole
            member; ``repaired``: moments lie between those of the base and of the base with the other member's set.
        statistics: what conditions estimate statistics on, in shuffled order.

    Raises:
        MeasurementError: if statistics are missing.
    """
    asked = [(moved, base) for moved in sets for base in BASES]
    if condition == "repaired":
        whole = LayerSet(family="full", name="all", position=0, layers=tuple(range(len(blender.layers))))
        one, other = _along(blender, whole, "a", (0.0, 1.0), data, statistics)
        ends: dict[Base, tuple[Scores, Scores]] = {"a": (one, other), "b": (other, one)}
        found = {(moved, base): _along(blender, moved, base, lambdas, data, statistics) for moved, base in asked}
    else:
        n = len(blender.layers)
        paths = {(moved, base): [moved.blend(base, at, n) for at in lambdas] for moved, base in asked}
        wholes: dict[Base, Blend] = {"a": (0.0,) * n, "b": (1.0,) * n}
        scored: dict[Base, Mapping[Blend, Scores]] = {}
        for bases in (BASES[:1], BASES[1:]) if condition == "endpoint" else (BASES,):
            blends = [blend for (_, base), path in paths.items() if base in bases for blend in path]
            kept = blender.ends[BASES.index(bases[0])]
            scores = blender.score([*wholes.values(), *blends], data, condition, statistics, kept)
            scored |= dict.fromkeys(bases, scores)
        ends = {
            "a": (scored["a"][wholes["a"]], scored["a"][wholes["b"]]),
            "b": (scored["b"][wholes["b"]], scored["b"][wholes["a"]]),
        }
        found = {(moved, base): [scored[base][blend] for blend in path] for (moved, base), path in paths.items()}
    return [
        SetPath(
            moved=moved,
            base=base,
            lambdas=tuple(lambdas),
            scores=tuple(scores),
            ends=ends[base],
        )
        for (moved, base), scores in found.items()
    ]


def _along(  # noqa: PLR0913, PLR0917 - as measure_layers
    blender: Blender,
    moved: LayerSet,
    base: Base,
    lambdas: Sequence[float],
    data: Mapping[str, ExampleSet],
    statistics: ExampleSet | None,
) -> list[Scores]:
    """Scores of repaired networks, whose channels' moments are those of a line."""
    one, other = blender.ends if base == "a" else blender.ends[::-1]
    entries = frozenset(name for at in moved.layers for name in blender.layers[at].entries)
    line = Segment(one, other, None if moved.family == "full" else entries)
    return list(score(blender.network, line, lambdas, data, "repaired", statistics))


class LayerBarriers:
    """Barriers and paths of all sets of layers, under every condition, at the end of training and at every snapshot.

    Aligned conditions hold at the end alone.
    """

    name = "layers"

    def measure(self, members: Members, asked: MeasureSpec) -> Found:
        """Rows of the tables of layers' barriers and paths; nothing where layers are not asked for."""
        if asked.layers is None:
            return Found()
        layers = layers_of(members.network.module, next(members.data["test"].chunks(2)).inputs)
        sets = layer_sets(layers, asked.layers)
        barriers, paths = list[Row](), list[Row]()
        for condition, epoch, found, ends in self._measured(members, asked, layers, sets):
            for path in found:
                moved = path.moved
                row = {
                    "condition": condition,
                    "epoch": epoch,
                    "base": path.base,
                    "family": moved.family,
                    "moved": moved.name,
                }
                parameters = tuple(name for at in moved.layers for name in layers[at].parameters)
                barriers.append(
                    {
                        **row,
                        "position": moved.position,
                        "layers": len(moved.layers),
                        "share": len(moved.layers) / len(layers),
                        "distance": distance(*ends, parameters),
                        **path.barriers(),
                    }
                )
                paths += [
                    {**row, "split": split, "lambda": at, **vars(one)}
                    for at, scores in zip(path.lambdas, path.scores, strict=True)
                    for split, one in scores.items()
                ]
        return Found(tables={"layer_barriers": barriers, "layer_paths": paths})

    def work(self, sizes: Sizes, asked: MeasureSpec) -> Work:
        """Every layer of every network, what begins alike once; of repaired ones, each network by itself."""
        if asked.layers is None or not sizes.layers:
            return Work()
        unnamed = [Layer(name=str(at), parameters=(), entries=()) for at in range(sizes.layers)]
        sets = layer_sets(unnamed, asked.layers.model_copy(update={"groups": {}}))
        of_sets = _passes(sets, _lambdas(asked.layers), len(unnamed))
        conditions = _conditions(asked, asked.layers)
        at_snapshots = [one for one in conditions if one not in ALIGNED]
        passes = [of_sets[statistics_of(one)] for one in (*conditions, *len(asked.snapshots) * at_snapshots)]
        examples = sum(sizes.splits[split] for split in asked.splits)
        return Work(
            scored_apart=round(examples * sum(scored for scored, _ in passes)),
            estimated=round(sizes.both * sum(estimated for _, estimated in passes)),
        )

    def _measured(
        self, members: Members, asked: MeasureSpec, layers: Sequence[Layer], sets: Sequence[LayerSet]
    ) -> Iterator[tuple[Condition, int | None, list[SetPath], tuple[State, State]]]:
        spec = asked.layers or LayersSpec()
        data = {str(split): members.data[split] for split in asked.splits}
        known: dict[tuple[int | None, bool, Statistics], list[SetPath]] = {}
        for epoch, ends in _pairs(members):
            blenders: dict[bool, Blender] = {}  # to B as it is and to the aligned B: a network is recorded once for all
            for condition in _conditions(asked, spec):
                one = condition if members.network.norms else SAME_WITHOUT_BATCH_NORM.get(condition, condition)
                pair = ends
                if one in ALIGNED:
                    if epoch is not None:
                        continue
                    moved, _ = aligned(members, asked)
                    pair = ends if moved is None else (ends[0], moved)
                key = epoch, pair is not ends, statistics_of(one)
                if key not in known:
                    if key[1] not in blenders:
                        blenders[key[1]] = Blender(Network(members.network.module), pair, layers)
                    blender = blenders[key[1]]
                    known[key] = measure_layers(
                        blender, sets, _lambdas(spec), data, statistics_of(one), members.statistics
                    )
                yield condition, epoch, known[key], pair


def _passes(sets: Sequence[LayerSet], lambdas: Sequence[float], n: int) -> dict[Statistics, tuple[float, float]]:
    """Passes through whole networks of ``n`` layers that score all sets, and those that estimate statistics."""
    whole = {(0.0,) * n, (1.0,) * n}
    blends = [{moved.blend(base, at, n) for moved in sets for at in lambdas} | whole for base in BASES]
    tree, apart = distinct_runs(set().union(*blends)) / n, sum(map(distinct_runs, blends)) / n
    lines = 2 * len(sets)
    moments = lines * estimating_passes("repaired", len(lambdas)) + estimating_passes("repaired", len(whole))
    return {
        "naive": (tree, 0),
        "endpoint": (apart, 0),  # the statistics of each base are its own
        "recalibrated": (tree, tree),
        "repaired": (lines * len(lambdas) + len(whole), moments),
    }


def _pairs(members: Members) -> Iterator[tuple[int | None, tuple[State, State]]]:
    """The members at the end of training (None) and at every epoch of which both have a snapshot."""
    yield None, members.pair
    if members.snapshots:
        one, other = (members.snapshots[name] for name in members.states)
        for epoch in sorted(one.keys() & other.keys()):
            yield epoch, (one[epoch], other[epoch])


def _conditions(asked: MeasureSpec, spec: LayersSpec) -> list[Condition]:
    return [one for one in asked.conditions or () if spec.conditions is None or one in spec.conditions]


def _lambdas(spec: LayersSpec) -> tuple[float, ...]:
    return (0.5,) if spec.lambdas == "midpoint" else tuple(path_grid(spec.lambdas).tolist())
