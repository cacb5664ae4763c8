"""The record is what its tables say."""

import re
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from lmc_tune.analysis.reproduction import page as page_module
from lmc_tune.analysis.reproduction.claims import CLAIMS
from lmc_tune.analysis.reproduction.outcomes import read_outcomes, record_outcomes
from lmc_tune.analysis.reproduction.page import PAGE, TABLES, main, reproduction_page
from lmc_tune.analysis.reproduction.protocols import PROTOCOLS
from lmc_tune.analysis.reproduction.runs import GATES, SMALL, Run, claims_of, outcomes_of, preset_with, read_runs, take
from lmc_tune.errors import UserError
from lmc_tune.experiment.reading import read_space
from lmc_tune.tables.sweep_record import SweepRecord
from tests.analysis.cases import grid, measured_pair, write_run

BY_ID = {claim.id: claim for claim in CLAIMS}
BY_PROTOCOL = {protocol.id: protocol for protocol in PROTOCOLS}
COMMITTED = TABLES / "shift_ensemble_spawn_small"


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    return read_runs(TABLES)


def test_the_committed_page_is_the_one_of_the_committed_tables(runs):
    assert PAGE.read_text(encoding="utf-8") == reproduction_page(runs, read_outcomes(TABLES))


def test_the_last_outcomes_recorded_are_those_of_the_committed_tables(runs):
    last = {(one.claim, one.study): one.outcome for one in read_outcomes(TABLES)}
    assert last == outcomes_of(runs)
    assert {claim for claim, _ in last} == {claim.id for claim in CLAIMS if f"{claim.preset}{SMALL}" in runs}


def test_a_claim_is_read_at_its_own_gate_and_at_lower_ones(runs):
    for run in runs.values():
        own = run.space.verdict.min_train_accuracy
        of_text = run.study.pairs["tokens"].notna().all()
        assert {gate: study.verdict.min_train_accuracy for gate, study in run.studies.items()} == {
            gate: gate for gate in ({own} if of_text else {*GATES, own})
        }
        assert run.study is run.studies[own]
        n_ok = [int((study.pairs["status"] == "ok").sum()) for _, study in sorted(run.studies.items())]
        assert n_ok == sorted(n_ok, reverse=True)


def test_claims_without_tables_are_not_run(tmp_path):
    page = reproduction_page(read_runs(tmp_path), read_outcomes(tmp_path))
    for claim in CLAIMS:
        medium = "**not run**" if claim.id in BY_PROTOCOL else "none"
        unrun = f"**not run** | {medium} | **not run** | none |"
        assert f"| [{claim.id}](#{claim.id.lower()}) | {claim.text} | {unrun}" in page
    assert f"### {CLAIMS[0].preset}_small\n\nNot run." in page


def test_every_committed_table_is_a_finished_sweep_of_its_preset(runs):
    for name, run in runs.items():
        assert run.space.model_copy(update={"members": "auto"}) == preset_with(name, run.space.texts)
        assert len(run.study.pairs) == len(run.space.pairs()) == run.record.planned_pairs


def test_a_finished_sweep_of_a_preset_is_taken(tmp_path):
    take(COMMITTED, tmp_path)
    page = reproduction_page(read_runs(tmp_path), [])
    assert f"`{COMMITTED.name}`: not run" not in page
    assert f"### {COMMITTED.name}\n\nNot run." not in page
    assert {file.name for file in (tmp_path / COMMITTED.name).iterdir()} == {file.name for file in COMMITTED.iterdir()}


def test_of_a_text_the_record_has_the_name_and_not_the_folder(tmp_path, monkeypatch):
    (tmp_path / "corpus.txt").write_text("In the beginning was the word, and a line of it has many.\n" * 40_000)
    monkeypatch.chdir(tmp_path)
    name = "layers_gpt_small"
    space = read_space(name)
    run, tables = write_run(tmp_path / "run", space.pairs(), measured_pair, name, space), tmp_path / "tables"
    assert str(tmp_path) in (run / "space.yaml").read_text()
    take(run, tables)
    (tmp_path / "corpus.txt").unlink()
    for file in (tables / name).iterdir():
        assert str(tmp_path).encode() not in file.read_bytes()
    results = pd.read_parquet(tables / name / "results.parquet")
    assert set(results["path"]) == {"corpus.txt"}
    assert str(tmp_path) not in results.to_csv()
    (taken,) = read_runs(tables).values()
    assert taken.space == preset_with(name, taken.space.texts)
    assert list(taken.studies) == [space.verdict.min_train_accuracy]


