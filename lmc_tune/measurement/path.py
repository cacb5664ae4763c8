"""The path between two members: losses and errors along θ(λ), refined where a barrier has its top."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from torch import nn

from lmc_tune.core.barrier import Array, Barrier, Definition, locate_barrier, path_grid
from lmc_tune.data.examples import ExampleSet
from lmc_tune.experiment import Condition, MeasureSpec
from lmc_tune.measurement.conditions import PathNetworks, prepare_networks
from lmc_tune.measurement.evaluate import Score
from lmc_tune.measurement.scan import POSITIONS_AT_ONCE, scan, score_states
from lmc_tune.models.state import State, check_same_entries

# The definitions whose top is bracketed. max_endpoint has endpoint_mean's top, midpoint is on every grid; local_minima
# depends on two minima as well, which bracketing tops does not settle: it is as fine as the grid (docs/definitions.md).
_REFINED: tuple[Definition, ...] = ("chord", "endpoint_mean")

Scores = dict[str, Score]


class MeasurementError(Exception):
    """A path that cannot be measured; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Path:
    """Scores by split at every measured λ, ascending from 0 (member A) to 1 (member B).

    under_resolved: a barrier was still moving by more than its tolerance at the last refinement.
    """

    lambdas: Array
    scores: tuple[Mapping[str, Score], ...]
    under_resolved: bool

    def curve(self, split: str, quantity: str) -> Array:
        """(n,) ``loss`` (nats), ``error`` or ``accuracy`` (fractions) of a split along ``lambdas``."""
        return np.array([getattr(score[split], quantity) for score in self.scores], dtype=np.float64)

    def barrier(self, split: str, quantity: str, definition: Definition = "chord") -> Barrier:
        """A barrier of one curve, see :func:`~lmc_tune.core.barrier.locate_barrier`."""
        return locate_barrier(self.lambdas, self.curve(split, quantity), definition)

    @property
    def splits(self) -> list[str]:
        return list(self.scores[0])


def measure_path(  # noqa: PLR0913, PLR0917
    model: nn.Module,
    state_a: State,
    state_b: State,
    data: Mapping[str, ExampleSet],
    measure: MeasureSpec | None = None,
    condition: Condition = "naive",
    statistics: ExampleSet | None = None,
) -> Path:
    """Measure loss and error along the straight path from ``state_a`` to ``state_b``.

    A first, equally spaced grid is refined around the top of every barrier (chord and endpoint_mean, of loss and of
    error, on every split): each round halves the two intervals beside every top, until in two rounds no barrier rose
    by more than its tolerance and, for losses, the parabola through every top and its two neighbours promises no more.

    Args:
        model: a network of the members' architecture; its own weights are overwritten.
        state_a: A's state dict.
        state_b: B's.
        data: examples by the name of their split, on the model's device.
        measure: grid, tolerances and the most rounds of refinement.
        condition: how networks on the path are prepared (:func:`~lmc_tune.measurement.conditions.prepare_networks`).
        statistics: what conditions other than ``naive`` estimate statistics on, in an order that says nothing.

    Raises:
        MeasurementError: if the same weights give two different results, the members differ in architecture, or
            statistics are missing.
    """
    measure = measure or MeasureSpec()
    try:
        check_same_entries(state_a, state_b)
    except ValueError as error:
        raise MeasurementError(f"{error}; a path needs two members of one architecture") from error

    scores_at: Callable[[Sequence[float]], dict[float, Scores]]
    if condition == "naive":
        scores_at = partial(_scanned, model, state_a, state_b, data)
    elif statistics is None:
        raise MeasurementError(f"{condition} needs examples of the training set; give them as statistics")
    else:
        networks_at = partial(prepare_networks, condition, model, state_a, state_b, statistics)
        scores_at = partial(_scored, networks_at, data)
    scores = scores_at(path_grid(measure.lambdas).tolist())
    _check_deterministic(scores[0.0], scores_at([0.0])[0.0])
    settled = _refine(scores, scores_at, measure)
    lambdas = sorted(scores)
    return Path(
        lambdas=np.array(lambdas), scores=tuple(scores[lambda_] for lambda_ in lambdas), under_resolved=not settled
    )


def _scanned(
    model: nn.Module,
    state_a: State,
    state_b: State,
    data: Mapping[str, ExampleSet],
    lambdas: Sequence[float],
) -> dict[float, Scores]:
    by_split = {split: scan(model, state_a, state_b, lambdas, examples) for split, examples in data.items()}
    return _by_position(lambdas, by_split)


def _scored(
    networks_at: Callable[[Sequence[float]], PathNetworks], data: Mapping[str, ExampleSet], lambdas: Sequence[float]
) -> dict[float, Scores]:
    found: dict[float, Scores] = {}
    for first in range(0, len(lambdas), POSITIONS_AT_ONCE):  # few, since the state of every one is kept
        some = lambdas[first : first + POSITIONS_AT_ONCE]
        at = networks_at(some)
        by_split = {split: score_states(at.network, at.states, examples) for split, examples in data.items()}
        found |= _by_position(some, by_split)
    return found


