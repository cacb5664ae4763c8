"""Layers that break alone: barriers of some layers of a pair by cell, and the first layer to break (no charts).

A pair's barrier of a set of layers is the *mean of both bases*: of A with that set on its way to B's, and of B with it
on its way to A's. It is 0 for layers that change nothing, however much the members differ, and that of the whole path
for all layers; it does not depend on which member is called A.

Barriers are those at the midpoint, whatever the verdict's definition and however fine the grid: at its far end a set of
layers has been swapped, not averaged, and the highest point of such a path is mostly that end.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lmc_tune.analysis.phase import SHIFT_FIELDS, SHIFT_ORDER, PhaseDiagram
from lmc_tune.analysis.rises import judged_pairs, values_of
from lmc_tune.analysis.wording import UNKNOWN, UNSET, layer_words, listed, number, shift_words
from lmc_tune.core.counted import counted
from lmc_tune.core.statistics import Verdict, verdict_of_interval
from lmc_tune.experiment import Condition, barrier_column
from lmc_tune.experiment.verdict import Curve
from lmc_tune.tables.barriers import judged_rows
from lmc_tune.tables.cells import CELL_FIELDS, mean_intervals
from lmc_tune.tables.columns import AXIS_SCALES

# What is said of a set of layers by its interval, as the whole network's says it of a cell.
Says = Literal["breaks", "undecided", "holds"]
# What is said of a cell.
Outcome = Literal["breaks", "undecided", "none"]
# Which sets may break first: single layers, or the first one, two, … from the input.
Family = Literal["single", "shallow"]
Base = Literal["a", "b", "both"]
BASES: tuple[Base, ...] = get_args(Base)

# In the place of an epoch: training has ended.
END = float("inf")

_SAYS: dict[Verdict, Says] = {"connected": "holds", "disconnected": "breaks", "undecided": "undecided"}
_SET = ["family", "moved", "position", "layers"]


@dataclass(frozen=True, kw_only=True)
class LayerHeights:
    """Barriers of sets of layers, of the ok pairs of the judged cells.

    conditions: under which any were measured.
    rows: one per pair, epoch (:data:`END`: after training) and set, under the verdict's condition: ``key``, ``cell``,
        ``epoch``, ``family``, ``moved``, ``position``, ``layers``, and the barrier at the midpoint from
        ``a``, from ``b`` and the mean of ``both``; NaN where it is not known.
    """

    conditions: tuple[str, ...]
    rows: pd.DataFrame

    def at_end(self) -> pd.DataFrame:
        """The rows after training."""
        return self.rows[self.rows["epoch"] == END]


def layer_heights(diagram: PhaseDiagram, parts: Iterable[pa.Table]) -> LayerHeights | None:
    """What was measured of layers; None if nothing was.

    Args:
        diagram: whose cells.
        parts: rows of the layers' barriers, as :meth:`lmc_tune.tables.store.Store.parts` gives them.
    """
    verdict, cell_of = diagram.verdict, judged_pairs(diagram)["cell"]
    found, conditions = [], set[str]()
    for part in parts:
        conditions |= set(part["condition"].unique().to_pylist())
        rows = _half_way(part, verdict.of, verdict.condition)
        found.append(rows.assign(cell=rows["key"].map(cell_of)).dropna(subset="cell"))
    if not conditions:
        return None
    rows = _by_base(pd.concat(found, ignore_index=True), ["key", "cell", "epoch", *_SET])
    return LayerHeights(conditions=tuple(sorted(conditions)), rows=rows)


def heights_of_pairs(parts: Iterable[pa.Table], of: Curve, condition: Condition) -> pd.DataFrame:
    """Rows as :attr:`LayerHeights.rows`, but of all pairs and without their cells; empty if no layers were measured.

    Args:
        parts: as :func:`layer_heights` takes them.
        of: which curve. condition: under which.
    """
    found = [_half_way(part, of, condition) for part in parts]
    by = ["key", "epoch", *_SET]
    return _by_base(pd.concat(found, ignore_index=True), by) if found else pd.DataFrame(columns=[*by, *BASES])


def _half_way(part: pa.Table, of: Curve, condition: Condition) -> pd.DataFrame:
    """Barriers at the midpoint, from both bases; ``epoch`` is :data:`END` after training."""
    rows = part.filter(judged_rows(part, condition))
    table: pd.DataFrame = rows.select(["key", "epoch", "base", *_SET]).to_pandas()
    height = rows[barrier_column(of, "midpoint")].to_pandas().astype(np.float64)
    return table.assign(epoch=table["epoch"].astype(np.float64).fillna(END), height=height)


def _by_base(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    by_base = rows.set_index([*by, "base"])["height"]
    wide = by_base.unstack().reindex(columns=["a", "b"])  # noqa: PD010 - pivot_table would take means
    wide = wide.rename_axis(columns=None).reset_index()
    wide["both"] = wide[["a", "b"]].mean(axis="columns", skipna=False)
    return wide


def layer_intervals(diagram: PhaseDiagram, heights: LayerHeights) -> pd.DataFrame:
    """One row per cell, set of layers and base (``a``, ``b``, ``both``), after training.

    ``cell``, ``family``, ``moved``, ``position``, ``layers``, ``base``, and ``n``, the pairs; ``mean`` with
    its interval, ``low`` and ``high``, as the verdict's; and what it ``says``. Where the verdict's interval uses how
    much the pairs of the other cells differ, these use the pairs of all cells and sets of the family: a layer that
    breaks nowhere does not show by itself how much its barriers would differ if they were high.

    Args:
        diagram: all of it, since an interval depends on all cells.
        heights: of its pairs.
    """
    verdict = diagram.verdict.model_copy(update={"barrier": "midpoint"})
    long = heights.at_end().melt(["key", "cell", *_SET], list(BASES), "base", "height").assign(status="ok")
    by = ["cell", *_SET, "base"]
    table = long.groupby(by).size().rename("n").reset_index()
    one_example = diagram.cells.set_index("cell")["one_example"]
    table["one_example"] = table["cell"].map(one_example).astype(np.float64)
    long["set"] = long.groupby(by).ngroup()  # as the rows of the table
    found = [
        # To `mean_intervals`, every set of layers of a cell is a cell.
        mean_intervals(
            long.assign(cell=long["set"]), ["height"], own.assign(cell=own.index), verdict, barriers=["height"]
        )
        for _, own in table.groupby(["family", "base"])
    ]
    bounds = pd.concat([one["height"] for one in found]) if found else pd.DataFrame(columns=["mean", "low", "high"])
    table = table.drop(columns="one_example").join(bounds)
    says = [
        verdict_of_interval(low, high, verdict.threshold) for low, high in zip(table["low"], table["high"], strict=True)
    ]
    return table.assign(says=[_SAYS[one] for one in says])


def first_layers(intervals: pd.DataFrame, family: Family = "single") -> pd.DataFrame:
    """One row per cell: the first layer to break, or the shortest run of layers from the input that does.

    ``outcome``: ``breaks`` if the interval of any set lies wholly above the threshold; ``none`` if those of all lie
    wholly below it; else ``undecided``. Of the set nearest to the input that breaks, where one does: ``moved``,
    ``position`` (from 1), ``mean``, ``low``, ``high``; and ``open_before``, how many nearer ones are undecided. ``n``:
    the pairs; ``places``: the layers of the network.

    Args:
        intervals: as :func:`layer_intervals` gives them.
        family: of the sets.
    """
    own = intervals[(intervals["family"] == family) & (intervals["base"] == "both")]
    own = own.sort_values(["cell", "position"]).assign(position=own["position"] + 1)
    broken = own[own["says"] == "breaks"].drop_duplicates("cell").set_index("cell")
    cells = own.groupby("cell").agg(n=("n", "first"), places=("position", "max"))
    undecided = own[own["says"] == "undecided"]
    outcome = pd.Series("none", index=cells.index).mask(cells.index.isin(undecided["cell"]), "undecided")
    cells["outcome"] = outcome.mask(cells.index.isin(broken.index), "breaks")
    cells = cells.join(broken[["moved", "position", "mean", "low", "high"]])
    before = undecided[undecided["position"].to_numpy() < cells["position"].reindex(undecided["cell"]).to_numpy()]
    cells["open_before"] = before["cell"].value_counts().reindex(cells.index, fill_value=0)
    return cells.reset_index()


def layers_by_epoch(heights: LayerHeights) -> pd.DataFrame:
    """One row per cell, single layer and epoch: the ``mean`` over the ``n`` ok pairs of the mean of both bases.

    ``epoch`` is :data:`END` after training. Empty where no snapshots were measured.
    """
    rows = heights.rows[heights.rows["family"] == "single"]
    if (rows["epoch"] == END).all():
        rows = rows.head(0)
    return _means(rows.rename(columns={"both": "value"}), ["cell", "position", "moved", "epoch"])


def layer_rises(diagram: PhaseDiagram, parts: Iterable[pa.Table]) -> pd.DataFrame:
    """One row per cell, single layer, base and λ: the ``mean`` rise of the judged curve over the ``n`` ok pairs.

    The rise is how far the curve lies above the mean of the whole members; at λ = ½ it is the barrier. Empty where
    networks half-way alone were scored.

    Args:
        diagram: whose cells.
        parts: rows of the layers' paths, as :meth:`lmc_tune.tables.store.Store.parts` gives them.
    """
    verdict, cell_of, found = diagram.verdict, judged_pairs(diagram)["cell"], []
    for part in parts:
        wanted = pc.and_(pc.equal(part["split"], verdict.split), pc.is_null(part["epoch"]))
        of_sets = pc.is_in(part["family"], value_set=pa.array(["single", "full"]))
        rows = part.filter(pc.and_(judged_rows(part, verdict.condition), pc.and_(wanted, of_sets)))
        table = rows.select(["key", "family", "base", "moved", "lambda", "loss_sum", "correct", "n"]).to_pandas()
        value = values_of(table, verdict.quantity)
        found.append(table.assign(value=value, cell=table["key"].map(cell_of)).dropna(subset="cell"))
    table = (
        pd.concat(found, ignore_index=True)
        if found
        else pd.DataFrame(columns=["family", "lambda", "key", "base", "value"])
    )
    whole = table[table["family"] == "full"].set_index(["key", "base"])
    ends = pd.DataFrame({name: whole.loc[whole["lambda"] == at, "value"] for name, at in (("near", 0), ("far", 1))})
    single = table[table["family"] == "single"].join(ends, on=["key", "base"])
    if ends.empty or single.empty:
        return pd.DataFrame(columns=["cell", "base", "moved", "lambda", "mean", "n"])
    rise = single["value"] - (single["near"] + single["far"]) / 2
    return _means(single.assign(value=rise), ["cell", "base", "moved", "lambda"])


def first_by_axis(diagram: PhaseDiagram, first: pd.DataFrame) -> pd.DataFrame:
    """How the first layer to break moves: a row per value of every number that varies, per shift, and per panel where
    more tells panels apart; one row of all cells where nothing varies.

    ``column`` (``shift``, ``panel`` and ``""`` for these) and ``value``, in words; ``n`` cells, of which in
    ``n_breaks`` a layer breaks, in ``n_none`` none does, and ``n_undecided`` are open; ``mean_position`` of the first
    to break, ``least_position`` and ``most_position``; ``layers``: the first ones to break, from the input, and in how
    many cells each is the first.

    Args:
        diagram: whose cells.
        first: as :func:`first_layers` gives it.
    """
    cells = first.merge(diagram.cells[["cell", "panel", *CELL_FIELDS]], on="cell")
    groups = list(_along(cells))
    if set(diagram.facets) - {*SHIFT_FIELDS, *AXIS_SCALES}:
        groups += [("panel", panel, own) for panel in diagram.panels if len(own := cells[cells["panel"] == panel])]
    rows = [_moved(column, value, own) for column, value, own in groups or [("", "all cells", cells)]]
    return pd.DataFrame(rows, columns=list(_moved("", "", cells)))


def said_of_layers(diagram: PhaseDiagram, first: pd.DataFrame) -> str:
    """In how many disconnected cells no single layer breaks, and which break first in the others; empty if none is
    disconnected and no layer breaks.

    Args:
        diagram: whose cells.
        first: single layers, as :func:`first_layers` gives them.
    """
    cells = first.merge(diagram.cells[["cell", "verdict"]], on="cell")
    own = cells[cells["verdict"] == "disconnected"]
    said = {
        "none": "no single layer carries a barrier",
        "breaks": f"the first to break is {first_words(_counts(own))}",
        "undecided": "it is undecided whether a single layer carries one",
    }
    counts = own["outcome"].value_counts()
    found = [(int(counts[outcome]), words) for outcome, words in said.items() if counts.get(outcome, 0)]
    sentences = []
    if found:
        (k, words), *others = found
        cells_in_all = counted(len(own), "disconnected cell")
        where = f"{k} of {cells_in_all}" if others else f"all {cells_in_all}" if k > 1 else "the one disconnected cell"
        sentences.append("; ".join([f"In {where} {words}", *(f"in {n} {more}" for n, more in others)]) + ".")
    if n := int(((cells["verdict"] == "connected") & (cells["outcome"] == "breaks")).sum()):
        sentences.append(f"In {counted(n, 'connected cell')} a single layer breaks, though all layers together do not.")
    return " ".join(sentences)


def first_words(counts: Mapping[str, int]) -> str:
    """Layers and in how many cells each is the first, e.g. ``#1 conv1 (2) and #3 head (1)``; one without a count."""
    if len(counts) == 1:
        return next(iter(counts))
    return listed([f"{name} ({n})" for name, n in counts.items()] or [UNKNOWN])


