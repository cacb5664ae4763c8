"""What a run folder holds, counted as one would by hand: pair by pair, by its key."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from lmc_tune.experiment import GroupSpec, VerdictSpec
from lmc_tune.experiment.reading import parse_space
from lmc_tune.storage import FolderError
from lmc_tune.sweeps.ownership import owned, write_description
from lmc_tune.sweeps.plan import planned_steps
from lmc_tune.sweeps.status import read_status
from lmc_tune.tables.rows import PairResult, Status, pair_name, spec_columns
from lmc_tune.tables.store import MEMBERS, Store
from lmc_tune.tables.sweep_record import SweepRecord, fingerprint
from lmc_tune.training.checkpoint import Checkpoint
from lmc_tune.training.progress import Progress
from tests.sweeps.cases import PAIRS, SPACE, lmc_tune, lmc_tune_json
from tests.tracking.cases import pair_result

SPACE_HERE = parse_space(SPACE)
PLANNED = SPACE_HERE.pairs()
STATES = ("ok", "undertrained", "diverged", "failed", "ok", "ok")


def _answered(pair: GroupSpec, question: str = "", status: Status = "ok") -> PairResult:
    """A pair that has answered a question: by default, the space's."""
    found = pair_result(pair, status=status)
    return replace(found, columns={**found.columns, "question": question or SPACE_HERE.measure.of(pair.model).key})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six of the planned pairs are finished, half of them compacted; so are two others: a replicate and a cell more."""
    write_description(tmp_path, SPACE_HERE, workers=2, planned_pairs=PAIRS)
    store = Store(tmp_path)

    done = [_answered(pair, status=state) for pair, state in zip(PLANNED[3:9], STATES, strict=True)]
    others = [PLANNED[3].model_copy(update={"replicate": 2}), PLANNED[3].model_copy(update={"seed": 1})]
    store.write_shard("first", [*done[:3], *map(_answered, others)])
    store.compact(VerdictSpec(min_train_accuracy=0))
    store.write_shard("second", done[3:])
    return tmp_path


def test_planned_pairs_are_counted_by_status_and_others_apart(folder: Path):
    state = read_status(folder)
    statuses = Store(folder).statuses()
    expected = Counter(statuses.get(pair.key, "pending") for pair in PLANNED)
    assert {name: count for name, count in state.counts.items() if count} == expected
    assert (state.total, state.other_pairs) == (PAIRS, len(statuses) - 6) == (PAIRS, 2)


def test_a_pair_answers_the_question_of_its_own_network(tmp_path: Path):
    """Without BatchNorm there is nothing to recalibrate, so that networks are asked different questions."""
    text = SPACE + "verdict: {condition: naive}\n"
    text = text.replace("model: {name: mlp, hidden: [8]}\n", "").replace(
        "axes:\n", "axes:\n  model: [{name: mlp, hidden: [8], norm: batch}, {name: mlp, hidden: [8]}]\n"
    )
    before = parse_space(text.replace("measure: {", "measure: {conditions: [naive], "))
    after = parse_space(text.replace("measure: {", "measure: {conditions: [naive, recalibrated], "))
    found = [pair_result(pair) for pair in before.pairs()]
    rows = zip(found, before.pairs(), strict=True)
    Store(tmp_path).write_shard(
        "c",
        [replace(one, columns={**one.columns, "question": before.measure.of(pair.model).key}) for one, pair in rows],
    )
    write_description(tmp_path, after, workers=1, planned_pairs=2 * PAIRS)
    assert read_status(tmp_path).counts["pending"] == PAIRS


def test_a_failed_pair_is_named_with_its_key_and_the_last_line_of_its_traceback(folder: Path):
    (failure,) = read_status(folder).failures
    spec = PLANNED[3 + STATES.index("failed")]
    assert (failure.key, failure.reason) == (spec.key, "Traceback")
    assert failure.what == pair_name(spec_columns(spec))


def test_what_is_left_takes_as_long_per_step_as_what_is_done(folder: Path):
    results = Store(folder).results()
    mine = results[results["key"].isin([pair.key for pair in PLANNED])]
    seconds = (mine["seconds_train"] + mine["seconds_measure"]).sum() / mine["steps"].sum()
    left = sum(planned_steps(pair) for pair in PLANNED if pair.key not in set(mine["key"]))
    assert left > 0
    assert read_status(folder).seconds_left == pytest.approx(seconds * left / 2)


@pytest.mark.parametrize("finished", [0, PAIRS // 2, PAIRS - 2, PAIRS])
def test_pairs_whose_members_are_kept_take_as_long_as_others_took_to_measure(tmp_path: Path, finished: int):
    """All have been trained, in 1.5 s each, and are asked something else; some have answered that, in 0.25 s each."""
    write_description(tmp_path, SPACE_HERE, workers=2, planned_pairs=PAIRS)
    store = Store(tmp_path)
    if finished:
        store.write_shard("new", [_answered(pair) for pair in PLANNED[:finished]])
    if finished < PAIRS:
        store.write_shard("old", [_answered(pair, "another") for pair in PLANNED[finished:]])
    _keep(tmp_path, *PLANNED)
    assert read_status(tmp_path).seconds_left == pytest.approx((PAIRS - finished) * 0.25 / 2)


def test_pairs_without_their_members_are_trained_again_in_the_time_left(folder: Path):
    """Of three pairs with another answer one has kept both members, one has kept A, and one has kept none."""
    Store(folder).write_shard("old", [_answered(pair, "another") for pair in PLANNED[9:12]])
    _keep(folder, PLANNED[9])
    (folder / MEMBERS / f"{PLANNED[10].members['a'].key}.safetensors").touch()
    left = sum(map(planned_steps, [*PLANNED[:3], *PLANNED[10:]]))  # PLANNED[3:9] are finished, 380 steps each
    assert read_status(folder).seconds_left == pytest.approx(((1.5 + 0.25) / 380 * left + 0.25) / 2)


def _keep(folder: Path, *pairs: GroupSpec) -> None:
    """Files with the names of the pairs' members, where they are kept."""
    (folder / MEMBERS).mkdir()
    for pair in pairs:
        for member in pair.members.values():
            (folder / MEMBERS / f"{member.key}.safetensors").touch()


