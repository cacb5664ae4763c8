"""Made-up studies whose outcome can be worked out by hand."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from lmc_tune.analysis.reproduction.expectations import Claim
from lmc_tune.analysis.reproduction.sweep_tables import Study
from lmc_tune.experiment import DatasetSpec, GroupSpec, MlpSpec, ModelSpec, VerdictSpec
from lmc_tune.tables.columns import CURVES, RESULTS_SCHEMA, TABLES, NestedName
from lmc_tune.tables.rows import PairResult
from tests.analysis.cases import pair_spec

L1, L3 = MlpSpec(hidden=(32,)), MlpSpec(hidden=(32, 32, 32))


def spec_of(replicate: int, model: ModelSpec = L1, normalise: bool = True, **train: Any) -> GroupSpec:  # noqa: FBT001, FBT002
    base = pair_spec(replicate=replicate)
    settings = {"lr": 1e-3, "batch_size": 32, "optimizer": "adam", "epochs": 20} | train
    return GroupSpec.model_validate(
        base.model_dump()
        | {
            "model": model.model_dump(),
            "dataset": DatasetSpec(normalise=normalise).model_dump(),
            "train": settings,
        }
    )


def study_of(results: Sequence[PairResult], curves: pd.DataFrame | None = None, gate: float = 0.4) -> Study:
    table = pd.DataFrame([result.row for result in results]).reindex(columns=RESULTS_SCHEMA.names)

    def rows(name: NestedName) -> pa.Table:
        nested = [
            {"key": result.key, **row}
            for result in sorted(results, key=lambda r: r.key)
            for row in result.tables.get(name, [])
        ]
        return pa.Table.from_pylist(nested, schema=TABLES[name].schema)

    further: dict[NestedName, list[pa.Table]] = {name: [rows(name)] for name in ("layer_barriers", "directions")}
    if curves is None:
        curves = pd.DataFrame(columns=CURVES.schema.names)
    return Study.of(table, rows("paths"), curves, VerdictSpec(min_train_accuracy=gate), further)


def pairs(make: Callable[[GroupSpec], PairResult], *specs: Callable[[int], GroupSpec]) -> list[PairResult]:
    return [make(spec(k)) for spec in specs for k in range(4)]


def outcome_of(claim: Claim, study: Study) -> str:
    return claim.outcome(claim.reading(study))


def learning_curves(results: Sequence[PairResult], rise: float) -> pd.DataFrame:
    """Test loss falls from 1 to 0.5 and ends ``rise`` higher, for member B twice as much."""
    rows = [
        {"key": result.key, "member": member, "step": step, "test_loss": loss}
        for result in results
        for member, factor in (("a", 1), ("b", 2), ("joint", 100))
        for step, loss in ((30, 0.5 + factor * rise), (10, 1.0), (20, 0.5))
    ]
    return pd.DataFrame(rows).reindex(columns=CURVES.schema.names)