def _by_position(lambdas: Sequence[float], by_split: Mapping[str, Sequence[Score]]) -> dict[float, Scores]:
    """Every split's score at each λ, from every split's scores in the order of the λs."""
    return {lambda_: {split: scores[at] for split, scores in by_split.items()} for at, lambda_ in enumerate(lambdas)}


def _check_deterministic(first: Scores, second: Scores) -> None:
    for split, score in first.items():
        again = second[split]
        same_loss = score.loss_sum == again.loss_sum or (math.isnan(score.loss_sum) and math.isnan(again.loss_sum))
        if not same_loss or score.correct != again.correct:
            raise MeasurementError(
                f"the same weights scored {score.loss_sum!r} and {again.loss_sum!r} on {split}: the model is random in "
                f"evaluation mode, or the device's kernels are; switch dropout off in eval() and use "
                f"deterministic kernels"
            )


def _refine(
    scores: dict[float, Scores], scores_at: Callable[[Sequence[float]], dict[float, Scores]], measure: MeasureSpec
) -> bool:
    """Add positions to ``scores`` until the barriers settle; False if they have not after the last round.

    One quiet round is not enough: an error is a step function, which may rest and move again.
    """
    before, quiet = _tops(scores), 0
    sizes = {split: score.n for split, score in scores[0.0].items()}

    def settled(after: Mapping[tuple[str, str, Definition], _Top]) -> bool:
        return all(
            # NaN has nothing to settle.
            not max(abs(top.height - before[name].height), top.unseen) > _tolerance(measure, name[1], sizes[name[0]])
            for name, top in after.items()
        )

    if measure.refinements == 0:
        return settled(before)
    for _ in range(measure.refinements):
        scores |= scores_at(_beside(before, sorted(scores)))
        after = _tops(scores)
        quiet = quiet + 1 if settled(after) else 0
        if quiet == min(2, measure.refinements):
            return True
        before = after
    return False


def _tolerance(measure: MeasureSpec, quantity: str, n: int) -> float:
    """How far a barrier may move and count as settled: of errors at least one of ``n`` decisions, but for rounding."""
    if quantity == "loss":
        return measure.tolerance_loss
    return max(measure.tolerance_error, 1 / n) * (1 + 1e-9)


@dataclass(frozen=True, kw_only=True)
class _Top:
    """A barrier, and how much higher it may stand between the measured positions beside it."""

    height: float
    lambda_: float
    unseen: float


def _tops(scores: dict[float, Scores]) -> dict[tuple[str, str, Definition], _Top]:
    lambdas = sorted(scores)
    path = Path(lambdas=np.array(lambdas), scores=tuple(scores[at] for at in lambdas), under_resolved=False)
    return {
        (split, quantity, definition): _top(path, split, quantity, definition)
        for split in path.splits
        for quantity in ("loss", "error")
        for definition in _REFINED
    }


def _top(path: Path, split: str, quantity: str, definition: Definition) -> _Top:
    found = path.barrier(split, quantity, definition)
    unseen = 0.0
    if quantity == "loss" and math.isfinite(found.height):  # an error is a step function: no parabola foretells it
        curve = path.curve(split, quantity)
        tilt = curve[-1] - curve[0] if definition == "chord" else 0.0
        unseen = _rise(path.lambdas, curve - tilt * path.lambdas, int(np.searchsorted(path.lambdas, found.lambda_)))
    return _Top(height=found.height, lambda_=found.lambda_, unseen=unseen)


def _rise(lambdas: Array, excess: Array, at: int) -> float:
    """How far the parabola through a top and its two neighbours rises above it; 0 at an end of the path."""
    if not 0 < at < len(lambdas) - 1:
        return 0.0
    left, right = lambdas[at] - lambdas[at - 1], lambdas[at + 1] - lambdas[at]
    steepness_left, steepness_right = (excess[at] - excess[at - 1]) / left, (excess[at] - excess[at + 1]) / right
    bend = (steepness_left + steepness_right) / (left + right)
    slope = steepness_left - bend * left
    return float(slope**2 / (4 * bend)) if bend > 0 else 0.0


def _beside(tops: Mapping[tuple[str, str, Definition], _Top], lambdas: list[float]) -> list[float]:
    """Midpoints of the grid intervals on both sides of every top."""
    new = set()
    for top in tops.values():
        if math.isnan(top.lambda_):
            continue
        at = lambdas.index(top.lambda_)
        new |= {(left + right) / 2 for left, right in pairwise(lambdas) if lambdas[at] in (left, right)}
    return sorted(new)
