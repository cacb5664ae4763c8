"""Can these networks be averaged? The answer as an object: in words, as a table, as a page, as plain values."""

import copy
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lmc_tune.averaging.answer import Answer, answer
from lmc_tune.averaging.data import Split, split_of
from lmc_tune.averaging.findings import PairFindings
from lmc_tune.averaging.metric import CrossEntropy, Metric, OwnLoss, SquaredError
from lmc_tune.averaging.pair import Asked, Named, Pair
from lmc_tune.averaging.paths import Condition, Method, SplitName
from lmc_tune.averaging.plain import plain_pair
from lmc_tune.averaging.text import pair_text
from lmc_tune.core.seeding import child_seed
from lmc_tune.data.examples import ExampleSet, Part
from lmc_tune.errors import UserError
from lmc_tune.measurement.checkpoints import read_checkpoint
from lmc_tune.measurement.lines import MeasurementError
from lmc_tune.measurement.network import Network
from lmc_tune.models.state import State

# Examples at once.
BATCH_SIZE = 128
Loss = str | Callable[[nn.Module, Any], Tensor]
Member = State | str | os.PathLike[str]


class Measurement:
    """What was found of two checkpoints.

    A notebook shows the page; ``print`` the table. The numbers are in ``findings``, or, as plain values, in
    :meth:`plain`.
    """

    def __init__(self, findings: PairFindings, pair: Pair) -> None:
        self.findings = findings
        self._pair = pair

    @cached_property
    def answer(self) -> Answer:
        """What to do, and why."""
        return answer(self.findings)

    @property
    def verdict(self) -> str:
        """Of the path that the answer rests on: connected, disconnected, undecided, or undertrained."""
        return self.answer.verdict

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why, in sentences."""
        return self.answer.reasons

    @property
    def table(self) -> pd.DataFrame:
        """A row per condition: verdicts, barriers and their bounds on both splits, what the average is worth."""
        rows = []
        for path in self.findings.paths:
            row: dict[str, Any] = {"condition": path.condition.label}
            for name, judged in path.judged.items():
                row |= {
                    f"{name}_verdict": judged.verdict,
                    f"{name}_barrier": judged.barrier,
                    f"{name}_low": judged.low,
                    f"{name}_high": judged.high,
                }
            row |= {f"average_{split}_{what}": value for (split, what), value in path.average.means.items()}
            rows.append(row | {"gain": -path.to_mean.mean})
        return pd.DataFrame(rows)

    def plain(self) -> dict[str, Any]:
        """Everything as plain values, for JSON; the names are stable."""
        return plain_pair(self.findings, self.answer)

    def average(self, condition: Condition | None = None) -> dict[str, Tensor]:
        """The weights that the answer recommends: θ(½), aligned and with the statistics that its condition says.

        Args:
            condition: another than the recommended one.

        Raises:
            UserError: if the answer is not to average, and no condition is given; or if they cannot be had.
        """
        chosen = condition or (self.answer.path.condition if self.answer.path else None)
        if chosen is None:
            raise UserError(f"{self.answer.in_short} Name a condition to have the average all the same")
        return self._pair.average(chosen)

    def save(self, file: str | os.PathLike[str], *, force: bool = False) -> Condition:
        """Write the recommended average as safetensors.

        Args:
            file: where to.
            force: also where the answer is no, or undecided: then under the condition with the lowest barrier.

        Returns:
            The condition under which it is the average.

        Raises:
            UserError: if the answer is not to average, without ``force``.
        """
        good = self.answer.kind in {"average", "recalibrate", "align"}
        if not good and not force:
            raise UserError(f"{file} was not written: {self.answer.in_short} Give --force to have the average anyway")
        best = min(self.findings.paths, key=lambda path: path.judged["test"].barrier)
        condition = (self.answer.path or best).condition
        state = {name: entry.clone() for name, entry in self._pair.average(condition).items()}  # tied entries too
        place = Path(file)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            save_file(state, place, metadata={"average": json.dumps({"condition": condition.label, "lambda": 0.5})})
        except OSError as error:
            raise UserError(f"cannot write {place}: {error.strerror or error}") from error
        return condition

    def to_html(self) -> str:
        """One page that works offline."""
        from lmc_tune.averaging.page import pair_page  # noqa: PLC0415 - altair takes a second to import

        return pair_page(self.findings, self.answer)

    def to_json(self) -> str:
        """:meth:`plain` as text."""
        return json.dumps(self.plain(), indent=1, ensure_ascii=False)

    def text(self, width: int = 100) -> str:
        """Answer, reasons and tables in characters.

        Args:
            width: of a line, at most.
        """
        return pair_text(self.findings, self.answer, width)

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        from lmc_tune.averaging.page import pair_summary  # noqa: PLC0415

        return pair_summary(self.findings, self.answer)


def measure(  # noqa: PLR0913 - what is measured, on what, how
    model: nn.Module,
    states: Sequence[Member] | Mapping[str, Member],
    data: Any,
    *,
    train: Any = None,
    loss: Loss = "cross-entropy",
    conditions: Sequence[Condition] | None = None,
    align: Method | None = None,
    lambdas: int = 11,
    threshold: float | None = None,
    confidence: float = 0.95,
    batch_size: int = BATCH_SIZE,
    limit: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Measurement:
    """Can these checkpoints be averaged?

    Args:
        model: a network of their architecture, on the device to measure on; stays as it is.
        states: two state dicts, or files that hold them; by name, or in order.
        data: test examples: batches of (inputs, labels), a mapping with labels, or a pair of tensors.
        train: the same of the training data: overfitted networks look connected on test data alone, and statistics are
            estimated on it. Without it, they are estimated on the test inputs.
        loss: ``cross-entropy``, ``mse``, or ``loss(model, batch)`` that returns one value per example.
        conditions: how networks on the path are prepared; by default as far as it helps.
        align: by ``weights`` or by ``activations``; by default both, as far as it helps.
        lambdas: positions on the path, an odd number.
        threshold: a barrier below it is none; by default 2% of errors, or 5% of the members' mean loss.
        confidence: that the band of the curve holds at all positions.
        batch_size: of examples that are joined.
        limit: of the examples of each split, the first so many.
        say: is told each phase.

    Returns:
        The answer, with its reasons and numbers.

    Raises:
        UserError: if a checkpoint is not of this network, or the data do not fit; it says what to do.
    """
    own = copy.deepcopy(model).eval()
    device = next(own.parameters()).device
    named = _named(states)
    if len(named) != 2:
        raise UserError(f"give two checkpoints, got {len(named)}")
    members = [_read(own, name, member, device, say) for name, member in named.items()]
    say("reading data")
    splits: dict[SplitName, Split] = {"test": split_of(data, device=device, batch_size=batch_size, limit=limit)}
    if train is not None:
        splits["train"] = split_of(train, device=device, batch_size=batch_size, limit=limit)
    pair = Pair(
        network=Network(own),
        a=members[0],
        b=members[1],
        splits=splits,
        metric=metric_of(loss),
        asked=Asked(
            conditions=None if conditions is None else tuple(conditions),
            align=None if align is None else (align,),
            lambdas=_checked_lambdas(lambdas),
            threshold=threshold,
            confidence=confidence,
        ),
        statistics=_statistics(splits),
        say=say,
    )
    try:
        return Measurement(pair.measure(), pair)
    except MeasurementError as error:
        raise UserError(str(error)) from error


def metric_of(loss: Loss) -> Metric:
    """The metric of a name, or of a function."""
    if callable(loss):
        return OwnLoss(loss, getattr(loss, "__name__", "loss"))
    if loss == "cross-entropy":
        return CrossEntropy()
    if loss == "mse":
        return SquaredError()
    raise UserError(f"there is no loss {loss!r}: give cross-entropy, mse, or a function FILE.py:FUNCTION")


def _checked_lambdas(n: int) -> int:
    if n < 3 or n % 2 == 0:
        raise UserError(f"a path needs an odd number of positions, 3 at least, so that the average is one; got {n}")
    return n


def _named(states: Sequence[Member] | Mapping[str, Member]) -> dict[str, Member]:
    if isinstance(states, Mapping):
        return dict(states)
    return {_letter(at): state for at, state in enumerate(states)}


def _letter(at: int) -> str:
    """A, B, … Z, then numbers."""
    return chr(ord("A") + at) if at < 26 else str(at + 1)


def _read(model: nn.Module, name: str, member: Member, device: torch.device, say: Callable[[str], None]) -> Named:
    if isinstance(member, Mapping):
        return Named(name=name, state=fitted(model, member, name, device))
    say(f"reading {os.fspath(member)}")
    state, took = read_member(model, member, device)
    return Named(name=name, state=state, file=os.fspath(member), took=took)


def read_member(model: nn.Module, file: str | os.PathLike[str], device: torch.device) -> tuple[State, str]:
    """A checkpoint of the model's architecture, and what was read of which file."""
    read = read_checkpoint(file)
    expected = model.state_dict()
    own = read.of({name: expected[name] for name in _not_left_out(expected, read.state)})
    return fitted(model, own.state, str(file), device), own.took


