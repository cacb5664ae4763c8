"""The path between two members: losses and errors along θ(λ), refined where a barrier has its top."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch import nn

from lmc_tune.core.barrier import DEFINITIONS, Array, Barrier, Definition, locate_barrier, path_grid
from lmc_tune.data.examples import ExampleSet
from lmc_tune.experiment import (
    ALIGNED,
    SAME_WITHOUT_BATCH_NORM,
    Condition,
    MeasureSpec,
    Statistics,
    barrier_column,
    statistics_of,
)
from lmc_tune.measurement.alignment.members import aligned
from lmc_tune.measurement.conditions import estimating_passes
from lmc_tune.measurement.evaluate import Score
from lmc_tune.measurement.lines import MeasurementError, Segment
from lmc_tune.measurement.measurement import Found, Sizes, Work
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.score import Scores, score
from lmc_tune.models.state import State, check_same_entries
from lmc_tune.tables.columns import Row

# The definitions whose top is bracketed. max_endpoint has endpoint_mean's top, midpoint is on every grid; local_minima
# depends on two minima as well, which bracketing tops does not settle: it is as fine as the grid (docs/definitions.md).
_REFINED: tuple[Definition, ...] = ("chord", "endpoint_mean")
# That refinement adds to a path's grid: about 6 on the quickstart, and the first is measured twice.
ADDED_POSITIONS = 7


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
    condition: Statistics = "naive",
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
        condition: how networks on the path are prepared (:func:`~lmc_tune.measurement.conditions.prepare`).
        statistics: what conditions other than ``naive`` estimate statistics on, in shuffled order.

    Raises:
        MeasurementError: if the same weights give two different results, the members differ in architecture, or
            statistics are missing.

    Example:
        Two members that compute the same function by weights of opposite signs: half-way all weights are 0.

        >>> import torch
        >>> from lmc_tune.data.examples import Examples
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1, bias=False), nn.Linear(1, 2, bias=False))
        >>> a = {"1.weight": torch.tensor([[1.0]]), "2.weight": torch.tensor([[1.0], [-1.0]])}
        >>> b = {name: -tensor for name, tensor in a.items()}
        >>> images = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
        >>> path = measure_path(model, a, b, {"test": Examples(inputs=images, labels=torch.tensor([0, 1]))})
        >>> path.barrier("test", "error")
        Barrier(height=0.5, lambda_=0.5)
    """
    measure = measure or MeasureSpec()
    try:
        check_same_entries(state_a, state_b)
    except ValueError as error:
        raise MeasurementError(f"{error}; a path needs two members of one architecture") from error

    network, segment = Network(model), Segment(state_a, state_b)

    def scores_at(lambdas: Sequence[float]) -> dict[float, Scores]:
        return dict(zip(lambdas, score(network, segment, lambdas, data, condition, statistics), strict=True))

    scores = scores_at(path_grid(measure.lambdas).tolist())
    _check_deterministic(scores[0.0], scores_at([0.0])[0.0])
    settled = _refine(scores, scores_at, measure)
    lambdas = sorted(scores)
    return Path(
        lambdas=np.array(lambdas), scores=tuple(scores[lambda_] for lambda_ in lambdas), under_resolved=not settled
    )


