"""Can these networks be averaged? The answer as an object: in words, as a table, as a page, as plain values."""

import copy
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lmc_tune.averaging.answer import Answer, answer
from lmc_tune.averaging.answer_many import answer_many
from lmc_tune.averaging.data import Split, split_of, with_classes
from lmc_tune.averaging.findings import LayerFindings, Named, PairFindings
from lmc_tune.averaging.layers import measure_layers
from lmc_tune.averaging.many import Many, ManyFindings
from lmc_tune.averaging.metric import CrossEntropy, Metric, OwnLoss, SquaredError
from lmc_tune.averaging.mixed import Mixed
from lmc_tune.averaging.pair import Asked, Measuring, Pair
from lmc_tune.averaging.paths import Condition, Method, SplitName, condition_named
from lmc_tune.averaging.plain import plain_many, plain_pair, plain_recipe
from lmc_tune.averaging.recipe_files import form_of, hindrance, mergekit_text, write_state, write_text
from lmc_tune.averaging.text import many_text, pair_text, shown_path
from lmc_tune.core.seeding import child_seed
from lmc_tune.data.examples import ExampleSet, Part
from lmc_tune.errors import UserError
from lmc_tune.measurement.alignment.links import Residual
from lmc_tune.measurement.checkpoints import check_fits, files_of, read_checkpoint
from lmc_tune.measurement.lines import MeasurementError
from lmc_tune.measurement.network import Network
from lmc_tune.models.foreign import kept_settings
from lmc_tune.models.state import State
from lmc_tune.work.device import exact_device

# Examples at once.
BATCH_SIZE = 128
Loss = str | Callable[[nn.Module, Any], Tensor]
Member = State | str | os.PathLike[str]


class Measurement(ABC):
    """What was found of two or more checkpoints.

    A notebook shows the answer and a table; ``print`` the same in characters. ``findings`` holds the numbers, and
    :meth:`plain` the same as plain values.
    """

    answer: Answer

    @property
    def verdict(self) -> str:
        """Of the path that the answer rests on: connected, disconnected, undecided, or undertrained."""
        return self.answer.verdict

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why, in sentences."""
        return self.answer.reasons

    @property
    @abstractmethod
    def table(self) -> pd.DataFrame:
        """The numbers that the answer rests on."""

    @property
    @abstractmethod
    def basins(self) -> tuple[tuple[str, ...], ...]:
        """Names of the members that may be averaged as they are: in each group, every pair is connected (naive).

        The largest group comes first. A member that has not learned, or is connected with no other, is alone.

        Raises:
            UserError: if the naive condition was not measured.
        """

    @abstractmethod
    def plain(self) -> dict[str, Any]:
        """Everything as plain values, for JSON; the names are stable."""

    @abstractmethod
    def text(self, width: int = 100) -> str:
        """Answer, reasons and tables in characters.

        Args:
            width: of sentences, at most; tables are as wide as they are.
        """

    @abstractmethod
    def to_html(self) -> str:
        """One page that works offline."""

    @abstractmethod
    def average(self) -> dict[str, Tensor]:
        """The weights that the answer recommends, on the CPU; else those with the lowest barrier, or the greedy soup.

        Raises:
            UserError: if they are not weights of the network alone.
        """

    def to_json(self) -> str:
        """:meth:`plain` as text."""
        return json.dumps(self.plain(), indent=1, ensure_ascii=False)

    def save(self, file: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the recommended average as safetensors.

        Args:
            file: where to.
            force: also where the answer is no, or undecided: what :meth:`average` gives then.

        Raises:
            UserError: if the answer is not to average, without ``force``; or if the file cannot be written.
        """
        if not (self.answer.says_yes or force):
            raise UserError(
                f"{os.fspath(file)} was not written: {self.answer.in_short} With force, the average is written anyway"
            )
        if Path(file).suffix != ".safetensors":
            raise UserError(f"{os.fspath(file)}: end its name in .safetensors, which is what is written")
        write_state(self.average(), Path(file))

    def __repr__(self) -> str:
        return self.text()


