"""Federations in MLflow: what a run says of their rounds, and its page."""

import json
import re

import pytest

from lmc_tune.experiment import DatasetSpec, Federated, GroupSpec, MlpSpec, ShiftSpec, TrainSpec, VerdictSpec
from lmc_tune.tables.rows import PairResult, spec_columns
from lmc_tune.tables.store import Store
from lmc_tune.tables.sweep_record import SweepRecord
from lmc_tune.tracking.chart import rounds_page
from lmc_tune.tracking.content import NOTE_TAG, round_means, run_content
from lmc_tune.tracking.mirror import open_mirror
from lmc_tune.tracking.outcome import read_outcome

SPEC = GroupSpec(
    dataset=DatasetSpec(),
    model=MlpSpec(),
    train=TrainSpec(lr=0.1, batch_size=10, epochs=2),
    shift=ShiftSpec(kind="none"),
    recipe=Federated(clients=2, rounds=2, split={"dirichlet": 0.1}),
    replicate=0,
)


def scored(at: tuple[int, int, str, str], correct: int, n: int) -> dict:
    named = dict(zip(("round", "client", "what", "split"), at, strict=True))
    return {**named, "correct": correct, "n": n, "loss_sum": 1.0}


def federation(status: str = "ok") -> PairResult:
    """Clients of 30 and 10 examples."""
    rows = [
        row
        for number in (1, 2)
        for row in (
            scored((number, 1, "trained", "own"), 15, 30),
            scored((number, 2, "trained", "own"), 10, 10),
            scored((number, 1, "trained", "test"), 40 * number, 100),
            scored((number, 2, "trained", "test"), 20, 100),
            scored((number, 0, "pooled", "test"), 70, 100),
        )
    ]
    columns = {**spec_columns(SPEC), "status": status, "reason": "", "pooled_test_accuracy": 0.7}
    return PairResult(columns=columns, tables={"rounds": rows})


def test_means_over_clients_are_weighted_by_their_examples():
    """By hand: (3 · 80% + 20%) / 4 = 65%, and 25 of 40."""
    means = round_means(federation().tables["rounds"])
    assert means["trained", "test"] == pytest.approx({1: 0.35, 2: 0.65})
    assert means["trained", "own"] == pytest.approx({1: 25 / 40, 2: 25 / 40})
    assert means["pooled", "test"] == pytest.approx({1: 0.7, 2: 0.7})


def test_a_run_has_the_accuracies_of_every_round():
    content = run_content(federation(), VerdictSpec())
    by_step = {(name, step): value for name, value, step in content.metrics if name.startswith("round/")}
    assert by_step["round/trained_test_accuracy", 2] == pytest.approx(0.65)
    assert {step for _, step in by_step} == {1, 2}
    assert {name: value for name, value, _ in content.metrics}["pooled_test_accuracy"] == 0.7
    assert content.params["clients"] == "2"
    assert "b_lr" not in content.params


def test_the_page_has_a_point_for_every_round():
    page = rounds_page(federation(), "x")
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL).group(1))
    assert [[line[0] for line in panel] for panel in data] == [["trained", "pooled"], ["trained"]]
    assert data[0][0][1] == [[1, pytest.approx(35.0)], [2, pytest.approx(65.0)]]
    assert "No round was measured" in rounds_page(PairResult(columns=federation("failed").columns), "x")


def test_what_runs_say_of_a_sweep_of_federations_speaks_of_no_pair(tmp_path):
    Store(tmp_path).write_shard("one", [federation()])
    outcome = read_outcome(tmp_path, None)
    (cell,) = outcome.cells
    assert "1 of 1 finished federation ok" in cell.tags[NOTE_TAG]
    assert "a cell's federations are below it" in outcome.note
    assert "pair" not in outcome.note + cell.tags[NOTE_TAG]


def test_a_federations_run_has_the_page_of_its_rounds(tmp_path):
    Store(tmp_path).write_shard("one", [federation()])
    mirror = open_mirror(tmp_path, SweepRecord(name="clients", id="1"))
    for expected in (1, 0):
        sent = mirror.send(federation())
        assert (sent.created, sent.unchanged) == (expected, 1 - expected)
    assert [path.name for path in tmp_path.rglob("*.html")] == ["rounds.html"]
