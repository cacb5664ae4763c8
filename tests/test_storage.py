"""Run folders on a disk and in a bucket: the same laws for both, and what only a bucket can do: be away."""

import pickle
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO

import pandas as pd
import pytest

from lmc_tune.experiment import VerdictSpec
from lmc_tune.storage import (
    BucketPath,
    FolderError,
    Place,
    StorageError,
    files,
    place_at,
    replacing,
    write_text,
    written,
)
from lmc_tune.sweeps import lease
from lmc_tune.sweeps.ownership import is_owned, owned
from lmc_tune.tables.columns import TABLES
from lmc_tune.tables.planned import MARKS
from lmc_tune.tables.rows import failed_result
from lmc_tune.tables.store import DamagedTableError, Store, load_results
from lmc_tune.tracking.connection import own_store
from tests.buckets import Wire, address, s3_server
from tests.cases import pair_spec
from tests.tables.test_store import keys, result

GATE = VerdictSpec()


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with s3_server("runs") as port:
        yield port


@pytest.fixture
def wire(server: int) -> Iterator[Wire]:
    wire = Wire(server)
    yield wire
    wire.cut()


@pytest.fixture(params=["disk", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "disk":
        return tmp_path
    return place_at(address(request.getfixturevalue("server"), f"runs/{tmp_path.name}"))


@pytest.fixture
def bucket(wire: Wire, tmp_path: Path) -> BucketPath:
    """A folder at the far end of a wire."""
    place = place_at(address(wire.port, f"runs/{tmp_path.name}"))
    assert isinstance(place, BucketPath)
    return place


def address_without(wire: Wire, bucket: BucketPath) -> Place:
    """The same folder by the server's own port."""
    return place_at(str(bucket).replace(f":{wire.port}", f":{wire.to}"))


def names(folder: Place, end: str = "") -> set[str]:
    return {file.name for file in files(folder, end=end)}


def test_what_is_written_is_read_replaced_listed_and_removed(folder: Place):
    file = folder / "a.txt"
    assert (file.exists(), written(file), names(folder)) == (False, 0, set())
    for text in ("first", "second, λ = ½"):
        write_text(file, text)
        assert file.read_text(encoding="utf-8") == text
    with file.open("rb") as opened:
        opened.seek(1)
        assert opened.read(3) == b"eco"
    write_text(folder / "b.txt", "x")
    (folder / "below").mkdir(parents=True, exist_ok=True)
    write_text(folder / "below" / "c.txt", "y")
    assert (names(folder, ".txt"), names(folder / "below"), names(folder / "nowhere")) == (
        {"a.txt", "b.txt"},
        {"c.txt"},
        set(),
    )
    assert files(folder, start="b", end="xt")[folder / "b.txt"][1] == 1
    assert abs(written(file) / 1e9 - time.time()) < 60
    assert (folder / "below").exists()
    file.unlink()
    file.unlink(missing_ok=True)
    assert not file.exists()
    with pytest.raises(FileNotFoundError):
        file.read_text()


def test_who_breaks_off_leaves_the_old_file(folder: Place):
    write_text(folder / "a.txt", "old")

    def tear() -> None:
        with replacing(folder / "a.txt") as file:
            file.write(b"new, half")
            raise RuntimeError("torn")

    with pytest.raises(RuntimeError, match="torn"):
        tear()
    assert ((folder / "a.txt").read_text(), names(folder)) == ("old", {"a.txt"})


def test_a_place_survives_the_way_to_another_process(folder: Place):
    write_text(folder / "a.txt", "x")
    assert (pickle.loads(pickle.dumps(folder)) / "a.txt").read_text() == "x"  # noqa: S301 - our own


def test_tables_are_the_same_wherever_they_are(folder: Place, tmp_path: Path):
    """Every reader, before and after two compactions, against a folder on disk that nobody compacts."""
    plain = Store(tmp_path / "plain")
    store = Store(folder / "run")
    written_ = [
        ("c-1", [result(0, height=0.125), result(1)]),
        ("d-1", [result(2), failed_result(pair_spec(replicate=3), "boom")]),
        ("c-2", [result(0, height=0.125), result(1), result(4)]),
        ("e-1", [result(3)]),
    ]
    for at, (name, results) in enumerate(written_):
        for one in (plain, store):
            one.write_shard(name, results)
        if at == 1:
            assert store.compact(GATE)
        store.check()
        assert store.statuses() == plain.statuses()
        for table in TABLES:
            pd.testing.assert_frame_equal(store.table(table), plain.table(table))
        recalled, expected = (one.recall("c", keys(0, 1)) for one in (store, plain))
        assert recalled == expected
        parts = pd.concat([part.to_pandas() for part in store.parts("paths")]).sort_values(
            ["key", "condition", "split", "lambda"]
        )
        pd.testing.assert_frame_equal(parts.reset_index(drop=True), store.table("paths"))
    assert store.compact(GATE)
    assert not store.compact(GATE)
    assert not store.shard_stamps()
    pd.testing.assert_frame_equal(load_results(folder / "run").drop(columns=list(MARKS)), plain.results())
    assert len(plain.results()) == 5


def test_marks_and_checkpoints_are_found_and_cleared(folder: Place):
    store = Store(folder)
    store.mark_running("c-1", ["k1", "k2"])
    store.mark_running("d-1", ["k3"])
    store.checkpoints.mkdir(parents=True, exist_ok=True)
    write_text(store.checkpoints / "k2.safetensors", "")
    assert (store.running(), store.checkpointed()) == ({"k1", "k2", "k3"}, {"k2"})
    store.unmark_running("c-1")
    assert store.running() == {"k3"}
    store.clear_running()
    assert (store.running(), store.checkpointed()) == (set(), {"k2"})


@pytest.mark.parametrize("damage", [lambda whole: whole[:-20], lambda whole: whole[:4] + bytes(600) + whole[604:]])
def test_a_damaged_table_is_named_wherever_it_is_and_not_waited_for(folder: Place, damage: Callable[[bytes], bytes]):
    store = Store(folder)
    store.write_shard("c-1", [result(0)])
    store.compact(GATE)
    whole = (store.folder / "paths.parquet").read_bytes()
    with replacing(store.folder / "paths.parquet") as file:
        file.write(damage(whole))
    with pytest.raises(DamagedTableError, match=r"paths\.parquet\S* cannot be read"):
        store.table("paths")


def test_ctrl_c_while_a_table_is_sent_leaves_a_whole_one(bucket: BucketPath, monkeypatch):
    """Half has been sent when it comes."""
    new = "new" * 1000

    def halfway(file: IO[bytes], stream: IO[bytes], _size: int) -> None:
        stream.write(file.read(len(new) // 2))
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.5)
        stream.write(file.read())

    write_text(bucket / "table", "old")
    monkeypatch.setattr(shutil, "copyfileobj", halfway)
    with pytest.raises(KeyboardInterrupt):
        write_text(bucket / "table", new)
    assert (bucket / "table").read_text() == new


def test_who_lost_the_folder_replaces_no_table_even_if_it_waited_for_the_storage(bucket: BucketPath, wire: Wire):
    """The old driver's upload is held up; meanwhile a new one finishes the sweep."""
    old, new, lost = Store(bucket), Store(address_without(wire, bucket)), threading.Event()
    old.write_shard("c-1", [result(0)])

    def check() -> None:
        if lost.is_set():
            raise FolderError("taken over")

    def take_over() -> None:
        lost.set()
        new.write_shard("d-1", [result(1)])
        new.compact(GATE)
        time.sleep(8)  # an attempt of Arrow's, its own repetitions included, is over by then
        wire.mend()

    wire.cut()
    taking = threading.Timer(1, take_over)
    taking.start()
    with pytest.raises(FolderError, match="taken over"), replacing(bucket / "results.parquet", check) as file:
        file.write(b"stale")
    taking.join()
    assert set(new.statuses()) == set(keys(0, 1))
    with pytest.raises(FolderError, match="taken over"):
        old.compact(VerdictSpec(min_train_accuracy=0.99), check)
    assert set(new.statuses().values()) == {"ok"}


def test_a_file_that_is_replaced_all_the_time_is_read_whole(folder: Place):
    """Of growing content: the size that a reader asked for is that of the one before."""
    stop, file = threading.Event(), folder / "growing.txt"
    write_text(file, "x")

    def grow() -> None:
        size = 1
        while not stop.is_set():
            size = size % 500 + 7
            write_text(file, "x" * size + "end")

    growing = threading.Thread(target=grow)
    write_text(file, "end")
    growing.start()
    try:
        assert {file.read_text(encoding="utf-8")[-3:] for _ in range(60)} == {"end"}
    finally:
        stop.set()
        growing.join()


def test_a_service_that_is_away_for_a_while_costs_the_while(bucket: BucketPath, wire: Wire):
    store = Store(bucket)
    store.write_shard("c-1", [result(0)])
    wire.cut()
    mended = threading.Timer(4, wire.mend)
    mended.start()
    started = time.monotonic()
    store.write_shard("c-1", [result(0), result(1)])
    assert time.monotonic() - started > 3
    assert set(store.statuses()) == set(keys(0, 1))


def test_a_reader_waits_as_well(bucket: BucketPath, wire: Wire):
    store = Store(bucket)
    store.write_shard("c-1", [result(0)])
    wire.cut()
    threading.Timer(2, wire.mend).start()
    assert set(store.statuses()) == set(keys(0))


def test_a_service_that_stays_away_is_told_with_what_to_do(bucket: BucketPath, wire: Wire):
    store = Store(bucket)
    store.write_shard("c-1", [result(0)])
    wire.cut()
    hasty = Store(replace(bucket, patience=1))
    with pytest.raises(StorageError, match=r"could not be reached for 1 s .*run the same command again"):
        hasty.write_shard("c-1", [result(0), result(1)])
    with pytest.raises(StorageError):
        hasty.results()
    wire.mend()
    assert set(store.statuses()) == set(keys(0))


def test_a_wire_cut_in_the_middle_of_a_large_file_leaves_the_old_one(bucket: BucketPath, wire: Wire):
    """Of 40 MB, which go in several parts, some have come when the wire is cut."""
    write_text(bucket / "large", "old")
    before = wire.passed

    def cut() -> None:
        while wire.passed < before + 15e6:
            time.sleep(0.001)
        wire.cut()

    cutting = threading.Thread(target=cut)
    cutting.start()
    with pytest.raises(StorageError), replacing(replace(bucket, patience=1) / "large") as file:
        file.write(bytes(40_000_000))
    cutting.join()
    wire.mend()
    assert (bucket / "large").read_text() == "old"


def test_a_right_that_is_missing_is_told_at_once(bucket: BucketPath, monkeypatch):
    """In the words of Arrow, of a server that answers 403."""
    said = "When reading: AWS Error ACCESS_DENIED during GetObject operation: Access Denied"

    class Refusing:
        def open_input_file(self, _key: str) -> None:
            raise OSError(said)

    monkeypatch.setattr(BucketPath, "service", lambda _self: Refusing())
    started = time.monotonic()
    with pytest.raises(StorageError, match=r"this machine may not use .*: When reading.*permission to list the bucket"):
        (bucket / "a.txt").open()
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the name of a folder is empty"),
        ("s3://bucket", "names no folder"),
        ("abfs://box/run", "cannot keep runs at abfs://"),
        ("s3:/bucket/run", "write s3://BUCKET/FOLDER"),
        ("ftp://host/run", "cannot keep runs at ftp://"),
        ("s3://key:secret@bucket/run", "must not hold credentials"),
        ("s3://bucket/../run", "names no folder"),
        ("s3:///run", "names no folder"),
    ],
)
def test_an_address_that_cannot_work_is_refused_with_one_that_can(text: str, said: str):
    with pytest.raises(FolderError, match=said) as refused:
        place_at(text)
    assert "secret@" not in str(refused.value)


def test_a_bucket_that_is_not_there_is_named_at_once(server: int):
    with pytest.raises(FolderError, match="there is no bucket 'nobodys'; make it first"):
        place_at(address(server, "nobodys/run"))


def test_a_service_that_does_not_answer_is_told_at_once(wire: Wire):
    wire.cut()
    started = time.monotonic()
    with pytest.raises(FolderError, match="cannot be used: "):
        place_at(address(wire.port, "runs/away"))
    assert time.monotonic() - started < 60


def test_the_address_of_a_place_of_any_name_leads_back_to_it(server: int):
    study = place_at(address(server, "runs/studies")) / "does it connect? 50%41"
    write_text(study / "file.txt", "inside")
    assert place_at(str(study)) == study
    assert (place_at(str(study)) / "file.txt").read_text() == "inside"
    assert (place_at(str(study.parent)) / study.name / "file.txt").exists()


def test_paths_stay_paths(tmp_path: Path):
    assert place_at(tmp_path) == tmp_path
    assert place_at("runs/x") == Path("runs/x")
    assert place_at("file:///runs/x") == Path("/runs/x")
    assert place_at("s3x/y") == Path("s3x/y")


@pytest.fixture
def quick_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"_BEAT_SECONDS": 0.1, "_GONE_SECONDS": 1.5, "_SETTLING_SECONDS": 0.3}.items():
        monkeypatch.setattr(lease, name, seconds)


