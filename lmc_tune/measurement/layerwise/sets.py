"""Which sets of layers are moved alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lmc_tune.experiment import LayersSpec
from lmc_tune.measurement.layerwise.blends import Blend
from lmc_tune.measurement.layerwise.layers import Layer, matches

Base = Literal["a", "b"]
Family = Literal["single", "shallow", "deep", "window", "group", "full"]


@dataclass(frozen=True, kw_only=True)
class LayerSet:
    """Layers that are moved together.

    name: the layer, the last of ``shallow`` ones, the first of ``deep`` ones, the first and last of a window, the name
        of a group, ``all``. position: among the sets of its family, from the input. layers: their places.
    """

    family: Family
    name: str
    position: int
    layers: tuple[int, ...]

    def blend(self, base: Base, position: float, n: int) -> Blend:
        """The set at a position between 0 (the base) and 1 (the other member); the other of ``n`` layers at the base.

        Example:
            >>> LayerSet(family="single", name="conv1", position=0, layers=(0,)).blend("b", 0.25, 3)
            (0.75, 1.0, 1.0)
        """
        own, others = (position, 0.0) if base == "a" else (1 - position, 1.0)
        moved = set(self.layers)
        return tuple(own if at in moved else others for at in range(n))


def layer_sets(layers: Sequence[Layer], asked: LayersSpec) -> list[LayerSet]:
    """All sets that are asked for, and all layers together as the control.

    There is none of a group that has no layer here, and no window that is wider than the network.
    """
    n, names = len(layers), [layer.name for layer in layers]
    found = [LayerSet(family="full", name="all", position=0, layers=tuple(range(n)))]
    for family in asked.families:
        for at in range(n):
            moved = {"single": range(at, at + 1), "shallow": range(at + 1), "deep": range(at, n)}[family]
            found.append(LayerSet(family=family, name=names[at], position=at, layers=tuple(moved)))
    if asked.window is not None:
        for at in range(n - asked.window + 1):
            last = at + asked.window - 1
            name = f"{names[at]} … {names[last]}"
            found.append(LayerSet(family="window", name=name, position=at, layers=tuple(range(at, last + 1))))
    for at, (name, patterns) in enumerate(asked.groups.items()):
        own = tuple(place for place in range(n) if any(matches(names[place], pattern) for pattern in patterns))
        if own:
            found.append(LayerSet(family="group", name=name, position=at, layers=own))
    return found
