import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lmc_tune
from lmc_tune.core.barrier import DEFINITIONS
from lmc_tune.experiment import GroupSpec, VerdictSpec
from lmc_tune.storage import write_text
from lmc_tune.tables import store as module
from lmc_tune.tables.columns import BARRIER_COLUMNS, CURVES, PATHS, RESULTS_SCHEMA, VIEW
from lmc_tune.tables.rows import PairResult, Row, failed_result, gate, spec_columns
from lmc_tune.tables.store import DamagedTableError, Store, load_results
from tests.cases import pair_of, pair_spec

PROMISED = """
key, status, reason, dataset, model, norm, optimizer, lr, batch_size, epochs, shift, severity, noise, spawn_epoch,
replicate, noise_scale, steps, train_loss_a, train_loss_b, train_accuracy_a, train_accuracy_b, test_loss_a,
test_loss_b, test_accuracy_a, test_accuracy_b, test_error_barrier_chord, test_error_barrier_endpoint_mean,
test_loss_barrier_chord, test_loss_barrier_endpoint_mean, test_loss_barrier_local_minima, train_loss_barrier_chord,
accuracy_difference, barrier_lambda, under_resolved, distance, distance_a, distance_b, disagreement, error_overlap,
label_shift, covariate_shift, seconds_train, seconds_measure, device
""".replace(",", " ").split()
GATE = VerdictSpec(min_train_accuracy=0.5)
BELOW = "train accuracy below the gate of"
LIGHT = (
    "lmc_tune",
    "lmc_tune.core.barrier",
    "lmc_tune.core.statistics",
    "lmc_tune.core.measured_shift",
    "lmc_tune.core.similarity",
    "lmc_tune.experiment",
    "lmc_tune.experiment.space",
    "lmc_tune.experiment.reading",
    "lmc_tune.tables.rows",
    "lmc_tune.work.bench",
    "lmc_tune.data.files",
)
HEAVY = {"torch", "torchvision", "ray", "mlflow", "optuna", "altair"}


# Of results like these: tables that nobody asked for have no file.
WRITTEN = {"results.parquet", "paths.parquet", "curves.parquet", "barriers.parquet"}


def result(replicate: int = 0, *, accuracy: float = 0.9, height: float = 0.25, status: str = "ok") -> PairResult:
    """Every column filled with a value of its type; two paths of three points, two curves of two epochs."""
    spec = pair_spec(replicate=replicate)
    values = {"double": 0.5 + replicate, "int64": 7 + replicate, "bool": True, "string": "x"}
    row = {field.name: values[str(field.type)] for field in RESULTS_SCHEMA} | spec_columns(spec)
    row |= {"status": status, "reason": "", "device": "cpu", "test_error_barrier_chord": height}
    row |= {"train_accuracy_a": accuracy, "train_accuracy_b": 0.9}
    paths = [
        {"condition": "naive", "split": split, "lambda": x, "loss_sum": 1.5 + x, "correct": 3, "n": 4}
        for split in ("test", "train")
        for x in (0.0, 0.5, 1.0)
    ]
    numbers = {"lr": 0.1, "train_loss": 1.0, "train_accuracy": 0.5, "test_loss": 1.25, "test_accuracy": math.pi}
    curves = [{"member": m, "step": 5 * e, "epoch": float(e), **numbers} for m in ("a", "b") for e in (1, 2)]
    return pair_of(row, paths=paths, curves=curves)


def with_layers(one: PairResult, layers: list[Row]) -> PairResult:
    return replace(one, tables={**one.tables, "layers": layers})


def keys(*replicates: int) -> list[str]:
    return [pair_spec(replicate=k).key for k in replicates]


def by_key(results: list[PairResult]) -> dict[str, PairResult]:
    found = {r.key: r for r in results}
    assert len(found) == len(results)
    return found


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_table_has_every_promised_column_and_every_definition_of_every_curve():
    assert len(PROMISED) == 44
    assert set(PROMISED) <= set(RESULTS_SCHEMA.names)
    assert PATHS.schema.names == ["key", "condition", "split", "lambda", "loss_sum", "correct", "n"]
    assert len(BARRIER_COLUMNS) == 2 * 2 * len(DEFINITIONS) * 2
    assert set(BARRIER_COLUMNS) <= set(RESULTS_SCHEMA.names)
    assert set(VIEW) <= set(RESULTS_SCHEMA.names)