def test_earlier_outcomes_are_kept_and_a_change_says_why(tmp_path):
    first = {("R1", "depth"): "supported", ("R2", "depth"): "undecided"}
    with pytest.raises(UserError, match=r"\(R1 by depth is supported; R2 by depth is undecided\); say what changed"):
        record_outcomes(tmp_path, first, "")
    assert read_outcomes(tmp_path) == []
    record_outcomes(tmp_path, first, 'First, "small"\ntables.')
    assert (
        record_outcomes(tmp_path, first, "") == record_outcomes(tmp_path, first, "Nothing.") == read_outcomes(tmp_path)
    )
    record_outcomes(tmp_path, {**first, ("R2", "depth"): "contradicted"}, "More replicates.")
    record_outcomes(tmp_path, {("R2", "depth"): "undecided"}, "A gate.")
    found = read_outcomes(tmp_path)
    assert [(one.claim, one.outcome, one.why) for one in found] == [
        ("R1", "supported", 'First, "small"\ntables.'),
        ("R2", "undecided", 'First, "small"\ntables.'),
        ("R2", "contradicted", "More replicates."),
        ("R2", "undecided", "A gate."),
    ]
    assert {one.study for one in found} == {"depth"}
    day = re.compile(r"\d{4}-\d{2}-\d{2}")
    assert all(day.fullmatch(one.date) for one in found)
    small = BY_ID["R2"].preset + SMALL
    recorded = [
        replace(one, study=small, date=date)
        for one, date in zip(found[1:], ("2026-01-01", "2026-01-02", "2026-01-02"), strict=True)
    ]
    page = reproduction_page({}, recorded)
    assert "| **not run** | **not run** | **not run** | 2026-01-02 contradicted; 2026-01-01 undecided |" in page


def test_a_medium_twin_is_read_by_its_protocols(tmp_path):
    name = "shift_overfitting_fig5_medium"
    space = read_space(name)
    tables = tmp_path / "tables"
    take(write_run(tmp_path / "run", space.pairs(), measured_pair, name, space), tables)
    runs = read_runs(tables)
    (claim,) = runs[name].claims.values()
    assert (claim.id, claim.preset, claim.reading) == ("R3", name, BY_PROTOCOL["R3"].reading)
    assert outcomes_of(runs).keys() == {("R3", name)}
    page = reproduction_page(runs, [])
    short = next(line for line in page.splitlines() if line.startswith("| [R3](#r3) |"))
    gate = space.verdict.min_train_accuracy
    reading = runs[name].readings["R3"][gate]
    decided = claim.deciding(reading)
    assert decided is not None
    assert (
        f"| **not run** | **{claim.outcome(reading)}** by 40 pairs, 5000 training examples; {decided.what}: " in short
    )
    assert f"; {decided.what}: {decided.words(reading.confidence)}, n = {len(decided.known)}" in short
    section = page[page.index("### R3") : page.index("### R4")]
    assert "by 40 pairs, 5000 training examples. [Protocol](protocols.md#r3): At fixed cells" in section.replace(
        "\n", " "
    )
    for expectation in reading.expectations:
        assert f"| {expectation.what} | " in section
        assert f" | {expectation.open_words(reading.confidence)} | " in section
    assert "### shift_overfitting_fig5_medium\n\n40 pairs in 4 cells" in page


def test_a_preset_and_its_small_twin_have_one_rule_and_the_medium_twin_has_its_own():
    assert claims_of("shift_depth_fig4_medium") == [BY_PROTOCOL[one] for one in ("R1", "R2", "R4")]
    assert claims_of("shift_depth_fig4_small") == claims_of("shift_depth_fig4") == [BY_ID[f"R{n}"] for n in (1, 2, 4)]


def test_the_page_is_written_from_the_tables_at_hand_in_one_call(tmp_path, monkeypatch, capsys):
    tables, written = tmp_path / "tables", tmp_path / "page.md"
    shutil.copytree(COMMITTED, tables / COMMITTED.name)
    monkeypatch.setattr(page_module, "TABLES", tables)
    monkeypatch.setattr(page_module, "PAGE", written)
    monkeypatch.setattr("sys.argv", ["reproduction"])
    with pytest.raises(SystemExit, match="say what changed with --why TEXT"):
        main()
    assert not written.exists()
    monkeypatch.setattr("sys.argv", ["reproduction", "--why", "A test."])
    main()
    assert capsys.readouterr().out == f"{written}\n"
    mine = {(one.claim, one.study): one for one in read_outcomes(tables)}
    assert mine.keys() == {of for of in outcomes_of(read_runs(tables)) if of[1] == COMMITTED.name}
    assert {one.why for one in mine.values()} == {"A test."}
    assert written.read_text(encoding="utf-8") == reproduction_page(read_runs(tables), read_outcomes(tables))


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
    shutil.copytree(COMMITTED, unfinished)
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
