"""Can these networks be averaged? From a network, checkpoints and examples to an answer."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from torch import nn

from lmc_tune.averaging.answer import answer
from lmc_tune.averaging.data import Split, split_of, with_classes
from lmc_tune.averaging.directions import measure_directions
from lmc_tune.averaging.findings import Named, PairFindings
from lmc_tune.averaging.layers import measure_layers
from lmc_tune.averaging.many import Many, ManyFindings
from lmc_tune.averaging.measurement import ManyMeasurement, Measurement, PairMeasurement
from lmc_tune.averaging.members import Member, load_member, named_members
from lmc_tune.averaging.metric import Loss, metric_of
from lmc_tune.averaging.pair import Asked, Measuring, Pair
from lmc_tune.averaging.paths import Condition, Method, condition_named
from lmc_tune.averaging.planes import check_plane, measure_plane
from lmc_tune.averaging.questions import Given, Questions, check_splits, questions_of
from lmc_tune.averaging.surroundings import PlaneFindings
from lmc_tune.averaging.text import shown_path
from lmc_tune.core.home import expanded
from lmc_tune.core.seeding import child_seed
from lmc_tune.data.examples import ExampleSet, Part
from lmc_tune.errors import UserError
from lmc_tune.experiment import PlanesSpec, SplitName
from lmc_tune.measurement.alignment.links import Residual
from lmc_tune.measurement.checkpoints import files_of
from lmc_tune.measurement.lines import MeasurementError
from lmc_tune.measurement.network import Network
from lmc_tune.models.foreign import kept_settings
from lmc_tune.models.state import State
from lmc_tune.work.device import exact_device

# Examples at once.
BATCH_SIZE = 128


def measure(  # noqa: PLR0913 - what is measured, on what, how
    model: nn.Module,
    states: Sequence[Member] | Mapping[str, Member] | str,
    data: Any,
    *,
    train: Any = None,
    loss: Loss = "cross-entropy",
    conditions: Sequence[Condition | str] | None = None,
    align: Method | None = None,
    lambdas: int = 11,
    threshold: float | None = None,
    confidence: float = 0.95,
    residual: Residual = "fixed",
    batch_size: int = BATCH_SIZE,
    limit: int | None = None,
    trajectory: bool = False,
    layers: bool = False,
    directions: Given = False,
    planes: Given = False,
    say: Callable[[str], None] = lambda _: None,
) -> Measurement:
    """Can these checkpoints be averaged?

    Args:
        model: a network of their architecture, on the device to measure on; stays as it is.
        states: two state dicts or more, or files that hold them; by name, in order, or as a pattern such as
            ``"run/step_*.pt"``, whose files are taken in the order of their numbers. Of more than two, every pair
            is measured, and files are read again as they are needed: no three are in memory besides the network.
        data: test examples: batches of (inputs, labels), a mapping with labels, or a pair of tensors.
        train: the same of the training data: overfitted networks look connected on test data alone, and statistics are
            estimated on it. Without it, they are estimated on the test inputs.
        loss: ``cross-entropy``, ``mse``, or ``loss(model, batch)`` that returns one value per example.
        conditions: how networks on the path are prepared, e.g. ``"recalibrated"`` or ``"aligned + repaired"``; by
            default those that may help.
        align: by ``weights`` or by ``activations``; by default both, as far as it helps.
        lambdas: positions on the path, an odd number.
        threshold: a barrier below it is none; by default 2% of errors, or 5% of the members' mean loss.
        confidence: that the band of the curve holds at all positions.
        residual: ``free`` also permutes the units of the residual stream of transformers, which seldom helps.
        batch_size: of examples that are joined.
        limit: of the examples of each split, the first so many.
        trajectory: their order means something: the widest window of neighbours that may be averaged is found.
        layers: of two, also which layers carry the barrier, and which of them can be averaged: a recipe.
        directions: of two, also whether the way from one to the other is special: steps of the same length in other
            directions, and sharpness. True, or a mapping as in a search space, such as ``{"random": {"draws": 20}}``.
        planes: also loss and error on the plane through three checkpoints, or through those and files that a mapping
            names, as in ``{"through": ["a", "b", "start.pt"]}``.
        say: called with the name of each phase.

    Returns:
        The answer, with its reasons and numbers.

    Raises:
        UserError: if a checkpoint is not of this network, the data do not fit, or what is asked cannot be had of these
            checkpoints; it says what to do.

    Example:
        Two networks that compute the same function by weights of opposite signs: half-way all weights are 0.

        >>> import torch
        >>> inputs = torch.linspace(-1, 1, 500)[:, None]
        >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 2, bias=False))
        >>> a = {"0.weight": torch.tensor([[1.0]]), "1.weight": torch.tensor([[-1.0], [1.0]])}
        >>> b = {name: -weight for name, weight in a.items()}
        >>> found = measure(model, [a, b], (inputs, (inputs[:, 0] > 0).long()))
        >>> found.answer.kind, found.table["test_barrier"][0]
        ('neither', np.float64(0.5))
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"give a network as model, a torch.nn.Module, not {type(model).__name__}")
    if align not in {None, *get_args(Method)}:
        raise UserError(f"align by {' or '.join(get_args(Method))}, not {align!r}")
    metric = metric_of(loss)
    own = copy.deepcopy(model).eval()
    device = next(own.parameters()).device
    members = named_members(files_of(states) if isinstance(states, str) else states)
    chosen = None if conditions is None else tuple(_condition(one, align or "weights") for one in conditions)
    questions = questions_of(
        list(members), layers=layers, directions=directions, planes=planes, conditions=chosen, trajectory=trajectory
    )
    splits: dict[SplitName, Split] = {"test": split_of(data, device=device, batch_size=batch_size, limit=limit)}
    if train is not None:
        splits["train"] = split_of(train, device=device, batch_size=batch_size, limit=limit)
    if metric.classifies:
        splits = {name: with_classes(split) for name, split in splits.items()}
    check_splits(questions, splits)
    asked = Asked(
        conditions=chosen,
        align=None if align is None else (align,),
        lambdas=lambdas,
        threshold=threshold,
        confidence=confidence,
        residual=residual,
    )
    by = Measuring(
        network=Network(own),
        splits=splits,
        metric=metric,
        asked=asked,
        statistics=_statistics(splits),
        say=say,
    )

    def load(name: str) -> Named:
        """A checkpoint, or a file that is none of them."""
        if name in members:
            return load_member(own, name, members[name], device)
        return load_member(own, Path(name).stem, expanded(name), device)

    try:
        with kept_settings():
            exact_device("cuda" if device.type == "cuda" else "cpu")
            _check(by, questions, members, load)
            if len(members) == 2 and not trajectory:
                a, b = members
                pair = Pair(by=by, a=load(a), b=load(b))
                return PairMeasurement(_answered(pair, questions, load), pair)
            names = list(members)
            many = Many(by=by, names=names, load=lambda number: load(names[number]), trajectory=trajectory)
            return ManyMeasurement(_answered_of_many(many, questions, load), many)
    except MeasurementError as error:
        raise UserError(str(error)) from error