def _check_deterministic(first: Scores, second: Scores) -> None:
    for split, one in first.items():
        again = second[split]
        same_loss = one.loss_sum == again.loss_sum or (math.isnan(one.loss_sum) and math.isnan(again.loss_sum))
        if not same_loss or one.correct != again.correct:
            raise MeasurementError(
                f"the same weights scored {one.loss_sum!r} and {again.loss_sum!r} on {split}: the model is random in "
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


class Paths:
    """The path of a pair under every condition that is asked for, and its barriers."""

    name = "path"

    def measure(self, members: Members, asked: MeasureSpec) -> Found:
        """A row of the table of barriers for every condition, and a row of the table of paths for every point; columns
        of how far B was aligned, where that is asked for.
        """
        module, (a, b) = members.network.module, members.pair
        if asked.conditions is None:
            raise ValueError("conditions are open; ask asked.of(model), which fills them in")
        if missing := [split for split in asked.splits if split not in members.data]:
            raise ValueError(f"no examples of {' and '.join(missing)} were given; splits ask for them")
        data: dict[str, ExampleSet] = {split: members.data[split] for split in asked.splits}
        moved, columns = aligned(members, asked) if asked.alignment else (None, Row())
        found: dict[Condition, Path] = {}
        known: dict[tuple[bool, Statistics], Path] = {}  # of networks that conditions do not tell apart, once
        for condition in asked.conditions:
            one = condition if members.network.norms else SAME_WITHOUT_BATCH_NORM.get(condition, condition)
            end = b if moved is None or one not in ALIGNED else moved
            at = end is b, statistics_of(one)
            if at not in known:
                known[at] = measure_path(module, a, end, data, asked, statistics_of(one), members.statistics)
            found[condition] = known[at]
        return Found(
            columns=columns,
            tables={
                "barriers": [{"condition": condition, **path_barriers(path)} for condition, path in found.items()],
                "paths": [row for condition, path in found.items() for row in path_rows(path, condition)],
            },
        )

    def work(self, sizes: Sizes, asked: MeasureSpec) -> Work:
        """Every position of every path, what its conditions estimate, and both networks' pass over all training
        examples to match activations. Where alignment moves nothing, aligned paths take no time.
        """
        positions = asked.lambdas + ADDED_POSITIONS
        prepared = [statistics_of(condition) for condition in asked.conditions or ()]
        path = positions * sum(sizes.splits[split] for split in asked.splits)
        naive = prepared.count("naive")
        matched = 2 * sizes.both if asked.alignment and asked.alignment.by == "activations" else 0
        return Work(
            scored_on_path=naive * path,
            scored_apart=(len(prepared) - naive) * path + matched,
            estimated=sizes.both * sum(estimating_passes(one, positions) for one in prepared),
        )


def path_barriers(path: Path) -> Row:
    """Every barrier of the path with its λ*; ``accuracy_difference`` at the λ* of the test error's chord barrier.

    Without a barrier the chord ties at both ends, where the difference would be half that of the members: it is then
    read at the midpoint. ``merge_gain`` (percentage points) and ``retention`` (NaN if no member is ever right) are
    those of the test accuracy at the midpoint.
    """
    row: Row = {"under_resolved": path.under_resolved}
    for split_name in ("train", "test"):
        for quantity in ("error", "loss"):
            for definition in DEFINITIONS:
                found = path.barrier(split_name, quantity, definition)
                column = barrier_column(f"{split_name}_{quantity}", definition)
                row[column], row[f"{column}_lambda"] = found.height, found.lambda_
    row["barrier_lambda"] = row["test_error_barrier_chord_lambda"]
    accuracy = path.curve("test", "accuracy")
    at = int(np.searchsorted(path.lambdas, row["barrier_lambda"] if row["test_error_barrier_chord"] > 0 else 0.5))
    members = 0.5 * float(accuracy[0] + accuracy[-1])
    average = float(accuracy[int(np.searchsorted(path.lambdas, 0.5))])
    row["accuracy_difference"] = 100 * (float(accuracy[at]) - members)
    row["merge_gain"], row["retention"] = 100 * (average - members), average / members if members else math.nan
    return row


def path_rows(path: Path, condition: Condition) -> list[Row]:
    """Every measured point, as the table of paths keeps it."""
    return [
        {
            "condition": condition,
            "split": split_name,
            "lambda": float(lambda_),
            "loss_sum": score.loss_sum,
            "correct": score.correct,
            "n": score.n,
        }
        for lambda_, scores in zip(path.lambdas, path.scores, strict=True)
        for split_name, score in scores.items()
    ]
