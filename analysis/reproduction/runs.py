"""Sweeps of presets whose tables are committed, read by the rules of the claims that they test."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from lmc_tune.analysis.reproduction.claims import CLAIMS
from lmc_tune.analysis.reproduction.expectations import Claim, Outcome, Reading, same
from lmc_tune.analysis.reproduction.protocols import PROTOCOLS
from lmc_tune.analysis.reproduction.sweep_tables import Study
from lmc_tune.errors import UserError
from lmc_tune.experiment.reading import parse_space, presets, read_space
from lmc_tune.experiment.space import SPACE_FILE, SearchSpace
from lmc_tune.tables.store import Store
from lmc_tune.tables.sweep_record import SWEEP_FILE, SweepRecord

# Twins of presets: smaller ones, and those that decide what these leave open.
SMALL, MEDIUM = "_small", "_medium"
_KEPT = ("results.parquet", "paths.parquet", "curves.parquet", SPACE_FILE, SWEEP_FILE)
# Train accuracies that members may have to reach before their pair counts, up to that of the presets.
GATES = (0.4, 0.5, 0.6)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One sweep of a preset, read from its tables.

    studies: by the gate on train accuracy; the space's own among them.
    claims: by id; those that this preset tests, with the rules by which it is read.
    readings: by the claim's id, then by gate.
    """

    space: SearchSpace
    record: SweepRecord
    studies: Mapping[float, Study]
    claims: Mapping[str, Claim]
    readings: Mapping[str, Mapping[float, Reading]]

    @classmethod
    def read(cls, folder: Path) -> "Run":
        store, text = Store(folder), (folder / SPACE_FILE).read_text(encoding="utf-8")
        space = parse_space(text, str(folder / SPACE_FILE))
        results, paths, curves = store.results(), pa.concat_tables(store.parts("paths")), store.table("curves")
        studies = {
            gate: Study.of(results, paths, curves, space.verdict.model_copy(update={"min_train_accuracy": gate}))
            for gate in sorted({*GATES, space.verdict.min_train_accuracy})
        }
        claims = {claim.id: claim for claim in claims_of(folder.name)}
        readings = {
            name: {gate: claim.reading(study) for gate, study in studies.items()} for name, claim in claims.items()
        }
        return cls(space=space, record=SweepRecord.read(folder), studies=studies, claims=claims, readings=readings)

    @property
    def study(self) -> Study:
        """Under the space's own gate."""
        return self.studies[self.space.verdict.min_train_accuracy]

    def outcomes(self, claim: str) -> dict[float, Outcome]:
        """Of a claim, by gate."""
        return {gate: self.claims[claim].outcome(reading) for gate, reading in self.readings[claim].items()}


def claims_of(preset: str) -> list[Claim]:
    """What a preset tests, with the rules by which it is read; medium twins have protocols."""
    return [
        *(claim for claim in CLAIMS if claim.preset == preset.removesuffix(SMALL)),
        *(claim for claim in PROTOCOLS if claim.preset == preset),
    ]


def read_runs(tables: Path) -> dict[str, Run]:
    """By the name of their preset."""
    return {folder.name: Run.read(folder) for folder in sorted(tables.iterdir()) if folder.is_dir()}


def outcomes_of(runs: Mapping[str, Run]) -> dict[tuple[str, str], Outcome]:
    """By claim and study: what holds at every gate."""
    return {
        (claim.id, name): same(run.outcomes(claim.id).values())
        for claim in CLAIMS
        for name, run in runs.items()
        if claim.id in run.claims
    }


def take(run: Path, tables: Path) -> None:
    """Copy the tables of a run folder, under the name of its preset.

    Raises:
        UserError: if the folder holds no finished sweep of a preset.
    """
    if missing := [name for name in _KEPT if not (run / name).exists()]:
        raise UserError(f"{run} holds no finished sweep: {missing[0]} is missing")
    swept = SweepRecord.read(run)
    if swept.name not in presets():
        raise UserError(f"{run} is a sweep of {swept.name}, which is not a preset; the record holds only presets")
    space = parse_space((run / SPACE_FILE).read_text(encoding="utf-8"), str(run / SPACE_FILE))
    # Whether members were kept changes no number.
    if space.model_copy(update={"members": "auto"}) != read_space(swept.name):
        raise UserError(f"{run} is a sweep of a changed {swept.name}; the record holds only unchanged presets")
    finished = len(Store(run).results(["key"]))
    if finished != swept.planned_pairs:
        raise UserError(
            f"{run} has {finished} of {swept.planned_pairs} pairs; finish it first: lmc-tune sweep {swept.name}"
        )
    target = tables / swept.name
    target.mkdir(parents=True, exist_ok=True)
    for name in _KEPT:
        shutil.copyfile(run / name, target / name)
