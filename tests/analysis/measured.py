"""A sweep over networks of which everything is known, as the report's sections see it."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lmc_tune.analysis.phase import PhaseDiagram, map_regions
from lmc_tune.analysis.report.sections.basins import with_depths
from lmc_tune.experiment import GroupSpec
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.tables.cells import CONDITION_BARRIERS, mean_intervals
from lmc_tune.tables.rows import PairResult
from lmc_tune.tables.store import Store
from tests.analysis.cases import diverged_pair, measured_pair, networks_space, undertrained_pair, write_run


@dataclass(frozen=True)
class Measured:
    """results: of all pairs, in any order, as the tables have them. intervals: of all that the sections ask for."""

    store: Store
    space: SearchSpace
    results: pd.DataFrame
    diagram: PhaseDiagram
    intervals: dict[str, pd.DataFrame]

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
    diagram = with_depths(map_regions(results, space=space), store.parts("paths"))
    measured = ["accuracy_difference", "basin_depth", *CONDITION_BARRIERS]
    intervals = mean_intervals(diagram.pairs, measured, diagram.cells["cell"], diagram.verdict.confidence)
    return Measured(store, space, results, diagram, intervals)