@pytest.mark.usefixtures("quick_lease")
def test_a_folder_in_a_bucket_has_one_holder_who_is_named(bucket: BucketPath):
    assert not is_owned(bucket)
    with owned(bucket) as check:
        assert is_owned(bucket)
        with pytest.raises(FolderError, match=r"another lmc-tune \(process \d+ on \S+\) is at work"), owned(bucket):
            pass
        check()
    assert not is_owned(bucket)
    with owned(bucket):
        pass


def test_mlflow_stores_of_runs_in_buckets_are_apart_from_each_other_and_from_local_ones(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = BucketPath("s3://box", PurePosixPath("runs/tiny"))
    other = BucketPath("s3://box", PurePosixPath("mine/tiny"))
    assert own_store(one) == tmp_path / "runs/s3/box/runs/tiny/mlflow.db"
    assert len({own_store(one), own_store(other), own_store(Path("runs/tiny"))}) == 3


@pytest.mark.usefixtures("quick_lease")
@pytest.mark.parametrize("mark", ['{"owner": "1f", "host": "spot-7", "process": 12, "beat": 5, "since": 1}', "{}", ""])
def test_a_holder_that_is_gone_is_waited_for_and_followed(bucket: BucketPath, mark: str):
    write_text(bucket / "owner.json", mark)
    started = time.monotonic()
    with owned(bucket):
        assert time.monotonic() - started > 1.5


@pytest.mark.usefixtures("quick_lease")
def test_who_lost_the_folder_is_told_and_leaves_it_to_the_other(bucket: BucketPath):
    with owned(bucket) as check:
        other = '{"owner": "1f", "host": "head-2", "process": 12, "beat": 0}'
        write_text(bucket / "owner.json", other)
        time.sleep(0.5)
        with pytest.raises(FolderError, match="process 12 on head-2"):
            check()
    assert (bucket / "owner.json").read_text() == other
