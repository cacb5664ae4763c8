"""The tables of one sweep, as claims are read from them."""

from dataclasses import dataclass
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lmc_tune.analysis.report.charts.curves import judged_rows
from lmc_tune.analysis.report.sections.basins import basin_depths
from lmc_tune.experiment import Condition, VerdictSpec
from lmc_tune.tables.cells import judge_cells, regate
from lmc_tune.tables.rows import model_label


@dataclass(frozen=True, kw_only=True)
class Study:
    """The tables of one sweep, as a claim needs them.

    pairs: as :func:`lmc_tune.tables.cells.regate` gives them, with ``network``; ``verdict``, that of the pair's cell;
        ``basin_depth``, in nats (``basin_depths``); ``test_midpoint`` and ``train_midpoint``, the
        accuracies at λ = ½; ``overfitting``, how far the members' last test loss lies above their lowest, in nats.
    cells: as :func:`lmc_tune.tables.cells.judge_cells` gives them, with ``network``.
    """

    verdict: VerdictSpec
    pairs: pd.DataFrame
    cells: pd.DataFrame

    @classmethod
    def of(cls, results: pd.DataFrame, paths: pa.Table, curves: pd.DataFrame, verdict: VerdictSpec) -> "Study":
        """The study of these tables; ``paths`` holds whole pairs, sorted by key and λ."""
        pairs = regate(results, verdict)
        cells = judge_cells(pairs, verdict)
        networks = {row["cell"]: model_label(row) for row in cells.to_dict("records")}
        measured = {
            "basin_depth": basin_depths([paths], verdict.condition),
            "test_midpoint": _midpoint_accuracy(paths, "test", verdict.condition),
            "train_midpoint": _midpoint_accuracy(paths, "train", verdict.condition),
            "overfitting": _overfitting(curves),
        }
        pairs = pairs.assign(
            network=pairs["cell"].map(networks),
            verdict=pairs["cell"].map(cells.set_index("cell")["verdict"]),
            **{name: pairs["key"].map(values) for name, values in measured.items()},
        )
        return cls(verdict=verdict, pairs=pairs, cells=cells.assign(network=cells["cell"].map(networks)))

    @property
    def judged(self) -> pd.DataFrame:
        """The ok pairs of judged cells; a cell that lost half of its pairs, or has one without a barrier, is not."""
        judged = self.cells.loc[self.cells["judged"], "cell"]
        return self.pairs[(self.pairs["status"] == "ok") & self.pairs["cell"].isin(judged)]


def _midpoint_accuracy(paths: pa.Table, split: Literal["train", "test"], condition: Condition) -> pd.Series:
    """By the pair's key."""
    at = pc.and_(pc.equal(paths["split"], split), pc.equal(paths["lambda"], 0.5))
    rows = paths.filter(pc.and_(at, judged_rows(paths, condition))).to_pandas().set_index("key")
    accuracy: pd.Series = rows["correct"] / rows["n"]
    return accuracy


def _overfitting(curves: pd.DataFrame) -> pd.Series:
    """By the pair's key, the mean over its members."""
    of_members = curves[curves["member"] != "joint"].sort_values("step", kind="stable")
    loss = of_members.groupby(["key", "member"])["test_loss"]
    rise: pd.Series = (loss.last() - loss.min()).groupby("key").mean()
    return rise