def test_a_rows_columns_repeat_its_spec():
    spec = pair_spec(replicate=2, seed=5, model={"hidden": (8, 4)}, shift={"kind": "label", "ratio": 0.8})
    row = spec_columns(spec)
    assert set(row) <= set(RESULTS_SCHEMA.names)
    assert GroupSpec.model_validate_json(row["spec"]) == spec
    assert row["key"] == spec.key
    assert row["cell"] == pair_spec(seed=5, model={"hidden": (8, 4)}, shift={"kind": "label", "ratio": 0.8}).key
    assert (row["hidden"], row["shift"], row["severity"], row["skew"]) == ("8-4", "label", 0.6, "ratio")
    assert (row["replicate"], row["seed"], row["epochs"], row["step_budget"]) == (2, 5, 2, None)
    assert (row["train_examples"], row["test_examples"], row["validation_examples"]) == (400, 100, 0)


def test_results_come_back_from_a_shard_as_they_were(tmp_path: Path):
    store = Store(tmp_path)
    written = [result(0), result(1, height=math.nan), result(2)]
    store.write_shard("c", written)
    read = store.read_shard("c")
    for one, other in zip(written, read, strict=True):
        assert other.tables["paths"] == one.tables["paths"]
        assert other.tables["curves"] == one.tables["curves"]
        assert _comparable(other.row) == _comparable(one.row)


