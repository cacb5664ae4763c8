"""Results of another version of lmc-tune, in which the same experiment gives other numbers."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lmc_tune as package
from lmc_tune.experiment import GroupSpec
from lmc_tune.experiment import member as members
from tests.faults.cases import PAIRS, Sweep, contents
from tests.faults.test_damage import REFUSED
from tests.sweeps.cases import lmc_tune, lmc_tune_json, rows

pytestmark = [pytest.mark.slow, pytest.mark.faults]


def make_older(sweep: Sweep, monkeypatch: pytest.MonkeyPatch, pairs: int) -> set[str]:
    """Give the tables' first pairs the keys that they had under an earlier schema; those keys."""
    table = pq.read_table(sweep.run / "results.parquet").to_pylist()
    pair_specs = [GroupSpec.model_validate_json(row["spec"]) for row in table[:pairs]]
    with monkeypatch.context() as earlier:
        earlier.setattr(members, "SCHEMA_VERSION", members.SCHEMA_VERSION - 1)
        keys = {row["key"]: spec.key for row, spec in zip(table, pair_specs, strict=False)}
        cells = {row["key"]: spec.cell for row, spec in zip(table, pair_specs, strict=False)}
    for name in ("results", "paths", "curves", "layers"):
        path = sweep.run / f"{name}.parquet"
        content = pq.read_table(path)
        renamed = [
            {**row, "key": keys.get(row["key"], row["key"])}
            | ({"cell": cells.get(row["key"], row["cell"])} if name == "results" else {})
            for row in content.to_pylist()
        ]
        pq.write_table(pa.Table.from_pylist(renamed, schema=content.schema).sort_by("key"), path)
    return set(keys.values())


def test_a_folder_of_an_earlier_version_is_refused_with_the_reason_and_stays_readable(
    sweep: Sweep, reference: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(reference.run, sweep.run)
    older = make_older(sweep, monkeypatch, PAIRS)
    before = contents(sweep.run)
    done = lmc_tune(*sweep.arguments(), **sweep.environment)
    assert done.returncode in REFUSED
    assert f"none of its {PAIRS} finished pairs is in this space" in done.stderr
    assert f"{PAIRS} of them are pairs of this space made by another version of lmc-tune" in done.stderr
    assert contents(sweep.run) == before, "nothing is written"
    assert set(package.load_results(sweep.run)["key"]) == older


def test_rows_of_an_earlier_version_are_kept_and_told_and_not_mixed_with_this_ones(
    sweep: Sweep, reference: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(reference.run, sweep.run)
    older = make_older(sweep, monkeypatch, 5)
    done = lmc_tune(*sweep.arguments(), **sweep.environment)
    assert done.returncode == 0, done.stderr
    assert "5 finished pairs in this folder are not in this space" in done.stderr
    assert "5 of them are pairs of this space made by another version of lmc-tune" in done.stderr
    found, expected = rows(sweep.run), rows(reference.run)
    assert set(found["key"]) == older | set(expected["key"])
    assert found[~found["key"].isin(older)].reset_index(drop=True).equals(expected)
    state = lmc_tune_json("status", sweep.run)
    assert (state["total"], state["other_pairs"]) == (PAIRS, 5)
    page = sweep.home / "report.html"
    assert lmc_tune("report", sweep.run, "-o", page).returncode == 0
    assert f"{PAIRS} of {PAIRS} pairs finished" in page.read_text()