class PairMeasurement(Measurement):
    """What was found of two checkpoints."""

    def __init__(self, findings: PairFindings, pair: Pair) -> None:
        self.findings, self.answer, self._pair = findings, answer(findings), pair

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
            rows.append(row | {"merge_gain": path.merge_gain, "retention": path.retention})
        return pd.DataFrame(rows)

    @property
    def basins(self) -> tuple[tuple[str, ...], ...]:
        a, b = self.findings.members
        learned = a.learned is not False and b.learned is not False
        connected = learned and self.findings.paths[0].judged["test"].verdict == "connected"  # the first is naive
        return ((a.name, b.name),) if connected else ((a.name,), (b.name,))

    def plain(self) -> dict[str, Any]:
        return plain_pair(self.findings, self.answer)

    def text(self, width: int = 100) -> str:
        return pair_text(self.findings, self.answer, width)

    def average(self) -> dict[str, Tensor]:
        return self._pair.average(shown_path(self.findings, self.answer).condition)

    @property
    def recipe(self) -> dict[str, Any]:
        """The share of B in every layer, and how good the network with these shares is: what the JSON file holds.

        Raises:
            UserError: if layers were not measured.
        """
        return plain_recipe(self.findings, self._layers)

    def recipe_network(self) -> dict[str, Tensor]:
        """The weights that the recipe describes, on the CPU.

        Raises:
            UserError: if layers were not measured, or a layer that is repaired has no bias to take it.
        """
        layers = self._layers
        return Mixed.of(self._pair, layers.condition).state(layers.recipe.lambdas)

    def save_recipe(self, file: str | os.PathLike[str]) -> None:
        """Write the recipe: as JSON, as a configuration of mergekit (.yaml), or its network (.safetensors).

        Raises:
            UserError: if layers were not measured, mergekit cannot do what the recipe asks, or the file cannot be
                written.
        """
        place = Path(file)
        form = form_of(place)
        if why := hindrance(self.findings, form):
            raise UserError(f"{place} was not written: {why}")
        if form == "network":
            write_state(self.recipe_network(), place)
        elif form == "mergekit":
            write_text(mergekit_text(self.findings, self._layers), place)
        else:
            write_text(json.dumps(self.recipe, indent=1, ensure_ascii=False) + "\n", place)

    @property
    def _layers(self) -> LayerFindings:
        if self.findings.layers is None:
            raise UserError(f"there is no recipe: {hindrance(self.findings, 'json')}")
        return self.findings.layers

    def to_html(self) -> str:
        from lmc_tune.averaging.page import pair_page  # noqa: PLC0415 - altair takes a second to import

        return pair_page(self.findings, self.answer)

    def _repr_html_(self) -> str:
        from lmc_tune.averaging.page import pair_summary  # noqa: PLC0415 - as above

        return pair_summary(self.findings, self.answer)


