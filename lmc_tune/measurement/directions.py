"""Is the direction from one member to the other special? Steps of the same length in other directions."""

from collections.abc import Iterator, Sequence

import numpy as np

from lmc_tune.core.seeding import child_seed
from lmc_tune.core.subspace import gaussian
from lmc_tune.data.examples import ExampleSet
from lmc_tune.experiment import SHARPNESS_AT, DirectionsSpec, MeasureSpec, RandomSpec
from lmc_tune.measurement.conditions import estimating_passes, least_stale
from lmc_tune.measurement.layerwise.layers import Layer, layers_of
from lmc_tune.measurement.measurement import Found, Sizes, Work
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.noise import noise_directions
from lmc_tune.measurement.sharpness import filter_directions, sharpness_rows
from lmc_tune.measurement.steps import Direction, between, score_steps, unmoved
from lmc_tune.measurement.vectors import WeightVectors

# Hessian-vector products until Lanczos has converged: 22 to 43 for small networks after training.
_PRODUCTS = 40


class Directions:
    """Loss and error after steps from the members, and from the path between them.

    All networks are prepared as the similarity's are: recalibrated where that is asked for and there is BatchNorm, else
    naive, where running statistics stay those of the step's origin.
    """

    name = "directions"

    def measure(self, members: Members, asked: MeasureSpec) -> Found:
        """Rows of the table of directions, and of the table of sharpness where that is asked for."""
        spec = asked.directions
        if spec is None:
            return Found()
        data: dict[str, ExampleSet] = {split: members.data[split] for split in spec.splits}
        condition = least_stale(asked, members.network)
        inputs = next(next(iter(members.data.values())).chunks(2)).inputs
        layers = layers_of(members.network.module, inputs)
        rows = list(score_steps(members, steps_asked(members, spec, layers), data, condition))
        if spec.sharpness is None:
            return Found(tables={"directions": rows})
        return Found(tables={"directions": rows, "sharpness": sharpness_rows(members, spec.sharpness, condition)})

    def work(self, sizes: Sizes, asked: MeasureSpec) -> Work:
        """Every step on every split, and what its condition estimates; how fast Lanczos converges is a guess."""
        spec = asked.directions
        if spec is None:
            return Work()
        steps = steps_of(spec, sizes.layers)
        sharp = spec.sharpness
        prepared = steps + (len(SHARPNESS_AT) if sharp else 0)
        recalibrated = "recalibrated" in (asked.conditions or ())
        return Work(
            scored_apart=steps * sum(sizes.splits[split] for split in spec.splits),
            estimated=sizes.both * estimating_passes("recalibrated", prepared) if recalibrated else 0,
            multiplied=len(SHARPNESS_AT) * _PRODUCTS * min(sharp.examples or sizes.both, sizes.both) if sharp else 0,
        )


def steps_asked(
    members: Members, spec: DirectionsSpec, layers: Sequence[Layer]
) -> Iterator[tuple[list[Direction], Sequence[float]]]:
    """Directions and how far to go along them; the points at which they begin come first, as ``unmoved``.

    Args:
        members: two of them; their examples are not read.
        spec: what is asked.
        layers: of the network.
    """
    yield [unmoved(members, position) for position in _origins(spec)], [0.0]
    if spec.random:
        yield from ((some, spec.random.alphas) for some in random_directions(members, spec.random, layers))
    if spec.noise:
        yield from ((some, spec.noise.fractions) for some in noise_directions(members, spec.noise))
    if spec.sharpness:
        yield from ((some, spec.sharpness.radii) for some in filter_directions(members, spec.sharpness))


def steps_of(spec: DirectionsSpec, layers: int) -> int:
    """How many networks are scored, of so many layers."""
    steps = len(_origins(spec))
    if random := spec.random:
        steps += 2 * layers * (1 + random.draws) * len(random.alphas)
    if noise := spec.noise:
        at_a_point = sum(2 if kind == "path" else noise.draws for kind in noise.kinds)
        steps += len(noise.positions) * len(noise.fractions) * at_a_point
    if sharp := spec.sharpness:
        steps += len(SHARPNESS_AT) * sharp.draws * len(sharp.radii)
    return steps


def _origins(spec: DirectionsSpec) -> list[float]:
    """The points of the path at which steps begin, the members among them."""
    noise = spec.noise.positions if spec.noise else ()
    return sorted({0.0, 1.0, *noise, *(SHARPNESS_AT if spec.sharpness else ())})


def random_directions(members: Members, spec: RandomSpec, layers: Sequence[Layer]) -> Iterator[list[Direction]]:
    """Of every layer: from each member, its way to the other member and ``draws`` random directions.

    Only the layer's parameters move. A random direction is Gaussian, scaled in float64 to the layer's own distance
    ‖θ_A − θ_B‖, so that every step of an α is equally long (Adilova et al. 2024); what rounding to the weights' type
    adds to it is smaller than half a unit in the last place of each weight. A layer of distance 0 stays where it is.

    Passes over the data: 2 (1 + draws) per layer and α.
    """
    for place, layer in enumerate(layers):
        weights = WeightVectors(members.network, layer.parameters)
        way = between(members, weights)
        distance = float(np.linalg.norm(way))
        found = []
        for member, position, sign in (("a", 0.0, 1), ("b", 1.0, -1)):
            origin = members.pair[int(position)]
            drawn = [
                gaussian(len(way), distance, child_seed(members.seed, "random", member, layer.name, draw))
                for draw in range(spec.draws)
            ]
            for kind, draw, vector in [
                ("interpolation", 0, sign * way),
                *(("random", draw, vector) for draw, vector in enumerate(drawn)),
            ]:
                found.append(
                    Direction(
                        kind=kind,
                        position=position,
                        origin=origin,
                        step=weights.entries(vector, origin),
                        length=distance,
                        draw=draw,
                        layer=(layer.name, place),
                    )
                )
        yield found
