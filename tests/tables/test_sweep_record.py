"""What a run folder says of its sweep."""

from pathlib import Path

import pytest

from lmc_tune.experiment.reading import parse_space, read_space
from lmc_tune.experiment.yaml_lines import dump
from lmc_tune.tables.sweep_record import DamagedRecordError, SweepRecord, fingerprint


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


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("name=other", True),
        ("members=drop", True),
        ("replicates=6", False),
        ("axes.lr=[0.01, 0.1]", False),
        ("train.momentum=0.5", False),
        ("measure.lambdas=51", False),
        ("verdict.threshold=0.05", False),
        ("seed=1", False),
    ],
)
def test_a_search_that_has_ended_begins_again_with_what_it_depends_on(change: str, same: bool) -> None:  # noqa: FBT001
    space = read_space("quickstart")
    record = SweepRecord(id="1", name="a", ended=fingerprint(space))
    assert record.has_ended(space)
    assert record.has_ended(read_space("quickstart", [change])) == same
    assert not SweepRecord(id="1", name="a").has_ended(space)


def test_a_space_that_was_written_and_read_is_the_same_to_a_search() -> None:
    space = read_space("quickstart")
    assert fingerprint(parse_space(dump(space.plain()))) == fingerprint(space)
