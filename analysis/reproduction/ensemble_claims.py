"""What Lion et al. 2024 claim of ensembles in one basin, and how tables are read for each.

The rules were committed before any of these studies was run (docs/protocols.md).
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats

from lmc_tune.analysis.reproduction.expectations import Claim, Expectation, Reading, Side, Unit
from lmc_tune.analysis.reproduction.sweep_tables import Study, numbers
from lmc_tune.analysis.wording import listed

_PAPER = "Lion et al. 2024"
# Weighted averages that lose less are called connected: as far as a barrier of the error may go.
_CONNECTED = -2.0
# An ensemble that is better by less is not called better.
_POINT = 1.0
_Q = "connectivity"


def _points(table: pd.DataFrame, column: str) -> pd.Series:
    """Accuracies in percentage points; connectivity is in these."""
    return table[column] if column == _Q else 100 * table[column]


def compared(
    study: Study, *, of: Sequence[tuple[str, str | None, str, Side, float]], shown: Sequence[tuple[str, str]] = ()
) -> Reading:
    """Differences between families, replicate by replicate.

    Args:
        study: whose ensembles.
        of: family, the family that is subtracted or None, column, and on which side of a limit the mean should lie,
            percentage points.
        shown: families and columns without an expectation.
    """
    families = {str(name): own.set_index("replicate") for name, own in study.judged.groupby("family")}
    asked = [name for one, other, *_ in of for name in (one, other) if name]
    if missing := [name for name in dict.fromkeys(asked) if name not in families]:
        return Reading(expectations=[], unmet=f"No ensemble is judged of: {listed(missing)}.")
    found = []
    for one, other, column, side, limit in of:
        values = _points(families[one], column)
        if other:
            values = (values - _points(families[other], column)).dropna()
        found.append(_expectation(_said(one, other, column), values, side, limit))
    for one, column in shown:
        unit: Unit = "percentage points" if column == _Q else "fraction"
        found.append(_expectation(_said(one, None, column), families[one][column], unit=unit))
    return Reading(expectations=found)


def _said(one: str, other: str | None, column: str) -> str:
    what = {
        _Q: "q̄",
        "ensemble_accuracy": "accuracy of the ensemble",
        "member_accuracy": "accuracy of the mean member",
        "ensemble_gain_accuracy": "gain of the ensemble over the mean member",
    }[column]
    names = [name.replace("_", " ") for name in (one, other) if name]
    return f"{what}, {' minus '.join(names)}"


def _expectation(
    what: str, values: pd.Series, side: Side | None = None, limit: float = 0.0, unit: Unit = "percentage points"
) -> Expectation:
    return Expectation(what=what, values=numbers(values), unit=unit, side=side, limit=limit)


def parting(study: Study) -> Reading:
    """Rank correlations, replicate by replicate, of the epochs in common with diversity and with connectivity."""
    rows = study.judged[study.judged["family"] == "constrained"]
    if rows["common_epochs"].nunique() < 3:
        return Reading(expectations=[], unmet="Constrained ensembles of fewer than three different t are judged.")
    sides: dict[str, tuple[str, Side]] = {
        "jensen_shannon": ("diversity", "below"),
        "disagreement": ("disagreement", "below"),
        _Q: ("q̄", "above"),
    }
    return Reading(
        expectations=[
            Expectation(
                what=f"constrained: rank correlation of the epochs in common and {name}",
                values=np.array([_ranked(own["common_epochs"], own[column]) for _, own in rows.groupby("replicate")]),
                unit="plain",
                side=side,
            )
            for column, (name, side) in sides.items()
        ]
    )


def _ranked(x: pd.Series, y: pd.Series) -> float:
    """Spearman's; 0 if a variable is constant."""
    if x.nunique() < 2 or y.nunique() < 2:
        return 0.0
    return float(stats.spearmanr(x, y).statistic)


ENSEMBLE_CLAIMS = (
    Claim(
        id="R19",
        text="Independent members lie in different basins; permuting their units brings them closer, and not into one.",
        source=_PAPER,
        preset="basin_resnet20_cifar10",
        reading=partial(
            compared,
            of=[
                ("deep", "permuted", _Q, "below", 0.0),
                ("permuted", "constrained", _Q, "below", 0.0),
            ],
            shown=[("deep", _Q), ("permuted", _Q), ("multi_pcd", _Q)],
        ),
        note="q̄ is the mean over weighted averages of all members' weights, less what the members' accuracies average "
        "to, of test accuracy.",
    ),
    Claim(
        id="R20",
        text="Members that part after some epochs of common training lie in one basin.",
        source=_PAPER,
        preset="basin_resnet20_cifar10",
        reading=partial(compared, of=[("constrained", None, _Q, "above", _CONNECTED)], shown=[("swe", _Q)]),
        note="The paper calls q̄ near 0 connected; here it should not lie 2 points below.",
    ),
    Claim(
        id="R21",
        text="An ensemble inside one basin is worse than one of independent members.",
        source=_PAPER,
        preset="basin_resnet20_cifar10",
        reading=partial(
            compared,
            of=[("constrained", "deep", "ensemble_accuracy", "below", 0.0)],
            shown=[("deep", "ensemble_accuracy"), ("constrained", "ensemble_accuracy"), ("swe", "ensemble_accuracy")],
        ),
    ),
    Claim(
        id="R22",
        text="Distillation from independent members wins most of that back inside one basin.",
        source=_PAPER,
        preset="basin_resnet20_cifar10",
        reading=partial(
            compared,
            of=[
                ("distilled", "constrained", "ensemble_accuracy", "above", 0.0),
                ("distilled", "deep", "ensemble_accuracy", "below", _POINT),
                ("distilled", None, _Q, "above", _CONNECTED),
            ],
            shown=[("distilled_deep", "ensemble_accuracy")],
        ),
        note="The distilled ensemble should be better than the constrained one, not better than the independent one by "
        "a point, and connected.",
    ),
    Claim(
        id="R23",
        text="What distillation raises is the mean member, not the gain of the ensemble over it.",
        source=_PAPER,
        preset="basin_resnet20_cifar10",
        reading=partial(
            compared,
            of=[
                ("distilled", "constrained", "member_accuracy", "above", 0.0),
                ("distilled", "constrained", "ensemble_gain_accuracy", "below", _POINT),
            ],
        ),
    ),
    Claim(
        id="R24",
        text="The later members part, the less diverse and the better connected they are.",
        source=_PAPER,
        preset="basin_branching",
        reading=parting,
        note="Rank correlations over the epochs in common, one per replicate.",
    ),
)
