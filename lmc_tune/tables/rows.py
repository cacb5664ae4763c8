"""What is known of a finished pair, as rows of the tables. No torch, no files."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from lmc_tune.experiment import MODELS, GroupSpec, ShiftSpec
from lmc_tune.tables.barriers import view
from lmc_tune.tables.columns import B_COLUMNS, INT, MODEL, SPEC_FIELDS, NestedName, Row

Status = Literal["ok", "undertrained", "diverged", "failed"]


STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True, kw_only=True)
class PairResult:
    """Everything kept of one finished pair.

    columns: those of the results that repeat no other table; one that does not apply (of a diverged pair) is absent.
    tables: by the name of another table, the pair's rows of it, in their order and without the key.
    """

    columns: Row
    tables: Mapping[NestedName, list[Row]] = field(default_factory=dict)

    @cached_property
    def row(self) -> Row:
        """The pair's row of the results."""
        return {**self.columns, **view(self.tables.get("barriers", ()))}

    @property
    def key(self) -> str:
        return str(self.columns["key"])

    @property
    def status(self) -> Status:
        status: Status = self.columns["status"]
        return status


def spec_columns(spec: GroupSpec) -> Row:
    """The columns of a row that repeat its spec."""
    members = {f"member_{name}": member.key for name, member in spec.members.items()}
    return {"key": spec.key, "cell": spec.cell, "spec": spec.text, **members, **spec_fields(spec)}


def spec_fields(spec: GroupSpec) -> Row:
    """Those of :data:`SPEC_FIELDS`: columns are named after fields, except those set below."""
    dataset, model, train, shift = spec.dataset, spec.model, spec.train, spec.shift
    fields: Row = {
        **{name: value for section in (dataset, model, train, shift) for name, value in section},
        **{column: getattr(spec.recipe.b, key) for key, column in B_COLUMNS.items()},
        **{f"perturb_{name}": value for name, value in spec.recipe.perturb or ()},
        "dataset": dataset.name,
        "train_examples": dataset.train,
        "test_examples": dataset.test,
        "validation_examples": dataset.validation,
        "model": model.name,
        "step_budget": train.steps,
        "shift": shift.kind,
        "skew": shift.skew or "",
        "domain": str(shift.domain or ""),
        "replicate": spec.replicate,
        "seed": spec.seed,
    }
    if "hidden" in fields:
        fields["hidden"] = "-".join(map(str, fields["hidden"]))
    if "arguments" in fields:
        fields["arguments"] = json.dumps(fields["arguments"], sort_keys=True)
    return {name: fields.get(name) for name in SPEC_FIELDS}


def model_label(row: Mapping[Any, Any]) -> str:
    """The model of a row in a few words, e.g. ``mlp 64 batch norm``."""
    label: str = model_of(row).label
    return label


def model_of(row: Mapping[Any, Any]) -> Any:
    """The spec of the network that the columns of a row describe; a field that its table lacks has its default."""
    given: dict[str, Any] = {
        column.name: int(row[column.name]) if column.type == INT else row[column.name]  # pandas has floats beside NaN
        for column in MODEL
        if not _missing(row.get(column.name))
    }
    if "hidden" in given:
        given["hidden"] = [int(width) for width in given["hidden"].split("-")]
    if "arguments" in given:
        given["arguments"] = json.loads(given["arguments"])
    return MODELS[row["model"]].model_validate(given)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def shift_label(row: Row) -> str:
    """The shift of a row in a few words, e.g. ``label 80/20``."""
    domain = row.get("domain") or None
    return ShiftSpec(kind=row["shift"], severity=row["severity"], skew=row["skew"] or None, domain=domain).label


def pair_name(row: Row) -> str:
    """A pair in a few words, e.g. ``lr=0.03 batch=32 label 80/20 #2 mlp 64``.

    What is special follows where it belongs: ``b.lr=0.3``, ``perturb 0.1 at step 5``, the norm, the noise.
    """
    return _named(row, [f"#{row['replicate']}"])


def cell_name(row: Mapping[Any, Any]) -> str:
    """A cell in a few words: the name of its pairs without the replicate."""
    return _named(row, [])


def _named(row: Mapping[Any, Any], replicate: list[str]) -> str:
    parts = [f"lr={row['lr']:g}", f"batch={row['batch_size']}"]
    parts += [f"b.{key}={_short(row[name])}" for key, name in B_COLUMNS.items() if not _missing(row[name])]
    parts.append(shift_label(dict(row)))
    if not _missing(row["perturb_scale"]):
        weights = "" if row["perturb_weights"] == "all" else f"{row['perturb_weights']} "
        parts.append(f"perturb {weights}{row['perturb_scale']:g} at step {row['perturb_step']:g}")
    parts += replicate
    if row["noise"] != "fixed":
        parts.append(f"{row['noise']} noise")
    return " ".join([*parts, model_label(row)])


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def failed_result(spec: GroupSpec, reason: str) -> PairResult:
    """The result of a pair that crashed; ``reason`` is its traceback."""
    return PairResult(columns={**spec_columns(spec), "status": "failed", "reason": reason})


# What the gate looks at and changes.
GATED = ["status", "reason", "train_accuracy_a", "train_accuracy_b", "target_reached"]


def gate(row: Row, min_train_accuracy: float) -> Row:
    """Decide between ``ok`` and ``undertrained``; other statuses stay.

    The gate belongs to the verdict, not to the experiment: it is applied again whenever tables are compacted.
    """
    if row["status"] not in ("ok", "undertrained"):
        return row
    if row.get("target_reached") is False:
        return {**row, "status": "undertrained", "reason": "a member did not get to the target loss in its budget"}
    low = {m: row[f"train_accuracy_{m}"] for m in ("a", "b") if row[f"train_accuracy_{m}"] < min_train_accuracy}
    if not low:
        return {**row, "status": "ok", "reason": ""}
    named = " and ".join(f"member {m.upper()} reached {accuracy:.1%}" for m, accuracy in low.items())
    return {
        **row,
        "status": "undertrained",
        "reason": f"train accuracy below the gate of {min_train_accuracy:.1%}: {named}",
    }
