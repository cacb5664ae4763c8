"""What was found of layers, in words and as a table, the same in terminal and page."""

from lmc_tune.analysis.wording import LAYER_PLACES, layer_words
from lmc_tune.averaging.findings import LayerFindings, OfLayers, PairFindings
from lmc_tune.averaging.judging import Judging
from lmc_tune.averaging.wording import height, plain_number, quantity_name
from lmc_tune.measurement.layerwise.sets import Family, LayerSet

# What is half-way in a row of the table.
_FAMILIES: dict[Family, str] = {"single": "alone", "shallow": "up to it", "deep": "from it on"}
ABOVE = "▲"


def layer_rows(found: PairFindings, layers: LayerFindings) -> list[dict[str, str]]:
    """A row per layer, in the order of the data: its distance, its share of B in the recipe, and the rises above the
    members' mean where it, those up to it, or those from it on lie half-way.
    """
    rows = []
    for at, (layer, lambda_) in enumerate(layers.lambdas):
        distance = plain_number(layers.distances[at], 3)
        row = {"layer": layer_words(at + 1, layer.name), "distance": distance, "B": _share(lambda_)}
        for family, name in _FAMILIES.items():
            row[name] = _rise(layers.of(family)[at], found.judging)
        rows.append(row)
    return rows


def layer_lead(found: PairFindings, layers: LayerFindings) -> str:
    """What the table's columns are."""
    what = quantity_name(found.judging, found.metric)
    return (
        f"{layers.condition.label}: by how much the {what} on test examples rises above the members' mean where a "
        f"layer alone, those up to it, or those from it on lie half-way; mean of the networks with the other layers of "
        f"A and of B. {ABOVE}: the whole interval lies above the threshold. B: the share of B in the recipe. "
        f"{LAYER_PLACES}"
    )


def layer_sentences(found: PairFindings, layers: LayerFindings) -> list[str]:
    """The controls, the layer with the highest barrier, and the first layers that are too many."""
    full, heaviest, n = layers.full, layers.heaviest, len(layers.layers)
    first = {family: _first(layers, family) for family in ("shallow", "deep")}
    rise = _of_all(full, found.judging)
    return [
        f"all {n} layers: {_rise(full, found.judging)}, of which 1/{n} is {height(rise / n, found.judging)}",
        f"highest alone: {named(heaviest.moved)}, {_rise(heaviest, found.judging)}",
        f"first above the threshold from the input: {first['shallow']}; from the output: {first['deep']}",
    ]


def named(moved: LayerSet) -> str:
    """The layer after which a set is named, by place and name."""
    return layer_words(moved.position + 1, moved.name)


def ranges(places: tuple[int, ...], names: list[str]) -> str:
    """Some layers, neighbours as a range.

    Args:
        places: from 0.
        names: of all layers.

    Example:
        >>> ranges((0, 2, 3, 4), ["conv1", "norm1", "conv2", "norm2", "fc"])
        'conv1, conv2 … fc'
    """
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    parts = [names[run[0]] if len(run) == 1 else f"{names[run[0]]} … {names[run[-1]]}" for run in runs]
    return ", ".join(parts)


def _first(layers: LayerFindings, family: Family) -> str:
    found = layers.first_above(family)
    return "none" if found is None else named(found.moved)


def _rise(one: OfLayers, judging: Judging) -> str:
    mark = f" {ABOVE}" if one.judged["test"].verdict == "disconnected" else ""
    return f"{height(_of_all(one, judging), judging)}{mark}"


def _of_all(one: OfLayers, judging: Judging) -> float:
    return one.rises["test", judging.quantity]


def _share(lambda_: float) -> str:
    return {0.0: "0", 0.5: "½", 1.0: "1"}[lambda_]
