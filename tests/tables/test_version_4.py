"""A folder of schema version 4, written before members had keys of their own: eight pairs of perceptrons on digits."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmc_tune import load_results
from lmc_tune.experiment import MeasureSpec, VerdictSpec, condition_column, measuring
from lmc_tune.experiment.reading import parse_space
from lmc_tune.experiment.space import SPACE_FILE
from lmc_tune.tables.columns import BARRIERS, TABLES
from lmc_tune.tables.store import Store
from tests.sweeps.cases import lmc_tune, lmc_tune_json

OLD = Path(__file__).parent / "version_4"
PAIRS = 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def stored(name: str) -> pd.DataFrame:
    return pq.read_table(OLD / f"{name}.parquet").to_pandas()


def planned() -> dict[str, str]:
    """The question by the key of every pair, as they are today."""
    space = parse_space((OLD / SPACE_FILE).read_text())
    return {pair.key: space.measure.of(pair.model).key for pair in space.pairs()}


def test_its_pairs_have_today_s_keys_and_answer_what_they_were_asked(folder: Path) -> None:
    assert "question" not in stored("results")
    answers = Store(folder).answers()
    assert {key: question for key, (_, question) in answers.items()} == planned()
    assert not set(answers) & set(stored("results")["key"])


@pytest.mark.parametrize("name", ["results", "paths", "curves", "layers"])
def test_nothing_but_keys_is_read_otherwise_than_it_was_written(folder: Path, name: str) -> None:
    old, new = stored(name), Store(folder).table(name)
    assert len(old) == len(new) > 0
    columns = [column for column in old if column not in ("key", "cell", "spec")]
    order = ["model", "norm", "shift", "replicate"] if name == "results" else columns
    old, new = (table.sort_values(order).reset_index(drop=True)[columns] for table in (old, new))
    pd.testing.assert_frame_equal(old, new)


def test_pairs_keep_their_points(folder: Path) -> None:
    results, paths = stored("results"), stored("paths")
    for result in Store(folder).recall("", planned()).values():
        row = result.row
        match = results[(results["test_loss_a"] == row["test_loss_a"]) & (results["shift"] == row["shift"])]
        assert len(match) == 1
        own = paths[paths["key"] == match["key"].iloc[0]]
        assert sorted(point["loss_sum"] for point in result.tables["paths"]) == sorted(own["loss_sum"])
        assert row["member_a"] != row["member_b"]


def asked(spec: str, **question: object) -> str:
    content = json.loads(spec)
    return json.dumps({**content, "measure": {**content["measure"], **question}})


@pytest.mark.parametrize(("examples", "same"), [(200, True), (512, True), (1000, False), (1024, True)])
def test_what_was_estimated_on_fewer_examples_answers_another_question(
    folder: Path, examples: int, *, same: bool
) -> None:
    """What was left of whole batches of 512 was not looked at, when statistics were estimated."""
    table = pq.read_table(folder / "results.parquet").to_pandas()
    measure = MeasureSpec(lambdas=5, conditions=("naive", "recalibrated"))
    for norm in ("none", "batch"):
        rows = table["norm"] == norm
        contents = [json.loads(spec) for spec in table["spec"][rows]]
        for content in contents:
            content["dataset"]["train"] = examples
            content["measure"] = measure.model_dump(mode="json") | ({"conditions": ["naive"]} if norm == "none" else {})
        table.loc[rows, "spec"] = [json.dumps(content) for content in contents]
    table.to_parquet(folder / "results.parquet")
    rows = Store(folder).results(["norm", "question"]).set_index("norm")["question"]
    assert set(rows["none"]) == {measure.model_copy(update={"conditions": ("naive",)}).key}
    assert (set(rows["batch"]) == {measure.key}) == same


def test_what_they_answer_does_not_change_with_later_versions_of_the_questions(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Store(folder).answers()
    monkeypatch.setattr(measuring, "MEASURE_VERSION", measuring.MEASURE_VERSION + 1)
    assert Store(folder).answers() == before
    assert {key: question for key, (_, question) in before.items()} != planned()


def test_of_a_pair_that_was_asked_twice_the_last_row_is_left(folder: Path) -> None:
    results, paths = (pq.read_table(folder / f"{name}.parquet") for name in ("results", "paths"))
    row, key = results.slice(0, 1).to_pylist()[0], "f" * 24
    points = [{**point, "key": key} for point in paths.to_pylist() if point["key"] == row["key"]]
    for name, table, more in (
        ("results", results, [{**row, "key": key, "spec": asked(row["spec"], lambdas=7)}]),
        ("paths", paths, points),
    ):
        pq.write_table(
            pa.concat_tables([table, pa.Table.from_pylist(more, schema=table.schema)]), folder / f"{name}.parquet"
        )
    before = stored("paths")
    for _ in range(2):
        store = Store(folder)
        assert len(store.results()) == PAIRS
        assert len(store.table("paths")) == len(before)
        assert sum(len(part) for part in store.parts("paths")) >= len(before)
        assert sum(len(pair.tables["paths"]) for pair in store.pairs(planned())) == len(before)
        assert sorted(question for _, question in store.answers().values()) != sorted(planned().values())
        store.compact(VerdictSpec())


def test_it_is_reported_as_it_is(folder: Path) -> None:
    before = (folder / "results.parquet").read_bytes()
    assert lmc_tune_json("status", folder)["counts"]["pending"] == 0
    done = lmc_tune("report", folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "report.html").exists()
    assert (folder / "results.parquet").read_bytes() == before


@pytest.mark.slow
def test_it_is_continued_and_no_pair_trained_again(folder: Path) -> None:
    space = folder / SPACE_FILE
    before = load_results(folder)
    outcome = lmc_tune_json("sweep", space, "--out", folder, "--no-report")
    assert outcome["trained"] == 0
    assert "question" in pq.read_schema(folder / "results.parquet").names
    pd.testing.assert_frame_equal(load_results(folder), before)
    outcome = lmc_tune_json("sweep", space, "--out", folder, "--no-report", "--set", "replicates=3")
    assert outcome["trained"] == PAIRS // 2
    assert sum(outcome["counts"].values()) == PAIRS + PAIRS // 2


@pytest.mark.slow
def test_its_pairs_are_trained_again_for_another_question_and_that_is_said(folder: Path) -> None:
    done = lmc_tune("sweep", folder / SPACE_FILE, "--out", folder, "--no-report", "--set", "measure.lambdas=7")
    assert done.returncode == 0, done.stderr
    assert f"{PAIRS} pairs trained in this call" in done.stderr
    assert f"{PAIRS} finished pairs are measured again" in done.stderr
    assert "members were not kept and are trained again" in done.stderr
    results, old = load_results(folder), stored("results")
    assert sorted(results["train_loss_b"]) == sorted(old["train_loss_b"])
    assert set(Store(folder).table("paths")["lambda"]) >= {1 / 6, 5 / 6}


def test_uncompacted_pairs_of_a_killed_sweep_are_read_too(folder: Path, tmp_path: Path) -> None:
    """Their shards had the barriers in columns, as the results had them."""
    others = {name: stored(name).groupby("key") for name in ("paths", "curves", "layers")}
    results = pq.read_table(OLD / "results.parquet")
    (tmp_path / "new" / "shards").mkdir(parents=True)
    for number, row in enumerate(results.to_pylist()):
        of_pair = {
            name: [table.get_group(row["key"]).drop(columns="key").to_dict("records")] for name, table in others.items()
        }
        shard = results.slice(number, 1)
        for name, rows in of_pair.items():
            shard = shard.append_column(name, pa.array(rows))
        with pa.ipc.new_file(tmp_path / "new" / "shards" / f"c{number}.arrow", shard.schema) as file:
            file.write_table(shard)
    old, new = Store(folder), Store(tmp_path / "new")
    new.check()
    assert {key: question for key, (_, question) in new.answers().items()} == planned()
    for compacted in (False, True):
        for name in TABLES:
            pd.testing.assert_frame_equal(new.table(name), old.table(name))
        if not compacted:
            new.compact(VerdictSpec())


def test_their_barriers_are_read_off_the_results(folder: Path) -> None:
    results, barriers = Store(folder).table("results").set_index("key"), Store(folder).table("barriers")
    assert set(barriers["condition"]) == {"naive", "recalibrated"}
    for row in barriers.to_dict("records"):
        for column in BARRIERS.schema.names[2:]:
            value = results.loc[row["key"], condition_column(row["condition"], column)]
            assert value == row[column] or (pd.isna(value) and pd.isna(row[column]))
    parts = pd.concat(part.to_pandas() for part in Store(folder).parts("barriers"))
    pd.testing.assert_frame_equal(parts.reset_index(drop=True), barriers)
    of_pairs = {result.key: result.tables["barriers"] for result in Store(folder).pairs(planned())}
    assert sum(map(len, of_pairs.values())) == len(barriers) > PAIRS
    Store(folder).compact(VerdictSpec())
    pd.testing.assert_frame_equal(Store(folder).table("barriers"), barriers)
