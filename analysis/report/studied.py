"""What was studied, in words: the line under the answer, the settings, and how cells were judged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lmc_tune.analysis.phase import FAMILY_FIELDS, SHIFT_FIELDS, SPLIT_FIELDS, PhaseDiagram
from lmc_tune.analysis.wording import UNKNOWN, UNSET, confidence, gate, listed, number, quantity, shift_words, threshold
from lmc_tune.core.counted import counted
from lmc_tune.experiment import SAME_WITHOUT_BATCH_NORM, DatasetSpec, GroupSpec, MlpSpec, ShiftSpec, TrainSpec
from lmc_tune.experiment.networks import MODELS
from lmc_tune.tables.cells import CELL_FIELDS, CONDITION_BARRIERS
from lmc_tune.tables.columns import MODEL_FIELDS
from lmc_tune.tables.rows import ensemble_label, model_label, spec_fields, split_label

# More values are summed up by their range, or by their number.
FEW_VALUES = 4
# Null says that none are left out.
ALL_EXAMPLES = ("train_examples", "test_examples")

Rows = list[tuple[str, str]]


def planned(diagram: PhaseDiagram) -> pd.DataFrame:
    """The spec's columns of all cells, run or not, in the order of the panels and axes."""
    return diagram.in_order(diagram.planned)[CELL_FIELDS].reset_index(drop=True)


def studied(diagram: PhaseDiagram) -> str:
    """Data, networks, training, shifts and pairs per cell in one line; what varies as its range or its values."""
    cells = planned(diagram)
    severity = "severity" in [axis.column for axis in diagram.axes]
    kinds = cells[SHIFT_FIELDS].drop_duplicates().to_dict("records")
    shifts = [shift_words(row, severity_is_axis=severity) for row in kinds]
    if severity:
        shifts = [f"{shift} of severity {_spread(cells['severity'])}" for shift in shifts]
    networks = cells[["model", *MODEL_FIELDS]].drop_duplicates()
    parts = [
        _data(diagram, cells),
        _several([model_label(row) for row in networks.to_dict("records")], "networks"),
        ", ".join([_several(list(cells["optimizer"]), "optimizers"), *_training(diagram, cells)]),
        _federations(cells) if diagram.federated else f"shift: {_several(shifts, 'shifts')}",
        *([_ensembles(diagram, cells)] if diagram.group == "ensemble" else []),
        f"{counts(diagram.cells['n_pairs'], diagram.group)} per cell",
    ]
    return " · ".join(parts)


def _federations(cells: pd.DataFrame) -> str:
    rows = cells[["clients", "round_budget", *SPLIT_FIELDS]].drop_duplicates()
    splits = [split_label(row) for row in rows.to_dict("records")]
    return f"{_spread(rows['clients'])} clients, {_spread(rows['round_budget'])} rounds, {_several(splits, 'splits')}"


def _ensembles(diagram: PhaseDiagram, cells: pd.DataFrame) -> str:
    axes = [axis.column for axis in diagram.axes]
    rows = cells[["member_count", *FAMILY_FIELDS]].drop_duplicates().to_dict("records")
    families = [ensemble_label(row, without=["member_count", *axes]) for row in rows]
    return f"ensembles of {_spread(cells['member_count'])}: {_several(families, 'families')}"


def _data(diagram: PhaseDiagram, cells: pd.DataFrame) -> str:
    files = cells["path"].fillna("").map(lambda path: f" {Path(path).name}" if path else "")  # of texts
    names = _several(list(cells["dataset"] + files), "data sets")
    sizes = diagram.pairs["n_train"].dropna() if "n_train" in diagram.pairs else pd.Series(dtype=float)
    whose = "client" if diagram.federated else "member"
    return f"{names}, {_spread(sizes)} training examples per {whose}" if len(sizes) else names


def _training(diagram: PhaseDiagram, cells: pd.DataFrame) -> list[str]:
    """The most important numbers of training that are set."""
    parts = []
    for column in ("lr", "batch_size", "momentum", "epochs", "step_budget"):
        values = cells[column].dropna()
        if len(values) and (column != "momentum" or values.any()):
            spread = _spread(values)
            of_a = " of A" if column in diagram.of_a else ""
            parts.append(f"{spread} epochs{of_a}" if column == "epochs" else f"{diagram.title(column)} {spread}")
    return parts


