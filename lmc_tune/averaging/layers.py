"""Which layers carry the barrier between two checkpoints."""

from collections.abc import Mapping

from lmc_tune.averaging.findings import LayerFindings, OfLayers
from lmc_tune.averaging.judging import Judging
from lmc_tune.averaging.metric import class_labels
from lmc_tune.averaging.mixed import SIDES, Mixed
from lmc_tune.averaging.pair import Pair
from lmc_tune.averaging.paths import Condition, Values
from lmc_tune.averaging.recipe import Choosing, judge_between, risen
from lmc_tune.averaging.recipe_files import whole_numbers
from lmc_tune.averaging.soups import halves
from lmc_tune.experiment import LayersSpec
from lmc_tune.measurement.layerwise.sets import Base, LayerSet, layer_sets
from lmc_tune.models.state import distance


def measure_layers(pair: Pair, condition: Condition, judging: Judging) -> LayerFindings:
    """The profile of a pair's layers under a condition, and its recipe.

    Each layer, the first ones and the last ones are moved half-way, from A and from B.
    """
    mixed = Mixed.of(pair, condition)
    n, splits = len(mixed.layers), pair.by.splits
    sets = layer_sets(mixed.layers, LayersSpec())
    a, b = mixed.whole("a"), mixed.whole("b")
    blends = [a, b, *(moved.blend(base, 0.5, n) for moved in sets for base in SIDES)]
    passes = mixed.passes(blends, splits)
    pair.by.say(f"measuring {n} layers in about {passes} passes over the examples: {condition.label}")
    found = mixed.values(blends, splits)
    ends = found[a], found[b]
    choosing = Choosing(
        mixed=mixed,
        judging=judging,
        distances=[distance(*mixed.ends, layer.parameters) for layer in mixed.layers],
        halves=halves(len(splits["test"]), class_labels(splits["test"], pair.by.metric)),
    )
    for blend, values in found.items():
        choosing.learn(blend, values)
    pair.by.say(f"choosing layers to average in at most {4 * n} passes over the test examples, usually far fewer")
    return LayerFindings(
        condition=condition,
        layers=mixed.layers,
        counts=whole_numbers(mixed.ends[0]),
        distances=tuple(choosing.distances),
        sets=tuple(
            _of_layers(moved, {base: found[moved.blend(base, 0.5, n)] for base in SIDES}, ends, judging)
            for moved in sets
        ),
        recipe=choosing.recipe(ends),
        chosen_on=len(choosing.halves[0]),
    )


def _of_layers(
    moved: LayerSet, values: Mapping[Base, Values], ends: tuple[Values, Values], judging: Judging
) -> OfLayers:
    both = {at: (of_a + values["b"][at]) / 2 for at, of_a in values["a"].items()}
    return OfLayers(
        moved=moved,
        rises=risen(both, ends),
        judged={
            split: judge_between(own, (ends[0][split, quantity], ends[1][split, quantity]), judging)
            for (split, quantity), own in both.items()
            if quantity == judging.quantity
        },
        from_base={base: risen(own, ends) for base, own in values.items()},
    )
