"""Run folders made up from formulas: what a sweep would leave behind, without training anything."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from lmc_tune.core.barrier import DEFINITIONS, locate_barrier, path_grid
from lmc_tune.core.noise import noise_scale
from lmc_tune.experiment import (
    DatasetSpec,
    GroupSpec,
    MeasureSpec,
    MlpSpec,
    ShiftSpec,
    TrainSpec,
    VerdictSpec,
    condition_column,
)
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.tables.cells import OK_MEANS
from lmc_tune.tables.columns import BARRIER_COLUMNS, PATH_FIELDS, RESULTS_SCHEMA
from lmc_tune.tables.rows import PairResult, Row, spec_columns
from lmc_tune.tables.store import Store
from tests.cases import pair_of

N_TRAIN = 700
N_TEST = 360
LRS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
BATCH_SIZES = (16, 64, 256)
COVARIATE = ShiftSpec(kind="covariate")
LABEL = ShiftSpec(kind="label", severity=0.6)
# Wide before deep: no order but the space's own.
NETWORKS = (
    MlpSpec(hidden=(512,)),
    MlpSpec(hidden=(512,), norm="batch"),
    MlpSpec(hidden=(64, 64, 64)),
    MlpSpec(hidden=(64, 64, 64), norm="batch"),
)


def pair_spec(
    lr: float = 0.1,
    batch_size: int = 64,
    shift: ShiftSpec = COVARIATE,
    replicate: int = 0,
    model: MlpSpec | None = None,
) -> GroupSpec:
    return GroupSpec(
        dataset=DatasetSpec(),
        model=model or MlpSpec(),
        train=TrainSpec(lr=lr, batch_size=batch_size, momentum=0.9, epochs=20),
        shift=shift,
        replicate=replicate,
    )


def results_of(pairs: list[PairResult]) -> pd.DataFrame:
    """The table that a sweep with these pairs has."""
    frame = pd.DataFrame([pair.row for pair in pairs])
    return frame.reindex(columns=RESULTS_SCHEMA.names)


def ok_pair(spec: GroupSpec, hump: float, endpoint: float = 0.04, tilt: float = 0.0) -> PairResult:
    """An ok pair whose error runs from ``endpoint`` to ``endpoint + tilt`` over a hump of the given height."""
    lambdas = path_grid(25)
    error = endpoint + tilt * lambdas + hump * np.sin(np.pi * lambdas) ** 2
    paths: list[Row] = []
    measured: Row = {}
    for split, n, scale in (("train", N_TRAIN, 0.5), ("test", N_TEST, 1.0)):
        curves = {"error": scale * error, "loss": 4 * scale * error + 0.02}
        for quantity, curve in curves.items():
            for definition in DEFINITIONS:
                top = locate_barrier(lambdas, curve, definition)
                name = f"{split}_{quantity}_barrier_{definition}"
                measured |= {name: top.height, f"{name}_lambda": top.lambda_}
        for end, member in ((0, "a"), (-1, "b")):
            measured[f"{split}_loss_{member}"] = curves["loss"][end]
            measured[f"{split}_accuracy_{member}"] = 1 - curves["error"][end]
        paths += [
            {
                "condition": "naive",
                "split": split,
                "lambda": lambda_,
                "loss_sum": loss * n,
                "correct": round((1 - wrong) * n),
                "n": n,
            }
            for lambda_, loss, wrong in zip(lambdas, curves["loss"], curves["error"], strict=True)
        ]
    row = {**_row(spec, "ok", ""), **measured, "under_resolved": False, "barrier_lambda": 0.5}
    row |= {"distance": 3 + 20 * hump, "distance_a": 5.0, "distance_b": 5.2, "disagreement": endpoint + hump / 4}
    return pair_of(row, paths=paths)


def measured_pair(spec: GroupSpec, hump: float | None = None) -> PairResult:
    """An ok pair of which everything is known: conditions, similarity, ensemble and average, learning curves, layers.

    Drawn from the pair's own seed; BatchNorm makes the naive path worse than the recalibrated one.
    """
    rng = np.random.default_rng(spec.seed_for("measured", spec.text))
    hump = float(rng.uniform(-0.03, 0.2)) if hump is None else hump
    ends = {"endpoint": float(rng.uniform(0.04, 0.06)), "tilt": float(rng.normal(0, 0.01))}
    pair = ok_pair(spec, hump, **ends)
    row, paths = {**pair.row, "accuracy_difference": float(rng.normal(-4, 1))}, [*pair.tables["paths"]]
    if "recalibrated" in (MeasureSpec().of(spec.model).conditions or ()):
        stale = ok_pair(spec, hump + 0.4, **ends)
        columns = [*BARRIER_COLUMNS, *PATH_FIELDS]
        row = {**stale.row, "accuracy_difference": -30.0}
        row |= {condition_column("recalibrated", name): pair.row[name] for name in columns if name in pair.row}
        row["recalibrated_accuracy_difference"] = float(rng.normal(-4, 1))
        paths = [*stale.tables["paths"], *({**point, "condition": "recalibrated"} for point in pair.tables["paths"])]
    row |= {name: float(rng.uniform(0.1, 0.9)) for name in OK_MEANS if name not in row}
    curves = [
        {
            "member": member,
            "step": 10 * epoch,
            "epoch": float(epoch),
            "lr": spec.train.lr,
            **{f"{split}_loss": float(rng.uniform(0.1, 2)) for split in ("train", "test")},
            **{f"{split}_accuracy": float(rng.uniform(0.5, 1)) for split in ("train", "test")},
        }
        for member in "ab"
        for epoch in (1, 2, 3)
    ]
    layers = [
        {
            "layer": name,
            "position": at,
            "cka": float("nan") if name == "scale" else float(rng.uniform(0.3, 1)),
            **{name: float(rng.uniform(1, 5)) for name in ("distance", "distance_a", "distance_b")},
        }
        for at, name in enumerate(("input", "scale", "output"))
    ]
    return pair_of(row, paths=paths, curves=curves, layers=layers)


def undertrained_pair(spec: GroupSpec, accuracy: float = 0.21) -> PairResult:
    """A pair that was measured, but whose members did not pass the gate of 50%."""
    flat = ok_pair(spec, hump=0.0, endpoint=2 * (1 - accuracy) * 0.5)
    changed = {f"train_accuracy_{member}": accuracy for member in "ab"}
    reason = (
        f"train accuracy below the gate of 50.0%: member A reached {accuracy:.1%} and member B reached {accuracy:.1%}"
    )
    return pair_of({**flat.row, **changed, "status": "undertrained", "reason": reason}, paths=flat.tables["paths"])


def diverged_pair(spec: GroupSpec, reason: str = "member A: the loss became non-finite at step 14") -> PairResult:
    return pair_of(_row(spec, "diverged", reason))


def failed_pair(spec: GroupSpec, reason: str = "RuntimeError: the machine went away") -> PairResult:
    return pair_of(_row(spec, "failed", reason))


def _row(spec: GroupSpec, status: str, reason: str) -> Row:
    return {
        **spec_columns(spec),
        "question": MeasureSpec().of(spec.model).key,
        "status": status,
        "reason": reason,
        "noise_scale": noise_scale(spec.train.lr, spec.train.batch_size, N_TRAIN),
        "steps": 20 * -(-N_TRAIN // spec.train.batch_size),
        "n_train": N_TRAIN,
        "seconds_train": 1.0,
        "seconds_measure": 0.2,
        "device": "cpu",
        "label_shift": 0.6 if spec.shift.kind == "label" else 0.02,
        "covariate_shift": 0.004,
    }


def realistic_pair(spec: GroupSpec) -> PairResult:
    """A pair of a plausible sweep: small steps learn nothing, large ones break connectivity, the largest diverge."""
    lr, batch_size = spec.train.lr, spec.train.batch_size
    rng = np.random.default_rng(spec.seed_for("case", int(lr * 1e6), batch_size, spec.shift.kind))
    effective = np.log10(lr) + 0.25 * np.log10(16 / batch_size)
    if effective < -2.6:
        return undertrained_pair(spec, accuracy=float(rng.uniform(0.12, 0.35)))
    if effective > -0.2 or (effective > -0.6 and rng.random() < 0.3):
        return diverged_pair(spec, f"member B: the loss became non-finite at step {rng.integers(8, 40)}")
    middle = -1.1 if spec.shift.kind == "covariate" else -1.5
    hump = 0.42 / (1 + np.exp(-4.5 * (effective - middle))) * rng.lognormal(0, 0.25)
    return ok_pair(spec, hump=float(hump), endpoint=float(rng.uniform(0.03, 0.06)), tilt=float(rng.normal(0, 0.01)))


def grid(
    lrs: Sequence[float] = LRS,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    shifts: Sequence[ShiftSpec] = (COVARIATE, LABEL),
    replicates: int = 5,
) -> list[GroupSpec]:
    return [
        pair_spec(lr=lr, batch_size=batch_size, shift=shift, replicate=replicate)
        for shift in shifts
        for batch_size in batch_sizes
        for lr in lrs
        for replicate in range(replicates)
    ]


def space_of(
    lrs: Sequence[float] = LRS,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    shifts: Sequence[ShiftSpec] = (COVARIATE, LABEL),
    replicates: int = 5,
    verdict: VerdictSpec | None = None,
) -> SearchSpace:
    """The space whose pairs are those of :func:`grid`."""
    spec = pair_spec()
    return SearchSpace(
        name="quickstart",
        fixed={
            "dataset": spec.dataset.model_dump(mode="json"),
            "model": spec.model.model_dump(mode="json"),
            "train": spec.train.model_dump(mode="json", exclude={"lr", "batch_size"}),
        },
        axes={
            "shift": tuple(shift.model_dump(mode="json") for shift in shifts),
            "batch_size": tuple(batch_sizes),
            "lr": tuple(lrs),
        },
        replicates=replicates,
        verdict=verdict or VerdictSpec(),
    )


def networks_space(
    networks: Sequence[MlpSpec] = NETWORKS, lrs: Sequence[float] = (0.01, 0.1), replicates: int = 3
) -> SearchSpace:
    """Networks × learning rates × a shift of either kind."""
    space = space_of(lrs, (64,), (COVARIATE, LABEL), replicates)
    fixed = {name: values for name, values in space.fixed.items() if name != "model"}
    models = tuple(network.model_dump(mode="json") for network in networks)
    return space.model_copy(update={"fixed": fixed, "axes": {"model": models, **space.axes}})


def write_run(
    folder: Path,
    specs: Sequence[GroupSpec] | None = None,
    make: Callable[[GroupSpec], PairResult] = realistic_pair,
    name: str = "quickstart",
    space: SearchSpace | None = None,
) -> Path:
    """A run folder: tables, sweep.json and space.yaml. Without a space it is finished: the one its pairs span."""
    specs = grid() if specs is None else specs
    space = space or space_of(
        sorted({spec.train.lr for spec in specs}),
        sorted({spec.train.batch_size for spec in specs}),
        list(dict.fromkeys(spec.shift for spec in specs)),
        max(spec.replicate for spec in specs) + 1,
    )
    store = Store(folder)
    store.write_shard("cohort", [make(spec) for spec in specs])
    store.compact(space.verdict)
    sweep = {
        "id": "0123456789abcdef",
        "name": name,
        "created": "2026-11-20T08:00:00+00:00",
        "planned_pairs": len(space.pairs()),
        "versions": {"python": "3.11.2", "torch": "2.13.0", "lmc-tune": "0.1.0"},
    }
    (folder / "sweep.json").write_text(json.dumps(sweep))
    (folder / "space.yaml").write_text(yaml.safe_dump(space.plain(), sort_keys=False))
    return folder


def unpacked(table: dict[str, Any]) -> list[Row]:
    """Rows of a packed table."""
    columns = {
        name: column if isinstance(column, list) else [column["values"][at] for at in column["at"]]
        for name, column in table.items()
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
