"""What the driver is told while workers are busy."""

import queue
from pathlib import Path

import pytest

from lmc_tune.results import PairResult
from lmc_tune.store import Store
from lmc_tune.sweep import watch
from lmc_tune.sweep.watch import Watch
from tests.tracking.cases import pair_result, pair_spec


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