def _means(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The ``mean`` of ``value`` over ``n`` rows; unknown where one is."""
    groups = rows.groupby(by)["value"]
    return pd.DataFrame(
        {"mean": groups.mean().where(groups.count() == groups.size()), "n": groups.size()}
    ).reset_index()


def _along(cells: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Every setting that varies, its values in words, and the cells that have each."""
    for column in AXIS_SCALES:
        if column not in SHIFT_FIELDS and len(cells[column].unique()) > 1:
            for value, own in cells.groupby(column, dropna=False):
                yield column, UNSET.get(column, UNKNOWN) if pd.isna(value) else number(value), own
    if len(cells[SHIFT_FIELDS].drop_duplicates()) > 1:
        kind = cells["shift"].map({name: at for at, name in enumerate(SHIFT_ORDER)})
        ordered = cells.assign(kind=kind).sort_values(["kind", "severity"], kind="stable")
        words = [shift_words(row, severity_is_axis=False) for row in ordered.to_dict("records")]
        for value, own in ordered.assign(words=words).groupby("words", sort=False):
            yield "shift", str(value), own


def _moved(column: str, value: str, cells: pd.DataFrame) -> dict[str, Any]:
    position, outcomes = cells["position"], cells["outcome"].value_counts()
    return {
        "column": column,
        "value": value,
        "n": len(cells),
        **{f"n_{outcome}": int(outcomes.get(outcome, 0)) for outcome in get_args(Outcome)},
        "mean_position": position.mean(),
        "least_position": position.min(),
        "most_position": position.max(),
        "layers": _counts(cells),
    }


def _counts(cells: pd.DataFrame) -> dict[str, int]:
    """The first layers to break, from the input, and in how many cells each is the first."""
    counts = cells.groupby(["position", "moved"]).size().reset_index(name="n")
    return {layer_words(int(place), name): n for place, name, n in counts.itertuples(index=False)}
