"""Which layers carry the barrier between two checkpoints."""

from lmc_tune.averaging.findings import LayerFindings, OfLayers
from lmc_tune.averaging.judging import Judging
from lmc_tune.averaging.metric import class_labels
from lmc_tune.averaging.mixed import SIDES, Mixed
from lmc_tune.averaging.pair import Pair
from lmc_tune.averaging.paths import Condition
from lmc_tune.averaging.recipe import Choosing, judge_between, risen
from lmc_tune.averaging.soups import halves
from lmc_tune.experiment import LayersSpec
from lmc_tune.measurement.layerwise.sets import layer_sets
from lmc_tune.models.state import distance


def measure_layers(pair: Pair, condition: Condition, judging: Judging) -> LayerFindings:
    """The profile of a pair's layers under a condition, and its recipe.

    Each layer, the first ones and the last ones are moved half-way, from A and from B.
    """
    mixed = Mixed.of(pair, condition)
    n, splits = len(mixed.layers), pair.by.splits
    pair.by.say(f"measuring {n} layers: {condition.label}")
    blends = {
        (moved, base): moved.blend(base, 0.5, n)
        for moved in layer_sets(mixed.layers, LayersSpec())
        for base in SIDES
        if moved.family != "full" or base == "a"
    }
    a, b = mixed.whole("a"), mixed.whole("b")
    found = mixed.values([a, b, *blends.values()], splits)
    ends = found[a], found[b]
    sets = tuple(
        OfLayers(
            moved=moved,
            base=base,
            rises=risen(found[blend], ends),
            judged={
                split: judge_between(values, (ends[0][split, quantity], ends[1][split, quantity]), judging)
                for (split, quantity), values in found[blend].items()
                if quantity == judging.quantity
            },
        )
        for (moved, base), blend in blends.items()
    )
    choosing = Choosing(
        mixed=mixed,
        judging=judging,
        distances=[distance(*mixed.ends, layer.parameters) for layer in mixed.layers],
        halves=halves(len(splits["test"]), class_labels(splits["test"], pair.by.metric)),
    )
    for blend, values in found.items():
        choosing.learn(blend, values)
    pair.by.say("choosing layers to average")
    return LayerFindings(
        condition=condition,
        layers=mixed.layers,
        counts=tuple(name for name, entry in mixed.ends[0].items() if not entry.is_floating_point()),
        distances=tuple(choosing.distances),
        sets=sets,
        recipe=choosing.recipe(ends),
        chosen_on=len(choosing.halves[0]),
    )