def _comparable(row: Row) -> Row:
    return {name: "NaN" if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


def test_results_come_back_from_the_tables_as_they_were(tmp_path: Path):
    store = Store(tmp_path)
    written = [result(k) for k in (3, 0, 2)]
    store.write_shard("c", written)
    store.compact(GATE)
    assert files(tmp_path) == WRITTEN
    for read in (store.pairs(keys(0, 2, 3)), list(store.recall("c", keys(0, 2, 3)).values())):
        assert by_key(read) == by_key(written)
    assert store.results()["key"].tolist() == sorted(keys(0, 2, 3))
    assert len(store.table("paths")) == 3 * 6
    assert len(store.table("curves")) == 3 * 4


def test_readers_see_the_same_before_and_after_compaction(tmp_path: Path):
    store = Store(tmp_path)
    store.write_shard("c", [result(k) for k in (3, 0)])
    store.write_shard("d", [result(2)])
    before = store.results(), store.table("paths"), store.table("curves"), store.statuses()
    store.compact(GATE)
    after = store.results(), store.table("paths"), store.table("curves"), store.statuses()
    for one, other in zip(before[:3], after[:3], strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert before[3] == after[3] == dict.fromkeys(keys(0, 2, 3), "ok")


def test_some_columns_are_those_of_the_whole_table(tmp_path: Path):
    store = Store(tmp_path)
    store.write_shard("c", [result(k) for k in (3, 0)])
    store.compact(GATE)
    store.write_shard("d", [result(0, height=0.75), result(2)])
    for _ in range(2):
        some = store.results(["test_error_barrier_chord", "status"])
        pd.testing.assert_frame_equal(some, store.results()[["key", "test_error_barrier_chord", "status"]])
        assert some["test_error_barrier_chord"].tolist().count(0.75) == 1
        store.compact(GATE)


@pytest.mark.parametrize("rows_at_once", [1, 5, 6, 7, 1000])
def test_the_parts_of_the_paths_are_whole_pairs_and_together_all_of_them(tmp_path: Path, rows_at_once):
    store = Store(tmp_path)
    store.write_shard("c", [result(k) for k in range(7)])
    store.compact(GATE)
    table = pq.read_table(tmp_path / "paths.parquet")
    pq.write_table(table, tmp_path / "paths.parquet", row_group_size=rows_at_once)
    store.write_shard("d", [result(3, height=0.75), failed_result(pair_spec(replicate=8), "boom"), result(9)])
    for n_fresh in (2, 0):
        parts = [part.to_pandas() for part in store.parts("paths")]
        keys_of = [set(part["key"]) for part in parts]
        assert sum(map(len, keys_of)) == len(set().union(*keys_of)) == 8
        assert keys_of[-1] == set(keys(3, 9)) if n_fresh else keys_of[-1] <= set(keys(*range(10)))
        assert all(part["key"].is_monotonic_increasing for part in parts)
        together = pd.concat(parts).sort_values(["key", "condition", "split", "lambda"], ignore_index=True)
        pd.testing.assert_frame_equal(together, store.table("paths"))
        store.compact(GATE)


@pytest.mark.parametrize("rows_at_once", [1, 3, 1000])
@pytest.mark.parametrize("name", ["curves", "layers"])
def test_other_tables_come_in_parts_too(tmp_path: Path, name, rows_at_once):
    store = Store(tmp_path)
    layers = [{"layer": layer, "position": at, "distance": 1.0, "cka": 0.5} for at, layer in enumerate("xyz")]
    store.write_shard("c", [with_layers(result(k), layers) for k in range(4)])
    assert sum(map(len, store.parts(name))) > 0
    store.compact(GATE)
    pq.write_table(
        pq.read_table(tmp_path / f"{name}.parquet"), tmp_path / f"{name}.parquet", row_group_size=rows_at_once
    )
    store.write_shard("d", [with_layers(result(9), layers)])
    parts = [part.to_pandas() for part in store.parts(name)]
    assert sum(part["key"].nunique() for part in parts) == 5
    together = pd.concat(parts).sort_values("key", kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(together, store.table(name))
    (tmp_path / f"{name}.parquet").unlink()
    assert {key for part in store.parts(name) for key in part["key"].to_pylist()} == set(keys(9))


def test_a_damaged_part_of_the_paths_is_named(tmp_path: Path):
    store = Store(tmp_path)
    store.write_shard("c", [result(0)])
    store.compact(GATE)
    path = tmp_path / "paths.parquet"
    content = path.read_bytes()
    for damaged in (content[:-20], bytes(4) * (len(content) // 8) + content[len(content) // 2 :]):
        path.write_bytes(damaged)
        with pytest.raises(DamagedTableError, match=f"{path} cannot be read"):
            list(store.parts("paths"))


def test_pairs_without_curves_survive_beside_pairs_with_curves(tmp_path: Path):
    store = Store(tmp_path)
    failed = failed_result(pair_spec(replicate=1), "Traceback: boom")
    store.write_shard("c", [failed, result(0), failed_result(pair_spec(replicate=2), "x")])
    for _ in range(2):
        back = by_key(store.pairs(keys(0, 1, 2)))
        assert (len(back[keys(0)[0]].tables["paths"]), len(back[keys(0)[0]].tables["curves"])) == (6, 4)
        assert (back[failed.key].tables["paths"], back[failed.key].tables["curves"]) == ([], [])
        assert back[failed.key].row["reason"] == "Traceback: boom"
        assert back[failed.key].row["test_loss_a"] is None
        store.compact(GATE)


def test_asking_for_pairs_that_are_not_there_gives_none(tmp_path: Path):
    store = Store(tmp_path)
    assert store.pairs(keys(9)) == []
    assert store.recall("c", keys(9)) == {}
    assert store.statuses() == {}
    assert len(store.results()) == 0
    store.write_shard("c", [result(0)])
    store.compact(GATE)
    assert store.pairs(keys(9)) == []
    assert store.recall("c", keys(9)) == {}


def test_recall_reads_the_tables_and_the_cohorts_own_shard(tmp_path: Path):
    store = Store(tmp_path)
    store.write_shard("c", [result(0)])
    store.compact(GATE)
    store.write_shard("c", [result(1)])
    store.write_shard("other", [result(2)])
    assert set(store.recall("c", keys(0, 1, 2))) == set(keys(0, 1))


@pytest.mark.parametrize("order", [("old", "new"), ("new", "old")])
def test_of_a_pair_in_several_shards_the_newest_wins_whatever_their_names(tmp_path: Path, order):
    store = Store(tmp_path)
    store.write_shard(order[0], [result(0, height=0.125), result(1)])
    store.write_shard(order[1], [result(0, height=0.75)])
    for at, name in enumerate(order):
        os.utime(store.shards / f"{name}.arrow", ns=(at, at))
    for _ in range(2):
        rows = store.results().set_index("key")
        assert len(rows) == 2
        assert rows.loc[keys(0)[0], "test_error_barrier_chord"] == 0.75
        assert len(store.table("paths")) == 12
        assert len(store.table("curves")) == 8
        store.compact(GATE)


@pytest.mark.parametrize("compacted", [False, True])
def test_no_failure_replaces_a_result_whatever_the_clock_says(tmp_path: Path, compacted):
    """Of a worker that was taken for dead and speaks once more, or before a clock that was moved back."""
    store = Store(tmp_path)
    store.write_shard("c-1", [result(0), result(1)])
    if compacted:
        store.compact(GATE)
    store.write_shard(
        "d-1", [failed_result(pair_spec(replicate=0), "boom"), failed_result(pair_spec(replicate=2), "x")]
    )
    later = 2**62
    os.utime(store.shards / "d-1.arrow", ns=(later, later))
    for _ in range(2):
        assert store.statuses() == dict(zip(keys(0, 1, 2), ("ok", "ok", "failed"), strict=True))
        assert sorted(store.results()["status"]) == ["failed", "ok", "ok"]
        assert (len(store.table("paths")), len(store.table("curves"))) == (12, 8)
        store.compact(GATE)
        compacted = True


def test_a_shard_that_is_published_again_while_tables_are_written_stays(tmp_path: Path, monkeypatch):
    store, real = Store(tmp_path), Store._merged

    def merged(self, name, *rest):
        store.write_shard("c-1", [result(0), result(1)])
        return real(self, name, *rest)

    store.write_shard("c-1", [result(0)])
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Store, "_merged", merged)
        store.compact(GATE)
    assert set(store.statuses()) == set(keys(0, 1))


def test_a_shard_replaces_what_the_tables_hold_of_its_pairs(tmp_path: Path):
    store = Store(tmp_path)
    store.write_shard("c", [failed_result(pair_spec(replicate=0), "boom"), result(1)])
    store.compact(GATE)
    store.write_shard("c", [result(0)])
    for _ in range(2):
        assert store.statuses() == dict.fromkeys(keys(0, 1), "ok")
        assert len(store.table("paths")) == 12
        store.compact(GATE)


@pytest.mark.parametrize("crash_at", range(6))
def test_a_crash_during_compaction_loses_and_doubles_nothing(tmp_path: Path, monkeypatch, crash_at):
    """Four files are published, then two shards removed; the process dies after so many of these."""
    store = Store(tmp_path)
    store.write_shard("a", [result(0), result(1)])
    store.compact(GATE)
    store.write_shard("b", [result(1, height=0.75), result(2)])
    store.write_shard("c", [result(3)])
    for at, name in enumerate("bc"):
        os.utime(store.shards / f"{name}.arrow", ns=(at, at))
    expected = store.results(), store.table("paths"), store.table("curves")
    assert len(expected[0]) == 4

    done = 0

    def dying(real):
        def step(*args, **kwargs):
            nonlocal done
            if done == crash_at:
                raise KeyboardInterrupt
            done += 1
            return real(*args, **kwargs)

        return step

    with monkeypatch.context() as crash:
        crash.setattr(module, "_publish", dying(module._publish))
        crash.setattr(Path, "unlink", _only_shards(dying(Path.unlink), Path.unlink))
        with pytest.raises(KeyboardInterrupt):
            store.compact(GATE)
    for _ in range(2):
        for one, other in zip(expected, (store.results(), store.table("paths"), store.table("curves")), strict=True):
            pd.testing.assert_frame_equal(one, other)
        store.compact(GATE)
    assert files(tmp_path) == WRITTEN


def _only_shards(dying, real):
    return lambda path, **kwargs: (dying if path.parent.name == "shards" else real)(path, **kwargs)


def test_compacting_twice_or_nothing_changes_nothing(tmp_path: Path):
    store = Store(tmp_path)
    store.compact(GATE)
    assert len(store.results()) == 0
    store.write_shard("c", [result(0)])
    store.compact(GATE)
    first = store.results()
    store.compact(GATE)
    pd.testing.assert_frame_equal(store.results(), first)


@pytest.mark.parametrize(
    ("a", "b", "threshold", "status", "reason"),
    [
        (0.5, 0.9, 0.5, "ok", ""),
        (0.49, 0.9, 0.5, "undertrained", f"{BELOW} 50.0%: member A reached 49.0%"),
        (0.9, 0.1, 0.5, "undertrained", f"{BELOW} 50.0%: member B reached 10.0%"),
        (0.2, 0.1, 0.3, "undertrained", f"{BELOW} 30.0%: member A reached 20.0% and member B reached 10.0%"),
        (0.0, 0.0, 0.0, "ok", ""),
    ],
)  # fmt: skip
def test_the_gate_needs_both_members(a, b, threshold, status, reason):
    for before in ("ok", "undertrained"):
        row = {"status": before, "reason": "earlier", "train_accuracy_a": a, "train_accuracy_b": b, "lr": 0.1}
        judged = gate(row, threshold)
        assert (judged["status"], judged["reason"], judged["lr"]) == (status, reason, 0.1)
        assert row["status"] == before


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_the_gate_leaves_other_statuses_alone(status):
    row = {"status": status, "reason": "why", "train_accuracy_a": None, "train_accuracy_b": 0.0}
    assert gate(row, 0.5) == row


def test_the_gate_is_applied_again_whenever_tables_are_compacted(tmp_path: Path):
    store = Store(tmp_path)
    store.write_shard("c", [result(0, accuracy=0.6), result(1, accuracy=0.9)])
    seen = []
    for threshold in (0.5, 0.7, 0.95, 0.5):
        store.compact(VerdictSpec(min_train_accuracy=threshold))
        statuses = store.statuses()
        seen.append((statuses[keys(0)[0]], statuses[keys(1)[0]]))
    under = "undertrained"
    assert seen == [("ok", "ok"), (under, "ok"), (under, under), ("ok", "ok")]
    assert store.results()["reason"].tolist() == ["", ""]


@pytest.mark.parametrize("damage", [b"", b"PAR1 not a table", None])
@pytest.mark.parametrize("name", ["results.parquet", "paths.parquet", "curves.parquet", "shards/c.arrow"])
def test_a_damaged_table_is_named_with_the_mend(tmp_path: Path, name, damage):
    store = Store(tmp_path)
    store.write_shard("c", [result(0)])
    store.compact(GATE)
    store.write_shard("c", [result(1)])
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
    message = (
        rf"{path} cannot be read \(.*\)\. Restore it from a copy, or move .*away and run the same sweep again: "
        r"only the pairs in it are run again\."
    )
    with pytest.raises(DamagedTableError, match=message):
        store.compact(GATE)
    with pytest.raises(DamagedTableError, match=message):
        store.recall("c", keys(0))


@pytest.mark.parametrize("later", ["disagreement", "engine", "engine_reason"])
def test_columns_that_came_after_a_table_are_null_in_it(tmp_path: Path, later: str):
    """In a table, in a shard, and in what is compacted from both."""
    store = Store(tmp_path)
    store.write_shard("c", [result(0)])
    store.compact(GATE)
    store.write_shard("c", [result(1)])
    path, shard = tmp_path / "results.parquet", tmp_path / "shards" / "c.arrow"
    pq.write_table(pq.read_table(path).drop_columns([later]), path)
    with pa.OSFile(str(shard)) as file:
        older = pa.ipc.open_file(file).read_all().drop_columns([later])
    with pa.ipc.new_file(shard, older.schema) as file:
        file.write_table(older)
    store.check()
    assert store.results([later])[later].isna().tolist() == [True, True]
    assert [pair.row[later] for pair in store.pairs(keys(0, 1))] == [None, None]
    store.write_shard("d", [result(2)])
    store.compact(GATE)
    found = store.results()
    assert list(found.columns) == RESULTS_SCHEMA.names
    assert found[later].isna().sum() == 2
    pq.write_table(pq.read_table(tmp_path / "results.parquet").drop_columns(["status"]), tmp_path / "results.parquet")
    with pytest.raises(DamagedTableError, match="status"):
        store.results()


def test_columns_that_came_after_rows_nested_in_a_shard_are_null_in_them(tmp_path: Path):
    store, later = Store(tmp_path), "merge_gain"
    store.write_shard("c", [result(0), result(1)])
    shard = tmp_path / "shards" / "c.arrow"
    with pa.OSFile(str(shard)) as file:
        today = pa.ipc.open_file(file).read_all()
    at = today.schema.get_field_index("barriers")
    fields = [field for field in today.schema.field(at).type.value_type if field.name != later]
    rows = [
        [{name: value for name, value in row.items() if name != later} for row in of]
        for of in today["barriers"].to_pylist()
    ]
    older = today.set_column(at, "barriers", pa.array(rows, pa.list_(pa.struct(fields))))
    with pa.ipc.new_file(shard, older.schema) as file:
        file.write_table(older)
    expected = [{**row, later: None} for row in rows[0]]
    assert store.recall("c", keys(0))[keys(0)[0]].tables["barriers"] == expected
    before = store.results()
    store.compact(GATE)
    pd.testing.assert_frame_equal(store.results(), before)
    assert before[later].isna().all()
    assert before["test_error_barrier_chord"].notna().all()


def test_a_table_of_a_newer_version_is_refused_since_compacting_would_lose_its_columns(tmp_path: Path):
    store = Store(tmp_path)
    store.write_shard("c", [result(0)])
    store.compact(GATE)
    path = tmp_path / "results.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("sharpness", table["distance"]), path)
    for use in (store.check, lambda: store.compact(GATE)):
        with pytest.raises(
            DamagedTableError, match="written by a newer lmc-tune, as its column 'sharpness' tells; update"
        ):
            use()


def test_after_moving_a_damaged_table_away_the_rest_is_still_there(tmp_path: Path):
    store = Store(tmp_path)
    store.write_shard("c", [result(0)])
    store.compact(GATE)
    store.write_shard("c", [result(1)])
    (tmp_path / "results.parquet").unlink()
    assert list(store.statuses()) == keys(1)
    store.compact(GATE)
    assert len(store.table("paths")) == 6  # curves of a pair that has no row are dropped


def test_a_folder_without_results_is_named_with_the_command_that_makes_them(tmp_path: Path):
    folder = tmp_path / "empty"
    folder.mkdir()
    with pytest.raises(
        FileNotFoundError, match=f"^no results in {folder}; start one with: lmc-tune sweep SPACE --out {folder}$"
    ):
        load_results(folder)


def test_load_results_reads_shards_and_tables(tmp_path: Path):
    store = Store(tmp_path)
    store.write_shard("c", [result(0)])
    assert lmc_tune.load_results(tmp_path)["key"].tolist() == keys(0)
    store.compact(GATE)
    store.write_shard("d", [result(1)])
    frame = lmc_tune.load_results(str(tmp_path))
    assert frame["key"].tolist() == sorted(keys(0, 1))
    assert frame.columns.tolist() == [*RESULTS_SCHEMA.names, "planned", "stale"]
    assert frame[["planned", "stale"]].drop_duplicates().to_dict("records") == [{"planned": True, "stale": False}]


def test_an_unknown_column_names_the_nearest(tmp_path: Path):
    Store(tmp_path).write_shard("c", [result(0)])
    for wrong, near in (
        ("lrr", "lr"),
        ("batchsize", "batch_size"),
        ("test_eror_barrier_chord", "test_error_barrier_chord"),
    ):
        with pytest.raises(ValueError, match=rf"^results have no column '{wrong}'; did you mean {near}\?$"):
            load_results(tmp_path, ["key", wrong])
    assert load_results(tmp_path, ["lr", "stale"]).columns.tolist() == ["key", "lr", "stale"]


def test_a_shard_that_cannot_be_written_leaves_the_old_one_and_no_parts(tmp_path: Path, monkeypatch):
    store = Store(tmp_path)
    store.write_shard("c", [result(0)])

    def full(where, *args, **options):
        where.write(b"half a ta")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(pa.ipc, "new_file", full)
        with pytest.raises(OSError, match="No space left"):
            store.write_shard("c", [result(0), result(1)])
    assert files(tmp_path) == {"shards/c.arrow"}
    assert [r.key for r in store.read_shard("c")] == keys(0)


def test_text_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "é")
    assert path.read_text(encoding="utf-8") == "é"

    def full(file):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_text(path, "other")
    assert path.read_text(encoding="utf-8") == "é"
    assert files(tmp_path) == {"a.txt"}


def test_marks_say_which_pairs_are_being_run(tmp_path: Path):
    store = Store(tmp_path)
    assert store.running() == set()
    store.mark_running("c", ["k1"])
    store.mark_running("d", ["k2"])
    store.mark_running("c", ["k3"])
    assert store.running() == {"k2", "k3"}
    store.unmark_running("d")
    store.unmark_running("never")
    assert store.running() == {"k3"}
    store.clear_running()
    assert store.running() == set()


def test_half_files_of_killed_workers_go_and_checkpoints_stay(tmp_path: Path):
    store = Store(tmp_path)
    store.checkpoints.mkdir()
    for name in ("k1.safetensors", "k2@3.safetensors", ".k2.safetensors.7.part"):
        (store.checkpoints / name).touch()
    assert store.checkpointed() == {"k1", "k2@3"}
    store.clear_running()
    assert files(store.checkpoints) == {"k1.safetensors", "k2@3.safetensors"}


def test_shards_are_listed_with_the_time_of_their_publication_oldest_first(tmp_path: Path):
    store = Store(tmp_path)
    for name, stamp in (("b", 5_000), ("a", 9_000), ("c", 7_000)):
        store.write_shard(name, [result(0)])
        os.utime(store.shards / f"{name}.arrow", ns=(stamp, stamp))
    assert [(p.stem, t) for p, (t, _) in store.shard_stamps().items()] == [("b", 5_000), ("c", 7_000), ("a", 9_000)]


@pytest.mark.parametrize("module_name", LIGHT)
def test_numbers_specs_and_tables_need_neither_torch_nor_ray_nor_mlflow(module_name):
    code = f"import sys, {module_name}; print(sorted(set(sys.modules) & {HEAVY}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_the_package_itself_needs_no_tables():
    code = (
        "import sys, lmc_tune; print(sorted(set(sys.modules) & {'pandas', 'pyarrow', 'numpy'})); lmc_tune.load_results"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
    with pytest.raises(AttributeError, match="module 'lmc_tune' has no attribute 'load_result'"):
        lmc_tune.load_result  # noqa: B018
    assert set(CURVES.schema.names) >= {"key", "member", "step", "epoch", "lr"}


@pytest.mark.parametrize("name", ["results", "paths", "curves"])
def test_a_damaged_or_missing_table_is_refused_before_anything_else(tmp_path: Path, name: str):
    store = Store(tmp_path)
    store.check()
    store.write_shard("c", [result(1)])
    store.compact(GATE)
    store.check()
    table = tmp_path / f"{name}.parquet"
    table.write_bytes(table.read_bytes()[:100])
    with pytest.raises(DamagedTableError, match=rf"{name}\.parquet cannot be read .* Restore it from a copy, or move "):
        store.check()
    table.unlink()
    if name == "results":
        store.check()
    else:
        with pytest.raises(
            DamagedTableError, match=rf"{name}\.parquet is missing\. .* move results\.parquet away too and"
        ):
            store.check()


def test_the_advice_about_a_damaged_table_works(tmp_path: Path):
    """Its results moved away, a pair is unknown, whatever the other tables still say of it, until it is run again."""
    store = Store(tmp_path)
    one, two = result(1), result(2)
    store.write_shard("c", [one, two])
    store.compact(GATE)
    for name in ("results", "paths"):
        (tmp_path / f"{name}.parquet").unlink()
    store.check()
    assert store.recall("c", [one.key, two.key]) == {}
    assert store.pairs([one.key]) == []
    store.write_shard("c", [one])
    store.compact(GATE)
    assert [found.key for found in store.pairs([one.key, two.key])] == [one.key]
    assert set(store.table("curves")["key"]) == set(store.table("paths")["key"]) == {one.key}