def counts(n: pd.Series, noun: str) -> str:
    """E.g. ``5 pairs``, or ``3 to 5 pairs`` where cells differ."""
    return counted(int(n.max()), noun) if n.min() == n.max() else f"{n.min()} to {n.max()} {noun}s"


def _several(names: list[str], what: str) -> str:
    known = list(dict.fromkeys(names))
    return listed(known) if len(known) <= FEW_VALUES else f"{len(known)} {what}"


def _spread(values: pd.Series) -> str:
    low, high = number(values.min()), number(values.max())
    return low if low == high else f"{low} to {high}"


def settings(diagram: PhaseDiagram) -> dict[str, Rows]:
    """The fields of the space by title: what was varied, over which values; what was fixed; what was left as it is.

    Fields that are not set are left out.
    """
    cells = planned(diagram)
    usual = _defaults(cells.iloc[0].to_dict())
    found: dict[str, Rows] = {"Varied": [], "Fixed": [], "Left at the default": []}
    for column in CELL_FIELDS:
        unset = cells[column].isna() | (cells[column] == "")
        if unset.all() and column not in ALL_EXAMPLES:
            continue
        distinct = cells[column].drop_duplicates().sort_values()
        kind = "Varied" if len(distinct) > 1 else "Fixed"
        if kind != "Varied" and column in usual and _same(distinct.iloc[0], usual[column]):
            kind = "Left at the default"
        found[kind].append((diagram.title(column), ", ".join(spec_value(column, value) for value in distinct)))
    return found


def _defaults(row: Mapping[Any, Any]) -> dict[str, Any]:
    """The defaults of the fields that have one, where data set, network and kind of shift are those of the row."""
    model = MlpSpec() if row["model"] == "factory" else MODELS[row["model"]]()
    usual = GroupSpec(
        dataset=DatasetSpec(),
        model=model,
        train=TrainSpec(lr=1.0, batch_size=2, epochs=1),
        shift=ShiftSpec(kind="covariate" if row["shift"] == "domain" else row["shift"]),
        replicate=0,
    )
    chosen = {"lr", "batch_size", "epochs", "dataset", "model", "shift", "domain"}
    if row["model"] == "factory":
        chosen |= set(MODEL_FIELDS)
    return {name: value for name, value in spec_fields(usual).items() if name not in chosen}


def _same(value: Any, usual: Any) -> bool:
    return bool(pd.isna(value)) if usual is None else bool(value == usual)


def spec_value(column: str, value: Any) -> str:
    """What a column of the spec holds, in words."""
    if pd.isna(value) or value == "":
        return UNSET.get(column, UNKNOWN)
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def judgement(diagram: PhaseDiagram) -> Rows:
    """How cells were judged, and under which conditions their paths were measured."""
    verdict = diagram.verdict
    return [
        ("barrier", f"{verdict.barrier} of {quantity(verdict)} (column {verdict.column})"),
        ("condition that is judged", _judged_condition(diagram)),
        ("conditions that were measured", _measured(diagram)),
        ("threshold", threshold(verdict)),
        ("confidence", confidence(verdict)),
        ("estimator", str(diagram.cells["estimator"].iloc[0])),
        ("train-accuracy gate", gate(verdict)),
    ]


def _judged_condition(diagram: PhaseDiagram) -> str:
    """The verdict's condition, or the one that is the same for networks without BatchNorm."""
    asked = diagram.verdict.condition
    if (same := SAME_WITHOUT_BATCH_NORM.get(asked)) is None:
        return asked
    cells = diagram.cells
    without = (cells["model"] != "factory") & (cells["norm"] != "batch")
    if without.all():
        return f"{same}: the networks have no BatchNorm, so {asked} would change nothing"
    return f"{asked}; {same} for networks without BatchNorm, where it would change nothing" if without.any() else asked


def _measured(diagram: PhaseDiagram) -> str:
    return ", ".join(CONDITION_BARRIERS[name] for name in CONDITION_BARRIERS if diagram.pairs[name].notna().any())
