"""What a run folder says of its sweep."""

from pathlib import Path

import pytest

from lmc_tune.tables.sweep_record import DamagedRecordError, SweepRecord


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = SweepRecord(id="1f", name="a", created="2026", planned_pairs=3, workers=2, versions={"torch": "2"})
    record.write(tmp_path)
    assert SweepRecord.read(tmp_path) == record


def test_a_folder_without_a_record_is_named_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no sweep in {tmp_path}: .*lmc-tune sweep SPACE"):
        SweepRecord.read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "a"}', '{"id": "1", "name": "a", "odd": 1}'])
def test_a_damaged_record_names_the_file_and_the_mend(tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(DamagedRecordError, match=r"sweep\.json is damaged .*restore it from a copy, or delete it"):
        SweepRecord.read(tmp_path)