def _check(by: Measuring, questions: Questions, members: Mapping[str, Member], load: Callable[[str], Named]) -> None:
    """Whatever cannot be measured is named before anything is: what is read again later, and a plane that is none."""
    for name in members if len(members) > 2 else ():
        load(name)
    if questions.planes is not None:
        check_plane(by, _points(questions.planes, load), questions.planes)


def _answered(pair: Pair, questions: Questions, load: Callable[[str], Named]) -> PairFindings:
    """The path, and what is asked besides it: of layers and directions, for networks that have learned."""
    found = pair.measure()
    said, measured = answer(found), [path.condition for path in found.paths]
    shown = shown_path(found, said).condition
    layers = directions = None
    if said.verdict == "undertrained":
        asked = {"layers": questions.layers, "directions": questions.directions}
        pair.notes += [f"{what} were left out: a member has learned nothing" for what, of in asked.items() if of]
    else:
        if questions.layers:
            layers = measure_layers(pair, shown, found.judging)
        if questions.directions is not None:
            condition = Condition(shown.alignment, pair.by.least_stale(measured))
            directions = measure_directions(pair, questions.directions, condition, found.judging)
    planes = _plane(pair.by, questions.planes, measured, load)
    return replace(found, layers=layers, directions=directions, planes=planes, notes=tuple(pair.notes))


def _answered_of_many(many: Many, questions: Questions, load: Callable[[str], Named]) -> ManyFindings:
    found = many.measure()
    measured = [basins.condition for basins in found.basins]
    planes = _plane(many.by, questions.planes, measured, load)
    return replace(found, planes=planes, notes=tuple(many.notes))


def _plane(
    by: Measuring,
    asked: PlanesSpec | None,
    measured: Sequence[Condition],
    load: Callable[[str], Named],
) -> PlaneFindings | None:
    """That which is asked for."""
    return None if asked is None else measure_plane(by, _points(asked, load), asked, by.least_stale(measured))


def _points(asked: PlanesSpec, load: Callable[[str], Named]) -> dict[str, State]:
    """The three points that a plane goes through, by names that differ."""
    through: dict[str, State] = {}
    for name in asked.through:
        point = load(name)
        through[name if point.name in through else point.name] = point.state
    return through


def _condition(given: Condition | str, method: Method) -> Condition:
    return condition_named(given, method) if isinstance(given, str) else given


def _statistics(splits: Mapping[SplitName, Split]) -> ExampleSet | None:
    """Examples to estimate statistics on, shuffled: batches of one class would have another variance."""
    split = splits.get("train", splits["test"])
    if split.examples is None:
        return None
    rng = np.random.default_rng(child_seed(0, "statistics"))
    return Part(whole=split.examples, indices=rng.permutation(len(split)))
