"""A sweep over networks of which everything is known, as the report's sections see it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from lmc_tune.analysis.phase import PhaseDiagram, map_regions
from lmc_tune.analysis.report import sections
from lmc_tune.analysis.report.section import Context, find_sections
from lmc_tune.experiment import GroupSpec
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.tables.rows import PairResult
from lmc_tune.tables.store import Store
from tests.analysis.cases import diverged_pair, measured_pair, networks_space, undertrained_pair, write_run


@dataclass(frozen=True)
class Measured:
    """results: of all pairs, in any order, as the tables have them. context: what the sections are made from."""

    store: Store
    space: SearchSpace
    results: pd.DataFrame
    context: Context

    @property
    def diagram(self) -> PhaseDiagram:
        return self.context.diagram

    @property
    def intervals(self) -> dict[str, pd.DataFrame]:
        return self.context.intervals

    def ok(self, cell: str) -> pd.DataFrame:
        """The cell's ok pairs."""
        return self.results[(self.results["cell"] == cell) & (self.results["status"] == "ok")]

    def in_order(self, order: list[int]) -> "Measured":
        """The same pairs in another order."""
        return _seen(self.store, self.space, self.results.iloc[order])


def make(spec: GroupSpec) -> PairResult:
    """Of the four pairs of a cell, one is left out."""
    if spec.replicate > 0:
        return measured_pair(spec)
    return undertrained_pair(spec) if spec.shift.kind == "label" else diverged_pair(spec)


def measured_run(folder: Path) -> Measured:
    space = networks_space(replicates=4)
    store = Store(write_run(folder, space.pairs(), make=make, space=space))
    return _seen(store, space, store.results())


def _seen(store: Store, space: SearchSpace, results: pd.DataFrame) -> Measured:
    return Measured(store, space, results, context_of(map_regions(results, space=space), space, store.parts))


def context_of(
    diagram: PhaseDiagram,
    space: SearchSpace | None = None,
    parts: Callable[[str], Iterable[pa.Table]] = lambda _: [],
) -> Context:
    """A context whose first cell is picked, with the numbers of lmc-tune's own sections."""
    return Context(
        diagram=diagram,
        whole=diagram,
        space=space,
        picked=diagram.cells["cell"][0],
        detailed=True,
        parts=parts,
        numbers=[module.numbers for module in find_sections(sections) if hasattr(module, "numbers")],
    )
