"""A section of the report's page: what it is made from, what it is, and where sections are found."""

import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import Any

import pandas as pd
import pyarrow as pa

from lmc_tune.analysis.layers import LayerHeights, layer_heights, layer_intervals
from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.tables.cells import mean_intervals
from lmc_tune.tables.columns import NestedName
from lmc_tune.tables.store import Store

# Beyond this many cells, what shows each in detail is left out.
MOST_DETAILED = 2000


def is_detailed(diagram: PhaseDiagram) -> bool:
    """Whether its cells are so few that each is shown in detail."""
    return len(diagram.cells) <= MOST_DETAILED


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section.

    id: of the element that the chart is drawn in, and the chart's name for ``lmc-tune report --chart``. title, lead: in
        words. note: what comes after chart and table.
    label: the chart in words, for those who do not see it. chart: an Altair chart, or None.
    table: in words, columns as headed; indexed by the cell's id if ``of_cells``. marked: the row of the page's own
        choice.
    """

    id: str
    title: str
    lead: str
    label: str = ""
    chart: Any = None
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    of_cells: bool = False
    marked: int | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a section may be made from.

    diagram: the part of the phase diagram that the page draws. whole: all of it. space: what was planned, if known.
    picked: the id of the cell that is picked at first. detailed: whether the cells are few enough to show each.
    parts: the rows of a table of the run folder, as :meth:`lmc_tune.tables.store.Store.parts` gives them.
    numbers: what the sections add to the columns of the pairs: each a function of the context that returns one number
        per row of the diagram's pairs, by name.
    """

    diagram: PhaseDiagram
    whole: PhaseDiagram
    space: SearchSpace | None
    picked: str
    detailed: bool
    parts: Callable[[NestedName], Iterable[pa.Table]]
    numbers: Sequence[Callable[["Context"], Mapping[str, pd.Series]]] = ()

    @classmethod
    def of(
        cls, diagram: PhaseDiagram, space: SearchSpace | None, store: Store, modules: Iterable[ModuleType], picked: str
    ) -> "Context":
        """That of the page's sections.

        Args:
            diagram: all of it.
            space: as above.
            store: of the run folder.
            modules: the sections.
            picked: as above.
        """
        drawn = diagram.drawn()
        return cls(
            diagram=drawn,
            whole=diagram,
            space=space,
            picked=picked,
            detailed=is_detailed(drawn),
            parts=store.parts,
            numbers=[module.numbers for module in modules if hasattr(module, "numbers")],
        )

    @cached_property
    def added(self) -> dict[str, pd.Series]:
        """The ``numbers`` of all sections, by name."""
        return {name: values for numbers in self.numbers for name, values in numbers(self).items()}

    @cached_property
    def intervals(self) -> dict[str, pd.DataFrame]:
        """The mean of every added number over the ok pairs of each cell, with its interval (``mean_intervals``).

        All sections share them. An interval depends on all cells, also on those that are not drawn.
        """
        pairs, cells = self.diagram.pairs.assign(**self.added), self.whole.cells
        found = mean_intervals(pairs, list(self.added), cells, self.diagram.verdict)
        drawn = cells["cell"].isin(self.diagram.cells["cell"])
        return {name: table[drawn].reset_index(drop=True) for name, table in found.items()}

    @cached_property
    def layer_heights(self) -> LayerHeights | None:
        """The barriers of layers that were moved alone; None if there are none."""
        return layer_heights(self.whole, self.parts("layer_barriers"))

    @cached_property
    def layer_intervals(self) -> pd.DataFrame:
        """Their means in the drawn cells, as :func:`~lmc_tune.analysis.layers.layer_intervals` gives them."""
        heights = self.layer_heights
        if heights is None:
            return pd.DataFrame()
        found = layer_intervals(self.whole, heights)
        return found[found["cell"].isin(self.diagram.cells["cell"])].reset_index(drop=True)


def find_sections(*packages: ModuleType) -> list[ModuleType]:
    """All modules in the folders of some packages, in the order of the page.

    Each module is one section and has

    - ``ORDER``, a number: its place on the page;
    - ``make(context: Context) -> Section | None``: None if there is nothing to show;
    - optionally ``numbers``, as in :class:`Context`, if it needs mean intervals.
    """
    modules = [
        import_module(f"{package.__name__}.{found.name}")
        for package in packages
        for found in pkgutil.iter_modules(package.__path__)
    ]
    return sorted(modules, key=lambda module: (module.ORDER, module.__name__))
