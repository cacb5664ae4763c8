"""Can these networks be averaged? The answer as an object: in words, as a table, as a page, as plain values."""

import json
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from lmc_tune.averaging.answer import Answer, answer
from lmc_tune.averaging.answer_many import answer_many
from lmc_tune.averaging.findings import LayerFindings, PairFindings
from lmc_tune.averaging.many import Many, ManyFindings
from lmc_tune.averaging.mixed import Mixed
from lmc_tune.averaging.pair import Pair
from lmc_tune.averaging.paths import Condition
from lmc_tune.averaging.plain import plain_many, plain_pair, plain_recipe
from lmc_tune.averaging.recipe_files import form_of, hindrance, mergekit_text, write_state, write_text
from lmc_tune.averaging.text import many_text, pair_text, shown_path
from lmc_tune.errors import UserError


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
