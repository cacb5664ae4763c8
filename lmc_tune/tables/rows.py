"""What is known of a finished pair, as rows of the tables. No torch, no files."""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from lmc_tune.experiment import (
    MODELS,
    Dirichlet,
    Ensemble,
    Federated,
    FederationSpec,
    GroupSpec,
    Pair,
    Pathological,
    ShiftSpec,
    TextSpec,
)
from lmc_tune.tables.barriers import view
from lmc_tune.tables.columns import B_COLUMNS, INT, MODEL, NESTED, SPEC_FIELDS, NestedName, Row

Status = Literal["ok", "undertrained", "diverged", "failed"]


STATUSES: tuple[Status, ...] = get_args(Status)
# Of a recipe that not all families have: their columns, and their names in a space.
ENSEMBLE_SETTINGS = {"common_epochs": "t", "beta": "beta", "tau": "tau", "lowest_lr": "lowest_lr"}


@dataclass(frozen=True, kw_only=True)
class PairResult:
    """Everything kept of one finished pair.

    columns: those of the results that repeat no other table; one that does not apply (of a diverged pair) is absent.
    tables: by the name of every other table, the pair's rows of it, in their order and without the key; those that are
        not given are empty.
    """

    columns: Row
    tables: Mapping[NestedName, list[Row]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tables", {name: [] for name in NESTED} | dict(self.tables))

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
    of_pair = isinstance(spec.recipe, Pair)
    members = {f"member_{name}": member.key for name, member in spec.members.items()} if of_pair else {}
    return {"key": spec.key, "cell": spec.cell, "spec": spec.text, **members, **spec_fields(spec)}


def spec_fields(spec: GroupSpec) -> Row:
    """Those of :data:`SPEC_FIELDS`: columns are named after fields, except those set below."""
    dataset, model, train, shift = spec.dataset, spec.model, spec.train, spec.shift
    fields: Row = {
        **{name: value for section in (dataset, model, train, shift) for name, value in section},
        **_recipe_fields(spec.recipe),
        "dataset": dataset.name,
        "train_examples": dataset.train,
        # Of text, how many there are in all is known of its file alone.
        "test_examples": dataset.windows("test")
        if isinstance(dataset, TextSpec) and not dataset.test
        else dataset.test,
        "validation_examples": dataset.validation,
        "model": model.name,
        "step_budget": train.steps,
        "shift": shift.kind,
        "skew": shift.skew or "",
        "domain": str(shift.domain or ""),
        "replicate": spec.replicate,
        "seed": spec.seed,
    }
    if fields.get("second") is not None:
        fields["second"] = str(fields["second"])
    if "hidden" in fields:
        fields["hidden"] = "-".join(map(str, fields["hidden"]))
    if "arguments" in fields:
        fields["arguments"] = json.dumps(fields["arguments"], sort_keys=True)
    return {name: fields.get(name) for name in SPEC_FIELDS}


def _recipe_fields(recipe: Pair | Federated | Ensemble) -> Row:
    if isinstance(recipe, Federated):
        return _federation_fields(recipe)
    if isinstance(recipe, Ensemble):
        own = {column: getattr(recipe, name) for column, name in ENSEMBLE_SETTINGS.items()}
        return {"family": recipe.family, "member_count": recipe.members, **own}
    of_b = {column: getattr(recipe.b, key) for key, column in B_COLUMNS.items()}
    return of_b | {f"perturb_{name}": value for name, value in recipe.perturb or ()}


def _federation_fields(federation: FederationSpec) -> Row:
    split = federation.split
    return {
        "clients": federation.clients,
        "round_budget": federation.rounds,
        "local_epochs": federation.local_epochs,
        "client_split": federation.split_kind,
        "concentration": split.dirichlet if isinstance(split, Dirichlet) else None,
        "client_classes": split.classes if isinstance(split, Pathological) else None,
        "averaged_layers": federation.averaged_layers,
        "client_norm": federation.norm,
        "client_moments": federation.moments,
    }


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


def federation_label(row: Mapping[Any, Any]) -> str:
    """The federation of a row in a few words, e.g. ``20 clients dirichlet 0.01, averaged: all``."""
    norm = "" if _missing(row["client_norm"]) else f", norms {row['client_norm']}"
    return f"{row['clients']:g} clients {split_label(row)}, averaged: {row['averaged_layers']}{norm}"


def ensemble_label(row: Mapping[Any, Any], without: Collection[str] = ()) -> str:
    """The ensemble of a row in a few words, e.g. ``5 constrained t=10``.

    Args:
        row: the columns of its spec.
        without: columns that are said elsewhere.
    """
    known = [
        f"{name}={row[column]:g}"
        for column, name in ENSEMBLE_SETTINGS.items()
        if column not in without and not _missing(row.get(column))
    ]
    members = [] if "member_count" in without else [f"{row['member_count']:g}"]
    return " ".join([*members, str(row["family"]).replace("_", " "), *known])


def split_label(row: Mapping[Any, Any]) -> str:
    """How the clients of a row share the training set, e.g. ``dirichlet 0.01``; as the spec of the split says."""
    if row["client_split"] == "dirichlet":
        return str(Dirichlet(dirichlet=float(row["concentration"])))
    return str(Pathological(classes=int(row["client_classes"]))) if row["client_split"] == "classes" else "iid"


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
    if not _missing(row.get("family")):
        parts.append(ensemble_label(row))
    parts.append(shift_label(dict(row)) if _missing(row.get("clients")) else federation_label(row))
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
GATED = [
    *("status", "reason", "train_accuracy_a", "train_accuracy_b", "lowest_own_accuracy", "lowest_train_accuracy"),
    "target_reached",
]
# Of a pair's members, of the clients of a federation, or of an ensemble's members.
_ACCURACIES = {
    "member A": "train_accuracy_a",
    "member B": "train_accuracy_b",
    "a client": "lowest_own_accuracy",
    "a member": "lowest_train_accuracy",
}
GATED_ACCURACIES = list(_ACCURACIES.values())


def gate(row: Row, min_train_accuracy: float) -> Row:
    """Decide between ``ok`` and ``undertrained``; other statuses stay.

    The gate belongs to the verdict, not to the experiment: it is applied again whenever tables are compacted.
    """
    if row["status"] not in ("ok", "undertrained"):
        return row
    if row.get("target_reached") is False:
        return {**row, "status": "undertrained", "reason": "a member did not get to the target loss in its budget"}
    known = {who: row[name] for who, name in _ACCURACIES.items() if not _missing(row.get(name))}
    low = {who: accuracy for who, accuracy in known.items() if accuracy < min_train_accuracy}
    if not low:
        return {**row, "status": "ok", "reason": ""}
    named = " and ".join(f"{who} reached {accuracy:.1%}" for who, accuracy in low.items())
    return {
        **row,
        "status": "undertrained",
        "reason": f"train accuracy below the gate of {min_train_accuracy:.1%}: {named}",
    }
