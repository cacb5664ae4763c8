"""What a folder answers, and what asking it something else costs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lmc_tune.experiment import GroupSpec, MeasureSpec
from lmc_tune.experiment.reading import parse_space, read_space
from lmc_tune.experiment.space import SPACE_FILE
from lmc_tune.sweeps.answers import answered, asked_again, held, said_of_changes
from lmc_tune.sweeps.ownership import write_description
from lmc_tune.tables.rows import PairResult, failed_result, spec_columns
from lmc_tune.tables.store import MEMBERS, Store
from lmc_tune.tables.sweep_record import SweepRecord, fingerprint
from lmc_tune.training.checkpoint import Checkpoint
from lmc_tune.training.progress import Progress
from tests.cases import pair_of

SPACE = """
name: s
dataset: digits
train: {lr: 0.1, epochs: 2, batch_size: 32}
axes:
  model: [{hidden: [8]}, {hidden: [8], norm: batch}]
  shift: [{severity: 0.5}, {}]
replicates: 2
"""
STUDY = parse_space(SPACE)
PAIRS = STUDY.pairs()


def finished(pair: GroupSpec, seconds: float = 3.0) -> PairResult:
    question = STUDY.measure.of(pair.model).key
    return pair_of({**spec_columns(pair), "question": question, "status": "ok", "reason": "", "seconds_train": seconds})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "run")
    found.write_shard("c", [*map(finished, PAIRS[:6]), failed_result(PAIRS[6], "out of luck")])
    return found


def test_pairs_answer_what_they_were_asked_and_failed_ones_are_known(store: Store) -> None:
    known = answered(PAIRS, store.answers(), STUDY.measure)
    assert known == {**{pair.key: "ok" for pair in PAIRS[:6]}, PAIRS[6].key: "failed"}


@pytest.mark.parametrize("change", [{"lambdas": 7}, {"refinements": 0}, {"splits": ("train", "test")}])
def test_a_question_is_all_that_is_measured(store: Store, change: dict[str, object]) -> None:
    other = STUDY.measure.model_copy(update=change)
    known = answered(PAIRS, store.answers(), other)
    assert len(known) == (7 if "splits" in change else 1)  # the same splits are the same question


def test_conditions_are_asked_of_the_networks_that_have_them(store: Store) -> None:
    """A network without BatchNorm is asked the same with and without recalibration."""
    naive = MeasureSpec(conditions=("naive",))
    known = answered(PAIRS, store.answers(), naive)
    assert {pair.model.norm for pair in PAIRS if known.get(pair.key) == "ok"} == {"none"}


def test_what_is_asked_again_is_counted_with_the_members_that_were_not_kept(store: Store) -> None:
    other = MeasureSpec(lambdas=7)
    assert asked_again(PAIRS, store.answers(), store, STUDY.measure, 2) is None
    again = asked_again(PAIRS, store.answers(), store, other, 2)
    members = {member.key for pair in PAIRS[:6] for member in pair.members.values()}
    assert again is not None
    assert (again.pairs, again.members, again.lost, again.seconds) == (6, len(members), len(members), 6 * 3.0 / 2)
    assert str(again).endswith(
        f"{len(members)} of their {len(members)} members were not kept and are trained again, which takes about 9 s"
    )
    assert again.untrained == set()
    folder = store.folder / MEMBERS
    folder.mkdir()
    for key in sorted(members)[1:]:
        (folder / f"{key}.safetensors").touch()
    again = asked_again(PAIRS, store.answers(), store, other, 2)
    assert again is not None
    assert (again.lost, again.seconds) == (1, pytest.approx(9 / len(members)))
    lacking = {pair.key for pair in PAIRS[:6] if min(members) in (m.key for m in pair.members.values())}
    assert again.untrained == {pair.key for pair in PAIRS[:6]} - lacking
    assert 0 < len(lacking) < 6
    (folder / f"{min(members)}.safetensors").touch()
    again = asked_again(PAIRS, store.answers(), store, other, 2)
    assert str(again).endswith("no member is trained again")
    assert again is not None
    assert (again.untrained, again.seconds) == ({pair.key for pair in PAIRS[:6]}, 0)
    there = held(STUDY.model_copy(update={"measure": other}), store.folder)
    assert {pair.key for pair in there.left} == {pair.key for pair in PAIRS}
    told = there.plain()
    assert told["asked_again"] == {"pairs": 6, "members": len(members), "lost": 0, "seconds": 0}


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path, store: Store) -> None:
    assert (held(STUDY, tmp_path / "none").finished, held(STUDY, tmp_path / "none").again) == (0, None)
    there = held(STUDY, tmp_path / "run")
    counts = {"finished": 6, "failed": 1, "asked_again": None, "left_out": 0, "other_pairs": 0, "moved": None}
    assert there.plain() == counts
    assert [pair.key for pair in there.left] == [pair.key for pair in PAIRS[6:]]  # the failed one among them
    assert not (tmp_path / "none").exists()


def test_pairs_that_a_range_lost_to_other_steps_are_counted_with_the_steps_that_keep_them(tmp_path: Path) -> None:
    text = SPACE.replace("lr: 0.1, ", "").replace("axes:\n", "axes:\n  lr: {log: [0.01, 1], steps: 3}\n")
    before = parse_space(text)
    write_description(tmp_path, before, workers=1, planned_pairs=len(before.pairs()))
    Store(tmp_path).write_shard("c", list(map(finished, before.pairs())))
    assert held(before, tmp_path).moved == ""
    finer = held(parse_space(text, sets=["axes.lr={log: [0.01, 1], steps: 4}"]), tmp_path)
    assert (finer.finished, finer.others) == (16, 8)
    assert finer.moved.startswith("axes.lr now has 4 steps in place of 3")
    assert "steps: 5" in finer.moved
    nested = held(parse_space(text, sets=["axes.lr={log: [0.01, 1], steps: 5}"]), tmp_path)
    assert (nested.finished, nested.others, nested.moved) == (24, 0, "")
    (tmp_path / "space.yaml").write_text("name: [")  # cannot be compared with
    assert held(parse_space(text, sets=["axes.lr={log: [0.01, 1], steps: 4}"]), tmp_path).moved == ""


def test_what_an_ended_search_left_out_is_not_left_to_run(tmp_path: Path, store: Store) -> None:
    write_description(store.folder, STUDY, workers=1, planned_pairs=len(PAIRS), search="adaptive")
    record = SweepRecord.read(store.folder)
    replace(record, ended=fingerprint(STUDY)).write(store.folder)
    there = held(STUDY, store.folder)
    assert (there.finished, there.left, there.left_out) == (6, (), 2)
    more = held(STUDY.model_copy(update={"replicates": 3}), store.folder)
    assert (more.finished, len(more.left), more.left_out) == (6, 6, 0)


def test_members_kept_without_a_snapshot_count_as_lost_unless_their_training_ended_before_it(store: Store) -> None:
    folder, other = store.folder / MEMBERS, MeasureSpec(lambdas=7, snapshots=(0, 2))
    members = sorted({member.key for pair in PAIRS[:6] for member in pair.members.values()})
    short, without, *whole = members
    for key, epochs in ((short, 1), (without, 5), *((key, 5) for key in whole)):
        taken = {2: {"w": torch.ones(1)}} if key in whole else {}
        done = Progress(epochs=epochs, state={"w": torch.zeros(1)}, moments={}, curve=[], snapshots=taken)
        file = folder / f"{key}.safetensors"
        Checkpoint(path=store.checkpoints / file.name, seconds=0, kept=file).finish(done)
    again = asked_again(PAIRS, store.answers(), store, other, 2)
    assert again is not None
    assert again.lost == 1
    assert f"1 of their {len(members)} members were not kept with these snapshots" in str(again)
    lacking = {pair.key for pair in PAIRS[:6] if without in (m.key for m in pair.members.values())}
    assert again.untrained == {pair.key for pair in PAIRS[:6]} - lacking


def test_a_text_that_changed_is_named(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("0123456789" * 200)
    content = {
        "name": "language",
        "dataset": {"name": "text", "path": str(corpus), "context": 8},
        "model": {"name": "gpt", "depth": 1, "heads": 1, "dim": 8},
        "train": {"epochs": 1, "batch_size": 10},
        "axes": {"lr": [0.1]},
    }
    before = read_space(content)
    (tmp_path / SPACE_FILE).write_text(json.dumps(before.plain()))
    assert said_of_changes(before, tmp_path) == ""
    corpus.write_text("0123456789" * 199 + "9876543210")
    after = read_space(content)
    hashes = [space.pairs()[0].dataset.known.hash for space in (before, after)]
    assert said_of_changes(after, tmp_path) == f" (content of {corpus}: {hashes[0]} there, {hashes[1]} here)"
