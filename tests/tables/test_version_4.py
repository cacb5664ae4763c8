"""A folder of schema version 4, written before members had keys of their own: eight pairs of perceptrons on digits."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmc_tune import load_results
from lmc_tune.experiment import MeasureSpec, VerdictSpec
from lmc_tune.experiment.reading import parse_space
from lmc_tune.experiment.space import SPACE_FILE
from lmc_tune.tables.rows import PairResult
from lmc_tune.tables.store import Store
from tests.sweep.cases import lmc_tune, lmc_tune_json

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
    old, new = stored(name), getattr(Store(folder), name)()
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
        assert sorted(point["loss_sum"] for point in result.paths) == sorted(own["loss_sum"])
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
        assert len(store.paths()) == len(before)
        assert sum(len(part) for part in store.parts("paths")) >= len(before)
        assert sum(len(pair.paths) for pair in store.pairs(planned())) == len(before)
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
    assert f"{PAIRS} finished pairs are measured again" in done.stderr
    assert "members were not kept and are trained again" in done.stderr
    results, old = load_results(folder), stored("results")
    assert sorted(results["train_loss_b"]) == sorted(old["train_loss_b"])
    assert set(Store(folder).paths()["lambda"]) >= {1 / 6, 5 / 6}


def test_uncompacted_pairs_of_a_killed_sweep_are_read_too(folder: Path, tmp_path: Path) -> None:
    store, new = Store(folder), Store(tmp_path / "new")
    results = store.pairs(planned())
    specs = stored("results").set_index("test_loss_a")
    for number, result in enumerate(results):
        old = specs.loc[result.row["test_loss_a"]]
        row = {**result.row, **old[["key", "cell", "spec"]].to_dict(), "test_loss_a": result.row["test_loss_a"]}
        for name in ("question", "member_a", "member_b"):
            row[name] = None
        new.write_shard(f"c{number}", [PairResult(row=row, paths=result.paths, curves=result.curves)])
    assert {key: question for key, (_, question) in new.answers().items()} == planned()
    assert {result.key for result in new.pairs(planned())} == set(planned())
