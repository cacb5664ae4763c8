"""What the driver is told while workers are busy."""

import io
import queue
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from lmc_tune.cli import terminal as progress
from lmc_tune.cli.terminal import listener_for
from lmc_tune.experiment.reading import parse_space
from lmc_tune.sweeps import watch
from lmc_tune.sweeps.keeping import Keeping
from lmc_tune.sweeps.ownership import owned, write_description
from lmc_tune.sweeps.run import Options, _Trainer
from lmc_tune.sweeps.watch import Watch
from lmc_tune.tables.rows import PairResult
from lmc_tune.tables.store import Store
from tests.sweeps.cases import PAIRS, SPACE
from tests.tracking.cases import pair_result, pair_spec

KEPT = Keeping(keep=False, members=2 * PAIRS, bytes=0)


def test_pairs_are_told_as_they_finish_and_silence_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch, "_SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(watch, "_SECONDS_OF_SILENCE", 0.02)
    store, told = Store(tmp_path), queue.Queue[str]()
    before, during = pair_result(pair_spec(replicate=0)), pair_result(pair_spec(replicate=1))
    store.write_shard("before", [before])

    def on_results(results: list[PairResult]) -> None:
        for result in results:
            told.put(result.key)

    with Watch(store, on_results, lambda: told.put("silence")):
        assert [told.get(timeout=30) for _ in range(2)] == ["silence", "silence"]
        store.write_shard("during", [during])
        while (heard := told.get(timeout=30)) == "silence":
            pass
        assert heard == during.key
        assert told.get(timeout=30) == "silence"
        again = replace(during, columns={**during.columns, "question": "another"})
        store.write_shard("again", [before, again])
        while (heard := told.get(timeout=30)) == "silence":
            pass
        assert heard == during.key
        assert told.get(timeout=30) == "silence"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "0/16 pairs, 2 running, 0 s so far, about 8 s left"),
        ({"max_pairs": 3}, "0/16 pairs, 2 running, 0 s so far"),
        ({"search": "adaptive"}, "0/16 pairs, 2 running, 0 s so far"),
    ],
)
def test_silence_says_what_is_running_and_how_long_all_will_take_if_all_are_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str | int], told: str
):
    monkeypatch.setattr(progress.time, "monotonic", lambda: 0.0)
    space, store, stream = parse_space(SPACE), Store(tmp_path), io.StringIO()
    first, *rest = space.pairs()
    write_description(tmp_path, space, workers=1, planned_pairs=PAIRS)
    answer = pair_result(first)
    answer = replace(answer, columns={**answer.columns, "question": space.measure.of(first.model).key})
    store.write_shard("c", [answer])  # 380 steps in 1.75 s; 2 x 4 x (200 + 40) - 200 are left
    store.mark_running("d", [pair.key for pair in rest[:2]])
    with owned(tmp_path), listener_for(stream) as listener:
        listener.start(PAIRS, Counter())
        options = Options(data_root=tmp_path, **given)
        _Trainer(
            space=space,
            pairs=space.pairs(),
            store=store,
            check_owned=lambda: None,
            options=options,
            listener=listener,
            mirror=None,
            kept=KEPT,
        )._on_silence()
    assert stream.getvalue().splitlines() == ["16 pairs", told]


def test_the_terminal_says_once_that_another_engine_trains_and_why(tmp_path: Path):
    class Mirror:
        def send(self, results: list[PairResult]) -> None:
            pass

    space, stream, reason = parse_space(SPACE), io.StringIO(), "in 3 steps a stack came to another weight than the loop"
    usual, *others = [pair_result(pair) for pair in space.pairs()[:3]]
    usual.row["engine_reason"] = ""
    for other in others:
        other.row["engine_reason"] = reason
    write_description(tmp_path, space, workers=1, planned_pairs=PAIRS)
    with owned(tmp_path) as check_owned, listener_for(stream) as listener:
        trainer = _Trainer(
            space=space,
            pairs=space.pairs(),
            store=Store(tmp_path),
            check_owned=check_owned,
            options=Options(data_root=tmp_path),
            listener=listener,
            mirror=Mirror(),
            kept=KEPT,
        )
        listener.start(PAIRS, Counter())
        for result in (usual, *others):
            trainer._on_results([result])
    (told,) = (line for line in stream.getvalue().splitlines() if "engine" in line)
    assert told == f"mlp 8 is trained by engine: loop: {reason}. The column engine_reason has the reason for every pair"