class ManyMeasurement(Measurement):
    """What was found of several checkpoints."""

    def __init__(self, findings: ManyFindings, many: Many) -> None:
        self.findings, self.answer, self._many = findings, answer_many(findings), many

    @property
    def table(self) -> pd.DataFrame:
        """A row per condition and pair: verdicts, barriers and their bounds."""
        found = self.findings
        return pd.DataFrame(
            [
                {
                    "condition": basins.condition.label,
                    "a": found.names[i],
                    "b": found.names[j],
                    "test_verdict": judged.verdict,
                    "test_barrier": judged.barrier,
                    "test_low": judged.low,
                    "test_high": judged.high,
                }
                for basins in found.basins
                for (i, j), judged in basins.judged.items()
            ]
        )

    @property
    def basins(self) -> tuple[tuple[str, ...], ...]:
        naive = next((basins for basins in self.findings.basins if basins.condition == Condition()), None)
        if naive is None:
            raise UserError("basins are those of the condition naive, which was not measured; measure it, too")
        return tuple(tuple(self.findings.names[member] for member in group) for group in naive.groups)

    def plain(self) -> dict[str, Any]:
        return plain_many(self.findings, self.answer)

    def text(self, width: int = 100) -> str:
        return many_text(self.findings, self.answer, width)

    def average(self) -> dict[str, Tensor]:
        """The soup of all if they lie in one basin, else the greedy soup.

        Raises:
            UserError: if they lie in one basin only once they are aligned, pair by pair.
        """
        condition = self.findings.chosen.condition
        if condition.alignment is not None:
            raise UserError("a soup of aligned networks cannot be saved: they are aligned pair by pair; save pairs")
        whole = self.answer.kind in {"average", "recalibrate"}
        soup = self.findings.uniform if whole else self.findings.greedy
        return self._many.soups(condition).average(soup.members)

    def to_html(self) -> str:
        from lmc_tune.averaging.page import many_page  # noqa: PLC0415 - altair takes a second to import

        return many_page(self.findings, self.answer)

    def _repr_html_(self) -> str:
        from lmc_tune.averaging.page import many_summary  # noqa: PLC0415 - as above

        return many_summary(self.findings, self.answer)


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
        say: called with the name of each phase.

    Returns:
        The answer, with its reasons and numbers.

    Raises:
        UserError: if a checkpoint is not of this network, or the data do not fit; it says what to do.

    Example:
        Two networks that compute the same function by weights of opposite signs: half-way all weights are 0.

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
    members = _named(files_of(states) if isinstance(states, str) else states)
    _check_number(len(members), layers=layers, trajectory=trajectory)
    splits: dict[SplitName, Split] = {"test": split_of(data, device=device, batch_size=batch_size, limit=limit)}
    if train is not None:
        splits["train"] = split_of(train, device=device, batch_size=batch_size, limit=limit)
    if metric.classifies:
        splits = {name: with_classes(split) for name, split in splits.items()}
    asked = Asked(
        conditions=None if conditions is None else tuple(_condition(one, align or "weights") for one in conditions),
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
    names = list(members)

    def load(number: int) -> Named:
        return _read(own, names[number], members[names[number]], device)

    try:
        with kept_settings():
            exact_device("cuda" if device.type == "cuda" else "cpu")
            if len(members) == 2 and not trajectory:
                pair = Pair(by=by, a=load(0), b=load(1))
                return PairMeasurement(_with_layers(pair, pair.measure()) if layers else pair.measure(), pair)
            for number in range(len(names)):  # one that cannot be measured is named before anything is
                load(number)
            many = Many(by=by, names=names, load=load, trajectory=trajectory)
            return ManyMeasurement(many.measure(), many)
    except MeasurementError as error:
        raise UserError(str(error)) from error


def _with_layers(pair: Pair, findings: PairFindings) -> PairFindings:
    """The findings with those of layers, under the condition that the answer rests on."""
    found = answer(findings)
    if found.verdict == "undertrained":
        return replace(findings, notes=(*findings.notes, "layers were left out: the members have learned nothing"))
    return replace(findings, layers=measure_layers(pair, shown_path(findings, found).condition, findings.judging))


def _condition(given: Condition | str, method: Method) -> Condition:
    return condition_named(given, method) if isinstance(given, str) else given


def metric_of(loss: Loss) -> Metric:
    """The metric of a name, or of a function."""
    if callable(loss):
        return OwnLoss(loss, getattr(loss, "__name__", "loss"))
    if loss == "cross-entropy":
        return CrossEntropy()
    if loss == "mse":
        return SquaredError()
    raise UserError(f"there is no loss {loss!r}: give cross-entropy, mse, or a function FILE.py:FUNCTION")


def _check_number(n: int, *, layers: bool, trajectory: bool) -> None:
    if n < 2:
        raise UserError(f"give two checkpoints at least, got {n}")
    if layers and (n > 2 or trajectory):
        raise UserError(f"layers are measured of two checkpoints, not of {n} or of a trajectory; name two")


def _named(states: Sequence[Member] | Mapping[str, Member]) -> dict[str, Member]:
    """Two are A and B; several files have their own names, where these differ."""
    if isinstance(states, Mapping):
        return dict(states)
    paths = [os.fspath(state) if isinstance(state, str | os.PathLike) else "" for state in states]
    names = [Path(path).name for path in paths]
    stems = [name.removesuffix(Path(name).suffix) for name in names]
    for known in (stems, names, paths):
        if len(states) > 2 and all(known) and len(set(known)) == len(states):
            return dict(zip(known, states, strict=True))
    return {_letter(at): state for at, state in enumerate(states)}


def _letter(at: int) -> str:
    """A, B, … Z, then numbers."""
    return chr(ord("A") + at) if at < 26 else str(at + 1)


def _read(model: nn.Module, name: str, member: Member, device: torch.device) -> Named:
    if isinstance(member, nn.Module):
        member = member.state_dict()
    if isinstance(member, Mapping):
        expected = model.state_dict()
        check_fits(name, expected, _with_twins(expected, member))
        return Named(name=name, state=_placed(expected, member, device))
    state, took = read_member(model, member, device)
    return Named(name=name, state=state, file=os.fspath(member), took=took)


def read_member(model: nn.Module, file: str | os.PathLike[str], device: torch.device) -> tuple[State, str]:
    """A checkpoint of the model's architecture, and what was read of which file."""
    read = read_checkpoint(file)
    expected = model.state_dict()
    own = read.of({name: expected[name] for name in _not_left_out(expected, read.state)})
    return _placed(expected, own.state, device), own.took


def _placed(expected: State, state: State, device: torch.device) -> dict[str, Tensor]:
    """A state that fits, on a device and in the network's precision."""
    whole = _with_twins(expected, state)
    return {name: whole[name].detach().to(device=device, dtype=entry.dtype) for name, entry in expected.items()}


def _with_twins(expected: State, state: State) -> dict[str, Tensor]:
    """The state, with entries that it leaves out since they are another entry by a second name."""
    twins = {entry.data_ptr(): state[name] for name, entry in expected.items() if name in state}
    missing = {name: twins.get(entry.data_ptr()) for name, entry in expected.items() if name not in state}
    return {**state, **{name: entry for name, entry in missing.items() if entry is not None}}


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
