"""Sweeps of presets whose tables are committed, read by the rules of the claims that they test."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lmc_tune.analysis.reproduction.claims import CLAIMS
from lmc_tune.analysis.reproduction.expectations import Claim, Outcome, Reading, same
from lmc_tune.analysis.reproduction.protocols import PROTOCOLS
from lmc_tune.analysis.reproduction.sweep_tables import Study
from lmc_tune.errors import UserError
from lmc_tune.experiment.reading import parse_space, presets
from lmc_tune.experiment.space import SPACE_FILE, SearchSpace
from lmc_tune.experiment.text import TextContent, TextSpec
from lmc_tune.storage import write_text
from lmc_tune.tables.columns import NestedName
from lmc_tune.tables.store import Store
from lmc_tune.tables.sweep_record import SWEEP_FILE, SweepRecord

# Twins of presets: smaller ones, and those that decide what these leave open.
SMALL, MEDIUM = "_small", "_medium"
_KEPT = ("results.parquet", "paths.parquet", "curves.parquet", SPACE_FILE, SWEEP_FILE)
# Tables that a sweep has if it was asked for them.
_FURTHER: tuple[NestedName, ...] = ("layer_barriers", "directions")
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
        further = {name: list(store.parts(name)) for name in _FURTHER}
        own = space.verdict.min_train_accuracy
        # These gates are of classes of images; a language model predicts few tokens rightly.
        gates = {own} if results["tokens"].notna().any() else {*GATES, own}
        studies = {
            gate: Study.of(
                results, paths, curves, space.verdict.model_copy(update={"min_train_accuracy": gate}), further
            )
            for gate in sorted(gates)
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
    text = (run / SPACE_FILE).read_text(encoding="utf-8")
    files = _files(parse_space(text, str(run / SPACE_FILE)))
    for file in files:
        text = text.replace(file, Path(file).name)
    space = parse_space(text, str(run / SPACE_FILE))
    # Whether members were kept changes no number.
    if space.model_copy(update={"members": "auto"}) != preset_with(swept.name, space.texts):
        raise UserError(f"{run} is a sweep of a changed {swept.name}; the record holds only unchanged presets")
    finished = len(Store(run).results(["key"]))
    if finished != swept.planned_pairs:
        raise UserError(
            f"{run} has {finished} of {swept.planned_pairs} pairs; finish it first: lmc-tune sweep {swept.name}"
        )
    target = tables / swept.name
    target.mkdir(parents=True, exist_ok=True)
    further = [f"{name}.parquet" for name in _FURTHER if (run / f"{name}.parquet").exists()]
    for name in (*_KEPT, *further):
        shutil.copyfile(run / name, target / name)
    if files:
        write_text(target / SPACE_FILE, text)
        _leave_folders_out(target / "results.parquet", files)


def _leave_folders_out(table: Path, files: Sequence[str]) -> None:
    """Texts lie anywhere; what is known of them is a hash of what they hold."""
    rows = pq.read_table(table)
    for at, field in enumerate(rows.schema):
        if pa.types.is_string(field.type):
            values = rows.column(at)
            for file in files:
                values = pc.replace_substring(values, file, Path(file).name)
            rows = rows.set_column(at, field, values)
    pq.write_table(rows, table, compression="zstd")


def _files(space: SearchSpace) -> list[str]:
    """Paths of a space's texts."""
    datasets = [cell.first.dataset for cell in space.cells()]
    return sorted({dataset.path for dataset in datasets if isinstance(dataset, TextSpec)})


def preset_with(name: str, texts: Mapping[str, TextContent]) -> SearchSpace:
    """A preset whose texts hold what is known of them; the files need not be there."""
    text = presets()[name].read_text(encoding="utf-8")
    known = {source: content.model_dump(mode="json") for source, content in texts.items()}
    return parse_space(f"{text}texts: {json.dumps(known)}\n" if known else text, name)
