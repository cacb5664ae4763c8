"""How far losses and errors rise after a step away from a member or from the path, over the pairs of judged cells."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lmc_tune.analysis.phase import PhaseDiagram

# What tells the rows of :func:`collect_rises` apart. The position is -1 where all weights move, and the layer empty; an
# empty name alone may be that of the network's own parameters.
PLACE = ["panel", "verdict", "kind", "layer", "position", "lambda", "alpha"]
# What directions are called, and the points of the path at which sharpness is measured.
LAYER_KINDS = {"interpolation": "towards the other member", "random": "random directions"}
NOISE_KINDS = {
    "towards a": "along the path, towards A",
    "towards b": "along the path, towards B",
    "span": "in the span of training",
    "complement": "orthogonal to training",
    "isotropic": "random directions",
}
PLACES = {0.0: "at A", 0.5: "at the midpoint", 1.0: "at B"}


def judged_pairs(diagram: PhaseDiagram) -> pd.DataFrame:
    """Cell, panel and verdict of every ok pair of the judged cells, by key."""
    judged = diagram.cells.loc[diagram.cells["judged"], ["cell", "panel", "verdict"]]
    ok = diagram.pairs.loc[diagram.pairs["status"] == "ok", ["key", "cell"]]
    return ok.merge(judged, on="cell").set_index("key")


def values_of(scores: pd.DataFrame, quantity: str) -> pd.Series:
    """Mean losses (nats) or errors (fractions) of rows with sums over ``n`` examples."""
    return scores["loss_sum"] / scores["n"] if quantity == "loss" else 1 - scores["correct"] / scores["n"]


def collect_rises(diagram: PhaseDiagram, parts: Iterable[pa.Table], split: str, quantity: str) -> pd.DataFrame:
    """One row per :data:`PLACE`: ``rise``, ``low`` and ``high``, means over ``n`` pairs of the mean, the least and the
    largest of a pair's draws.

    A rise is over the network from which the step is taken: a member, or a point of the path. Pairs of which one of the
    numbers is not finite are left out.

    Args:
        diagram: whose judged cells.
        parts: rows of the directions, as :meth:`lmc_tune.tables.store.Store.parts` gives them.
        split: of the rows.
        quantity: ``loss`` (nats) or ``error`` (fraction).
    """
    pairs = judged_pairs(diagram)
    columns = {"rise": "mean", "low": "min", "high": "max"}
    found = []
    for scored in scored_steps(parts, pairs.index, split, quantity):
        rows = scored.join(pairs[["panel", "verdict"]], on="key")
        draws = rows.groupby(["key", *PLACE])["rise"].agg(list(columns.values()))
        draws = draws[np.isfinite(draws.to_numpy()).all(axis=1)].rename(
            columns={old: new for new, old in columns.items()}
        )
        found.append(draws.groupby(PLACE).sum().join(draws.groupby(PLACE).size().rename("n")).reset_index())
    if not found:
        return pd.DataFrame(columns=[*PLACE, *columns, "n"])
    table: pd.DataFrame = pd.concat(found).groupby(PLACE).sum().reset_index()
    return table.assign(**{name: table[name] / table["n"] for name in columns})


def scored_steps(parts: Iterable[pa.Table], keys: Iterable[str], split: str, quantity: str) -> Iterator[pd.DataFrame]:
    """The steps of some pairs, part by part, as the table has them, with their ``value``, that of the network from
    which they are taken, ``origin``, and the ``rise`` from there.

    Args:
        parts, split, quantity: as :func:`collect_rises` takes them. keys: of the pairs.
    """
    wanted = pa.array(keys, pa.string())
    for part in parts:
        own = part.filter(pc.and_(pc.equal(part["split"], split), pc.is_in(part["key"], value_set=wanted)))
        if not len(own):
            continue
        rows = own.to_pandas()
        position = rows["position"].fillna(-1).astype(int)
        rows = rows.assign(value=values_of(rows, quantity), layer=rows["layer"].fillna(""), position=position)
        still = rows[rows["kind"] == "unmoved"].set_index(["key", "lambda"])["value"]
        rows = rows[rows["kind"] != "unmoved"]
        origin = still.reindex(pd.MultiIndex.from_frame(rows[["key", "lambda"]])).to_numpy()
        yield rows.assign(origin=origin, rise=rows["value"] - origin)
