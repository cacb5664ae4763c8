"""Two checkpoints, and steps away from them: is the direction from one to the other special, and how sharp are they?

Directions and the Hessian are a sweep's (:mod:`lmc_tune.measurement.directions`); here every example is scored, by any
metric, so that two kinds of steps are compared with an interval.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from torch import Tensor, nn

from lmc_tune.averaging.judging import Difference, Judging, difference
from lmc_tune.averaging.metric import Quantity
from lmc_tune.averaging.pair import Pair
from lmc_tune.averaging.paths import Condition
from lmc_tune.averaging.surroundings import Contrast, Curvature, DirectionFindings, Spread, Steps
from lmc_tune.core.barrier import Array
from lmc_tune.data.examples import Examples
from lmc_tune.experiment import DirectionsSpec, SharpnessSpec, SplitName
from lmc_tune.measurement.directions import steps_asked, steps_of
from lmc_tune.measurement.layerwise.layers import layers_of
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.sharpness import sharpness_rows
from lmc_tune.measurement.steps import Direction
from lmc_tune.models.foreign import said

Means = Mapping[tuple[SplitName, Quantity], float]
# Kind, λ of the point, name and place of the layer, length.
_Key = tuple[str, float, tuple[str, int] | None, float]
# What random steps are called, by those that they are compared with.
_AT_RANDOM = {"interpolation": "random", "towards a": "isotropic", "towards b": "isotropic"}
# The steps of all weights towards the other member, by the λ of theirs.
_ACROSS = {0.0: "towards b", 1.0: "towards a"}


@dataclass
class _Taken:
    """The draws of one kind of steps. values: (n,) sums over the draws of the judged values of the test examples."""

    values: Array
    norm: float
    means: list[Means]

    @property
    def mean(self) -> Array:
        """(n,) over the draws."""
        return np.asarray(self.values / len(self.means))


def measure_directions(pair: Pair, spec: DirectionsSpec, condition: Condition, judging: Judging) -> DirectionFindings:
    """Steps of the same length in several directions, scored under a condition: naive, recalibrated, or aligned so.

    Passes over the examples of the splits: as in :func:`~lmc_tune.measurement.directions.steps_of`.

    Raises:
        ValueError: under another condition, whose statistics hold along a line alone.
    """
    if condition.statistics not in {"naive", "recalibrated"}:
        raise ValueError(f"directions are measured naive or recalibrated, not {condition.statistics}")
    by, a = pair.by, pair.a.state
    members = Members(network=by.network, states={"a": a, "b": pair.end(condition)}, data={}, statistics=by.statistics)
    layers = layers_of(by.network.loaded(a), by.splits["test"].batches[0], by.metric.outputs)
    by.say(f"measuring {steps_of(spec, len(layers))} steps, a pass over the examples each: {condition.label}")
    judged: tuple[SplitName, Quantity] = ("test", judging.quantity)
    taken: dict[_Key, _Taken] = {}
    for directions, alphas in steps_asked(members, spec, layers):
        for direction, alpha in product(directions, alphas):
            values = by.values(direction.at(alpha), condition.statistics, spec.splits)
            _note(taken, direction, alpha, values[judged], {at: float(own.mean()) for at, own in values.items()})
    return DirectionFindings(
        condition=condition,
        steps=tuple(_steps(taken, key, judging) for key in taken if key[0] != "unmoved"),
        layerwise=_layerwise(taken, judging),
        whole=_whole(taken, judging),
        filterwise=_filterwise(taken, judging),
        curvatures=() if spec.sharpness is None else _curvatures(pair, members, spec.sharpness, condition),
    )


def _note(taken: dict[_Key, _Taken], direction: Direction, alpha: float, values: Array, means: Means) -> None:
    key = direction.kind, direction.position, direction.layer, alpha
    if key in taken:
        taken[key].values += values
        taken[key].means.append(means)
    else:
        taken[key] = _Taken(values=values.copy(), norm=alpha * direction.length, means=[means])


def _steps(taken: Mapping[_Key, _Taken], key: _Key, judging: Judging) -> Steps:
    kind, lambda_, layer, alpha = key
    own, random = taken[key], taken.get((_AT_RANDOM.get(kind, ""), lambda_, layer, alpha))
    origin, rises = _point(taken, lambda_).means[0], {}
    for at in own.means[0]:
        draws = [one[at] - origin[at] for one in own.means]
        rises[at] = Spread(mean=sum(draws) / len(draws), low=min(draws), high=max(draws))
    name, position = layer or (None, None)
    return Steps(
        kind=kind,
        lambda_=lambda_,
        layer=name,
        position=position,
        alpha=alpha,
        norm=own.norm,
        draws=len(own.means),
        rises=rises,
        less_random=None if random is None else _apart(own.mean, random.mean, judging),
    )


def _point(taken: Mapping[_Key, _Taken], lambda_: float) -> _Taken:
    return taken["unmoved", lambda_, None, 0.0]


def _alphas(taken: Mapping[_Key, _Taken], kind: str) -> list[float]:
    return sorted({key[3] for key in taken if key[0] == kind})


def _layerwise(taken: Mapping[_Key, _Taken], judging: Judging) -> tuple[Contrast, ...]:
    members = _mean(_point(taken, at).mean for at in (0.0, 1.0))
    found = []
    for alpha in _alphas(taken, "interpolation"):
        across, random = (
            _mean(own.mean for key, own in taken.items() if (key[0], key[3]) == (kind, alpha)) - members
            for kind in ("interpolation", "random")
        )
        found.append(_contrast(alpha, across, random, judging))
    return tuple(found)


def _whole(taken: Mapping[_Key, _Taken], judging: Judging) -> tuple[Contrast, ...]:
    needed = {(kind, at) for at, across in _ACROSS.items() for kind in (across, "isotropic")}
    if not needed <= {key[:2] for key in taken}:
        return ()
    members = _mean(_point(taken, at).mean for at in _ACROSS)
    found = []
    for alpha in _alphas(taken, "isotropic"):
        across = _mean(taken[kind, at, None, alpha].mean for at, kind in _ACROSS.items()) - members
        random = _mean(taken["isotropic", at, None, alpha].mean for at in _ACROSS) - members
        found.append(_contrast(alpha, across, random, judging))
    return tuple(found)


def _filterwise(taken: Mapping[_Key, _Taken], judging: Judging) -> tuple[Contrast, ...]:
    found = []
    for alpha in _alphas(taken, "filter"):
        a, middle, b = (taken["filter", at, None, alpha].mean - _point(taken, at).mean for at in (0.0, 0.5, 1.0))
        found.append(_contrast(alpha, middle, _mean((a, b)), judging))
    return tuple(found)


def _mean(values: Iterable[Array]) -> Array:
    """(n,) of several (n,)."""
    several: Sequence[Array] = list(values)
    return np.asarray(sum(several) / len(several))


def _contrast(alpha: float, one: Array, other: Array, judging: Judging) -> Contrast:
    return Contrast(alpha=alpha, one=float(one.mean()), other=float(other.mean()), apart=_apart(one, other, judging))


def _apart(one: Array, other: Array, judging: Judging) -> Difference:
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return Difference(mean=float("nan"), low=float("nan"), high=float("nan"))
    return difference(one, other, judging.confidence)


def _curvatures(pair: Pair, members: Members, spec: SharpnessSpec, condition: Condition) -> tuple[Curvature, ...]:
    """None where examples cannot be joined, or the loss cannot be differentiated twice; a note says so."""
    metric = pair.by.metric

    def losses(model: nn.Module, some: Examples) -> Tensor:
        batch = some.inputs, some.labels
        return metric.values(metric.outputs(model, batch), batch)["loss"]

    if members.statistics is None:
        pair.notes.append("the largest eigenvalue was left out: it needs batches of (inputs, labels)")
        return ()
    pair.by.say(f"measuring the largest eigenvalue: {condition.label}")
    try:
        rows = sharpness_rows(members, spec, condition.statistics, losses)
    except Exception as error:  # noqa: BLE001 - whatever a user's network or loss raises when it is differentiated
        pair.notes.append(f"the largest eigenvalue was left out: {said(error)}")
        return ()
    return tuple(
        Curvature(
            lambda_=row["lambda"],
            eigenvalue=row["eigenvalue"],
            residual=row["residual"],
            products=row["products"],
            examples=row["examples"],
        )
        for row in rows
    )
