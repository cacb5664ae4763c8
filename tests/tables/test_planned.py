"""Stale pairs and those that are not planned: every place that speaks of them counts the same ones."""

from dataclasses import replace
from pathlib import Path

import pytest

from lmc_tune.analysis.answer import remarks
from lmc_tune.analysis.phase import map_regions
from lmc_tune.analysis.report.content import cautions
from lmc_tune.analysis.report.render import read_sweep
from lmc_tune.errors import UserError
from lmc_tune.experiment import GroupSpec
from lmc_tune.experiment.reading import parse_space
from lmc_tune.sweeps.answers import held
from lmc_tune.sweeps.ownership import write_description
from lmc_tune.sweeps.status import read_status
from lmc_tune.tables.planned import planned_space, why_no_run
from lmc_tune.tables.rows import PairResult, failed_result
from lmc_tune.tables.store import Store, load_results
from tests.analysis.cases import ok_pair

TEXT = """
name: marked
dataset: digits
train: {epochs: 1}
axes: {batch_size: [8, 16], lr: [0.01, 0.1]}
replicates: 2
"""
BEFORE = parse_space(TEXT)
NOW = parse_space(TEXT, sets=["measure.lambdas=7"])
PAIRS = NOW.pairs()
# Pairs of another cell, and of one replicate more.
OTHERS = [PAIRS[0].model_copy(update={"replicate": 2}), PAIRS[0].model_copy(update={"seed": 9})]


def answer(pair: GroupSpec, *, stale: bool) -> PairResult:
    asked = (BEFORE if stale else NOW).measure.of(pair.model).key
    found = ok_pair(pair, hump=0.3)
    return replace(found, columns={**found.columns, "question": asked})


def folder_with(folder: Path, stale: int, fresh: int, failed: int) -> Path:
    write_description(folder, NOW, workers=1, planned_pairs=len(PAIRS))
    rows = [answer(pair, stale=True) for pair in PAIRS[:stale]]
    rows += [answer(pair, stale=False) for pair in [*PAIRS[stale : stale + fresh], *OTHERS]]
    rows += [failed_result(pair, "out of luck") for pair in PAIRS[stale + fresh : stale + fresh + failed]]
    Store(folder).write_shard("c", rows)
    return folder


@pytest.mark.parametrize(
    ("stale", "fresh", "failed"), [(0, 8, 0), (3, 4, 1), (3, 2, 0), (8, 0, 0), (7, 0, 1), (0, 3, 2), (1, 1, 0)]
)
def test_table_status_space_and_report_count_the_same_pairs(tmp_path: Path, stale: int, fresh: int, failed: int):
    folder = folder_with(tmp_path, stale, fresh, failed)
    table, state, there = load_results(folder), read_status(folder), held(NOW, folder)
    diagram = map_regions(load_results(folder), space=NOW)
    assert int(table["stale"].sum()) == state.stale == diagram.old_answers == stale
    assert (there.again.pairs if there.again else 0) == stale
    assert int((~table["planned"]).sum()) == state.other_pairs == there.others == diagram.other_pairs == len(OTHERS)
    counted = table.query("planned and not stale")
    assert len(counted) == sum(state.counts[name] for name in ("ok", "undertrained", "diverged", "failed"))
    assert len(counted) == there.finished + there.failed == fresh + failed
    assert diagram.outdated == (stale > 0 and fresh == 0)
    judged = table[table["planned"]] if diagram.outdated else counted
    assert sorted(diagram.pairs["key"]) == sorted(judged["key"])
    said = [line for line in [*remarks(diagram), *cautions(diagram, read_sweep(folder))] if "earlier `measure`" in line]
    start = "All pairs answer an" if diagram.outdated else f"Left out: {stale} finished pair"
    assert [line.startswith(start) for line in said] == [True] * bool(stale)


def test_a_space_that_is_damaged_is_named_and_columns_without_marks_need_none(tmp_path: Path):
    folder = folder_with(tmp_path, 3, 2, 0)
    text = (folder / "space.yaml").read_text()
    (folder / "space.yaml").write_text(text[: text.index("members:")])
    with pytest.raises(UserError, match=r"space\.yaml is damaged \(it is cut short: members is missing\)"):
        load_results(folder)
    assert len(load_results(folder, ["lr"])) == 3 + 2 + len(OTHERS)
    (folder / "space.yaml").unlink()
    assert planned_space(folder) is None
    assert load_results(folder)["planned"].all()


def test_what_may_be_meant_by_a_place_that_is_no_run_is_said(tmp_path: Path):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    run = folder_with(tmp_path / "runs" / "mine", 3, 2, 0)
    assert why_no_run(run / "space.yaml") == f", which is a file; the run folder is {run}"
    assert why_no_run(tmp_path / "runs") == "; it holds the runs mine"
    assert why_no_run(tmp_path / "runs" / "mien").startswith("; did you mean mine? Or start one with: lmc-tune sweep")
    (tmp_path / "file").touch()
    assert why_no_run(tmp_path / "file") == ", which is a file; name a run folder"
    nothing = tmp_path / "quite" / "elsewhere"
    assert why_no_run(nothing) == f"; start one with: lmc-tune sweep SPACE --out {nothing}"