def test_pairs_are_running_only_while_somebody_holds_the_folder(folder: Path):
    Store(folder).mark_running("third", [pair.key for pair in PLANNED[8:11]])  # the first of them is finished
    assert read_status(folder).counts["running"] == 0
    with owned(folder):
        counts = read_status(folder).counts
    assert (counts["running"], counts["pending"]) == (2, PAIRS - 6 - 2)


def test_networks_of_unfinished_pairs_that_have_a_checkpoint_are_counted(folder: Path):
    for member in PLANNED[0].members.values():
        kept = Checkpoint(path=Store(folder).checkpoints / f"{member.key}.safetensors", seconds=0)
        kept.offer(lambda: Progress(epochs=1, state={}, moments={}, curve=[]))
    assert read_status(folder).checkpoints == 2
    told = lmc_tune("status", folder).stdout
    assert f"\nwhole tracebacks: the column 'reason' of lmc_tune.load_results({str(folder)!r})\n" in told
    assert "\n2 networks of unfinished pairs have a checkpoint to resume from\n" in told
    assert lmc_tune_json("status", folder)["checkpoints"] == 2


def test_a_folder_without_a_sweep_is_told_so(tmp_path: Path):
    with pytest.raises(FolderError, match=rf"no sweep in {tmp_path}.*tart one with: lmc-tune sweep SPACE --out"):
        read_status(tmp_path)


def test_what_an_ended_search_left_out_is_not_pending(folder: Path):
    """Until the space or the search changes."""
    record = SweepRecord.read(folder)
    replace(record, ended=fingerprint(SPACE_HERE)).write(folder)
    state = read_status(folder)
    assert state.counts | {"pending": 0, "left_out": PAIRS - 6} == state.counts
    assert (state.seconds_left, state.total) == (0, PAIRS)
    assert not state.complete  # a pair has failed
    assert f"   left out  {PAIRS - 6}\n" in lmc_tune("status", folder).stdout
    write_description(folder, SPACE_HERE, workers=2, planned_pairs=PAIRS)
    assert read_status(folder).counts["pending"] == 0
    write_description(folder, SPACE_HERE, workers=2, planned_pairs=PAIRS, search="adaptive")
    assert read_status(folder).counts["pending"] == PAIRS - 6
    replace(SweepRecord.read(folder), ended=fingerprint(SPACE_HERE)).write(folder)
    more = SPACE_HERE.model_copy(update={"replicates": 3})
    write_description(folder, more, workers=2, planned_pairs=24, search="adaptive")
    assert read_status(folder).counts["left_out"] == 0


def test_status_says_what_has_come_out_so_far_and_what_to_do(folder: Path):
    told = lmc_tune("status", folder)
    assert told.returncode == 0, told.stderr
    assert re.search(r"^\d of 8 cells have been run: .*undecided", told.stdout, re.MULTILINE)
    assert "\nlearning rate  0.01 0.1      0.01 0.1\n" in told.stdout
    assert (
        f"pairs left: this resumes the sweep:\n    python -m lmc_tune sweep {folder}/space.yaml --out {folder}\n"
        in told.stdout
    )
    assert f"the report:\n    python -m lmc_tune report {folder}\n" in told.stdout
    found = lmc_tune_json("status", folder)
    assert sum(found["verdicts"].values()) == 8
    assert len(found["cells"]) == 8 - found["verdicts"]["not_run"]
    assert found["answer"] in told.stdout


def test_before_the_first_pair_there_is_no_answer(tmp_path: Path):
    write_description(tmp_path, SPACE_HERE, workers=2, planned_pairs=PAIRS)
    found = lmc_tune_json("status", tmp_path)
    assert (found["answer"], found["verdicts"], found["cells"]) == (None, {}, [])
