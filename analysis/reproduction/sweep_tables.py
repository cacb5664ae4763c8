"""The tables of one sweep, as claims are read from them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lmc_tune.analysis.layers import END, heights_of_pairs
from lmc_tune.analysis.rises import scored_steps
from lmc_tune.analysis.wording import setting
from lmc_tune.core.barrier import Array
from lmc_tune.experiment import Condition, VerdictSpec
from lmc_tune.experiment.verdict import Curve
from lmc_tune.tables.barriers import judged_rows
from lmc_tune.tables.cells import judge_cells, regate
from lmc_tune.tables.columns import NestedName
from lmc_tune.tables.rows import model_label

_STEP = ["key", "kind", "layer", "position", "lambda", "draw", "alpha", "rise"]


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
    layers: what moving some layers half-way does after training, one row per pair, set of layers and base: ``key``,
        ``family``, ``moved``, ``layers`` (how many), ``base``; the barriers of test error (fraction), test loss (nats)
        and train error, ``error_barrier``, ``loss_barrier`` and ``train_error_barrier``; and the rises over the base
        itself, ``error_rise``, ``loss_rise`` and ``train_error_rise``. Empty where no layers were measured.
    steps: steps of all directions, as :func:`lmc_tune.analysis.rises.scored_steps` gives them, of the test
        loss in nats. Empty where no directions were measured.
    """

    verdict: VerdictSpec
    pairs: pd.DataFrame
    cells: pd.DataFrame
    layers: pd.DataFrame
    steps: pd.DataFrame

    @classmethod
    def of(
        cls,
        results: pd.DataFrame,
        paths: pa.Table,
        curves: pd.DataFrame,
        verdict: VerdictSpec,
        further: Mapping[NestedName, Sequence[pa.Table]] = MappingProxyType({}),
    ) -> "Study":
        """The study of these tables.

        Args:
            results, curves: whole tables. paths: whole pairs, sorted by key and λ. verdict: how cells are judged.
            further: the parts of other tables by name: ``layer_barriers`` and ``directions``, where there are any.
        """
        pairs = regate(results, verdict)
        cells = judge_cells(pairs, verdict)
        networks = {row["cell"]: model_label(row) for row in cells.to_dict("records")}
        start, middle, end = (_scores(paths, "test", at, verdict.condition) for at in (0.0, 0.5, 1.0))
        on_train = [_scores(paths, "train", at, verdict.condition) for at in (0.0, 0.5, 1.0)]
        measured = {
            "midpoint_depth": np.minimum(start["loss"], end["loss"]) - middle["loss"],
            "chosen_depth": np.minimum(start["loss"], end["loss"]) - _chosen_loss(paths, verdict.condition),
            "test_midpoint": middle["accuracy"],
            "train_midpoint": on_train[1]["accuracy"],
            "train_ends": 0.5 * (on_train[0]["accuracy"] + on_train[2]["accuracy"]),
            "overfitting": _overfitting(curves),
        }
        pairs = pairs.assign(
            network=pairs["cell"].map(networks),
            verdict=pairs["cell"].map(cells.set_index("cell")["verdict"]),
            **{name: pairs["key"].map(values) for name, values in measured.items()},
        )
        steps = list(scored_steps(further.get("directions", ()), pairs["key"], "test", "loss"))
        return cls(
            verdict=verdict,
            pairs=pairs,
            cells=cells.assign(network=cells["cell"].map(networks)),
            layers=_moved_layers(
                further.get("layer_barriers", ()),
                verdict.condition,
                {"test": (start, end), "train": (on_train[0], on_train[2])},
            ),
            steps=pd.concat(steps) if steps else pd.DataFrame(columns=_STEP),
        )

    @property
    def judged(self) -> pd.DataFrame:
        """The ok pairs of judged cells; a cell that lost half of its pairs, or has one without a barrier, is not."""
        judged = self.cells.loc[self.cells["judged"], "cell"]
        return self.pairs[(self.pairs["status"] == "ok") & self.pairs["cell"].isin(judged)]


def groups_by(rows: pd.DataFrame, *columns: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Groups with their names, e.g. ``mlp 64, learning rate 0.1``, sorted."""
    for key, group in rows.groupby(list(columns), dropna=False):
        yield ", ".join(_named(column, value) for column, value in zip(columns, key, strict=True)), group


def _named(column: str, value: object) -> str:
    return str(value) if column in ("network", "model", "dataset") else setting(column, value)


def numbers(column: pd.Series) -> Array:
    """NaN where a value is missing."""
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _moved_layers(
    parts: Sequence[pa.Table], condition: Condition, ends: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]
) -> pd.DataFrame:
    """Rows as :attr:`Study.layers`; ``ends`` are the scores of A and of B by split."""
    curves: dict[str, Curve] = {"error": "test_error", "loss": "test_loss", "train_error": "train_error"}
    by, found = ["key", "family", "moved", "layers", "base"], pd.DataFrame()
    for name, curve in curves.items():
        split, _, quantity = curve.partition("_")
        heights = heights_of_pairs(parts, curve, condition)
        rows = heights[heights["epoch"] == END].melt(by[:-1], ["a", "b"], "base", "barrier").set_index(by)["barrier"]
        a, b = (1 - end["accuracy"] if quantity == "error" else end["loss"] for end in ends[split])
        keys, bases = (rows.index.get_level_values(level) for level in ("key", "base"))
        over_mean = np.where(bases == "a", -0.5, 0.5) * (b - a).reindex(keys).to_numpy(dtype=np.float64)
        found[f"{name}_barrier"], found[f"{name}_rise"] = rows, rows - over_mean
    return found.reset_index() if len(found) else pd.DataFrame(columns=[*by, *found.columns])


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
