"""The rounds of federations in the report: numbers by hand, and what is drawn."""

import re
from typing import Any

import pandas as pd
import pytest

from lmc_tune.analysis.phase import map_regions
from lmc_tune.analysis.report import render
from lmc_tune.analysis.report import sections as own_sections
from lmc_tune.analysis.report.charts.rounds import collect_rounds, excess_loss
from lmc_tune.analysis.report.section import Context, find_sections
from lmc_tune.analysis.report.sections import federation
from lmc_tune.experiment.reading import read_space
from lmc_tune.experiment.yaml_lines import dump
from lmc_tune.tables.cells import regate
from lmc_tune.tables.rows import PairResult, spec_columns
from lmc_tune.tables.store import Store, load_results

SPACE = {
    "name": "clients",
    "dataset": {"train": 400, "test": 100},
    "train": {"batch_size": 10, "lr": 0.1},
    "federated": {"clients": 2, "rounds": 2},
    "axes": {"federated.split": ["iid", {"dirichlet": 0.1}], "federated.average": ["all", "none"]},
    "replicates": 2,
}


def row(of: tuple[int, int, str, str], correct: int, n: int, loss: float = 1.0) -> dict[str, Any]:
    scored = {"loss_sum": loss * n, "correct": correct, "n": n}
    return dict(zip(("round", "client", "what", "split"), of, strict=True)) | scored


def rounds(lucky: int) -> list[dict[str, Any]]:
    """Two rounds of two clients, of 30 and 10 examples; the second round's first client has ``lucky`` right of 30."""
    return [
        *(row((1, client, what, "test"), 50, 100) for client in (1, 2) for what in ("trained", "averaged")),
        *(row((1, client, what, "own"), 6, n) for client, n in ((1, 30), (2, 10)) for what in ("trained", "averaged")),
        row((1, 0, "pooled", "test"), 50, 100),
        row((2, 1, "trained", "test"), 80, 100, loss=0.4),
        row((2, 2, "trained", "test"), 40, 100, loss=0.8),
        row((2, 1, "trained", "own"), lucky, 30),
        row((2, 2, "trained", "own"), 10, 10),
        row((2, 0, "pooled", "test"), 90, 100, loss=0.3),
    ]


def result(pair, status: str = "ok") -> PairResult:
    barriers = {"condition": "naive", "test_error_barrier_chord": 0.0}
    columns = {**spec_columns(pair), "status": status, "reason": "", "lowest_own_accuracy": 0.9}
    lucky = 15 if pair.replicate == 0 else 21
    return PairResult(columns=columns, tables={"barriers": [barriers], "rounds": rounds(lucky)})


@pytest.fixture
def folder(tmp_path):
    space = read_space(SPACE)
    Store(tmp_path).write_shard("example", [result(pair) for pair in space.pairs()])
    return tmp_path


@pytest.fixture
def table(folder) -> pd.DataFrame:
    pairs = regate(load_results(folder), read_space(SPACE).verdict)
    return collect_rounds(pairs, Store(folder).parts("rounds"))


def of(table: pd.DataFrame, number: int, what: str, split: str) -> pd.Series:
    cell = table["cell"].iloc[0]
    at = (table["cell"] == cell) & (table["round"] == number) & (table["what"] == what) & (table["split"] == split)
    (found,) = table[at].to_dict("records")
    return pd.Series(found)


def test_means_over_clients_are_weighted_by_their_examples_and_then_means_over_federations(table):
    """By hand: (30 · 80% + 10 · 40%) / 40 = 70%; on their own (15 + 10)/40 and (21 + 10)/40, mean 70%."""
    tested, own = of(table, 2, "trained", "test"), of(table, 2, "trained", "own")
    assert tested[["accuracy", "lowest", "highest", "loss"]].tolist() == pytest.approx([0.7, 0.4, 0.8, 0.5])
    assert own[["accuracy", "lowest", "highest"]].tolist() == pytest.approx([0.7, (0.5 + 0.7) / 2, 1.0])
    assert tested["n"] == 2


def test_the_excess_is_that_of_the_average_over_the_clients_mean_loss(table):
    excess = excess_loss(table)
    assert excess.loc[excess["round"] == 2, "excess"].tolist() == pytest.approx([0.3 - 0.5] * 4)
    assert excess.loc[excess["round"] == 1, "excess"].tolist() == pytest.approx([0.0] * 4)


def test_failed_and_undertrained_federations_are_left_out(tmp_path):
    space = read_space(SPACE)
    store = Store(tmp_path)
    store.write_shard("bad", [result(pair, "diverged") for pair in space.pairs()])
    assert collect_rounds(regate(load_results(tmp_path), space.verdict), store.parts("rounds")).empty


def test_a_report_of_federations_speaks_of_no_pair(folder):
    space, failed = read_space(SPACE), read_space(SPACE, ["replicates=3"]).pairs()[-1]
    Store(folder).write_shard("failed", [result(failed, "failed")])
    (folder / "space.yaml").write_text(dump(space.plain()))
    (page,) = render(folder)
    text = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page.read_text(), flags=re.DOTALL)
    assert "8 of 8 federations finished" in text
    assert "2 federations per cell" in text
    assert "Left out: 1 finished federation in this folder that space.yaml does not plan." in text
    assert "at least half of the finished federations are left out, most often because a client stayed below" in text
    assert not re.search(r"\bpairs?\b", text)


def test_the_section_names_every_cell_by_what_tells_it_from_the_others(folder):
    space, store = read_space(SPACE), Store(folder)
    diagram = map_regions(load_results(folder), space=space)
    context = Context.of(diagram, space, store, find_sections(own_sections), diagram.cells["cell"].iloc[0])
    section = federation.make(context)
    assert section is not None
    assert sorted(section.table["panel"]) == sorted(
        f"{split} · averaged: {layers}" for split in ("iid", "dirichlet 0.1") for layers in ("all", "none")
    )
    assert set(section.table["clients on test, trained"]) == {"70.0% (40.0 to 80.0%)"}
    assert set(section.table["average of all layers"]) == {"90.0%"}
    assert set(section.table["excess loss (nats)"]) == {"−0.200"}
    assert set(section.table["averaged"]) == {"–"}  # of no client after the average is a score known


def test_a_report_of_federations_speaks_of_clients(folder):
    (file,) = render(folder, formats=["html"])
    text = file.read_text()
    assert "federations of clients, each trained on its own part" in text
    assert "test accuracy A, B" not in text
    assert "paths.parquet is not in the folder" not in text


def test_a_run_of_pairs_has_no_such_section(tmp_path):
    space = read_space("quickstart", ["axes.batch_size=[32]", "axes.lr=[0.01, 0.1]", "replicates=1"])
    results = [
        PairResult(columns={**spec_columns(p), "status": "ok", "train_accuracy_a": 1.0, "train_accuracy_b": 1.0})
        for p in space.pairs()
    ]
    Store(tmp_path).write_shard("pairs", results)
    diagram = map_regions(load_results(tmp_path), space=space)
    assert not diagram.federated
    assert federation.make(Context.of(diagram, space, Store(tmp_path), [], diagram.cells["cell"].iloc[0])) is None
