"""The tables of one sweep, as claims are read from them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lmc_tune.experiment import Condition, VerdictSpec
from lmc_tune.tables.barriers import judged_rows
from lmc_tune.tables.cells import judge_cells, regate
from lmc_tune.tables.rows import model_label


@dataclass(frozen=True, kw_only=True)
class Study:
    """The tables of one sweep, as a claim needs them.

    pairs: as :func:`lmc_tune.tables.cells.regate` gives them, with ``network``; ``verdict``, that of the pair's cell;
        ``midpoint_depth``, how far the test loss at λ = ½ lies below that of the better end, in nats;
        ``chosen_depth``, the same at the inner λ whose validation loss is lowest, NaN without validation;
        ``test_midpoint`` and ``train_midpoint``, the accuracies at λ = ½; ``train_ends``, the mean of those of the
        path's ends on the training data of both members; ``overfitting``, how far the members' last
        test loss lies above their lowest, in nats.
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
        start, middle, end = (_scores(paths, "test", at, verdict.condition) for at in (0.0, 0.5, 1.0))
        on_train = [_scores(paths, "train", at, verdict.condition)["accuracy"] for at in (0.0, 0.5, 1.0)]
        measured = {
            "midpoint_depth": np.minimum(start["loss"], end["loss"]) - middle["loss"],
            "chosen_depth": np.minimum(start["loss"], end["loss"]) - _chosen_loss(paths, verdict.condition),
            "test_midpoint": middle["accuracy"],
            "train_midpoint": on_train[1],
            "train_ends": 0.5 * (on_train[0] + on_train[2]),
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


def _scores(paths: pa.Table, split: Literal["train", "test"], at: float, condition: Condition) -> pd.DataFrame:
    """``loss`` in nats and ``accuracy`` at this λ, by the pair's key."""
    here = pc.and_(pc.equal(paths["split"], split), pc.equal(paths["lambda"], at))
    rows = paths.filter(pc.and_(here, judged_rows(paths, condition))).to_pandas().set_index("key")
    return pd.DataFrame({"loss": rows["loss_sum"] / rows["n"], "accuracy": rows["correct"] / rows["n"]})


def _chosen_loss(paths: pa.Table, condition: Condition) -> pd.Series:
    """By the pair's key, the test loss at the position between the ends that has the lowest validation loss, nats.

    Of equal losses the smallest λ counts.
    """
    inner = pc.and_(pc.greater(paths["lambda"], 0.0), pc.less(paths["lambda"], 1.0))
    rows = paths.filter(pc.and_(inner, judged_rows(paths, condition))).to_pandas()
    loss = (rows["loss_sum"] / rows["n"]).set_axis(pd.MultiIndex.from_frame(rows[["split", "key", "lambda"]]))
    if "validation" not in rows["split"].unique():
        return pd.Series(dtype=np.float64)
    validation, test = loss["validation"].dropna().sort_index(), loss["test"]
    chosen: pd.Series = test[validation.groupby("key").idxmin()].droplevel("lambda")
    return chosen


def _overfitting(curves: pd.DataFrame) -> pd.Series:
    """By the pair's key, the mean over its members."""
    of_members = curves[curves["member"] != "joint"].sort_values("step", kind="stable")
    loss = of_members.groupby(["key", "member"])["test_loss"]
    rise: pd.Series = (loss.last() - loss.min()).groupby("key").mean()
    return rise
