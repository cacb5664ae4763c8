"""The record is what its tables say."""

import shutil

import pytest

from lmc_tune.analysis.reproduction.claims import CLAIMS
from lmc_tune.analysis.reproduction.page import PAGE, TABLES, Run, reproduction_page, take
from lmc_tune.errors import UserError
from lmc_tune.experiment.reading import read_space
from lmc_tune.tables.sweep_record import SweepRecord
from tests.analysis.cases import grid, write_run


def test_the_committed_page_is_the_one_of_the_committed_tables():
    assert PAGE.read_text(encoding="utf-8") == reproduction_page(TABLES)


def test_claims_without_tables_are_not_run(tmp_path):
    page = reproduction_page(tmp_path)
    for claim in CLAIMS:
        assert f"| [{claim.id}](#{claim.id.lower()}) | {claim.text} | **not run** | **not run** |" in page
    assert f"### {CLAIMS[0].preset}_small\n\nNot run." in page


def test_every_committed_table_is_a_finished_sweep_of_its_preset():
    for folder in TABLES.iterdir():
        run = Run.read(folder)
        assert run.space.model_copy(update={"members": "auto"}) == read_space(folder.name)
        assert len(run.study.pairs) == len(run.space.pairs()) == run.record.planned_pairs


def test_a_finished_sweep_of_a_preset_is_taken(tmp_path):
    committed = next(TABLES.iterdir())
    take(committed, tmp_path)
    page = reproduction_page(tmp_path)
    assert f"`{committed.name}`: not run" not in page
    assert f"### {committed.name}\n\nNot run." not in page
    assert {file.name for file in (tmp_path / committed.name).iterdir()} == {file.name for file in committed.iterdir()}


def test_what_is_no_finished_sweep_of_a_preset_is_refused(tmp_path):
    with pytest.raises(UserError, match="no finished sweep"):
        take(tmp_path, tmp_path / "tables")
    mine = write_run(tmp_path / "mine", grid(), name="mine")
    (mine / "curves.parquet").touch()
    with pytest.raises(UserError, match="mine, which is not a preset"):
        take(mine, tmp_path / "tables")
    other = write_run(tmp_path / "other", grid(), name="quickstart")
    with pytest.raises(UserError, match="a changed quickstart"):
        take(other, tmp_path / "tables")
    unfinished = tmp_path / "unfinished"
    shutil.copytree(next(TABLES.iterdir()), unfinished)
    planned = SweepRecord.read(unfinished).planned_pairs
    record = (unfinished / "sweep.json").read_text()
    (unfinished / "sweep.json").write_text(
        record.replace(f'"planned_pairs": {planned}', f'"planned_pairs": {planned + 1}')
    )
    with pytest.raises(
        UserError, match=rf"{planned} of {planned + 1} pairs; finish it first: lmc-tune sweep \w+_small"
    ):
        take(unfinished, tmp_path / "tables")
    assert not (tmp_path / "tables").exists()
