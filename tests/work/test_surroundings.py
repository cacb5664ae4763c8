"""A pair out of a YAML space, with all that can be asked of what lies around its path."""

from pathlib import Path

import pytest

from lmc_tune.core.subspace import gaussian
from lmc_tune.experiment.reading import parse_space
from lmc_tune.measurement import directions
from lmc_tune.tables.rows import PairResult
from lmc_tune.tables.store import Store
from lmc_tune.work.bench import Workbench
from lmc_tune.work.cohort import run_pair

SPACE = """
name: s
dataset: {name: digits, train: 200, test: 70}
train: {lr: 0.1, epochs: 2}
axes: {batch_size: [10, 20]}
measure: {lambdas: 5, refinements: 0, %s}
"""
ASKED = (
    "snapshots: [0, 1], directions: {random: {draws: 2}, noise: {draws: 1}, sharpness: {examples: 50}}, "
    "planes: {points: 3}"
)


def run(asked: str, folder: Path, replicate: int = 0) -> PairResult:
    space = parse_space(SPACE % asked)
    pair = space.cells()[0].pair(replicate)
    return run_pair(pair, Workbench(store=Store(folder), data_root=folder, measure=space.measure))


def test_the_tables_come_back_from_the_store(tmp_path):
    result = run(ASKED, tmp_path)
    store = Store(tmp_path / "run")
    store.write_shard("c", [result])
    for name, kinds in (("directions", "kind"), ("sharpness", "lambda"), ("planes", "point")):
        table = store.table(name)
        assert len(table) == len(result.tables[name]) > 0
        assert set(table[kinds]) == {row[kinds] for row in result.tables[name]}
        assert (table["key"] == result.key).all()
    found = {row["kind"] for row in result.tables["directions"]}
    assert found == {"unmoved", "interpolation", "random", "towards a", "towards b", "span", "complement", "filter"}


def test_the_points_are_the_members_of_the_path(tmp_path):
    result = run(ASKED, tmp_path)
    for end, name in ((0.0, "a"), (1.0, "b")):
        for split in ("train", "test"):
            (on_path,) = [r for r in result.tables["paths"] if r["lambda"] == end and r["split"] == split]
            (unmoved,) = [
                r
                for r in result.tables["directions"]
                if r["kind"] == "unmoved" and r["lambda"] == end and r["split"] == split
            ]
            (point,) = [r for r in result.tables["planes"] if r["point"] == name and r["split"] == split]
            for row in (unmoved, point):
                assert row["loss_sum"] == pytest.approx(on_path["loss_sum"], rel=1e-5)
                assert (row["correct"], row["n"]) == (on_path["correct"], on_path["n"])


def test_every_replicate_has_seeds_of_its_own_which_other_questions_do_not_change(tmp_path, monkeypatch):
    def seeds(asked: str, replicate: int = 0) -> set[int]:
        found = set()

        def noting(n: int, norm: float, seed: int) -> object:
            found.add(seed)
            return gaussian(n, norm, seed)

        monkeypatch.setattr(directions, "gaussian", noting)
        run(asked, tmp_path, replicate)
        return found

    one, more = seeds("directions: {random: {draws: 1}}"), seeds(ASKED)
    other = seeds("directions: {random: {draws: 1}}", replicate=1)
    assert one < more
    assert len(one) == len(other) == 4
    assert not one & other


def test_what_is_drawn_does_not_change_with_other_questions(tmp_path):
    def drawn(asked: str) -> list[float]:
        rows = run(asked, tmp_path).tables["directions"]
        return [row["loss_sum"] for row in rows if row["kind"] == "random" and row["draw"] == 0]

    assert drawn(ASKED) == drawn("directions: {random: {draws: 1}}") != []


def test_nothing_is_measured_that_is_not_asked(tmp_path):
    assert not {"directions", "sharpness", "planes"} & {name for name, rows in run("", tmp_path).tables.items() if rows}
