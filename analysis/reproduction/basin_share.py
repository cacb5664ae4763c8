"""What members of one basin have in common, and how much of it comes from longer joint training.

Members that separate later (``spawn_epoch``) end in one basin more often, and they share more of their training. Each
of the two can explain a difference between connected and disconnected cells. Two estimates tell them apart as far as a
study allows: with the spawn epoch as a covariate, and between cells of the nearest spawn epochs.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lmc_tune.analysis.reproduction.expectations import Expectation, Reading, Side
from lmc_tune.analysis.reproduction.sweep_tables import Study
from lmc_tune.analysis.wording import listed, number
from lmc_tune.core.barrier import Array

_BASINS = ["connected", "disconnected"]


def basin_reading(study: Study, quantities: Mapping[str, tuple[str, Side | None]]) -> Reading:
    """Connected minus disconnected cells of the same network and learning rate, replicate by replicate.

    Every quantity is a case of two expectations, one per estimate of what the basin alone accounts for; its plain
    difference has none. Longer joint training is the alternative where a plain difference is what the claim says.

    Args:
        study: a cell's verdict says in which basin its members are.
        quantities: column → title, and the side of 0 on which the claim expects the difference, if it says so;
            in fractions.
    """
    groups = list(_groups(study))
    found = [_estimates(groups, column, title, side) for column, (title, side) in quantities.items()]
    reading = Reading(
        expectations=[one for plain, *shares in found for one in (replace(plain, side=None), *shares)],
        unmet="" if groups else "No network has a connected and a disconnected cell at one learning rate.",
    )
    certain = reading.confidence
    claimed = [estimates for estimates in found if estimates[0].outcome(certain) == "supported"]
    if not claimed:
        return reading
    longer = float(_by_replicate(groups, "spawn_epoch", _difference).mean())
    words = (
        f"Connected cells were trained jointly for {number(longer)} epochs more than disconnected ones, and that "
        "explains the differences as well as the basin does."
    )
    numbers = [
        f"{plain.case[0].upper()}{plain.case[1:]}: {plain.words(certain)} in all, {share.words(certain)} with the "
        f"spawn epoch as a covariate, {nearest.words(certain)} between the nearest spawn epochs."
        for plain, share, nearest in claimed
    ]
    return replace(reading, alternative=" ".join([words, *numbers]))


def _estimates(groups: list[pd.DataFrame], column: str, title: str, side: Side | None) -> list[Expectation]:
    """The plain difference, the basin's share of it, and the difference between the nearest spawn epochs."""
    epochs = sorted({pair for group in groups for pair in _nearest_epochs(group)})
    against = listed([f"{number(one)} against {number(other)}" for one, other in epochs]) if epochs else "none"
    estimates: tuple[tuple[str, Callable[[pd.DataFrame, Array], float]], ...] = (
        ("", _difference),
        (", spawn epoch as a covariate", _share),
        (f", nearest spawn epochs ({against})", _nearest),
    )
    return [
        Expectation(
            what=f"{title}: connected minus disconnected cells{how}",
            values=_by_replicate(groups, column, estimate),
            unit="fraction",
            side=side,
            case=title,
        )
        for how, estimate in estimates
    ]


def _groups(study: Study) -> Iterator[pd.DataFrame]:
    """The pairs of one replicate, network and learning rate, wherever these are in both kinds of basin."""
    decided = study.judged[study.judged["verdict"].isin(_BASINS)]
    for _, group in decided.groupby(["replicate", "network", "lr"]):
        if group["verdict"].nunique() == len(_BASINS):
            yield group


def _by_replicate(groups: list[pd.DataFrame], column: str, estimate: Callable[[pd.DataFrame, Array], float]) -> Array:
    """(replicates,) means over networks and learning rates; NaN where one of these has no estimate."""
    of = defaultdict[int, list[float]](list)
    for group in groups:
        values = group[column].to_numpy(dtype=np.float64, na_value=np.nan)
        of[int(group["replicate"].iloc[0])].append(estimate(group, values))
    return np.array([np.mean(of[replicate]) for replicate in sorted(of)], dtype=np.float64)


def _difference(group: pd.DataFrame, values: Array) -> float:
    connected = _connected(group)
    return float(values[connected].mean() - values[~connected].mean())


def _share(group: pd.DataFrame, values: Array) -> float:
    """The coefficient of the basin in a least-squares fit of the values to basin and spawn epoch.

    NaN where the two never vary apart.
    """
    design = np.column_stack([np.ones(len(group)), _connected(group), group["spawn_epoch"].to_numpy(dtype=np.float64)])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return np.nan
    return float(np.linalg.lstsq(design, values)[0][1])


def _nearest(group: pd.DataFrame, values: Array) -> float:
    """The difference between the cells of the nearest spawn epochs."""
    connected, epochs = _connected(group), group["spawn_epoch"].to_numpy()
    pairs = [
        values[connected & (epochs == one)].mean() - values[~connected & (epochs == other)].mean()
        for one, other in _nearest_epochs(group)
    ]
    return float(np.mean(pairs))


def _nearest_epochs(group: pd.DataFrame) -> list[tuple[float, float]]:
    """The spawn epochs of a connected and of a disconnected cell that lie nearest to each other."""
    connected, epochs = _connected(group), group["spawn_epoch"].to_numpy()
    pairs = [(float(one), float(other)) for one in epochs[connected] for other in epochs[~connected]]
    apart = min(abs(one - other) for one, other in pairs)
    return sorted({(one, other) for one, other in pairs if abs(one - other) == apart})


def _connected(group: pd.DataFrame) -> NDArray[np.bool_]:
    connected: NDArray[np.bool_] = (group["verdict"] == "connected").to_numpy(dtype=bool)
    return connected