def fitted(model: nn.Module, state: State, name: str, device: torch.device) -> dict[str, Tensor]:
    """A state as the model's own: on the device, in its precision, with entries that are tied to others.

    Raises:
        UserError: naming the first entry that is not the model's.
    """
    expected = model.state_dict()
    twins = {entry.data_ptr(): own for own, entry in expected.items() if own in state}
    found = {}
    for own, entry in expected.items():
        given = state.get(own, state.get(twins.get(entry.data_ptr(), "")))
        if given is None:
            raise UserError(f"{name} lacks {own!r}, which the network has")
        if given.shape != entry.shape:
            raise UserError(
                f"{name} is of another architecture: {own!r} is {tuple(given.shape)} there, and "
                f"{tuple(entry.shape)} in the network"
            )
        if given.is_floating_point() and not torch.isfinite(given).all():
            raise UserError(f"{name} cannot be measured: {own!r} holds values that are not finite")
        found[own] = given.detach().to(device=device, dtype=entry.dtype)
    if extra := [own for own in state if own not in expected]:
        raise UserError(f"{name} has {extra[0]!r}, which the network does not have")
    return found


def _not_left_out(expected: State, state: State) -> list[str]:
    """Entries of a network, but for those that a file leaves out since they are another entry by a second name."""
    there = {entry.data_ptr() for name, entry in expected.items() if name in state}
    return [name for name, entry in expected.items() if name in state or entry.data_ptr() not in there]


def _statistics(splits: Mapping[SplitName, Split]) -> ExampleSet | None:
    """Examples to estimate statistics on, shuffled: batches of one class would have another variance."""
    split = splits.get("train", splits["test"])
    if split.examples is None:
        return None
    rng = np.random.default_rng(child_seed(0, "statistics"))
    return Part(whole=split.examples, indices=rng.permutation(len(split)))
